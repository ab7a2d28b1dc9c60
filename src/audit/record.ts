// The one door to the audit log: what other features call. Events commit with their operation;
// denials have a transaction of their own and a ceiling; access records are batched in memory and
// written within a second.
import { sql, type RawBuilder } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import { type Apart, isWithoutPartition, writeApart } from '../db/batches.ts';
import type { Db, Executor } from '../db/client.ts';
import { type Statement, statement } from '../db/statement.ts';
import type { EventId, SubjectId, TeamId } from '../shared/ids.ts';
import { Complaint } from '../shared/complaint.ts';
import { newId } from '../shared/ids.ts';
import {
  type AuditAddress,
  type AuditEvent,
  type EventInput,
  makeEvent,
  recordedSql,
  type RecordedValues,
  recordedValues,
} from './event.ts';
import { DenialCeiling } from './denial-ceiling.ts';
import { type CountedLogIn, type FailedLogIn, FailedLogIns } from './failed-log-ins.ts';
import type { Denial } from '../access/index.ts';

/** A read, a list or a failed authentication. */
export interface AccessRecord {
  readonly subject: SubjectId | null;
  readonly team: TeamId | null;
  readonly action: string;
  readonly target: string | null;
  readonly status: number;
  readonly requestId: string;
  readonly address: string | null;
  /** Why a log-in failed, and for how many it stands. */
  readonly reason?: string | null;
  readonly count?: number;
}

/**
 * A row that the vault did not write as it is (`sealBroken`), or that cannot be shown
 * (`rowUnreadable`).
 */
export interface Alarm extends Pick<Denial, 'team' | 'action' | 'target'> {
  readonly reason: AlarmReason;
  readonly requestId: string;
}
export type AlarmReason = 'sealBroken' | 'rowUnreadable';

export interface AuditParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly now: () => number;
  /**
   * Told when access records cannot be written any more (they are kept up to a bound and tried
   * again), and how many were lost. Told again every minute as long as it lasts.
   */
  readonly onError: (error: Error) => void;
  /** Told of every row that somebody wrote to past the service, as it is met. */
  readonly onAlarm: (alarm: Alarm) => void;
  /** Told of failed log-ins as they are written: one by one, or counted. */
  readonly onFailedLogIn?: (failed: CountedLogIn) => void;
  /**
   * Told of events on the executor on which they were recorded, right after: what it writes commits
   * with them, and what it throws undoes them.
   */
  readonly onRecorded?: (executor: Executor, inputs: readonly EventInput[]) => Promise<void>;
}

const flushMs = 500;
const batchRows = 1_000;
const pendingMax = 20_000;
const summaryMs = 60_000;
/** Months of the audit log that are there before they are needed. */
const monthsAhead = 3;

const recording = (of: {
  isOne: boolean;
  isRepeatable?: true;
}): Statement<RecordedValues, unknown> =>
  statement(
    (parameter) => sql`with ${recordedSql(parameter, { ...of, onlyIf: sql`true` })} select 1`,
  );
const recordOne = recording({ isOne: true });
const recordSeveral = recording({ isOne: false });
const recordRepeatedly = recording({ isOne: false, isRepeatable: true });

/** An event as it will stand in the audit log, and what it was made of. */
export interface MadeEvent {
  readonly input: EventInput;
  readonly event: AuditEvent;
  readonly address: AuditAddress | null;
}

/** Writes the audit log. */
export class AuditLog {
  readonly #parts: AuditParts;
  readonly #ceiling: DenialCeiling<Denial>;
  readonly #failedLogIns: FailedLogIns;
  readonly #pending: (AccessRecord & { id: EventId; at: Date })[] = [];
  #timer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> | undefined;
  #summaryTimer: NodeJS.Timeout | undefined;
  #dropped = 0;
  readonly #waiting: Complaint;
  #makingMonths: Promise<void> | undefined;

