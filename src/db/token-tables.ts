// The one list of tables that hold tokens. Counting, rotating and retiring walk it; a test compares
// it with the schema.
import { type RawBuilder, sql } from 'kysely';
import type { Executor } from './client.ts';
import type { DataKeyId, TeamId } from '../shared/ids.ts';

/** Every table with a token and the key that it is under. */
export const tokenTables = ['credential_version', 'oauth_token'] as const;
export type TokenTable = (typeof tokenTables)[number];

/** How many tokens each table has under the key. */
export async function countTokensByTable(
  executor: Executor,
  key: { team: TeamId; id: DataKeyId },
): Promise<Record<TokenTable, number>> {
  const counts = {} as Record<TokenTable, number>;
  for (const table of tokenTables) {
    const { rows } = await sql<{ count: number }>`
      select count(*) from ${sql.table(table)}
      where data_key_id = (select id from data_key where id = ${key.id}
        and team_id = ${key.team})`.execute(executor);
    counts[table] = rows[0]?.count ?? 0;
  }
  return counts;
}

/** As SQL: how many tokens of all tables are under the key that the column names. */
export const tokenCountSql = (keyIdColumn: string): RawBuilder<number> =>
  sql`(${sql.join(
    tokenTables.map(
      (table) =>
        sql`(select count(*) from ${sql.table(table)} where data_key_id = ${sql.ref(keyIdColumn)})`,
    ),
    sql` + `,
  )})`;

/** As SQL: how many tokens of all tables did not open during `rotation`. */
export const rotationFailureCountSql: RawBuilder<number> = sql`((select count(*)
  from key_rotation_failure failure where failure.rotation_id = rotation.id)
  + (select count(*) from key_rotation_oauth_failure failure
    where failure.rotation_id = rotation.id))`;

/**
 * As SQL: whether any token is under the key that the column names; stops at the first. No
 * `exists`: where it is asked of many keys, the planner would read the whole table for it.
 */
export const hasTokensSql = (keyIdColumn: string): RawBuilder<boolean> =>
  sql`coalesce(${sql.join(
    tokenTables.map(
      (table) =>
        sql`(select true from ${sql.table(table)} where data_key_id = ${sql.ref(keyIdColumn)}
          limit 1)`,
    ),
  )}, false)`;

/** As SQL: how many tokens of all tables are under the team's keys other than this one. */
export const tokenCountBesidesSql = (
  team: RawBuilder<unknown>,
  key: RawBuilder<unknown>,
): RawBuilder<number> => sql`
  (select coalesce(sum(${tokenCountSql('other.id')}), 0)::bigint from data_key other
    where other.team_id = ${team} and other.id <> ${key})`;
