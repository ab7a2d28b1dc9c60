// A backup of a database, without the tools for one: every row of every table, put as it is into a
// fresh migrated database.
import { sql } from 'kysely';
import type { Db } from '../../src/db/client.ts';
import { testDatabase, type TestDatabase } from './database.ts';

/** A copy of what the database holds now. */
export async function backUp(
  t: { teardown(action: () => unknown): unknown },
  from: Db,
): Promise<TestDatabase> {
  const to = await testDatabase(t);
  const { rows: tables } = await sql<{ name: string }>`
    select quote_ident(relname) as name from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition and relname <> 'schema_migration'`.execute(
    from,
  );
  await to.db.connection().execute(async (connection) => {
    // Triggers and foreign keys have had their say when the rows were made.
    await sql.raw('set session_replication_role = replica').execute(connection);
    for (const { name } of tables) {
      const {
        rows: [{ columns } = { columns: '*' }],
      } = await sql<{ columns: string }>`
        select string_agg(quote_ident(attname), ', ') as columns from pg_attribute where attrelid = ${name}::regclass and attnum > 0 and not attisdropped and attgenerated = ''`.execute(
        from,
      );
      const {
        rows: [held],
      } = await sql<{
        rows: string | null;
      }>`select json_agg(held)::text as rows from ${sql.raw(name)} held`.execute(from);
      if (held?.rows)
        await sql`insert into ${sql.raw(name)} (${sql.raw(columns)}) select ${sql.raw(columns)} from json_populate_recordset(null::${sql.raw(name)}, ${held.rows}::json) held`.execute(
          connection,
        );
    }
    await sql.raw('set session_replication_role = origin').execute(connection);
  });
  return to;
}
