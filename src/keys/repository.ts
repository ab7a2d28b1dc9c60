// Data keys and key rotations in SQL, but for the moving of tokens. Every function about a team's
// things takes the team.
import { type RawBuilder, sql } from 'kysely';
import type { WrappedDataKey } from '../crypto/index.ts';
import type { Executor, Trx } from '../db/client.ts';
import { vaultNow } from '../db/clock.ts';
import { countOf } from '../db/counts.ts';
import type { DataKeyState, RotationCause, RotationState } from '../db/tables.ts';
import type { DataKeyId, RotationId, SubjectId, TeamId } from '../shared/ids.ts';
import { rotateAtSql } from '../db/rotation-due.ts';
import {
  hasTokensSql,
  rotationFailureCountSql,
  rotationFailuresSql,
  tokenCountBesidesSql,
  tokenCountSql,
} from './tables/counts.ts';
import type { TeamSettingsRow } from '../access/index.ts';
import { settingsColumns } from '../access/sql.ts';
import type { KeyRow, RotationFailure } from './types.ts';

export interface RotationRow {
  readonly id: RotationId;
  readonly state: RotationState;
  readonly toKey: DataKeyId;
  readonly total: number;
  readonly done: number;
  readonly failed: number;
  readonly createdAt: Date;
  readonly createdBy: string | null;
  readonly progressedAt: Date;
  readonly endedAt: Date | null;
  readonly cause: RotationCause;
}
const keyColumns = sql`key.id, key.version, key.state, key.format, key.fingerprint, key.root_fingerprint as "rootFingerprint", key.root_history as "rootFingerprints",
  ${tokenCountSql('key.id')} as rows, key.created_at as "createdAt", coalesce(creator.sub, key.created_by::text) as "createdBy", key.demoted_at as "demotedAt", key.retired_at as "retiredAt",
  key.compromised_at as "compromisedAt", key.compromise_reason as "compromiseReason", key.destroy_at as "destroyAt", key.destroyed_at as "destroyedAt",
  case when key.state = 'active' then ${rotateAtSql} end as "rotateAt"`;
const keyFrom = sql.raw(
  'data_key key join team on team.id = key.team_id left join subject creator on creator.id = key.created_by',
);
const rotationColumns = sql`rotation.id, rotation.state, rotation.to_key_id as "toKey", ${countOf('rotation.total')} as total, ${countOf('rotation.done')} as done, ${rotationFailureCountSql} as failed,
  rotation.created_at as "createdAt", coalesce(creator.sub, rotation.created_by::text) as "createdBy", rotation.progressed_at as "progressedAt", rotation.ended_at as "endedAt", rotation.cause`;
const rotationFrom = sql.raw(
  'key_rotation rotation left join subject creator on creator.id = rotation.created_by',
);

/** One key of the team with the exact count of its tokens. */
export async function findKey(
  executor: Executor,
  team: TeamId,
  id: DataKeyId,
): Promise<KeyRow | undefined> {
  const { rows } =
    await sql<KeyRow>`select ${keyColumns} from ${keyFrom} where key.team_id = ${team} and key.id = ${id}`.execute(
      executor,
    );
  return rows[0];
}

/** Keys, newest first. */
export async function listKeys(
  executor: Executor,
  team: TeamId,
  page: { limit: number; beforeVersion: number | undefined },
): Promise<KeyRow[]> {
  const { rows } = await sql<KeyRow>`
    select ${keyColumns} from ${keyFrom}
    where key.team_id = ${team} and (${page.beforeVersion ?? null}::int is null or key.version < ${page.beforeVersion ?? null})
    order by key.version desc limit ${page.limit}`.execute(executor);
  return rows;
}

/** Inserts a key as the team's active one; data_key_one_active refuses a second. */
export async function insertActiveKey(
  trx: Trx,
  key: WrappedDataKey & { fingerprint: string },
  made: { by: SubjectId | null; at: Date },
): Promise<void> {
  await trx
    .insertInto('data_key')
    .values({
      id: key.id,
      team_id: key.team,
      version: key.version,
      format: key.format,
      state: 'active',
      fingerprint: key.fingerprint,
      root_fingerprint: key.rootFingerprint,
      wrapped: key.wrapped,
      created_at: made.at,
      created_by: made.by,
      demoted_at: null,
      retired_at: null,
    })
    .execute();
}

