// The sizes of teams in SQL: what is recorded, and what a count finds.
import { type RawBuilder, sql } from 'kysely';
import type { WrappedDataKey } from '../crypto/index.ts';
import type { Db, Executor, Trx } from '../db/client.ts';
import { type CiphertextTable, ciphertextTables } from '../keys/index.ts';
import type { CredentialId, TeamId } from '../shared/ids.ts';

export interface Size {
  /** Credentials that are not deleted. */
  readonly living: number;
  /** Credentials whose rows are there. */
  readonly stored: number;
  readonly bytes: number;
}
export interface RecordedSize extends Size {
  /** When it was last counted; null where that never happened. */
  readonly countedAt: Date | null;
}

const columns = sql.raw(
  'living_credentials as living, stored_credentials as stored, bytes, counted_at as "countedAt"',
);
/** What is recorded. */
export async function findSize(
  executor: Executor,
  team: TeamId,
): Promise<RecordedSize | undefined> {
  const { rows } =
    await sql<RecordedSize>`select ${columns} from team_size where team_id = ${team}`.execute(
      executor,
    );
  return rows[0];
}

/** The same along with the team's active key, for whoever is about to write. */
export async function findActiveKeyAndSize(
  executor: Executor,
  team: TeamId,
): Promise<{ key: WrappedDataKey; size: RecordedSize | undefined } | undefined> {
  const { rows } = await sql<
    WrappedDataKey & { size: (Size & { readonly countedAt: string | null }) | null }
  >`
    select id, team_id as team, version, format, root_fingerprint as "rootFingerprint", wrapped,
      (select jsonb_build_object('living', living_credentials, 'stored', stored_credentials,
        'bytes', bytes, 'countedAt', counted_at)
        from team_size where team_size.team_id = data_key.team_id) as size
    from data_key where team_id = ${team} and state = 'active'`.execute(executor);
  const [row] = rows;
  if (row === undefined) return undefined;
  const { size, ...key } = row;
  if (size === null) return { key, size: undefined };
  const countedAt = size.countedAt === null ? null : new Date(size.countedAt);
  return { key, size: { ...size, countedAt } };
}

/** What is recorded, locked; made where there is none. */
export async function lockSize(trx: Trx, team: TeamId): Promise<RecordedSize> {
  const locked = sql<RecordedSize>`
    select ${columns} from team_size where team_id = ${team} for no key update`;
  const [row] = (await locked.execute(trx)).rows;
  if (row !== undefined) return row;
  await sql`
    insert into team_size (team_id, living_credentials, stored_credentials, bytes)
      values (${team}, 0, 0, 0)
    on conflict on constraint team_size_pkey do nothing`.execute(trx);
  const [made] = (await locked.execute(trx)).rows;
  if (made === undefined) throw new Error('the size of a team went while it was locked');
  return made;
}

/** Records what holds with the transaction; with `countedAt` as the result of a count. */
export async function writeSize(
  trx: Trx,
  team: TeamId,
  size: Size,
  countedAt?: Date,
): Promise<void> {
  await sql`
    update team_size set living_credentials = ${size.living}, stored_credentials = ${size.stored},
      bytes = ${size.bytes}
      ${countedAt === undefined ? sql`` : sql`, counted_at = ${countedAt}`}
    where team_id = ${team}`.execute(trx);
}

/**
 * Adds what was counted in memory; what is recorded then. Rows are taken in the order of their ids:
 * replicas that write the same ones wait for each other and do not lock each other up.
 */
export async function addSizes(
  db: Db,
  deltas: ReadonlyMap<TeamId, Size>,
): Promise<readonly (RecordedSize & { readonly team: TeamId })[]> {
  const entries = [...deltas];
  const column = (name: keyof Size) => entries.map(([, delta]) => delta[name]);
  const { rows } = await sql<RecordedSize & { team: TeamId }>`
    with held as materialized (
      select delta.* from unnest(${entries.map(([team]) => team)}::uuid[],
        ${column('living')}::bigint[], ${column('stored')}::bigint[], ${column('bytes')}::bigint[])
        as delta (team, living, stored, bytes)
      join team_size on team_size.team_id = delta.team order by delta.team for no key
        update of team_size)
    update team_size set living_credentials = greatest(0, living_credentials + held.living),
      stored_credentials = greatest(0, stored_credentials + held.stored),
      bytes = greatest(0, team_size.bytes + held.bytes)
    from held where team_size.team_id = held.team
    returning team_size.team_id as team, living_credentials as living, stored_credentials as stored,
      team_size.bytes, counted_at as "countedAt"`.execute(db);
  return rows;
}

