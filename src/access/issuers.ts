// Whose tokens count, and what their subjects may not, whatever any row says: each issuer has its
// keys, its rules and a prefix for its subjects. Pure: which issuer a subject is of, is known by
// the subject alone, so that the same is asked of a caller, of a person on whose behalf, and of a
// subject that somebody wants to let in.
import { AppError, invalid } from '../shared/errors.ts';
import { matchesPattern } from '../shared/wildcards.ts';
import { isClaimedSubject, subjectLengthMax } from '../shared/subjects.ts';

/**
 * What the header `typ` of an access token may say; `absent`: nothing at all. `at+jwt` stands for
 * its long form too.
 */
export const usualTypes = ['absent', 'JWT', 'JOSE', 'at+jwt'] as const;
export type TokenType = (typeof usualTypes)[number];

/** A public key that is fixed by the configuration; without `kid` it is the one that there is. */
export interface FixedKey {
  readonly kid: string | undefined;
  readonly pem: string;
  readonly algorithms: readonly string[];
}

/** Where the keys of an issuer come from: exactly one of them. */
export type KeySource =
  | { readonly kind: 'jwksUrl'; readonly url: string }
  | { readonly kind: 'discovery' }
  | { readonly kind: 'fixed'; readonly keys: readonly FixedKey[] }
  | { readonly kind: 'secret'; readonly secret: string };

/** What a claim may be asked to be. */
export type ClaimValue = string | number | boolean;

/** One issuer, with everything that is asked of its tokens. */
export interface Issuer {
  /** The `iss` of its tokens, exactly; undefined where they have none. */
  readonly issuer: string | undefined;
  readonly audiences: readonly string[];
  readonly keys: KeySource;
  /** Authorities, in PEM, that count for fetching its keys beside the usual ones. */
  readonly ca: string | undefined;
  readonly algorithms: readonly string[];
  /** What the header `typ` may say. */
  readonly types: readonly TokenType[];
  /** Which claim names the subject. */
  readonly subjectClaim: string;
  /** What stands before it in the vault; ends in `:`, or is empty. */
  readonly subjectPrefix: string;
  /** What the claim looks like. */
  readonly subjectPattern: string | undefined;
  /** Patterns of the slugs of teams in which its subjects may have rights; undefined is all. */
  readonly teams: readonly string[] | undefined;
  readonly scopeClaims: readonly string[];
  /** Claims that must have one of these values. */
  readonly require: ReadonlyMap<string, readonly ClaimValue[]>;
  readonly maxLifetimeSeconds: number;
  readonly clockToleranceSeconds: number;
  readonly isIatRequired: boolean;
  /** Whether the scope `vault:operate` of its tokens counts. */
  readonly areOperators: boolean;
  /** Of SPIFFE: its subjects are `spiffe://<trustDomain>/…`. */
  readonly trustDomain: string | undefined;
}

/** Why a subject has no right in a team, whatever the rows say. */
export type BoundsRefusal = 'unknownIssuer' | 'issuerTeams';

/** What is asked of a subject wherever a right is looked at. */
export interface SubjectBounds {
  /** Whether the subject is one of an issuer of today's. */
  isKnown(sub: string): boolean;
  /** Undefined where nothing keeps the subject from having rights in the team. */
  refusalIn(sub: string, slug: string): BoundsRefusal | undefined;
}

/** For one issuer without bounds. */
export const unbounded: SubjectBounds = { isKnown: () => true, refusalIn: () => undefined };

/**
 * For whoever lets a subject in. Throws issuerTeams where it could not have a right in the team,
 * invalidRequest where no token can speak of it.
 */
export function demandBounds(
  bounds: SubjectBounds,
  sub: string,
  slug: string,
  pointer: string,
): void {
  const refusal = bounds.refusalIn(sub, slug);
  if (refusal === 'unknownIssuer') throw invalid(pointer, 'issuer');
  if (refusal === 'issuerTeams')
    throw new AppError('issuerTeams', 'The issuer of this subject is kept to other teams.', {
      errors: [{ pointer, rule: 'issuerTeams' }],
    });
}

/** All issuers of a vault. */
export class Issuers implements SubjectBounds {
  readonly all: readonly Issuer[];
  readonly #byIss = new Map<string | undefined, Issuer>();
  readonly #prefixed: readonly Issuer[];
  readonly #plain: Issuer | undefined;

