// npm run bench:lists [-- --teams 1000 --per-team 1000 --data FOLDER --fill]: lists of 50 out of many teams next to the same out of ten,
// on one PostgreSQL, in turn: the slowest of a hundred of each, and the plans of all of it. `--data` keeps the databases and takes them
// up again, `--fill` ends when they are made. Ends with 1 when something answered wrong or a plan reads a table from end to end.
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { migrate } from '../src/db/migrate.ts';
import { startLocalPostgres } from '../src/local/postgres.ts';
import { cases } from './lists-cases.ts';
import { fillTeams, memberOfTen, slugOf } from './lists-filling.ts';
import { plansOf } from './lists-plans.ts';
import { requestText, runLoad } from './load.ts';
import { type Server, startVault } from './processes.ts';
import { table, type Verdict, verdictTable } from './report.ts';
import { makeSetting, type Setting, tokenOf } from './setting.ts';

const { values: options } = parseArgs({ options: {
  teams: { type: 'string', default: '1000' }, 'per-team': { type: 'string', default: '1000' }, data: { type: 'string' }, fill: { type: 'boolean', default: false },
  rounds: { type: 'string', default: '4' }, requests: { type: 'string', default: '100' }, only: { type: 'string' },
} });
const [teams, perTeam, rounds, requests] = [options.teams, options['per-team'], options.rounds, options.requests].map(Number) as [number, number, number, number];
const ratioMax = 1.3;
const tenth = (share: number): number => Math.min(teams, Math.max(1, share));
const sizes = { small: tenth(10), large: teams } as const;
type Size = keyof typeof sizes;
const folder = options.data ?? mkdtempSync(join(tmpdir(), 'vault-bench-'));
const stops: (() => unknown)[] = options.data === undefined ? [() => { rmSync(folder, { recursive: true, force: true }); }] : [];
const say = (text: string): void => { process.stdout.write(`${text}\n`); };
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => { void stopAll().then(() => process.exit(1)); });

interface Side { readonly vault: Server; readonly setting: Setting; readonly teams: number }

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
  mkdirSync(folder, { recursive: true });
  const postgres = await startLocalPostgres({ folder: join(folder, 'postgres'), isDurable: true });
  stops.push(() => postgres.stop());
  const sides = { small: await startSide(postgres.url, 'small'), large: await startSide(postgres.url, 'large') };
  say(`${sizes.small} and ${sizes.large} teams with ${perTeam} credentials each; ready after ${seconds(begun)} s; ${cpus().length} cores (${cpus()[0]?.model.trim()}), load average ${loadavg().map((load) => load.toFixed(1)).join(' ')}`);
  if (options.fill) return;
  const chosen = cases.filter(([name]) => options.only === undefined || name.includes(options.only));
  const { lines, scans } = await plansOf(sides.large.setting, chosen);

  const verdicts: Verdict[] = [];
  const rows: string[][] = [['p50 and p99, ms', 'small', '', 'large', '', 'p99 ratio', 'p50 ratio']];
  for (const [scope, as] of [['one team', 'person'], ['ten teams', memberOfTen]] as const) {
    for (const [name, query] of chosen) {
      const figures = await compareSides(sides, scope === 'one team', as, query);
      const { small, large } = figures;
      const ratio = large.p99 / small.p99;
      rows.push([`${scope}: ${name}`, small.p50.toFixed(2), small.p99.toFixed(2), large.p50.toFixed(2), large.p99.toFixed(2), ratio.toFixed(2), (large.p50 / small.p50).toFixed(2)]);
      verdicts.push({ what: `${scope}: ${name}`, value: ratio, unit: ' ×', target: `≤ ${ratioMax} ×`, isMet: ratio <= ratioMax });
    }
  }
  say(`\n${table(rows)}`);
  const all: string[][] = [[`in all ${teams} teams, ms`, 'p50', 'slowest of 5']];
  for (const [name, query] of chosen) {
    const latencies = await timesOf(sides.large, 'person', () => `/v1/credentials?${query}`, 5);
    all.push([name, at(latencies, 0.5).toFixed(1), at(latencies, 1).toFixed(1)]);
  }
  say(`\n${table(all)}\n\nindexes of the large database that the statements of each list read\n${table(lines)}\n`);
  for (const scan of scans) say(`reads a table from end to end: ${scan}`);
  if (scans.length > 0) process.exitCode = 1;
  const missed = verdicts.filter(({ isMet }) => !isMet);
  say(missed.length === 0 ? `all ${verdicts.length} ratios of p99 are ≤ ${ratioMax}` : verdictTable(missed));
  say(`${verdicts.length - missed.length} of ${verdicts.length} ratios met; ${seconds(begun)} s`);
}