/** The size of a team of at most `max` rows a table; undefined of a larger one. */
export async function countSmall(trx: Trx, team: TeamId, max: number): Promise<Size | undefined> {
  const tables = ciphertextTables.map(
    ({ name, storedBytes }) => sql`
      select count(*) as rows, coalesce(sum(bytes), 0)::bigint as bytes
      from (select ${storedBytes} as bytes from ${sql.table(name)}
        where team_id = ${team} limit ${max + 1}) counted`,
  );
  const { rows } = await sql<Size & { most: number }>`
    select credentials.living, credentials.stored, tokens.bytes, tokens.most
    from (select count(*) as stored, count(*) filter (where state <> 'deleted') as living
        from (select state from credential where team_id = ${team} limit ${max + 1}) counted)
          credentials,
      (select max(rows) as most, sum(bytes)::bigint as bytes
        from (${sql.join(tables, sql` union all `)}) each_table) tokens`.execute(trx);
  const [row] = rows;
  if (row === undefined || Math.max(row.stored, row.most) > max) return undefined;
  return { living: row.living, stored: row.stored, bytes: row.bytes };
}

/** How far a count of many rows has come. */
export interface Counted {
  readonly size: Size;
  readonly last: CredentialId | undefined;
  readonly lastVersion: number;
}

/** What is counted piece by piece: credentials, and what they have in each table with tokens. */
export const countedTables: readonly (CiphertextTable | 'credential')[] = [
  'credential',
  ...ciphertextTables,
];

/** Counts the next rows of a table, in the order of its index; `last` is undefined at the end. */
export async function countNext(
  db: Db,
  table: CiphertextTable | 'credential',
  team: TeamId,
  after: Pick<Counted, 'last' | 'lastVersion'>,
  limit: number,
): Promise<Counted> {
  const page = pageOf(table, team, after, limit);
  const { rows } = await sql<Size & { last: CredentialId | null; lastVersion: number | null }>`
    with page as materialized (${page}),
    last as (select id, version from page order by id desc, version desc limit 1)
    select coalesce(sum(stored), 0)::bigint as stored, coalesce(sum(living), 0)::bigint as living,
      coalesce(sum(bytes), 0)::bigint as bytes,
      case when count(*) = ${limit} then (select id from last)
        end as last, (select version from last) as "lastVersion"
    from page`.execute(db);
  const [row] = rows;
  if (row === undefined) throw new Error('a count without a row');
  return {
    size: { living: row.living, stored: row.stored, bytes: row.bytes },
    last: row.last ?? undefined,
    lastVersion: row.lastVersion ?? 0,
  };
}

function pageOf(
  table: CiphertextTable | 'credential',
  team: TeamId,
  { last, lastVersion }: Pick<Counted, 'last' | 'lastVersion'>,
  limit: number,
): RawBuilder<unknown> {
  const from = last ?? '00000000-0000-0000-0000-000000000000';
  if (table === 'credential')
    return sql`
      select id, 0 as version, 1 as stored, (state <> 'deleted')::int as living, 0::bigint as bytes
      from credential where team_id = ${team} and id > ${from} order by id limit ${limit}`;
  const isNumbered = table.rows === 'versions';
  const number = sql.ref(table.number);
  return sql`
      select credential_id as id, ${isNumbered ? number : sql`0`} as version, 0 as stored,
        0 as living,
        ${table.storedBytes} as bytes
      from ${sql.table(table.name)} where team_id = ${team}
        and ${
          isNumbered
            ? sql`(credential_id, ${number}) > (${from},
          ${lastVersion})`
            : sql`credential_id > ${from}`
        }
      order by credential_id ${isNumbered ? sql`, ${number}` : sql``} limit ${limit}`;
}

/**
 * Records the result of a count that began when `before` was recorded, with what has grown since;
 * what is recorded then. Nothing where another count ended in the meantime.
 */
export async function settleCount(
  db: Db,
  team: TeamId,
  before: RecordedSize,
  counted: Size,
  at: Date,
): Promise<RecordedSize | undefined> {
  const { rows } = await sql<RecordedSize>`
    update team_size
      set living_credentials = greatest(0, living_credentials + ${counted.living - before.living}),
      stored_credentials = greatest(0, stored_credentials + ${counted.stored - before.stored}),
        bytes = greatest(0, bytes + ${counted.bytes - before.bytes}), counted_at = ${at}
    where team_id = ${team} and counted_at is not distinct from ${before.countedAt}
      returning ${columns}`.execute(db);
  return rows[0];
}

/** What a transaction is about to move to another team. */
export async function bytesOfCredential(
  executor: Executor,
  team: TeamId,
  credential: CredentialId,
): Promise<number> {
  const tables = ciphertextTables.map(
    ({ name, storedBytes }) => sql`
      (select coalesce(sum(${storedBytes}), 0)::bigint from ${sql.table(name)}
        where team_id = ${team} and credential_id = ${credential})`,
  );
  const { rows } = await sql<{ bytes: number }>`
    select ${sql.join(tables, sql` + `)} as bytes`.execute(executor);
  return rows[0]?.bytes ?? 0;
}
