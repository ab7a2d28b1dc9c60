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
export type Refusal = (typeof refusals)[number];
/** What is remembered beside a credential. */
export type Failure = Refusal | 'undecryptable';
/** What is shown: the same, and an access token that is over without a refresh token. */
export const reasons = [...refusals, 'undecryptable', 'no_refresh_token'] as const;
export type Reason = (typeof reasons)[number];

/** What the provider's word comes to; undefined where trying again may help. */
export function refusalOf(error: string): Refusal | undefined {
  if (error === 'temporarily_unavailable' || error === 'server_error' || error === 'slow_down')
    return undefined;
  return refusals.find((each) => each === error) ?? 'refused';
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
  readonly rule: 'notConnected' | 'refreshFailed' | 'refreshUnavailable';
  constructor(rule: NoAccessToken['rule']) {
    super('there is no access token');
    this.name = 'NoAccessToken';
    this.rule = rule;
  }
}
