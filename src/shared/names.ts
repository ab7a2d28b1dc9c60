// Names of members that a caller made up.
const form = /^[A-Za-z_][A-Za-z0-9_.-]{0,39}$/;
const digitsMax = 3;

/**
 * Whether such a name may be said back in a pointer: it looks like a word. SECURITY: a name is the
 * caller's text too, and a key that was put in the wrong place is longer or has more digits.
 */
export function isPlainName(name: string): boolean {
  return form.test(name) && name.replaceAll(/[^0-9]/g, '').length <= digitsMax;
}
