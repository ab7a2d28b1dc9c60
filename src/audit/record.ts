// The one door to the trail: what other features call. Events commit with their operation; denials have a transaction of their
// own and a ceiling; access records are batched in memory and written within a second.
import { sql, type RawBuilder } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import type { Db, Executor } from '../db/client.ts';
import type { Denial } from '../http/authorize.ts';
import type { EventId, SubjectId, TeamId } from '../shared/ids.ts';
import { newId } from '../shared/ids.ts';
import { type AuditAddress, type AuditEvent, type EventInput, insertAddressesSql, insertEventsSql, makeEvent } from './event.ts';
import { DenialCeiling } from './denial-ceiling.ts';

/** A read, a list or a failed authentication. */
export interface AccessRecord {
  readonly subject: SubjectId | null;
  readonly team: TeamId | null;
  readonly action: string;
  readonly target: string | null;
  readonly status: number;
  readonly requestId: string;
  readonly address: string | null;
}

export interface AuditParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly now: () => number;
  /** Told when a batch of access records could not be written; they are kept up to a bound and tried again. */
  readonly onError: (error: Error) => void;
  /** Told of every refusal because a seal does not hold: somebody wrote to the database past the service. */
  readonly onAlarm: (denial: Denial) => void;
}

const flushMs = 500;
const batchRows = 1_000;
const pendingMax = 20_000;

/** Writes the trail. */
export class AuditLog {
  readonly #parts: AuditParts;
  readonly #ceiling: DenialCeiling;
  readonly #pending: (AccessRecord & { id: EventId; at: Date })[] = [];
  #timer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> | undefined;
  #dropped = 0;

  constructor(parts: AuditParts) {
    this.#parts = parts;
    this.#ceiling = new DenialCeiling(parts.now);
  }

  /** Writes events inside the operation's transaction. */
  async record(executor: Executor, ...inputs: readonly EventInput[]): Promise<void> {
    if (inputs.length === 0) return;
    await sql`with ${this.parts(inputs)} select 1`.execute(executor);
  }

  /**
   * The same as common table expressions `recorded` and `recorded_address` of a larger statement, so that an operation and its
   * events are one round trip. With `onlyIf`, nothing is recorded unless the condition holds.
   */
  parts(inputs: readonly EventInput[], onlyIf?: RawBuilder<unknown>): RawBuilder<unknown> {
    const events: AuditEvent[] = [];
    const addresses: AuditAddress[] = [];
    for (const input of inputs) {
      const { event, address } = makeEvent(input, this.#parts);
      events.push(event);
      if (address !== null) addresses.push(address);
    }
    return sql`recorded as (${insertEventsSql(events, onlyIf)}), recorded_address as (${insertAddressesSql(addresses, onlyIf)})`;
  }

  /** Records a refusal; above ten a minute for one subject and action they become one event a minute with their count. */
  async denial(denial: Denial): Promise<void> {
    if (denial.reason === 'sealBroken') this.#parts.onAlarm(denial);
    const summary = this.#ceiling.admit(`${denial.caller.subject} ${denial.action}`);
    if (summary === undefined) return;
    await this.record(this.#parts.db, {
      caller: denial.caller, team: denial.team, action: denial.action, target: denial.target, decision: 'deny', reason: denial.reason,
      ...(summary.suppressed === 0 ? {} : { details: { suppressedBefore: summary.suppressed } }),
    });
  }

  /** Takes an access record; it is in the database within a second. */
  access(record: AccessRecord): void {
    if (this.#pending.length >= pendingMax) { this.#dropped += 1; return; }
    this.#pending.push({ ...record, id: newId<EventId>(), at: new Date(this.#parts.now()) });
    this.#timer ??= setTimeout(() => { void this.flush(); }, flushMs).unref();
  }

  /** Writes what is pending; called by the timer and at the stop. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#flushing ??= this.#write().finally(() => { this.#flushing = undefined; });
    await this.#flushing;
    if (this.#pending.length > 0) this.#timer ??= setTimeout(() => { void this.flush(); }, flushMs).unref();
  }

  async #write(): Promise<void> {
    while (this.#pending.length > 0) {
      const batch = this.#pending.slice(0, batchRows);
      try {
        await insertAccessRecords(this.#parts.db, batch);
      } catch (error) {
        this.#parts.onError(new Error(`access records are waiting (${this.#pending.length}), lost so far: ${this.#dropped}`, { cause: error }));
        return;
      }
      this.#pending.splice(0, batch.length);
    }
  }
}

async function insertAccessRecords(db: Db, records: readonly (AccessRecord & { id: EventId; at: Date })[]): Promise<void> {
  const column = <T>(of: (record: (typeof records)[number]) => T): T[] => records.map(of);
  await sql`insert into access_record (id, at, subject_id, team_id, action, target_id, status, request_id, address)
    select * from unnest(${column((r) => r.id)}::uuid[], ${column((r) => r.at)}::timestamptz[], ${column((r) => r.subject)}::uuid[],
      ${column((r) => r.team)}::uuid[], ${column((r) => r.action)}::text[], ${column((r) => r.target)}::text[],
      ${column((r) => r.status)}::int[], ${column((r) => r.requestId)}::text[], ${column((r) => r.address)}::text[])`.execute(db);
}
