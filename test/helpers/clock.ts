// Time that a test moves: the database's, and with it that of every replica that goes by it. The
// database's clock is one SQL function; here it is replaced by one that adds what a file says, so
// that moving the time needs no statement.
import { chmodSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import type { Db } from '../../src/db/client.ts';
import { DatabaseClock } from '../../src/db/clock.ts';
import { sqlState } from '../../src/db/errors.ts';
import { asOwner } from './database.ts';

/** By how much the time is moved; set it to travel. */
export interface MovedTime {
  ms: number;
}

const files = new Map<string, MovedTime>();

/** The time of a database: one for all who ask. */
export async function timeOf(db: Db): Promise<MovedTime> {
  const { rows } = await sql<{ name: string }>`select current_database() as name`.execute(db);
  const name = rows[0]?.name ?? '';
  const known = files.get(name);
  if (known !== undefined) return known;
  const folder = mkdtempSync(join(tmpdir(), 'vault-time-'));
  chmodSync(folder, 0o755); // the server runs as another user, who must be able to read it
  // Not before: what still runs on the database asks it for the time.
  process.once('exit', () => {
    rmSync(folder, { recursive: true, force: true });
  });
  const time = movedBy(join(folder, 'ms'));
  files.set(name, time);
  const replacement = `create or replace function vault_now() returns timestamptz language sql stable security definer as
    $$ select statement_timestamp() + pg_read_file('${join(folder, 'ms')}')::float8 * interval '1 ms' $$;
    alter function vault_now() owner to session_user`; // it reads the file with the rights of whom it belongs to
  await sql
    .raw(replacement)
    .execute(db)
    .catch(async (error: unknown) => {
      if (sqlState(error) !== '42501') throw error;
      await asOwner(name, replacement); // a vault that runs with the rights of one
    });
  return time;
}

function movedBy(file: string): MovedTime {
  let moved = 0;
  const write = (): void => {
    writeFileSync(`${file}.next`, String(moved), { mode: 0o644 });
    renameSync(`${file}.next`, file); // never seen half written
  };
  write();
  return {
    get ms() {
      return moved;
    },
    set ms(ms) {
      moved = ms;
      write();
    },
  };
}

/**
 * The clock of a replica that keeps to the moved time. `skew` is what its own clock is ahead of
 * that.
 */
export async function clockOf(
  db: Db,
  { skew = { ms: 0 } }: { skew?: MovedTime } = {},
): Promise<{ clock: DatabaseClock; time: MovedTime }> {
  const time = await timeOf(db);
  const clock = new DatabaseClock({
    db,
    wallMs: () => Date.now() + time.ms + skew.ms,
    steadyMs: () => performance.now() + time.ms,
  });
  await clock.measure();
  return { clock, time };
}
