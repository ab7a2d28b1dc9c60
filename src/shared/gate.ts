// A line with an end: so many of one key at once, the others wait their turn, but no longer than
// they are given, and no more of them than there is room for.
import type { BudgetCounts } from './budget.ts';

/** Bounds how many things of one key are under way at once. */
export class Gate<K> {
  readonly #atOnce: number;
  readonly #waitingMax: number;
  readonly #waitMs: number;
  readonly #running = new Map<K, number>();
  /** By key, whoever came first first; each is told whether it is their turn. */
  readonly #lines = new Map<K, Set<(isTurn: boolean) => void>>();
  #waiting = 0;
  #refused = 0;

  /** `atOnce` of one key; of all keys together `waitingMax` wait, each for `waitMs` at the most. */
  constructor(bounds: { atOnce: number; waitingMax: number; waitMs: number }) {
    this.#atOnce = bounds.atOnce;
    this.#waitingMax = bounds.waitingMax;
    this.#waitMs = bounds.waitMs;
  }

  /** How many wait, how many may, and how often somebody was sent away. */
  get counts(): BudgetCounts {
    return { inUse: this.#waiting, max: this.#waitingMax, refused: this.#refused };
  }

  /** Waits for a turn. What is to be called at its end, once; undefined where none came. */
  async enter(key: K): Promise<(() => void) | undefined> {
    const running = this.#running.get(key) ?? 0;
    if (running < this.#atOnce) this.#running.set(key, running + 1);
    else if (!(await this.#turn(key))) {
      this.#refused += 1;
      return undefined;
    }
    let isRunning = true;
    return () => {
      if (isRunning) this.#leave(key);
      isRunning = false;
    };
  }

  /** Whoever leaves hands their place on: it is never free in between. */
  #leave(key: K): void {
    const [next] = this.#lines.get(key) ?? [];
    if (next !== undefined) {
      next(true);
      return;
    }
    const left = this.#running.get(key)! - 1;
    if (left === 0) this.#running.delete(key);
    else this.#running.set(key, left);
  }

  #turn(key: K): Promise<boolean> {
    if (this.#waiting >= this.#waitingMax) return Promise.resolve(false);
    const line = this.#lines.get(key) ?? new Set();
    this.#lines.set(key, line);
    this.#waiting += 1;
    return new Promise((resolve) => {
      const settle = (isTurn: boolean): void => {
        clearTimeout(timer);
        line.delete(settle);
        if (line.size === 0) this.#lines.delete(key);
        this.#waiting -= 1;
        resolve(isTurn);
      };
      const timer = setTimeout(settle, this.#waitMs, false);
      line.add(settle);
    });
  }
}
