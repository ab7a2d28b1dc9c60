// Who calls: a JWT in the Authorization header, its signature, issuer and audience checked by
// @fastify/jwt with pinned algorithms, its form and its times by us. Every bad token is 401; only
// an identity provider that does not answer is 503.
import { createPublicKey } from 'node:crypto';
import jwt from '@fastify/jwt';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { AppError } from '../shared/errors.ts';
import { parseJson } from './json.ts';
import { algorithmsFor, JwksCache } from './jwks.ts';
import {
  clockToleranceSeconds,
  keyIdLengthMax,
  tokenLengthMax,
  tokenLifetimeSecondsMax,
} from './limits.ts';
import { type TokenClaims, type TokenKey, VerifiedTokens } from './verified-tokens.ts';

/** How tokens are verified: exactly one source of keys. */
export interface TokenVerification {
  readonly issuer: string;
  readonly audience: string;
  readonly source:
    | { readonly jwksUrl: string }
    | { readonly publicKey: string }
    | { readonly secret: string };
}

/** Who a valid token speaks of. */
export interface Principal {
  readonly sub: string;
  readonly scopes: readonly string[];
}

/** What the vault asks about tokens: who calls, and who a token that was handed over speaks of. */
export interface Authenticator {
  authenticate(request: FastifyRequest): Promise<Principal>;
  /** Throws subjectTokenInvalid. */
  verifySubjectToken(request: FastifyRequest, token: string): Promise<Principal>;
}

const ofProvider = ['RS256', 'PS256', 'ES256', 'ES384', 'ES512', 'EdDSA'];
const requiredClaims = ['iss', 'aud', 'exp', 'iat', 'sub'];
const forbiddenHeaders = ['jku', 'jwk', 'x5u', 'x5c', 'crit', 'b64'];
const visibleAscii = /^[\x21-\x7e]{1,255}$/;

/** Registers the verifier on the app and returns what asks it. */
export async function registerAuthentication(
  app: FastifyInstance,
  verification: TokenVerification,
  now: () => number,
): Promise<Authenticator> {
  const { source } = verification;
  const jwks = 'jwksUrl' in source ? new JwksCache(source.jwksUrl, now) : undefined;
  // A bare PEM would be taken for a key to sign with too, and the plugin would not start.
  const fixedKey =
    'publicKey' in source
      ? { public: source.publicKey }
      : 'secret' in source
        ? source.secret
        : undefined;
  const algorithms =
    'publicKey' in source
      ? algorithmsFor(createPublicKey(source.publicKey))
      : 'secret' in source
        ? ['HS256']
        : ofProvider;
  // SECURITY: to the verifier an empty list means "whatever the key can".
  if (algorithms.length === 0)
    throw new TypeError('no algorithm is accepted for this kind of public key');
  const verified = new VerifiedTokens();
  /** The key under which a request's token is being verified. */
  const keys = new WeakMap<FastifyRequest, TokenKey>();
  await app.register(jwt, {
    secret:
      fixedKey ??
      ((async (
        request: FastifyRequest,
        { header: { kid, alg: algorithm } }: { header: { kid: string; alg: string } },
      ) => {
        const pem = await jwks?.find(kid, algorithm);
        if (pem === undefined) throw unauthenticated();
        keys.set(request, { kid, algorithm, pem });
        return pem;
      }) as never),
    decode: { complete: true },
    decoratorName: 'jwtClaims',
    verify: {
      algorithms: algorithms as never,
      allowedIss: [verification.issuer],
      allowedAud: [verification.audience],
      requiredClaims,
      // Times are looked at below, by the vault's own clock; the verifier knows only the system's.
      ignoreExpiration: true,
      ignoreNotBefore: true,
      cache: false,
      extractToken: tokenOf,
    },
  });

  // SECURITY: a key that the provider publishes no longer verifies nothing, whatever was verified
  // with it before.
  const isStillKey = async (key: TokenKey | undefined): Promise<boolean> =>
    key === undefined || (await jwks?.find(key.kid, key.algorithm)) === key.pem;
  const claimsOf = async (
    request: FastifyRequest,
    token: string,
    options?: object,
  ): Promise<TokenClaims> => {
    const known = verified.find(token);
    if (known !== undefined && (await isStillKey(known.key))) return known.claims;
    checkForm(token, jwks !== undefined);
    const { sub, iat, exp, nbf, scope } = await (
      request.jwtVerify as (options?: object) => Promise<TokenClaims>
    )(options);
    const claims = { sub, iat, exp, nbf, scope };
    verified.add(token, { claims, key: keys.get(request) });
    return claims;
  };
  const verify = async (
    request: FastifyRequest,
    token: string | undefined,
    options?: object,
  ): Promise<Principal> => {
    try {
      if (token === undefined) throw unauthenticated();
      return principalOf(await claimsOf(request, token, options), now() / 1000);
    } catch (error) {
      // SECURITY: whatever a hostile token makes the verifier throw is 401, never 500.
      throw error instanceof AppError && error.code === 'identityProviderUnavailable'
        ? error
        : unauthenticated();
    }
  };
  return {
    authenticate: (request) => verify(request, tokenOf(request)),
    verifySubjectToken: async (request, token) => {
      try {
        return await verify(request, token, { verify: { extractToken: () => token } });
      } catch (error) {
        if (!(error instanceof AppError) || error.code !== 'unauthenticated') throw error;
        throw new AppError('subjectTokenInvalid', 'The subject token is not valid.', {
          errors: [{ pointer: '/subjectToken', rule: 'token' }],
        });
      }
    },
  };
}

