// A team's keys and their rotations. A key's state changes only under `for update` on its row, taken in a statement of its own at
// READ COMMITTED: writers of tokens hold the share lock, so what they wrote is committed, and counted, before the state changes.
import { sql } from 'kysely';
import type { AuditLog } from '../audit/record.ts';
import type { Keyring } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import { isLockTimeout, isRetryable } from '../db/errors.ts';
import type { TokenFormatColumn } from '../db/tables.ts';
import type { Caller, TeamRef } from '../http/access.ts';
import type { Claim } from '../http/idempotency.ts';
import type { Page } from '../http/paging.ts';
import { AppError, notFound } from '../shared/errors.ts';
import { type DataKeyId, newId, type RotationId, type SubjectId, type TeamId } from '../shared/ids.ts';
import * as repository from './repository.ts';
import type { KeyRow, RotationFailure, RotationRow } from './repository.ts';
import { countTokensByTable } from './token-tables.ts';

export type { KeyRow, RotationFailure, RotationRow } from './repository.ts';

/** How fast a rotation goes, and when it will be done if it goes on like that. */
export interface Pace { readonly rowsPerSecond: number; readonly estimatedEnd: Date | null }
export type Rotation = RotationRow & Pace;

export interface KeysParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly now: () => number;
  /** Called when a rotation was started, so that this replica begins at once. */
  readonly wake: () => void;
}

const lockTimeoutMs = 300;
const lockAttempts = 6;
const failuresShownMax = 100;

