// Data keys and key rotations in SQL, but for the moving of tokens. Every function about a team's things takes the team.
import { sql } from 'kysely';
import type { WrappedDataKey } from '../crypto/index.ts';
import type { Executor, Trx } from '../db/client.ts';
import type { DataKeyState, RotationState, TokenFormatColumn } from '../db/tables.ts';
import type { CredentialId, DataKeyId, RotationId, SubjectId, TeamId } from '../shared/ids.ts';
import { tokenCountBesidesSql, tokenCountSql } from './token-tables.ts';

export interface KeyRow {
  readonly id: DataKeyId; readonly version: number; readonly state: DataKeyState; readonly format: TokenFormatColumn;
  readonly fingerprint: string; readonly rootFingerprint: string; readonly rows: number;
  readonly createdAt: Date; readonly createdBy: string; readonly demotedAt: Date | null; readonly retiredAt: Date | null;
}
export interface RotationRow {
  readonly id: RotationId; readonly state: RotationState; readonly toKey: DataKeyId; readonly total: number; readonly done: number; readonly failed: number;
  readonly createdAt: Date; readonly createdBy: string; readonly progressedAt: Date; readonly endedAt: Date | null;
}
export interface RotationFailure { readonly credential: CredentialId; readonly version: number }

const keyColumns = sql`key.id, key.version, key.state, key.format, key.fingerprint, key.root_fingerprint as "rootFingerprint",
  ${tokenCountSql('key.id')} as rows, key.created_at as "createdAt", creator.sub as "createdBy", key.demoted_at as "demotedAt", key.retired_at as "retiredAt"`;
const keyFrom = sql.raw('data_key key join subject creator on creator.id = key.created_by');
const rotationColumns = sql.raw(`rotation.id, rotation.state, rotation.to_key_id as "toKey", rotation.total, rotation.done,
  (select count(*) from key_rotation_failure failure where failure.rotation_id = rotation.id) as failed,
  rotation.created_at as "createdAt", creator.sub as "createdBy", rotation.progressed_at as "progressedAt", rotation.ended_at as "endedAt"`);
const rotationFrom = sql.raw('key_rotation rotation join subject creator on creator.id = rotation.created_by');

/** One key of the team with the exact count of its tokens. */
export async function findKey(executor: Executor, team: TeamId, id: DataKeyId): Promise<KeyRow | undefined> {
  const { rows } = await sql<KeyRow>`select ${keyColumns} from ${keyFrom} where key.team_id = ${team} and key.id = ${id}`.execute(executor);
  return rows[0];
}

/** Keys, newest first. */
export async function listKeys(executor: Executor, team: TeamId, page: { limit: number; beforeVersion: number | undefined }): Promise<KeyRow[]> {
  const { rows } = await sql<KeyRow>`
    select ${keyColumns} from ${keyFrom}
    where key.team_id = ${team} and (${page.beforeVersion ?? null}::int is null or key.version < ${page.beforeVersion ?? null})
    order by key.version desc limit ${page.limit}`.execute(executor);
  return rows;
}

/** Inserts a key as the team's active one; data_key_one_active refuses a second. */
export async function insertActiveKey(trx: Trx, key: WrappedDataKey & { fingerprint: string }, made: { by: SubjectId; at: Date }): Promise<void> {
  await trx.insertInto('data_key').values({
    id: key.id, team_id: key.team, version: key.version, format: key.format, state: 'active', fingerprint: key.fingerprint,
    root_fingerprint: key.rootFingerprint, wrapped: key.wrapped, created_at: made.at, created_by: made.by, demoted_at: null, retired_at: null,
  }).execute();
}

/**
 * Waits for the writers that hold the share lock of the team's active key and keeps others out: new ones stand behind us in the
 * key's queue. Statements of their own: what is read after them sees what those writers have committed. Undefined when another
 * demoted the key in the meantime.
 */
export async function lockActiveKey(trx: Trx, team: TeamId): Promise<{ id: DataKeyId; version: number } | undefined> {
  const active = trx.selectFrom('data_key').select(['id', 'version']).where('team_id', '=', team).where('state', '=', 'active');
  const key = await active.executeTakeFirst();
  if (key === undefined) return undefined;
  await sql`select pg_advisory_xact_lock(data_key_queue(${key.id}))`.execute(trx);
  return active.where('id', '=', key.id).forUpdate().executeTakeFirst();
}

