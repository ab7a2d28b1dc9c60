// The public keys that verify an issuer's tokens, read from a JWKS or from PEM: which of them
// count, and for which algorithms.
import { createPublicKey, type KeyObject } from 'node:crypto';
import { parseJson } from '../shared/strict-json.ts';
import type { FixedKey } from './issuers.ts';

const keysMax = 100;

/** A key and the algorithms that it may verify. */
export interface VerifyingKey {
  readonly pem: string;
  readonly algorithms: readonly string[];
}

const ofCurve: Readonly<Record<string, readonly string[]>> = {
  prime256v1: ['ES256'],
  secp384r1: ['ES384'],
  secp521r1: ['ES512'],
};

const ofRsa = ['RS256', 'PS256', 'RS384', 'PS384', 'RS512', 'PS512'];

/** Which algorithms a public key is for; empty for a kind that is not accepted. */
export function algorithmsFor({
  asymmetricKeyType: type,
  asymmetricKeyDetails: details,
}: KeyObject): readonly string[] {
  if (type === 'rsa') return (details?.modulusLength ?? 0) >= 2048 ? ofRsa : [];
  if (type === 'ec') return ofCurve[details?.namedCurve ?? ''] ?? [];
  return type === 'ed25519' ? ['EdDSA'] : [];
}

/** The one of these keys that is for the algorithm. */
export const keyFor = (
  algorithm: string,
  keys: readonly VerifyingKey[],
): VerifyingKey | undefined => keys.find(({ algorithms }) => algorithms.includes(algorithm));

export interface ReadKeys {
  /**
   * By id, or without one: a key may stand there twice, once for each of its algorithms.
   */
  readonly keys: Map<string | undefined, readonly VerifyingKey[]>;
  /** The ids of what was published and not taken; empty text for what has none. */
  readonly cutOff: readonly string[];
}

/** The keys of a JWKS, and what was left of it. Throws AnswerUnfit for a document without keys. */
export function readKeys(document: unknown): ReadKeys {
  const { keys: jwks } = document as { keys?: unknown };
  if (!Array.isArray(jwks)) throw new AnswerUnfit('noKeys');
  const keys = new Map<string | undefined, readonly VerifyingKey[]>();
  const cutOff: string[] = [];
  let taken = 0;
  for (const jwk of jwks as readonly unknown[]) {
    const read = taken < keysMax ? readKey(jwk) : undefined;
    const before = read === undefined ? [] : (keys.get(read.kid) ?? []);
    const { algorithms = [] } = read?.key ?? {};
    // Under an id the first counts; without one nothing says which is meant.
    const isOther = (algorithm: string): boolean =>
      read?.kid === undefined || keyFor(algorithm, before) === undefined;
    if (read !== undefined && algorithms.some(isOther)) {
      keys.set(read.kid, [...before, read.key]);
      taken += 1;
    } else cutOff.push(idOf(jwk));
  }
  return { keys, cutOff };
}

/**
 * The keys of a document that stands in the configuration: each has to be of use and has to have an
 * id of its own, so that which one verifies a token is the configuration's and not the token's.
 */
export function readFixedKeys(
  bytes: Buffer,
): { readonly keys: readonly FixedKey[] } | { readonly rule: string } {
  let read: ReadKeys;
  try {
    read = readKeys(parseJson(bytes));
  } catch {
    return { rule: 'must be a JWKS' }; // the reason may quote the document
  }
  if (read.cutOff.length > 0)
    return {
      rule:
        `must hold public keys for signatures only, at most ${keysMax}, of kinds that are ` +
        `accepted, under an id each`,
    };
  if (read.keys.has(undefined)) return { rule: 'must give each key an id (kid)' };
  const keys = [...read.keys].flatMap(([kid, list]) => list.map((key) => ({ kid, ...key })));
  return keys.length === 0 ? { rule: 'must hold a key' } : { keys };
}

/** A public key of the configuration. */
export const fixedKey = (pem: string): FixedKey => ({
  kid: undefined,
  pem: createPublicKey(pem).export({ type: 'spki', format: 'pem' }) as string,
  algorithms: algorithmsFor(createPublicKey(pem)),
});

/** What was answered is no document with keys. */
export class AnswerUnfit extends Error {
  readonly rule: string;
  constructor(rule: string) {
    super('no document with keys');
    this.name = 'AnswerUnfit';
    this.rule = rule;
  }
}

function idOf(jwk: unknown): string {
  const { kid } = (typeof jwk === 'object' && jwk !== null ? jwk : {}) as { kid?: unknown };
  return typeof kid === 'string' ? kid : '';
}

/** Undefined for what is no public key for signatures of a kind that is accepted. */
function readKey(jwk: unknown): { kid: string | undefined; key: VerifyingKey } | undefined {
  if (typeof jwk !== 'object' || jwk === null) return undefined;
  const { kid, use, alg, key_ops: uses } = jwk as Record<string, unknown>;
  if (
    (kid !== undefined && typeof kid !== 'string') ||
    (use !== undefined && use !== 'sig') ||
    (Array.isArray(uses) && !uses.includes('verify'))
  )
    return undefined;
  // SECURITY: a private key that is published is everybody's.
  if ('d' in jwk || 'k' in jwk) return undefined;
  try {
    const key = createPublicKey({ key: jwk as never, format: 'jwk' });
    const algorithms = algorithmsFor(key).filter(
      (algorithm) => alg === undefined || alg === algorithm,
    );
    return algorithms.length === 0
      ? undefined
      : { kid, key: { pem: key.export({ type: 'spki', format: 'pem' }) as string, algorithms } };
  } catch {
    return undefined; // of a kind that node does not know, or broken
  }
}
