// How much of something is in memory at once, for one user of it and for all. Whoever finds no room
// is refused at once: nothing waits here, so nothing can wait for ever.
import { AppError } from './errors.ts';

/** Room that somebody has; it is given back once, however often that is said. */
export interface BudgetRoom {
  /** Makes it as large as this. Throws rateLimited where there is no room; it stays as it was. */
  resize(amount: number): void;
  leave(): void;
}

/** What a budget says of itself. */
export interface BudgetCounts {
  readonly inUse: number;
  readonly max: number;
  readonly refused: number;
}

/** Amounts held by keys, with a bound for each key and one for all of them together. */
export class Budget<K> {
  readonly #what: string;
  readonly #keyMax: number;
  readonly #max: number;
  readonly #retryAfterSeconds: number;
  readonly #held = new Map<K, number>();
  #inUse = 0;
  #refused = 0;

  /** `what` stands in the refusal: "Too much is being … at this moment". */
  constructor(bounds: { what: string; keyMax: number; max: number; retryAfterSeconds?: number }) {
    this.#what = bounds.what;
    this.#keyMax = bounds.keyMax;
    this.#max = bounds.max;
    this.#retryAfterSeconds = bounds.retryAfterSeconds ?? 1;
  }

  get counts(): BudgetCounts {
    return { inUse: this.#inUse, max: this.#max, refused: this.#refused };
  }

  /** Takes room. Throws rateLimited. */
  enter(key: K, amount: number): BudgetRoom {
    let size = 0;
    let isLeft = false;
    const resize = (next: number): void => {
      if (isLeft) throw new TypeError('a place that was left');
      const more = next - size;
      if (more > 0) this.#demand(key, more);
      this.#add(key, more);
      size = next;
    };
    resize(amount);
    return {
      resize,
      leave: () => {
        if (isLeft) return;
        isLeft = true;
        this.#add(key, -size);
      },
    };
  }

  #demand(key: K, more: number): void {
    const isTooMuch =
      (this.#held.get(key) ?? 0) + more > this.#keyMax || this.#inUse + more > this.#max;
    if (!isTooMuch) return;
    this.#refused += 1;
    throw new AppError(
      'rateLimited',
      `Too much is being ${this.#what} at this moment; wait as Retry-After says.`,
      { retryAfterSeconds: this.#retryAfterSeconds },
    );
  }

  #add(key: K, more: number): void {
    this.#inUse += more;
    const held = (this.#held.get(key) ?? 0) + more;
    if (held === 0) this.#held.delete(key);
    else this.#held.set(key, held);
  }
}
