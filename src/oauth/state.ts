// The state that goes through the browser, and what follows from it. The row of an authorization
// holds no secret: the state's random half is nowhere but in the URL, and the PKCE verifier is made
// from that half and the row's salt, so that neither is enough.
import { createHmac, hash, randomBytes, timingSafeEqual } from 'node:crypto';
import { canonicalJson, findCanonicalJson, Secret } from '../crypto/index.ts';
import { type AuthorizationId, isId, newId } from '../shared/ids.ts';
import { isTime } from '../shared/times.ts';
import type { AuthorizationRow } from './authorization-repository.ts';

const idBytes = 16;
const randomHalfBytes = 32;
const saltBytes = 32;

/** What is known of an authorization before its state is made. */
export type Begun = Omit<AuthorizationRow, 'id' | 'slug' | 'stateHash' | 'salt'>;

/** A new authorization: its row, the state for the URL and the verifier for later. */
export function beginAuthorization(begun: Begun): {
  row: Omit<AuthorizationRow, 'slug'>;
  state: Secret<string>;
  challenge: string;
} {
  const id = newId<AuthorizationId>();
  const half = randomBytes(randomHalfBytes);
  const unsigned = { ...begun, id, salt: randomBytes(saltBytes) };
  const row = { ...unsigned, stateHash: hashOf(half, unsigned) };
  const state = Buffer.concat([Buffer.from(id.replaceAll('-', ''), 'hex'), half]).toString(
    'base64url',
  );
  // SECURITY: exposed to its hash, which is what the URL carries (PKCE, S256).
  const challenge = hash('sha256', verifierOf(half, row).expose(), 'base64url');
  return { row, state: new Secret(state), challenge };
}

/** The id in a state, and its random half; undefined for what is no state. */
export function readState(state: string): { id: AuthorizationId; half: Buffer } | undefined {
  const bytes = Buffer.from(state, 'base64url');
  if (bytes.length !== idBytes + randomHalfBytes || bytes.toString('base64url') !== state)
    return undefined;
  const hex = bytes.toString('hex', 0, idBytes);
  const id = [
    hex.slice(0, 8),
    hex.slice(8, 12),
    hex.slice(12, 16),
    hex.slice(16, 20),
    hex.slice(20),
  ].join('-');
  return isId<AuthorizationId>(id) ? { id, half: bytes.subarray(idBytes) } : undefined;
}

/** Whether the row was made with this half and says what it said then. */
export const stateHolds = (half: Buffer, row: AuthorizationRow): boolean => {
  if (!isTime(row.expiresAt) || findCanonicalJson(row.client) === undefined) return false;
  const expected = hashOf(half, row);
  return row.stateHash.length === expected.length && timingSafeEqual(expected, row.stateHash);
};

/** The PKCE verifier (RFC 7636): 43 characters that only the row and the state together give. */
export const verifierOf = (
  half: Buffer,
  { salt }: Pick<AuthorizationRow, 'salt'>,
): Secret<string> =>
  new Secret(
    createHmac('sha256', salt).update('credential-vault/pkce/v1').update(half).digest('base64url'),
  );

// SECURITY: over the whole row. Who writes to the database does not know the half, so a row that
// was tampered with fits no state.
const hashOf = (
  half: Buffer,
  {
    id,
    team,
    credential,
    subject,
    client,
    redirectUri,
    expiresAt,
    salt,
  }: Omit<AuthorizationRow, 'slug' | 'stateHash'>,
): Buffer =>
  createHmac('sha256', half)
    .update(
      canonicalJson([
        'credential-vault/oauth-state/v1',
        id,
        team,
        credential,
        subject,
        client,
        redirectUri,
        expiresAt.toISOString(),
        salt.toString('base64url'),
      ]),
    )
    .digest();
