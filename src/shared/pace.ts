// Work in pieces that gives the process to others in between: one thread answers everybody.
import { setImmediate as nextTurn } from 'node:timers/promises';

/** Counts what was done since others had their turn. */
export class Pace {
  readonly #bytesPerTurn: number;
  #bytes = 0;
  constructor(bytesPerTurn: number) {
    this.#bytesPerTurn = bytesPerTurn;
  }

  /** Whether it is the others' turn: then wait for `turn` before going on. */
  did(bytes: number): boolean {
    this.#bytes += bytes;
    return this.#bytes >= this.#bytesPerTurn;
  }

  async turn(): Promise<void> {
    this.#bytes = 0;
    await nextTurn();
  }
}

/**
 * What `make` makes of each item, in their order, with turns for others by the size of the items.
 */
export async function inTurns<T, R>(
  items: readonly T[],
  make: (item: T, index: number) => R,
  { bytesOf, bytesPerTurn }: { bytesOf: (item: T) => number; bytesPerTurn: number },
): Promise<R[]> {
  const pace = new Pace(bytesPerTurn);
  const made: R[] = [];
  for (const [index, item] of items.entries()) {
    made.push(make(item, index));
    if (pace.did(bytesOf(item))) await pace.turn();
  }
  return made;
}