/** How many keys of the team are not destroyed, counted up to `max`. */
export async function countKeys(trx: Trx, team: TeamId, max: number): Promise<number> {
  const { rows } =
    await sql`select 1 from data_key where team_id = ${team} and state <> 'destroyed' limit ${max}`.execute(
      trx,
    );
  return rows.length;
}

/**
 * Waits for the writers that hold the share lock of the team's active key and keeps others out: new
 * ones stand behind us in the key's queue. Statements of their own: what is read after them sees
 * what those writers have committed. Undefined when another demoted the key in the meantime.
 */
export async function lockActiveKeyAlone(trx: Trx, team: TeamId): Promise<ActiveKey | undefined> {
  const active = trx
    .selectFrom('data_key')
    .select([
      'id',
      'team_id as team',
      'version',
      'format',
      'root_fingerprint as rootFingerprint',
      'wrapped',
    ])
    .where('team_id', '=', team)
    .where('state', '=', 'active');
  const key = await active.executeTakeFirst();
  if (key === undefined) return undefined;
  await sql`select pg_advisory_xact_lock(data_key_queue(${key.id}))`.execute(trx);
  return active.where('id', '=', key.id).forUpdate().executeTakeFirst();
}

/** An active key as its row says it; without material only where that was taken away. */
export type ActiveKey = Omit<WrappedDataKey, 'wrapped'> & { readonly wrapped: Buffer | null };

/** The same for one key, whatever its state. Stands in its queue, because writers may use it. */
export async function lockKey(
  trx: Trx,
  team: TeamId,
  id: DataKeyId,
): Promise<LockedKey | undefined> {
  await sql`select pg_advisory_xact_lock(data_key_queue(${id}))`.execute(trx);
  return trx
    .selectFrom('data_key')
    .select([
      'state',
      'compromised_at as compromisedAt',
      sql<boolean>`coalesce(destroy_at <= ${vaultNow}, false)`.as('isDestroyDue'),
    ])
    .where('team_id', '=', team)
    .where('id', '=', id)
    .forUpdate()
    .executeTakeFirst();
}
export interface LockedKey {
  readonly state: DataKeyState;
  readonly compromisedAt: Date | null;
  /** By the database's clock, its waiting time is over. */
  readonly isDestroyDue: boolean;
}

/** What a change of a locked key's life sets; the trigger knows which arrows there are. */
export interface KeyChange {
  readonly state?: DataKeyState;
  readonly retired_at?: Date | null;
  readonly destroy_scheduled_at?: RawBuilder<Date> | null;
  readonly destroy_at?: RawBuilder<Date> | null;
  readonly destroyed_at?: RawBuilder<Date>;
  readonly wrapped?: null;
  readonly compromised_at?: Date;
  readonly compromised_by?: SubjectId | null;
  readonly compromise_reason?: string;
}

/** Writes a change of a locked key. */
export async function updateKey(
  trx: Trx,
  team: TeamId,
  id: DataKeyId,
  change: KeyChange,
): Promise<void> {
  await trx
    .updateTable('data_key')
    .set(change)
    .where('team_id', '=', team)
    .where('id', '=', id)
    .execute();
}

/** Keys whose time to be destroyed has come, of any team. */
export async function listDestroyDue(
  executor: Executor,
  limit: number,
): Promise<{ id: DataKeyId; team: TeamId; slug: string }[]> {
  return executor
    .selectFrom('data_key')
    .innerJoin('team', 'team.id', 'data_key.team_id')
    .select(['data_key.id', 'team.id as team', 'team.slug'])
    .where('data_key.state', '=', 'destroyPending')
    .where('destroy_at', '<=', vaultNow)
    .orderBy('destroy_at')
    .limit(limit)
    .execute();
}

/**
 * Teams whose policy asks for a rotation and that have none running, by id, as their rows say it.
 */