/** The same for one key that nobody writes under any more, whatever its state. */
export async function lockKey(trx: Trx, team: TeamId, id: DataKeyId): Promise<DataKeyState | undefined> {
  const row = await trx.selectFrom('data_key').select('state').where('team_id', '=', team).where('id', '=', id).forUpdate().executeTakeFirst();
  return row?.state;
}

/** active → decryptOnly, of a locked key. */
export async function demoteKey(trx: Trx, team: TeamId, id: DataKeyId, at: Date): Promise<void> {
  await trx.updateTable('data_key').set({ state: 'decryptOnly', demoted_at: at })
    .where('team_id', '=', team).where('id', '=', id).where('state', '=', 'active').execute();
}

/** decryptOnly → retired, of a locked key that was counted. */
export async function retireKey(trx: Trx, team: TeamId, id: DataKeyId, at: Date): Promise<void> {
  await trx.updateTable('data_key').set({ state: 'retired', retired_at: at })
    .where('team_id', '=', team).where('id', '=', id).where('state', '=', 'decryptOnly').execute();
}

/** The format that the team's next key has. */
export async function findTeamFormat(trx: Trx, team: TeamId): Promise<TokenFormatColumn | undefined> {
  return (await trx.selectFrom('team').select('token_format').where('id', '=', team).executeTakeFirst())?.token_format;
}

/** The id of the rotation that runs. */
export async function findRunningRotation(executor: Executor, team: TeamId): Promise<RotationId | undefined> {
  return (await executor.selectFrom('key_rotation').select('id').where('team_id', '=', team).where('state', '=', 'running').executeTakeFirst())?.id;
}

/** Inserts a running rotation whose total is what stands under the team's other keys; key_rotation_one_running refuses a second. */
export async function insertRotation(
  trx: Trx, rotation: { id: RotationId; team: TeamId; toKey: DataKeyId; by: SubjectId; at: Date },
): Promise<{ total: number }> {
  const { id, team, toKey, by, at } = rotation;
  const { rows } = await sql<{ total: number }>`
    insert into key_rotation (id, team_id, to_key_id, state, total, created_at, created_by, progressed_at)
    values (${id}, ${team}, ${toKey}, 'running', ${tokenCountBesidesSql(sql`${team}::uuid`, sql`${toKey}::uuid`)}, ${at}, ${by}, ${at})
    returning total`.execute(trx);
  return { total: rows[0]?.total ?? 0 };
}

/** One rotation of the team. */
export async function findRotation(executor: Executor, team: TeamId, id: RotationId): Promise<RotationRow | undefined> {
  const { rows } = await sql<RotationRow>`
    select ${rotationColumns} from ${rotationFrom} where rotation.team_id = ${team} and rotation.id = ${id}`.execute(executor);
  return rows[0];
}

/** Rotations, newest first. */
export async function listRotations(executor: Executor, team: TeamId, page: { limit: number; before: RotationId | undefined }): Promise<RotationRow[]> {
  const { rows } = await sql<RotationRow>`
    select ${rotationColumns} from ${rotationFrom}
    where rotation.team_id = ${team} and (${page.before ?? null}::uuid is null or rotation.id < ${page.before ?? null})
    order by rotation.id desc limit ${page.limit}`.execute(executor);
  return rows;
}

/** The tokens that did not open, at most so many. */
export async function listRotationFailures(executor: Executor, rotation: RotationId, limit: number): Promise<RotationFailure[]> {
  return executor.selectFrom('key_rotation_failure').select(['credential_id as credential', 'version']).where('rotation_id', '=', rotation)
    .orderBy('credential_id').orderBy('version').limit(limit).execute();
}

/** running → cancelled; whether it was running. Waits for the batch that is being counted. */
export async function cancelRotation(trx: Trx, team: TeamId, id: RotationId, at: Date): Promise<boolean> {
  const result = await trx.updateTable('key_rotation').set({ state: 'cancelled', ended_at: at })
    .where('team_id', '=', team).where('id', '=', id).where('state', '=', 'running').executeTakeFirst();
  return result.numUpdatedRows === 1n;
}
