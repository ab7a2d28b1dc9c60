// Key rotations in SQL, but for re-encryption of tokens: what is due, what runs, what became of it.
import { sql } from 'kysely';
import type { Executor, Trx } from '../db/client.ts';
import { vaultNow } from '../db/clock.ts';
import { countOf } from '../db/counts.ts';
import type { RotationCause, RotationState } from '../db/tables.ts';
import type { DataKeyId, RotationId, SubjectId, TeamId } from '../shared/ids.ts';
import { rotateAtSql } from '../db/rotation-due.ts';
import {
  hasTokensSql,
  rotationFailureCountSql,
  rotationFailuresSql,
  tokenCountBesidesSql,
} from './tables/counts.ts';
import type { TeamSettingsRow } from '../access/index.ts';
import { settingsColumns } from '../access/sql.ts';
import type { RotationFailure } from './types.ts';

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

const rotationColumns = sql`rotation.id, rotation.state, rotation.to_key_id as "toKey",
  ${countOf('rotation.total')} as total, ${countOf('rotation.done')} as done,
  ${rotationFailureCountSql} as failed,
  rotation.created_at as "createdAt",
    coalesce(creator.sub, rotation.created_by::text) as "createdBy",
    rotation.progressed_at as "progressedAt", rotation.ended_at as "endedAt", rotation.cause`;
const rotationFrom = sql.raw(
  'key_rotation rotation left join subject creator on creator.id = rotation.created_by',
);

/**
 * Teams whose policy asks for a rotation and that have none running, by id, as their rows say it.
 */
export async function listPolicyDue(
  executor: Executor,
  page: { limit: number; after: TeamId | undefined },
): Promise<TeamSettingsRow[]> {
  return (
    await sql<TeamSettingsRow>`
    select ${settingsColumns('team')} from team join data_key key on key.team_id = team.id
      and key.state = 'active'
    where team.deleted_at is null and team.rotate_every_days is not null
      and ${rotateAtSql} <= ${vaultNow}
      and (${page.after ?? null}::uuid is null or team.id > ${page.after ?? null})
      and not exists (select 1 from key_rotation where key_rotation.team_id = team.id
        and key_rotation.state = 'running')
    order by team.id limit ${page.limit}`.execute(executor)
  ).rows;
}

/** The team's settings, if their policy still asks for it, once the active key is locked. */
export async function findPolicyDue(trx: Trx, team: TeamId): Promise<TeamSettingsRow | undefined> {
  const { rows } = await sql<TeamSettingsRow>`
    select ${settingsColumns('team')} from team join data_key key on key.team_id = team.id
      and key.state = 'active'
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
        where done between 500 and 1000000000000 and progressed_at > created_at
          and isfinite(created_at) and isfinite(progressed_at)
        order by progressed_at desc limit 1) as "rowsPerSecond"`.execute(executor);
  return rows[0] ?? { rows: 0, rowsPerSecond: null };
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
    insert into key_rotation (id, team_id, to_key_id, state, total, created_at, created_by,
      progressed_at, cause)
    values (${id}, ${team}, ${toKey}, 'running', 0, ${at}, ${by}, ${at}, ${cause})`.execute(trx);
}

/** One rotation of the team. */
export async function findRotation(
  executor: Executor,
  team: TeamId,
  id: RotationId,
): Promise<RotationRow | undefined> {
  const { rows } = await sql<RotationRow>`
    select ${rotationColumns} from ${rotationFrom} where rotation.team_id = ${team}
      and rotation.id = ${id}`.execute(executor);
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
    where rotation.team_id = ${team}
      and (${page.before ?? null}::uuid is null or rotation.id < ${page.before ?? null})
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
  await sql`update key_rotation set cause = 'compromise'
    where id = ${id} and state = 'running'`.execute(trx);
}

/** The same for every rotation that runs in a team with tokens under a compromised key. */
export async function makeCompromisedUrgent(executor: Executor): Promise<void> {
  await sql`
    update key_rotation rotation set cause = 'rootCompromise'
    where rotation.state = 'running' and rotation.cause not in ('compromise', 'rootCompromise')
      and exists (
      select 1 from data_key key where key.team_id = rotation.team_id
        and key.compromised_at is not null and key.state = 'decryptOnly'
        and ${hasTokensSql('key.id')})`.execute(executor);
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
      (select rotation.id from key_rotation rotation where rotation.team_id = team.id
        and rotation.state = 'running') as running
    from data_key key join team on team.id = key.team_id and team.deleted_at is null
    where key.compromised_at is not null
      and (key.state = 'active' or (key.state = 'decryptOnly' and ${hasTokensSql('key.id')}))
    group by team.id
    having bool_or(key.state = 'active')
      or not exists (select 1 from key_rotation rotation where rotation.team_id = team.id
        and (rotation.state = 'running' or rotation.state = 'completedWithFailures'
        and rotation.created_at >= max(key.compromised_at)))
    order by team.id limit ${limit}`.execute(executor);
  return rows;
}
