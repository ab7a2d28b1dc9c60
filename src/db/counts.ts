// Counts as rows hold them. A database can hold what no number says exactly.
import { type RawBuilder, sql } from 'kysely';

/** The count in a column; -1, which is none, for what is not one. */
export const countOf = (column: string): RawBuilder<number> =>
  sql.raw(
    `case when ${column} between 0 and ${Number.MAX_SAFE_INTEGER} then ${column}
      when ${column} is not null then -1 end`,
  );
