// Tokens of local mode: signed with the key in the data folder, for trying things out. In
// production an identity provider does this.
import { readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { SignJWT } from 'jose';
import { ShownError } from '../shared/shown-error.ts';

export const localIssuer = 'credential-vault-local';
export const localAudience = 'credential-vault';
const lifetimeSeconds = 12 * 60 * 60;

/** The data folder has no key to sign with: the vault was never started there. */
export class NoLocalVault extends ShownError {
  constructor() {
    super('there is no local vault yet: run `npm start` first');
    this.name = 'NoLocalVault';
  }
}

/** A token of 12 hours for the subject, as the local vault accepts it. Throws NoLocalVault. */
export async function localToken(
  dataFolder: string,
  subject: string,
  now: number,
): Promise<string> {
  let secret: string;
  try {
    secret = readFileSync(join(resolve(dataFolder), 'jwt-secret'), 'utf8').trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw new NoLocalVault();
    throw error;
  }
  const issuedAt = Math.floor(now / 1000);
  return new SignJWT({})
    .setProtectedHeader({ alg: 'HS256', typ: 'JWT' })
    .setSubject(subject)
    .setIssuer(localIssuer)
    .setAudience(localAudience)
    .setIssuedAt(issuedAt)
    .setExpirationTime(issuedAt + lifetimeSeconds)
    .sign(new TextEncoder().encode(secret));
}
