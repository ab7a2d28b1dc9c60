// What an access token looks like, before and beside its signature: its form, its kind, its claims
// and times. ID tokens, logout tokens and security events of the same provider have the same issuer
// and the same keys, and let nobody in.
import { parseJson } from '../shared/strict-json.ts';
import {
  clockToleranceSeconds,
  keyIdLengthMax,
  tokenLengthMax,
  tokenLifetimeSecondsMax,
} from '../shared/limits.ts';
import { type AskedClaim, TokenRefused } from './token-refused.ts';
import type { TokenClaims } from './verified-tokens.ts';

/**
 * What the header `typ` of an access token may say; `absent`: nothing at all. `at+jwt` stands for
 * its long form too.
 */
export const tokenTypes = ['absent', 'JWT', 'JOSE', 'at+jwt'] as const;
export type TokenType = (typeof tokenTypes)[number];

/** Who a valid token speaks of. */
export interface Principal {
  readonly sub: string;
  readonly scopes: readonly string[];
}

/** What is asked of a token's text before its key is looked for. */
export interface FormRules {
  readonly isKidNeeded: boolean;
  readonly algorithms: readonly string[];
  readonly types: readonly TokenType[];
}

const forbiddenHeaders = ['jku', 'jwk', 'x5u', 'x5c', 'crit', 'b64'];
const visibleAscii = /^[\x21-\x7e]{1,255}$/;
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
const signsOfOthers: readonly (readonly [AskedClaim, (value: unknown) => boolean])[] = [
  ['events', () => true],
  ['nonce', () => true],
  ['typ', (value) => ['ID', 'Refresh', 'Offline', 'Logout'].includes(value as string)],
  ['token_use', (value) => value === 'id'],
];

/**
 * The claims of a token whose form and kind are an access token's; nothing is verified yet. Refuses
 * what is not three canonical segments of plain JSON, header members that point at keys or must be
 * understood, and a key id that is no text. Throws TokenRefused, and what reading JSON throws.
 */
export function readForm(token: string, rules: FormRules): Readonly<Record<string, unknown>> {
  if (token.length > tokenLengthMax) throw new TokenRefused('size');
  const segments = token.split('.', 4);
  if (segments.length !== 3) throw new TokenRefused('form');
  const [header, claims] = segments.map(decode);
  if (!isObject(header) || !isObject(claims)) throw new TokenRefused('form');
  for (const name of forbiddenHeaders)
    if (Object.hasOwn(header, name)) throw new TokenRefused('form');
  const { kid, alg } = header;
  if (kid !== undefined && (typeof kid !== 'string' || kid.length > keyIdLengthMax))
    throw new TokenRefused('form');
  if (typeof alg !== 'string' || !rules.algorithms.includes(alg))
    throw new TokenRefused('algorithm');
  demandKind(header, claims, rules.types);
  if (kid === undefined && rules.isKidNeeded) throw new TokenRefused('key');
  return claims;
}

/** SECURITY: the signature of another kind of token of the same provider is as good as this one's. */
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
 * What the verifier does not ask: a subject that can be one, times that are numbers and make sense.
 * Throws TokenRefused.
 */
export function principalOf(
  { sub, iat, exp, nbf, scope }: TokenClaims,
  nowSeconds: number,
): Principal {
  if (typeof sub !== 'string' || !visibleAscii.test(sub)) throw new TokenRefused('claim:sub');
  if (!isTime(iat)) throw new TokenRefused('claim:iat');
  if (!isTime(exp)) throw new TokenRefused('claim:exp');
  if (nbf !== undefined && !isTime(nbf)) throw new TokenRefused('claim:nbf');
  const [soon, lately] = [nowSeconds + clockToleranceSeconds, nowSeconds - clockToleranceSeconds];
  if (exp <= lately) throw new TokenRefused('expired');
  if (iat > soon || (nbf !== undefined && nbf > soon)) throw new TokenRefused('notYet');
  if (exp - iat > tokenLifetimeSecondsMax) throw new TokenRefused('lifetime');
  return { sub, scopes: typeof scope === 'string' ? scope.split(' ') : [] };
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
