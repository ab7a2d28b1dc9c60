// Opens a sealed lease. It is believed only when it is sealed to a key of ours, signed by the
// vault, issued by it, meant for us and still good; every algorithm is pinned.
import {
  compactDecrypt,
  createLocalJWKSet,
  createRemoteJWKSet,
  decodeProtectedHeader,
  errors,
  type JSONWebKeySet,
  jwtVerify,
  type JWTPayload,
  type JWTVerifyGetKey,
} from 'jose';
import { type EnginePrivateKey, readEngineKey } from './engine-key.ts';
import { LeaseInvalid } from './errors.ts';

/** The vault's public keys: a JWK set, or what `vaultKeys` gives. */
export type VaultKeys = JSONWebKeySet | JWTVerifyGetKey;

export interface OpenLeaseOptions {
  /** Every private key that the vault may have sealed to. */
  readonly privateKeys: readonly EnginePrivateKey[];
  /** `issuer` is the vault's public URL. */
  readonly vault: { readonly issuer: string; readonly keys: VaultKeys };
  /** The engine's own subject. */
  readonly audience: string;
  /** Milliseconds since 1970. */
  readonly now?: () => number;
}

/**
 * A credential of a lease; `notModified` where the version is the one that the engine said it
 * holds.
 */
export type LeasedCredential = {
  readonly id: string;
  readonly team: string;
  readonly name: string;
  readonly type: string;
  readonly version: number;
  /** Names the access token of a provider, where one was leased; see `rejected`. */
  readonly tokenId?: string;
} & (
  | { readonly notModified: false; readonly fields: Readonly<Record<string, unknown>> }
  | { readonly notModified: true }
);

export interface OpenedLease {
  readonly id: string;
  readonly expiresAt: Date;
  readonly credentials: readonly LeasedCredential[];
}

const clockToleranceSeconds = 5;

/**
 * The vault's keys at their address, fetched when first needed, kept, and fetched again for a key
 * that is not among them.
 */
export function vaultKeys(url: string): JWTVerifyGetKey {
  return createRemoteJWKSet(new URL(url), { timeoutDuration: 5_000 });
}

/**
 * The credentials in a sealed lease. Throws LeaseInvalid; what keeps the vault's keys from being
 * fetched is thrown as it is.
 */
export async function openLease(
  sealed: string,
  { privateKeys, vault, audience, now = Date.now }: OpenLeaseOptions,
): Promise<OpenedLease> {
  const signed = await decrypt(sealed, privateKeys);
  const claims = await verify(signed, vault, audience, now());
  return {
    id: textOf(claims.jti),
    expiresAt: new Date(numberOf(claims.exp) * 1000),
    credentials: credentialsOf(claims['credentials']),
  };
}

async function decrypt(sealed: string, privateKeys: readonly EnginePrivateKey[]): Promise<string> {
  const header = headerOf(sealed);
  if (header.alg !== 'ECDH-ES' || header.enc !== 'A256GCM' || header.cty !== 'JWT')
    throw new LeaseInvalid('malformed');
  const key = privateKeys.map(readEngineKey).find(({ kid }) => kid === header.kid);
  if (key === undefined) throw new LeaseInvalid('notOurKey');
  try {
    const { plaintext } = await compactDecrypt(sealed, key.privateKey, {
      keyManagementAlgorithms: ['ECDH-ES'],
      contentEncryptionAlgorithms: ['A256GCM'],
    });
    return new TextDecoder().decode(plaintext);
  } catch {
    // SECURITY: one error for whatever does not open; its cause could tell what was inside.
    throw new LeaseInvalid('notDecrypted');
  }
}

async function verify(
  signed: string,
  vault: OpenLeaseOptions['vault'],
  audience: string,
  nowMs: number,
): Promise<JWTPayload> {
  const keys = typeof vault.keys === 'function' ? vault.keys : createLocalJWKSet(vault.keys);
  // SECURITY: without a key id any key of the set would do; the vault always names one.
  if (headerOf(signed).kid === undefined) throw new LeaseInvalid('notSigned');
  try {
    const { payload } = await jwtVerify(signed, keys, {
      algorithms: ['EdDSA'],
      issuer: vault.issuer,
      currentDate: new Date(nowMs),
      clockTolerance: clockToleranceSeconds,
    });
    // Alone: a lease for several would be one that another of them could pass on.
    if (payload.aud !== audience) throw new LeaseInvalid('audience');
    if (numberOf(payload.iat) > nowMs / 1000 + clockToleranceSeconds)
      throw new LeaseInvalid('notYet');
    return payload;
  } catch (error) {
    throw refusalOf(error);
  }
}

function refusalOf(error: unknown): unknown {
  if (error instanceof errors.JWTExpired) return new LeaseInvalid('expired');
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === 'iss') return new LeaseInvalid('issuer');
    return new LeaseInvalid(error.claim === 'nbf' ? 'notYet' : 'malformed');
  }
  const isOfTheToken =
    error instanceof errors.JWSInvalid ||
    error instanceof errors.JWTInvalid ||
    error instanceof errors.JWSSignatureVerificationFailed ||
    error instanceof errors.JOSEAlgNotAllowed ||
    error instanceof errors.JOSENotSupported ||
    error instanceof errors.JWKSNoMatchingKey ||
    error instanceof errors.JWKSMultipleMatchingKeys;
  return isOfTheToken ? new LeaseInvalid('notSigned') : error;
}

function headerOf(token: string): ReturnType<typeof decodeProtectedHeader> {
  try {
    return decodeProtectedHeader(token);
  } catch {
    throw new LeaseInvalid('malformed');
  }
}

function credentialsOf(claim: unknown): LeasedCredential[] {
  if (!Array.isArray(claim)) throw new LeaseInvalid('malformed');
  return claim.map((each: unknown) => {
    const { id, team, name, type, version, tokenId, fields, notModified } = objectOf(each);
    const named = {
      id: textOf(id),
      team: textOf(team),
      name: textOf(name),
      type: textOf(type),
      version: numberOf(version),
      ...(tokenId === undefined ? {} : { tokenId: textOf(tokenId) }),
    };
    return notModified === true
      ? { ...named, notModified }
      : { ...named, notModified: false, fields: objectOf(fields) };
  });
}

function textOf(value: unknown): string {
  if (typeof value !== 'string') throw new LeaseInvalid('malformed');
  return value;
}

function numberOf(value: unknown): number {
  if (typeof value !== 'number') throw new LeaseInvalid('malformed');
  return value;
}

function objectOf(value: unknown): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new LeaseInvalid('malformed');
  return value as Record<string, unknown>;
}
