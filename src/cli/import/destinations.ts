// What of a foreign credential says where its key goes, and how that comes along: into the type's
// own field, as public fields of a `custom` one, or as hosts of the policy.
import {
  type CredentialType,
  type PublicValue,
  tlsWords,
  withoutVersion,
} from '../../credentials/index.ts';
import { numberText, isMembers } from './json-entries.ts';
import { allowedHostForm } from '../../shared/patterns.ts';

type Entry = readonly [name: string, value: unknown];

/** A value as one text, as it stands in the source. */
export function textIn(value: unknown): string {
  if (typeof value === 'string') return value;
  return numberText(value) ?? JSON.stringify(value) ?? '';
}
export const isEmpty = (value: unknown): boolean =>
  value === undefined || value === null || value === '';

const offWords = new Set([
  'false',
  'off',
  'no',
  'none',
  'default',
  'disable',
  'disabled',
  '[]',
  '{}',
]);
/** Where "no" switches something off that is on without it. */
const isGuard = (name: string): boolean =>
  /verif|check|reject|valid|strict|enforc|requir|host_?key/i.test(name) &&
  !/^(?:disable|ignore|skip|allow|no)[_A-Z]/.test(lastPart(name));
/** Whether a member says nothing: empty, off, or what is so by default. */
export const isOff = ([name, value]: Entry): boolean =>
  isEmpty(value) ||
  (offWords.has(textIn(value).trim().toLowerCase()) && !isGuard(name)) ||
  (/allowedHttpRequestDomains$/.test(name) && value === 'all');

const lastPart = (name: string): string => /[^.]*$/.exec(name)?.[0] ?? name;
/** Whether a member says that the connection is over TLS, or that it is not. */
export const isTls = (name: string): boolean =>
  /^(?:use[_-]?)?(?:ssl|tls)(?:[_-]?(?:mode|enabled))?$|^secure$/i.test(lastPart(name));

const placeNames = new RegExp(
  '(?:^|[_.-])(?:(?:base|api|server|host|instance|site|service|endpoint|' +
    'self_hosted)?_?ur[li]|api_?base|host|host_?name|server|endpoint|' +
    '(?:sub_?)?domain|instance|site|address|resource_?name)$',
);
const notPlaces = /redirect|callback|auth|token|hook|proxy|doc|jwks|issuer|ssh|allowed/;
/** Words of a name with underscores between, however they are put together. */
const words = (name: string): string => name.replace(/([a-z0-9])([A-Z])/g, '$1_$2').toLowerCase();
/** Whether a member says by its name where requests go. */
export const isPlaceName = (name: string): boolean =>
  placeNames.test(words(name)) && !notPlaces.test(words(lastPart(name)));

const hostForm =
  /^[\p{L}\p{N}](?:[\p{L}\p{N}._-]{0,251}[\p{L}\p{N}])?(?::\d{1,5})?$|^\[?[0-9A-Fa-f:.]{2,45}\]?$/u;
const looksRandom = (part: string): boolean =>
  part.length >= 20 && /\d/.test(part) && /[A-Za-z]/.test(part);
