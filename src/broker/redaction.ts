// Looks for secrets in what an upstream answers, in every form of forms.ts, and puts a mark in
// their place. Best effort: what an upstream disguises on purpose passes. Where secrets may go at
// all is what the policy's hosts are for.
import { Automaton, root } from './automaton.ts';
import { type EscapeKind, EscapeReader, shortEscapes } from './escapes.ts';
import { formsOf, valueBytesMin } from './forms.ts';

export const mark = '[redacted]';
const [percent, backslash] = [0x25, 0x5c];
const markBytes = Buffer.from(mark);

/** What is looked for, compiled once for an answer: its headers and its body. */
export class Redactor {
  readonly #automaton: Automaton;
  readonly #idle: Idle;
  constructor(sensitive: readonly string[]) {
    this.#automaton = new Automaton(formsOf(sensitive));
    this.#idle = new Idle(this.#automaton);
  }

  /** A header's value without secrets. */
  text(value: string): string {
    if (!this.#isSuspect(value)) return value;
    const stream = this.stream();
    return Buffer.concat([stream.push(Buffer.from(value, 'latin1')), stream.end()]).toString(
      'latin1',
    );
  }

  /** False only for a text with no escape in it and nothing of a secret: almost every header. */
  #isSuspect(value: string): boolean {
    let state = root;
    for (let i = 0; i < value.length; i += 1) {
      const byte = value.charCodeAt(i) & 0xff;
      if (byte === percent || byte === backslash) return true;
      state = this.#automaton.next(state, byte);
      if (this.#automaton.matched(state) > 0) return true;
    }
    return this.#automaton.pending(state) >= valueBytesMin;
  }

  /** A body, in chunks. */
  stream(): RedactionStream {
    return new RedactionStream(this.#automaton, this.#idle);
  }
}

/**
 * What leads to nothing while no reading is in the middle of something: after it, every reading
 * would be where it is now, or where the next byte alone brings it. Almost all of almost every
 * answer; so it need not be read four times.
 */
class Idle {
  readonly #automaton: Automaton;
  /** By byte: nothing begins with it. */
  readonly #plain = new Uint8Array(256);
  /**
   * By the byte behind a backslash: nothing begins with the backslash, the byte, or what the two
   * stand for.
   */
  readonly #escaped = new Uint8Array(256);

  constructor(automaton: Automaton) {
    this.#automaton = automaton;
    for (let byte = 0; byte < 256; byte += 1)
      if (byte !== percent && byte !== backslash && !automaton.starts(byte)) this.#plain[byte] = 1;
    if (automaton.starts(backslash)) return;
    for (const [byte, meant] of shortEscapes)
      if (byte !== backslash && !automaton.starts(byte) && !automaton.starts(meant))
        this.#escaped[byte] = 1;
  }

  /** How many bytes from here on may be passed over; 0 for none. */
  count(chunk: Uint8Array, at: number): number {
    const byte = chunk[at]!;
    if (this.#plain[byte] === 1) return 1;
    if (byte === percent || at + 1 === chunk.length) return 0;
    const second = chunk[at + 1]!;
    if (byte === backslash) return this.#escaped[second] === 1 ? 2 : 0;
    // It could go on with an escape, which stands for any byte.
    return second === percent || second === backslash || this.#automaton.startsWith(byte, second)
      ? 0
      : 1;
  }
}

interface Interval {
  readonly start: number;
  readonly end: number;
}

/**
 * One body on its way. `push` gives back at once all but a suffix that may still grow into a
 * secret; `end` gives the rest. What was cut off is never ended: its held bytes are dropped,
 * because they may be the beginning of a secret.
 */
export class RedactionStream {
  readonly #readings: readonly Reading[];
  readonly #idle: Idle;
  #position = 0;
  #held: Buffer = Buffer.alloc(0);
  /** What was found and is not marked yet. */
  #found: Interval[] = [];
  /** Up to where the last mark stands for what came in. */
  #coveredTo = 0;

  constructor(automaton: Automaton, idle: Idle) {
    const note = (start: number, end: number): void => {
      this.#note(start, end);
    };
    this.#readings = ([undefined, 'percent', 'backslash', 'backslashes'] as const).map(
      (escapes) => new Reading(automaton, escapes, note),
    );
    this.#idle = idle;
  }

  /** The next bytes that may pass. */
  push(chunk: Uint8Array): Buffer {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    this.#held = this.#held.length === 0 ? bytes : Buffer.concat([this.#held, bytes]);
    let isIdle = this.#isIdle();
    const origin = this.#position;
    for (let i = 0; i < chunk.length; ) {
      const passed = isIdle ? this.#idle.count(chunk, i) : 0;
      i += passed;
      if (passed > 0) continue;
      const byte = chunk[i]!;
      for (const reading of this.#readings) reading.take(byte, origin + i);
      isIdle = this.#isIdle();
      i += 1;
    }
    this.#position = origin + chunk.length;
    // SECURITY: from here on anything may still become a secret, so it stays.
    return this.#release(
      Math.min(this.#position, ...this.#readings.map((reading) => reading.heldFrom)),
    );
  }

  /**
   * The rest. SECURITY: a long beginning of a secret at the very end counts as one: something cut
   * it off.
   */
  end(): Buffer {
    for (const reading of this.#readings)
      if (reading.pending >= valueBytesMin) this.#note(reading.heldFrom, this.#position);
    return this.#release(this.#position);
  }

  #isIdle(): boolean {
    for (const reading of this.#readings) if (!reading.isIdle) return false;
    return true;
  }

  #note(start: number, end: number): void {
    this.#found.push({ start, end });
  }

  /**
   * Hands out what stands before the limit, with a mark for each find that begins there. Finds that
   * overlap have one mark. What a find covers is let go at once, so what is held is never longer
   * than a pattern.
   */
  #release(limit: number): Buffer {
    const origin = this.#position - this.#held.length;
    const parts: Buffer[] = [];
    let from = origin;
    this.#found.sort((a, b) => a.start - b.start);
    let count = 0;
    for (; count < this.#found.length && this.#found[count]!.start <= limit; count += 1) {
      const { start, end } = this.#found[count]!;
      if (start >= this.#coveredTo)
        parts.push(this.#held.subarray(from - origin, start - origin), markBytes);
      this.#coveredTo = Math.max(this.#coveredTo, end);
      from = Math.max(from, end);
    }
    this.#found.splice(0, count);
    const to = Math.max(from, limit);
    parts.push(this.#held.subarray(from - origin, to - origin));
    this.#held = this.#held.subarray(to - origin);
    return parts.length === 1 ? parts[0]! : Buffer.concat(parts);
  }
}

/** One way to read the stream: as it is, or with one kind of escape undone. */
class Reading {
  readonly #automaton: Automaton;
  readonly #escapes: EscapeReader | undefined;
  readonly #note: (start: number, end: number) => void;
  /**
   * Where the last bytes that were read began, in a ring as long as the longest pattern; made when
   * a pattern begins for the first time.
   */
  #starts: Float64Array | undefined;
  readonly #mask: number;
  #count = 0;
  #state = root;

  constructor(
    automaton: Automaton,
    escapes: EscapeKind | undefined,
    note: (start: number, end: number) => void,
  ) {
    this.#automaton = automaton;
    this.#note = note;
    this.#mask = 2 ** Math.ceil(Math.log2(automaton.longestPattern + 1)) - 1;
    this.#escapes =
      escapes === undefined
        ? undefined
        : new EscapeReader(escapes, (byte, start, end) => {
            this.#step(byte, start, end);
          });
  }

  get isIdle(): boolean {
    return this.#state === root && this.#escapes?.pendingFrom === undefined;
  }

  /** How many bytes, as read, are the beginning of a pattern. */
  get pending(): number {
    return this.#automaton.pending(this.#state);
  }

  /** From where on the stream may still become a find; infinity for nowhere. */
  get heldFrom(): number {
    const { pending } = this;
    return Math.min(
      pending === 0 ? Infinity : this.#startOf(pending),
      this.#escapes?.pendingFrom ?? Infinity,
    );
  }

  take(byte: number, at: number): void {
    if (this.#escapes === undefined) this.#step(byte, at, at + 1);
    else this.#escapes.take(byte, at);
  }

  #step(byte: number, start: number, end: number): void {
    this.#state = this.#automaton.next(this.#state, byte);
    if (this.#state === root) return;
    this.#starts ??= new Float64Array(this.#mask + 1);
    this.#starts[this.#count & this.#mask] = start;
    this.#count += 1;
    const matched = this.#automaton.matched(this.#state);
    if (matched > 0) this.#note(this.#startOf(matched), end);
  }

  /** Where the byte began that was read `back` bytes ago, the last one being 1. */
  #startOf(back: number): number {
    return this.#starts?.[(this.#count - back) & this.#mask] ?? 0;
  }
}
