// What an access token looks like, before and beside its signature: its form, its kind, its claims
// and times. ID tokens, logout tokens and security events of the same provider have the same issuer
// and the same keys, and let nobody in.
import type { ClaimValue, Issuer, Issuers, TokenType } from '../access/index.ts';
import { parseJson } from '../shared/strict-json.ts';
import { keyIdLengthMax, personLifetimeSecondsMax, tokenLengthMax } from '../shared/limits.ts';
import { TokenRefused } from './token-refused.ts';

/** Who a valid token speaks of. */
export interface Principal {
  readonly sub: string;
  readonly scopes: readonly string[];
  readonly issuer: Issuer;
  /** The token lives too long for a person's: it speaks of an engine, or of nobody. */
  readonly isEngineOnly?: true;
}

/** A token's text, taken apart; nothing of it is verified. */
export interface TokenForm {
  readonly header: Readonly<Record<string, unknown>>;
  readonly claims: Readonly<Record<string, unknown>>;
}

/** What never changes of a verified token: whom it speaks of, and its times. */
export interface TokenFacts extends Principal {
  readonly exp: number;
  readonly iat: number | undefined;
  readonly nbf: number | undefined;
}

const forbiddenHeaders = ['jku', 'jwk', 'x5u', 'x5c', 'crit', 'b64'];
const typeOf: ReadonlyMap<string, TokenType> = new Map([
  ['jwt', 'JWT'],
  ['jose', 'JOSE'],
  ['at+jwt', 'at+jwt'],
  ['application/at+jwt', 'at+jwt'],
]);

/**
 * By what a payload says that it is no access token: `events` (security events, logout tokens) and
 * `nonce` (ID tokens) whatever they hold, and the words of providers that name the kind in a claim
 * (Keycloak's `typ`, Cognito's `token_use`).
 */
const signsOfOthers: readonly (readonly [string, (value: unknown) => boolean])[] = [
  ['events', () => true],
  ['nonce', () => true],
  ['typ', (value) => ['ID', 'Refresh', 'Offline', 'Logout'].includes(value as string)],
  ['token_use', (value) => value === 'id'],
];

/**
 * The token in its parts. Refuses what is not three canonical segments of plain JSON, header
 * members that point at keys or must be understood, and a key id that is no text. Throws
 * TokenRefused, and what reading JSON throws.
 */
export function readForm(token: string): TokenForm {
  if (token.length > tokenLengthMax) throw new TokenRefused('size');
  const segments = token.split('.', 4);
  if (segments.length !== 3) throw new TokenRefused('form');
  const [header, claims] = segments.map(decode);
  if (!isObject(header) || !isObject(claims)) throw new TokenRefused('form');
  for (const name of forbiddenHeaders)
    if (Object.hasOwn(header, name)) throw new TokenRefused('form');
  const { kid } = header;
  if (kid !== undefined && (typeof kid !== 'string' || kid.length > keyIdLengthMax))
    throw new TokenRefused('form');
  return { header, claims };
}

/**
 * The issuer whose token it says it is. SECURITY: nothing is verified yet, and everything that
 * verifies it from here on is that issuer's alone.
 */
export function issuerOfForm({ claims }: TokenForm, issuers: Issuers): Issuer {
  const issuer = issuers.find(Object.hasOwn(claims, 'iss') ? (claims['iss'] ?? null) : undefined);
  if (issuer === undefined) throw new TokenRefused('issuer');
  return issuer;
}

/**
 * Under which key and algorithm it says it is signed. Refuses an algorithm and a kind of token that
 * the issuer's access tokens are not of.
 */
export function demandIssuersKind(
  { header, claims }: TokenForm,
  issuer: Pick<Issuer, 'algorithms' | 'types'>,
): { readonly kid: string | undefined; readonly algorithm: string } {
  const { alg, kid } = header;
  if (typeof alg !== 'string' || !issuer.algorithms.includes(alg))
    throw new TokenRefused('algorithm');
  demandKind(header, claims, issuer.types);
  return { kid: kid as string | undefined, algorithm: alg };
}

/**
 * SECURITY: the signature of another kind of token of the same provider is as good as this one's.
 */