/** Whether a value can stand in the open as a place: nothing in it looks like a secret. */
export function isPlainPlace(value: unknown): value is string {
  if (typeof value !== 'string' || value.length > 2_048) return false;
  // A single word may be anything: a host has a dot, a port, or is well known.
  if (hostForm.test(value))
    return /[.:]|^localhost$/i.test(value) && !value.split('.').some(looksRandom);
  if (!/^https?:\/\/[^\s\\?#@\p{C}]+$/iu.test(value) || !URL.canParse(value)) return false;
  return !value.split('/').slice(3).some(looksRandom);
}

/** Members that say where the key goes, and that the type has no field for. */
export function strayPlaces(type: CredentialType, rest: readonly Entry[]): readonly Entry[] {
  return rest.filter(
    ([name, value]) =>
      isPlaceName(name) && !isOff([name, value]) && !isOwnPlace(type, textIn(value).trim()),
  );
}

/** Whether the type's requests go there anyway. */
function isOwnPlace({ broker }: CredentialType, text: string): boolean {
  if (broker?.upstream.kind !== 'fixed') return false;
  const plain = (url: string): string =>
    url
      .replace(/^https:\/\//i, '')
      .replace(/\/+$/, '')
      .toLowerCase();
  return plain(text) === plain(broker.upstream.baseUrl);
}

/** What `custom` is told to show: places that hold no secret, and the ports beside them. */
export function publicNames(data: readonly Entry[]): ReadonlySet<string> {
  const isKey = ([name, value]: Entry): boolean =>
    !isEmpty(value) && !isPlaceName(name) && !isOff([name, value]);
  if (!data.some(isKey)) return new Set();
  const places = data.filter(([name, value]) => isPlaceName(name) && isPlainPlace(value));
  const ports = data.filter(
    ([name, value]) => /^port$/i.test(lastPart(name)) && /^\d{1,5}$/.test(textIn(value)),
  );
  return new Set([...places, ...(places.length > 0 ? ports : [])].map(([name]) => name));
}

/**
 * A key of OpenAI's with a base URL: OpenAI's own, one that ends in its version, or a complete one
 * of a server that speaks its API in another place.
 */
export function openAiBase(url: string): { type: 'openai' | 'customLlm'; baseUrl: string } {
  const bare = withoutVersion(url);
  if (bare !== url) return { type: 'openai', baseUrl: bare };
  const isOpenAi = /^https:\/\/(?:[a-z0-9-]+\.)?api\.openai\.com\/*$/i.test(url);
  return isOpenAi
    ? { type: 'openai', baseUrl: url.replace(/\/+$/, '') }
    : { type: 'customLlm', baseUrl: url };
}

/** What a connection string says of TLS: undefined where it leaves it open. */
export function tlsOf(connectionString: string): PublicValue | undefined {
  const scheme = /^[a-z0-9+]+(?=:)/i.exec(connectionString)?.[0]?.toLowerCase() ?? '';
  const words = [
    ...connectionString.matchAll(/[?&; ](?:ssl[_-]?mode|ssl|tls|use_?ssl)\s*=\s*'?([\w-]+)/gi),
  ].map(([, word = '']) => tlsWords[word.toLowerCase()]);
  if (words.includes(false)) return false;
  if (words.includes(true)) return true;
  if (scheme === 'mongodb') return false;
  return scheme === 'mongodb+srv' ? true : undefined;
}

/**
 * The hosts that a credential of n8n is restricted to: undefined where it is not, `unfit` where one
 * is nothing that a policy can say.
 */
export function allowedHostsIn(
  data: Readonly<Record<string, unknown>>,
): readonly string[] | undefined | 'unfit' {
  const { allowedHttpRequestDomains: how, allowedDomains: domains } = data;
  if (isEmpty(domains) ? how !== 'domains' : how !== undefined && how !== 'domains')
    return undefined;
  if (isEmpty(domains)) return [];
  if (typeof domains !== 'string') return 'unfit';
  const hosts = domains
    .split(/[\s,;]+/)
    .filter((each) => each !== '')
    .map((each) => {
      if (/[/:@?#]/.test(each)) return each;
      const wild = each.startsWith('*.') ? '*.' : '';
      const url = URL.parse(`https://${each.slice(wild.length)}`);
      return url === null ? each : wild + url.hostname;
    });
  return hosts.length > 0 && hosts.every((host) => allowedHostForm.test(host))
    ? [...new Set(hosts)]
    : 'unfit';
}

/** What stands beside a key as a password and says nothing. */
const idleWords =
  /^(?:x+|-+|none|null|unused|ignored?|empty|blank|dummy|api[_-]?(?:key|token)|token|x-oauth-basic|password|pass)$/;
/** How keys begin. */
const keyPrefixes = new RegExp(
  '^(?:sk|pk|rk|key|api|apikey|tok|token|live|test|secret|pat|gh[opsu]|github_pat|' +
    'glpat|xox[a-z]|shpat|rnd|re|sg|ak|whsec|ntn|lin_api)[-_.]',
  'i',
);
/**
 * Whether what stands where a user name stands is a key: its password says nothing, or it looks so.
 */
export function isKeyAsUser(username: string, password: string | undefined): boolean {
  const says = (password ?? '').trim().toLowerCase();
  const isIdle = says.length <= 1 || idleWords.test(says);
  const looksLikeKey =
    keyPrefixes.test(username) ||
    (username.length >= 20 &&
      !/[@ ]/.test(username) &&
      /\d/.test(username) &&
      /[A-Za-z]/.test(username));
  return isIdle || looksLikeKey;
}

/** Every text in a value, with the names that lead to it. */
export function* textsIn(value: unknown, path: string): Generator<{ path: string; text: string }> {
  if (typeof value === 'string') yield { path, text: value };
  else if (Array.isArray(value))
    for (const [index, item] of value.entries()) yield* textsIn(item, `${path}/${index}`);
  else if (isMembers(value))
    for (const [name, member] of Object.entries(value)) yield* textsIn(member, `${path}/${name}`);
}
