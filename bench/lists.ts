// npm run bench:lists [-- --teams 1000 --per-team 1000 --buffers 4GB --data FOLDER --fill]: lists
// of 50 out of many teams next to the same out of ten, on one PostgreSQL that has read both
// databases into its memory, one request here and one there; and the plans of all of it. `--data`
// keeps the databases and takes them up again, `--fill` ends when they are made, `--scope` and
// `--only` choose. Ends with 1 when something answered wrong or a plan reads a table from end to
// end: time passes no judgement here.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { migrate } from '../src/db/migrate.ts';
import { startLocalPostgres } from '../src/dev/postgres.ts';
import { cases } from './lists-cases.ts';
import { fillTeams, memberOf, slugOf } from './lists-filling.ts';
import { plansOf } from './lists-plans.ts';
import { type Connection, open, quantiles, requestText, runLoad } from './load.ts';
import { type Frame, runFramed, seconds } from './main.ts';
import { type Server, startVault } from './processes.ts';
import { type Verdict, verdictTable } from './report.ts';
import { makeSetting, operator, person, type Setting, tokenOf } from './setting.ts';

const { values: options } = parseArgs({
  options: {
    teams: { type: 'string', default: '1000' },
    'per-team': { type: 'string', default: '1000' },
    data: { type: 'string' },
    fill: { type: 'boolean', default: false },
    requests: { type: 'string', default: '1000' },
    buffers: { type: 'string', default: '4GB' },
    only: { type: 'string' },
    scope: { type: 'string' },
  },
});
const [teams, perTeam, requests] = [options.teams, options['per-team'], options.requests].map(
  Number,
) as [number, number, number];
const warmUp = 50;
const ratioMax = 1.3;
const isChosen = (scope: string): boolean =>
  options.scope === undefined || options.scope.split(',').includes(scope);
const scopes = (['one team', 'ten teams'] as const).filter(isChosen);
const tenth = (share: number): number => Math.min(teams, Math.max(1, share));
const sizes = { small: tenth(10), large: teams } as const;
type Size = keyof typeof sizes;

interface Side {
  readonly vault: Server;
  readonly setting: Setting;
  readonly teams: number;
  readonly tokens: Map<string, string>;
}

await runFramed(run, { keep: options.data });

async function run(frame: Frame): Promise<void> {
  const { folder, stops, say } = frame;
  const begun = performance.now();
  mkdirSync(folder, { recursive: true });
  const postgres = await startLocalPostgres({
    folder: join(folder, 'postgres'),
    isDurable: true,
    sharedBuffers: options.buffers,
  });
  stops.push(() => postgres.stop());
  const sides = {
    small: await startSide(frame, postgres.url, 'small'),
    large: await startSide(frame, postgres.url, 'large'),
  };
  say(
    `${sizes.small} and ${sizes.large} teams with ${perTeam} credentials each; ready after ${seconds(begun)} s; ${cpus().length} cores (${cpus()[0]?.model.trim()}), shared buffers of ${options.buffers}, load average ${loadavg()
      .map((load) => load.toFixed(1))
      .join(' ')}`,
  );
  if (options.fill) return;
  const chosen = cases.filter(
    ([name]) => options.only === undefined || name.includes(options.only),
  );
  const { lines, scans } = await plansOf(sides.large.setting, chosen);

  const verdicts: Verdict[] = [];
  const width = Math.max(...cases.map(([name]) => name.length)) + 11;
  const line = (name: string, ...cells: readonly string[]): void => {
    say([name.padEnd(width), ...cells.map((cell) => cell.padStart(10))].join('  '));
  };
  line('\nms', ' small p50', 'p99', 'large p50', 'p99', 'p99 ratio', 'p50 ratio');
  for (const scope of scopes) {
    for (const [name, query] of chosen) {
      const { small, large } = await compareSides(sides, scope, query);
      const ratio = large.p99Ms / small.p99Ms;
      line(
        `${scope}: ${name}`,
        ...[
          small.p50Ms,
          small.p99Ms,
          large.p50Ms,
          large.p99Ms,
          ratio,
          large.p50Ms / small.p50Ms,
        ].map((value) => value.toFixed(2)),
      );
      verdicts.push({
        what: `${scope}: ${name}`,
        value: ratio,
        unit: ' ×',
        target: `≤ ${ratioMax} ×`,
        isMet: ratio <= ratioMax,
      });
    }
  }
  if (isChosen('all teams')) {
    line(`\nin all ${teams} teams, ms`, ' p50', 'slowest');
    for (const [name, query] of chosen) {
      const request = await requestOf(sides.large, person, `/v1/credentials?${query}`);
      const { p50Ms, p99Ms } = await runLoad({
        port: sides.large.vault.port,
        connections: 1,
        until: { requests: 5 },
        next: () => request,
      });
      line(name, p50Ms.toFixed(1), p99Ms.toFixed(1));
    }
  }
  say(
    `\nindexes of the large database that the statements of each list read\n${lines.map((each) => each.join(': ')).join('\n')}\n`,
  );
  for (const scan of scans) say(`reads a table from end to end: ${scan}`);
  if (scans.length > 0) process.exitCode = 1;
  const missed = verdicts.filter(({ isMet }) => !isMet);
  say(
    missed.length === 0
      ? `all ${verdicts.length} ratios of p99 are ≤ ${ratioMax}`
      : verdictTable(missed),
  );
  say(`${verdicts.length - missed.length} of ${verdicts.length} ratios met; ${seconds(begun)} s`);
}

