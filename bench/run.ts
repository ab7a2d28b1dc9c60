// npm run bench [-- --quick]: the vault next to the floor, on one durable PostgreSQL, in one run. Ratios are what counts; absolute
// figures are this machine's. Ends with 1 only when something answered wrong: time passes no judgement here.
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { migrate } from '../src/db/migrate.ts';
import { startLocalPostgres } from '../src/local/postgres.ts';
import { compare, type Comparison, compareRotations, type Effort, fill, median, requestsOf } from './measures.ts';
import { type Server, startServer } from './processes.ts';
import { figuresTable, type Verdict, verdictTable } from './report.ts';
import { audience, issuer, makeSetting, operator, type Setting, teams } from './setting.ts';

const efforts: Readonly<Record<'full' | 'quick', Effort>> = {
  full:  { rounds: 5, seconds: 2,   warmUpSeconds: 2,   credentials: 2_000, rotated: 5_000, rotations: 5, starts: 5 },
  quick: { rounds: 3, seconds: 0.8, warmUpSeconds: 0.8, credentials: 500,   rotated: 1_000, rotations: 3, starts: 3 },
};

const isQuick = process.argv.includes('--quick');
const effort = efforts[isQuick ? 'quick' : 'full'];
const folder = mkdtempSync(join(tmpdir(), 'vault-bench-'));
const stops: (() => unknown)[] = [() => { rmSync(folder, { recursive: true, force: true }); }];
const say = (text: string): void => { process.stdout.write(`${text}\n`); };
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => { void stopAll().then(() => process.exit(1)); });

try {
  await run();
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
} finally {
  await stopAll();
}

async function run(): Promise<void> {
  const begun = performance.now();
  const postgres = await startLocalPostgres({ folder: join(folder, 'postgres'), isDurable: true });
  stops.push(() => postgres.stop());
  await migrate(postgres.url);
  const setting = await makeSetting(postgres.url);
  say(`Node ${process.versions.node}, PostgreSQL ${await versionOf(postgres.url)} (durable, embedded, unix socket), fastify ${version('fastify')}, @fastify/jwt ${version('@fastify/jwt')}, pg ${version('pg')}, jose ${version('jose')}`);
  say(`${availableParallelism()} cores (${cpus()[0]?.model.trim()}) shared by load, server and database; vault at its default log level, log and floor's output to the null device; no rate limits; HS256`);

  const readyMs: number[] = [];
  for (let i = 0; i < effort.starts; i += 1) {
    const replica = await startVault(setting);
    readyMs.push(replica.readyMs);
    await replica.stop();
  }
  const vault = await startVault(setting);
  stops.push(() => vault.stop());
  const ids = await fill(vault, setting, effort);
  const floor = await startServer(['bench/floor.ts'], {
    DATABASE_URL: setting.databaseUrl, FLOOR_JWT_SECRET: setting.jwtSecret, FLOOR_RECIPIENT: JSON.stringify(setting.recipient),
  }, '/readyz');
  stops.push(() => floor.stop());
  say(`${effort.credentials} credentials in one team; ${effort.rounds} rounds of ${effort.seconds} s for each side, in turn; 16 connections where nothing else is said\n`);

  const requests = requestsOf(setting);
  const against = (name: string, next: () => string, connections: number): Promise<Comparison> =>
    compare(name, { vault: { server: vault, next }, other: { server: floor, next }, connections, effort });
  const read = await against('read', requests.read(ids), 16);
  const create = await against('create', requests.create(teams.write), 16);
  const one = requests.lease(ids, 1);
  const leases = [];
  for (const connections of [1, 4, 16]) leases.push(await against(`lease of 1, c=${connections}`, one, connections));
  const [alone, , crowd] = leases as [Comparison, Comparison, Comparison];
  const twenty = await compare('lease of 20, c=1', { vault: { server: vault, next: requests.lease(ids, 20) }, other: { server: vault, next: one }, connections: 1, effort });
  const list = await against('list of 50', requests.list(50), 16);
  const rotation = await compareRotations({ vault, floor, setting, effort });

  const rise = crowd.vault.perSecond / alone.vault.perSecond;
  const ready = median(readyMs) / 1000;
  say(figuresTable([read, create, ...leases, list].map((comparison) => ({ comparison, other: 'floor' })).concat({ comparison: twenty, other: 'lease of 1' })));
  say(`rotation of ${effort.rotated} rows: vault ${rotation.vault.toFixed(0)} rows/s, bare loop ${rotation.floor.toFixed(0)} rows/s`);
  say(`start of a replica to ready: ${readyMs.map((ms) => `${ms.toFixed(0)} ms`).join(', ')}\n`);

  const atLeast = (what: string, value: number, target: number): Verdict => ({ what, value, unit: ' ×', target: `≥ ${target} ×`, isMet: value >= target });
  const atMost = (what: string, value: number, target: number, unit: string): Verdict => ({ what, value, unit, target: `≤ ${target}${unit}`, isMet: value <= target });
  say(verdictTable([
    atLeast('read ÷ floor', read.ratio, 0.75),
    atLeast('create ÷ floor', create.ratio, 0.6),
    ...leases.map((lease) => atLeast(`${lease.name} ÷ floor`, lease.ratio, 0.6)),
    { ...atLeast('leases/s with 16 connections ÷ with 1', rise, 1), target: '> 1 ×', isMet: rise > 1 },
    atMost('time of a lease of 20 ÷ of 1', 1 / twenty.ratio, 2, ' ×'),
    { what: 'list of 50 ÷ floor', value: list.ratio, unit: ' ×', target: '', isMet: true },
    atLeast('rotation ÷ bare loop', rotation.ratio, 0.8),
    atMost('start of a replica to ready', ready, 1.5, ' s'),
  ]));
  say(`\n${((performance.now() - begun) / 1000).toFixed(0)} s`);
}

function startVault(setting: Setting): Promise<Server> {
  return startServer(['--disable-sigusr1', 'src/main.ts', 'serve'], {
    DATABASE_URL: setting.databaseUrl, CREDVAULT_ROOT_KEYS: setting.rootKeys, CREDVAULT_JWT_ISSUER: issuer, CREDVAULT_JWT_AUDIENCE: audience,
    CREDVAULT_JWT_SECRET: setting.jwtSecret, CREDVAULT_OPERATORS: operator, CREDVAULT_RATE_LIMIT_ADDRESS: '0', CREDVAULT_RATE_LIMIT_SUBJECT: '0',
  }, '/readyz');
}

async function versionOf(url: string): Promise<string> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<{ server_version: string }>('show server_version')).rows[0]!.server_version;
  } finally {
    await client.end();
  }
}

function version(name: string): string {
  return (JSON.parse(readFileSync(join(import.meta.dirname, '../node_modules', name, 'package.json'), 'utf8')) as { version: string }).version;
}

async function stopAll(): Promise<void> {
  for (const stop of stops.splice(0).reverse()) await stop();
}
