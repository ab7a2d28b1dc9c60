// The rules for single values of the configuration. Pure; a rule is a sentence about the value that
// never repeats it.
import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto';
import { BlockList, isIP, isIPv6 } from 'node:net';
import { visibleAsciiForm } from '../shared/patterns.ts';

/** A value breaks a rule; the message is the rule. */
export class ValueInvalid extends Error {}

const refuse = (rule: string): never => {
  throw new ValueInvalid(rule);
};

/** One of the words. */
export const oneOfWords =
  <T extends string>(...words: readonly T[]) =>
  (text: string): T =>
    words.find((word) => word === text) ?? refuse(`must be ${words.join(' or ')}`);

/** A whole number in plain decimal; `max` is one that a number holds exactly. */
export const integer =
  (min: number, max: number) =>
  (text: string): number => {
    const number = Number(text);
    return /^\d{1,16}$/.test(text) && number >= min && number <= max
      ? number
      : refuse(`must be a whole number from ${min} to ${max}`);
  };

/** A non-empty line of at most `max` characters, without control characters. */
export const oneLine =
  (max: number) =>
  (text: string): string =>
    text.length <= max && !/[\p{Cc}\p{Cs}]/u.test(text)
      ? text
      : refuse(`must be one line of at most ${max} characters`);

/** An address or a host name to listen on. */
export function listenHost(text: string): string {
  return isIP(text) !== 0 || /^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(text)
    ? text
    : refuse('must be an address or a host name');
}

/** Whether only this machine can reach it. */
export function isLoopback(host: string): boolean {
  const bare = host.replace(/^\[(.*)\]$/, '$1');
  return bare === 'localhost' || bare === '::1' || (isIP(bare) === 4 && bare.startsWith('127.'));
}

/**
 * Subjects, comma-separated: 1 to 512 printable ASCII characters each, blanks only inside, none
 * twice.
 */
export function subjects(text: string): readonly string[] {
  const list = text.split(',');
  if (!list.every((subject) => subject.length <= 512 && visibleAsciiForm.test(subject)))
    return refuse(
      'must be a comma-separated list of subjects, each 1 to 512 printable ASCII characters ' +
        'with blanks only inside',
    );
  return new Set(list).size === list.length ? Object.freeze(list) : refuse('names a subject twice');
}

/**
 * Addresses and CIDR blocks, comma-separated. A block of everything would let every caller choose
 * its own address.
 */
export function proxies(text: string): readonly string[] {
  const list = text.split(',');
  return list.every(isProxy)
    ? Object.freeze(list)
    : refuse(
        'must be a comma-separated list of exact addresses or CIDR blocks with a prefix from 8 ' +
          'bits on',
      );
}

function isProxy(entry: string): boolean {
  const [address = '', prefix, ...rest] = entry.split('/');
  if (isIP(address) === 0 || address.includes('%') || rest.length > 0) return false;
  const bits = isIPv6(address) ? 128 : 32;
  const ipv4InIpv6 = new BlockList();
  ipv4InIpv6.addSubnet('::ffff:0:0', 96, 'ipv6');
  const least = isIPv6(address) && ipv4InIpv6.check(address, 'ipv6') ? 96 + 8 : 8;
  return (
    prefix === undefined ||
    (/^\d{1,3}$/.test(prefix) && Number(prefix) >= least && Number(prefix) <= bits)
  );
}

