// How much a page is, asked before it is read out: a page of few large rows is as long as one of
// many small ones.
import { type RawBuilder, sql } from 'kysely';

/**
 * The first rows of a query, up to so many bytes together, and one at the least. The query has a
 * column `bytes`, what is to be read of the row at the most; its rows come in the order that is
 * given over its columns. Each row says in `found` how many there were.
 */
export const upToBytes = (
  rows: RawBuilder<unknown>,
  order: RawBuilder<unknown>,
  bytesMax: unknown,
): RawBuilder<unknown> => sql`
  select * from (
    select given.*, count(*) over ()::int as found,
      coalesce(sum(given.bytes) over (order by ${order} rows between unbounded preceding
        and 1 preceding), 0) as before
    from (${rows}) given) bounded
  where bounded.before < ${bytesMax} order by ${order}`;

/** The same for rows that come in the order in which they are to be taken, whatever that is. */
export const withinBytes = (
  rows: RawBuilder<unknown>,
  bytesMax: number,
): RawBuilder<unknown> => sql`
  select * from (
    select given.*,
      coalesce(sum(given.bytes) over (rows between unbounded preceding and 1 preceding),
      0) as before
    from (${rows}) given) bounded
  where bounded.before < ${sql.lit(bytesMax)}`;

/** What of a version is read for a page: its public fields and its policy. */
export const contentBytes = (version: string): RawBuilder<unknown> =>
  sql`octet_length(${sql.ref(`${version}.public_fields`)}::text) +
    octet_length(${sql.ref(`${version}.policy`)}::text)`;