export async function listPolicyDue(
  executor: Executor,
  page: { limit: number; after: TeamId | undefined },
): Promise<TeamSettingsRow[]> {
  return (
    await sql<TeamSettingsRow>`
    select ${settingsColumns('team')} from team join data_key key on key.team_id = team.id and key.state = 'active'
    where team.deleted_at is null and team.rotate_every_days is not null and ${rotateAtSql} <= ${vaultNow}
      and (${page.after ?? null}::uuid is null or team.id > ${page.after ?? null})
      and not exists (select 1 from key_rotation where key_rotation.team_id = team.id and key_rotation.state = 'running')
    order by team.id limit ${page.limit}`.execute(executor)
  ).rows;
}

/** The team's settings, if their policy still asks for it, once the active key is locked. */
export async function findPolicyDue(trx: Trx, team: TeamId): Promise<TeamSettingsRow | undefined> {
  const { rows } = await sql<TeamSettingsRow>`
    select ${settingsColumns('team')} from team join data_key key on key.team_id = team.id and key.state = 'active'
    where team.id = ${team} and ${rotateAtSql} <= ${vaultNow}`.execute(trx);
  return rows[0];
}

/**
 * How many tokens the team has, and how fast the last large rotation anywhere in this database
 * went.
 */
export async function findForecast(
  executor: Executor,
  team: TeamId,
): Promise<{ rows: number; rowsPerSecond: number | null }> {
  const { rows } = await sql<{ rows: number; rowsPerSecond: number | null }>`
    select ${tokenCountBesidesSql(sql`${team}::uuid`, sql`'00000000-0000-0000-0000-000000000000'::uuid`)} as rows,
      (select done / extract(epoch from progressed_at - created_at)::float8 from key_rotation
        where done between 500 and 1000000000000 and progressed_at > created_at and isfinite(created_at) and isfinite(progressed_at)
        order by progressed_at desc limit 1) as "rowsPerSecond"`.execute(executor);
  return rows[0] ?? { rows: 0, rowsPerSecond: null };
}

/** active → decryptOnly, of a locked key. */
export async function demoteKey(trx: Trx, team: TeamId, id: DataKeyId, at: Date): Promise<void> {
  await trx
    .updateTable('data_key')
    .set({ state: 'decryptOnly', demoted_at: at })
    .where('team_id', '=', team)
    .where('id', '=', id)
    .where('state', '=', 'active')
    .execute();
}

/** The id of the rotation that runs. */
export async function findRunningRotation(
  executor: Executor,
  team: TeamId,
): Promise<RotationId | undefined> {
  return (
    await executor
      .selectFrom('key_rotation')
      .select('id')
      .where('team_id', '=', team)
      .where('state', '=', 'running')
      .executeTakeFirst()
  )?.id;
}

/**
 * Inserts a running rotation that nobody has counted yet; key_rotation_one_running refuses a
 * second.
 */
export async function insertRotation(
  trx: Trx,
  rotation: {
    id: RotationId;
    team: TeamId;
    toKey: DataKeyId;
    by: SubjectId | null;
    at: Date;
    cause: RotationCause;
  },
): Promise<void> {
  const { id, team, toKey, by, at, cause } = rotation;
  await sql`
    insert into key_rotation (id, team_id, to_key_id, state, total, created_at, created_by, progressed_at, cause)
    values (${id}, ${team}, ${toKey}, 'running', 0, ${at}, ${by}, ${at}, ${cause})`.execute(trx);
}

/** One rotation of the team. */
export async function findRotation(
  executor: Executor,
  team: TeamId,
  id: RotationId,
): Promise<RotationRow | undefined> {
  const { rows } = await sql<RotationRow>`
    select ${rotationColumns} from ${rotationFrom} where rotation.team_id = ${team} and rotation.id = ${id}`.execute(
    executor,
  );
  return rows[0];
}

/** Rotations, newest first. */
export async function listRotations(
  executor: Executor,
  team: TeamId,
  page: { limit: number; before: RotationId | undefined },
): Promise<RotationRow[]> {
  const { rows } = await sql<RotationRow>`
    select ${rotationColumns} from ${rotationFrom}
    where rotation.team_id = ${team} and (${page.before ?? null}::uuid is null or rotation.id < ${page.before ?? null})
    order by rotation.id desc limit ${page.limit}`.execute(executor);
  return rows;
}

