// What became of calls: written to the trail in batches, within a second. That a call was let out
// stands there before it goes; this is what came back, as numbers.
import type { EventInput } from '../audit/event.ts';
import type { AuditLog } from '../audit/record.ts';
import type { Db } from '../db/client.ts';

const flushMs = 500;
const batchRows = 500;
const pendingMax = 20_000;

/** Takes the outcomes of calls. */
export class Outcomes {
  readonly #parts: {
    readonly db: Db;
    readonly audit: AuditLog;
    readonly onError: (error: Error) => void;
  };
  #pending: EventInput[] = [];
  #timer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> | undefined;
  #dropped = 0;

  /**
   * `onError` is told when outcomes cannot be written (they wait, up to a bound) and how many were
   * lost.
   */
  constructor(parts: { db: Db; audit: AuditLog; onError: (error: Error) => void }) {
    this.#parts = parts;
  }

  /** Takes one; never throws. */
  add(outcome: EventInput): void {
    if (this.#pending.length >= pendingMax) {
      this.#dropped += 1;
      return;
    }
    this.#pending.push(outcome);
    this.#timer ??= setTimeout(() => {
      void this.flush();
    }, flushMs).unref();
  }

  /** Writes what waits; never throws. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#flushing ??= this.#write().finally(() => {
      this.#flushing = undefined;
    });
    await this.#flushing;
    if (this.#pending.length > 0)
      this.#timer ??= setTimeout(() => {
        void this.flush();
      }, flushMs).unref();
  }

  async #write(): Promise<void> {
    const { db, audit, onError } = this.#parts;
    while (this.#pending.length > 0) {
      const batch = this.#pending.slice(0, batchRows);
      try {
        await audit.record(db, ...batch);
      } catch (error) {
        onError(
          new Error(`outcomes of calls cannot be written; they wait (${this.#pending.length})`, {
            cause: error,
          }),
        );
        return;
      }
      this.#pending.splice(0, batch.length);
    }
    if (this.#dropped === 0) return;
    onError(
      new Error(`${this.#dropped} outcomes of calls were lost while they could not be written`),
    );
    this.#dropped = 0;
  }
}
