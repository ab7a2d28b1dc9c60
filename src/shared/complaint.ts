// Something that goes wrong again and again: the log hears of it at once, and from then on once a
// minute as long as it lasts.

const againMs = 60_000;

/** Tells of one thing that does not work. */
export class Complaint {
  readonly #tell: (error: Error) => void;
  readonly #steadyMs: () => number;
  #toldAt: number | undefined;
  /** `steadyMs` counts milliseconds and never goes back. */
  constructor(tell: (error: Error) => void, steadyMs: () => number = () => performance.now()) {
    this.#tell = tell;
    this.#steadyMs = steadyMs;
  }

  /** It does not work at this moment. */
  raise(text: string, cause: unknown): void {
    const now = this.#steadyMs();
    if (this.#toldAt !== undefined && now - this.#toldAt < againMs) return;
    this.#toldAt = now;
    this.#tell(new Error(text, { cause }));
  }

  /** It works: the next time is told at once. */
  settle(): void {
    this.#toldAt = undefined;
  }
}
