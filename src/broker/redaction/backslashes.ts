// What a backslash and what stands behind it mean, in the languages that write text so.
import { digitsOf, type EscapeRead, hexOf, isHex, readUnit, utf8Of } from './code-units.ts';

const [letterU, letterX] = [0x75, 0x78];

/** What one letter behind a backslash stands for, and some signs, by bytes. */
export const shortEscapes: ReadonlyMap<number, number> = new Map(
  Object.entries({
    '"': 0x22,
    "'": 0x27,
    '/': 0x2f,
    '\\': 0x5c,
    a: 0x07,
    b: 0x08,
    e: 0x1b,
    f: 0x0c,
    n: 0x0a,
    r: 0x0d,
    t: 0x09,
    v: 0x0b,
  }).map(([character, byte]) => [character.charCodeAt(0), byte]),
);

const isSign = (byte: number): boolean =>
  byte >= 0x20 && byte < 0x7f && !/[A-Za-z0-9]/.test(String.fromCharCode(byte));
const meanings = Array.from({ length: 128 }, (_, byte) =>
  isSign(byte) ? byte : shortEscapes.get(byte),
);

/** What a byte behind a backslash stands for by itself: a sign for itself. */
export const escapedMeaning = (byte: number): number | undefined => meanings[byte];

const isOctal = (byte: number): boolean => byte >= 0x30 && byte <= 0x37;
const isBreak = (byte: number): boolean => byte === 0x0a || byte === 0x0d;

/** As JSON, JavaScript and Python write: `\n`, `\"`, `\x41`, `\u0041`. */
export function readBackslash(pending: Int16Array, length: number): EscapeRead {
  if (length === 1) return 'more';
  const second = pending[1]!;
  if (second === letterX) return readDigits(pending, length, 2);
  if (second === letterU) return readUnit(pending, length);
  const meant = escapedMeaning(second);
  return meant === undefined ? 'none' : { bytes: [meant], used: 2 };
}

/**
 * The same and what C, Go, Rust, Perl and shells write besides: `\101`, `\x{41}`, `\u{41}`,
 * `\U00000041`, and a backslash before the end of a line.
 */
export function readC(pending: Int16Array, length: number): EscapeRead {
  if (length === 1) return 'more';
  const second = pending[1]!;
  if (isOctal(second)) return readOctal(pending, length);
  if (isBreak(second)) return readLineEnd(pending, length);
  if (second === 0x55) return readDigits(pending, length, 8);
  const mayBeBraced = second === letterX || second === letterU;
  if (mayBeBraced && length === 2) return 'more';
  return mayBeBraced && pending[2] === 0x7b
    ? readBraces(pending, length)
    : readBackslash(pending, length);
}

/** As stylesheets write: up to six hex digits and, behind them, one blank that belongs to them. */
export function readCss(pending: Int16Array, length: number): EscapeRead {
  if (length === 1) return 'more';
  if (!isHex(pending[1]!)) return readSign(pending, length);
  let at = 2;
  while (at < 7 && at < length && isHex(pending[at]!)) at += 1;
  if (at === length) return 'more'; // a blank may still belong to it
  const isBlank = pending[at] === 0x20 || pending[at] === 0x09 || pending[at] === 0x0a;
  return { bytes: utf8Of(hexOf(pending, 1, at)), used: isBlank ? at + 1 : at };
}

/** As LDAP writes: two hex digits, a byte. */
export function readHexPair(pending: Int16Array, length: number): EscapeRead {
  if (length === 1) return 'more';
  const digits = digitsOf(pending, length, { from: 1, count: 2 });
  if (digits === 'none') return readSign(pending, length);
  return digits ?? { bytes: [hexOf(pending, 1, 3)], used: 3 };
}

function readSign(pending: Int16Array, length: number): EscapeRead {
  const second = pending[1]!;
  if (isBreak(second)) return readLineEnd(pending, length);
  return escapedMeaning(second) === second ? { bytes: [second], used: 2 } : 'none';
}

function readLineEnd(pending: Int16Array, length: number): EscapeRead {
  if (pending[1] === 0x0a) return { bytes: [], used: 2 };
  if (length === 2) return 'more';
  return { bytes: [], used: pending[2] === 0x0a ? 3 : 2 };
}

function readDigits(pending: Int16Array, length: number, count: number): EscapeRead {
  const digits = digitsOf(pending, length, { from: 2, count });
  return digits ?? { bytes: utf8Of(hexOf(pending, 2, 2 + count)), used: 2 + count };
}

const bracedDigitsMax = 8;

function readBraces(pending: Int16Array, length: number): EscapeRead {
  let at = 3;
  while (at < length && isHex(pending[at]!)) at += 1;
  if (at > 3 + bracedDigitsMax) return 'none';
  if (at === length) return 'more';
  return pending[at] === 0x7d && at > 3
    ? { bytes: utf8Of(hexOf(pending, 3, at)), used: at + 1 }
    : 'none';
}

/** Up to three digits, as many as make a byte. */
function readOctal(pending: Int16Array, length: number): EscapeRead {
  let at = 1;
  let value = 0;
  while (at < 4 && at < length && isOctal(pending[at]!)) {
    const next = value * 8 + pending[at]! - 0x30;
    if (next > 0xff) break;
    value = next;
    at += 1;
  }
  if (at === length && at < 4) return 'more';
  return { bytes: utf8Of(value), used: at };
}
