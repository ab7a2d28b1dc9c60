// The access and refresh token of a credential whose account is connected by OAuth. They are bound
// to the client that they were given to and to the policy under which they were got. A row without
// a token stands for an account that was never connected.
import { sql } from 'kysely';
import type { Binding } from '../../crypto/index.ts';
import { type BoundRow, type CiphertextTable, placeOf } from './table.ts';

export const oauthTokens: CiphertextTable = {
  name: 'oauth_token',
  rows: 'one',
  number: 'sequence',
  binding: {
    publicFields: 'client',
    policy: 'policy',
    secretFields: undefined,
    typeSuffix: '/oauth',
  },
  undecryptable: {
    set: (at) => sql`failure = 'undecryptable', failed_at = ${at}`,
    isUnset: sql`held.failure is null`,
    clear: sql`failed_at = case when held.failure <> 'undecryptable' then held.failed_at end,
      failure = nullif(held.failure, 'undecryptable')`,
  },
  failures: 'key_rotation_oauth_failure',
  credentialTypes: 'oauth',
  storedBytes: sql<number>`coalesce(octet_length(token), 0)::bigint`,
  transfer: {
    busyUntil: {
      column: 'claimed_until',
      refusal: 'The account is being refreshed; try again.',
    },
    tooLarge: 'The connected account is too large to be moved: connect it again first.',
    undecryptable: 'The connected account does not open: connect it again first.',
  },
  exported: { spelled: 'connection' },
};

/** The place of a token of this table: a version's token does not open there. */
export const oauthPlace = (row: BoundRow): Binding => placeOf(oauthTokens, row);
