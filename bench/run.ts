// npm run bench [-- --quick] [-- --only read,create,lease,list,broker,rotation,start]: the vault
// next to the floor, on one durable PostgreSQL, in one run. Ratios are what counts; absolute
// figures are this machine's. Ends with 1 only when something answered wrong: time passes no
// judgement here.
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { migrate } from '../src/db/migrate.ts';
import { startLocalPostgres } from '../src/dev/postgres.ts';
import { measureBroker, startUpstream } from './broker.ts';
import { type Frame, runFramed, seconds } from './main.ts';
import {
  compare,
  type Comparison,
  compareRotations,
  type Effort,
  fill,
  median,
  requestsOf,
} from './measures.ts';
import { startServer, startVault } from './processes.ts';
import { figuresTable, type Verdict, verdictTable } from './report.ts';
import { laterMs, makeSetting, teams } from './setting.ts';

const efforts: Readonly<Record<'full' | 'quick', Effort>> = {
  full: {
    rounds: 5,
    seconds: 2,
    warmUpSeconds: 2,
    credentials: 2_000,
    rotated: 5_000,
    rotations: 5,
    starts: 5,
  },
  quick: {
    rounds: 3,
    seconds: 0.8,
    warmUpSeconds: 0.8,
    credentials: 500,
    rotated: 1_000,
    rotations: 3,
    starts: 3,
  },
};

const parts = ['read', 'create', 'lease', 'list', 'broker', 'rotation', 'start'] as const;
type Part = (typeof parts)[number];

const { values: options } = parseArgs({
  options: { quick: { type: 'boolean', default: false }, only: { type: 'string' } },
});
const chosen = new Set<string>(options.only?.split(',') ?? parts);
for (const part of chosen)
  if (!parts.includes(part as Part)) throw new Error(`--only takes ${parts.join(', ')}`);
const has = (part: Part): boolean => chosen.has(part);
const effort = efforts[options.quick ? 'quick' : 'full'];

await runFramed(run);

