// The one way to change a credential's row: lock, row MAC, revision, write, event, in one
// transaction.
import type { Keyring, SecretFields } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import type { Role } from '../db/tables.ts';
import { isTime } from '../shared/times.ts';
import { AppError, forbidden, notFound } from '../shared/errors.ts';
import type { CredentialId, DataKeyId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import * as repository from './repository.ts';
import { roomOf, type Stay, type TeamRoom } from './room.ts';
import { verifyCredentialRowMac, credentialRowMac } from './row-mac.ts';
import { openVersion, UndecryptableVersion, underActiveKey } from './versions.ts';
import { checkRevision, type ExpectedRevision } from '../shared/revisions.ts';
import { type Caller, isAllowed, type TeamRef } from '../access/index.ts';
import {
  type AlarmReason,
  type AuditLog,
  credentialTarget,
  type EventInput,
} from '../audit/index.ts';
import type { CredentialRow } from './rows.ts';

export interface ChangeParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly now: () => number;
  readonly room?: TeamRoom | undefined;
  /** Whether a row can be answered with; asked before a change of it commits. */
  readonly canShow: (row: CredentialRow) => boolean;
}

type MarkParts = Pick<ChangeParts, 'db' | 'audit' | 'now'>;

export interface ChangeOptions {
  readonly isDeletedToo?: boolean;
  readonly isDryRun?: boolean;
}

/** What a change comes to, and how it stands in the audit log. */
export interface Plan {
  readonly action: string;
  readonly write: Partial<
    Pick<
      CredentialRow,
      | 'name'
      | 'description'
      | 'labels'
      | 'state'
      | 'stateBefore'
      | 'expiresAt'
      | 'rotateAfter'
      | 'version'
      | 'publicFields'
      | 'policy'
      | 'secretFieldNames'
    >
  >;
  readonly key?: DataKeyId;
  readonly details?: JsonObject;
}

/**
 * Thrown at the end of a transaction whose work is not to stay: what was tried has passed every
 * check there is.
 */
export class Undone extends Error {
  readonly row: CredentialRow | undefined;
  constructor(row?: CredentialRow) {
    super('a dry run');
    this.name = 'Undone';
    this.row = row;
  }
}

/** What a change needs `credential.manage` for was asked by somebody without it. */
export class MayNotManage extends Error {}

/** The row is not as the vault wrote it. Thrown out of a transaction; never leaves this file. */
class RowTampered extends Error {
  readonly reason: AlarmReason;
  constructor(reason: AlarmReason) {
    super('a row was changed past the service');
    this.reason = reason;
  }
}

/**
 * Throws MayNotManage, which `changeCredential` turns into a denial in the audit log and
 * `forbidden`.
 */
export function demandManage(role: Role): void {
  if (!isAllowed(role, 'credential.manage')) throw new MayNotManage();
}

/**
 * Carries out what `plan` makes of the row as it is under the lock; nothing for undefined. A
 * deleted row is hidden unless `isDeletedToo`. With `isDryRun` all of it happens and is rolled
 * back; the row is as it would have been. Throws what the plan throws, notFound,
 * preconditionFailed, forbidden, undecryptable, nameTaken, keyBusy, limitReached.
 */
