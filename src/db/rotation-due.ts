// When a team's policy asks for the next rotation, as SQL. Rows can say what no calendar has: then
// it asks for none, and no statement fails over it.
import { type RawBuilder, sql } from 'kysely';

/** Over `key`, an active data key, and `team`. */
export const rotateAtSql: RawBuilder<Date | null> = sql.raw(
  `case when team.rotate_every_days between 1 and 3650
    and key.created_at between timestamptz '0001-01-01 00:00:00+00'
    and timestamptz '9989-01-01 00:00:00+00'
    then key.created_at + make_interval(days => team.rotate_every_days) end`,
);