/** A database of its own for each size, filled once. */
async function startSide({ folder, stops }: Frame, server: string, size: Size): Promise<Side> {
  const kept = join(folder, `${size}.json`);
  const url = server.replace(/^([^:]+:\/\/[^/]+)\/[^?]*/, `$1/lists_${size}`);
  const isNew = !existsSync(kept);
  if (isNew) {
    await command(server, `drop database if exists lists_${size} with (force)`);
    await command(server, `create database lists_${size}`);
  }
  await migrate(url);
  const setting = isNew
    ? await makeSetting(url)
    : { ...(JSON.parse(readFileSync(kept, 'utf8')) as Setting), databaseUrl: url };
  const fresh = {
    ...setting,
    tokens: {
      person: await tokenOf(setting, person),
      engine: '',
      operator: await tokenOf(setting, operator),
    },
  };
  const vault = await startVault(fresh);
  stops.push(() => vault.stop());
  if (isNew) {
    await fillTeams(vault, fresh, { teams: sizes[size], perTeam });
    if (options.data !== undefined) writeFileSync(kept, JSON.stringify(setting), { mode: 0o600 });
  }
  // What is asked first would otherwise pay for the disk.
  await command(
    url,
    "create extension if not exists pg_prewarm; select pg_prewarm(oid) from pg_class where relkind in ('r', 'i') and relnamespace = 'public'::regnamespace; checkpoint",
  );
  return { vault, setting: fresh, teams: sizes[size], tokens: new Map() };
}

/**
 * The same requests to both, one here and one there, who is first changing: what slows the machine
 * down for a while meets both.
 */
async function compareSides(
  sides: Record<Size, Side>,
  scope: (typeof scopes)[number],
  query: string,
): Promise<Record<Size, ReturnType<typeof quantiles>>> {
  const connections = {
    small: await open(sides.small.vault.port),
    large: await open(sides.large.vault.port),
  };
  const latencies: Record<Size, number[]> = { small: [], large: [] };
  try {
    for (let serial = 0; serial < warmUp + requests; serial += 1) {
      for (const size of serial % 2 === 0
        ? (['small', 'large'] as const)
        : (['large', 'small'] as const)) {
        // Teams in a stride that meets each: none is asked twice before all were.
        const team = (serial * 389) % sides[size].teams;
        const ms = await timeOf(
          connections[size],
          scope === 'one team'
            ? await requestOf(sides[size], person, `/v1/teams/${slugOf(team)}/credentials?${query}`)
            : await requestOf(
                sides[size],
                memberOf(team, sides[size].teams),
                `/v1/credentials?${query}`,
              ),
        );
        if (serial >= warmUp) latencies[size].push(ms);
      }
    }
  } finally {
    connections.small.close();
    connections.large.close();
  }
  return { small: quantiles(latencies.small), large: quantiles(latencies.large) };
}

async function requestOf({ setting, tokens }: Side, as: string, path: string): Promise<string> {
  if (!tokens.has(as)) tokens.set(as, await tokenOf(setting, as));
  return requestText('GET', path, tokens.get(as)!);
}

async function timeOf(connection: Connection, request: string): Promise<number> {
  const begun = performance.now();
  await connection.ask(request);
  return performance.now() - begun;
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
