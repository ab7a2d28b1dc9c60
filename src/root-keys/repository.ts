// Root keys, and what each of them wraps, in SQL. These span teams: they are the operator's.
import { sql } from 'kysely';
import type { WrappedDataKey, WrappedSystemKey } from '../crypto/index.ts';
import type { Executor, Trx } from '../db/client.ts';
import type { DataKeyId, SubjectId, TeamId } from '../shared/ids.ts';
import { rotateAtSql } from '../db/rotation-due.ts';
import { hasTokensSql } from '../keys/sql.ts';

export interface RootKeyRow {
  readonly fingerprint: string;
  readonly dataKeys: number;
  readonly systemKeys: number;
  readonly createdAt: Date;
  readonly compromisedAt: Date | null;
  readonly compromiseReason: string | null;
}

/** Every root key that this database has seen, with how many keys it wraps now. */
export async function listRootKeys(executor: Executor): Promise<RootKeyRow[]> {
  const { rows } = await sql<RootKeyRow>`
    select fingerprint, created_at as "createdAt", compromised_at as "compromisedAt",
      compromise_reason as "compromiseReason",
      (select count(*) from data_key where root_fingerprint = root_key.fingerprint
        and state <> 'destroyed') as "dataKeys",
      (select count(*) from system_key
        where root_fingerprint = root_key.fingerprint) as "systemKeys"
    from root_key order by root_key.created_at, fingerprint`.execute(executor);
  return rows;
}

/** The root keys that this database has seen, but for this one. */
export async function listOtherRootKeys(executor: Executor, primary: string): Promise<string[]> {
  const rows = await executor
    .selectFrom('root_key')
    .select('fingerprint')
    .where('fingerprint', '<>', primary)
    .orderBy('fingerprint')
    .execute();
  return rows.map(({ fingerprint }) => fingerprint);
}

/** A data key with the team whose it is. */
export type HeldDataKey = WrappedDataKey & { readonly slug: string };

/**
 * Locks up to `limit` data keys that are under the root key, after an id and in the order of ids.
 */
export async function holdDataKeys(
  trx: Trx,
  root: string,
  page: { limit: number; after: DataKeyId | undefined },
): Promise<HeldDataKey[]> {
  const { rows } = await sql<HeldDataKey>`
    select held.id, held.team_id as team, team.slug, held.version, held.format,
      held.root_fingerprint as "rootFingerprint", held.wrapped
    from (select id, team_id, version, format, root_fingerprint, wrapped from data_key
      where root_fingerprint = ${root}
        and state <> 'destroyed' ${page.after === undefined ? sql`` : sql`and id > ${page.after}`}
      order by id limit ${page.limit} for no key update) held
    cross join lateral (select slug from team where team.id = held.team_id offset 0) team
      order by held.id`.execute(trx);
  return rows;
}

/** Locks every system key that is not under the root key. */
export async function holdSystemKeys(
  trx: Trx,
  primary: string,
): Promise<Omit<WrappedSystemKey, 'active'>[]> {
  const { rows } = await sql<Omit<WrappedSystemKey, 'active'>>`
    select id, purpose, version, root_fingerprint as "rootFingerprint", wrapped from system_key
    where root_fingerprint <> ${primary} order by id for no key update`.execute(trx);
  return rows;
}

/** Stores keys of one table under their new wrapping. */
export async function storeWrapped(
  trx: Trx,
  table: 'data_key' | 'system_key',
  keys: readonly { id: string; rootFingerprint: string; wrapped: Buffer }[],
): Promise<void> {
  if (keys.length === 0) return;
  await sql`
    update ${sql.table(table)} held set root_fingerprint = moved.root, wrapped = moved.wrapped
    from unnest(${keys.map(({ id }) => id)}::uuid[],
      ${keys.map(({ rootFingerprint }) => rootFingerprint)}::text[],
      ${keys.map(({ wrapped }) => wrapped)}::bytea[])
      as moved (id, root, wrapped)
    where held.id = moved.id`.execute(trx);
}

/** Marks the root key; false when it is unknown or marked already. */
export async function markRootKey(
  trx: Trx,
  fingerprint: string,
  mark: { reason: string; by: SubjectId; at: Date },
): Promise<boolean> {
  const { rows } = await sql`
    update root_key set compromised_at = ${mark.at}, compromised_by = ${mark.by},
      compromise_reason = ${mark.reason}
    where fingerprint = ${fingerprint} and compromised_at is null returning 1`.execute(trx);
  return rows.length === 1;
}

/**
 * Marks every data key that the root key ever wrapped and that is not marked yet. Locks them in the
 * order of their ids, oldest first, as everybody does.
 */
export async function markWrappedKeys(
  trx: Trx,
  fingerprint: string,
  mark: { reason: string; by: SubjectId; at: Date },
): Promise<{ id: DataKeyId; team: TeamId; slug: string }[]> {
  const { rows } = await sql<{ id: DataKeyId; team: TeamId; slug: string }>`
    with held as (
      select id from data_key where state <> 'destroyed' and compromised_at is null
        and ${fingerprint} = any (root_history) order by id for no key update)
    update data_key set compromised_at = ${mark.at}, compromised_by = ${mark.by},
      compromise_reason = ${mark.reason}
    from team, held where team.id = data_key.team_id and data_key.id = held.id
    returning data_key.id, team.id as team, team.slug`.execute(trx);
  return rows;
}

export interface StatusRow {
  readonly teams: number;
  readonly credentials: number;
  readonly engines: number;
  readonly rotationsRunning: number;
  readonly keysOverdue: number;
  readonly keysCompromised: number;
  readonly keysCompromisedInUse: number;
  readonly versionsUndecryptable: number;
  readonly notificationsPending: number;
  readonly notificationsFailed: number;
  readonly receiversFailing: number;
}

/** Counts over everything; nothing of any one team. */
export async function findStatus(executor: Executor, at: Date): Promise<StatusRow> {
  const { rows } = await sql<StatusRow>`
    select (select count(*) from team where deleted_at is null) as teams,
      (select count(*) from credential where state <> 'deleted') as credentials,
      (select count(*) from engine where state = 'enabled') as engines,
      (select count(*) from key_rotation where state = 'running') as "rotationsRunning",
      (select count(*) from team join data_key key on key.team_id = team.id and key.state = 'active'
        where team.deleted_at is null and ${rotateAtSql} <= ${at}) as "keysOverdue",
      (select count(*) from data_key where compromised_at is not null
        and state <> 'destroyed') as "keysCompromised",
      (select count(*) from data_key key where compromised_at is not null
        and (state = 'active' or ${hasTokensSql('key.id')})) as "keysCompromisedInUse",
      (select count(*) from credential_version
        where undecryptable_at is not null) as "versionsUndecryptable",
      (select count(*) from notification where state = 'pending') as "notificationsPending",
      (select count(*) from notification where state = 'failed') as "notificationsFailed",
      (select count(*) from webhook where failing_since is not null
        or gone_at is not null) as "receiversFailing"`.execute(executor);
  const row = rows[0];
  if (row === undefined) throw new Error('a select without a from gives a row');
  return row;
}
