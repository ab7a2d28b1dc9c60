// The sealed lease: a JWT signed by the vault (so that the engine knows who made it) inside a JWE
// to one key of the engine (so that nobody else reads it). This is the one place in which secrets
// are put into words that leave.
import { shownType } from '../credentials/index.ts';
import {
  type Keyring,
  type RecipientKey,
  recipientKey,
  type SecretFields,
} from '../crypto/index.ts';
import { AppError, type InputFault } from '../shared/errors.ts';
import type { LeaseId } from '../shared/ids.ts';
import { Recent } from '../shared/recent.ts';
import type { Granted } from './decide.ts';
import { leaseBytesMax } from './sizes.ts';
import type { PublicJwk } from '../engines/index.ts';

/** What a lease says; `secrets` stand beside the credentials that have them, by position. */
export interface LeaseContent {
  readonly id: LeaseId;
  readonly issuer: string;
  readonly audience: string;
  readonly issuedAt: number;
  readonly expiresAt: number;
  readonly credentials: readonly (Granted & {
    readonly secrets: SecretFields | undefined;
    readonly tokenId?: string;
  })[];
}

/** Base64 twice, and the headers. */
export const sealedLengthMax = 16 * 1024 * 1024;

const keysMax = 1_000;

/** Seals leases; remembers imported public keys, by what they are. */
export class LeaseSealer {
  readonly #keyring: Keyring;
  readonly #keys = new Recent<string, RecipientKey>(keysMax);
  constructor(keyring: Keyring) {
    this.#keyring = keyring;
  }

  /** The compact JWE of a payload; the payload is overwritten. */
  seal(payload: Buffer, recipient: { readonly kid: string; readonly jwk: PublicJwk }): string {
    try {
      return this.#keyring.sealLease(payload, this.#keyOf(recipient));
    } finally {
      payload.fill(0);
    }
  }

  #keyOf({ kid, jwk }: { readonly kid: string; readonly jwk: PublicJwk }): RecipientKey {
    const name = JSON.stringify([kid, jwk]);
    const known = this.#keys.get(name);
    if (known !== undefined) return known;
    const key = recipientKey(kid, jwk);
    this.#keys.set(name, key);
    return key;
  }
}

/** The claims as bytes. Throws leaseRefused when they are too many. */
export function payloadOf({
  id,
  issuer,
  audience,
  issuedAt,
  expiresAt,
  credentials,
}: LeaseContent): Buffer {
  const claims = {
    iss: issuer,
    aud: audience,
    jti: id,
    iat: issuedAt,
    exp: expiresAt,
    credentials: credentials.map(({ row, version, secrets, tokenId }) => ({
      id: row.id,
      team: row.slug,
      name: row.name,
      type: shownType(row.type),
      version: row.currentVersion,
      ...(tokenId === undefined ? {} : { tokenId }),
      // SECURITY: plaintext is exposed here, into a buffer that is signed and encrypted next and
      // then overwritten.
      ...(secrets === undefined
        ? { notModified: true }
        : { fields: { ...version.publicFields, ...secrets.expose() } }),
    })),
  };
  const payload = Buffer.from(JSON.stringify(claims));
  if (payload.length <= leaseBytesMax) return payload;
  payload.fill(0);
  throw tooLarge();
}

/** What opened secrets will take of a payload at the least. */
export function lengthOf(secrets: SecretFields): number {
  let length = 0;
  // SECURITY: exposed to be measured: a lease that grows too large is opened no further.
  for (const value of Object.values(secrets.expose())) length += value.length;
  return length;
}

/** What is wrong with a lease that is too large. */
export const sizeFault: InputFault = { pointer: '/credentials', rule: 'size' };

/** A lease that nobody gets: of so much together, or with these faults beside. */
export const tooLarge = (errors: readonly InputFault[] = [sizeFault]): AppError =>
  new AppError('leaseRefused', 'The lease would be too large: ask for fewer credentials at once.', {
    errors,
  });
