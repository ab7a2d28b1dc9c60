// Bytes as hex digits behind a sign: percent-encoding and quoted-printable.
import { digitsOf, type EscapeRead, hexOf, isHex, readUnit } from './code-units.ts';

/** `%41`. */
export function readPercent(pending: Int16Array, length: number): EscapeRead {
  const digits = digitsOf(pending, length, { from: 1, count: 2 });
  return digits ?? { bytes: [hexOf(pending, 1, 3)], used: 3 };
}

/** As JavaScript's escape() writes. */
export function readPercentU(pending: Int16Array, length: number): EscapeRead {
  if (length === 1) return 'more';
  return pending[1] === 0x75 || pending[1] === 0x55
    ? readUnit(pending, length)
    : readPercent(pending, length);
}

const blanksMax = 16;
const isBlank = (byte: number): boolean => byte === 0x20 || byte === 0x09;

/** `=41`; and `=` at the end of a line, which joins it with the next one. */
export function readQuotedPrintable(pending: Int16Array, length: number): EscapeRead {
  if (length === 1) return 'more';
  if (isHex(pending[1]!)) return readPercent(pending, length);
  let at = 1;
  while (at < length && isBlank(pending[at]!)) at += 1;
  if (at > blanksMax) return 'none';
  if (at === length) return 'more';
  if (pending[at] === 0x0a) return { bytes: [], used: at + 1 };
  if (pending[at] !== 0x0d) return 'none';
  if (at + 1 === length) return 'more';
  return { bytes: [], used: pending[at + 1] === 0x0a ? at + 2 : at + 1 };
}
