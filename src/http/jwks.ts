// The identity provider's public keys: fetched from the one configured address, kept by key id,
// fetched again (never in a loop) when an unknown id comes or they are old. A provider that does
// not answer is 503 for tokens under keys that are not known.
import { createPublicKey, type KeyObject } from 'node:crypto';
import { AppError } from '../shared/errors.ts';
import { parseJson } from './json.ts';

/** Keys older than this are fetched again at the next token. */
const freshMs = 10 * 60_000;
/**
 * Keys older than this are not used: whoever keeps the provider from answering must not keep a
 * revoked key alive.
 */
const usableMs = 24 * 3_600_000;
const coolDownMs = 30_000;
const coolDownAfterFailureMs = 5_000;
const fetchTimeoutMs = 5_000;
const documentBytesMax = 256 * 1024;
const keysMax = 100;

/** A key and the algorithms that it may verify. */
interface VerifyingKey {
  readonly pem: string;
  readonly algorithms: readonly string[];
}

const ofCurve: Readonly<Record<string, readonly string[]>> = {
  prime256v1: ['ES256'],
  secp384r1: ['ES384'],
  secp521r1: ['ES512'],
};

/** Which algorithms a public key is for; empty for a kind that is not accepted. */
export function algorithmsFor({
  asymmetricKeyType: type,
  asymmetricKeyDetails: details,
}: KeyObject): readonly string[] {
  if (type === 'rsa') return (details?.modulusLength ?? 0) >= 2048 ? ['RS256', 'PS256'] : [];
  if (type === 'ec') return ofCurve[details?.namedCurve ?? ''] ?? [];
  return type === 'ed25519' ? ['EdDSA'] : [];
}

/** The keys behind one JWKS address. */
export class JwksCache {
  readonly #url: string;
  readonly #now: () => number;
  readonly #timeoutMs: number;
  #keys = new Map<string, VerifyingKey>();
  #fetchedAt = Number.NEGATIVE_INFINITY;
  #triedAt = Number.NEGATIVE_INFINITY;
  #hasFailed = false;
  #running: Promise<void> | undefined;

  constructor(url: string, now: () => number, timeoutMs: number = fetchTimeoutMs) {
    this.#url = url;
    this.#now = now;
    this.#timeoutMs = timeoutMs;
  }

  /**
   * The PEM for a token's key id and algorithm; undefined when there is no such key;
   * identityProviderUnavailable when that cannot be known.
   */
  async find(kid: string, algorithm: string): Promise<string | undefined> {
    const isKnown = this.#usable(kid) !== undefined;
    if (!isKnown || this.#age(this.#fetchedAt) > freshMs) {
      const refreshed = this.#refresh();
      // A provider that has just failed does not hold up the tokens that can be verified without
      // it.
      if (!isKnown || !this.#hasFailed) await refreshed;
    }
    const key = this.#usable(kid);
    if (key !== undefined) return key.algorithms.includes(algorithm) ? key.pem : undefined;
    if (!this.#hasFailed) return undefined;
    const waitMs = Math.max(0, coolDownAfterFailureMs - this.#age(this.#triedAt));
    throw new AppError(
      'identityProviderUnavailable',
      'The keys that verify tokens cannot be fetched.',
      { retryAfterSeconds: 1 + Math.floor(waitMs / 1000) },
    );
  }

  #usable(kid: string): VerifyingKey | undefined {
    return this.#age(this.#fetchedAt) > usableMs ? undefined : this.#keys.get(kid);
  }

  /** How long ago; a clock that was set back does not make the past the future. */
  #age(at: number): number {
    return at > this.#now() ? Number.POSITIVE_INFINITY : this.#now() - at;
  }

  async #refresh(): Promise<void> {
    if (this.#running === undefined) {
      if (this.#age(this.#triedAt) < (this.#hasFailed ? coolDownAfterFailureMs : coolDownMs))
        return;
      this.#triedAt = this.#now();
      this.#running = this.#fetch().finally(() => {
        this.#running = undefined;
      });
    }
    await this.#running;
  }

  /** Keeps the keys it has when the provider does not answer as it should. */
  async #fetch(): Promise<void> {
    try {
      this.#keys = readKeys(parseJson(await this.#download()));
      this.#fetchedAt = this.#triedAt;
      this.#hasFailed = false;
    } catch {
      this.#hasFailed = true; // why is the provider's matter; readers of tokens learn that it is so
    }
  }

  async #download(): Promise<Buffer> {
    // SECURITY: a redirect would let whoever answers at the address name another one.
    const answer = await fetch(this.#url, {
      redirect: 'error',
      signal: AbortSignal.timeout(this.#timeoutMs),
      headers: { accept: 'application/json' },
    });
    if (!answer.ok || answer.body === null) {
      await answer.body?.cancel();
      throw new Error('no document');
    }
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
      bytes += chunk.byteLength;
      if (bytes > documentBytesMax) throw new Error('too large'); // ends the download too
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }
}

function readKeys(document: unknown): Map<string, VerifyingKey> {
  const { keys: jwks } = document as { keys?: unknown };
  if (!Array.isArray(jwks)) throw new Error('no keys');
  const keys = new Map<string, VerifyingKey>();
  for (const jwk of jwks.slice(0, keysMax)) {
    const read = readKey(jwk);
    if (read !== undefined) keys.set(read.kid, read.key);
  }
  return keys;
}

/** Undefined for what is no public key for signatures of a kind that is accepted. */
function readKey(jwk: unknown): { kid: string; key: VerifyingKey } | undefined {
  if (typeof jwk !== 'object' || jwk === null) return undefined;
  const { kid, use, alg, key_ops: uses } = jwk as Record<string, unknown>;
  if (
    typeof kid !== 'string' ||
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