async function run({ folder, stops, say }: Frame): Promise<void> {
  const begun = performance.now();
  const postgres = await startLocalPostgres({ folder: join(folder, 'postgres'), isDurable: true });
  stops.push(() => postgres.stop());
  await migrate(postgres.url);
  const setting = await makeSetting(postgres.url);
  say(
    `Node ${process.versions.node}, PostgreSQL ${await versionOf(postgres.url)} (durable, embedded, unix socket), fastify ${version('fastify')}, @fastify/jwt ${version('@fastify/jwt')}, pg ${version('pg')}, jose ${version('jose')}`,
  );
  say(
    `${availableParallelism()} cores (${cpus()[0]?.model.trim()}) shared by load, server and database; vault at its default log level, log and floor's output to the null device; no rate limits; HS256`,
  );

  const readyMs: number[] = [];
  for (let i = 0; has('start') && i < effort.starts; i += 1) {
    const replica = await startVault(setting);
    readyMs.push(replica.readyMs);
    await replica.stop();
  }
  const stage = has('broker') ? await startUpstream() : undefined;
  if (stage !== undefined) stops.push(() => stage.stop());
  const vault = await startVault(setting, stage?.environment);
  stops.push(() => vault.stop());
  const ids = await fill(vault, setting, has('rotation') ? effort : { ...effort, rotated: 0 });
  const floor = await startServer(
    ['bench/floor.ts'],
    {
      DATABASE_URL: setting.databaseUrl,
      FLOOR_JWT_SECRET: setting.jwtSecret,
      FLOOR_RECIPIENT: JSON.stringify(setting.recipient),
    },
    '/readyz',
  );
  stops.push(() => floor.stop());
  say(
    `${effort.credentials} credentials in one team; ${effort.rounds} rounds of ${effort.seconds} s for each side, in turn; 16 connections where nothing else is said`,
  );
  say(
    `load average ${loadavg()
      .map((load) => load.toFixed(1))
      .join(' ')} before the first round\n`,
  );

  const requests = requestsOf(setting);
  const figures: Parameters<typeof figuresTable>[0][number][] = [];
  const verdicts: Verdict[] = [];
  const lines: string[] = [];
  const atLeast = (what: string, value: number, target: number): void => {
    verdicts.push({ what, value, unit: ' ×', target: `≥ ${target} ×`, isMet: value >= target });
  };
  const atMost = (what: string, value: number, target: number, unit: string): void => {
    verdicts.push({ what, value, unit, target: `≤ ${target}${unit}`, isMet: value <= target });
  };
  const against = async (
    name: string,
    next: () => string,
    connections: number,
  ): Promise<Comparison> => {
    const comparison = await compare(name, {
      vault: { server: vault, next },
      other: { server: floor, next },
      connections,
      effort,
    });
    figures.push({ comparison, other: 'floor' });
    return comparison;
  };

  if (has('read'))
    atLeast('read ÷ floor', (await against('read', requests.read(ids), 16)).ratio, 0.75);
  if (has('create'))
    atLeast(
      'create ÷ floor',
      (await against('create', requests.create(teams.write), 16)).ratio,
      0.6,
    );
  if (has('lease')) {
    const one = requests.lease(ids, 1);
    const leases = [];
    for (const connections of [1, 4, 16])
      leases.push(await against(`lease of 1, c=${connections}`, one, connections));
    for (const lease of leases) atLeast(`${lease.name} ÷ floor`, lease.ratio, 0.6);
    const [alone, , crowd] = leases as [Comparison, Comparison, Comparison];
    const rise = crowd.vault.perSecond / alone.vault.perSecond;
    verdicts.push({
      what: 'leases/s with 16 connections ÷ with 1',
      value: rise,
      unit: ' ×',
      target: '> 1 ×',
      isMet: rise > 1,
    });
    const twenty = await compare('lease of 20, c=1', {
      vault: { server: vault, next: requests.lease(ids, 20) },
      other: { server: vault, next: one },
      connections: 1,
      effort,
    });
    figures.push({ comparison: twenty, other: 'lease of 1' });
    atMost('time of a lease of 20 ÷ of 1', 1 / twenty.ratio, 2, ' ×');
  }
  if (has('list'))
    verdicts.push({
      what: 'list of 50 ÷ floor',
      value: (await against('list of 50', requests.list(50), 16)).ratio,
      unit: ' ×',
      target: '',
      isMet: true,
    });
  if (stage !== undefined) {
    const { thinking, atOnce, firstMs } = await measureBroker({ vault, stage, setting, effort });
    for (const comparison of [...thinking, ...atOnce]) {
      figures.push({ comparison, other: 'bare proxy' });
      atMost(`${comparison.name}: p50 ÷ bare proxy`, comparison.p50Ratio, 1.3, ' ×');
    }
    lines.push(
      `first event of a stream that ends ${laterMs} ms later: broker ${firstMs.vault.toFixed(2)} ms, bare proxy ${firstMs.floor.toFixed(2)} ms`,
    );
    atMost('first event of a stream ÷ bare proxy', firstMs.ratio, 1.3, ' ×');
  }
  if (has('rotation')) {
    const rotation = await compareRotations({ vault, floor, setting, effort });
    lines.push(
      `rotation of ${effort.rotated} rows: vault ${rotation.vault.toFixed(0)} rows/s, bare loop ${rotation.floor.toFixed(0)} rows/s`,
    );
    atLeast('rotation ÷ bare loop', rotation.ratio, 0.8);
  }
  if (has('start')) {
    lines.push(
      `start of a replica to ready: ${readyMs.map((ms) => `${ms.toFixed(0)} ms`).join(', ')}`,
    );
    atMost('start of a replica to ready', median(readyMs) / 1000, 1.5, ' s');
  }

  if (figures.length > 0) say(figuresTable(figures));
  for (const line of lines) say(line);
  say(`\n${verdictTable(verdicts)}`);
  say(`\n${seconds(begun)} s`);
}

async function versionOf(url: string): Promise<string> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<{ server_version: string }>('show server_version')).rows[0]!
      .server_version;
  } finally {
    await client.end();
  }
}

function version(name: string): string {
  return (
    JSON.parse(
      readFileSync(join(import.meta.dirname, '../node_modules', name, 'package.json'), 'utf8'),
    ) as { version: string }
  ).version;
}
