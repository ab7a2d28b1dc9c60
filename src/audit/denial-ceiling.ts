// Keeps a caller who is refused in a loop from filling the audit log: ten events a minute for one
// thing, then one event a minute that says how many it stands for. Counts live in this replica.

const windowMs = 60_000;
const admittedPerWindow = 10;
const keysMaxDefault = 10_000;

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

/** A clock that was set back ends a window: nobody would be told for as long as it was set. */
const isWithin = (startedAt: number, now: number): boolean =>
  now >= startedAt && now - startedAt < windowMs;

/** Decides which refusals become an event. */
export class DenialCeiling<T> {
  readonly #now: () => number;
  readonly #keysMax: number;
  readonly #otherwise: string | undefined;
  readonly #windows = new Map<string, Window<T>>();

  /**
   * `otherwise` is the key of all that there is no room for; without it there is room for whatever
   * is counted.
   */
  constructor(
    now: () => number,
    { keysMax = keysMaxDefault, otherwise }: { keysMax?: number; otherwise?: string } = {},
  ) {
    this.#now = now;
    this.#keysMax = keysMax;
    this.#otherwise = otherwise;
  }

  /**
   * Whether this refusal becomes an event of its own; otherwise it is counted, as it always is
   * where there is no room for events.
   */
  admit(key: string, denial: T, { hasRoom = true } = {}): boolean {
    const now = this.#now();
    const name = this.#nameFor(key);
    const window = this.#windows.get(name);
    const isOpen = window !== undefined && isWithin(window.startedAt, now);
    if (
      window !== undefined &&
      (!hasRoom || window.suppressed > 0 || (isOpen && window.admitted >= admittedPerWindow))
    ) {
      window.suppressed += 1;
      window.last = denial;
      return false;
    }
    this.#windows.delete(name);
    this.#windows.set(name, {
      startedAt: isOpen ? window.startedAt : now,
      admitted: hasRoom ? (isOpen ? window.admitted : 0) + 1 : admittedPerWindow,
      suppressed: hasRoom ? 0 : 1,
      last: denial,
    });
    return hasRoom;
  }

  /** The key itself where it is known, or room can be made for it. */
  #nameFor(key: string): string {
    if (this.#windows.has(key) || this.#windows.size < this.#keysMax) return key;
    this.#dropQuiet();
    return this.#windows.size < this.#keysMax ? key : (this.#otherwise ?? key);
  }

  /** What was only counted in windows that are over; with `all`, in the others too. */
  overdue({ all }: { all: boolean }): Suppressed<T>[] {
    const now = this.#now();
    return [...this.#windows]
      .filter(
        ([, { startedAt, suppressed }]) => suppressed > 0 && (all || !isWithin(startedAt, now)),
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
