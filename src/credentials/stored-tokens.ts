// What a change of a credential means for the OAuth tokens stored for it. They stand beside the
// versions, so that a refresh makes none; but they belong to a client and to a policy, and end with
// them.
import { sql } from 'kysely';
import { canonicalJson } from '../crypto/index.ts';
import type { Trx } from '../db/client.ts';
import type { JsonObject } from '../shared/json.ts';
import { isWiderPolicy, type Policy } from './policy.ts';
import type { PublicFields } from './public-values.ts';
import type { CredentialType } from './types/define.ts';
import type { CredentialRow } from './rows.ts';

/**
 * The client to which tokens are given: everything of the settings but the way in which it says who
 * it is, and what is assumed of a token's life.
 */
export function oauthClient(
  type: CredentialType | undefined,
  publicFields: PublicFields,
): JsonObject | undefined {
  if (type?.oauth === undefined) return undefined;
  const {
    clientAuthentication: _,
    assumedLifetimeSeconds: __,
    ...client
  } = type.oauth.settings(publicFields);
  return client;
}

/** Whether a change of fields sends tokens to start with, or takes them away. */
export function bringsTokens(
  type: CredentialType,
  row: CredentialRow,
  publicFields: PublicFields,
  changed: readonly string[],
): boolean {
  const { expiryField } = type.oauth ?? { expiryField: '' };
  return (
    tokenFields.some((name) => changed.includes(`fields.${name}`)) ||
    row.publicFields[expiryField] !== publicFields[expiryField]
  );
}

/** Whether one of these secret fields is a token to start with. */
export const holdsTokens = (secretFieldNames: readonly string[]): boolean =>
  tokenFields.some((name) => secretFieldNames.includes(name));

/** Whether a credential that was just stored waits for somebody to connect an account. */
export const lacksAccount = (
  type: CredentialType,
  publicFields: PublicFields,
  secretFieldNames: readonly string[],
): boolean =>
  type.oauth !== undefined &&
  publicFields['grant'] !== 'clientCredentials' &&
  !holdsTokens(secretFieldNames);

const tokenFields = ['accessToken', 'refreshToken'];

/**
 * Ends the stored tokens where a new version brings another client, a wider policy or tokens to
 * start with; otherwise only lets a refresh that failed be tried again. To be called before the
 * team's key is locked: whoever writes stored tokens takes the row first.
 */
export async function adjustStoredTokens(
  trx: Trx,
  type: CredentialType,
  row: CredentialRow,
  next: {
    readonly publicFields: PublicFields;
    readonly policy: Policy /** Tokens to start with were sent. */;
    readonly bringsTokens?: boolean /** An earlier version had such. */;
    readonly hadTokens?: boolean;
  },
): Promise<void> {
  if (type.oauth === undefined) return;
  const { bringsTokens = false, hadTokens = false } = next;
  // SECURITY: a token that was given to one client, for one way of using it, does not follow
  // another or a wider one.
  const ends =
    bringsTokens ||
    isWiderPolicy(row.policy, next.policy) ||
    canonicalJson(oauthClient(type, row.publicFields) ?? null) !==
      canonicalJson(oauthClient(type, next.publicFields) ?? null);
  // One that could not grow any more was not made by the vault; without it nothing is held.
  if (ends)
    await sql`
      delete from oauth_token where credential_id = ${row.id} and team_id = ${row.team}
        and sequence not between 0 and 2147483646`.execute(trx);
  await sql`
    update oauth_token set attempts = 0, retry_at = null, failure = null, failed_at = null,
      unavailable_since = null, forced_count = 0, force_after = null, rejected_at = null
      ${
        ends
          ? sql`, claim_id = null, claimed_until = null, sequence = sequence + 1, token = null,
            data_key_id = null, key_history = '{}', expires_at = null, is_refreshable = false,
            obtained_at = null,
        connected_at = null, connected_by = null, instance_url = null,
          takes_version = ${bringsTokens || hadTokens}`
          : sql``
      }
    where credential_id = ${row.id} and team_id = ${row.team}`.execute(trx);
}
