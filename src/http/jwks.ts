// The identity provider's public keys: fetched from the one configured address, kept by key id,
// fetched again (never in a loop) when an unknown id comes or they are old. A provider that does
// not answer, or publishes no key of use, is 503 for tokens under keys that are not known.
import { createPublicKey, type KeyObject } from 'node:crypto';
import { AppError } from '../shared/errors.ts';
import { JsonRefused, parseJson } from '../shared/strict-json.ts';
import { keyIdLengthMax } from '../shared/limits.ts';

/** Keys older than this are fetched again beside the next token, which does not wait. */
const youngMs = 30_000;
/**
 * Keys older than this are fetched again before the next token is looked at.
 * SECURITY: a key that left the document verifies for so long, and for no more than a minute.
 */
const freshMs = 50_000;
/** For so long after a failure tokens do not wait for the next try. */
const recentFailureMs = 60_000;
/**
 * Keys older than this are not used: whoever keeps the provider from answering must not keep a
 * revoked key alive.
 */
const usableMs = 24 * 3_600_000;
/** Between two fetches for the sake of unknown ids. */
const coolDownMs = 30_000;
const coolDownAfterFailureMs = 5_000;
const fetchTimeoutMs = 5_000;
const documentBytesMax = 256 * 1024;
const keysMax = 100;
/** So many ids of keys are named in one line of the log. */
const namedMax = 20;

