// What became of calls: written to the audit log in batches, within a second. That a call was let
// out stands there before it goes; this is what came back, as numbers.
import type { Db } from '../db/client.ts';
import type { AuditLog, EventInput, MadeEvent } from '../audit/index.ts';
import { Complaint } from '../shared/complaint.ts';

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
  readonly #pending: MadeEvent[] = [];
  #timer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> | undefined;
  #dropped = 0;
  readonly #waiting: Complaint;

  /**
   * `onError` is told when outcomes cannot be written (they wait, up to a bound) and how many were
   * lost.
   */
  constructor(parts: { db: Db; audit: AuditLog; onError: (error: Error) => void }) {
    this.#parts = parts;
    this.#waiting = new Complaint(parts.onError);
  }

  /** Takes one; never throws. */
  add(outcome: EventInput): void {
    if (this.#pending.length >= pendingMax) {
      this.#dropped += 1;
      return;
    }
    try {
      this.#pending.push(this.#parts.audit.make(outcome));
    } catch (cause) {
      this.#parts.onError(
        new Error('the outcome of a call does not fit the audit log and was lost', { cause }),
      );
      return;
    }
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

  /** Writes what waits, once; what cannot be written then is lost, and said to be. Never throws. */
  async stop(): Promise<void> {
    await this.flush();
    clearTimeout(this.#timer);
    if (this.#pending.length > 0)
      this.#parts.onError(
        new Error(`${this.#pending.length} outcomes of calls are lost: the vault stops`),
      );
  }

  async #write(): Promise<void> {
    const { db, audit, onError } = this.#parts;
    while (this.#pending.length > 0) {
      const batch = this.#pending.slice(0, batchRows);
      const { lost, left, cause } = await audit.writeApart(batch, (some) =>
        audit.recordMade(db, some),
      );
      this.#pending.splice(0, batch.length, ...left);
      if (lost.length > 0)
        onError(
          new Error(`${lost.length} outcomes of calls do not fit the audit log and were lost`, {
            cause,
          }),
        );
      if (left.length > 0) {
        this.#waiting.raise(
          `outcomes of calls cannot be written; they wait (${this.#pending.length})`,
          cause,
        );
        return;
      }
    }
    this.#waiting.settle();
    if (this.#dropped === 0) return;
    onError(
      new Error(`${this.#dropped} outcomes of calls were lost while they could not be written`),
    );
    this.#dropped = 0;
  }
}
