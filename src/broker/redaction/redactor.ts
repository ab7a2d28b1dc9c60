// Looks for secrets in what an upstream answers, in every form of forms.ts and through every
// reading of readings.ts, and puts a mark in their place. Best effort: what an upstream disguises
// on purpose passes. Where secrets may go at all is what the policy's hosts are for.
import { valueBytesMin } from './forms.ts';
import type { Idle } from './idle.ts';
import { beginsInside, pieceBytesMin, pieceHeadBytes } from './piece.ts';
import { Readings } from './readings.ts';
import { BrokerRefusal } from '../refusal.ts';
import { idleOf, Sought } from './sought.ts';
import { inWidth, type Width, WideDecoder, widthsOfMark } from './wide.ts';

export const mark = '[redacted]';
const markBytes = Buffer.from(mark);

/** What a body is known to be before its first byte. */
export interface BodyKind {
  /** Wide forms of Unicode in which it may be written, beside what its mark says. */
  readonly widths?: readonly Width[];
  /** It is a part of something larger, cut where the caller said. */
  readonly isPiece?: boolean;
}

/** What is looked for in an answer: its headers and its body. */
export class Redactor {
  readonly #all: readonly Sought[];
  readonly #idle: Idle;
  /** Compiles the values, and takes what was compiled before. */
  constructor(sensitive: readonly string[], shared: readonly Sought[] = []) {
    this.#all = sensitive.length === 0 ? shared : [...shared, Sought.of(sensitive)];
    this.#idle = idleOf(this.#all);
  }

  /** A header's value without secrets. */
  text(value: string): string {
    const bytes = Buffer.from(value, 'latin1');
    if (!this.#isSuspect(bytes)) return value;
    const stream = this.stream();
    return Buffer.concat([stream.push(bytes), stream.end()]).toString('latin1');
  }

  /** False only for a text that leads to nothing: almost every header. */
  #isSuspect(bytes: Buffer): boolean {
    for (let at = 0; at < bytes.length; ) {
      const passed = this.#idle.count(bytes, at);
      if (passed === 0) return true;
      at += passed;
    }
    return false;
  }

