// An identity provider's public keys: fetched from the one configured address, kept by key id,
// fetched again (never in a loop) when an unknown id comes or they are old. A provider that does
// not answer, or publishes no key of use, is 503 for tokens under keys that are not known. Where an
// issuer says its address itself, that is asked for once.
import { AppError } from '../shared/errors.ts';
import {
  AnswerUnfit,
  keyFor,
  type ReadKeys,
  readKeys,
  type VerifyingKey,
} from '../access/index.ts';
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
export const documentTimeoutMs = 5_000;
export const documentBytesMax = 256 * 1024;
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

/**
 * Asks for a document of an issuer's and follows nothing: a redirect is an answer like another.
 * Throws what says in `step` or in its cause's `code` why there is none.
 */
export type FetchDocument = (
  url: string,
) => Promise<{ readonly status: number; readonly body: Buffer }>;

/** What verifies a token: PEM. */
export type FindKey = (kid: string | undefined, algorithm: string) => Promise<string | undefined>;

export interface JwksParts {
  readonly fetchDocument: FetchDocument;
  readonly now: () => number;
  readonly onNews?: ((news: JwksNews) => void) | undefined;
}

/** The keys behind one JWKS address. */
export class JwksCache {
  readonly #addressOf: () => Promise<string>;
  readonly #parts: JwksParts;
  readonly #now: () => number;
  readonly #onNews: (news: JwksNews) => void;
  #keys = new Map<string | undefined, readonly VerifyingKey[]>();
  #cutOff = '';
  #fetchedAt = Number.NEGATIVE_INFINITY;
  #triedAt = Number.NEGATIVE_INFINITY;
  #hasFailed = false;
  #running: Promise<void> | undefined;

  /** `address` is where the keys are, or asks for that; asked again only until it has answered. */
  constructor(address: string | (() => Promise<string>), parts: JwksParts) {
    let known = typeof address === 'string' ? address : undefined;
    this.#addressOf = async () => (known ??= await (address as () => Promise<string>)());
    this.#parts = parts;
    this.#now = parts.now;
    this.#onNews = parts.onNews ?? (() => undefined);
  }

  /**
   * Asks for the keys before the first token comes; what fails is reported, and asked for again.
   */
  async warm(): Promise<void> {
    await this.#refresh();
  }

  /**
   * The PEM for a token's key id and algorithm, of a token without an id the one key that is for
   * the algorithm; undefined when there is no such key; identityProviderUnavailable when that
   * cannot be known.
   */
  async find(kid: string | undefined, algorithm: string): Promise<string | undefined> {
    const isKnown = this.#usable(kid, algorithm).length > 0;
    const age = this.#age(this.#fetchedAt);
    if (!isKnown || age > youngMs) {
      // A provider that has just failed does not hold up the tokens that can be verified without
      // it.
      const hasJustFailed = this.#hasFailed && this.#age(this.#triedAt) <= recentFailureMs;
      const refreshed = this.#refresh();
      if (!isKnown || (age > freshMs && !hasJustFailed)) await refreshed;
    }
    const keys = this.#usable(kid, algorithm);
    if (keys.length > 0 || !this.#hasFailed) return keyFor(algorithm, keys)?.pem;
    const waitMs = Math.max(0, coolDownAfterFailureMs - this.#age(this.#triedAt));
    throw new AppError(
      'identityProviderUnavailable',
      'The keys that verify tokens cannot be fetched.',
      { retryAfterSeconds: 1 + Math.floor(waitMs / 1000) },
    );
  }

  #usable(kid: string | undefined, algorithm: string): readonly VerifyingKey[] {
    if (this.#age(this.#fetchedAt) > usableMs) return [];
    if (kid !== undefined) return this.#keys.get(kid) ?? [];
    const fitting = [...this.#keys.values()]
      .flat()
      .filter(({ algorithms }) => algorithms.includes(algorithm));
    // SECURITY: a token is tried with one key, never with one after the other.
    return new Set(fitting.map(({ pem }) => pem)).size === 1 ? fitting : [];
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
    const left = [...this.#keys.keys()]
      .filter((kid) => !read.keys.has(kid))
      .map((kid) => kid ?? '');
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
    return readDocument(this.#parts.fetchDocument, await this.#addressOf());
  }
}

/**
 * The bytes of a document. SECURITY: 200 and nothing else; a redirect would name another address.
 */
async function readDocument(fetchDocument: FetchDocument, url: string): Promise<Buffer> {
  const { status, body } = await fetchDocument(url);
  if (status !== 200) throw new AnswerUnfit(`status${status}`);
  if (body.length > documentBytesMax) throw new AnswerUnfit('tooLarge');
  return body;
}

/**
 * Where an issuer says that its keys are (OpenID Connect Discovery 1.0, 4). SECURITY: the document
 * has to be the issuer's by its own word, and the address of the issuer's origin: whoever can
 * change the document must not send us elsewhere. Throws what JwksCache tells of.
 */
export async function discoverJwks(issuer: string, fetchDocument: FetchDocument): Promise<string> {
  const url = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
  const document = parseJson(await readDocument(fetchDocument, url));
  const { issuer: said, jwks_uri: address } = (
    typeof document === 'object' && document !== null ? document : {}
  ) as { issuer?: unknown; jwks_uri?: unknown };
  if (said !== issuer) throw new AnswerUnfit('discoveryIssuer');
  if (typeof address !== 'string' || !isPlainUrl(address))
    throw new AnswerUnfit('discoveryJwksUri');
  if (URL.parse(address)?.origin !== URL.parse(issuer)?.origin)
    throw new AnswerUnfit('discoveryOrigin');
  return address;
}

/** An http(s) URL that two readers would not read differently. */
const isPlainUrl = (text: string): boolean =>
  text.length <= 2_048 &&
  /^https?:\/\/[^/?#@%\\\s]+(?:[/?][^#\\\s\p{Cc}\p{Cs}]*)?$/u.test(text) &&
  URL.canParse(text);

/** A word for the log: a code of the system's, a rule of ours, or the error's name. */
function causeOf(error: unknown): string {
  if (error instanceof AnswerUnfit) return error.rule;
  if (error instanceof JsonRefused) return error.rule;
  const { cause, step, name } = error as {
    cause?: { code?: unknown };
    step?: unknown;
    name?: unknown;
  };
  const word = cause?.code ?? step ?? name;
  return typeof word === 'string' && /^[A-Za-z_0-9]{1,60}$/.test(word) ? word : 'unknown';
}

const named = (ids: readonly string[]): string[] =>
  ids.slice(0, namedMax).map((id) => id.slice(0, keyIdLengthMax));
