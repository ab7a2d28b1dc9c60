// The stream as somebody reads it who undoes escapes: percent-encoding, and the backslash escapes
// of JSON and its relatives. One byte in, the bytes that it completes out, each with the place in
// the stream where it began and ended.

/** A byte as it is read, and where it stands in the stream: `start` inclusive, `end` exclusive. */
export type Emit = (byte: number, start: number, end: number) => void;

/**
 * What a pending escape has come to: not enough yet, none at all, or these bytes for its first
 * `used` bytes.
 */
type Reading =
  | 'more'
  | 'none'
  | { readonly bytes: Uint8Array | readonly number[]; readonly used: number };

const [percent, backslash] = [0x25, 0x5c];

/**
 * `backslashes`: any run of them counts as one, which is how text looks that was escaped more than
 * once.
 */
export type EscapeKind = 'percent' | 'backslash' | 'backslashes';

/** Reads one kind of escape. What turns out to be none is passed on as it stands. */
export class EscapeReader {
  readonly #lead: number;
  readonly #isRun: boolean;
  readonly #read: (pending: readonly number[]) => Reading;
  readonly #emit: Emit;
  #pending: number[] = [];
  #start = 0;

  constructor(kind: EscapeKind, emit: Emit) {
    this.#isRun = kind === 'backslashes';
    this.#lead = kind === 'percent' ? percent : backslash;
    this.#read = kind === 'percent' ? readPercent : readBackslash;
    this.#emit = emit;
  }

  /** Where an escape began that is not complete yet. */
  get pendingFrom(): number | undefined {
    return this.#pending.length === 0 ? undefined : this.#start;
  }

  /** Takes the byte at a place. */
  take(byte: number, at: number): void {
    if (this.#pending.length === 0) {
      if (byte !== this.#lead) {
        this.#emit(byte, at, at + 1);
        return;
      }
      this.#start = at;
    } else if (this.#isRun && byte === backslash && this.#pending.at(-1) === backslash) {
      // however long the run, no more than its last is held
      if (this.#pending.length === 1) this.#start = at;
      return;
    }
    this.#pending.push(byte);
    const reading = this.#read(this.#pending);
    if (reading === 'more') return;
    const [bytes, used] =
      reading === 'none' ? [[this.#pending[0]!], 1] : [reading.bytes, reading.used];
    const rest = this.#pending.slice(used);
    const start = this.#start;
    this.#pending = [];
    for (const each of bytes) this.#emit(each, start, start + used);
    rest.forEach((each, i) => {
      this.take(each, start + used + i);
    });
  }
}

function readPercent(pending: readonly number[]): Reading {
  if (!pending.slice(1).every(isHex)) return 'none';
  return pending.length < 3 ? 'more' : { bytes: [hexOf(pending, 1, 3)], used: 3 };
}

/** What one character behind a backslash stands for, by bytes. */
export const shortEscapes: ReadonlyMap<number, number> = new Map(
  Object.entries({
    '"': 0x22,
    "'": 0x27,
    '/': 0x2f,
    '\\': 0x5c,
    b: 0x08,
    f: 0x0c,
    n: 0x0a,
    r: 0x0d,
    t: 0x09,
  }).map(([character, byte]) => [character.charCodeAt(0), byte]),
);

function readBackslash(pending: readonly number[]): Reading {
  if (pending.length === 1) return 'more';
  const kind = String.fromCharCode(pending[1]!);
  if (kind === 'x')
    return (
      digitsOf(pending, 2) ?? {
        bytes: Buffer.from(String.fromCodePoint(hexOf(pending, 2, 4))),
        used: 4,
      }
    );
  if (kind !== 'u') {
    const meant = shortEscapes.get(pending[1]!);
    return meant === undefined ? 'none' : { bytes: [meant], used: 2 };
  }
  const digits = digitsOf(pending, 4);
  if (digits !== undefined) return digits;
  const unit = hexOf(pending, 2, 6);
  const alone = { bytes: Buffer.from(String.fromCharCode(unit)), used: 6 };
  if (unit < 0xd800 || unit > 0xdbff) return alone;
  // The first half of a pair: the second decides.
  const second = pending.slice(6);
  if (second.length < 2) return second.length === 0 || second[0] === backslash ? 'more' : alone;
  if (second[0] !== backslash || second[1] !== 0x75) return alone;
  const more = digitsOf(second, 4);
  if (more !== undefined) return more === 'more' ? 'more' : alone;
  return { bytes: Buffer.from(String.fromCharCode(unit, hexOf(second, 2, 6))), used: 12 };
}

/** Undefined when all digits are there. */
function digitsOf(pending: readonly number[], count: number): 'more' | 'none' | undefined {
  if (!pending.slice(2, 2 + count).every(isHex)) return 'none';
  return pending.length < 2 + count ? 'more' : undefined;
}

const isHex = (byte: number): boolean =>
  (byte >= 0x30 && byte <= 0x39) ||
  (byte >= 0x41 && byte <= 0x46) ||
  (byte >= 0x61 && byte <= 0x66);
const hexOf = (pending: readonly number[], from: number, to: number): number =>
  Number.parseInt(String.fromCharCode(...pending.slice(from, to)), 16);
