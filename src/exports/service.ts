// The export of a team's metadata: everything that is known of it, from one snapshot, a batch at a
// time. It is in the audit log before the first line goes out.
import type { Keyring } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import { Budget, type BudgetCounts } from '../shared/budget.ts';
import { isId, type TeamId } from '../shared/ids.ts';
import { type Kind, kinds, type Line } from './kinds.ts';
import { showOne } from '../shared/showing.ts';
import type { Caller, TeamRef } from '../access/index.ts';
import type { EventFilters, EventRow } from '../audit-events/index.ts';
import type { AlarmReason, AuditLog } from '../audit/index.ts';

export interface ExportsParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly now: () => number;
  /** Events of a team, newest first. */
  readonly listEvents: (
    trx: Trx,
    team: TeamId,
    filters: EventFilters,
    page: { limit: number; before: { at: Date; id: string } | undefined },
  ) => Promise<EventRow[]>;
  /** An event as it is shown, its MAC checked. */
  readonly showEvent: (row: EventRow, keyring: Keyring) => object;
}

/** Rows of one statement, and lines that are in memory at a time; fewer where they are long. */
const batchRows = 100;
/**
 * Each holds a connection of this replica's pool for as long as its reader takes; one of a team, so
 * that a slow one leaves room for others.
 */
const runningMax = 2;

/** What is asked of exports. */
export class ExportsService {
  readonly #parts: ExportsParts;
  readonly #running = new Budget<TeamId>({
    what: 'exported',
    keyMax: 1,
    max: runningMax,
    retryAfterSeconds: 5,
  });
  constructor(parts: ExportsParts) {
    this.#parts = parts;
  }

  /** Exports that run, and how often one was refused. */
  get counts(): BudgetCounts {
    return this.#running.counts;
  }

  /**
   * Records the export and opens its snapshot; the lines come in batches, the last one counts them.
   * Whoever takes them ends the iteration, at the end or before it, and with it the snapshot.
   * Throws rateLimited where too many run on this replica, or one of the team.
   */
  async exportTeam(
    caller: Caller,
    team: TeamRef,
    { withEvents }: { withEvents: boolean },
  ): Promise<AsyncGenerator<readonly Line[], void, undefined>> {
    const place = this.#running.enter(team.id, 1);
    try {
      const { db, audit } = this.#parts;
      // Before the first line, by itself: the snapshot can only read.
      await audit.record(db, {
        caller,
        team,
        action: 'team.export',
        target: { type: 'team', id: team.id },
        details: { withEvents },
      });
      const trx = await db
        .startTransaction()
        .setIsolationLevel('repeatable read')
        .setAccessMode('read only')
        .execute();
      const lines = this.#lines(trx, caller, team, withEvents);
      const end = async (): Promise<void> => {
        place.leave();
        await trx
          .rollback()
          .execute()
          .catch(() => undefined); // it has written nothing; a lost connection ended it already
      };
      return ending(lines, end);
    } catch (error) {
      place.leave();
      throw error;
    }
  }

  async *#lines(
    trx: Trx,
    caller: Caller,
    team: TeamRef,
    withEvents: boolean,
  ): AsyncGenerator<readonly Line[], void, undefined> {
    const { now } = this.#parts;
    yield [
      {
        kind: 'export',
        format: 1,
        team: team.slug,
        at: new Date(now()),
        by: caller.sub,
        withEvents,
      },
    ];
    let count = 1;
    const all: readonly Kind[] = [...kinds, ...(withEvents ? [this.#events()] : [])];
    for (const kind of all) {
      for (let last: unknown; ; ) {
        const rows = (await kind.next(trx, team.id, last, batchRows)) as readonly object[];
        if (rows.length > 0) yield rows.map((row) => this.#line(kind, row, caller, team));
        if (rows.length === 0) break;
        count += rows.length;
        last = rows.at(-1);
      }
    }
    yield [{ kind: 'end', lines: count + 1 }];
  }

  /** What of a row goes out. One that breaks what reads it says no more than which it is. */
  #line(kind: Kind, row: object, caller: Caller, team: TeamRef): Line {
    const line = showOne(row, (each) => ({
      kind: kind.kind,
      ...kind.line(each, this.#parts.keyring, team),
    }));
    if (typeof line !== 'object') return { kind: 'unreadable', of: kind.kind, ...idOf(row) };
    if ((line as Line)['intact'] === false && kind.kind !== 'event')
      this.#alarm(caller, team, { kind: kind.kind, ...idOf(row) }, 'sealBroken');
    return line;
  }

  /** Raises the alarm about a row that fits no shape. */
  unreadable(caller: Caller, team: TeamRef, row: { kind: string; id: string | null }): void {
    this.#alarm(caller, team, row, 'rowUnreadable');
  }

  #alarm(
    caller: Caller,
    team: TeamRef,
    { kind, id }: { readonly kind: string; readonly id: string | null },
    reason: AlarmReason,
  ): void {
    this.#parts.audit.alarm({
      team,
      action: 'team.export',
      target: { type: kind, id: id ?? 'unknown' },
      reason,
      requestId: caller.requestId,
    });
  }

  #events(): Kind<EventRow> {
    const { listEvents, showEvent } = this.#parts;
    return {
      kind: 'event',
      next: (trx, team, last, limit) => listEvents(trx, team, {}, { limit, before: last }),
      line: (row, keyring) => ({ ...showEvent(row, keyring) }),
    };
  }
}

/** The id of a row, where it has one that has the form of an id. */
function idOf(row: object): { readonly id: string | null } {
  const { id, credential } = row as { readonly id?: unknown; readonly credential?: unknown };
  const named = id ?? credential;
  return { id: typeof named === 'string' && isId(named) ? named : null };
}

/**
 * The same iteration, with something that is done once when it is over: at its end, when it fails,
 * and when it is left or never begun.
 */
function ending<T>(
  of: AsyncGenerator<T, void, undefined>,
  end: () => Promise<void>,
): AsyncGenerator<T, void, undefined> {
  let ended: Promise<void> | undefined;
  const over = (): Promise<void> => (ended ??= end());
  return {
    async next() {
      try {
        const result = await of.next();
        if (result.done === true) await over();
        return result;
      } catch (error) {
        await over();
        throw error;
      }
    },
    async return() {
      const result = await of.return();
      await over();
      return result;
    },
    async throw(error: unknown) {
      await over();
      return of.throw(error);
    },
    [Symbol.asyncIterator]() {
      return this;
    },
    async [Symbol.asyncDispose]() {
      await over();
    },
  };
}
