// Who calls: an access token (JWT) in the Authorization header. The issuer that it names decides
// what verifies it: signature, issuer and audience are checked by @fastify/jwt with pinned
// algorithms, in a registration of that issuer's own; form, kind, claims and times by us. Every bad
// token is 401; only an identity provider that does not answer is 503. Why a token was refused is
// for the log.
import jwt from '@fastify/jwt';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { AppError } from '../shared/errors.ts';
import {
  demandIssuersKind,
  demandTimes,
  factsOf,
  issuerOfForm,
  type Principal,
  readForm,
  type TokenFacts,
} from './access-token.ts';
import type { FixedKey, Issuer, Issuers, OnBehalfOf } from '../access/index.ts';
import {
  discoverJwks,
  type FetchDocument,
  type FindKey,
  JwksCache,
  type JwksNews,
} from './jwks.ts';
import { type TokenRefusalReason, refusalReasonOf, TokenRefused } from './token-refused.ts';
import { type TokenKey, VerifiedTokens } from './verified-tokens.ts';

export type { Principal } from './access-token.ts';

/** What the vault asks about tokens: who calls, and who a token that was handed over speaks of. */
export interface Authenticator {
  authenticate(request: FastifyRequest): Promise<Principal>;
  /** Throws subjectTokenInvalid. */
  verifySubjectToken(request: FastifyRequest, token: string): Promise<Principal>;
  /** Reads the documents of issuers that are discovered, so that the first token finds them. */
  discover(): Promise<void>;
}

/** Who is told what happens around tokens, so that somebody can see it. */
export interface TokenNotes {
  readonly onJwks?: (news: JwksNews, issuer: Issuer) => void;
  /** A caller's own token is reported by the code that asked for it. */
  readonly onSubjectTokenRefused?: (request: FastifyRequest, reason: TokenRefusalReason) => void;
}

export interface AuthenticationParts {
  readonly issuers: Issuers;
  readonly now: () => number;
  /** How documents of this issuer are fetched: with its authorities, and nobody else's. */
  readonly fetchDocumentFor: (issuer: Issuer) => FetchDocument;
  readonly notes?: TokenNotes;
}

type Claims = Readonly<Record<string, unknown>>;

/** What verifies the tokens of one issuer. Nothing of it is shared with another. */
interface IssuerVerifier {
  /** Those that a key of the issuer's can be for. */
  readonly algorithms: readonly string[];
  readonly find: FindKey;
  /** Verifies signature, issuer and audience with this key; the claims. */
  readonly verify: (request: FastifyRequest, token: string, key: string) => Promise<Claims>;
  /** The keys come and go. */
  readonly arePublished: boolean;
  readonly discover: () => Promise<void>;
}

/** Registers the verifiers on the app and returns what asks them. */
export async function registerAuthentication(
  app: FastifyInstance,
  parts: AuthenticationParts,
): Promise<Authenticator> {
  const { issuers, now, notes = {} } = parts;
  const verifiers = new Map<Issuer, IssuerVerifier>();
  for (const [index, issuer] of issuers.all.entries())
    verifiers.set(issuer, await registerIssuer(app, issuer, `issuer${index}`, parts));
  const verifierOf = (issuer: Issuer): IssuerVerifier => verifiers.get(issuer)!;
  const verified = new VerifiedTokens();

  // SECURITY: a key that the provider publishes no longer verifies nothing, whatever was verified
  // with it before.
  const isStillKey = async (issuer: Issuer, key: TokenKey | undefined): Promise<boolean> =>
    key === undefined || (await verifierOf(issuer).find(key.kid, key.algorithm)) === key.pem;
  const factsIn = async (request: FastifyRequest, token: string): Promise<TokenFacts> => {
    const known = verified.find(token);
    if (known !== undefined && (await isStillKey(known.facts.issuer, known.key)))
      return known.facts;
    const form = readForm(token);
    const issuer = issuerOfForm(form, issuers);
    const { algorithms, find, verify, arePublished } = verifierOf(issuer);
    const { kid, algorithm } = demandIssuersKind(form, { algorithms, types: issuer.types });
    const pem = await find(kid, algorithm);
    if (pem === undefined) throw new TokenRefused('key');
    const claims = await verify(request, token, pem).catch((error: unknown) => {
      throw refusalOfVerifier(error, form.claims, issuer);
    });
    const facts = factsOf(claims, issuer, issuers);
    verified.add(token, { facts, key: arePublished ? { kid, algorithm, pem } : undefined });
    return facts;
  };
  const verify = async (request: FastifyRequest, token: string | undefined): Promise<Principal> => {
    if (token === undefined)
      throw unauthenticated(
        request.headers.authorization === undefined ? undefined : new TokenRefused('form'),
      );
    try {
      const facts = await factsIn(request, token);
      demandTimes(facts, now() / 1000);
      return facts;
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
        const principal = await verify(request, token);
        // SECURITY: a token that lives longer than a day does not prove that a person is present.
        if (principal.isEngineOnly === true) throw unauthenticated(new TokenRefused('lifetime'));
        return principal;
      } catch (error) {
        if (!(error instanceof AppError) || error.code !== 'unauthenticated') throw error;
        notes.onSubjectTokenRefused?.(request, refusalReasonOf(error) ?? 'form');
        throw new AppError('subjectTokenInvalid', 'The subject token is not valid.', {
          errors: [{ pointer: '/subjectToken', rule: 'token' }],
        });
      }
    },
    discover: async () => {
      await Promise.all([...verifiers.values()].map(({ discover }) => discover()));
    },
  };
}