export async function changeCredential(
  parts: ChangeParts,
  caller: Caller,
  resolved: CredentialRow,
  expected: ExpectedRevision,
  plan: (trx: Trx, row: CredentialRow, at: Date, stay: Stay) => Promise<Plan | undefined>,
  { isDeletedToo = false, isDryRun = false }: ChangeOptions = {},
): Promise<CredentialRow> {
  const { keyring, audit, now } = parts;
  const team = { id: resolved.team, slug: resolved.slug };
  try {
    return await underActiveKey(() =>
      roomOf(parts).transaction(resolved.team, async (trx, stay) => {
        const at = new Date(now());
        const row = await repository.lockCredential(trx, resolved.team, resolved.id, at);
        if (row === undefined) throw notFound();
        // SECURITY: the row may have changed since the hook looked at it; its row MAC counts now.
        if (!verifyCredentialRowMac(keyring, row, row.seal)) throw new RowTampered('sealBroken');
        if (row.state === 'deleted' && !isDeletedToo) throw notFound();
        checkRevision(expected, row.revision);
        const planned = await plan(trx, row, at, stay);
        if (planned === undefined) return row;
        const next = { ...row, ...planned.write, revision: row.revision + 1 };
        // No row MAC covers it: a time that no program can write again was put there past the vault.
        if (next.rotateAfter !== null && !isTime(next.rotateAfter))
          throw new RowTampered('rowUnreadable');
        const living = Number(next.state !== 'deleted') - Number(row.state !== 'deleted');
        if (living !== 0) await stay.grow({ living });
        await repository.updateCredential(trx, {
          ...next,
          seal: credentialRowMac(keyring, next),
          by: caller.subject,
          at,
        });
        await audit.record(trx, {
          caller,
          team,
          action: planned.action,
          target: credentialTarget(row.id),
          credentialVersion: next.version,
          ...(planned.key === undefined ? {} : { key: planned.key }),
          ...(planned.details === undefined ? {} : { details: planned.details }),
        });
        if (next.state === 'deleted') return row;
        const after = await repository.findCredential(trx, row.team, row.id, at);
        if (after === undefined) throw notFound();
        if (!parts.canShow(after)) throw new RowTampered('rowUnreadable');
        if (isDryRun) throw new Undone(after);
        return after;
      }),
    );
  } catch (error) {
    if (error instanceof Undone && error.row !== undefined) return error.row;
    if (error instanceof RowTampered) {
      await audit.denial({
        caller,
        team,
        action: 'credential.write',
        target: credentialTarget(resolved.id),
        reason: error.reason,
      });
      throw notFound();
    }
    if (error instanceof MayNotManage) {
      await audit.denial({
        caller,
        team,
        action: 'credential.manage',
        target: credentialTarget(resolved.id),
        reason: 'role',
      });
      throw forbidden();
    }
    throw await undecryptable(parts, caller, team, resolved.id, error);
  }
}

/**
 * The secrets of the current version, for the vault's own use in the caller's name. Throws
 * undecryptable, KeyUnavailable.
 */
export async function openSecrets(
  parts: ChangeParts,
  caller: Caller,
  row: CredentialRow,
): Promise<SecretFields> {
  try {
    return await openVersion(parts.keyring, parts.db, row);
  } catch (error) {
    throw await undecryptable(parts, caller, { id: row.team, slug: row.slug }, row.id, error);
  }
}

/** The error to throw; of a version that does not open, once it is marked. */
export async function undecryptable(
  parts: MarkParts,
  caller: EventInput['caller'],
  team: TeamRef,
  id: CredentialId,
  error: unknown,
  action = 'credential.update',
): Promise<unknown> {
  if (!(error instanceof UndecryptableVersion)) return error;
  await mark(parts, caller, team, id, error, action);
  return new AppError(
    'undecryptable',
    'The stored value does not open: send all secret fields to repair it.',
    { cause: error },
  );
}

/**
 * The first time that a token does not open is a change of the version, and stands in the audit log
 * with its key.
 */
async function mark(
  { db, audit, now }: MarkParts,
  caller: EventInput['caller'],
  team: TeamRef,
  id: CredentialId,
  { version, key }: UndecryptableVersion,
  action: string,
): Promise<void> {
  if (key === undefined) return;
  await db.transaction().execute(async (trx) => {
    if (
      !(await repository.updateUndecryptable(trx, {
        team: team.id,
        id,
        version,
        key,
        at: new Date(now()),
      }))
    )
      return;
    await audit.record(trx, {
      caller,
      team,
      action,
      target: credentialTarget(id),
      decision: 'deny',
      reason: 'undecryptable',
      key,
      credentialVersion: version,
    });
  });
}
