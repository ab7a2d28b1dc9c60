// How far callers can make the vault grow: a bound for each kind of row of which they could
// otherwise add any number.
import { AppError } from './errors.ts';

export interface GrowthLimits {
  /** Living credentials of a team; together with the deleted ones there may be twice as many. */
  readonly credentials: number;
  /** Of a team: the tokens of all versions and accounts, and the public fields beside them. */
  readonly ciphertextBytes: number;
  /** Of a team. */
  readonly members: number;
  /** Of a team: OAuth authorizations that somebody began and nobody ended. */
  readonly authorizations: number;
  /** Of a credential. */
  readonly grants: number;
  /** Of a team, destroyed ones not counted; only somebody's own rotation is refused. */
  readonly keys: number;
}

export const growthLimits: GrowthLimits = Object.freeze({
  credentials: 1_000_000,
  ciphertextBytes: 4 * 1024 ** 3,
  members: 10_000,
  authorizations: 100,
  grants: 1_000,
  keys: 10_000,
});

/** How far each of them can be set. */
export const growthCeilings: GrowthLimits = Object.freeze({
  credentials: 1_000_000_000,
  ciphertextBytes: 1024 ** 5,
  members: 1_000_000,
  authorizations: 100_000,
  grants: 10_000,
  keys: 1_000_000,
});

const details = {
  credentials: 'A team has at most this many credentials.',
  storedCredentials:
    'A team has at most this many credentials, deleted ones counted until they are destroyed.',
  ciphertextBytes: 'A team stores at most this many bytes.',
  members: 'A team has at most this many members.',
  authorizations: 'A team has at most this many authorizations begun and not ended.',
  grants: 'A credential has at most this many grants.',
  grantsBetween: 'A team grants at most this many of its credentials to one grantee.',
  keys: 'A team has at most this many keys that are not destroyed.',
} as const;
export type LimitName = keyof typeof details;
/** What `limit` says in the answer. */
export const limitNames = Object.keys(details) as readonly LimitName[];

/** The refusal of what would go beyond a bound. */
export const limitReached = (
  limit: LimitName,
  max: number,
  { retryAfterSeconds }: { retryAfterSeconds?: number } = {},
): AppError =>
  new AppError('limitReached', details[limit], {
    details: { limit, max },
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
  });
