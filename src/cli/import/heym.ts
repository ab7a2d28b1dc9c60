// What Heym knows: people, teams, who is in which, credentials by owner, and with whom each is
// shared. Read from its database, in a transaction that can only read, or from the same rows as
// JSON.
import { sql } from 'kysely';
import { DatabaseUrlInvalid } from '../../db/url.ts';
import { openDatabase } from '../../db/client.ts';
import { OptionsUnfit } from '../target.ts';

interface Member {
  readonly team_id: string;
  readonly user_id: string;
}
/** Rows as Heym's tables have them, under the names of the tables. */
export interface HeymRows {
  readonly users: readonly { readonly id: string; readonly email: string }[];
  readonly teams: readonly {
    readonly id: string;
    readonly name: string;
    readonly description: string | null;
    readonly creator_id: string;
  }[];
  readonly team_members: readonly Member[];
  readonly credentials: readonly {
    readonly id: string;
    readonly owner_id: string;
    readonly name: string;
    readonly type: string;
    readonly encrypted_config: string;
  }[];
  readonly credential_shares: readonly {
    readonly credential_id: string;
    readonly user_id: string;
  }[];
  readonly credential_team_shares: readonly {
    readonly credential_id: string;
    readonly team_id: string;
  }[];
}

/**
 * The columns that are read, by table; those that an older Heym has no table for are empty there.
 */
const columns: {
  readonly [table in keyof HeymRows]: readonly (keyof HeymRows[table][number] & string)[];
} = {
  users: ['id', 'email'],
  teams: ['id', 'name', 'description', 'creator_id'],
  team_members: ['team_id', 'user_id'],
  credentials: ['id', 'owner_id', 'name', 'type', 'encrypted_config'],
  credential_shares: ['credential_id', 'user_id'],
  credential_team_shares: ['credential_id', 'team_id'],
};
const tables = Object.keys(columns) as (keyof HeymRows)[];
const maybeNull = new Set(['description']);

/**
 * Reads Heym's database. Its URL may say the driver, as SQLAlchemy's do. Throws OptionsUnfit, and
 * what the database throws.
 */
export async function readHeymDatabase(url: string): Promise<HeymRows> {
  const database = opened(
    url.trim().replace(/^postgres(?:ql)?(?:\+[a-z0-9]+)?:\/\//, 'postgresql://'),
  );
  try {
    // One moment of all tables, and no way to write.
    const trx = await database.db
      .startTransaction()
      .setIsolationLevel('repeatable read')
      .setAccessMode('read only')
      .execute();
    try {
      const { rows: found } = await sql<{
        name: string;
      }>`select relname as name from pg_class
        where oid = any (select to_regclass(name)::oid
        from unnest(${tables}::text[]) as wanted (name))`.execute(trx);
      if (
        !found.some(({ name }) => name === 'credentials') ||
        !found.some(({ name }) => name === 'users')
      )
        throw new OptionsUnfit("--database names a database without Heym's tables");
      const read: Record<string, unknown> = {};
      for (const table of tables) {
        const selected = sql.join(columns[table].map((column) => sql`${sql.ref(column)}::text`));
        read[table] = !found.some(({ name }) => name === table)
          ? []
          : (
              await sql`select ${selected} from ${sql.table(table)}
                order by ${sql.ref(columns[table][0]!)}, ${sql.ref(columns[table][1]!)}`.execute(
                trx,
              )
            ).rows;
      }
      return checked(read, "--database names a database whose tables are not Heym's");
    } finally {
      await trx.rollback().execute();
    }
  } finally {
    await database.close();
  }
}

function opened(url: string): ReturnType<typeof openDatabase> {
  try {
    return openDatabase({ url, poolMax: 1, onError: () => undefined });
  } catch (error) {
    if (error instanceof DatabaseUrlInvalid)
      throw new OptionsUnfit(
        `--database must name a file with the URL of Heym's database, which ${error.message}`,
      );
    throw error;
  }
}

/** The same rows from JSON, an array a table. Throws OptionsUnfit. */
export function heymRows(document: object): HeymRows {
  const given = document as Record<string, unknown>;
  const unknown = Object.keys(given).filter((name) => !Object.hasOwn(columns, name));
  if (unknown.length > 0)
    throw new OptionsUnfit(`the file has something else than ${tables.join(', ')}`);
  return checked(
    Object.fromEntries(tables.map((table) => [table, given[table] ?? []])),
    "the file does not hold Heym's rows",
  );
}

function checked(read: Record<string, unknown>, message: string): HeymRows {
  for (const table of tables) {
    const rows = read[table];
    const isFit =
      Array.isArray(rows) &&
      rows.every(
        (row: unknown) =>
          typeof row === 'object' &&
          row !== null &&
          columns[table].every((column) => {
            const value = (row as Record<string, unknown>)[column];
            return typeof value === 'string' || (maybeNull.has(column) && value == null);
          }),
      );
    if (!isFit) throw new OptionsUnfit(`${message} (${table})`);
  }
  return read as unknown as HeymRows;
}
