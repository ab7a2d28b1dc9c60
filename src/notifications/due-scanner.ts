// Looks every minute for what comes by time, and takes in what is seen in passing: rows whose row
// MAC does not verify. Beside the request that met them, so that its answer takes as long as any
// other.
import type { Keyring } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import type { TeamId } from '../shared/ids.ts';
import { Periodic } from '../shared/periodic.ts';
import { type DueParts, notifyWhatIsDue } from './due.ts';
import type { Outbox } from './outbox.ts';
import type { Alarm } from '../audit/index.ts';

export interface DueScannerParts {
  readonly db: Db;
  readonly outbox: Outbox;
  readonly keyring: Keyring;
  readonly now: () => number;
  /** Told of a tampered row that is met, once a day. */
  readonly onAlarm: (alarm: Alarm) => void;
  readonly onError: (error: Error) => void;
  readonly everyMs?: number;
}

const everyMsDefault = 60_000;
const dayMs = 86_400_000;
/** So many rows of a team are told of on one day. */
const rowsPerDay = 100;
const teamsMax = 10_000;

/** Runs on every replica; what two of them see is told once. */
export class DueScanner {
  readonly #parts: DueScannerParts;
  readonly #seen = new Map<TeamId, Set<string>>();
  readonly #writing = new Set<Promise<void>>();
  #day = 0;
  readonly #periodic: Periodic;
  constructor(parts: DueScannerParts) {
    this.#parts = parts;
    this.#periodic = new Periodic({
      run: () => this.run(),
      everyMs: parts.everyMs ?? everyMsDefault,
      onFailure: (cause) => {
        parts.onError(
          new Error('the due scanner failed; it runs again in a minute', {
            cause,
          }),
        );
      },
    });
  }

  start(): void {
    this.#periodic.start();
  }

  /** Waits for what is being looked at and written. */
  async stop(): Promise<void> {
    await this.#periodic.stop();
    await Promise.all(this.#writing);
  }

  /** One look. Throws an AggregateError of what failed. */
  run(): Promise<number> {
    const { db, outbox, keyring, now, onAlarm } = this.#parts;
    const onTampered: DueParts['onTampered'] = ({ team, target }) => {
      if (this.#toTell(team.id, target))
        onAlarm({ team, target, action: 'notify', reason: 'sealBroken', requestId: 'dueScanner' });
    };
    return notifyWhatIsDue(
      db,
      { outbox, keyring, onTampered },
      new Date(now()),
      () => this.#periodic.isStopping,
    );
  }

  /**
   * Takes a refusal because of a tampered row: told once for each row and day, up to a bound for
   * each team. Never throws, never waits.
   */
  noteTamperedRow({ team, target, action }: Pick<Alarm, 'team' | 'target' | 'action'>): void {
    if (team === undefined || this.#periodic.isStopping) return;
    const { db, outbox, onError } = this.#parts;
    const seen = this.#toTell(team.id, target);
    if (seen === undefined) return;
    seen.add(nameOf(target));
    const day = this.#day;
    const writing: Promise<void> = outbox
      .put(db, [
        {
          team,
          type: 'row.sealBroken',
          subject: target,
          dueAt: new Date(day * dayMs),
          data: { row: { ...target }, action },
        },
      ])
      .then(
        () => undefined,
        (error: unknown) => {
          onError(new Error('cannot notify of a tampered row', { cause: error }));
        },
      )
      .finally(() => {
        this.#writing.delete(writing);
      });
    this.#writing.add(writing);
  }

  /** The rows of a team that were told of today; undefined where this one is among them. */
  #toTell(team: TeamId, target: Alarm['target']): Set<string> | undefined {
    const day = Math.floor(this.#parts.now() / dayMs);
    if (day !== this.#day || this.#seen.size > teamsMax) this.#seen.clear();
    this.#day = day;
    const seen = this.#seen.get(team) ?? new Set();
    this.#seen.set(team, seen);
    return seen.has(nameOf(target)) || seen.size >= rowsPerDay ? undefined : seen;
  }
}

const nameOf = ({ type, id }: Alarm['target']): string => `${type} ${id}`;
