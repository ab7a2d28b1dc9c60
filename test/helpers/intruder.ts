// What somebody can do who writes to the database past the service: no trigger, no foreign key
// stops them.
import { sql } from 'kysely';
import type { Db } from '../../src/db/client.ts';

/** Runs statements with triggers and foreign keys off. */
export async function intrude(db: Db, ...statements: readonly string[]): Promise<void> {
  await db.connection().execute(async (connection) => {
    await sql.raw('set session_replication_role = replica').execute(connection);
    try {
      for (const statement of statements) await sql.raw(statement).execute(connection);
    } finally {
      await sql.raw('set session_replication_role = origin').execute(connection);
    }
  });
}

/** Destroys a credential at once, as the housekeeping does when its time is over. */
export async function purge(db: Db, credential: string): Promise<void> {
  await intrude(
    db,
    `update credential set state = 'deleted', deleted_at = now() - interval '40 days' where id = '${credential}'`,
  );
  await sql`delete from credential where id = ${credential}`.execute(db);
}

/** Runs one statement that must touch one row, then `act`, and puts the table back as it was. */
export async function tampered(
  db: Db,
  { table, statement }: { table: string; statement: string },
  act: () => Promise<void>,
): Promise<void> {
  await db.connection().execute(async (connection) => {
    const run = (text: string): Promise<{ numAffectedRows?: bigint }> =>
      sql.raw(text).execute(connection);
    await run('set session_replication_role = replica');
    await run(`create temporary table kept as select * from ${table}`);
    try {
      const { numAffectedRows } = await run(statement);
      if (numAffectedRows !== 1n)
        throw new Error(`changes ${numAffectedRows} rows and not one: ${statement}`);
      await act();
    } finally {
      await run(`delete from ${table}`);
      const stored = await storedColumns(connection, table);
      await run(`insert into ${table} (${stored}) select ${stored} from kept`);
      await run('drop table kept');
      await run('set session_replication_role = origin');
    }
  });
}

/** The columns of a table that are written: all but those that the database makes of others. */
export async function storedColumns(db: Db, table: string): Promise<string> {
  const { rows } = await sql<{ name: string }>`
    select quote_ident(attname) as name from pg_attribute where attrelid = ${table}::regclass and attnum > 0 and not attisdropped and attgenerated = '' order by attnum`.execute(
    db,
  );
  return rows.map(({ name }) => name).join(', ');
}