  /** Throws TypeError where two of them could make the same subject, or are the same. */
  constructor(issuers: readonly Issuer[]) {
    this.all = issuers;
    for (const issuer of issuers) {
      if (this.#byIss.has(issuer.issuer)) throw new TypeError('an issuer comes twice');
      this.#byIss.set(issuer.issuer, issuer);
    }
    this.#plain = issuers.find(({ subjectPrefix }) => subjectPrefix === '');
    this.#prefixed = issuers.filter((issuer) => issuer !== this.#plain);
    // SECURITY: whoever is let in by one issuer must not be able to be a subject of another.
    for (const each of issuers)
      for (const other of issuers)
        if (each !== other && prefixesMeet(each.subjectPrefix, other.subjectPrefix))
          throw new TypeError('a prefix of subjects is the beginning of another');
  }

  /**
   * The issuer that a token names; `iss` as it stands in the token, undefined where it does not.
   */
  find(iss: unknown): Issuer | undefined {
    return iss === undefined || typeof iss === 'string' ? this.#byIss.get(iss) : undefined;
  }

  /** What an issuer's claim is called here; undefined where it is no subject of that issuer's. */
  subjectOf(issuer: Issuer, claim: unknown): string | undefined {
    if (!isClaimedSubject(claim)) return undefined;
    const sub = `${issuer.subjectPrefix}${claim}`;
    // SECURITY: asked in the same way as of every subject: what another issuer's prefix begins, or
    // a pattern does not have, is not this one's.
    return sub.length <= subjectLengthMax && this.ofSubject(sub) === issuer ? sub : undefined;
  }

  /** The issuer of a subject; undefined where it is none of theirs. */
  ofSubject(sub: string): Issuer | undefined {
    const issuer =
      this.#prefixed.find(({ subjectPrefix }) => sub.startsWith(subjectPrefix)) ?? this.#plain;
    if (issuer === undefined) return undefined;
    const claim = sub.slice(issuer.subjectPrefix.length);
    const { subjectPattern, trustDomain } = issuer;
    if (!isClaimedSubject(claim)) return undefined;
    if (subjectPattern !== undefined && !matchesPattern(subjectPattern, claim)) return undefined;
    return trustDomain === undefined || isSpiffeId(claim, trustDomain) ? issuer : undefined;
  }

  isKnown(sub: string): boolean {
    return this.ofSubject(sub) !== undefined;
  }

  refusalIn(sub: string, slug: string): BoundsRefusal | undefined {
    const issuer = this.ofSubject(sub);
    if (issuer === undefined) return 'unknownIssuer';
    return issuer.teams === undefined || issuer.teams.some((each) => matchesPattern(each, slug))
      ? undefined
      : 'issuerTeams';
  }

  /** Whether the subject can be a platform operator: one who is kept to teams never is. */
  mayOperate(sub: string): boolean {
    const issuer = this.ofSubject(sub);
    return issuer !== undefined && issuer.teams === undefined;
  }
}

/**
 * Whether two issuers with these prefixes could make one subject. Of the one that has none,
 * subjects that begin with another's are refused one by one.
 */
export const prefixesMeet = (a: string, b: string): boolean =>
  a === b || (a !== '' && b !== '' && (a.startsWith(b) || b.startsWith(a)));

/** SPIFFE-ID 2: a trust domain, and a path of segments that are neither empty nor dots. */
function isSpiffeId(text: string, trustDomain: string): boolean {
  const start = `spiffe://${trustDomain}/`;
  return (
    text.startsWith(start) &&
    text
      .slice(start.length)
      .split('/')
      .every((segment) => /^[A-Za-z0-9._-]+$/.test(segment) && !/^\.{1,2}$/.test(segment))
  );
}

/**
 * An issuer as it was configured before there could be several: no prefix, and all rules as usual.
 */
export interface OneIssuer {
  readonly issuer: string;
  readonly audience: string;
  readonly keys: KeySource;
  readonly types?: readonly TokenType[] | undefined;
}

export const usualAlgorithms = ['RS256', 'PS256', 'ES256', 'ES384', 'ES512', 'EdDSA'] as const;
/** The ones that an entry may name. */
export const knownAlgorithms = [
  ...usualAlgorithms,
  'RS384',
  'RS512',
  'PS384',
  'PS512',
] as const satisfies readonly string[];
export const usualLifetimeSeconds = 24 * 60 * 60;
const usualToleranceSeconds = 5;
/** What an issuer is where its entry says nothing else. */
export const usualRules = {
  ca: undefined,
  algorithms: usualAlgorithms,
  types: usualTypes,
  subjectClaim: 'sub',
  subjectPrefix: '',
  subjectPattern: undefined,
  teams: undefined,
  scopeClaims: ['scope'],
  require: new Map<string, readonly ClaimValue[]>(),
  maxLifetimeSeconds: usualLifetimeSeconds,
  clockToleranceSeconds: usualToleranceSeconds,
  isIatRequired: true,
  areOperators: false,
  trustDomain: undefined,
} as const satisfies Omit<Issuer, 'issuer' | 'audiences' | 'keys'>;

/** The one issuer of a vault that has no file of issuers. */
export function issuerOf({ issuer, audience, keys, types }: OneIssuer): Issuer {
  return {
    ...usualRules,
    issuer,
    audiences: [audience],
    keys,
    types: types ?? usualTypes,
    algorithms: keys.kind === 'secret' ? ['HS256'] : usualAlgorithms,
    // An operator by scope is what these variables have always made.
    areOperators: true,
  };
}