/** The tokens that did not open, at most so many. */
export async function listRotationFailures(
  executor: Executor,
  rotation: RotationId,
  limit: number,
): Promise<RotationFailure[]> {
  const { rows } = await sql<RotationFailure>`
    select credential, nullif(version, 0) as version
    from (${rotationFailuresSql(sql`${rotation}`)}) failure
    order by credential, nullif(version, 0) limit ${limit}`.execute(executor);
  return rows;
}

/** running → cancelled; whether it was running. Waits for the batch that is being counted. */
export async function cancelRotation(
  trx: Trx,
  team: TeamId,
  id: RotationId,
  at: Date,
): Promise<boolean> {
  const result = await trx
    .updateTable('key_rotation')
    .set({ state: 'cancelled', ended_at: at })
    .where('team_id', '=', team)
    .where('id', '=', id)
    .where('state', '=', 'running')
    .executeTakeFirst();
  return result.numUpdatedRows === 1n;
}

/**
 * The rotation that runs, locked: it neither ends nor is cancelled before we are done. Taken after
 * the lock on a key, never before.
 */
export async function lockRunningRotation(trx: Trx, team: TeamId): Promise<RotationId | undefined> {
  return (
    await trx
      .selectFrom('key_rotation')
      .select('id')
      .where('team_id', '=', team)
      .where('state', '=', 'running')
      .forNoKeyUpdate()
      .executeTakeFirst()
  )?.id;
}

/** Gives a locked running rotation priority. */
export async function makeUrgent(trx: Trx, id: RotationId): Promise<void> {
  await sql`update key_rotation set cause = 'compromise' where id = ${id} and state = 'running'`.execute(
    trx,
  );
}

/** The same for every rotation that runs in a team with tokens under a compromised key. */
export async function makeCompromisedUrgent(executor: Executor): Promise<void> {
  await sql`
    update key_rotation rotation set cause = 'rootCompromise'
    where rotation.state = 'running' and rotation.cause not in ('compromise', 'rootCompromise') and exists (
      select 1 from data_key key where key.team_id = rotation.team_id and key.compromised_at is not null and key.state = 'decryptOnly' and ${hasTokensSql('key.id')})`.execute(
    executor,
  );
}

/** Whether any token is under the team's key. */
export async function hasTokens(executor: Executor, team: TeamId, id: DataKeyId): Promise<boolean> {
  const { rows } =
    await sql`select 1 from data_key key where key.team_id = ${team} and key.id = ${id} and ${hasTokensSql('key.id')}`.execute(
      executor,
    );
  return rows.length > 0;
}

/**
 * Teams whose tokens go to, or lie under, a compromised key, with the rotation that already takes
 * them off it, if one does.
 */
export async function listCompromiseDue(
  executor: Executor,
  limit: number,
): Promise<{ team: TeamId; slug: string; isActive: boolean; running: RotationId | null }[]> {
  const { rows } = await sql<{
    team: TeamId;
    slug: string;
    isActive: boolean;
    running: RotationId | null;
  }>`
    select team.id as team, team.slug, bool_or(key.state = 'active') as "isActive",
      (select rotation.id from key_rotation rotation where rotation.team_id = team.id and rotation.state = 'running') as running
    from data_key key join team on team.id = key.team_id and team.deleted_at is null
    where key.compromised_at is not null and (key.state = 'active' or (key.state = 'decryptOnly' and ${hasTokensSql('key.id')}))
    group by team.id
    having bool_or(key.state = 'active')
      or not exists (select 1 from key_rotation rotation where rotation.team_id = team.id and (rotation.state = 'running' or rotation.state = 'completedWithFailures'
        and rotation.created_at >= max(key.compromised_at)))
    order by team.id limit ${limit}`.execute(executor);
  return rows;
}

/** Whether the team's active key is compromised, once it is locked. */
export async function isActiveCompromised(trx: Trx, team: TeamId): Promise<boolean> {
  const row = await trx
    .selectFrom('data_key')
    .select('id')
    .where('team_id', '=', team)
    .where('state', '=', 'active')
    .where('compromised_at', 'is not', null)
    .executeTakeFirst();
  return row !== undefined;
}
