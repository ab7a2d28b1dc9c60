// Data keys in SQL. Every function takes the team but those that look for what is due.
import { type RawBuilder, sql } from 'kysely';
import type { WrappedDataKey } from '../crypto/index.ts';
import type { Executor, Trx } from '../db/client.ts';
import { vaultNow } from '../db/clock.ts';
import type { DataKeyState } from '../db/tables.ts';
import type { DataKeyId, SubjectId, TeamId } from '../shared/ids.ts';
import { rotateAtSql } from '../db/rotation-due.ts';
import { hasTokensSql, tokenCountSql } from './tables/counts.ts';
import type { KeyRow } from './types.ts';

const keyColumns = sql`key.id, key.version, key.state, key.format, key.fingerprint,
  key.root_fingerprint as "rootFingerprint", key.root_history as "rootFingerprints",
  ${tokenCountSql('key.id')} as rows, key.created_at as "createdAt",
    coalesce(creator.sub, key.created_by::text) as "createdBy", key.demoted_at as "demotedAt",
    key.retired_at as "retiredAt",
  key.compromised_at as "compromisedAt", key.compromise_reason as "compromiseReason",
    key.destroy_at as "destroyAt", key.destroyed_at as "destroyedAt",
  case when key.state = 'active' then ${rotateAtSql} end as "rotateAt"`;
const keyFrom = sql.raw(
  'data_key key join team on team.id = key.team_id left join subject creator on creator.id = ' +
    'key.created_by',
);

/** One key of the team with the exact count of its tokens. */
export async function findKey(
  executor: Executor,
  team: TeamId,
  id: DataKeyId,
): Promise<KeyRow | undefined> {
  const { rows } =
    await sql<KeyRow>`select ${keyColumns} from ${keyFrom} where key.team_id = ${team}
      and key.id = ${id}`.execute(executor);
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
    where key.team_id = ${team}
      and (${page.beforeVersion ?? null}::int is null
      or key.version < ${page.beforeVersion ?? null})
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
  const { rows } = await sql`select 1 from data_key where team_id = ${team} and state <> 'destroyed'
      limit ${max}`.execute(trx);
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

/** Whether any token is under the team's key. */
export async function hasTokens(executor: Executor, team: TeamId, id: DataKeyId): Promise<boolean> {
  const { rows } =
    await sql`select 1 from data_key key where key.team_id = ${team} and key.id = ${id}
      and ${hasTokensSql('key.id')}`.execute(executor);
  return rows.length > 0;
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
