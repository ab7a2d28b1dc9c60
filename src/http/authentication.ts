// Who calls: an access token (JWT) in the Authorization header, its signature, issuer and audience
// checked by @fastify/jwt with pinned algorithms, its form, kind and times by us. Every bad token is
// 401; only an identity provider that does not answer is 503. Why a token was refused is for the
// log.
import { createPublicKey } from 'node:crypto';
import jwt from '@fastify/jwt';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { AppError } from '../shared/errors.ts';
import {
  type Principal,
  principalOf,
  readForm,
  type TokenType,
  tokenTypes,
} from './access-token.ts';
import { algorithmsFor, JwksCache, type JwksNews } from './jwks.ts';
import {
  type AskedClaim,
  type RefusalReason,
  refusalReasonOf,
  TokenRefused,
} from './token-refused.ts';
import { type TokenClaims, type TokenKey, VerifiedTokens } from './verified-tokens.ts';
import type { OnBehalfOf } from '../access/index.ts';

/** How tokens are verified: exactly one source of keys. */
export interface TokenVerification {
  readonly issuer: string;
  readonly audience: string;
  readonly source:
    | { readonly jwksUrl: string }
    | { readonly publicKey: string }
    | { readonly secret: string };
  /** What the header `typ` may say; without it everything that an access token may. */
  readonly types?: readonly TokenType[];
}

/** What the vault asks about tokens: who calls, and who a token that was handed over speaks of. */
export interface Authenticator {
  authenticate(request: FastifyRequest): Promise<Principal>;
  /** Throws subjectTokenInvalid. */
  verifySubjectToken(request: FastifyRequest, token: string): Promise<Principal>;
}

/** Who is told what happens around tokens, so that somebody can see it. */
export interface TokenNotes {
  readonly onJwks?: (news: JwksNews) => void;
  /** A caller's own token is told of by whoever asked for it. */
  readonly onSubjectTokenRefused?: (request: FastifyRequest, reason: RefusalReason) => void;
}

const ofProvider = ['RS256', 'PS256', 'ES256', 'ES384', 'ES512', 'EdDSA'];
const requiredClaims = ['iss', 'aud', 'exp', 'iat', 'sub'] as const;

/** Registers the verifier on the app and returns what asks it. */
export async function registerAuthentication(
  app: FastifyInstance,
  verification: TokenVerification,
  now: () => number,
  notes: TokenNotes = {},
): Promise<Authenticator> {
  const { source, types = tokenTypes } = verification;
  const jwks =
    'jwksUrl' in source ? new JwksCache(source.jwksUrl, now, { onNews: notes.onJwks }) : undefined;
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
  const rules = { isKidNeeded: jwks !== undefined, algorithms, types };
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
        if (pem === undefined) throw new TokenRefused('key');
        keys.set(request, { kid, algorithm, pem });
        return pem;
      }) as never),
    decode: { complete: true },
    decoratorName: 'jwtClaims',
    verify: {
      algorithms: algorithms as never,
      allowedIss: [verification.issuer],
      allowedAud: [verification.audience],
      requiredClaims: [...requiredClaims],
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
    const unverified = readForm(token, rules);
    const { sub, iat, exp, nbf, scope } = await (
      request.jwtVerify as (options?: object) => Promise<TokenClaims>
    )(options).catch((error: unknown) => {
      throw refusalOfVerifier(error, unverified, verification);
    });
    const claims = { sub, iat, exp, nbf, scope };
    verified.add(token, { claims, key: keys.get(request) });
    return claims;
  };
  const verify = async (
    request: FastifyRequest,
    token: string | undefined,
    options?: object,
  ): Promise<Principal> => {
    if (token === undefined)
      throw unauthenticated(
        request.headers.authorization === undefined ? undefined : new TokenRefused('form'),
      );
    try {
      return principalOf(await claimsOf(request, token, options), now() / 1000);
    } catch (error) {
      if (error instanceof AppError && error.code === 'identityProviderUnavailable') throw error;
      // SECURITY: whatever a hostile token makes the verifier throw is 401, never 500.
      throw unauthenticated(error instanceof TokenRefused ? error : new TokenRefused('form'));
    }
  };
  return {
    authenticate: (request) => verify(request, tokenOf(request)),
    verifySubjectToken: async (request, token) => {
      try {
        return await verify(request, token, { verify: { extractToken: () => token } });
      } catch (error) {
        if (!(error instanceof AppError) || error.code !== 'unauthenticated') throw error;
        notes.onSubjectTokenRefused?.(request, refusalReasonOf(error) ?? 'form');
        throw new AppError('subjectTokenInvalid', 'The subject token is not valid.', {
          errors: [{ pointer: '/subjectToken', rule: 'token' }],
        });
      }
    },
  };
}

const unauthenticated = (cause?: TokenRefused): AppError =>
  new AppError('unauthenticated', 'Send a valid token in the Authorization header.', { cause });

/**
 * Why the verifier refused. It looks at the signature first, so what the claims say is a reason
 * only where that held; its words are the only thing by which it tells the two apart.
 */
function refusalOfVerifier(
  error: unknown,
  claims: Readonly<Record<string, unknown>>,
  { issuer, audience }: TokenVerification,
): unknown {
  if (error instanceof AppError || error instanceof TokenRefused) return error;
  if (error instanceof Error && error.message.includes('signature'))
    return new TokenRefused('signature');
  if (claims['iss'] !== issuer) return new TokenRefused('issuer');
  const audiences: readonly unknown[] = Array.isArray(claims['aud'])
    ? claims['aud']
    : [claims['aud']];
  if (!audiences.includes(audience) || audiences.some((each) => typeof each !== 'string'))
    return new TokenRefused('audience');
  const missing = requiredClaims.find((name) => !Object.hasOwn(claims, name));
  return new TokenRefused(missing === undefined ? 'form' : `claim:${missing as AskedClaim}`);
}

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
