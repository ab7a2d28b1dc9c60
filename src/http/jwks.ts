// The identity provider's public keys: fetched from the one configured address, kept by key id, fetched again (at most every
// half minute) when an unknown id comes. A provider that does not answer is 503 and never a hot loop.
import { createPublicKey } from 'node:crypto';
import { AppError } from '../shared/errors.ts';

const coolDownMs = 30_000;
const freshMs = 10 * 60_000;
const fetchTimeoutMs = 5_000;
const documentBytesMax = 256 * 1024;
const keysMax = 100;

/** A key and the one family of algorithms that it may verify. */
interface VerifyingKey { readonly pem: string; readonly algorithms: readonly string[] }

/** Which algorithms a public key is for; empty for a kind that is not accepted. */
export function algorithmsFor(key: ReturnType<typeof createPublicKey>): readonly string[] {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key;
  if (type === 'rsa') return (details?.modulusLength ?? 0) >= 2048 ? ['RS256', 'PS256'] : [];
  if (type === 'ec') return details?.namedCurve === 'prime256v1' ? ['ES256'] : details?.namedCurve === 'secp384r1' ? ['ES384'] : [];
  return type === 'ed25519' ? ['EdDSA'] : [];
}

/** The keys behind one JWKS address. */
export class JwksCache {
  readonly #url: string;
  readonly #now: () => number;
  #keys = new Map<string, VerifyingKey>();
  #fetchedAt = Number.NEGATIVE_INFINITY;
  #triedAt = Number.NEGATIVE_INFINITY;
  #running: Promise<void> | undefined;

  constructor(url: string, now: () => number) {
    this.#url = url;
    this.#now = now;
  }

  /** The PEM for a token's key id and algorithm; undefined when there is no such key; identityProviderUnavailable when that cannot be known. */
  async find(kid: string, algorithm: string): Promise<string | undefined> {
    const isStale = this.#now() - this.#fetchedAt > freshMs;
    if (!this.#keys.has(kid) || isStale) await this.#refresh();
    const key = this.#keys.get(kid);
    if (key !== undefined) return key.algorithms.includes(algorithm) ? key.pem : undefined;
    if (this.#fetchedAt < this.#triedAt) {
      throw new AppError('identityProviderUnavailable', 'The keys that verify tokens cannot be fetched.', { retryAfterSeconds: coolDownMs / 1000 });
    }
    return undefined;
  }

  async #refresh(): Promise<void> {
    if (this.#running === undefined) {
      if (this.#now() - this.#triedAt < coolDownMs) return;
      this.#triedAt = this.#now();
      this.#running = this.#fetch().finally(() => { this.#running = undefined; });
    }
    await this.#running;
  }

  /** Keeps the keys it has when the provider does not answer: a failed fetch shows as `#fetchedAt < #triedAt`. */
  async #fetch(): Promise<void> {
    try {
      const answer = await fetch(this.#url, { redirect: 'error', signal: AbortSignal.timeout(fetchTimeoutMs), headers: { accept: 'application/json' } });
      if (!answer.ok || answer.body === null) { await answer.body?.cancel(); return; }
      const chunks: Uint8Array[] = [];
      let bytes = 0;
      for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
        bytes += chunk.byteLength;
        if (bytes > documentBytesMax) return;
        chunks.push(chunk);
      }
      const document = JSON.parse(Buffer.concat(chunks).toString('utf8')) as { keys?: unknown };
      if (!Array.isArray(document.keys)) return;
      this.#keys = readKeys(document.keys.slice(0, keysMax));
      this.#fetchedAt = this.#triedAt;
    } catch {
      // What was fetched before stays good; `find` tells an unknown key from an unreachable provider.
    }
  }
}

function readKeys(jwks: readonly unknown[]): Map<string, VerifyingKey> {
  const keys = new Map<string, VerifyingKey>();
  for (const jwk of jwks) {
    const { kid, use, alg } = (typeof jwk === 'object' && jwk !== null ? jwk : {}) as { kid?: unknown; use?: unknown; alg?: unknown };
    if (typeof kid !== 'string' || (use !== undefined && use !== 'sig')) continue;
    try {
      const key = createPublicKey({ key: jwk as never, format: 'jwk' });
      const algorithms = algorithmsFor(key).filter((algorithm) => alg === undefined || alg === algorithm);
      if (algorithms.length > 0) keys.set(kid, { pem: key.export({ type: 'spki', format: 'pem' }) as string, algorithms });
    } catch {
      // A key of a kind that we do not know is no key of ours.
    }
  }
  return keys;
}