  constructor(parts: AuditParts) {
    this.#parts = parts;
    this.#waiting = new Complaint(parts.onError);
    this.#ceiling = new DenialCeiling(parts.now);
    this.#failedLogIns = new FailedLogIns({
      now: parts.now,
      write: (failed) => {
        parts.onFailedLogIn?.(failed);
        this.access({ ...failed, subject: null, team: null, target: null, status: 401 });
      },
    });
  }

  /** Writes events inside the operation's transaction. */
  async record(executor: Executor, ...inputs: readonly EventInput[]): Promise<void> {
    if (inputs.length === 0) return;
    try {
      await (inputs.length === 1 ? recordOne : recordSeveral)(executor, this.values(inputs));
    } catch (error) {
      this.notice(error);
      throw error;
    }
    await this.#parts.onRecorded?.(executor, inputs);
  }

  /** Makes an event that is written later, with the time and the id that it has from now on. */
  make(input: EventInput): MadeEvent {
    return { input, ...makeEvent(input, this.#parts) };
  }

  /**
   * Writes events that were made before, as one statement. Those that stand there already stay as
   * they are, so that it can be repeated when its answer was lost.
   */
  async recordMade(executor: Executor, made: readonly MadeEvent[]): Promise<void> {
    await recordRepeatedly(
      executor,
      recordedValues(
        made.map(({ event }) => event),
        made.flatMap(({ address }) => address ?? []),
        { isOne: false },
      ),
    );
    await this.#parts.onRecorded?.(
      executor,
      made.map(({ input }) => input),
    );
  }

  /**
   * Takes what a statement threw that recorded something. Where it found no month the months are
   * made; nobody waits for that, because the transaction that failed holds what the making needs.
   */
  notice(error: unknown): void {
    if (!isWithoutPartition(error)) return;
    void this.makeMonths().catch((cause: unknown) => {
      this.#parts.onError(new Error('cannot make the coming months of the audit log', { cause }));
    });
  }

  /** Makes the month of today and those to come, where they are not there. One at a time. */
  makeMonths(): Promise<void> {
    this.#makingMonths ??= sql`select audit_make_months(${monthsAhead})`
      .execute(this.#parts.db)
      .then(() => undefined)
      .finally(() => {
        this.#makingMonths = undefined;
      });
    return this.#makingMonths;
  }

  /**
   * Writes rows of the audit log: where their month is missing it is made, what still does not fit
   * is lost alone. Never throws.
   */
  writeApart<T>(
    rows: readonly T[],
    write: (rows: readonly T[]) => Promise<unknown>,
  ): Promise<Apart<T>> {
    let isMade = false;
    return writeApart(rows, async (some) => {
      try {
        await write(some);
      } catch (error) {
        if (isMade || !isWithoutPartition(error)) throw error;
        isMade = true;
        try {
          await this.makeMonths();
        } catch (cause) {
          this.#parts.onError(
            new Error('cannot make the coming months of the audit log', { cause }),
          );
          throw error;
        }
        await write(some);
      }
    });
  }

  /**
   * Events for a statement that was composed once with `recordedSql`, so that an operation and its
   * events are one round trip.
   */
  values(inputs: readonly EventInput[]): RecordedValues {
    const events: AuditEvent[] = [];
    const addresses: AuditAddress[] = [];
    for (const input of inputs) {
      const { event, address } = makeEvent(input, this.#parts);
      events.push(event);
      if (address !== null) addresses.push(address);
    }
    return recordedValues(events, addresses, { isOne: events.length === 1 });
  }

  /**
   * The same for a statement that is composed at each run. With `onlyIf`, nothing is recorded
   * unless the condition holds.
   */
  parts(
    inputs: readonly EventInput[],
    onlyIf: RawBuilder<unknown> = sql`true`,
  ): RawBuilder<unknown> {
    const values = this.values(inputs);
    return recordedSql((name) => sql`${values[name]}`, { isOne: inputs.length === 1, onlyIf });
  }

  /**
   * Records a refusal; above ten a minute of the same kind they become one event a minute with
   * their count.
   */
  async denial(denial: Denial): Promise<void> {
    const { caller, team, action, target, reason, isHidden } = denial;
    if (reason === 'sealBroken' || reason === 'rowUnreadable')
      this.alarm({ team, action, target, reason, requestId: caller.requestId });
    // The team and the reason are in the key too: noise in one team must not hide what is tried in
    // another.
    // SECURITY: but not where the caller must not learn that there is one: an event more or less
    // would take longer or shorter.
    const kind = isHidden === true ? 'hidden' : `${team?.id ?? ''} ${reason}`;
    const who = caller.strangerOf ?? caller.subject;
    if (this.#ceiling.admit(`${who} ${action} ${kind}`, denial))
      await this.record(this.#parts.db, eventOf(denial));
    else
      this.#summaryTimer ??= setTimeout(() => {
        void this.#summarise({ all: false });
      }, summaryMs).unref();
  }

  /**
   * Raises the alarm about a row without refusing anything: it is left out, or shown as what it is.
   */
  alarm(alarm: Alarm): void {
    this.#parts.onAlarm(alarm);
  }

  /** Turns what was only counted into events; what cannot be written is counted on. */
  async #summarise({ all }: { all: boolean }): Promise<void> {
    clearTimeout(this.#summaryTimer);
    this.#summaryTimer = undefined;
    for (const suppressed of this.#ceiling.overdue({ all })) {
      const { left, lost, cause } = await this.writeApart([suppressed], () =>
        this.record(this.#parts.db, {
          ...eventOf(suppressed.last),
          details: { count: suppressed.count },
        }),
      );
      if (lost.length > 0)
        this.#parts.onError(
          new Error(`${suppressed.count} refusals do not fit the audit log and were lost`, {
            cause,
          }),
        );
      if (left.length > 0) {
        this.#parts.onError(new Error('cannot write counted refusals', { cause }));
        break;
      }
      this.#ceiling.settle(suppressed);
    }
    if (!all && this.#ceiling.isWaiting)
      this.#summaryTimer ??= setTimeout(() => {
        void this.#summarise({ all: false });
      }, summaryMs).unref();
  }

  /**
   * Takes a failed log-in, which becomes an access record; above ten a minute of one origin and
   * reason they become one a minute with their count.
   */
  failedLogIn(failed: FailedLogIn): void {
    this.#failedLogIns.take(failed);
  }

  /** Takes an access record; it is in the database within a second. */
  access(record: AccessRecord): void {
    if (this.#pending.length >= pendingMax) {
      this.#dropped += 1;
      return;
    }
    this.#pending.push({ ...record, id: newId<EventId>(), at: new Date(this.#parts.now()) });
    this.#timer ??= setTimeout(() => {
      void this.flush();
    }, flushMs).unref();
  }

  /** Writes the access records that are pending. */
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

  /** Writes all that waits in memory; the last call before the database closes. */
  async stop(): Promise<void> {
    this.#failedLogIns.stop();
    await this.flush();
    clearTimeout(this.#timer);
    await this.#summarise({ all: true });
    const { onError } = this.#parts;
    if (this.#pending.length > 0)
      onError(new Error(`${this.#pending.length} access records are lost: the vault stops`));
    if (this.#ceiling.isWaiting)
      onError(new Error('the vault stops, and refusals that were only counted are lost'));
  }

  async #write(): Promise<void> {
    const { db, onError } = this.#parts;
    while (this.#pending.length > 0) {
      const batch = this.#pending.slice(0, batchRows);
      const { lost, left, cause } = await this.writeApart(batch, (some) =>
        insertAccessRecords(db, some),
      );
      this.#pending.splice(0, batch.length, ...left);
      if (lost.length > 0)
        onError(new Error(`${lost.length} access records do not fit and were lost`, { cause }));
      if (left.length > 0) {
        this.#waiting.raise(
          `access records cannot be written; they wait, up to a bound (${this.#pending.length})`,
          cause,
        );
        return;
      }
    }
    this.#waiting.settle();
    if (this.#dropped === 0) return;
    onError(new Error(`${this.#dropped} access records were lost while they could not be written`));
    this.#dropped = 0;
  }
}

const eventOf = (denial: Denial): EventInput => ({
  caller: denial.caller,
  team: denial.team,
  action: denial.action,
  target: denial.target,
  decision: 'deny',
  reason: denial.reason,
});

// A batch whose answer was lost is sent again: what is there already stays as it is.
async function insertAccessRecords(
  db: Db,
  records: readonly (AccessRecord & { id: EventId; at: Date })[],
): Promise<void> {
  const column = <T>(of: (record: (typeof records)[number]) => T): T[] => records.map(of);
  await sql`insert into access_record (id, at, subject_id, team_id, action, target_id, status,
    request_id, address, reason, count)
    select * from unnest(${column((r) => r.id)}::uuid[], ${column((r) => r.at)}::timestamptz[],
      ${column((r) => r.subject)}::uuid[],
      ${column((r) => r.team)}::uuid[], ${column((r) => r.action)}::text[],
        ${column((r) => r.target)}::text[],
      ${column((r) => r.status)}::int[], ${column((r) => r.requestId)}::text[],
        ${column((r) => r.address)}::text[],
      ${column((r) => r.reason ?? null)}::text[], ${column((r) => r.count ?? 1)}::int[])
    on conflict do nothing`.execute(db);
}
