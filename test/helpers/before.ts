// A database as the release before has left it: system keys that say nothing of a take-over, and
// teams whose settings carry no MAC.
import { sql } from 'kysely';
import { parseRootKeys, type WrappedSystemKey } from '../../src/crypto/index.ts';
import type { Db } from '../../src/db/client.ts';
import { intrude } from './intruder.ts';

type Row = Omit<WrappedSystemKey, 'active'>;

/** Makes it so; no process that runs may go on with it. */
export async function asBefore(db: Db, rootKey: string): Promise<void> {
  await putSystemKeys(
    db,
    (await listSystemKeys(db)).map((row) => wrapAsBefore(rootKey, row)),
  );
  await intrude(db, 'update team set row_mac = null, row_mac_version = 0');
}

/** Every system key as it is stored. */
export async function listSystemKeys(db: Db): Promise<Row[]> {
  const { rows } = await sql<Row>`
    select id, purpose, version, root_fingerprint as "rootFingerprint", wrapped from system_key order by id`.execute(
    db,
  );
  return rows;
}

/** Writes what the rows say back over them. */
export async function putSystemKeys(db: Db, rows: readonly Row[]): Promise<void> {
  for (const { id, wrapped, rootFingerprint } of rows)
    await sql`update system_key set wrapped = ${wrapped}, root_fingerprint = ${rootFingerprint} where id = ${id}`.execute(
      db,
    );
}

/** Whether a key says that nothing of before is left. */
export function saysTakenOver(rootKey: string, row: Row): boolean {
  try {
    parseRootKeys(rootKey).unwrap(contextOf(row, 2), row).fill(0);
    return true;
  } catch {
    return false;
  }
}

/** The same key, wrapped as the release before wraps. */
export function wrapAsBefore(rootKey: string, row: Row): Row {
  const roots = parseRootKeys(rootKey);
  if (!saysTakenOver(rootKey, row)) return row;
  return { ...row, ...roots.wrap(contextOf(row), roots.unwrap(contextOf(row, 2), row)) };
}

const contextOf = ({ id, purpose, version }: Row, epoch?: 2) =>
  ({
    purpose,
    owner: 'system',
    key: id,
    version,
    format: purpose === 'leaseSigning' ? 'ed25519' : 'hmac-sha256',
    ...(epoch === undefined ? {} : { epoch }),
  }) as const;
