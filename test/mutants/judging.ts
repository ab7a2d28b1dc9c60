// Which tests come first, and what is said in the end.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { basename, dirname } from 'node:path';
import type { CoverageMap } from './coverage.ts';
import type { Guard } from './guards.ts';

export interface Verdict {
  readonly guard: Guard;
  readonly outcome: 'killed' | 'timed out' | 'survived';
  /** The test that saw it, and the first line of its failure. */
  readonly by: string | undefined;
  readonly failure: string | undefined;
  /** How many test files reach the guard. */
  readonly tests: number;
}

/** Tests that try on purpose what guards of a kind hold off. */
const rowMacTests = /tamper|forge|bad-rows|take-over/;
const scopeTests = /team-scope|races|lists|expected/;

/**
 * What has killed others of the file, then what is named like it or tries what the guard holds off,
 * then what is over soon.
 */
export function inOrder(
  tests: readonly string[],
  { path, kind }: Pick<Guard, 'path' | 'kind'>,
  text: string,
  map: CoverageMap,
  killers: ReadonlyMap<string, number>,
): string[] {
  const tries = kind === 'scope' ? scopeTests : /rowMac/i.test(text) ? rowMacTests : undefined;
  const folder = basename(dirname(path)).replace(/s$/, '');
  const file = basename(path, '.ts').replace(/s$/, '');
  const rank = (test: string): number => {
    const name = basename(test);
    const kin = (name.includes(folder) ? 1 : 0) + (name.includes(file) ? 2 : 0);
    const isFit = tries?.test(name) === true;
    const killed = Math.min(4, killers.get(test) ?? 0);
    return (map[test]?.ms ?? 0) / 1000 - 4 * kin - (isFit ? 12 : 0) - 8 * killed;
  };
  return [...tests].sort((a, b) => rank(a) - rank(b));
}

/** The lines of each file that differ from a commit's. */
export function changedLines(root: string, commit: string): Map<string, Set<number>> {
  const { stdout, status } = spawnSync('git', ['diff', '-U0', '--no-color', commit, '--', 'src'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
  });
  if (status !== 0) throw new Error(`git knows no commit ${commit}`);
  const changed = new Map<string, Set<number>>();
  let lines = new Set<number>();
  for (const line of stdout.split('\n')) {
    const file = /^\+\+\+ b\/(.*)$/.exec(line)?.[1];
    if (file !== undefined) changed.set(file, (lines = new Set()));
    const [, start, count = '1'] = /^@@ -\S+ \+(\d+)(?:,(\d+))? @@/.exec(line) ?? [];
    for (let i = 0; start !== undefined && i < Number(count); i += 1) lines.add(Number(start) + i);
  }
  return changed;
}

const columns = ['killed', 'timed out', 'survived', 'second line', 'not reached'] as const;

/** Counts by folder and what has to be done; good when nothing has. */
export function reportOf(
  verdicts: readonly Verdict[],
  guards: readonly Guard[],
  read: (path: string) => string = (path) => readFileSync(path, 'utf8'),
): { text: string; isGood: boolean } {
  const counts = new Map<string, Record<(typeof columns)[number], number>>();
  const judged = new Map(verdicts.map((verdict) => [verdict.guard, verdict]));
  for (const guard of guards) {
    const folder = dirname(guard.path);
    const row = counts.get(folder) ?? {
      killed: 0,
      'timed out': 0,
      survived: 0,
      'second line': 0,
      'not reached': 0,
    };
    counts.set(folder, row);
    const outcome = judged.get(guard)?.outcome ?? 'not reached';
    row[outcome === 'survived' && guard.secondLine !== undefined ? 'second line' : outcome] += 1;
  }
  const survivors = verdicts.filter(
    ({ outcome, guard }) => outcome === 'survived' && guard.secondLine === undefined,
  );
  // A declaration is for a line: it is wrong when no guard of the line survives.
  const lineOf = ({ path, line }: Guard): string => `${path}:${line}`;
  const standing = new Set(
    verdicts.filter(({ outcome }) => outcome === 'survived').map(({ guard }) => lineOf(guard)),
  );
  const wrong = verdicts.filter(
    ({ outcome, guard }) =>
      outcome !== 'survived' && guard.secondLine !== undefined && !standing.has(lineOf(guard)),
  );
  const lines = [
    ['folder', ...columns].join('\t'),
    ...[...counts].map(([folder, row]) => [folder, ...columns.map((name) => row[name])].join('\t')),
    ...survivors.map(({ guard, tests }) => {
      const { path, line, kind, start, end, replacement } = guard;
      const [was, is] = [read(path).slice(start, end), replacement].map((text) =>
        text.replace(/\s+/g, ' ').trim(),
      );
      const reached = tests === 0 ? 'no test reaches it' : `${tests} test files stay green`;
      return `survived  ${path}:${line}  ${kind}: ${was}  →  ${is || 'nothing'}  (${reached})`;
    }),
    ...wrong.map(
      ({ guard, by }) =>
        `no second line  ${lineOf(guard)}  ${by} is red without it: take the words away`,
    ),
  ];
  return { text: lines.join('\n'), isGood: survivors.length === 0 && wrong.length === 0 };
}