  /** A body, in chunks. */
  stream(kind: BodyKind = {}): RedactionStream {
    if (kind.isPiece !== true) return new RedactionStream(this.#all, this.#idle, kind);
    const all = [...this.#all, Sought.inWidths(this.#all)];
    return new RedactionStream(all, idleOf(all), kind);
  }
}

interface Found {
  readonly start: number;
  readonly end: number;
  readonly mark: Buffer;
}

/** The readings of one width, or of bytes as they are; and what stands in a find's place there. */
interface Lane {
  readonly readings: Readings;
  readonly mark: Buffer;
  readonly decoder: WideDecoder | undefined;
}

/**
 * One body on its way. `push` gives back at once all but a suffix that may still grow into a
 * secret; `end` gives the rest. What was cut off is never ended: its held bytes are dropped,
 * because they may be the beginning of a secret. Of a piece, both throw BrokerRefusal `piece` where
 * a secret or a part of one is found.
 */
export class RedactionStream {
  readonly #all: readonly Sought[];
  readonly #idle: Idle;
  readonly #kind: BodyKind;
  readonly #bytes: Lane;
  #wide: readonly Lane[] = [];
  /** The beginning, until what has to be known of it is known. */
  #beginning: Buffer | undefined = Buffer.alloc(0);
  #position = 0;
  #held: Buffer = Buffer.alloc(0);
  /** What was found and is not marked yet. */
  #found: Found[] = [];
  /** Up to where something was found. */
  #foundTo = 0;
  /** Up to where the last mark stands for what came in. */
  #coveredTo = 0;

  constructor(all: readonly Sought[], idle: Idle, kind: BodyKind) {
    this.#all = all;
    this.#idle = idle;
    this.#kind = kind;
    this.#bytes = this.#lane(undefined);
  }

  /** Something was found so far. */
  get isChanged(): boolean {
    return this.#foundTo > 0;
  }

  /** The next bytes that may pass. */
  push(chunk: Uint8Array): Buffer {
    const bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    if (this.#beginning === undefined) return this.#pass(bytes);
    const beginning =
      this.#beginning.length === 0 ? bytes : Buffer.concat([this.#beginning, bytes]);
    const widths = widthsOfMark(beginning);
    const isShort = this.#kind.isPiece === true && beginning.length < pieceHeadBytes;
    if (beginning.length === 0 || widths === undefined || isShort) {
      this.#beginning = Buffer.from(beginning);
      return Buffer.alloc(0);
    }
    return this.#begin(beginning, widths);
  }

  /**
   * The rest. SECURITY: a long beginning of a secret at the very end counts as one: something cut
   * it off.
   */
  end(): Buffer {
    const begun =
      this.#beginning === undefined
        ? undefined
        : this.#begin(this.#beginning, widthsOfMark(this.#beginning) ?? []);
    const leastOf = this.#kind.isPiece === true ? pieceBytesMin : () => valueBytesMin;
    for (const { readings, mark: inPlace } of [this.#bytes, ...this.#wide]) {
      for (const from of readings.end(leastOf)) this.#note(from, this.#position, inPlace);
    }
    const rest = this.#release(this.#position);
    return begun === undefined ? rest : Buffer.concat([begun, rest]);
  }

  #begin(beginning: Buffer, ofMark: readonly Width[]): Buffer {
    this.#beginning = undefined;
    const widths = [...new Set([...(this.#kind.widths ?? []), ...ofMark])];
    this.#wide = widths.map((width) => this.#lane(width));
    // SECURITY: where the caller chose the place to begin at, it can lie within a secret.
    if (this.#kind.isPiece === true && beginsInside(this.#all, beginning, widths))
      throw new BrokerRefusal('piece');
    return this.#pass(beginning);
  }

  #lane(width: Width | undefined): Lane {
    const inPlace = width === undefined ? markBytes : inWidth(mark, width);
    const finds = {
      note: (start: number, end: number): void => {
        this.#note(start, end, inPlace);
      },
      foundTo: () => this.#foundTo,
    };
    const readings = new Readings(this.#all, finds);
    const decoder =
      width === undefined
        ? undefined
        : new WideDecoder(width, (byte, start, end) => {
            if (!readings.isIdle || !this.#idle.isPlain(byte)) readings.take(byte, start, end);
          });
    return { readings, mark: inPlace, decoder };
  }

  #pass(chunk: Buffer): Buffer {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    const origin = this.#position;
    for (const { decoder } of this.#wide)
      for (let i = 0; i < chunk.length; i += 1) decoder?.take(chunk[i]!, origin + i);
    this.#read(chunk, origin);
    this.#position = origin + chunk.length;
    // SECURITY: from here on anything may still become a secret, so it stays.
    let limit = Math.min(this.#position, this.#bytes.readings.heldFrom);
    for (const { readings, decoder } of this.#wide)
      limit = Math.min(limit, readings.heldFrom, decoder?.pendingFrom ?? Infinity);
    return this.#release(limit);
  }

  #read(chunk: Buffer, origin: number): void {
    const { readings } = this.#bytes;
    for (let i = 0; i < chunk.length; ) {
      const passed = readings.isIdle ? this.#idle.count(chunk, i) : 0;
      i += passed;
      if (passed > 0) continue;
      const harmless = readings.isPlain ? this.#idle.escape(chunk, i, readings.states) : 0;
      for (const end = i + harmless; i < end; i += 1)
        readings.takePlain(chunk[i]!, origin + i, origin + i + 1);
      if (harmless > 0) continue;
      readings.take(chunk[i]!, origin + i, origin + i + 1);
      i += 1;
    }
  }

  #note(start: number, end: number, inPlace: Buffer): void {
    if (this.#kind.isPiece === true) throw new BrokerRefusal('piece');
    this.#found.push({ start, end, mark: inPlace });
    this.#foundTo = Math.max(this.#foundTo, end);
  }

  /**
   * Hands out what stands before the limit, with a mark for each find that begins there. Finds that
   * overlap have one mark. What a find covers is let go at once, so the bytes kept back are never
   * longer than a pattern.
   */
  #release(limit: number): Buffer {
    const origin = this.#position - this.#held.length;
    const parts: Buffer[] = [];
    let from = origin;
    this.#found.sort((a, b) => a.start - b.start);
    let count = 0;
    for (; count < this.#found.length && this.#found[count]!.start <= limit; count += 1) {
      const { start, end, mark: inPlace } = this.#found[count]!;
      if (start >= this.#coveredTo)
        parts.push(this.#held.subarray(from - origin, start - origin), inPlace);
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
