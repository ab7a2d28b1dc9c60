// UTF-16 and UTF-32: known by their mark at the beginning or by a charset, read as the UTF-8 that
// they stand for.
import type { Emit } from './escapes.ts';
import { utf8Of } from './code-units.ts';

/** A form of Unicode whose units are wider than a byte. */
export type Width = 'utf16le' | 'utf16be' | 'utf32le' | 'utf32be';

/** A charset that nobody can look through is `unreadable`. */
export type Charset = 'narrow' | 'wide' | 'unreadable';

// Of UTF-16 without a mark the standards say one order, programs another: both are read.
const wide16: readonly Width[] = ['utf16le', 'utf16be'];
const wide32: readonly Width[] = ['utf32le', 'utf32be'];
const names16 = /^(?:x-?)?(?:utf-?16|ucs-?2|(?:cs)?iso-?10646-?ucs-?2|(?:cs)?unicode|unicodef)/;
const names32 = /^(?:x-?)?(?:utf-?32|ucs-?4|(?:cs)?iso-?10646(?:-?ucs-?4)?$)/;
const unreadable =
  /^(?:x-?)?(?:utf-?7|utf-?ebcdic|ucs|iso-?10646|utf-?1$|cp?037|cp?500|ibm|ebcdic|scsu|bocu)/;

/** What a Content-Type says of its text. */
export function charsetOf(contentType: string): { kind: Charset; widths: readonly Width[] } {
  const widths = new Set<Width>();
  let isUnreadable = false;
  for (const [, quoted, plain] of contentType.matchAll(
    /charset\s*=\s*(?:"([^"]*)"|'?([^\s;,"']*))/gi,
  )) {
    const name = (quoted ?? plain ?? '').trim().toLowerCase().replaceAll('_', '-');
    const found = names16.test(name) ? wide16 : names32.test(name) ? wide32 : [];
    for (const width of found) widths.add(width);
    if (found.length === 0 && unreadable.test(name)) isUnreadable = true;
  }
  const kind = isUnreadable ? 'unreadable' : widths.size > 0 ? 'wide' : 'narrow';
  return { kind, widths: [...widths] };
}

const marks: readonly (readonly [mark: Buffer, widths: readonly Width[]])[] = [
  // also the beginning of UTF-32's
  [Buffer.from('fffe', 'hex'), ['utf16le', 'utf32le']],
  [Buffer.from('feff', 'hex'), ['utf16be']],
  [Buffer.from('0000feff', 'hex'), ['utf32be']],
];

/** What a body's mark says; undefined as long as more of it has to be seen. */
export function widthsOfMark(beginning: Uint8Array): readonly Width[] | undefined {
  for (const [mark, widths] of marks) {
    const seen = mark.subarray(0, beginning.length);
    if (!seen.equals(beginning.subarray(0, mark.length))) continue;
    return beginning.length >= mark.length ? widths : undefined;
  }
  return [];
}

/** ASCII text in a width. */
export function inWidth(text: string, width: Width): Buffer {
  const size = sizeOf(width);
  const bytes = Buffer.alloc(text.length * size);
  for (let i = 0; i < text.length; i += 1)
    bytes[i * size + (isLittle(width) ? 0 : size - 1)] = text.charCodeAt(i);
  return bytes;
}

const sizeOf = (width: Width): 2 | 4 => (width.startsWith('utf16') ? 2 : 4);
const isLittle = (width: Width): boolean => width.endsWith('le');

/** Bytes in; the UTF-8 of each character out, with the place where the character stands. */
export class WideDecoder {
  readonly #size: 2 | 4;
  readonly #isLittle: boolean;
  readonly #emit: Emit;
  #unit = 0;
  #seen = 0;
  #start = 0;
  /** The first half of a pair. */
  #half: { readonly unit: number; readonly start: number; readonly end: number } | undefined;

  constructor(width: Width, emit: Emit) {
    this.#size = sizeOf(width);
    this.#isLittle = isLittle(width);
    this.#emit = emit;
  }

  /** Where a character began that is not complete yet. */
  get pendingFrom(): number | undefined {
    return this.#half?.start ?? (this.#seen === 0 ? undefined : this.#start);
  }

  take(byte: number, at: number): void {
    if (this.#seen === 0) this.#start = at;
    const shift = this.#isLittle ? this.#seen : this.#size - 1 - this.#seen;
    this.#unit += byte * 2 ** (8 * shift);
    this.#seen += 1;
    if (this.#seen < this.#size) return;
    const unit = this.#unit;
    this.#unit = 0;
    this.#seen = 0;
    this.#complete(unit, this.#start, at + 1);
  }

  #complete(unit: number, start: number, end: number): void {
    const half = this.#half;
    this.#half = undefined;
    if (half !== undefined) {
      if (unit >= 0xdc00 && unit <= 0xdfff) {
        const point = 0x10000 + (half.unit - 0xd800) * 0x400 + (unit - 0xdc00);
        this.#pass(point, half.start, end);
        return;
      }
      this.#pass(half.unit, half.start, half.end);
    }
    if (this.#size === 2 && unit >= 0xd800 && unit <= 0xdbff) this.#half = { unit, start, end };
    else this.#pass(unit, start, end);
  }

  #pass(point: number, start: number, end: number): void {
    if (point < 0x80) this.#emit(point, start, end);
    else for (const byte of utf8Of(point)) this.#emit(byte, start, end);
  }
}
