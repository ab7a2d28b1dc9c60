// The provider's token endpoint, spoken to by oauth4webapi over the vault's own egress. What comes
// back is a token or one of a few failures: nothing else that the provider says leaves this file.
import * as oauth from 'oauth4webapi';
import type { OAuthSettings } from '../credentials/service.ts';
import { Secret } from '../crypto/index.ts';
import { type Egress, EgressFailed } from '../egress/index.ts';
import { ProviderRefused, ProviderUnavailable, refusalOf } from './failures.ts';

export interface ProviderParts {
  readonly egress: Pick<Egress, 'request'>;
  readonly now: () => number;
}

/** A client at its provider, for one team. */
export interface ProviderClient {
  readonly team: string;
  readonly settings: OAuthSettings;
  readonly clientSecret: Secret<string | undefined>;
}

/** What a provider gave. */
export interface Grant {
  readonly tokens: Secret<{
    readonly accessToken: string;
    readonly refreshToken: string | undefined;
  }>;
  readonly expiresAt: Date | undefined;
}

/** Less than a claim of a refresh lasts. */
export const providerTimeoutMs = 10_000;
const responseBytesMax = 256 * 1024;
const lifetimeSecondsMax = 10 * 365 * 86_400;
/** What is read of an answer. No identity is asked for, and none is taken. */
const members = [
  'access_token',
  'token_type',
  'expires_in',
  'refresh_token',
  'scope',
  'error',
] as const;
/** What an access token may consist of (RFC 6749, A.12), so that it fits into a header as it is. */
const tokenForm = /^[\x20-\x7e]{1,65536}$/;

/**
 * Asks providers for tokens. Each question is one request; throws ProviderRefused or
 * ProviderUnavailable.
 */
export class Provider {
  readonly #parts: ProviderParts;
  constructor(parts: ProviderParts) {
    this.#parts = parts;
  }

  /**
   * A code for tokens. The answer of the authorization was checked by `checkAuthorizationAnswer`.
   */
  redeem(
    client: ProviderClient,
    answer: URLSearchParams,
    redirectUri: string,
    verifier: Secret<string>,
  ): Promise<Grant> {
    return this.#ask(client, ({ server, self, authentication, options }) =>
      // SECURITY: the code's verifier is exposed here, into the body of a request to the token
      // endpoint.
      oauth.authorizationCodeGrantRequest(
        server,
        self,
        authentication,
        answer,
        redirectUri,
        verifier.expose(),
        options,
      ),
    );
  }

  /** A refresh token for an access token, and perhaps for another refresh token. */
  refresh(client: ProviderClient, refreshToken: Secret<string>): Promise<Grant> {
    // SECURITY: the refresh token is exposed here, into the body of a request to the token
    // endpoint.
    return this.#ask(client, ({ server, self, authentication, options }) =>
      oauth.refreshTokenGrantRequest(server, self, authentication, refreshToken.expose(), options),
    );
  }

  /** An access token for the client itself. */
  clientCredentials(client: ProviderClient): Promise<Grant> {
    const { scope, parameters } = client.settings;
    const body = new URLSearchParams(parameters ?? '');
    if (scope !== undefined) body.set('scope', scope);
    return this.#ask(client, ({ server, self, authentication, options }) =>
      oauth.clientCredentialsGrantRequest(server, self, authentication, body, options),
    );
  }

  async #ask(
    client: ProviderClient,
    question: (of: Question) => Promise<Response>,
  ): Promise<Grant> {
    const at = this.#parts.now();
    const server = serverOf(client.settings);
    const self = { client_id: client.settings.clientId };
    const options = {
      [oauth.customFetch]: this.#fetch(client.team),
      [oauth.allowInsecureRequests]: true,
    }; // egress says where plain http may go
    try {
      const response = await question({
        server,
        self,
        authentication: authenticationOf(client),
        options,
      });
      return grantOf(await oauth.processGenericTokenEndpointResponse(server, self, response), at);
    } catch (error) {
      throw failureOf(error);
    }
  }

  #fetch(team: string) {
    return async (
      url: string,
      init: { method: string; headers: Record<string, string>; body: URLSearchParams },
    ): Promise<Response> => {
      const answer = await this.#parts.egress.request({
        url,
        method: init.method,
        headers: init.headers,
        body: init.body.toString(),
        team,
        timeoutMs: providerTimeoutMs,
        responseBytesMax,
      });
      return readable(answer.status, answer.body);
    };
  }
}

