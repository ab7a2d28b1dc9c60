// What the run prints.
import type { Comparison, Side } from './measures.ts';

/** A line of the last table. */
export interface Verdict {
  readonly what: string;
  readonly value: number;
  readonly unit: string;
  readonly target: string;
  readonly isMet: boolean;
}

/** Rows as a table with aligned columns; the first column to the left, the others to the right. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const lines = rows.map((row) =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!),
      )
      .join('  ')
      .trimEnd(),
  );
  return [lines[0]!, widths.map((width) => '-'.repeat(width)).join('  '), ...lines.slice(1)].join(
    '\n',
  );
}

const figure = (value: number | undefined, digits = 0): string =>
  value === undefined || Number.isNaN(value) ? '-' : value.toFixed(digits);

const sideRow = (name: string, { perSecond, p50Ms, p99Ms, cpuMicroseconds }: Side): string[] => [
  name,
  figure(perSecond),
  figure(p50Ms, 2),
  figure(p99Ms, 2),
  figure(cpuMicroseconds),
];

/** The absolute figures: two lines for each comparison. */
export const figuresTable = (
  comparisons: readonly { comparison: Comparison; other: string }[],
): string =>
  table([
    ['median of the rounds', 'answers/s', 'p50 ms', 'p99 ms', 'server CPU µs'],
    ...comparisons.flatMap(({ comparison, other }) => [
      sideRow(`${comparison.name}: vault`, comparison.vault),
      sideRow(`${comparison.name}: ${other}`, comparison.other),
    ]),
  ]);

/** The ratios beside what they must reach. */
export const verdictTable = (verdicts: readonly Verdict[]): string =>
  table([
    ['ratio', 'measured', 'target', 'met'],
    ...verdicts.map(({ what, value, unit, target, isMet }) => [
      what,
      `${value.toFixed(2)}${unit}`,
      target,
      target === '' ? '' : isMet ? 'yes' : 'no',
    ]),
  ]);
