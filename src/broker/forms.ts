// The forms in which a secret is looked for. What an escape reader undoes on the way (percent,
// backslash, in any mixture and case) needs no form of its own here.

/**
 * Every byte pattern that stands for one of the values. A value of fewer than 8 bytes is not looked
 * for: it is everywhere.
 */
export function formsOf(sensitive: readonly string[]): Uint8Array[] {
  const forms = new Map<string, Uint8Array>();
  for (const value of sensitive) {
    if (Buffer.byteLength(value) < valueBytesMin) continue;
    for (const form of [...texts(value), ...encodings(Buffer.from(value))])
      forms.set(form, Buffer.from(form));
  }
  return [...forms.values()];
}

export const valueBytesMin = 8;

/**
 * The value itself, in other case, and as it stands in a form, in HTML, and escaped once (found
 * there when it was escaped twice).
 */
function texts(value: string): string[] {
  const html: Readonly<Record<string, string>> = {
    '&': '&amp;',
    '<': '&lt;',
    '>': '&gt;',
    '"': '&quot;',
    "'": '&#39;',
  };
  return [
    value,
    value.toLowerCase(),
    value.toUpperCase(),
    value.replaceAll(' ', '+'),
    value.replace(/[&<>"']/g, (character) => html[character]!),
    value.replace(/[&<>"']/g, (character) => (character === "'" ? '&#x27;' : html[character]!)),
    JSON.stringify(value).slice(1, -1),
    encodeURIComponent(value),
  ];
}

function encodings(bytes: Buffer): string[] {
  const hex = bytes.toString('hex');
  return [
    hex,
    hex.toUpperCase(),
    ...base64Forms(bytes).flatMap((form) => [form, form.replaceAll('+', '-').replaceAll('/', '_')]),
  ];
}

/**
 * In base64 of a longer text a value stands in one of three ways; the characters that it shares
 * with its neighbours are left out.
 */
function base64Forms(bytes: Buffer): string[] {
  const whole = bytes.toString('base64');
  const inside = [0, 1, 2].map((offset) => {
    const text = Buffer.concat([Buffer.alloc(offset), bytes])
      .toString('base64')
      .replace(/=+$/, '');
    const isPartial = (offset + bytes.length) % 3 !== 0;
    return text.slice([0, 2, 3][offset], isPartial ? -1 : undefined);
  });
  return [whole, ...inside];
}
