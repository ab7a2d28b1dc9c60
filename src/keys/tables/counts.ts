// How many tokens are under a key, and which of them did not open, over all tables.
import { type RawBuilder, sql } from 'kysely';
import type { Executor } from '../../db/client.ts';
import type { DataKeyId, TeamId } from '../../shared/ids.ts';
import { ciphertextTables } from './list.ts';
import type { CiphertextTable } from './table.ts';

/** How many tokens each table has under the key, by the table's name. */
export async function countTokensByTable(
  executor: Executor,
  key: { team: TeamId; id: DataKeyId },
): Promise<Readonly<Record<string, number>>> {
  const counts: Record<string, number> = {};
  for (const { name } of ciphertextTables) {
    const { rows } = await sql<{ count: number }>`
      select count(*) from ${sql.table(name)}
      where data_key_id = (select id from data_key where id = ${key.id}
        and team_id = ${key.team})`.execute(executor);
    counts[name] = rows[0]?.count ?? 0;
  }
  return counts;
}

/** As SQL: how many tokens of all tables are under the key that the column names. */
export const tokenCountSql = (keyIdColumn: string): RawBuilder<number> =>
  sql`(${sql.join(
    ciphertextTables.map(
      ({ name }) =>
        sql`(select count(*) from ${sql.table(name)} where data_key_id = ${sql.ref(keyIdColumn)})`,
    ),
    sql` + `,
  )})`;

/**
 * As SQL: whether any token is under the key that the column names; stops at the first. No
 * `exists`: where it is asked of many keys, the planner would read the whole table for it.
 */
export const hasTokensSql = (keyIdColumn: string): RawBuilder<boolean> =>
  sql`coalesce(${sql.join(
    ciphertextTables.map(
      ({ name }) =>
        sql`(select true from ${sql.table(name)} where data_key_id = ${sql.ref(keyIdColumn)}
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

/** As SQL: how many tokens of all tables did not open during `rotation`. */
export const rotationFailureCountSql: RawBuilder<number> = sql`(${sql.join(
  ciphertextTables.map(
    ({ failures }) =>
      sql`(select count(*) from ${sql.table(failures)} failure
        where failure.rotation_id = rotation.id)`,
  ),
  sql` + `,
)})`;

const failuresOf = ({ rows, number, failures }: CiphertextTable, rotation: RawBuilder<unknown>) =>
  sql`select rotation_id as rotation, credential_id as credential,
    ${rows === 'versions' ? sql.ref(number) : sql`0`} as version, at
    from ${sql.table(failures)} where rotation_id = ${rotation}`;

/**
 * As SQL: the rows of all tables that did not open during a rotation: `rotation`, `credential`,
 * `version`, `at`. Version 0 stands for The OAuth tokens stored beside the versions.
 */
export const rotationFailuresSql = (rotation: RawBuilder<unknown>): RawBuilder<unknown> =>
  sql.join(
    ciphertextTables.map((table) => failuresOf(table, rotation)),
    sql` union all `,
  );
