// What is measured of one rotation over many rows: its pace, the service's memory, reads meanwhile,
// sizes, counts.
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { ask, type Figures, requestText, runLoad } from './load.ts';
import { requestsOf } from './measures.ts';
import type { Server } from './processes.ts';
import { type Setting, teams } from './setting.ts';

export interface At {
  readonly vault: Server;
  readonly setting: Setting;
  readonly pool: pg.Pool;
  readonly rows: number;
}

/** One rotation, with nothing else asked of the vault. */
export interface Followed {
  readonly rowsPerSecond: number;
  /** From the first batch to the last. */
  readonly steadyRowsPerSecond: number;
  readonly answeredMs: number;
  readonly firstMs: number;
  readonly endMs: number;
  /** Shares in percent, with the memory of the service then. */
  readonly residentBytes: readonly (readonly [number, number | undefined])[];
}

interface Rotation {
  readonly state: string;
  readonly done: number;
  readonly created_at: Date;
  readonly progressed_at: Date;
  readonly ended_at: Date | null;
}

const readConnections = 4;
const readPauseMs = 10;
const readSeconds = 15;
const countsMade = 100;

const startRotation = async ({ vault, setting }: At): Promise<string> =>
  (
    JSON.parse(
      await ask(
        vault.port,
        requestText('POST', `/v1/teams/${teams.rotate}/key-rotations`, setting.tokens.person),
      ),
    ) as { id: string }
  ).id;

const look = async (pool: pg.Pool, id: string): Promise<Rotation> =>
  (
    await pool.query<Rotation>({
      name: 'look',
      text: 'select state, done::float8, created_at, progressed_at, ended_at from key_rotation where id = $1',
      values: [id],
    })
  ).rows[0]!;

/** Rotates, looking in the database: requests that are being answered would slow it. */
export async function followRotation(at: At): Promise<Followed> {
  const { vault, pool, rows } = at;
  const begun = performance.now();
  const id = await startRotation(at);
  const answeredMs = performance.now() - begun;
  const shares = [10, 50, 100];
  const residentBytes: [number, number | undefined][] = [];
  let first: Rotation | undefined;
  for (;;) {
    const now = await look(pool, id);
    if (now.done > 0) first ??= now;
    while (shares.length > 0 && now.done >= (rows * shares[0]!) / 100)
      residentBytes.push([shares.shift()!, vault.residentBytes()]);
    if (now.ended_at === null) {
      await delay(first === undefined ? 5 : Math.min(200, Math.max(10, rows / 5_000)));
      continue;
    }
    if (now.state !== 'completed' || now.done !== rows)
      throw new Error(`the rotation ended ${now.state} with ${now.done} of ${rows} rows`);
    const since = (then: Date, until: Date): number => until.getTime() - then.getTime();
    first ??= now;
    return {
      rowsPerSecond: rows / (since(now.created_at, now.ended_at) / 1000),
      steadyRowsPerSecond:
        (rows - first.done) / (since(first.progressed_at, now.progressed_at) / 1000),
      answeredMs,
      firstMs: since(now.created_at, first.progressed_at),
      endMs: since(now.progressed_at, now.ended_at),
      residentBytes,
    };
  }
}

/**
 * Reads at a steady pace for a while, alone or beside a rotation, which is cancelled where it has
 * not ended by then.
 */
export async function readsDuring(
  at: At,
  ids: readonly string[],
  { isRotating = false }: { isRotating?: boolean } = {},
): Promise<Figures & { rowsPerSecond: number }> {
  const { vault, setting, pool } = at;
  const next = requestsOf(setting).read(ids);
  const reads = (seconds: number): Promise<Figures> =>
    runLoad({
      port: vault.port,
      connections: readConnections,
      until: { seconds },
      next,
      pauseMs: readPauseMs,
    });
  await reads(2);
  const id = isRotating ? await startRotation(at) : undefined;
  const figures = await reads(readSeconds);
  if (id === undefined) return { ...figures, rowsPerSecond: 0 };
  const {
    done,
    created_at: createdAt,
    progressed_at: progressedAt,
    ended_at: endedAt,
  } = await look(pool, id);
  if (endedAt === null)
    await ask(
      vault.port,
      requestText(
        'POST',
        `/v1/teams/${teams.rotate}/key-rotations/${id}/cancel`,
        setting.tokens.person,
      ),
    );
  return {
    ...figures,
    rowsPerSecond: done / ((progressedAt.getTime() - createdAt.getTime()) / 1000),
  };
}

/** The table of versions and its indexes, in bytes; TOAST counts as table. */
export async function sizesOf(pool: pg.Pool): Promise<{ table: number; indexes: number }> {
  const { rows } = await pool.query<{ table: number; indexes: number }>(
    `select pg_table_size('credential_version')::float8 as table, pg_indexes_size('credential_version')::float8 as indexes`,
  );
  return rows[0]!;
}

/**
 * How long the exact count under the key with the most rows takes, as key lists ask it, and its
 * plan.
 */
export async function countRows(
  pool: pg.Pool,
): Promise<{ p50Ms: number; p99Ms: number; plan: string }> {
  const {
    rows: [key],
  } = await pool.query<{ id: string }>(
    `select id from data_key where state = 'active' order by (select count(*) from credential_version where data_key_id = data_key.id) desc limit 1`,
  );
  const text =
    'select (select count(*) from credential_version where data_key_id = data_key.id) as rows from data_key where id = $1';
  const took: number[] = [];
  for (let i = 0; i < countsMade; i += 1) {
    const begun = performance.now();
    await pool.query({ name: 'count', text, values: [key!.id] });
    took.push(performance.now() - begun);
  }
  took.sort((a, b) => a - b);
  const plan = await pool.query<Record<string, string>>({
    text: `explain (analyze, costs off, buffers off, summary off) ${text}`,
    values: [key!.id],
  });
  return {
    p50Ms: took[Math.floor(countsMade / 2)]!,
    p99Ms: took[Math.floor(countsMade * 0.99)]!,
    plan: plan.rows.map((line) => Object.values(line)[0]!).join('\n'),
  };
}
