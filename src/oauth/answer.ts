// What a token endpoint's answer comes to. A 2xx answer with a string access token is a grant; no
// other member is judged. What was issued comes out even where part of it cannot be used, so that
// it is stored before anything else is thought about it.
import { Secret } from '../crypto/index.ts';
import { membersOf, type Members } from './body.ts';
import {
  ProviderRefused,
  ProviderUnavailable,
  providerRefusalOf,
  type Unusable,
} from './failures.ts';

/** What a provider issued. Without an access token that can be used, `failure` says why. */
export interface Issued {
  readonly tokens: Secret<{
    readonly accessToken: string | undefined;
    readonly refreshToken: string | undefined;
  }>;
  /** Undefined where no lifetime was said. */
  readonly expiresAt: Date | undefined;
  readonly failure: Unusable | undefined;
  /** What the provider calls the place of the account, under the suffix that it may lie under. */
  readonly instanceUrl: string | undefined;
}

/** An answer as it came. */
export interface TokenAnswer {
  readonly status: number;
  readonly headers: { get(name: string): string | null };
  readonly body: Buffer;
}

/** How an answer is read. */
export interface Reading {
  /** Where the access token stands; `access_token` without it. */
  readonly tokenPath: string | undefined;
  /** A refresh is of one token: some answer it at the top, whatever they do at an exchange. */
  readonly isRefresh?: boolean;
  /** A member that names the place of the account, and what its host has to end in. */
  readonly instance: { readonly member: string; readonly suffixes: readonly string[] } | undefined;
  /** What an access token must not be: the refresh token and the client secret that were sent. */
  readonly others: Secret<readonly string[]>;
  /** When it was asked, in milliseconds since 1970. */
  readonly at: number;
}

/** What fits into a header as it is. */
const tokenForm = /^[!-~]{1,16384}$/;
const lifetimeSecondsMin = 60;
const lifetimeSecondsMax = 10 * 365 * 86_400;
/** Statuses by which the endpoint itself refuses, whatever its body says. */
const refusing: ReadonlySet<number> = new Set([400, 401, 403, 422]);
const passing: ReadonlySet<number> = new Set([408, 425, 429]);
/**
 * Members whose values are no access tokens, wherever a path leads and however they are spelled.
 */
const otherSecrets: ReadonlySet<string> = new Set(['refreshtoken', 'idtoken', 'clientsecret']);

/** Throws ProviderRefused where nothing was issued, ProviderUnavailable where later it may be. */
export function readAnswer(answer: TokenAnswer, reading: Reading): Issued {
  const members = membersOf(answer.body, answer.headers.get('content-encoding'));
  if (answer.status < 200 || answer.status > 299) throw refusalOrLater(answer.status, members);
  if (members === undefined) throw new ProviderUnavailable();
  const issued = issuedBy(members, reading);
  const { failure } = issued;
  // SECURITY: asked whether there is one, and nothing else of it.
  if (failure === undefined || issued.tokens.expose().refreshToken !== undefined) return issued;
  const error = ownMember(members.root, 'error');
  throw failure === 'accessTokenMissing' && isSaid(error)
    ? wordOf(error)
    : new ProviderRefused(failure);
}

function refusalOrLater(status: number, members: Members | undefined): Error {
  if (status < 400 || status > 499 || passing.has(status)) return new ProviderUnavailable();
  const error = ownMember(members?.root ?? {}, 'error');
  return refusing.has(status) || isSaid(error) ? wordOf(error) : new ProviderUnavailable();
}

const isSaid = (error: unknown): boolean =>
  error !== undefined && error !== null && error !== false && error !== '' && error !== 0;

/** Its own word where it has one; some say themselves that it is for now. */
function wordOf(error: unknown): Error {
  const reason = typeof error === 'string' ? providerRefusalOf(error) : 'refused';
  return reason === undefined ? new ProviderUnavailable() : new ProviderRefused(reason);
}

