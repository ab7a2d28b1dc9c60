// Computes every row MAC anew after a change of the row MAC key. A row changes in nothing but its
// row MAC; one whose row MAC does not verify is left as it is, and one that somebody changes
// meanwhile keeps what that change wrote.
import { sql } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { type RowMacTable, rowMacTables } from './row-mac-tables.ts';

/** Pages of 8 KiB that are read at once. */
const pagesPerBatch = 32;

/**
 * Computes the row MAC of every row anew that an older key version made. Returns how many it did;
 * stops between batches when asked.
 */
export async function recomputeRowMacs(
  db: Db,
  keyring: Keyring,
  isStopping: () => boolean,
): Promise<number> {
  let done = 0;
  for (const rows of rowMacTables) done += await recomputeRowMacsOf(db, keyring, rows, isStopping);
  return done;
}

// A row that cannot even be read is not the vault's, and does not stop the others.
function holds(keyring: Keyring, of: RowMacTable<never>, row: { readonly seal: Buffer }): boolean {
  try {
    return of.holds(keyring, row as never, row.seal);
  } catch {
    return false;
  }
}

// Walks the table's pages in their order: a row that is written meanwhile is written with the key
// of today.
async function recomputeRowMacsOf(
  db: Db,
  keyring: Keyring,
  of: RowMacTable<never>,
  isStopping: () => boolean,
): Promise<number> {
  const version = keyring.rowMacVersion();
  const seal = sql.ref(`held.${of.column}`);
  const { rows: size } = await sql<{ pages: number }>`
    select (pg_relation_size(${of.table}::regclass) / current_setting('block_size')::int)::int
      as pages`.execute(db);
  const pages = size[0]?.pages ?? 0;
  let done = 0;
  for (let page = 0; page < pages && !isStopping(); page += pagesPerBatch) {
    const { rows } = await sql<{ place: string; seal: Buffer }>`
      select held.ctid::text as place, ${seal} as seal, ${of.select}
      where held.ctid >= ${`(${page},0)`}::tid and held.ctid < ${`(${page + pagesPerBatch},0)`}::tid
        and length(${seal}) >= 2
          and get_byte(${seal}, 0) * 256 + get_byte(${seal}, 1) < ${version}`.execute(db);
    const good = rows.filter((row) => holds(keyring, of, row));
    if (good.length === 0) continue;
    const places = good.map(({ place }) => place);
    const { rows: sealed } = await sql`
      update ${sql.table(of.table)} held set ${sql.ref(of.column)} = anew.seal
      from unnest(${places}::text[], ${good.map(({ seal }) => seal)}::bytea[],
        ${good.map((row) => of.seal(keyring, row as never))}::bytea[]) as anew (place, before, seal)
      where held.ctid = any (${places}::tid[]) and held.ctid::text = anew.place
        and ${seal} = anew.before returning 1`.execute(db);
    done += sealed.length;
  }
  return done;
}
