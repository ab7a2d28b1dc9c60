// A piece of an answer, cut where the caller said: it can begin in the middle of a secret, which
// then has no beginning to know it by.
import { type EscapeKind, escapeKinds, EscapeReader } from './escapes.ts';
import type { Sought } from './sought.ts';
import { type Width, WideDecoder } from './wide.ts';

/** How much of a piece has to be seen before anything of it may pass. */
export const pieceHeadBytes = 512;

/** Of a short secret fewer bytes are a part that matters; of a long one, fewer are chance. */
const shortSecretBytes = 64;
const [partOfShort, partOfLong] = [4, 8];
/** An escape that was cut in two leaves this much at the most. */
const escapeBytesMax = 12;

/** How many bytes of a secret at a border of a piece count as the secret. */
export const pieceBytesMin = ({ shortestBytes }: Sought): number =>
  shortestBytes < shortSecretBytes ? partOfShort : partOfLong;

/** Whether the beginning lies within something that is looked for, read in any way. */
export function beginsInside(
  all: readonly Sought[],
  beginning: Uint8Array,
  widths: readonly Width[],
): boolean {
  const texts = [bytesOf(beginning), ...widths.map((width) => narrowed(beginning, width))];
  return texts.some((text) =>
    [undefined, ...escapeKinds].some((kind) => {
      const read = joined(kind === undefined ? text : unescaped(text, kind));
      const skips = kind === undefined ? 0 : escapeBytesMax;
      return all.some((sought) => isInside(sought, read, skips));
    }),
  );
}

/**
 * SECURITY: at the very beginning a few bytes are enough; behind what may be left of an escape it
 * takes more.
 */
function isInside(sought: Sought, read: Buffer, skips: number): boolean {
  const least = pieceBytesMin(sought);
  for (let skip = 0; skip <= skips; skip += 1) {
    const length = skip === 0 ? least : partOfLong;
    const part = read.subarray(skip, skip + length);
    if (part.length < length) return false;
    // A pattern's own beginning is found as every other one.
    if (sought.patterns.some((pattern) => bytesOf(pattern).indexOf(part, 1) > 0)) return true;
  }
  return false;
}

const bytesOf = (bytes: Uint8Array): Buffer =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

function narrowed(bytes: Uint8Array, width: Width): Buffer {
  const out: number[] = [];
  const decoder = new WideDecoder(width, (byte) => out.push(byte));
  bytes.forEach((byte, at) => {
    decoder.take(byte, at);
  });
  return Buffer.from(out);
}

function unescaped(bytes: Uint8Array, kind: EscapeKind): Buffer {
  const out: number[] = [];
  const reader = new EscapeReader(kind, (byte) => out.push(byte));
  bytes.forEach((byte, at) => {
    reader.take(byte, at);
  });
  reader.end();
  return Buffer.from(out);
}

/** Lines of a value joined, as readings join them. */
const joined = (bytes: Buffer): Buffer =>
  Buffer.from(bytes.toString('latin1').replace(/(?:\r\n|\r|\n)[ \t]*/g, ''), 'latin1');
