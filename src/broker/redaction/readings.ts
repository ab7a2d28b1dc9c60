// The ways to read a stream, side by side: as it is, and with each kind of escape undone; in each
// of them a secret's lines are joined again.
import { root } from './automaton.ts';
import { type EscapeKind, EscapeReader, escapesByLead } from './escapes.ts';
import type { Sought } from './sought.ts';

/** Where finds go. */
export interface Finds {
  note(start: number, end: number): void;
  /** Up to where something was found, by any reading. */
  foundTo(): number;
}

/**
 * All readings of one stream of bytes. One that undoes escapes comes to what the plain one comes to
 * until the first escape, so it goes along only from there to where nothing is under way in it.
 * What it does not know then of what the plain one knows began before the escape.
 */
export class Readings {
  readonly #all: readonly Sought[];
  readonly #finds: Finds;
  readonly #plain: Reading;
  readonly #made = new Map<EscapeKind, Reading>();
  readonly #escaped: Reading[] = [];

  constructor(all: readonly Sought[], finds: Finds) {
    this.#all = all;
    this.#finds = finds;
    this.#plain = new Reading(all, undefined, finds);
  }

  /** Nothing is under way. */
  get isIdle(): boolean {
    return this.#escaped.length === 0 && this.#plain.isIdle;
  }

  /** From where on the stream may still become a find; infinity for nowhere. */
  get heldFrom(): number {
    let from = this.#plain.heldFrom;
    for (const reading of this.#escaped) from = Math.min(from, reading.heldFrom);
    return from;
  }

  /** Nothing is under way but in the plain reading. */
  get isPlain(): boolean {
    return this.#escaped.length === 0;
  }
  /** Where the plain reading is, in each of what is looked for. */
  get states(): Int32Array {
    return this.#plain.states;
  }

  take(byte: number, start: number, end: number): void {
    const kinds = escapesByLead.get(byte);
    if (kinds !== undefined) this.#begin(kinds);
    this.#plain.take(byte, start, end);
    const escaped = this.#escaped;
    let left = 0;
    for (const reading of escaped) {
      reading.take(byte, start, end);
      if (!reading.isIdle) escaped[left++] = reading;
    }
    escaped.length = left;
  }

  /** Takes a byte of an escape that every reading may leave out. */
  takePlain(byte: number, start: number, end: number): void {
    this.#plain.take(byte, start, end);
  }

  /**
   * Nothing comes after what came. Where beginnings of patterns began that are as long as `leastOf`
   * says.
   */
  end(leastOf: (sought: Sought) => number): number[] {
    return [this.#plain, ...this.#escaped].flatMap((reading) => {
      // An escape may have been cut in two, or be whole without what could have followed.
      const from = reading.cutFrom(leastOf);
      reading.end();
      const isFound = from !== undefined && this.#finds.foundTo() > from;
      return reading.cutFrom(leastOf) ?? (isFound ? [] : (from ?? []));
    });
  }

  #begin(kinds: readonly EscapeKind[]): void {
    for (const kind of kinds) {
      const reading = this.#made.get(kind) ?? new Reading(this.#all, kind, this.#finds);
      this.#made.set(kind, reading);
      if (this.#escaped.includes(reading)) continue;
      reading.become(this.#plain);
      this.#escaped.push(reading);
    }
  }
}

const [tab, lineFeed, carriageReturn, space] = [0x09, 0x0a, 0x0d, 0x20];
/** Of an indented line within a secret. */
const indentMax = 64;
const ringMin = 64;

type Fold = 'none' | 'carriageReturn' | 'break';

/** Follows what is looked for through one reading, and tells where it was found. */
class Reading {
  readonly #all: readonly Sought[];
  readonly #states: Int32Array;
  readonly #folds: boolean;
  readonly #escapes: EscapeReader | undefined;
  readonly #finds: Finds;
  /**
   * Where the last bytes that were read began: a ring, as long as what is under way needs; made
   * when something begins for the first time.
   */
  #starts: Float64Array | undefined;
  #count = 0;
  #isOpen = false;
  /** What came last: MIME and PEM break lines within a value, YAML and headers indent the next. */
  #fold: Fold = 'none';
  #indent = 0;

  constructor(all: readonly Sought[], kind: EscapeKind | undefined, finds: Finds) {
    this.#all = all;
    this.#states = new Int32Array(all.length);
    this.#folds = all.every(({ folds }) => folds);
    this.#finds = finds;
    this.#escapes =
      kind === undefined
        ? undefined
        : new EscapeReader(kind, (byte, start, end) => {
            this.#read(byte, start, end);
          });
  }

  get states(): Int32Array {
    return this.#states;
  }

  get isIdle(): boolean {
    return !this.#isOpen && this.#escapes?.pendingFrom === undefined;
  }

