// Why no token is had. A closed list: what a provider says beyond it is dropped, its own words
// included.

/**
 * What a provider can answer for good: nothing is tried again before a person did something about
 * it.
 */
export const refusals = [
  'invalid_grant',
  'invalid_client',
  'unauthorized_client',
  'invalid_scope',
  'unsupported_grant_type',
  'invalid_request',
  'access_denied',
  'refused',
] as const;
/**
 * What of an answer cannot be used, by the vault's own words: no access token where it should
 * stand, one that is not of the form or that is another secret, a kind of token that the vault
 * cannot prove the possession of.
 */
export const unusables = ['accessTokenMissing', 'tokenForm', 'tokenType'] as const;
export type Unusable = (typeof unusables)[number];
/** Why the answer of an authorization is not believed to be of this provider (RFC 9207). */
export const mixUps = ['issuerMismatch', 'issuerMissing'] as const;
export type Refusal = (typeof refusals)[number] | Unusable | (typeof mixUps)[number];
/** What is remembered beside a credential. */
export type Failure = (typeof refusals)[number] | Unusable | 'undecryptable';
/** What is shown: the same, and an access token that is over without a refresh token. */
export const reasons = [...refusals, ...unusables, 'undecryptable', 'no_refresh_token'] as const;
export type Reason = (typeof reasons)[number];

/** What the provider's word comes to; undefined where trying again may help. */
export function providerRefusalOf(error: string): (typeof refusals)[number] | undefined {
  if (error === 'temporarily_unavailable' || error === 'server_error' || error === 'slow_down')
    return undefined;
  return refusals.find((each) => each === error) ?? 'refused';
}

/** What is stored of a failure: words of the first release, and a word beside them. */
export function failureColumns(failure: Failure | undefined): {
  readonly failure: string | null;
  readonly detail: string | null;
} {
  const detail = unusables.find((each) => each === failure);
  // A release that does not know the word sees a refusal.
  return { failure: detail === undefined ? (failure ?? null) : 'refused', detail: detail ?? null };
}

/** The provider refused; the reason is one of the list. Carries nothing that it said. */
export class ProviderRefused extends Error {
  readonly reason: Refusal;
  constructor(reason: Refusal) {
    super('the provider refused');
    this.name = 'ProviderRefused';
    this.reason = reason;
  }
}

/** The provider did not answer, or not as the standard says: later it may. */
export class ProviderUnavailable extends Error {
  constructor() {
    super('the provider gives no usable answer');
    this.name = 'ProviderUnavailable';
  }
}

/** There is no access token to be had for a use. */
export class NoAccessToken extends Error {
  readonly rule: 'notConnected' | 'refreshFailed' | 'refreshUnavailable' | 'rejectedByUpstream';
  constructor(rule: NoAccessToken['rule']) {
    super('there is no access token');
    this.name = 'NoAccessToken';
    this.rule = rule;
  }
}