/** An http or https URL without credentials, query, fragment or trailing slash. */
export function publicUrl(text: string): string {
  const url = parseUrl(text);
  if (
    url === undefined ||
    url.username !== '' ||
    url.password !== '' ||
    /[?#\s]/.test(text) ||
    text.endsWith('/')
  ) {
    return refuse(
      'must be an http or https URL without credentials, query, fragment or trailing slash',
    );
  }
  return text;
}

const labelOf = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?';
const suffixForm = new RegExp(`^(?:${labelOf}\\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$`);

/** A domain below which names are given out: a host name of two labels or more. */
export function hostSuffix(text: string): string {
  return text.length <= 200 && suffixForm.test(text)
    ? text
    : refuse('must be a lower-case domain of two labels or more, without a dot in front or behind');
}

/** Whether one of two host names is the other one or lies below it. */
export const isOneDomain = (a: string, b: string): boolean =>
  a === b || a.endsWith(`.${b}`) || b.endsWith(`.${a}`);

/** Where signing keys are fetched: https, plain http on loopback only. */
export function jwksUrl(text: string): string {
  const url = parseUrl(text);
  if (url === undefined || url.username !== '' || url.password !== '' || text.includes('#'))
    return refuse('must be an https URL without credentials or fragment');
  // SECURITY: whoever can change the answer on the way decides who is let in.
  if (url.protocol !== 'https:' && !isLoopback(url.hostname))
    return refuse('must be https outside loopback');
  return text;
}

/**
 * Where people come back to with a code in the query: https, plain http on loopback only; no
 * credentials, no fragment.
 */
export function redirectUri(text: string): string {
  const url = parseUrl(text);
  if (
    url === undefined ||
    url.username !== '' ||
    url.password !== '' ||
    /[#\s\\]/.test(text) ||
    text.length > 2_000
  )
    return refuse('must be an https URL without credentials or fragment');
  // SECURITY: the code in its query must not be read on the way.
  if (url.protocol !== 'https:' && !isLoopback(url.hostname))
    return refuse('must be https outside loopback');
  return text;
}

const jwtTypeOf = {
  absent: 'absent',
  jwt: 'JWT',
  jose: 'JOSE',
  'at+jwt': 'at+jwt',
  'application/at+jwt': 'at+jwt',
} as const;
export type JwtType = (typeof jwtTypeOf)[keyof typeof jwtTypeOf];

/** What the header `typ` of tokens may say, comma-separated, in letters of any case. */
export function jwtTypes(text: string): readonly JwtType[] {
  const known = new Map<string, JwtType>(Object.entries(jwtTypeOf));
  const list = text.split(',').map((word) => known.get(word.toLowerCase()));
  return list.every((type) => type !== undefined)
    ? Object.freeze([...new Set(list)])
    : refuse(`must be a comma-separated list out of ${Object.keys(jwtTypeOf).join(', ')}`);
}

function parseUrl(text: string): URL | undefined {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  return url !== undefined && (url.protocol === 'https:' || url.protocol === 'http:')
    ? url
    : undefined;
}

const rsaBitsMin = 2048;
const curves: ReadonlySet<string> = new Set(['prime256v1', 'secp384r1', 'secp521r1']);

/**
 * A public key as PEM (`BEGIN PUBLIC KEY`): RSA from 2048 bits on, P-256, P-384, P-521 or Ed25519.
 */
export function publicKeyPem(text: string): string {
  // SECURITY: createPublicKey takes a private key too and derives from it; a private key has no
  // place in this process.
  if (text.includes('PRIVATE KEY'))
    return refuse('must be a public key, and holds a private one: replace that key');
  if (!/^\s*-----BEGIN PUBLIC KEY-----/.test(text))
    return refuse('must be a public key in PEM (BEGIN PUBLIC KEY)');
  if (!parses(() => createPublicKey(text)))
    return refuse('must be a public key in PEM that can be parsed');
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = createPublicKey(text);
  if (type === 'ed25519' || (type === 'ec' && curves.has(details?.namedCurve ?? ''))) return text;
  if (type === 'rsa')
    return (details?.modulusLength ?? 0) >= rsaBitsMin
      ? text
      : refuse(`must have at least ${rsaBitsMin} bits`);
  return refuse('must be an RSA, P-256, P-384, P-521 or Ed25519 key');
}

/** A certificate chain as PEM. */
export function certificatePem(text: string): string {
  if (text.includes('PRIVATE KEY')) return refuse('must be a certificate chain without its key');
  return parses(() => new X509Certificate(text))
    ? text
    : refuse('must be a certificate chain in PEM');
}

/** Certificates of authorities as PEM, one after the other. */
export function authoritiesPem(text: string): string {
  if (text.includes('PRIVATE KEY')) return refuse('must be certificates without a key');
  const certificates =
    text.match(/-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g) ?? [];
  if (
    certificates.length === 0 ||
    !certificates.every((one) => parses(() => new X509Certificate(one)))
  )
    return refuse('must be certificates in PEM');
  return certificates.every((one) => new X509Certificate(one).ca)
    ? text
    : refuse('must be certificates of authorities (CA:TRUE)');
}

/** A private key as PEM, not encrypted. */
export function privateKeyPem(text: string): string {
  return parses(() => createPrivateKey(text))
    ? text
    : refuse('must be an unencrypted private key in PEM');
}

/** Whether the certificate is for the key; both have passed their rules. */
export function isPair(certificate: string, key: string): boolean {
  return new X509Certificate(certificate).checkPrivateKey(createPrivateKey(key));
}

function parses(action: () => unknown): boolean {
  try {
    action();
    return true;
  } catch {
    return false; // the reason would quote the text
  }
}

const secretBytesMin = 32;
const distinctBytesMin = 8;

/**
 * A shared secret for HMAC. Refuses what is short or visibly not random; it cannot prove
 * randomness.
 */
export function hmacSecret(text: string): string {
  const bytes = Buffer.from(text);
  if (bytes.length < secretBytesMin) return refuse(`must have at least ${secretBytesMin} bytes`);
  // The second half of a doubled text finds it at an offset below its length exactly when the text
  // repeats a shorter one.
  const isPeriodic = (text + text).indexOf(text, 1) < text.length;
  return new Set(bytes).size >= distinctBytesMin && !isPeriodic
    ? text
    : refuse('is too regular to be random');
}

const rootKeysMax = 16;

/**
 * Root keys, comma-separated, the primary first: each 44 characters, the padded urlsafe base64 of
 * 32 random bytes.
 */
export function rootKeys(text: string): string {
  const list = text.split(',');
  if (list.length > rootKeysMax) return refuse(`may hold at most ${rootKeysMax} keys`);
  for (const [index, key] of list.entries()) {
    const bytes = Buffer.from(key, 'base64url');
    // Compared with its own encoding: a decoder takes spellings that differ and mean the same
    // bytes.
    if (!/^[A-Za-z0-9_-]{43}=$/.test(key) || `${bytes.toString('base64url')}=` !== key)
      return refuse(
        `has a key at position ${index + 1} that is not 44 characters of padded urlsafe base64`,
      );
    if (new Set(bytes).size < distinctBytesMin)
      return refuse(
        `has a key at position ${index + 1} that is too regular to be random: make one with ` +
          `generate-key`,
      );
    if (list.indexOf(key) !== index)
      return refuse(`has the same key at positions ${list.indexOf(key) + 1} and ${index + 1}`);
  }
  return text;
}
