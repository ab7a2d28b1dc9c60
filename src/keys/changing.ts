// What every change of a key's state has in common: the lock that writers of tokens meet, and the
// start of a rotation.
import { sql } from 'kysely';
import { DecryptionFailed, type Keyring, KeyUnavailable } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import { isLockTimeout, isRetryable } from '../db/errors.ts';
import type { RotationCause, TokenFormatColumn } from '../db/tables.ts';
import { AppError } from '../shared/errors.ts';
import { type DataKeyId, newId, type RotationId } from '../shared/ids.ts';
import { findSettings, type TeamRef } from '../access/index.ts';
import type { AuditLog, EventInput } from '../audit/index.ts';
import * as repository from './repository.ts';
import * as rotationRepository from './rotation-repository.ts';

const lockTimeoutMs = 300;
const lockAttempts = 6;

/**
 * Runs a change of a key's state; again when the key's writers did not let go in time. Throws
 * keyBusy in the end. Inside, the lock on the key's row is a statement of its own, and only then
 * does the change count and write.
 */
export async function withKeyLock<T>(db: Db, change: (trx: Trx) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      // SECURITY: at REPEATABLE READ the count after the lock would not see what the key's last
      // writers committed.
      return await db.transaction().setIsolationLevel('read committed').execute(change);
    } catch (error) {
      const isBusy = error instanceof AppError && error.code === 'keyBusy';
      if (!isBusy && !isLockTimeout(error) && !isRetryable(error)) throw error;
      if (attempt >= lockAttempts) throw isBusy ? error : keyBusy({ cause: error });
    }
  }
}

/** Bounds the wait for the key's writers. */
export async function setLockTimeout(trx: Trx): Promise<void> {
  await sql`set local lock_timeout = ${sql.raw(String(lockTimeoutMs))}`.execute(trx);
}

export interface BegunRotation {
  readonly id: RotationId;
  readonly toKey: DataKeyId;
}

/**
 * Makes the team's next key, demotes the one before, inserts the rotation and its event. Throws
 * rotationRunning, keyBusy; a unique violation of key_rotation_one_running says that a twin was
 * faster. `onceLocked` may find that there is nothing to do. How much there is to move is counted
 * when the key is let go (`settleTotal`): a million rows take a second, and the team's writers
 * would wait.
 */
export async function beginRotation(
  { audit, keyring }: { audit: AuditLog; keyring: Keyring },
  trx: Trx,
  of: {
    id: RotationId;
    team: TeamRef;
    caller: EventInput['caller'];
    cause: RotationCause;
    at: Date;
    details?: Record<string, string>;
    onceLocked?: () => Promise<boolean>;
  },
): Promise<BegunRotation | undefined> {
  const { id, team, caller, cause, at } = of;
  // before the lock too: a refusal need not hold up the team's writers
  await refuseWhileRunning(trx, team);
  await setLockTimeout(trx);
  const active = await repository.lockActiveKeyAlone(trx, team.id);
  await refuseWhileRunning(trx, team);
  if (active === undefined) throw keyBusy();
  if (of.onceLocked !== undefined && !(await of.onceLocked())) return undefined;
  const format = await formatOf({ audit, keyring }, trx, { team, caller, active });
  await repository.demoteKey(trx, team.id, active.id, at);
  const toKey = newId<DataKeyId>();
  const key = keyring.newDataKey({ id: toKey, team: team.id, version: active.version + 1, format });
  await repository.insertActiveKey(trx, key, { by: caller.subject, at });
  await rotationRepository.insertRotation(trx, {
    id,
    team: team.id,
    toKey,
    by: caller.subject,
    at,
    cause,
  });
  await audit.record(trx, {
    caller,
    team,
    action: 'key.rotate',
    target: { type: 'key', id: toKey },
    key: toKey,
    details: { rotation: id, fromKey: active.id, toKey, cause, ...of.details },
  });
  return { id, toKey };
}

/**
 * The format of the team's next key: as its admin has set it. Where the settings were changed past
 * the service, that of the key before, which its wrapping says; and where that does not unwrap
 * either, the stronger one. A rotation away from a compromised key waits for nobody's repair.
 */
async function formatOf(
  { audit, keyring }: { audit: AuditLog; keyring: Keyring },
  trx: Trx,
  of: { team: TeamRef; caller: EventInput['caller']; active: repository.ActiveKey },
): Promise<TokenFormatColumn> {
  const { team, caller, active } = of;
  const settings = await findSettings(trx, keyring, team.id);
  if (settings !== undefined) return settings.tokenFormat;
  audit.alarm({
    team,
    action: 'key.rotate',
    target: { type: 'team', id: team.id },
    reason: 'sealBroken',
    requestId: caller.requestId,
  });
  const { wrapped } = active;
  try {
    if (wrapped === null) return strongestFormat;
    keyring.rewrapDataKey({ ...active, wrapped });
    return active.format;
  } catch (error) {
    if (!(error instanceof DecryptionFailed || error instanceof KeyUnavailable)) throw error;
    return strongestFormat;
  }
}

const strongestFormat = 'fernet-256' satisfies TokenFormatColumn;

async function refuseWhileRunning(trx: Trx, team: TeamRef): Promise<void> {
  const running = await rotationRepository.findRunningRotation(trx, team.id);
  if (running !== undefined) throw rotationRunning(running);
}

export const rotationRunning = (rotationId: RotationId): AppError =>
  new AppError('rotationRunning', 'A rotation of this team is running; follow or cancel it.', {
    details: { rotationId },
  });
export const keyBusy = (extras: { cause?: unknown } = {}): AppError =>
  new AppError('keyBusy', 'Tokens are being written under this key; try again.', {
    retryAfterSeconds: 1,
    ...extras,
  });
