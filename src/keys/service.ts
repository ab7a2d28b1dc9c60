// A team's keys and their rotations, as people ask for them. ./life has the other changes of a
// key's state.
import type { Keyring } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import { isUniqueViolation } from '../db/errors.ts';
import type { TokenFormatColumn } from '../db/tables.ts';
import { AppError, notFound } from '../shared/errors.ts';
import { growthLimits, limitReached } from '../shared/growth.ts';
import {
  type DataKeyId,
  isId,
  newId,
  type RotationId,
  type SubjectId,
  type TeamId,
} from '../shared/ids.ts';
import { beginRotation, keyBusy, rotationRunning, withKeyLock } from './changing.ts';
import { settleTotal } from './moving.ts';
import * as repository from './repository.ts';
import * as rotationRepository from './rotation-repository.ts';
import type { RotationRow } from './rotation-repository.ts';
import type { Claim } from '../db/claims.ts';
import type { Page } from '../shared/paging.ts';
import type { Caller, TeamRef } from '../access/index.ts';
import type { AuditLog } from '../audit/index.ts';
import type { KeyRow, RotationFailure } from './types.ts';

/** How fast a rotation goes, and when it will be done if it goes on like that. */
export interface RotationPace {
  readonly rowsPerSecond: number;
  readonly estimatedEnd: Date | null;
}
export type Rotation = RotationRow & RotationPace;
/** `isMeasured` is false where no large rotation has run here yet. */
export interface Forecast {
  readonly rows: number;
  readonly estimatedSeconds: number;
  readonly isMeasured: boolean;
}

export interface KeysParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly now: () => number;
  /** Called when a rotation was started, so that this replica begins at once. */
  readonly wake: () => void;
  readonly keysMax?: number | undefined;
}

const assumedRowsPerSecond = 2_000;
const failuresShownMax = 100;

/** What is asked of keys. */
export class KeysService {
  readonly #parts: KeysParts;
  constructor(parts: KeysParts) {
    this.#parts = parts;
  }

  /** Makes a team's first key, in the transaction that makes the team. */
  readonly insertFirstKey = async (
    trx: Trx,
    { team, format, by, at }: { team: TeamId; format: TokenFormatColumn; by: SubjectId; at: Date },
  ): Promise<void> => {
    await repository.insertActiveKey(
      trx,
      this.#parts.keyring.newDataKey({ id: newId<DataKeyId>(), team, version: 1, format }),
      { by, at },
    );
  };

