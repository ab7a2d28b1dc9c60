// How often credentials are used: counted in memory, added to the table about every second. A hint:
// a replica that dies loses its last second, and the audit is the truth.
import { sql } from 'kysely';
import { writeApart } from '../db/batches.ts';
import type { Db } from '../db/client.ts';
import { Complaint } from '../shared/complaint.ts';
import type { CredentialId } from '../shared/ids.ts';

const flushMs = 1_000;
const credentialsMax = 100_000;

interface Delta {
  count: number;
  lastAt: number;
}

/** Counts uses and adds them up in credential_usage. */
export class UsageCounter {
  readonly #db: Db;
  readonly #now: () => number;
  readonly #onError: (error: Error) => void;
  #deltas = new Map<CredentialId, Delta>();
  #timer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> | undefined;
  #dropped = 0;
  readonly #waiting: Complaint;

  /**
   * `onError` is told when counts could not be written (they are kept up to a bound and tried
   * again), and of how many credentials they were lost.
   */
  constructor({
    db,
    now,
    onError,
  }: { db: Db; now: () => number; onError: (error: Error) => void }) {
    this.#db = db;
    this.#now = now;
    this.#onError = onError;
    this.#waiting = new Complaint(onError);
  }

  /** Writes every second from now on. */
  start(): void {
    this.#timer ??= setInterval(() => {
      void this.flush();
    }, flushMs).unref();
  }

  /** Writes what is left and stops. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    await this.#flushing;
    await this.flush();
    if (this.#deltas.size > 0)
      this.#onError(
        new Error(`use counts of ${this.#deltas.size} credentials are lost: the vault stops`),
      );
  }

  /** Counts one use. */
  count(credential: CredentialId): void {
    this.#add(credential, { count: 1, lastAt: this.#now() });
  }

  /** Writes what was counted so far; never throws. */
  async flush(): Promise<void> {
    this.#flushing ??= this.#write().finally(() => {
      this.#flushing = undefined;
    });
    await this.#flushing;
  }

  async #write(): Promise<void> {
    if (this.#deltas.size === 0) return;
    const deltas = this.#deltas;
    this.#deltas = new Map();
    const { lost, left, cause } = await writeApart([...deltas], (some) => addUsage(this.#db, some));
    for (const [credential, delta] of left) this.#add(credential, delta);
    if (lost.length > 0)
      this.#onError(
        new Error(`use counts of ${lost.length} credentials do not fit and were lost`, { cause }),
      );
    if (left.length > 0)
      this.#waiting.raise(`use counts are waiting (${this.#deltas.size})`, cause);
    else this.#waiting.settle();
    if (this.#dropped === 0) return;
    this.#onError(new Error(`${this.#dropped} uses were not counted: too many credentials wait`));
    this.#dropped = 0;
  }

  #add(credential: CredentialId, { count, lastAt }: Delta): void {
    const held = this.#deltas.get(credential);
    if (held !== undefined) {
      held.count += count;
      held.lastAt = Math.max(held.lastAt, lastAt);
    } else if (this.#deltas.size < credentialsMax) {
      this.#deltas.set(credential, { count, lastAt });
    } else this.#dropped += count;
  }
}

/**
 * Rows are taken in the order of their ids, so that replicas that write the same ones wait for each
 * other and do not lock each other up.
 */
async function addUsage(
  db: Db,
  entries: readonly (readonly [CredentialId, Delta])[],
): Promise<void> {
  await sql`
    insert into credential_usage (credential_id, team_id, made_at, use_count, last_used_at)
    select delta.id, credential.team_id, credential.created_at, delta.count, delta.last_at
    from unnest(${entries.map(([id]) => id)}::uuid[],
      ${entries.map(([, { count }]) => count)}::bigint[],
      ${entries.map(([, { lastAt }]) => new Date(lastAt))}::timestamptz[]) as delta (id, count,
        last_at)
    join credential on credential.id = delta.id
    order by delta.id
    on conflict on constraint credential_usage_pkey do update
      set use_count = credential_usage.use_count + excluded.use_count,
        last_used_at = greatest(credential_usage.last_used_at, excluded.last_used_at)`.execute(db);
}