  get heldFrom(): number {
    const escapes = this.#escapes?.pendingFrom ?? Infinity;
    if (!this.#isOpen) return escapes;
    const pending = this.#longest((sought, state) => sought.automaton.pending(state));
    return pending === 0 ? escapes : Math.min(this.#startOf(pending), escapes);
  }

  /** Where the longest beginning began that is long enough; undefined for none. */
  cutFrom(leastOf: (sought: Sought) => number): number | undefined {
    const pending = this.#longest((sought, state) => {
      const bytes = sought.automaton.pending(state);
      return bytes >= leastOf(sought) ? bytes : 0;
    });
    return pending === 0 ? undefined : this.#startOf(pending);
  }

  take(byte: number, start: number, end: number): void {
    if (this.#escapes === undefined) this.#read(byte, start, end);
    else this.#escapes.take(byte, start, end);
  }

  /** Nothing comes after what came. */
  end(): void {
    this.#escapes?.end();
  }

  /** Goes on from where another one is. */
  become(other: Reading): void {
    this.#states.set(other.#states);
    this.#isOpen = other.#isOpen;
    this.#fold = other.#fold;
    this.#indent = other.#indent;
    this.#count = other.#count;
    if (!this.#isOpen) return;
    const depth = this.#depth;
    const starts = this.#ringFor(depth);
    for (let back = 1; back <= depth; back += 1)
      starts[(this.#count - back) & (starts.length - 1)] = other.#startOf(back);
  }

  #read(byte: number, start: number, end: number): void {
    if (this.#folds && this.#isOpen && this.#isFolded(byte)) return;
    this.#step(byte, start, end);
  }

  /**
   * Whether the byte is left out within a value: one end of a line, and blanks behind it. A second
   * end of a line, as at the end of an event, ends the value.
   */
  #isFolded(byte: number): boolean {
    if (byte === lineFeed || byte === carriageReturn) {
      if (this.#fold === 'carriageReturn' && byte === lineFeed) this.#fold = 'break';
      // What began within a find is its tail: it goes on to nothing.
      else if (this.#fold !== 'none' || this.#startOf(this.#depth) < this.#finds.foundTo())
        this.#reset();
      else {
        this.#fold = byte === lineFeed ? 'break' : 'carriageReturn';
        this.#indent = 0;
      }
      return true;
    }
    if (this.#fold === 'none') return false;
    const isBlank = byte === space || byte === tab;
    const isIndent = isBlank && this.#indent < indentMax && !this.#goesOn(byte);
    this.#fold = isIndent ? 'break' : 'none';
    if (isIndent) this.#indent += 1;
    return isIndent;
  }

  /** How many bytes the longest thing has that is under way. */
  get #depth(): number {
    return this.#longest((sought, state) => sought.automaton.depth(state));
  }

  /** Whether a pattern that is under way has the byte next. */
  #goesOn(byte: number): boolean {
    return this.#all.some(({ automaton }, k) => {
      const state = this.#states[k]!;
      return automaton.depth(automaton.next(state, byte)) > automaton.depth(state);
    });
  }

  #reset(): void {
    this.#states.fill(root);
    this.#isOpen = false;
    this.#fold = 'none';
  }

  #step(byte: number, start: number, end: number): void {
    let [isOpen, matched, depth] = [false, 0, 0];
    for (let k = 0; k < this.#all.length; k += 1) {
      const { automaton } = this.#all[k]!;
      const state = automaton.next(this.#states[k]!, byte);
      this.#states[k] = state;
      if (state === root) continue;
      isOpen = true;
      matched = Math.max(matched, automaton.matched(state));
      depth = Math.max(depth, automaton.depth(state));
    }
    this.#isOpen = isOpen;
    if (!isOpen) return;
    const starts = this.#ringFor(depth);
    starts[this.#count & (starts.length - 1)] = start;
    this.#count += 1;
    if (matched > 0) this.#finds.note(this.#startOf(matched), end);
  }

  #longest(of: (sought: Sought, state: number) => number): number {
    let most = 0;
    for (let k = 0; k < this.#all.length; k += 1)
      most = Math.max(most, of(this.#all[k]!, this.#states[k]!));
    return most;
  }

  #ringFor(depth: number): Float64Array {
    const held = (this.#starts ??= new Float64Array(ringMin));
    if (depth < held.length) return held;
    const larger = new Float64Array(2 ** Math.ceil(Math.log2(depth + 1)));
    for (let at = Math.max(0, this.#count - held.length); at < this.#count; at += 1)
      larger[at & (larger.length - 1)] = held[at & (held.length - 1)]!;
    this.#starts = larger;
    return larger;
  }

  /** Where the byte began that was read `back` bytes ago, the last one being 1. */
  #startOf(back: number): number {
    const starts = this.#starts;
    return starts === undefined ? 0 : starts[(this.#count - back) & (starts.length - 1)]!;
  }
}
