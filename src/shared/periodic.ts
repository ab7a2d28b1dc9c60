// Work that comes back: housekeeping, schedules, looks for what is due. Every replica does it; what
// must happen once is for the work to see to.

export interface PeriodicParts {
  readonly run: () => Promise<unknown>;
  readonly everyMs: number;
  /** Told of each thing that failed; the next run tries it again. */
  readonly onFailure: (cause: unknown) => void;
  /** Whether the first run is at the start, and not after the first interval. */
  readonly isDueAtStart?: boolean;
}

/** Runs now and then, one run at a time. */
export class Periodic {
  readonly #parts: PeriodicParts;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #isWoken = false;
  #isStopping = false;
  constructor(parts: PeriodicParts) {
    this.#parts = parts;
  }

  /** What takes long asks this between its steps. */
  get isStopping(): boolean {
    return this.#isStopping;
  }

  start(): void {
    if (this.#parts.isDueAtStart !== false) this.wake();
    this.#timer = setInterval(() => {
      this.wake();
    }, this.#parts.everyMs).unref();
  }

  /**
   * Runs at once; once more when a run is under way, which may have passed by what it is woken for.
   */
  wake(): void {
    this.#isWoken = true;
    this.#running ??= this.#runWhileWoken();
  }

  /** Waits for a run that is under way. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    clearInterval(this.#timer);
    await this.#running;
  }

  async #runOnce(): Promise<void> {
    try {
      await this.#parts.run();
    } catch (error) {
      for (const cause of error instanceof AggregateError ? error.errors : [error])
        this.#parts.onFailure(cause);
    }
  }

  /** Whatever becomes of it, the next wake begins anew. */
  async #runWhileWoken(): Promise<void> {
    try {
      while (this.#isWoken && !this.#isStopping) {
        this.#isWoken = false;
        await this.#runOnce();
      }
    } finally {
      this.#running = undefined;
    }
  }
}
