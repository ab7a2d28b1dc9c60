// The fields of a version with their secrets: what a call is rendered from. They stay in this folder.
import type { AllFields } from '../credentials/service.ts';
import type { SecretFields } from '../crypto/index.ts';
import type { Granted } from '../leases/service.ts';

/** Public and secret fields together. SECURITY: plaintext from here on; it goes into one request and nowhere else. */
export function fieldsOf({ version }: Granted, secrets: SecretFields): AllFields {
  return { ...(version.publicFields as AllFields), ...secrets.expose() };
}