const unauthenticated = (): AppError =>
  new AppError('unauthenticated', 'Send a valid token in the Authorization header.');

/** The token of the one Authorization header; undefined when there is none or several. */
function tokenOf(request: FastifyRequest): string | undefined {
  const { rawHeaders } = request.raw;
  let headers = 0;
  // SECURITY: of several, node keeps the first and a proxy in front may have looked at the last.
  for (let at = 0; at < rawHeaders.length; at += 2)
    if (rawHeaders[at]?.toLowerCase() === 'authorization') headers += 1;
  return headers === 1
    ? /^Bearer +([^\s]+)$/i.exec(request.headers.authorization ?? '')?.[1]
    : undefined;
}

/**
 * Refuses what is not three canonical segments of plain JSON, header members that point at keys or
 * must be understood, and a key id that is no text.
 */
function checkForm(token: string, isKidNeeded: boolean): void {
  const segments = token.length <= tokenLengthMax ? token.split('.') : [];
  if (segments.length !== 3) throw unauthenticated();
  const [header, claims] = segments.map(decode);
  if (!isObject(header) || !isObject(claims)) throw unauthenticated();
  for (const name of forbiddenHeaders) if (Object.hasOwn(header, name)) throw unauthenticated();
  const { kid, alg } = header;
  if (typeof alg !== 'string') throw unauthenticated();
  if (kid === undefined ? isKidNeeded : typeof kid !== 'string' || kid.length > keyIdLengthMax)
    throw unauthenticated();
}

function decode(segment: string, index: number): unknown {
  const bytes = Buffer.from(segment, 'base64url');
  // Compared with its own encoding: the decoder takes spellings that differ and mean the same
  // bytes.
  if (bytes.length === 0 || bytes.toString('base64url') !== segment) throw unauthenticated();
  return index < 2 ? parseJson(bytes) : undefined;
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const isTime = (value: unknown): value is number =>
  typeof value === 'number' && Number.isFinite(value);

/**
 * What @fastify/jwt does not ask: a subject that can be one, times that are numbers and make sense.
 */
function principalOf({ sub, iat, exp, nbf, scope }: TokenClaims, nowSeconds: number): Principal {
  if (typeof sub !== 'string' || !visibleAscii.test(sub)) throw unauthenticated();
  if (!isTime(iat) || !isTime(exp) || (nbf !== undefined && !isTime(nbf))) throw unauthenticated();
  const [soon, lately] = [nowSeconds + clockToleranceSeconds, nowSeconds - clockToleranceSeconds];
  if (exp <= lately || iat > soon || (nbf !== undefined && nbf > soon)) throw unauthenticated();
  if (exp - iat > tokenLifetimeSecondsMax) throw unauthenticated();
  return { sub, scopes: typeof scope === 'string' ? scope.split(' ') : [] };
}

/** For whom an engine asks; `isProven` when that person's own token came with the request. */
export interface OnBehalfOf {
  readonly sub: string;
  readonly isProven: boolean;
}

/**
 * For whom the engine says it asks, and whether that is proven. A token that speaks of somebody
 * else is no proof of anything.
 */
export async function onBehalfOf(
  request: FastifyRequest,
  authenticator: Authenticator,
  body: { onBehalfOf?: string | undefined; subjectToken?: string | undefined },
): Promise<OnBehalfOf | undefined> {
  if (body.subjectToken === undefined)
    return body.onBehalfOf === undefined ? undefined : { sub: body.onBehalfOf, isProven: false };
  const { sub } = await authenticator.verifySubjectToken(request, body.subjectToken);
  if (body.onBehalfOf !== undefined && body.onBehalfOf !== sub) {
    throw new AppError('subjectTokenInvalid', 'The subject token speaks of somebody else.', {
      errors: [{ pointer: '/subjectToken', rule: 'subject' }],
    });
  }
  return { sub, isProven: true };
}