function issuedBy({ root, repeated }: Members, reading: Reading): Issued {
  const said = (reading.tokenPath ?? 'access_token').split('.');
  const isMissing = ownMember(parentOf(root, said), said.at(-1)!) === undefined;
  const path = isMissing && reading.isRefresh === true ? ['access_token'] : said;
  const name = path.at(-1)!;
  const beside = parentOf(root, path);
  // What stands on top belongs to another token where there is one.
  const isAlone = beside === root || !isSaid(ownMember(root, 'access_token'));
  const companion = (member: string): unknown =>
    ownMember(beside, member) ?? (isAlone ? ownMember(root, member) : undefined);

  const refreshToken = formed(companion('refresh_token'), repeated.has('refresh_token'));
  const given = ownMember(beside, name);
  const isGiven = typeof given === 'string' && given !== '';
  const isRepeated = path.some((step) => repeated.has(step));
  const accessToken = formed(given, isRepeated);
  const failure = !isGiven
    ? 'accessTokenMissing'
    : accessToken === undefined || isAnotherSecret(accessToken, root, reading.others)
      ? 'tokenForm'
      : /^\s*(?:dpop|mac)\s*$/i.test(asText(companion('token_type')))
        ? 'tokenType'
        : undefined;
  return {
    tokens: new Secret({
      accessToken: failure === undefined ? accessToken : undefined,
      refreshToken,
    }),
    expiresAt: expiryOf(companion('expires_in'), reading.at),
    failure,
    instanceUrl: instanceOf(root, reading.instance),
  };
}

const parentOf = (
  root: Readonly<Record<string, unknown>>,
  path: readonly string[],
): Readonly<Record<string, unknown>> =>
  path
    .slice(0, -1)
    .reduce<Readonly<Record<string, unknown>>>((at, step) => objectOf(ownMember(at, step)), root);

// SECURITY: only what the object has itself; a name must not lead into what every object has.
const ownMember = (object: Readonly<Record<string, unknown>>, name: string): unknown =>
  Object.hasOwn(object, name) ? object[name] : undefined;
const objectOf = (value: unknown): Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};

/**
 * SECURITY: an object is never turned into text: it could say itself how, or have no end, and what
 * was issued beside it would be lost.
 */
const asText = (value: unknown): string => (typeof value === 'string' ? value : '');

/** SECURITY: two readers of an answer with two members of one name may take different ones. */
const formed = (value: unknown, isRepeated: boolean): string | undefined =>
  !isRepeated && typeof value === 'string' && tokenForm.test(value) ? value : undefined;

/** SECURITY: whatever the path says, a refresh token never leaves as an access token. */
function isAnotherSecret(
  token: string,
  root: Readonly<Record<string, unknown>>,
  others: Secret<readonly string[]>,
): boolean {
  // SECURITY: exposed to be compared, and to nothing else.
  if (others.expose().includes(token)) return true;
  const open: unknown[] = [root];
  for (let value = open.pop(); value !== undefined; value = open.pop()) {
    if (typeof value !== 'object' || value === null) continue;
    for (const [name, member] of Object.entries(value)) {
      if (member === token && otherSecrets.has(name.replaceAll(/[^a-z]/gi, '').toLowerCase()))
        return true;
      if (typeof member === 'object' && member !== null) open.push(member);
    }
  }
  return false;
}

/**
 * Counted from before the question: too short is harmless. Less than a second says nothing: some
 * mean by it that the token does not end.
 */
function expiryOf(value: unknown, at: number): Date | undefined {
  const seconds =
    typeof value === 'number'
      ? value
      : typeof value === 'string' && /^\s*\d+(?:\.\d+)?(?:e\+?\d+)?\s*$/i.test(value)
        ? Number(value)
        : Number.NaN;
  if (!Number.isFinite(seconds) || seconds < 1) return undefined;
  const lifetime = Math.min(Math.max(seconds, lifetimeSecondsMin), lifetimeSecondsMax);
  return new Date(at + lifetime * 1000);
}

/**
 * SECURITY: an origin under the suffix, and shown only; nothing that is answered becomes a host.
 */
function instanceOf(
  root: Readonly<Record<string, unknown>>,
  instance: Reading['instance'],
): string | undefined {
  if (instance === undefined) return undefined;
  const url = URL.parse(asText(ownMember(root, instance.member)));
  return url?.protocol === 'https:' &&
    /^[a-z0-9.-]{1,253}$/.test(url.hostname) &&
    url.port === '' &&
    instance.suffixes.some((suffix) => url.hostname.endsWith(suffix))
    ? `https://${url.hostname}`
    : undefined;
}