interface Question {
  readonly server: oauth.AuthorizationServer;
  readonly self: oauth.Client;
  readonly authentication: oauth.ClientAuth;
  readonly options: { [oauth.allowInsecureRequests]: boolean };
}

/**
 * The parameters of an authorization's answer, when they are from the provider that was asked:
 * `iss` is the one that is expected, and not missing where the settings name one. Throws
 * ProviderRefused.
 */
export function checkAuthorizationAnswer(
  settings: OAuthSettings,
  answer: { code: string; iss: string | undefined },
): URLSearchParams {
  const parameters = new URLSearchParams({
    code: answer.code,
    ...(answer.iss === undefined ? {} : { iss: answer.iss }),
  });
  // SECURITY: a code of another provider's must not be sent to this one (mix-up). Where no issuer
  // is named, one of the same origin is it.
  const issuer =
    settings.issuer ??
    (answer.iss !== undefined && originOf(answer.iss) === originOf(settings.authorizationUrl ?? '')
      ? answer.iss
      : 'https://issuer.invalid');
  const server = {
    ...serverOf(settings),
    issuer,
    authorization_response_iss_parameter_supported: settings.issuer !== undefined,
  };
  try {
    return oauth.validateAuthResponse(server, { client_id: settings.clientId }, parameters);
  } catch {
    throw new ProviderRefused('invalid_request');
  }
}

const originOf = (url: string): string | undefined => URL.parse(url)?.origin;

const serverOf = (settings: OAuthSettings): oauth.AuthorizationServer => ({
  issuer: settings.issuer ?? settings.tokenUrl,
  token_endpoint: settings.tokenUrl,
});

function authenticationOf({ settings, clientSecret }: ProviderClient): oauth.ClientAuth {
  // SECURITY: the client secret is exposed here, into a header or the body of a request to the
  // token endpoint.
  const secret = clientSecret.expose();
  if (secret === undefined) return oauth.None();
  return settings.clientAuthentication === 'body'
    ? oauth.ClientSecretPost(secret)
    : oauth.ClientSecretBasic(secret);
}

/**
 * The answer with what is read of it, as JSON; what is no JSON object has nothing to read. Some say
 * an error with status 200.
 */
function readable(status: number, body: Buffer): Response {
  let json: Record<string, unknown> = {};
  try {
    const value: unknown = JSON.parse(body.toString('utf8'));
    if (typeof value === 'object' && value !== null) json = value as Record<string, unknown>;
  } catch {
    // SECURITY: the error of JSON.parse quotes its input.
  }
  const read = Object.fromEntries(
    members.flatMap((name) =>
      json[name] === undefined || json[name] === null ? [] : [[name, json[name]]],
    ),
  );
  const isRefusal =
    typeof json['error'] === 'string' &&
    (status === 200 || (status >= 400 && status < 500 && status !== 408 && status !== 429));
  return new Response(JSON.stringify(read), {
    status: isRefusal ? 400 : status === 200 ? 200 : 502,
    headers: { 'content-type': 'application/json' },
  });
}

function grantOf(answer: oauth.TokenEndpointResponse, at: number): Grant {
  const { access_token: accessToken, refresh_token: refreshToken, expires_in: seconds } = answer;
  if (!tokenForm.test(accessToken) || (refreshToken !== undefined && !tokenForm.test(refreshToken)))
    throw new ProviderUnavailable();
  return {
    tokens: new Secret({ accessToken, refreshToken }),
    // Counted from before the question: too short is harmless. None at all says nothing.
    expiresAt:
      seconds === undefined || seconds < 1
        ? undefined
        : new Date(at + Math.min(seconds, lifetimeSecondsMax) * 1000),
  };
}

/** SECURITY: the library's errors carry the body of the answer; none is passed on, nor its text. */
function failureOf(error: unknown): Error {
  if (error instanceof ProviderUnavailable) return error;
  if (error instanceof oauth.ResponseBodyError) {
    const reason = refusalOf(error.error);
    return reason === undefined ? new ProviderUnavailable() : new ProviderRefused(reason);
  }
  if (
    error instanceof EgressFailed ||
    error instanceof oauth.OperationProcessingError ||
    error instanceof oauth.UnsupportedOperationError
  )
    return new ProviderUnavailable();
  return new TypeError('a question to a provider could not be put');
}