/** What is asked of keys. */
export class KeysService {
  readonly #parts: KeysParts;
  constructor(parts: KeysParts) { this.#parts = parts; }

  /** Makes a team's first key, in the transaction that makes the team. */
  readonly insertFirstKey = async (trx: Trx, { team, format, by, at }: { team: TeamId; format: TokenFormatColumn; by: SubjectId; at: Date }): Promise<void> => {
    await repository.insertActiveKey(trx, this.#parts.keyring.newDataKey({ id: newId<DataKeyId>(), team, version: 1, format }), { by, at });
  };

  /** Keys by version, newest first; one more than the page, for the cursor. */
  listKeys(team: TeamRef, page: Page): Promise<KeyRow[]> {
    const before = page.after?.[0];
    return repository.listKeys(this.#parts.db, team.id, { limit: page.limit + 1, beforeVersion: before === undefined ? undefined : Number(before) });
  }

  /** Throws notFound. */
  async getKey(team: TeamRef, id: DataKeyId): Promise<KeyRow> {
    return await repository.findKey(this.#parts.db, team.id, id) ?? raise(notFound());
  }

  /**
   * Makes the team's next key, demotes the one before and starts moving its tokens, in one transaction. Throws rotationRunning with
   * `rotationId`, and keyBusy when writers would not let go of the key.
   */
  async startRotation(caller: Caller, team: TeamRef, claim: Claim): Promise<Rotation> {
    const { audit, keyring } = this.#parts;
    const id = newId<RotationId>();
    const toKey = newId<DataKeyId>();
    const at = this.#time();
    const total = await this.#withKeyLock(async (trx) => {
      await claim(trx, id);
      await refuseWhileRunning(trx, team.id); // before the lock too: a refusal need not hold up the team's writers
      await setLockTimeout(trx);
      const active = await repository.lockActiveKey(trx, team.id);
      await refuseWhileRunning(trx, team.id);
      if (active === undefined) throw keyBusy();
      const format = await repository.findTeamFormat(trx, team.id) ?? raise(notFound());
      await repository.demoteKey(trx, team.id, active.id, at);
      const key = keyring.newDataKey({ id: toKey, team: team.id, version: active.version + 1, format });
      await repository.insertActiveKey(trx, key, { by: caller.subject, at });
      const inserted = await repository.insertRotation(trx, { id, team: team.id, toKey, by: caller.subject, at });
      await audit.record(trx, {
        caller, team, action: 'key.rotate', target: { type: 'key', id: toKey }, key: toKey, details: { rotation: id, fromKey: active.id, toKey },
      });
      return inserted.total;
    });
    this.#parts.wake();
    const row: RotationRow = {
      id, state: 'running', toKey, total, done: 0, failed: 0, createdAt: at, createdBy: caller.sub, progressedAt: at, endedAt: null,
    };
    return { ...row, ...paceOf(row, this.#parts.now()) };
  }

  /** Rotations, newest first; one more than the page, for the cursor. */
  async listRotations(team: TeamRef, page: Page): Promise<Rotation[]> {
    const before = page.after?.[0] as RotationId | undefined;
    const rows = await repository.listRotations(this.#parts.db, team.id, { limit: page.limit + 1, before });
    return rows.map((row) => ({ ...row, ...paceOf(row, this.#parts.now()) }));
  }

  /** One rotation with up to 100 of the tokens that did not open. Throws notFound. */
  async getRotation(team: TeamRef, id: RotationId): Promise<Rotation & { failures: RotationFailure[] }> {
    const row = await repository.findRotation(this.#parts.db, team.id, id) ?? raise(notFound());
    const failures = row.failed === 0 ? [] : await repository.listRotationFailures(this.#parts.db, id, failuresShownMax);
    return { ...row, ...paceOf(row, this.#parts.now()), failures };
  }

  /** Stops the moving; the key that the rotation made stays active. Throws rotationNotRunning, notFound. */
  async cancelRotation(caller: Caller, team: TeamRef, id: RotationId): Promise<Rotation> {
    return this.#parts.db.transaction().setIsolationLevel('read committed').execute(async (trx) => {
      const isCancelled = await repository.cancelRotation(trx, team.id, id, this.#time());
      const row = await repository.findRotation(trx, team.id, id) ?? raise(notFound());
      if (!isCancelled) throw new AppError('rotationNotRunning', 'The rotation has ended.');
      await this.#parts.audit.record(trx, {
        caller, team, action: 'key.rotationCancel', target: { type: 'rotation', id }, key: row.toKey,
        details: { total: row.total, done: row.done, failed: row.failed },
      });
      return { ...row, ...paceOf(row, this.#parts.now()) };
    });
  }

  /** Retires a key that no token needs. Throws keyStateConflict, keyInUse with the counts, keyBusy, notFound. */
  async retireKey(caller: Caller, team: TeamRef, id: DataKeyId): Promise<KeyRow> {
    return this.#withKeyLock(async (trx) => {
      await setLockTimeout(trx);
      const state = await repository.lockKey(trx, team.id, id) ?? raise(notFound());
      if (state !== 'decryptOnly') throw new AppError('keyStateConflict', 'Only a key in state decryptOnly can be retired.');
      const rows = await countTokensByTable(trx, { team: team.id, id });
      if (Object.values(rows).some((count) => count > 0)) {
        throw new AppError('keyInUse', 'Tokens are still under this key: rotate, or remove what does not open.', { details: { rows } });
      }
      await repository.retireKey(trx, team.id, id, this.#time());
      await this.#parts.audit.record(trx, { caller, team, action: 'key.retire', target: { type: 'key', id }, key: id });
      return await repository.findKey(trx, team.id, id) ?? raise(notFound());
    });
  }

  /** Runs a change of a key's state; again when the key's writers did not let go in time. Throws keyBusy in the end. */
  async #withKeyLock<T>(change: (trx: Trx) => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        // SECURITY: at REPEATABLE READ the count after the lock would not see what the key's last writers committed.
        return await this.#parts.db.transaction().setIsolationLevel('read committed').execute(change);
      } catch (error) {
        if (!isLockTimeout(error) && !isRetryable(error)) throw error;
        if (attempt >= lockAttempts) throw keyBusy({ cause: error });
      }
    }
  }

  #time(): Date { return new Date(this.#parts.now()); }
}

/** What a rotation's counters say about its speed. */
function paceOf(row: RotationRow, now: number): Pace {
  const seconds = (row.progressedAt.getTime() - row.createdAt.getTime()) / 1000;
  const rowsPerSecond = seconds > 0 ? row.done / seconds : 0;
  if (row.state !== 'running' || rowsPerSecond === 0) return { rowsPerSecond, estimatedEnd: null };
  const left = Math.max(0, row.total - row.done - row.failed);
  return { rowsPerSecond, estimatedEnd: new Date(now + (left / rowsPerSecond) * 1000) };
}

async function refuseWhileRunning(trx: Trx, team: TeamId): Promise<void> {
  const running = await repository.findRunningRotation(trx, team);
  if (running !== undefined) throw rotationRunning(running);
}

async function setLockTimeout(trx: Trx): Promise<void> {
  await sql`set local lock_timeout = ${sql.raw(String(lockTimeoutMs))}`.execute(trx);
}

const rotationRunning = (rotationId: RotationId): AppError =>
  new AppError('rotationRunning', 'A rotation of this team is running; follow or cancel it.', { details: { rotationId } });
const keyBusy = (extras: { cause?: unknown } = {}): AppError =>
  new AppError('keyBusy', 'Tokens are being written under this key; try again.', { retryAfterSeconds: 1, ...extras });

function raise(error: AppError): never { throw error; }