/** What somebody who runs the vault wants to know of the keys. */
export type JwksNews =
  /** What was known stays, for a day. `cause`: the code or the rule, never the document. */
  | { readonly kind: 'unavailable'; readonly cause: string }
  | { readonly kind: 'available'; readonly keys: number }
  /** Published and not taken: too many, of no use here, or under an id that came before. */
  | { readonly kind: 'cutOff'; readonly keys: number; readonly ids: readonly string[] }
  /** Not published any more: they verify nothing from now on. */
  | { readonly kind: 'left'; readonly ids: readonly string[] };

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
  readonly #onNews: (news: JwksNews) => void;
  #keys = new Map<string, readonly VerifyingKey[]>();
  #cutOff = '';
  #fetchedAt = Number.NEGATIVE_INFINITY;
  #triedAt = Number.NEGATIVE_INFINITY;
  #hasFailed = false;
  #running: Promise<void> | undefined;

  constructor(
    url: string,
    now: () => number,
    {
      timeoutMs = fetchTimeoutMs,
      onNews = () => undefined,
    }: { timeoutMs?: number | undefined; onNews?: ((news: JwksNews) => void) | undefined } = {},
  ) {
    this.#url = url;
    this.#now = now;
    this.#timeoutMs = timeoutMs;
    this.#onNews = onNews;
  }

  /**
   * The PEM for a token's key id and algorithm; undefined when there is no such key;
   * identityProviderUnavailable when that cannot be known.
   */
  async find(kid: string, algorithm: string): Promise<string | undefined> {
    const isKnown = this.#usable(kid).length > 0;
    const age = this.#age(this.#fetchedAt);
    if (!isKnown || age > youngMs) {
      // A provider that has just failed does not hold up the tokens that can be verified without
      // it.
      const hasJustFailed = this.#hasFailed && this.#age(this.#triedAt) <= recentFailureMs;
      const refreshed = this.#refresh();
      if (!isKnown || (age > freshMs && !hasJustFailed)) await refreshed;
    }
    const keys = this.#usable(kid);
    if (keys.length > 0 || !this.#hasFailed) return keyFor(algorithm, keys)?.pem;
    const waitMs = Math.max(0, coolDownAfterFailureMs - this.#age(this.#triedAt));
    throw new AppError(
      'identityProviderUnavailable',
      'The keys that verify tokens cannot be fetched.',
      { retryAfterSeconds: 1 + Math.floor(waitMs / 1000) },
    );
  }

  #usable(kid: string): readonly VerifyingKey[] {
    return this.#age(this.#fetchedAt) > usableMs ? [] : (this.#keys.get(kid) ?? []);
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
    const startedAt = this.#triedAt;
    let read: ReadKeys;
    try {
      read = readKeys(parseJson(await this.#download()));
    } catch (error) {
      this.#fail(causeOf(error));
      return;
    }
    const left = [...this.#keys.keys()].filter((kid) => !read.keys.has(kid));
    this.#keys = read.keys;
    this.#fetchedAt = startedAt;
    if (left.length > 0) this.#onNews({ kind: 'left', ids: named(left) });
    this.#tellCutOff(read.cutOff);
    // SECURITY: an answer without a key takes away those of before, and is no reason to call every
    // token bad: nothing can be said of any.
    if (read.keys.size === 0) {
      this.#fail('empty');
      return;
    }
    if (this.#hasFailed) this.#onNews({ kind: 'available', keys: read.keys.size });
    this.#hasFailed = false;
  }

  #fail(cause: string): void {
    if (!this.#hasFailed) this.#onNews({ kind: 'unavailable', cause });
    this.#hasFailed = true;
  }

  /** Once for each change of what is cut off. */
  #tellCutOff(ids: readonly string[]): void {
    const told = JSON.stringify(ids);
    if (told === this.#cutOff) return;
    this.#cutOff = told;
    if (ids.length > 0) this.#onNews({ kind: 'cutOff', keys: ids.length, ids: named(ids) });
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
      throw new AnswerUnfit(answer.ok ? 'noBody' : `status${answer.status}`);
    }
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    for await (const chunk of answer.body as AsyncIterable<Uint8Array>) {
      bytes += chunk.byteLength;
      if (bytes > documentBytesMax) throw new AnswerUnfit('tooLarge'); // ends the download too
      chunks.push(chunk);
    }
    return Buffer.concat(chunks);
  }
}

const keyFor = (algorithm: string, keys: readonly VerifyingKey[]): VerifyingKey | undefined =>
  keys.find(({ algorithms }) => algorithms.includes(algorithm));

interface ReadKeys {
  /** By id: one key may stand there twice, once for each of its algorithms. */
  readonly keys: Map<string, readonly VerifyingKey[]>;
  /** The ids of what was published and not taken; empty text for what has none. */
  readonly cutOff: readonly string[];
}

function readKeys(document: unknown): ReadKeys {
  const { keys: jwks } = document as { keys?: unknown };
  if (!Array.isArray(jwks)) throw new AnswerUnfit('noKeys');
  const keys = new Map<string, readonly VerifyingKey[]>();
  const cutOff: string[] = [];
  let taken = 0;
  for (const jwk of jwks as readonly unknown[]) {
    const read = taken < keysMax ? readKey(jwk) : undefined;
    const before = read === undefined ? [] : (keys.get(read.kid) ?? []);
    if (read?.key.algorithms.some((algorithm) => keyFor(algorithm, before) === undefined)) {
      keys.set(read.kid, [...before, read.key]);
      taken += 1;
    } else cutOff.push(idOf(jwk));
  }
  return { keys, cutOff };
}

/** What was answered is no document with keys. */
class AnswerUnfit extends Error {
  readonly rule: string;
  constructor(rule: string) {
    super('no document with keys');
    this.name = 'AnswerUnfit';
    this.rule = rule;
  }
}

/** A word for the log: a code of the system's, a rule of ours, or the error's name. */
function causeOf(error: unknown): string {
  if (error instanceof AnswerUnfit) return error.rule;
  if (error instanceof JsonRefused) return error.rule;
  const { cause, name } = error as { cause?: { code?: unknown }; name?: unknown };
  const word = cause?.code ?? name;
  return typeof word === 'string' && /^[A-Za-z_0-9]{1,60}$/.test(word) ? word : 'unknown';
}

function idOf(jwk: unknown): string {
  const { kid } = (typeof jwk === 'object' && jwk !== null ? jwk : {}) as { kid?: unknown };
  return typeof kid === 'string' ? kid : '';
}

const named = (ids: readonly string[]): string[] =>
  ids.slice(0, namedMax).map((id) => id.slice(0, keyIdLengthMax));

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
