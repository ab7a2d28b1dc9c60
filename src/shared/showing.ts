// What rows show as. One that somebody wrote to past the service may hold what its reader does not
// understand: something else takes its place, and no request fails for it.

/** Stands in an answer for what could not be shown; it fits no schema. */
const unreadable = Symbol('unreadable');

/** What each row shows as. One that breaks its `show` takes its place, and is left out later. */
export const showEach = <Row, Shown>(rows: readonly Row[], show: (row: Row) => Shown): Shown[] =>
  rows.map((row) => showOne(row, show));

/** The same for one row. */
export function showOne<Row, Shown>(row: Row, show: (row: Row) => Shown): Shown {
  try {
    return show(row);
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof RangeError)) throw error;
    return unreadable as unknown as Shown;
  }
}
