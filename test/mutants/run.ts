// npm run test:mutants: takes guards out one at a time, in a copy of the tree, and runs the tests
// that reach them. A guard without which every test stays green is held by none: the run fails,
// unless the code says that it is a second line.
import { globSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { type CoverageMap, digestOf, readMap, record, runs, writeMap } from './coverage.ts';
import { findGuards, type Guard } from './guards.ts';
import { changedLines, inOrder, reportOf, type Verdict } from './judging.ts';
import { openWorkspace, type TestRun, type Workspace } from './workspace.ts';

const usage = `npm run test:mutants -- [--since COMMIT] [--only PATH[:LINE]]... [--tests GLOB]... [--minutes N] [--record]
  --since    only guards in lines that changed since the commit
  --only     a file or folder of src, or one line of a file; by default the folders that guard
  --tests    the test files to run; by default all of unit, property, integration and contract/access
  --minutes  stop after so many minutes, and say what was not reached; by default 60
  --record   record anew which test runs what, and do not trust the map of an earlier run`;

const root = join(import.meta.dirname, '../..');
const mapFile = join(root, 'node_modules/.cache/mutants/coverage.json');
/** Where rights, secrets and their keys are decided on. */
const guardedFolders = [
  'src/access',
  'src/http',
  'src/crypto',
  'src/keys',
  'src/leases',
  'src/sharing',
  'src/audit',
  'src/audit-events',
  'src/teams',
  'src/oauth',
  'src/egress',
  'src/broker',
];
const relatedTests = [
  'test/unit/*.test.ts',
  'test/property/*.test.ts',
  'test/integration/*.test.ts',
  'test/contract/access.test.ts',
];
const workers = 2;
/** What the tests of one guard may take before the next guard has its turn; the rest comes last. */
const firstLookMs = 40_000;
/** What a test may take beyond four times what it took. */
let slowness = 1;
const patienceMs = Number(process.env['MUTANT_TIMEOUT_MS'] ?? 30_000);

const { values: options } = parseArgs({
  options: {
    since: { type: 'string' },
    only: { type: 'string', multiple: true },
    tests: { type: 'string', multiple: true },
    minutes: { type: 'string', default: '60' },
    record: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});
if (options.help) console.log(usage);
else process.exitCode = await main();

interface Task {
  readonly guard: Guard;
  /** What is still to be run. */
  tests: string[];
  readonly of: number;
}

async function main(): Promise<number> {
  const deadline = performance.now() + Number(options.minutes) * 60_000;
  const guards = chosenGuards();
  if (guards.length === 0) {
    console.log('no guard was chosen');
    return 0;
  }
  const workspaces: Workspace[] = [];
  const close = async (): Promise<void> => {
    for (const workspace of workspaces.splice(0)) await workspace.close();
  };
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => void close().finally(() => process.exit(130)));
  try {
    for (let i = 0; i < Math.min(workers, guards.length); i += 1)
      workspaces.push(await openWorkspace(root));
    const map = await recorded(workspaces);
    const verdicts = await judge(workspaces, guards, map, deadline);
    const { text, isGood } = reportOf(verdicts, guards);
    console.log(text);
    return isGood ? 0 : 1;
  } finally {
    await close();
  }
}

function chosenGuards(): Guard[] {
  const only = options.only ?? guardedFolders;
  const since = options.since === undefined ? undefined : changedLines(root, options.since);
  const guards = only.flatMap((each) => {
    const [path = '', line] = each.split(':');
    const found = path.endsWith('.ts') ? [path] : globSync(`${path}/**/*.ts`, { cwd: root }).sort();
    return found
      .flatMap((file) => findGuards(file, readFileSync(join(root, file), 'utf8')))
      .filter((guard) => line === undefined || guard.line === Number(line));
  });
  return guards.filter(
    ({ path, line }) => since === undefined || since.get(path)?.has(line) === true,
  );
}

/** The map, with what is missing in it. Tests that are red as they are count for nothing. */
async function recorded(workspaces: readonly Workspace[]): Promise<CoverageMap> {
  const files = (options.tests ?? relatedTests).flatMap((glob) => globSync(glob, { cwd: root }));
  const map = options.record ? {} : readMap(mapFile);
  const missing = files.filter(
    (file) => map[file]?.outcome !== 'green' || map[file].digest !== digestOf(join(root, file)),
  );
  if (missing.length > 0) console.error(`recording what ${missing.length} test files run`);
  await inTurns(workspaces, missing, async (workspace, file) => {
    map[file] = await record(workspace, file);
    writeMap(mapFile, map);
    console.error(`${map[file].outcome} ${file}`);
  });
  const chosen = Object.fromEntries(files.map((file) => [file, map[file]!]));
  for (const [file, { outcome }] of Object.entries(chosen))
    if (outcome !== 'green') {
      console.error(`${file} is ${outcome} without any mutant, and left aside`);
      delete chosen[file];
      delete map[file];
    }
  writeMap(mapFile, map);
  return chosen;
}

async function judge(
  workspaces: readonly Workspace[],
  guards: readonly Guard[],
  map: CoverageMap,
  deadline: number,
): Promise<Verdict[]> {
  const verdicts: Verdict[] = [];
  const killers = new Map<string, Map<string, number>>();
  const digests = new Map(guards.map(({ path }) => [path, digestOf(join(root, path))]));
  const tasks: Task[] = guards.map((guard) => {
    const tests = Object.keys(map).filter((file) =>
      runs(map[file]!, guard.path, digests.get(guard.path)!, guard.at),
    );
    return { guard, tests, of: tests.length };
  });
  const later: Task[] = [];
  const settle = (verdict: Verdict): void => {
    verdicts.push(verdict);
    const { guard, outcome, by } = verdict;
    console.error(
      `${verdicts.length}/${guards.length} ${outcome} ${guard.path}:${guard.line} ${guard.kind}${by === undefined ? '' : ` (${by})`}`,
    );
  };
  const look = async (workspace: Workspace, task: Task, budgetMs: number): Promise<void> => {
    if (performance.now() > deadline) return;
    const { guard, of } = task;
    const known = killers.get(guard.path) ?? new Map(killers.get(dirname(guard.path)));
    killers.set(guard.path, known);
    const file = join(workspace.folder, guard.path);
    const text = readFileSync(file, 'utf8');
    const mutated = text.slice(0, guard.start) + guard.replacement + text.slice(guard.end);
    writeFileSync(file, mutated);
    try {
      let spentMs = 0;
      const order = inOrder(task.tests, guard, text.slice(guard.start, guard.end), map, known);
      for (const test of order) {
        if (spentMs > budgetMs) {
          later.push(task);
          console.error(`later: ${guard.path}:${guard.line} ${guard.kind}`);
          return;
        }
        task.tests = task.tests.filter((other) => other !== test);
        spentMs += map[test]!.ms;
        const run = await patiently(workspace, test, map[test]!.ms, {
          mutate: () => writeFileSync(file, mutated),
          restore: () => writeFileSync(file, text),
        });
        if (run.outcome === 'green') continue;
        known.set(test, (known.get(test) ?? 0) + 1);
        const near = killers.get(dirname(guard.path)) ?? new Map<string, number>();
        killers.set(dirname(guard.path), near.set(test, (near.get(test) ?? 0) + 0.25));
        const outcome = run.outcome === 'timeout' ? 'timed out' : 'killed';
        settle({ guard, outcome, by: test, failure: run.failure, tests: of });
        return;
      }
      settle({ guard, outcome: 'survived', by: undefined, failure: undefined, tests: of });
    } finally {
      writeFileSync(file, text);
    }
  };
  await inTurns(workspaces, tasks, (workspace, task) => look(workspace, task, firstLookMs));
  await inTurns(workspaces, later.splice(0), (workspace, task) => look(workspace, task, Infinity));
  return verdicts;
}

/**
 * One test of one mutant. A test that is late counts as late only when it is not so without the
 * mutant at the same time: else the machine is busy, and everything gets twice as long from then on.
 */
async function patiently(
  workspace: Workspace,
  test: string,
  usualMs: number,
  { mutate, restore }: { mutate: () => void; restore: () => void },
): Promise<TestRun> {
  for (;;) {
    const timeoutMs = (usualMs * 4 + patienceMs) * slowness;
    const run = await workspace.test(test, { timeoutMs });
    if (run.outcome !== 'timeout') return run;
    restore();
    const control = await workspace.test(test, { timeoutMs });
    mutate();
    if (control.outcome === 'green') return run;
    slowness *= 2;
    console.error(`the machine is busy: tests get ${slowness} times as long`);
  }
}

async function inTurns<T>(
  workspaces: readonly Workspace[],
  items: readonly T[],
  act: (workspace: Workspace, item: T) => Promise<void>,
): Promise<void> {
  const queue = [...items];
  await Promise.all(
    workspaces.map(async (workspace) => {
      for (let item = queue.shift(); item !== undefined; item = queue.shift())
        await act(workspace, item);
    }),
  );
}
