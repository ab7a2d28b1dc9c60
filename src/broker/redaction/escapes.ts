// A stream as somebody reads it who undoes one kind of escape: percent-encoding, the backslash
// escapes of programming languages, character references of HTML, quoted-printable. One byte in,
// the bytes that it completes out, each with the place in the stream where it began and ended.
import { readBackslash, readC, readCss, readHexPair } from './backslashes.ts';
import { escapeBytesMax, type EscapeRead, type ReadEscape } from './code-units.ts';
import { readPercent, readPercentU, readQuotedPrintable } from './encoded-bytes.ts';
import { readEntities, readEntity } from './entities.ts';

/** A byte as it is read, and where it stands in the stream: `start` inclusive, `end` exclusive. */
export type Emit = (byte: number, start: number, end: number) => void;

const [percent, backslash, ampersand, equals] = [0x25, 0x5c, 0x26, 0x3d];
const noByte = -1;
const idleMax = 64;

/** `isRun`: any run of the lead counts as one; so looks text that was escaped more than once. */
interface Kind {
  readonly lead: number;
  readonly isRun?: true;
  readonly read: ReadEscape;
}

const kinds = {
  percent: { lead: percent, read: readPercent },
  percentU: { lead: percent, read: readPercentU },
  backslash: { lead: backslash, read: readBackslash },
  backslashes: { lead: backslash, isRun: true, read: readBackslash },
  c: { lead: backslash, read: readC },
  cs: { lead: backslash, isRun: true, read: readC },
  css: { lead: backslash, isRun: true, read: readCss },
  hexPairs: { lead: backslash, isRun: true, read: readHexPair },
  entity: { lead: ampersand, read: readEntity },
  entities: { lead: ampersand, read: readEntities },
  quotedPrintable: { lead: equals, read: readQuotedPrintable },
} as const satisfies Record<string, Kind>;

/**
 * `percentU`: with JavaScript's `%u0041`. `backslash`, `c`, `entity`: each escape once;
 * `backslashes`, `cs`, `entities`: the same, escaped any number of times. `css`: a backslash and up
 * to six hex digits. `hexPairs`: a backslash and two, as LDAP writes. Dialects that read the same
 * text differently have a reading each, so that none hides what another shows.
 */
export type EscapeKind = keyof typeof kinds;
export const escapeKinds = Object.keys(kinds) as readonly EscapeKind[];
/** By the byte with which they begin. */
export const escapesByLead: ReadonlyMap<number, readonly EscapeKind[]> = Map.groupBy(
  escapeKinds,
  (kind) => kinds[kind].lead,
);
/** The bytes with which escapes begin. */
export const escapeLeads: ReadonlySet<number> = new Set(escapesByLead.keys());

/** The ways to read an escape, by its lead. */
export const escapeReads: ReadonlyMap<number, readonly ReadEscape[]> = new Map(
  [...escapesByLead].map(([lead, all]) => [
    lead,
    [...new Set(all.map((kind) => kinds[kind].read))],
  ]),
);

const beginsEscape = new Map(
  [...escapeReads].map(([lead, all]) => [
    lead,
    Array.from({ length: 256 }, (_, second) =>
      all.some((read) => read(Int16Array.of(lead, second), 2) !== 'none'),
    ),
  ]),
);
/** Whether a lead and the byte behind it may be the beginning of an escape. */
export const mayBeEscape = (lead: number, second: number): boolean =>
  beginsEscape.get(lead)![second]!;

/** Reads one kind of escape. What turns out to be none is passed on as it stands. */
export class EscapeReader {
  readonly #lead: number;
  readonly #isRun: boolean;
  readonly #read: ReadEscape;
  readonly #emit: Emit;
  #length = 0;
  readonly #pending = new Int16Array(escapeBytesMax);
  /** Where each pending byte stands. */
  readonly #starts = new Float64Array(escapeBytesMax);
  readonly #ends = new Float64Array(escapeBytesMax);
  #isNested = false;
  /**
   * How much in a row came to nothing yet: ends of lines, a lead for a lead. What is under way
   * waits for it, so there is an end to it.
   */
  #idle = 0;

  constructor(kind: EscapeKind, emit: Emit) {
    const { lead, isRun, read }: Kind = kinds[kind];
    this.#lead = lead;
    this.#isRun = isRun === true;
    this.#read = read;
    this.#emit = emit;
  }

  /** Where an escape began that is not complete yet. */
  get pendingFrom(): number | undefined {
    return this.#length === 0 ? undefined : this.#starts[0];
  }

  /** Takes a byte with its place. */
  take(byte: number, start: number, end = start + 1): void {
    const length = this.#length;
    if (length === 0 && byte !== this.#lead) {
      if (byte !== noByte) this.#emit(byte, start, end);
      return;
    }
    if (this.#isRun && byte === this.#lead && length > 0 && this.#pending[length - 1] === byte) {
      // however long the run, no more than its last is held
      this.#idle += 1;
      if (this.#idle <= idleMax) {
        if (length === 1) this.#hold(0, byte, start, end);
        return;
      }
      this.#settle('none');
    }
    this.#hold(this.#length, byte, start, end);
    this.#settle(this.#read(this.#pending, this.#length));
  }

  /** Nothing comes after what came. */
  end(): void {
    while (this.#length > 0) this.take(noByte, this.#ends[this.#length - 1]!);
  }

  // An object for each byte would be felt.
  #hold(at: number, byte: number, start: number, end: number): void {
    this.#pending[at] = byte;
    this.#starts[at] = start;
    this.#ends[at] = end;
    this.#length = at + 1;
  }

  #settle(reading: EscapeRead): void {
    if (reading === 'more') return;
    const length = this.#length;
    const isIdle = reading !== 'none' && (reading.isLead === true || reading.bytes.length === 0);
    this.#idle = isIdle ? this.#idle + 1 : 0;
    if (this.#idle > idleMax) {
      this.#settle('none');
      return;
    }
    if (reading !== 'none' && reading.isLead === true) {
      // of a run of these, too, no more than the last is held
      const start = this.#starts[this.#isNested ? 1 : 0]!;
      this.#hold(0, this.#lead, start, this.#ends[length - 1]!);
      this.#isNested = true;
      return;
    }
    this.#length = 0;
    this.#isNested = false;
    let at = reading === 'none' ? 1 : reading.used;
    const [start, end] = [this.#starts[0]!, this.#ends[at - 1]!];
    if (reading === 'none') this.#emit(this.#pending[0]!, start, end);
    else for (const byte of reading.bytes) this.#emit(byte, start, end);
    for (; at < length && this.#pending[at] !== this.#lead; at += 1)
      this.take(this.#pending[at]!, this.#starts[at]!, this.#ends[at]!);
    if (at === length) return;
    // from here on another escape may begin, which overwrites what is pending
    const rest = this.#pending.slice(at, length);
    const [starts, ends] = [this.#starts.slice(at, length), this.#ends.slice(at, length)];
    rest.forEach((byte, i) => {
      this.take(byte, starts[i]!, ends[i]!);
    });
  }
}
