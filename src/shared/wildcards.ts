// Patterns of names as they stand in the configuration: `*` stands for any number of characters,
// every other character for itself. No regular expressions: what is matched comes from strangers,
// and a pattern that takes long or means more than it seems to would be theirs to find.

/** Whether the whole text is as the pattern says; as many steps as both are long, multiplied. */
export function matchesPattern(pattern: string, text: string): boolean {
  const [first = '', ...others] = pattern.split('*');
  const last = others.pop();
  if (last === undefined) return text === first;
  if (!text.startsWith(first)) return false;
  let at = first.length;
  for (const part of others) {
    const found = text.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return text.length - last.length >= at && text.endsWith(last);
}
