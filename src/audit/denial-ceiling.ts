// Keeps a caller who is refused in a loop from filling the trail: ten events a minute for one subject and action, then one event
// a minute that says how many it stands for. Counts live in this replica.

const windowMs = 60_000;
const admittedPerWindow = 10;
const keysMax = 10_000;

interface Window { startedAt: number; admitted: number; suppressed: number }

/** Decides which refusals become an event. */
export class DenialCeiling {
  readonly #now: () => number;
  readonly #windows = new Map<string, Window>();
  constructor(now: () => number) { this.#now = now; }

  /** Undefined when this refusal is only counted; otherwise how many were only counted before it. */
  admit(key: string): { suppressed: number } | undefined {
    const now = this.#now();
    const window = this.#windows.get(key);
    if (window === undefined || now - window.startedAt >= windowMs) {
      const suppressed = window?.suppressed ?? 0;
      this.#windows.delete(key);
      if (this.#windows.size >= keysMax) this.#dropOldest();
      this.#windows.set(key, { startedAt: now, admitted: suppressed > 0 ? admittedPerWindow : 1, suppressed: 0 });
      return { suppressed };
    }
    if (window.admitted < admittedPerWindow) {
      window.admitted += 1;
      return { suppressed: 0 };
    }
    window.suppressed += 1;
    return undefined;
  }

  #dropOldest(): void {
    const oldest = this.#windows.keys().next();
    if (oldest.done !== true) this.#windows.delete(oldest.value);
  }
}
