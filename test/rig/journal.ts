// What a run leaves behind, line by line, each written before what it is about goes on: what was
// meant, what was answered, what was done to the setting. The checker reads nothing else of the run.
import { appendFileSync } from 'node:fs';

/**
 * What a thing is: only the members that are named are compared. `null`: there is none.
 */
export type State = Readonly<Record<string, unknown>> | null;

/**
 * `done`: acknowledged. `refused`: it did not happen and does not. `unknown`: it happened once or
 * not at all.
 */
export type Verdict = 'done' | 'refused' | 'unknown';

/** One change as it was meant. */
export interface ChangeLine {
  readonly kind: 'change';
  readonly n: number;
  readonly lane: string;
  readonly operation: string;
  /** What things are afterwards, all of them or none. */
  readonly effects: Readonly<Record<string, State>>;
  /** The events of its success, by action. */
  readonly events: Readonly<Record<string, number>>;
  /** Changes of one race rest on the same state of the same thing: one of them can be done. */
  readonly race?: number;
}

/** One request for a change. */
export interface AttemptLine {
  readonly kind: 'attempt';
  readonly n: number;
  readonly attempt: number;
  readonly replica: string;
  readonly start: number;
  readonly as: string;
}

/** What came back; no status where nothing came. */
export interface AnswerLine {
  readonly kind: 'answer';
  readonly n: number;
  readonly attempt: number;
  readonly status?: number;
  readonly code?: string;
  readonly requestId?: string;
  readonly error?: string;
  readonly ms: number;
  /** It came after the caller had given up. */
  readonly isLate?: true;
}

/** What is known of a change when its caller has stopped asking. */
export interface VerdictLine {
  readonly kind: 'verdict';
  readonly n: number;
  readonly verdict: Verdict;
  /** By whose answer somebody else learned that it happened. */
  readonly isReported?: true;
  /** Members of the effects that only the answer told, by thing. */
  readonly learned?: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

/** A read begins; `seen` is what it showed, by thing. */
export interface ReadLine {
  readonly kind: 'read';
  readonly n: number;
  readonly lane: string;
  readonly operation: string;
  readonly replica: string;
  readonly start: number;
}
export interface SeenLine {
  readonly kind: 'seen';
  readonly n: number;
  readonly status?: number;
  readonly code?: string;
  readonly requestId?: string;
  readonly error?: string;
  readonly ms: number;
  readonly seen: Readonly<Record<string, State>>;
  /** The events of what was allowed, by action. */
  readonly events?: Readonly<Record<string, number>>;
}

/** Something is wrong by itself, whatever comes later. */
export interface FaultLine {
  readonly kind: 'fault';
  readonly rule: string;
  readonly detail: string;
  readonly n?: number;
}

/** What was done to the setting. */
export interface NemesisLine {
  readonly kind: 'nemesis';
  readonly deck: 'database' | 'replicas';
  readonly act: string;
  readonly phase: 'begin' | 'end';
  readonly detail: Readonly<Record<string, unknown>>;
}

/** A replica ended, or a start of it is listening. */
export interface ProcessLine {
  readonly kind: 'process';
  readonly replica: string;
  readonly start: number;
  readonly event: 'listening' | 'ended';
  readonly how?: number | string;
  readonly isExpected?: boolean;
}

export type Line =
  | ChangeLine
  | AttemptLine
  | AnswerLine
  | VerdictLine
  | ReadLine
  | SeenLine
  | FaultLine
  | NemesisLine
  | ProcessLine;

/** A line with its place and the milliseconds since the start. */
export type Written<L extends Line = Line> = L & { readonly index: number; readonly at: number };

/** Keeps the lines and writes each at once. */
export class Journal {
  readonly lines: Written[] = [];
  readonly #file: string | undefined;
  readonly #start = performance.now();
  #n = 0;

  constructor(file?: string) {
    this.#file = file;
  }

  /** The next number for a change or a read. */
  next(): number {
    this.#n += 1;
    return this.#n;
  }

  write(line: Line): Written {
    const written = {
      ...line,
      index: this.lines.length,
      at: Math.round(performance.now() - this.#start),
    };
    this.lines.push(written);
    if (this.#file !== undefined) appendFileSync(this.#file, `${JSON.stringify(written)}\n`);
    return written;
  }

  fault(rule: string, detail: string, n?: number): void {
    this.write({ kind: 'fault', rule, detail, ...(n === undefined ? {} : { n }) });
  }
}
