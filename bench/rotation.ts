// npm run bench:rotation [-- --rows 1000000]: whole rotations next to the bare loop and to the way
// of Python, on one durable PostgreSQL with autovacuum, in one run: start and rate, memory of the
// service, bloat of the table, reads meanwhile, rows under a key. Up to 100,000 rows several rounds
// in turn. Ends with 1 only when something answered wrong.
import { randomBytes } from 'node:crypto';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { importKey } from '../src/crypto/fernet.ts';
import { migrate } from '../src/db/migrate.ts';
import { startLocalPostgres } from '../src/dev/postgres.ts';
import { fillTokens, movingTable, moveTokens } from './bare-loop.ts';
import { fillTeam } from './filling.ts';
import { ask, requestText } from './load.ts';
import { type Frame, runFramed, seconds } from './main.ts';
import { median } from './measures.ts';
import { startVault } from './processes.ts';
import { findPython, pythonTable, rotateInPython, withoutPython } from './python.ts';
import { table, type Verdict, verdictTable } from './report.ts';
import {
  countRows,
  type Followed,
  followRotation,
  readsDuring,
  sizesOf,
} from './rotation-measures.ts';
import { makeSetting, person, teams } from './setting.ts';

const { values: options } = parseArgs({ options: { rows: { type: 'string', default: '100000' } } });
const rows = Number(options.rows);
const rounds = rows > 100_000 ? 1 : 5;
const pythonRows = Math.min(rows, 20_000);

await runFramed(run);

