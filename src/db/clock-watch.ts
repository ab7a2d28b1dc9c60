// Compares the clocks every few seconds, and tells when they part and when they agree again.
import { Periodic } from '../shared/periodic.ts';
import { agreementMs, type DatabaseClock, isBeyond, isWithin } from './clock.ts';

export interface ClockWatchParts {
  readonly clock: DatabaseClock;
  /**
   * Told how far the replica's clock is ahead: when the clocks part, and each minute as they stay.
   */
  readonly onDifference: (aheadMs: number) => void;
  /** Told once when they agree again. */
  readonly onAgreement: () => void;
  readonly everyMs?: number;
}

const everyMsDefault = 10_000;
const tellAgainMs = 60_000;

/** Runs on every replica. */
export class ClockWatch {
  readonly #parts: ClockWatchParts;
  readonly #periodic: Periodic;
  #toldAt: number | undefined;
  constructor(parts: ClockWatchParts) {
    this.#parts = parts;
    this.#periodic = new Periodic({
      run: () => this.run(),
      everyMs: parts.everyMs ?? everyMsDefault,
      onFailure: () => undefined, // the database is away: every request says so, and readiness
    });
  }

  start(): void {
    this.#periodic.start();
  }

  /** Waits for a comparison that is under way. */
  stop(): Promise<void> {
    return this.#periodic.stop();
  }

  /** One comparison. */
  async run(): Promise<void> {
    const { clock, onDifference, onAgreement } = this.#parts;
    const difference = await clock.measure();
    if (isBeyond(difference, agreementMs)) {
      if (this.#toldAt !== undefined && performance.now() - this.#toldAt < tellAgainMs) return;
      this.#toldAt = performance.now();
      onDifference(Math.round((difference.atLeastMs + difference.atMostMs) / 2));
    } else if (this.#toldAt !== undefined && isWithin(difference, agreementMs)) {
      this.#toldAt = undefined;
      onAgreement();
    }
  }
}
