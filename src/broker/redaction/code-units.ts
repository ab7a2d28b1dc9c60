// What the readers of escapes have in common: hex digits, code points, and pairs of surrogates.

/**
 * What an escape has come to: not enough of it yet, none at all, or these bytes for its first
 * `used` bytes. `isLead`: the one byte may be the lead of another escape.
 */
export type EscapeRead =
  | 'more'
  | 'none'
  | {
      readonly bytes: readonly number[];
      readonly used: number;
      readonly isLead?: boolean;
    };

/**
 * Reads the escape that begins with the first of `length` bytes. What stands behind it may be there
 * already; a byte of -1 is the end of everything.
 */
export type ReadEscape = (pending: Int16Array, length: number) => EscapeRead;

/** No escape is read further than this. */
export const escapeBytesMax = 32;

export const isHex = (byte: number): boolean =>
  (byte >= 0x30 && byte <= 0x39) ||
  (byte >= 0x41 && byte <= 0x46) ||
  (byte >= 0x61 && byte <= 0x66);

/** The number behind hex digits; more than 2^40 for more. */
export function hexOf(pending: Int16Array, from: number, to: number): number {
  let value = 0;
  for (let i = from; i < to; i += 1) {
    const byte = pending[i]!;
    value = value * 16 + (byte <= 0x39 ? byte - 0x30 : (byte | 0x20) - 0x57);
  }
  return value;
}

/** The UTF-8 of a code point; of what is none, of U+FFFD. By hand: it is done for each escape. */
export function utf8Of(given: number): readonly number[] {
  const isNone = given > 0x10ffff || (given >= 0xd800 && given <= 0xdfff);
  const point = isNone ? 0xfffd : given;
  if (point < 0x80) return [point];
  const last = 0x80 | (point & 0x3f);
  if (point < 0x800) return [0xc0 | (point >> 6), last];
  const middle = 0x80 | ((point >> 6) & 0x3f);
  if (point < 0x10000) return [0xe0 | (point >> 12), middle, last];
  return [0xf0 | (point >> 18), 0x80 | ((point >> 12) & 0x3f), middle, last];
}

/** Undefined when `count` hex digits stand from the place on. */
export function digitsOf(
  pending: Int16Array,
  length: number,
  { from, count }: { readonly from: number; readonly count: number },
): 'more' | 'none' | undefined {
  for (let i = from; i < from + count; i += 1) {
    if (i >= length) return 'more';
    if (!isHex(pending[i]!)) return 'none';
  }
  return undefined;
}

/** The lead, a letter, four hex digits; and the second half of a pair written the same way. */
export function readUnit(pending: Int16Array, length: number): EscapeRead {
  const digits = digitsOf(pending, length, { from: 2, count: 4 });
  if (digits !== undefined) return digits;
  const unit = hexOf(pending, 2, 6);
  if (unit < 0xd800 || unit > 0xdbff) return { bytes: utf8Of(unit), used: 6 };
  // The first half of a pair: the second decides.
  const alone = { bytes: utf8Of(unit), used: 6 };
  if (length === 6) return 'more';
  if (pending[6] !== pending[0]) return alone;
  if (length === 7) return 'more';
  if (pending[7] !== pending[1]) return alone;
  const more = digitsOf(pending, length, { from: 8, count: 4 });
  if (more !== undefined) return more === 'more' ? 'more' : alone;
  const half = hexOf(pending, 8, 12);
  return half >= 0xdc00 && half <= 0xdfff
    ? { bytes: utf8Of(0x10000 + (unit - 0xd800) * 0x400 + (half - 0xdc00)), used: 12 }
    : alone;
}