async function run({ folder, stops, say }: Frame): Promise<void> {
  const begun = performance.now();
  const postgres = await startLocalPostgres({ folder: join(folder, 'postgres'), isDurable: true });
  stops.push(() => postgres.stop());
  await migrate(postgres.url);
  const pool = new pg.Pool({ connectionString: postgres.url, max: 2 });
  pool.on('error', () => undefined); // the server may be gone a moment before the last idle connection
  stops.push(() => pool.end());
  const setting = await makeSetting(postgres.url);
  const vault = await startVault(setting);
  stops.push(() => vault.stop());
  const team = teams.rotate;
  await ask(
    vault.port,
    requestText('POST', '/v1/teams', setting.tokens.operator, {
      slug: team,
      name: team,
      admins: [person],
    }),
  );
  const ids = await fillTeam(setting, { team, rows, idsWanted: 2_000 });
  const keys = [
    importKey('fernet', randomBytes(32)),
    importKey('fernet', randomBytes(32)),
  ] as const;
  await pool.query(`create schema floor; ${movingTable}; ${pythonTable}`);
  await fillTokens(pool, { table: 'moving', key: keys[0], rows });
  say(
    `${rows} credentials in one team, ${rows} tokens for the bare loop, stored in ${seconds(begun)} s; Node ${process.versions.node}, ${cpus().length} cores (${cpus()[0]?.model.trim()})`,
  );
  const load = (): string =>
    loadavg()
      .map((value) => value.toFixed(1))
      .join(' ');
  say(`load average ${load()} before the first round`);

  const at = { vault, setting, pool, rows };
  const idle = await readsDuring(at, ids);
  const count = await countRows(pool);
  const before = await sizesOf(pool);
  const vaultRounds: Followed[] = [];
  const bareRounds: number[] = [];
  let after = before;
  for (let round = 0; round < rounds; round += 1) {
    vaultRounds.push(await followRotation(at));
    if (round === 0) after = await sizesOf(pool);
    const { moved, seconds: taken } = await moveTokens(pool, {
      from: keys[round % 2]!,
      to: keys[(round + 1) % 2]!,
      under: round + 1,
    });
    if (moved !== rows) throw new Error(`the bare loop moved ${moved} of ${rows} rows`);
    bareRounds.push(moved / taken);
  }
  const countAfter = await countRows(pool);
  const busy = await readsDuring(at, ids, { isRotating: true });
  const python = findPython();
  const pythonRate =
    python === undefined
      ? undefined
      : await rotateInPython(python, { pool, databaseUrl: postgres.url, rows: pythonRows });

  const [first] = vaultRounds as [Followed];
  const middle = (of: (round: Followed) => number): number => median(vaultRounds.map(of));
  const [vaultRate, bareRate] = [middle((round) => round.rowsPerSecond), median(bareRounds)];
  const megabytes = (bytes: number | undefined): string =>
    bytes === undefined ? '-' : (bytes / 2 ** 20).toFixed(0);
  say(`load average ${load()} after the last\n`);
  say(
    table([
      ['rows/s', 'whole', 'without start and end'],
      ['vault', vaultRate.toFixed(0), middle((round) => round.steadyRowsPerSecond).toFixed(0)],
      ['bare loop', bareRate.toFixed(0), ''],
      ['vault, with reads meanwhile', busy.rowsPerSecond.toFixed(0), ''],
      [
        `Python, one transaction, row by row (${pythonRows} rows)`,
        pythonRate?.toFixed(0) ?? 'skipped',
        '',
      ],
    ]),
  );
  if (pythonRate === undefined) say(withoutPython);
  say(
    `\nstart: answered after ${middle((round) => round.answeredMs).toFixed(0)} ms, first rows moved after ${middle((round) => round.firstMs).toFixed(0)} ms; end told ${middle((round) => round.endMs).toFixed(0)} ms after the last row`,
  );
  say(
    `memory of the service, MiB: ${first.residentBytes.map(([share, bytes]) => `${megabytes(bytes)} at ${share} %`).join(', ')}`,
  );
  say(
    `table ${megabytes(before.table)} → ${megabytes(after.table)} MiB, its indexes ${megabytes(before.indexes)} → ${megabytes(after.indexes)} MiB after the first rotation`,
  );
  say(
    `reads at ${idle.perSecond.toFixed(0)}/s: p50 ${idle.p50Ms.toFixed(2)} ms, p99 ${idle.p99Ms.toFixed(2)} ms; while rotating at ${busy.perSecond.toFixed(0)}/s: p50 ${busy.p50Ms.toFixed(2)} ms, p99 ${busy.p99Ms.toFixed(2)} ms`,
  );
  say(
    `rows under a key: p50 ${count.p50Ms.toFixed(1)} ms, p99 ${count.p99Ms.toFixed(1)} ms; after the rotations p50 ${countAfter.p50Ms.toFixed(1)} ms, p99 ${countAfter.p99Ms.toFixed(1)} ms\n${count.plan}\n`,
  );

  const grown = (last: number | undefined, then: number | undefined): number =>
    (last ?? NaN) / (then ?? NaN);
  // The first tenth is what the process takes to warm up, however many rows follow.
  const [, half, whole] = first.residentBytes.map(([, bytes]) => bytes);
  const atLeast = (what: string, value: number, target: number): Verdict => ({
    what,
    value,
    unit: ' ×',
    target: `≥ ${target} ×`,
    isMet: value >= target,
  });
  const atMost = (what: string, value: number, target: number): Verdict => ({
    what,
    value,
    unit: ' ×',
    target: `≤ ${target} ×`,
    isMet: value <= target,
  });
  say(
    verdictTable([
      atLeast(
        'vault ÷ bare loop',
        median(vaultRounds.map(({ rowsPerSecond }, i) => rowsPerSecond / bareRounds[i]!)),
        0.8,
      ),
      ...(pythonRate === undefined
        ? []
        : [
            atLeast('vault ÷ Python', vaultRate / pythonRate, 5),
            {
              what: 'bare loop ÷ Python',
              value: bareRate / pythonRate,
              unit: ' ×',
              target: '',
              isMet: true,
            },
          ]),
      atMost('p99 of reads while rotating ÷ idle', busy.p99Ms / idle.p99Ms, 2),
      atMost('memory at 100 % ÷ at 50 %', grown(whole, half), 1.2),
      atMost('table after ÷ before', grown(after.table, before.table), 2),
      atMost('indexes after ÷ before', grown(after.indexes, before.indexes), 3),
    ]),
  );
  say(`\n${seconds(begun)} s`);
}
