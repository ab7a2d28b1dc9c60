// Reads what tap counted: every assertion of every file, from the summary at the end of its raw
// output.

export interface TapCounts {
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** Throws where there is no summary: a run that was cut short must not look like an empty one. */
export function countsOf(output: string): TapCounts {
  const summary = [...output.matchAll(/^# \{ (total: \d+[^}]*) \}$/gm)].at(-1)?.[1];
  if (summary === undefined) throw new Error('tap wrote no summary');
  const numbers = Object.fromEntries(
    [...summary.matchAll(/(\w+): (\d+)/g)].map(([, name, number]) => [name, Number(number)]),
  );
  return {
    passed: numbers['pass'] ?? 0,
    failed: numbers['fail'] ?? 0,
    skipped: (numbers['skip'] ?? 0) + (numbers['todo'] ?? 0),
  };
}

/** `12 passed, 0 failed`, and what was skipped only where something was. */
export function summaryOf({ passed, failed, skipped }: TapCounts): string {
  return `${passed} passed, ${failed} failed${skipped === 0 ? '' : `, ${skipped} skipped`}`;
}
