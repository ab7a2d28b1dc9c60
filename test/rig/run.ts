// npm run test:rig -- --minutes N --seed S: a healthy setting, a workload on it, a nemesis in it;
// then everything is healed, and the checker says what does not hold. Prints the seed first and one
// line of JSON last; exit status 1 where an invariant broke.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { check, type Violation } from './check/check.ts';
import { find, findCredentials } from './check/find.ts';
import { readHistory } from './check/history.ts';
import { Client } from './client.ts';
import { Journal, type NemesisLine } from './journal.ts';
import { databaseActs } from './nemesis/database-acts.ts';
import { heal, playDeck } from './nemesis/play.ts';
import { replicaActs } from './nemesis/replica-acts.ts';
import type { Act } from './nemesis/scene.ts';
import { Random } from './random.ts';
import type { LogLine } from './replica.ts';
import { makeSetting, missingParts, type Station } from './setting.ts';
import { doneIn, summaryOf, timelineOf } from './report.ts';
import { allWork, runLanes } from './workload/lanes.ts';
import type { Stage } from './workload/types.ts';
import { makeTeams } from './workload/stage.ts';
import { sweep } from './workload/sweep.ts';

const { values: options } = parseArgs({
  options: {
    minutes: { type: 'string', default: '2' },
    seed: { type: 'string' },
    out: { type: 'string' },
    /** Acts that are drawn, with commas between; all of them otherwise. */
    acts: { type: 'string' },
    /** Lanes that stay away, by the beginnings of their names. */
    without: { type: 'string', default: '' },
  },
});
const minutes = Number(options.minutes);
const seed = Number(options.seed ?? Math.floor(Math.random() * 1e9));
if (!(minutes > 0) || !Number.isSafeInteger(seed)) {
  console.error(
    'npm run test:rig -- [--minutes N] [--seed S] [--out FOLDER] [--acts A,B] [--without L,M]',
  );
  process.exit(2);
}
const missing = missingParts();
if (missing.length > 0) {
  console.error(`the rig needs Debian's ${missing.join(', ')}`);
  process.exit(2);
}
/** What a lane waits between two things, on average. */
const paceMs = 150;
const elapsed = (since: number): number => Math.round((performance.now() - since) / 1000);
// A socket that was reset at the wrong moment keeps the process alive; nothing of it is needed.
process.exit(await run());

async function run(): Promise<number> {
  const out = options.out ?? join('/tmp', `vault-rig-${seed}`);
  mkdirSync(out, { recursive: true });
  const journalFile = join(out, 'journal.jsonl');
  writeFileSync(journalFile, '');
  console.log(`seed ${seed}, ${minutes} minutes; journal in ${out}`);
  const begun = performance.now();
  const journal = new Journal(journalFile);
  const random = new Random(seed);
  const logs = new Map<string, string[]>();
  let stations: readonly Station[] = [];
  const setting = await makeSetting({
    onLog: (replica, line) => watchLog(journal, replica, line, logs),
    onExit: (replica, ended) => {
      journal.write({ kind: 'process', replica, event: 'ended', ...ended });
      // As an orchestrator does it.
      const station = stations.find((each) => each.replica.name === replica);
      if (!ended.isExpected) void station?.replica.start().catch(() => undefined);
    },
  });
  stations = setting.stations;
  let interrupted = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      interrupted = true;
    });
  try {
    const client = new Client({
      stations: setting.stations,
      secret: setting.secret,
      journal,
      random: random.fork('client'),
    });
    const { teams, engines } = await makeTeams(client, 3);
    client.watch();
    console.log(`ready after ${elapsed(begun)} s`);
    const end = performance.now() + minutes * 60_000;
    let isHealed = false;
    const isOver = (): boolean => interrupted || performance.now() > end;
    const stage: Stage = {
      client,
      journal,
      peers: setting.peers,
      teams,
      engines,
      seed,
      isLong: minutes >= 4,
      without: options.without.split(',').filter((name) => name !== ''),
      isOver,
      isHealed: () => isHealed,
    };
    const lanes = runLanes(stage, random.fork('lanes'), paceMs);
    const play = (deck: NemesisLine['deck'], acts: Readonly<Record<string, Act>>) =>
      playDeck({ deck, acts: chosen(acts), setting, journal, random: random.fork(deck), isOver });
    const decks = Promise.all([play('database', databaseActs), play('replicas', replicaActs)]);
    const [databasePlayed = 0, replicasPlayed = 0] = await Promise.race([
      decks,
      lanes.then(() => decks),
    ]);
    await heal(setting);
    isHealed = true;
    console.log(`healed after ${elapsed(begun)} s; ${databasePlayed + replicasPlayed} acts`);
    await lanes;
    await sweep(stage, random.fork('sweep'), await findCredentials(setting));
    await client.settle();
    await delay(2_000); // what is written within a second is written
    for (const { replica } of setting.stations) await replica.stop();
    const { byThing } = readHistory(journal.lines);
    const found = await find(setting, [...byThing.keys()]);
    const violations = check(journal.lines, found);
    // What never came to a good end was not tried: a shorter run has not the time for everything.
    const never = Object.keys(allWork).filter((name) => !doneIn(journal).has(name));
    if (minutes >= 4) violations.push(...never.map((detail) => ({ rule: 'neverDone', detail })));
    report(out, violations, journal);
    const summary = summaryOf({ seed, minutes, journal, violations, found });
    console.log(JSON.stringify(summary));
    await client.close();
    return violations.length === 0 ? 0 : 1;
  } finally {
    await setting.stop();
  }
}

function chosen<T>(acts: Readonly<Record<string, T>>): Readonly<Record<string, T>> {
  const wanted = options.acts?.split(',');
  if (wanted === undefined) return acts;
  return Object.fromEntries(Object.entries(acts).filter(([name]) => wanted.includes(name)));
}

/** What a replica logs that it must not log, whatever is broken around it. */
function watchLog(
  journal: Journal,
  replica: string,
  line: LogLine,
  logs: Map<string, string[]>,
): void {
  const kept = logs.get(replica) ?? [];
  kept.push(typeof line === 'string' ? line : JSON.stringify(line));
  if (kept.length > 200) kept.shift();
  logs.set(replica, kept);
  if (typeof line === 'string') {
    // A start that is refused says so in plain words; whether it may be is asked when it ends.
    if (line.trim() !== '' && !/^(?:credential-vault serve: | {4}at )/.test(line))
      journal.fault('unformattedLog', `${replica}: ${line.slice(0, 300)}`);
    return;
  }
  if (line['code'] === 'internal')
    journal.fault('failedInside', `${replica}: ${JSON.stringify(line['causes'])}`);
}

function report(out: string, violations: readonly Violation[], journal: Journal): void {
  writeFileSync(join(out, 'violations.json'), `${JSON.stringify(violations, null, 2)}\n`);
  if (violations.length === 0) return;
  console.log('\nwhat was done:');
  for (const line of timelineOf(journal)) console.log(`  ${line}`);
  console.log('\nwhat does not hold:');
  const byRule = Map.groupBy(violations, ({ rule }) => rule);
  for (const [rule, found] of byRule) {
    console.log(`  ${rule}: ${found.length}`);
    for (const { detail, n } of found.slice(0, 5))
      console.log(`    ${n === undefined ? '' : `[${n}] `}${detail.slice(0, 600)}`);
  }
  console.log(`\nseed ${seed}: npm run test:rig -- --minutes ${minutes} --seed ${seed}`);
}
