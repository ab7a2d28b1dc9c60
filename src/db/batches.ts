// Rows that are written together and have nothing to do with each other: the one that does not fit
// is lost alone, and keeps no other from being written.
import { ClockDiffers, ClockUncertain } from './clock.ts';
import { isDatabaseDown, sqlState } from './errors.ts';

/** What became of rows that did not all fit. */
export interface Apart<T> {
  /** Rows that cannot be written, now or later. */
  readonly lost: readonly T[];
  /** Rows that are to be tried again: it was none of their doing. */
  readonly left: readonly T[];
  /** The last thing that went wrong. */
  readonly cause: unknown;
}

/**
 * Writes rows, all at once where they fit, else by halves, down to the one that does not fit alone.
 * `write` may be called for some of them again. Never throws.
 */
export async function writeApart<T>(
  rows: readonly T[],
  write: (rows: readonly T[]) => Promise<unknown>,
): Promise<Apart<T>> {
  try {
    await write(rows);
    return { lost: [], left: [], cause: undefined };
  } catch (cause) {
    if (!isAboutRows(cause)) return { lost: [], left: rows, cause };
    if (rows.length <= 1) return { lost: rows, left: [], cause };
    const half = Math.ceil(rows.length / 2);
    const first = await writeApart(rows.slice(0, half), write);
    if (first.left.length > 0) return { ...first, left: [...first.left, ...rows.slice(half)] };
    const second = await writeApart(rows.slice(half), write);
    return {
      lost: [...first.lost, ...second.lost],
      left: second.left,
      cause: second.cause ?? first.cause,
    };
  }
}

/** No partition of the table is for the row: months of the audit log are made ahead. */
export function isWithoutPartition(error: unknown): boolean {
  return (
    sqlState(error) === '23514' && (error as { constraint?: unknown }).constraint === undefined
  );
}

/**
 * Whether it is the rows that are at fault: their values, what stands in their way, or what the
 * making of them threw. Not a database that is away, busy, full, or that refuses the statement.
 */
export function isAboutRows(error: unknown): boolean {
  if (error instanceof ClockDiffers || error instanceof ClockUncertain) return false;
  const state = sqlState(error);
  if (state === undefined) return !isDatabaseDown(error);
  return /^(22|23|54|P0)/.test(state);
}
