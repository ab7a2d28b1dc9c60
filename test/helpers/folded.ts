// Assertions of a table or a long loop as one result. A hundred rows are one thing that is
// promised; what fails says which rows, with what was found and what was wanted.
import { deepEqual } from 'node:assert';
import { isDeepStrictEqual } from 'node:util';
import type { Test } from 'tap';

/** The assertions that can be folded; each takes the name of its row last. */
export interface Rows {
  ok(found: unknown, row?: string): boolean;
  notOk(found: unknown, row?: string): boolean;
  equal(found: unknown, wanted: unknown, row?: string): boolean;
  not(found: unknown, unwanted: unknown, row?: string): boolean;
  same(found: unknown, wanted: unknown, row?: string): boolean;
  strictSame(found: unknown, wanted: unknown, row?: string): boolean;
  /** A text holds a piece or fits a pattern; of an object, each member that is named does. */
  match(found: unknown, wanted: unknown, row?: string): boolean;
  notMatch(found: unknown, unwanted: RegExp, row?: string): boolean;
  throws(act: () => unknown, kind?: new (...args: never[]) => Error, row?: string): boolean;
  fail(row?: string): boolean;
  teardown: Test['teardown'];
}

interface Fault {
  readonly row: string;
  readonly found: unknown;
  readonly wanted: unknown;
}

const faultsShown = 20;

/**
 * The body of a test whose assertions are rows: the test has one result for all of them, and fails
 * where there was none.
 */
export function folded(check: (rows: Rows) => Promise<void> | void): (t: Test) => Promise<void> {
  return async (t) => {
    const { rows, faults, count } = rowsOf(t);
    await check(rows);
    t.ok(count() > 0, 'there are rows');
    t.same(faults.slice(0, faultsShown), [], `${faults.length} of ${count()} rows failed`);
  };
}

function rowsOf(t: Test): { rows: Rows; faults: readonly Fault[]; count: () => number } {
  const faults: Fault[] = [];
  let count = 0;
  const judge = (holds: boolean, found: unknown, wanted: unknown, row?: string): boolean => {
    count += 1;
    if (!holds) faults.push({ row: row ?? `row ${count}`, found, wanted });
    return holds;
  };
  const rows: Rows = {
    ok: (found, row) => judge(Boolean(found), found, 'a value that is true', row),
    notOk: (found, row) => judge(!found, found, 'a value that is false', row),
    equal: (found, wanted, row) => judge(Object.is(found, wanted), found, wanted, row),
    not: (found, unwanted, row) =>
      judge(!Object.is(found, unwanted), found, { not: unwanted }, row),
    same: (found, wanted, row) => judge(isLike(found, wanted), found, wanted, row),
    strictSame: (found, wanted, row) => judge(isDeepStrictEqual(found, wanted), found, wanted, row),
    match: (found, wanted, row) => judge(fits(found, wanted), found, wanted, row),
    notMatch: (found, unwanted, row) =>
      judge(!unwanted.test(String(found)), found, { not: String(unwanted) }, row),
    throws(act, kind, row) {
      const error = thrownBy(act);
      return judge(error instanceof (kind ?? Error), error, kind?.name ?? 'an error', row);
    },
    fail: (row) => judge(false, undefined, undefined, row),
    teardown: t.teardown.bind(t),
  };
  return { rows, faults, count: () => count };
}

function fits(found: unknown, wanted: unknown): boolean {
  if (wanted instanceof RegExp) return wanted.test(String(found));
  if (typeof wanted === 'string') return String(found).includes(wanted);
  if (typeof wanted !== 'object' || wanted === null) return Object.is(found, wanted);
  if (typeof found !== 'object' || found === null) return false;
  if (Array.isArray(wanted) && Array.isArray(found) && found.length !== wanted.length) return false;
  return Object.entries(wanted).every(([name, part]) =>
    fits((found as Record<string, unknown>)[name], part),
  );
}

function isLike(found: unknown, wanted: unknown): boolean {
  try {
    deepEqual(found, wanted);
    return true;
  } catch {
    return false;
  }
}

function thrownBy(act: () => unknown): unknown {
  try {
    act();
    return undefined;
  } catch (error) {
    return error;
  }
}
