// The way of Python: a script of ours on Debian's python3-cryptography and a PostgreSQL driver,
// over a table of tokens alone.
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type pg from 'pg';
import { importKey } from '../src/crypto/fernet.ts';
import { fillTokens } from './bare-loop.ts';

export const pythonTable =
  'create table floor.python (credential_id uuid primary key, token text not null)';
export const withoutPython =
  'Python: skipped, there is none with cryptography and a PostgreSQL driver (Debian: python3-cryptography, python3-psycopg2)';

/** A Python that has all that the script imports. */
export function findPython(): string | undefined {
  const imports =
    'import cryptography.fernet\ntry:\n    import psycopg2\nexcept ImportError:\n    import psycopg';
  return ['/usr/bin/python3', 'python3'].find(
    (python) => spawnSync(python, ['-c', imports]).status === 0,
  );
}

/** Rows a second of the script over so many rows. */
export async function rotateInPython(
  python: string,
  { pool, databaseUrl, rows }: { pool: pg.Pool; databaseUrl: string; rows: number },
): Promise<number> {
  const [fresh, old] = [randomBytes(32), randomBytes(32)];
  await pool.query('truncate floor.python');
  await fillTokens(pool, { table: 'python', key: importKey('fernet', old), rows });
  const text = await run(python, {
    DATABASE: databaseUrl,
    KEYS: [fresh, old].map((key) => `${key.toString('base64url')}=`).join(','),
  });
  const { moved, seconds } = JSON.parse(text) as { moved: number; seconds: number };
  if (moved !== rows) throw new Error(`Python moved ${moved} of ${rows} rows`);
  return moved / seconds;
}

function run(python: string, env: Record<string, string>): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(python, [join(import.meta.dirname, 'rotate.py')], {
      env: { PATH: process.env['PATH'], ...env },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
    child.once('error', reject);
    child.once('close', (code) => {
      if (code === 0) resolve(output);
      else reject(new Error(`Python ended with ${code}`));
    });
  });
}
