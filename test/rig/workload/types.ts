// What lanes share: the stage that they act on, and changes as they ask for them.
import type { Answered, Call, Client } from '../client.ts';
import type { Journal, State, Verdict } from '../journal.ts';
import type { Peers } from '../peers.ts';

/** What every lane has in common. */
export interface Stage {
  readonly client: Client;
  readonly journal: Journal;
  readonly peers: Peers;
  readonly teams: readonly TeamOfRig[];
  readonly seed: number;
  /** Engines' private keys by subject. */
  readonly engines: Map<string, EngineOfRig>;
  /** Lanes that stay away, by the beginnings of their names. */
  readonly without: readonly string[];
  /** Whether there is time for what takes a minute by itself. */
  readonly isLong: boolean;
  /** When nothing more is begun. */
  isOver(): boolean;
  /** When nothing is broken any more: what is still open is asked to its end. */
  isHealed(): boolean;
}

export interface TeamOfRig {
  readonly slug: string;
  readonly admin: string;
  readonly editor: string;
  readonly viewer: string;
  readonly auditor: string;
  readonly engine: string;
}

export interface EngineOfRig {
  readonly id: string;
  readonly subject: string;
  readonly privateJwk: any;
}

/** A change as a lane asks for it. */
export interface ChangeInput extends Call {
  readonly effects: Readonly<Record<string, State>>;
  readonly events?: Readonly<Record<string, number>>;
  readonly race?: number;
  /** With an Idempotency-Key it is repeated until the answer is definite. */
  readonly isKeyed?: boolean;
  /**
   * After an attempt without an answer: whether this refusal says that the attempt succeeded. What
   * has it is repeated like what has a key.
   */
  readonly happened?: (answer: Answered) => boolean;
  /** In a race: whether this refusal says that another of it was done. */
  readonly tellsOfAnother?: (answer: Answered) => boolean;
  /** Refusals that are no fault although nobody else changes these things. */
  readonly expected?: readonly string[];
  /** What of the answer does not fit what was meant. */
  readonly mismatch?: (json: any) => string | undefined;
  /** Members of the effects that only the answer tells. */
  readonly learn?: (json: any) => Readonly<Record<string, Readonly<Record<string, unknown>>>>;
}

export interface Changed {
  readonly verdict: Verdict;
  readonly answer: Answered | undefined;
  /** An attempt of it may still be under way somewhere: its things are not to be made anew. */
  readonly isLoose: boolean;
  readonly n: number;
}
