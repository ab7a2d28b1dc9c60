// What is looked for in answers, compiled. It is made once for a version of a credential and shared
// by the answers to all calls with it (redactors.ts).
import { Automaton } from './automaton.ts';
import { formsOf, valueBytesMin, wideFormsOf } from './forms.ts';
import { Idle } from './idle.ts';

/** Some values and their patterns. SECURITY: holds them in the clear. */
export class Sought {
  readonly values: readonly string[];
  readonly patterns: readonly Uint8Array[];
  readonly automaton: Automaton;
  readonly idle: Idle;
  /** Whether a line break within a pattern may be passed over: none has one of its own. */
  readonly folds: boolean;
  /** Bytes of the shortest value, as it is written. */
  readonly shortestBytes: number;

  private constructor(values: readonly string[], patterns: readonly Uint8Array[], isWide: boolean) {
    this.values = values;
    this.patterns = patterns;
    this.automaton = new Automaton(patterns);
    this.idle = new Idle([this.automaton]);
    const isBreak = (byte: number): boolean => byte === 0x0a || byte === 0x0d;
    this.folds = isWide || !patterns.some((pattern) => pattern.some(isBreak));
    const lengths = values.map((value) => Buffer.byteLength(value) * (isWide ? 2 : 1));
    this.shortestBytes = Math.min(...lengths.filter((length) => length >= valueBytesMin), Infinity);
  }

  /** What stands for the values in text. */
  static of(values: readonly string[]): Sought {
    return new Sought(values, formsOf(values), false);
  }
  /** The values in UTF-16 and UTF-32, for text that does not say that it is written so. */
  static inWidths(all: readonly Sought[]): Sought {
    const values = all.flatMap((sought) => sought.values);
    return new Sought(values, wideFormsOf(values), true);
  }

  /** How much memory it takes. */
  get byteLength(): number {
    return this.automaton.byteLength + this.patterns.reduce((sum, { length }) => sum + length, 0);
  }
}

/** What leads to nothing in any of them. */
export const idleOf = (all: readonly Sought[]): Idle =>
  all.length === 1 ? all[0]!.idle : new Idle(all.map(({ automaton }) => automaton));
