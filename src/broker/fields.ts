// The fields of a version with their secrets: what a call is rendered from. They stay in this
// folder.
import type { Secret, SecretFields } from '../crypto/index.ts';
import type { AllFields } from '../credentials/index.ts';
import type { Granted } from '../leases/index.ts';

/**
 * Public and secret fields together. SECURITY: plaintext from here on; it goes into one request and
 * nowhere else.
 */
export function fieldsOf({ version }: Granted, secrets: SecretFields): AllFields {
  return { ...(version.publicFields as AllFields), ...secrets.expose() };
}

/**
 * The public fields with an access token, for a type whose tokens are stored. SECURITY: the same;
 * client secret and refresh token stay behind.
 */
export function tokenFieldsOf({ version }: Granted, token: Secret<string>): AllFields {
  return { ...(version.publicFields as AllFields), accessToken: token.expose() };
}
