// Keeps a caller who is refused in a loop from filling the trail: ten events a minute for one
// thing, then one event a minute that says how many it stands for. Counts live in this replica.

const windowMs = 60_000;
const admittedPerWindow = 10;
const keysMax = 10_000;

interface Window<T> {
  readonly startedAt: number;
  readonly admitted: number;
  suppressed: number;
  last: T;
}

/** Refusals that were only counted: the last of them, and how many. */
export interface Suppressed<T> {
  readonly key: string;
  readonly last: T;
  readonly count: number;
}

/** Decides which refusals become an event. */
export class DenialCeiling<T> {
  readonly #now: () => number;
  readonly #windows = new Map<string, Window<T>>();
  constructor(now: () => number) {
    this.#now = now;
  }

  /** Whether this refusal becomes an event of its own; otherwise it is counted. */
  admit(key: string, denial: T): boolean {
    const now = this.#now();
    const window = this.#windows.get(key);
    const isOpen = window !== undefined && now - window.startedAt < windowMs;
    if (
      window !== undefined &&
      (window.suppressed > 0 || (isOpen && window.admitted >= admittedPerWindow))
    ) {
      window.suppressed += 1;
      window.last = denial;
      return false;
    }
    this.#windows.delete(key);
    if (this.#windows.size >= keysMax) this.#dropQuiet();
    this.#windows.set(key, {
      startedAt: isOpen ? window.startedAt : now,
      admitted: (isOpen ? window.admitted : 0) + 1,
      suppressed: 0,
      last: denial,
    });
    return true;
  }

  /** What was only counted in windows that are over; with `all`, in the others too. */
  overdue({ all }: { all: boolean }): Suppressed<T>[] {
    const now = this.#now();
    return [...this.#windows]
      .filter(
        ([, { startedAt, suppressed }]) => suppressed > 0 && (all || now - startedAt >= windowMs),
      )
      .map(([key, { last, suppressed }]) => ({ key, last, count: suppressed }));
  }

  /**
   * Takes away what has become an event. What is refused within a minute from now is counted again.
   */
  settle({ key, count }: Suppressed<T>): void {
    const window = this.#windows.get(key);
    if (window === undefined) return;
    this.#windows.set(key, {
      ...window,
      startedAt: this.#now(),
      admitted: admittedPerWindow,
      suppressed: window.suppressed - count,
    });
  }

  /** Whether anything waits to become an event. */
  get isWaiting(): boolean {
    for (const { suppressed } of this.#windows.values()) if (suppressed > 0) return true;
    return false;
  }

  // The oldest that stands for nothing: a count is never forgotten, a window may be.
  #dropQuiet(): void {
    for (const [key, { suppressed }] of this.#windows) {
      if (suppressed > 0) continue;
      this.#windows.delete(key);
      return;
    }
  }
}