/** A database of its own for each size, filled once. */
async function startSide(server: string, size: Size): Promise<Side> {
  const kept = join(folder, `${size}.json`);
  const url = server.replace(/^([^:]+:\/\/[^/]+)\/[^?]*/, `$1/lists_${size}`);
  const isNew = !existsSync(kept);
  if (isNew) {
    await command(server, `drop database if exists lists_${size} with (force)`);
    await command(server, `create database lists_${size}`);
  }
  await migrate(url);
  const setting = isNew ? await makeSetting(url) : { ...JSON.parse(readFileSync(kept, 'utf8')) as Setting, databaseUrl: url };
  const fresh = { ...setting, tokens: { person: await tokenOf(setting, 'alice'), engine: '', operator: await tokenOf(setting, 'operator') } };
  const vault = await startVault(fresh);
  stops.push(() => vault.stop());
  if (isNew) {
    await fillTeams(vault, fresh, { teams: sizes[size], perTeam });
    if (options.data !== undefined) writeFileSync(kept, JSON.stringify(setting), { mode: 0o600 });
  }
  return { vault, setting: fresh, teams: sizes[size] };
}

/** The same requests to both in turn; who is first changes from round to round. */
async function compareSides(sides: Record<Size, Side>, isOfTeam: boolean, as: string, query: string): Promise<Record<Size, { p50: number; p99: number }>> {
  const latencies: Record<Size, number[]> = { small: [], large: [] };
  let serial = 0;
  const ask = async (size: Size, count: number): Promise<number[]> => {
    const side = sides[size];
    // Teams in a stride that meets each: none is asked twice before all were.
    const path = (): string => (isOfTeam ? `/v1/teams/${slugOf(serial++ * 389 % side.teams)}/credentials?${query}` : `/v1/credentials?${query}`);
    return timesOf(side, as, path, count);
  };
  for (const size of ['small', 'large'] as const) await ask(size, 20);
  for (let round = 0; round < rounds; round += 1) {
    for (const size of round % 2 === 0 ? ['small', 'large'] as const : ['large', 'small'] as const) latencies[size].push(...await ask(size, requests));
  }
  const of = (size: Size): { p50: number; p99: number } => ({ p50: at(latencies[size], 0.5), p99: at(latencies[size], 0.99) });
  return { small: of('small'), large: of('large') };
}

async function timesOf({ vault, setting }: Side, as: string, path: () => string, count: number): Promise<number[]> {
  const token = await tokenOf(setting, as === 'person' ? 'alice' : as);
  const { latencies } = await runLoad({ port: vault.port, connections: 1, until: { requests: count }, next: () => requestText('GET', path(), token) });
  return [...latencies];
}

function at(latencies: readonly number[], share: number): number {
  const sorted = latencies.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

async function command(url: string, text: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(text);
  } finally {
    await client.end();
  }
}

function seconds(since: number): string { return ((performance.now() - since) / 1000).toFixed(0); }

async function stopAll(): Promise<void> {
  for (const stop of stops.splice(0).reverse()) await stop();
}
