// The bare loop of a rotation: tokens alone in a table of their own, decrypted, encrypted and
// updated in batches of 100, each batch a transaction. It knows where it is, so that rows moved
// before cost it nothing.
import { randomBytes } from 'node:crypto';
import type pg from 'pg';
import { decrypt, encrypt, type FernetKey } from '../src/crypto/fernet.ts';
import * as statements from './floor-statements.ts';

export const movingTable = `
create table floor.moving (credential_id uuid primary key, key integer not null, token text not null);
create index on floor.moving (key, credential_id)`;

/** As many bytes as the vault encrypts for a credential of the bench. */
export const plaintextBytes = 512;
const rowsPerInsert = 5_000;

/**
 * Fills a table `(credential_id, …constants, token)` of the schema `floor` with fresh tokens under
 * the key.
 */
export async function fillTokens(
  pool: pg.Pool,
  { table, key, rows }: { table: 'moving' | 'python'; key: FernetKey; rows: number },
): Promise<void> {
  const time = BigInt(Math.floor(Date.now() / 1000));
  for (let left = rows; left > 0; left -= rowsPerInsert) {
    const tokens = Array.from({ length: Math.min(left, rowsPerInsert) }, () =>
      encrypt(key, randomBytes(plaintextBytes), time),
    );
    await pool.query(
      `insert into floor.${table} select gen_random_uuid(), ${table === 'moving' ? '1,' : ''} token from unnest($1::text[]) as made (token)`,
      [tokens],
    );
  }
  await pool.query(`vacuum analyze floor.${table}`);
}

/** Moves every token that is under the key of that number to the next one. */
export async function moveTokens(
  pool: pg.Pool,
  { from, to, under }: { from: FernetKey; to: FernetKey; under: number },
): Promise<{ moved: number; seconds: number }> {
  const client = await pool.connect();
  const begun = performance.now();
  let moved = 0;
  let last = '00000000-0000-0000-0000-000000000000';
  try {
    for (;;) {
      await client.query('begin');
      const { rows } = await client.query<{ credential_id: string; token: string }>({
        name: 'held',
        text: statements.held,
        values: [under, last],
      });
      const ids = rows.map(({ credential_id: id }) => id);
      const tokens = rows.map(({ token }) => {
        const { plaintext, time } = decrypt(from, token);
        return encrypt(to, plaintext, time);
      });
      if (rows.length > 0)
        await client.query({
          name: 'move',
          text: statements.move,
          values: [ids, tokens, under + 1],
        });
      await client.query('commit');
      if (rows.length === 0) return { moved, seconds: (performance.now() - begun) / 1000 };
      moved += rows.length;
      last = ids.at(-1)!;
    }
  } finally {
    client.release();
  }
}