  /** Keys by version, newest first; one more than the page, for the cursor. */
  listKeys(team: TeamRef, page: Page): Promise<KeyRow[]> {
    const before = page.after?.[0];
    return repository.listKeys(this.#parts.db, team.id, {
      limit: page.limit + 1,
      beforeVersion: before === undefined ? undefined : Number(before),
    });
  }

  /** Throws notFound. */
  async getKey(team: TeamRef, id: DataKeyId): Promise<KeyRow> {
    return (await repository.findKey(this.#parts.db, team.id, id)) ?? raise(notFound());
  }

  /**
   * Makes the team's next key, demotes the one before and starts re-encrypting its tokens, in one
   * transaction. Throws rotationRunning with `rotationId`, keyBusy when writers would not let go of
   * the key, and limitReached: a policy and a compromise rotate all the same.
   */
  async startRotation(
    caller: Caller,
    team: TeamRef,
    claim: Claim,
    reason?: string,
  ): Promise<Rotation> {
    const { db } = this.#parts;
    const id = newId<RotationId>();
    const at = this.#time();
    try {
      await withKeyLock(db, async (trx) => {
        await claim(trx, id);
        await beginRotation(this.#parts, trx, {
          id,
          team,
          caller,
          cause: 'request',
          at,
          onceLocked: async () => {
            const max = this.#parts.keysMax ?? growthLimits.keys;
            if ((await repository.countKeys(trx, team.id, max)) >= max)
              throw limitReached('keys', max);
            return true;
          },
          ...(reason === undefined ? {} : { details: { reason } }),
        });
      });
    } catch (error) {
      const isBusy = error instanceof AppError && error.code === 'keyBusy';
      if (!isBusy && !isUniqueViolation(error, 'key_rotation_one_running')) throw error;
      // Whoever was faster may have what we waited for in vain.
      const twin = await rotationRepository.findRunningRotation(db, team.id);
      throw twin === undefined ? keyBusy({ cause: error }) : rotationRunning(twin);
    }
    this.#parts.wake();
    // the rotation has begun, whether it can be counted now or not
    await settleTotal(db, id).catch(() => undefined);
    return this.getRotation(team, id);
  }

  /**
   * How many tokens a rotation would re-encrypt, and about how long it would take at the pace of
   * the last large one, or at an assumed one.
   */
  async forecastRotation(team: TeamRef): Promise<Forecast> {
    const { rows, rowsPerSecond } = await rotationRepository.findForecast(this.#parts.db, team.id);
    const pace = rowsPerSecond ?? assumedRowsPerSecond;
    return { rows, estimatedSeconds: Math.ceil(rows / pace), isMeasured: rowsPerSecond !== null };
  }

  /** Rotations, newest first; one more than the page, for the cursor. */
  async listRotations(team: TeamRef, page: Page): Promise<Rotation[]> {
    const before = page.after?.[0] as RotationId | undefined;
    const rows = await rotationRepository.listRotations(this.#parts.db, team.id, {
      limit: page.limit + 1,
      before,
    });
    return rows.map((row) => ({ ...row, ...paceOf(row, this.#parts.now()) }));
  }

  /** One rotation with up to 100 of the tokens that did not open. Throws notFound. */
  async getRotation(
    team: TeamRef,
    id: RotationId,
  ): Promise<Rotation & { failures: RotationFailure[] }> {
    if (!isId<RotationId>(id)) throw notFound();
    const row =
      (await rotationRepository.findRotation(this.#parts.db, team.id, id)) ?? raise(notFound());
    const failures =
      row.failed === 0
        ? []
        : await rotationRepository.listRotationFailures(this.#parts.db, id, failuresShownMax);
    return { ...row, ...paceOf(row, this.#parts.now()), failures };
  }

  /**
   * Stops re-encryption; the key that the rotation made stays active. Throws rotationNotRunning,
   * notFound.
   */
  async cancelRotation(caller: Caller, team: TeamRef, id: RotationId): Promise<Rotation> {
    return this.#parts.db
      .transaction()
      .setIsolationLevel('read committed')
      .execute(async (trx) => {
        const isCancelled = await rotationRepository.cancelRotation(trx, team.id, id, this.#time());
        const row = (await rotationRepository.findRotation(trx, team.id, id)) ?? raise(notFound());
        if (!isCancelled) throw new AppError('rotationNotRunning', 'The rotation has ended.');
        await this.#parts.audit.record(trx, {
          caller,
          team,
          action: 'key.rotationCancel',
          target: { type: 'rotation', id },
          key: row.toKey,
          details: { total: row.total, done: row.done, failed: row.failed },
        });
        return { ...row, ...paceOf(row, this.#parts.now()) };
      });
  }

  /** Records that a row cannot be answered with; the error to throw. */
  async unreadable(
    caller: Caller,
    team: TeamRef,
    target: { readonly type: string; readonly id: string },
  ): Promise<AppError> {
    await this.#parts.audit.denial({
      caller,
      team,
      action: 'key.rotate',
      target,
      reason: 'rowUnreadable',
    });
    return notFound();
  }

  #time(): Date {
    return new Date(this.#parts.now());
  }
}

/** What a rotation's counters say about its speed. */
function paceOf(row: RotationRow, now: number): RotationPace {
  const seconds = (row.progressedAt.getTime() - row.createdAt.getTime()) / 1000;
  const rowsPerSecond = seconds > 0 ? row.done / seconds : 0;
  if (row.state !== 'running' || rowsPerSecond === 0) return { rowsPerSecond, estimatedEnd: null };
  const left = Math.max(0, row.total - row.done - row.failed);
  return { rowsPerSecond, estimatedEnd: new Date(now + (left / rowsPerSecond) * 1000) };
}

function raise(error: AppError): never {
  throw error;
}
