// A run in figures, and what was done in it.
import type { Found } from './check/check.ts';
import type { Violation } from './check/check.ts';
import { readHistory } from './check/history.ts';
import type { Journal } from './journal.ts';

export interface Summary {
  readonly seed: number;
  readonly minutes: number;
  readonly requests: number;
  readonly changes: { readonly done: number; readonly refused: number; readonly unknown: number };
  /** Acknowledged by an answer about an earlier attempt. */
  readonly reported: number;
  readonly reads: number;
  readonly events: number;
  readonly acts: Readonly<Record<string, number>>;
  readonly exits: number;
  readonly operations: number;
  readonly violations: Readonly<Record<string, number>>;
}

export function summaryOf(of: {
  seed: number;
  minutes: number;
  journal: Journal;
  violations: readonly Violation[];
  found: Found;
}): Summary {
  const { seed, minutes, journal, violations, found } = of;
  const { changes, reads } = readHistory(journal.lines);
  const own = changes.filter(({ operation }) => operation !== 'given');
  const count = (verdict: string): number =>
    own.filter((change) => change.verdict === verdict).length;
  const good = doneIn(journal);
  return {
    seed,
    minutes,
    requests: own.reduce((sum, { attempts }) => sum + attempts.length, 0) + reads.length,
    changes: { done: count('done'), refused: count('refused'), unknown: count('unknown') },
    reported: own.filter(({ isReported }) => isReported).length,
    reads: reads.length,
    events: found.events.length,
    acts: countsOf(
      journal.lines.flatMap((line) =>
        line.kind === 'nemesis' && line.phase === 'begin' ? [line.act] : [],
      ),
    ),
    exits: journal.lines.filter((line) => line.kind === 'process' && line.event === 'ended').length,
    operations: good.size,
    violations: countsOf(violations.map(({ rule }) => rule)),
  };
}

/** The operations that came to a good end at least once. */
export function doneIn({ lines }: Journal): ReadonlySet<string> {
  const { changes, reads } = readHistory(lines);
  return new Set([
    ...changes.filter(({ verdict }) => verdict === 'done').map(({ operation }) => operation),
    ...reads.filter(({ status = 500 }) => status < 400).map(({ operation }) => operation),
  ]);
}

/** What was done to the setting, and when. */
export function timelineOf({ lines }: Journal): string[] {
  return lines.flatMap((line) => {
    const at = `${(line.at / 1000).toFixed(1).padStart(7)} s`;
    if (line.kind === 'nemesis')
      return [`${at}  ${line.phase} ${line.act} ${JSON.stringify(line.detail)}`];
    return line.kind === 'process'
      ? [`${at}  ${line.replica} ${line.event} ${line.how ?? ''}`]
      : [];
  });
}

function countsOf(names: readonly string[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}
