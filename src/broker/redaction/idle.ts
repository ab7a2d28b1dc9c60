// What of a stream leads to nothing while no reading is in the middle of something: after it, every
// reading would be where it is now. Almost all of almost every answer, so it need not be read in
// every way. Says no where it does not know.
import { type Automaton, root } from './automaton.ts';
import { escapedMeaning } from './backslashes.ts';
import { escapeBytesMax, type EscapeRead, isHex } from './code-units.ts';
import { escapeLeads, escapeReads, mayBeEscape } from './escapes.ts';

const backslash = 0x5c;
const isBreak = (byte: number): boolean => byte === 0x0a || byte === 0x0d;

/** What leads to nothing in any of some automata. */
export class Idle {
  readonly #automata: readonly Automaton[];
  readonly #states: Int32Array;
  readonly #roots: Int32Array;
  readonly #readings: Exclude<EscapeRead, 'more'>[] = [];
  readonly #window = new Int16Array(escapeBytesMax);
  /** By byte: nothing begins with it, and it begins no escape. */
  readonly #plain = new Uint8Array(256);
  /** By the byte behind a backslash: nothing begins with it, nor with what it means there. */
  readonly #escaped = new Uint8Array(256);

  constructor(automata: readonly Automaton[]) {
    this.#automata = automata;
    this.#states = new Int32Array(automata.length);
    this.#roots = new Int32Array(automata.length);
    for (let byte = 0; byte < 256; byte += 1) {
      if (!escapeLeads.has(byte) && !this.#starts(byte)) this.#plain[byte] = 1;
      if (this.#isPlainBehindBackslash(byte)) this.#escaped[byte] = 1;
    }
  }

  isPlain(byte: number): boolean {
    return this.#plain[byte] === 1;
  }

  /** How many bytes from the place on may be passed over; 0 for none. */
  count(chunk: Uint8Array, at: number): number {
    const plain = this.#plain;
    let end = at;
    while (end < chunk.length && plain[chunk[end]!] === 1) end += 1;
    if (end > at) return end - at;
    const byte = chunk[at]!;
    if (!escapeLeads.has(byte)) return this.#beginning(chunk, at);
    const second = chunk[at + 1];
    if (second === undefined || this.#starts(byte)) return 0;
    if (!mayBeEscape(byte, second)) return 1;
    if (byte === backslash && this.#escaped[second] === 1) return 2;
    const passed = this.escape(chunk, at, this.#roots);
    return passed > 0 && this.#leadsNowhere(chunk, at + 1, at + passed) ? passed : 0;
  }

  /**
   * How many bytes from the place on are an escape that leads to nothing, however it is read, where
   * the plain reading is in these states and no other is under way; 0 for none.
   */
  escape(chunk: Uint8Array, at: number, states: Int32Array): number {
    const lead = chunk[at]!;
    if (!escapeLeads.has(lead)) return 0;
    const window = this.#window;
    const length = Math.min(window.length, chunk.length - at);
    for (let i = 0; i < length; i += 1) window[i] = chunk[at + i]!;
    const reads = escapeReads.get(lead)!;
    const readings = this.#readings;
    let passed = 1;
    for (let k = 0; k < reads.length; k += 1) {
      const reading = reads[k]!(window, length);
      if (reading === 'more') return 0;
      readings[k] = reading;
      if (reading !== 'none' && reading.used > passed) passed = reading.used;
    }
    for (let i = at + 1; i < at + passed; i += 1)
      if (isBreak(chunk[i]!) || this.#mayEscape(chunk, i)) return 0;
    for (let k = 0; k < reads.length; k += 1) {
      const reading = readings[k]!;
      if (reading === 'none') continue;
      const next = chunk[at + reading.used];
      if (reading.isLead === true && (next === undefined || mayBeEscape(lead, next))) return 0;
      if (!this.#endsAtRoot(states, reading.bytes, chunk, at + reading.used, at + passed)) return 0;
    }
    return passed;
  }

  /** Whether nothing is under way behind what an escape means and what of it is left. */
  #endsAtRoot(
    states: Int32Array,
    bytes: readonly number[],
    chunk: Uint8Array,
    from: number,
    to: number,
  ): boolean {
    for (let k = 0; k < this.#automata.length; k += 1) {
      const automaton = this.#automata[k]!;
      let state = states[k]!;
      for (let i = 0; i < bytes.length; i += 1) {
        // What is under way goes on behind the end of a line.
        if (state !== root && isBreak(bytes[i]!)) return false;
        state = automaton.next(state, bytes[i]!);
        if (automaton.matched(state) > 0) return false;
      }
      for (let i = from; i < to; i += 1) {
        state = automaton.next(state, chunk[i]!);
        if (automaton.matched(state) > 0) return false;
      }
      if (state !== root) return false;
    }
    return true;
  }

  #starts(byte: number): boolean {
    return this.#automata.some((automaton) => automaton.starts(byte));
  }

  #isPlainBehindBackslash(byte: number): boolean {
    // Of some dialect it is the beginning of something longer.
    const isMore =
      isHex(byte) ||
      isBreak(byte) ||
      escapeLeads.has(byte) ||
      /[xuU]/.test(String.fromCharCode(byte));
    const meant = escapedMeaning(byte);
    return !isMore && !this.#starts(byte) && (meant === undefined || !this.#starts(meant));
  }

  /** Whether nothing is under way behind these bytes. */
  #leadsNowhere(chunk: Uint8Array, from: number, to: number): boolean {
    for (const automaton of this.#automata) {
      let state = root;
      for (let i = from; i < to; i += 1) {
        const byte = chunk[i]!;
        if (isBreak(byte) || this.#mayEscape(chunk, i)) return false;
        state = automaton.next(state, byte);
        if (automaton.matched(state) > 0) return false;
      }
      if (state !== root) return false;
    }
    return true;
  }

  #mayEscape(chunk: Uint8Array, at: number): boolean {
    const byte = chunk[at]!;
    if (!escapeLeads.has(byte)) return false;
    const next = chunk[at + 1];
    return next === undefined || mayBeEscape(byte, next);
  }

  /** A pattern begins, and breaks off before anything could be read in two ways. */
  #beginning(chunk: Uint8Array, at: number): number {
    const [automata, states] = [this.#automata, this.#states];
    states.fill(root);
    for (let i = at; i < chunk.length; i += 1) {
      const byte = chunk[i]!;
      if (isBreak(byte) || this.#mayEscape(chunk, i)) return 0;
      let isOpen = false;
      for (let k = 0; k < automata.length; k += 1) {
        const automaton = automata[k]!;
        const state = automaton.next(states[k]!, byte);
        if (automaton.matched(state) > 0) return 0;
        states[k] = state;
        if (state !== root) isOpen = true;
      }
      if (!isOpen) return i - at + 1;
    }
    return 0;
  }
}