async function registerIssuer(
  app: FastifyInstance,
  issuer: Issuer,
  namespace: string,
  { now, fetchDocumentFor, notes = {} }: AuthenticationParts,
): Promise<IssuerVerifier> {
  const jwks = jwksOf(issuer, {
    now,
    fetchDocument: fetchDocumentFor(issuer),
    onNews: (news) => {
      notes.onJwks?.(news, issuer);
    },
  });
  const fixed = issuer.keys.kind === 'fixed' ? issuer.keys.keys : [];
  const algorithms = issuer.algorithms.filter(
    (algorithm) =>
      issuer.keys.kind !== 'fixed' || fixed.some((key) => key.algorithms.includes(algorithm)),
  );
  // SECURITY: to the verifier an empty list means "whatever the key can".
  if (algorithms.length === 0)
    throw new TypeError('no algorithm is accepted for this kind of public key');
  const name = `${namespace}JwtVerify`;
  await app.register(jwt, {
    namespace,
    jwtVerify: name,
    // SECURITY: the key is handed in for each token; without one nothing verifies.
    secret: (async () => '') as never,
    decode: { complete: true },
    decoratorName: 'jwtClaims',
    verify: {
      algorithms: algorithms as never,
      ...(issuer.issuer === undefined ? {} : { allowedIss: [issuer.issuer] }),
      allowedAud: [...issuer.audiences],
      requiredClaims: [
        ...(issuer.issuer === undefined ? [] : ['iss']),
        ...requiredClaimsOf(issuer),
      ],
      // Times are looked at below, by the vault's own clock; the verifier knows only the system's.
      ignoreExpiration: true,
      ignoreNotBefore: true,
      cache: false,
    },
  });
  return {
    algorithms,
    find: findKeyOf(issuer, jwks),
    verify: (request, token, key) => {
      const verify = (request as unknown as Record<string, (options: object) => Promise<Claims>>)[
        name
      ]!;
      return verify.call(request, { verify: { extractToken: () => token, key } });
    },
    arePublished: jwks !== undefined,
    discover: async () => {
      if (issuer.keys.kind === 'discovery') await jwks?.warm();
    },
  };
}

/** In the order in which the lack of one is told. */
const requiredClaimsOf = ({ isIatRequired, subjectClaim }: Issuer): readonly string[] => [
  'aud',
  'exp',
  ...(isIatRequired ? ['iat'] : []),
  subjectClaim,
];

function findKeyOf({ keys }: Issuer, jwks: JwksCache | undefined): FindKey {
  if (keys.kind === 'secret') return async () => keys.secret;
  if (keys.kind === 'fixed')
    return async (kid, algorithm) => fixedKeyFor(keys.keys, kid, algorithm);
  return async (kid, algorithm) => jwks?.find(kid, algorithm);
}

function jwksOf(
  issuer: Issuer,
  parts: ConstructorParameters<typeof JwksCache>[1],
): JwksCache | undefined {
  const { keys } = issuer;
  if (keys.kind === 'jwksUrl') return new JwksCache(keys.url, parts);
  if (keys.kind !== 'discovery') return undefined;
  return new JwksCache(() => discoverJwks(issuer.issuer ?? '', parts.fetchDocument), parts);
}

/**
 * A key of the configuration: the one of that id, or without an id the only one that fits. One that
 * has no id itself is for tokens of every id.
 */
function fixedKeyFor(
  keys: readonly FixedKey[],
  kid: string | undefined,
  algorithm: string,
): string | undefined {
  const fitting = keys.filter(
    (key) =>
      key.algorithms.includes(algorithm) &&
      (kid === undefined || key.kid === undefined || key.kid === kid),
  );
  return fitting.length === 1 ? fitting[0]!.pem : undefined;
}

const unauthenticated = (cause?: TokenRefused): AppError =>
  new AppError('unauthenticated', 'Send a valid token in the Authorization header.', { cause });

/**
 * Why the verifier refused. It looks at the signature first, so what the claims say is a reason
 * only where that held; its words are the only thing by which it tells the two apart.
 */
function refusalOfVerifier(error: unknown, claims: Claims, issuer: Issuer): unknown {
  if (error instanceof AppError || error instanceof TokenRefused) return error;
  if (error instanceof Error && error.message.includes('signature'))
    return new TokenRefused('signature');
  const said: readonly unknown[] = Array.isArray(claims['aud']) ? claims['aud'] : [claims['aud']];
  if (
    !said.some((each) => issuer.audiences.includes(each as string)) ||
    said.some((each) => typeof each !== 'string')
  )
    return new TokenRefused('audience');
  const missing = requiredClaimsOf(issuer).find((name) => !Object.hasOwn(claims, name));
  return new TokenRefused(missing === undefined ? 'form' : `claim:${missing}`);
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
    throw new AppError('subjectTokenInvalid', 'The subject token belongs to somebody else.', {
      errors: [{ pointer: '/subjectToken', rule: 'subject' }],
    });
  }
  return { sub, isProven: true };
}