function demandKind(
  header: Readonly<Record<string, unknown>>,
  claims: Readonly<Record<string, unknown>>,
  allowed: readonly TokenType[],
): void {
  const { typ } = header;
  const type = Object.hasOwn(header, 'typ')
    ? typeOf.get(typeof typ === 'string' ? typ.toLowerCase() : '')
    : 'absent';
  if (type === undefined || !allowed.includes(type)) throw new TokenRefused('type');
  for (const [claim, isSign] of signsOfOthers)
    if (Object.hasOwn(claims, claim) && isSign(claims[claim]))
      throw new TokenRefused(`claim:${claim}`);
}

/**
 * What the verifier does not ask of claims whose signature, issuer and audience hold: what the
 * issuer requires, a subject that can be one of the issuer's, times that are numbers. Throws
 * TokenRefused.
 */
export function factsOf(
  claims: Readonly<Record<string, unknown>>,
  issuer: Issuer,
  issuers: Issuers,
): TokenFacts {
  const own = (name: string): unknown => (Object.hasOwn(claims, name) ? claims[name] : undefined);
  for (const [name, values] of issuer.require)
    if (!hasValue(own(name), values)) throw new TokenRefused(`claim:${name}`);
  const { subjectClaim } = issuer;
  // SECURITY: an address that nobody has verified is whoever's who typed it in.
  if (subjectClaim === 'email' && own('email_verified') !== true)
    throw new TokenRefused('claim:email_verified');
  const sub = issuers.subjectOf(issuer, own(subjectClaim));
  if (sub === undefined) throw new TokenRefused(`claim:${subjectClaim}`);
  const [iat, exp, nbf] = ['iat', 'exp', 'nbf'].map(own);
  if (iat === undefined ? issuer.isIatRequired : !isTime(iat)) throw new TokenRefused('claim:iat');
  if (!isTime(exp)) throw new TokenRefused('claim:exp');
  if (nbf !== undefined && !isTime(nbf)) throw new TokenRefused('claim:nbf');
  const times = { exp, iat: iat as number | undefined, nbf };
  return {
    sub,
    scopes: issuer.scopeClaims.flatMap((name) => scopesIn(own(name))),
    issuer,
    ...(isLongLived(times, issuer) ? { isEngineOnly: true } : {}),
    ...times,
  };
}

/**
 * Whether the token is good at this time; what it is measured by is the issuer's. Throws
 * TokenRefused.
 */
export function demandTimes({ exp, iat, nbf, issuer }: TokenFacts, nowSeconds: number): void {
  const { clockToleranceSeconds, maxLifetimeSeconds } = issuer;
  const [soon, lately] = [nowSeconds + clockToleranceSeconds, nowSeconds - clockToleranceSeconds];
  if (exp <= lately) throw new TokenRefused('expired');
  if ((iat !== undefined && iat > soon) || (nbf !== undefined && nbf > soon))
    throw new TokenRefused('notYet');
  if (exp - (iat ?? nbf ?? nowSeconds) > maxLifetimeSeconds) throw new TokenRefused('lifetime');
}

/**
 * SECURITY: a token that is valid for longer than a day is left in files; it can be an engine's,
 * whose rights are few. Of one that does not say since when it has been good nothing better is
 * known than what its issuer may make.
 */
function isLongLived(
  { exp, iat, nbf }: Pick<TokenFacts, 'exp' | 'iat' | 'nbf'>,
  { maxLifetimeSeconds }: Issuer,
): boolean {
  const since = iat ?? nbf;
  return (since === undefined ? maxLifetimeSeconds : exp - since) > personLifetimeSecondsMax;
}

/** The value itself, or among the values of a list. */
function hasValue(claim: unknown, values: readonly ClaimValue[]): boolean {
  const held: readonly unknown[] = Array.isArray(claim) ? claim : [claim];
  return values.some((value) => held.includes(value));
}

/** Scopes stand in a text with blanks between them, or one by one in a list. */
function scopesIn(claim: unknown): readonly string[] {
  if (typeof claim === 'string') return claim.split(' ');
  return Array.isArray(claim)
    ? claim.filter((scope): scope is string => typeof scope === 'string')
    : [];
}

function decode(segment: string, index: number): unknown {
  const bytes = Buffer.from(segment, 'base64url');
  // Compared with its own encoding: the decoder takes spellings that differ and mean the same
  // bytes.
  if (bytes.length === 0 || bytes.toString('base64url') !== segment) throw new TokenRefused('form');
  return index < 2 ? parseJson(bytes) : undefined;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isTime = (value: unknown): value is number =>
  typeof value === 'number' && Number.isFinite(value);
