// Who calls: a JWT in the Authorization header, checked by @fastify/jwt with pinned algorithms, and by us for what it lets
// through. Every bad token is 401; only an identity provider that does not answer is 503.
import { createPublicKey } from 'node:crypto';
import jwt from '@fastify/jwt';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { AppError } from '../shared/errors.ts';
import { algorithmsFor, JwksCache } from './jwks.ts';
import { clockToleranceSeconds, tokenLengthMax, tokenLifetimeSecondsMax } from './limits.ts';

/** How tokens are verified: exactly one source of keys. */
export interface TokenVerification {
  readonly issuer: string;
  readonly audience: string;
  readonly source: { readonly jwksUrl: string } | { readonly publicKey: string } | { readonly secret: string };
}

/** Who a valid token speaks of. */
export interface Principal { readonly sub: string; readonly scopes: readonly string[] }

/** What the vault asks about tokens: who calls, and who a token that was handed over speaks of. */
export interface Authenticator {
  authenticate(request: FastifyRequest): Promise<Principal>;
  /** Throws subjectTokenInvalid. */
  verifySubjectToken(request: FastifyRequest, token: string): Promise<Principal>;
}

const requiredClaims = ['iss', 'aud', 'exp', 'iat', 'sub'];
const forbiddenHeaders = ['jku', 'jwk', 'x5u', 'x5c', 'crit', 'b64'];
const segments = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;
const visibleAscii = /^[\x21-\x7e]{1,255}$/;

/** Registers the verifier on the app and returns what asks it. */
export async function registerAuthentication(app: FastifyInstance, verification: TokenVerification, now: () => number): Promise<Authenticator> {
  const { source } = verification;
  const jwks = 'jwksUrl' in source ? new JwksCache(source.jwksUrl, now) : undefined;
  const algorithms = jwks !== undefined ? ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA']
    : 'publicKey' in source ? algorithmsFor(createPublicKey(source.publicKey)) : ['HS256'];
  const fixedKey = 'publicKey' in source ? source.publicKey : 'secret' in source ? source.secret : undefined;
  await app.register(jwt, {
    secret: fixedKey ?? (async (_request: unknown, token: { header: { kid: string; alg: string } }) => {
      const pem = await jwks?.find(token.header.kid, token.header.alg);
      if (pem === undefined) throw unauthenticated();
      return pem;
    }) as never,
    decode: { complete: true },
    decoratorName: 'jwtClaims',
    verify: {
      algorithms: algorithms as never,
      allowedIss: [verification.issuer],
      allowedAud: [verification.audience],
      requiredClaims,
      clockTolerance: clockToleranceSeconds * 1000,
      cache: false,
      extractToken: tokenOf,
    },
  });

  const verify = async (request: FastifyRequest, token: string): Promise<Principal> => {
    checkHeader(token, jwks !== undefined);
    const claims: Record<string, unknown> = await request.jwtVerify({ verify: { extractToken: () => token } } as never);
    return principalOf(claims, now() / 1000);
  };
  return {
    authenticate: async (request) => {
      const token = tokenOf(request);
      if (token === undefined) throw unauthenticated();
      try {
        checkHeader(token, jwks !== undefined);
        return principalOf(await request.jwtVerify<Record<string, unknown>>(), now() / 1000);
      } catch (error) {
        throw refusal(error);
      }
    },
    verifySubjectToken: async (request, token) => {
      try {
        return await verify(request, token);
      } catch (error) {
        const refused = refusal(error);
        if (refused.code !== 'unauthenticated') throw refused;
        throw new AppError('subjectTokenInvalid', 'The subject token is not valid.', { errors: [{ pointer: '/subjectToken', rule: 'token' }] });
      }
    },
  };
}

const unauthenticated = (): AppError => new AppError('unauthenticated', 'Send a valid token in the Authorization header.');

/** SECURITY: whatever a hostile token makes the verifier throw is 401, never 500. */
function refusal(error: unknown): AppError {
  if (error instanceof AppError && error.code === 'identityProviderUnavailable') return error;
  return unauthenticated();
}

function tokenOf(request: FastifyRequest): string | undefined {
  const match = /^Bearer ([^\s]+)$/i.exec(request.headers.authorization ?? '');
  const token = match?.[1];
  return token !== undefined && token.length <= tokenLengthMax && segments.test(token) ? token : undefined;
}

/** Refuses header members that point at keys or that must be understood, and a key id that is not plain text. */
function checkHeader(token: string, isKidNeeded: boolean): void {
  if (token.length > tokenLengthMax || !segments.test(token)) throw unauthenticated();
  const header: unknown = JSON.parse(Buffer.from(token.slice(0, token.indexOf('.')), 'base64url').toString('utf8'));
  if (typeof header !== 'object' || header === null || Array.isArray(header)) throw unauthenticated();
  for (const name of forbiddenHeaders) if (name in header) throw unauthenticated();
  const { kid, alg } = header as { kid?: unknown; alg?: unknown };
  if (typeof alg !== 'string') throw unauthenticated();
  if (kid === undefined ? isKidNeeded : typeof kid !== 'string' || kid.length > 256) throw unauthenticated();
}

/** What @fastify/jwt does not ask: one audience-independent subject, times that are numbers and make sense. */
function principalOf(claims: Record<string, unknown>, nowSeconds: number): Principal {
  const { sub, iat, exp, scope } = claims;
  if (typeof sub !== 'string' || !visibleAscii.test(sub)) throw unauthenticated();
  if (typeof iat !== 'number' || typeof exp !== 'number' || !Number.isFinite(iat) || !Number.isFinite(exp)) throw unauthenticated();
  if (typeof claims['iss'] !== 'string') throw unauthenticated();
  if (iat > nowSeconds + clockToleranceSeconds) throw unauthenticated();
  if (exp - iat > tokenLifetimeSecondsMax || exp > nowSeconds + tokenLifetimeSecondsMax + clockToleranceSeconds) throw unauthenticated();
  return { sub, scopes: typeof scope === 'string' ? scope.split(' ') : [] };
}
