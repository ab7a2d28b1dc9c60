// The provider's token endpoint: the requests are oauth4webapi's, over the vault's own egress; the
// answers are read by ./answer.ts. Nothing else that the provider says leaves this file.
import * as oauth from 'oauth4webapi';
import { Secret } from '../crypto/index.ts';
import { type Egress, EgressFailed } from '../egress/index.ts';
import { type Issued, readAnswer, type Reading, type TokenAnswer } from './answer.ts';
import { providerBodyBytesMax } from './body.ts';
import { ProviderRefused, ProviderUnavailable } from './failures.ts';
import type { OAuthSettings } from '../credentials/index.ts';

export interface ProviderParts {
  readonly egress: Pick<Egress, 'request'>;
  readonly now: () => number;
  /** The page of the platform to which providers send people back. */
  readonly redirectUri: string | undefined;
}

/** A client at its provider, for one team. */
export interface ProviderClient {
  readonly team: string;
  readonly settings: OAuthSettings;
  readonly clientSecret: Secret<string | undefined>;
  readonly instance?: Reading['instance'];
}

/** Less than a claim of a refresh lasts. */
export const providerTimeoutMs = 10_000;
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
  ): Promise<Issued> {
    const { exchangeParameters, grantType, pkce } = client.settings;
    return this.#ask(
      client,
      { grantType, others: [] },
      ({ server, self, authentication, options }) =>
        // SECURITY: the code's verifier is exposed here, into the body of a request to the token
        // endpoint.
        oauth.authorizationCodeGrantRequest(
          server,
          self,
          authentication,
          answer,
          redirectUri,
          pkce === 'off' ? oauth.nopkce : verifier.expose(),
          { ...options, additionalParameters: merged(client.settings, exchangeParameters) },
        ),
    );
  }

  /** A refresh token for an access token, and perhaps for another refresh token. */
  refresh(client: ProviderClient, refreshToken: Secret<string>): Promise<Issued> {
    const { refreshParameters, redirectUriOnRefresh } = client.settings;
    const additionalParameters = merged(client.settings, refreshParameters);
    if (redirectUriOnRefresh === true) {
      const { redirectUri } = this.#parts;
      // Without it the provider would refuse for good what the configuration lacks.
      if (redirectUri === undefined) return Promise.reject(new ProviderUnavailable());
      additionalParameters.set('redirect_uri', redirectUri);
    }
    // SECURITY: the refresh token is exposed here, into the body of a request to the token
    // endpoint.
    const token = refreshToken.expose();
    return this.#ask(
      client,
      { grantType: undefined, others: [token], isRefresh: true },
      ({ server, self, authentication, options }) =>
        oauth.refreshTokenGrantRequest(server, self, authentication, token, {
          ...options,
          additionalParameters,
        }),
    );
  }

  /** An access token for the client itself. */
  clientCredentials(client: ProviderClient): Promise<Issued> {
    const { scope, scopeParameter, parameters, exchangeParameters, grantType } = client.settings;
    const body = new URLSearchParams(parameters ?? '');
    for (const [name, value] of merged(client.settings, exchangeParameters)) body.set(name, value);
    if (scope !== undefined) body.set(scopeParameter ?? 'scope', scope);
    return this.#ask(
      client,
      { grantType, others: [] },
      ({ server, self, authentication, options }) =>
        oauth.clientCredentialsGrantRequest(server, self, authentication, body, options),
    );
  }

  async #ask(
    client: ProviderClient,
    {
      grantType,
      others,
      isRefresh = false,
    }: {
      readonly grantType: string | undefined;
      readonly others: readonly string[];
      readonly isRefresh?: boolean;
    },
    question: (of: Question) => Promise<Response>,
  ): Promise<Issued> {
    const { settings, team, clientSecret } = client;
    const at = this.#parts.now();
    let answer: TokenAnswer | undefined;
    // The library makes the request; its answer is read here, so it gets an empty one.
    const ask = async (
      url: string,
      init: { method: string; headers: Record<string, string>; body: URLSearchParams },
    ): Promise<Response> => {
      if (grantType !== undefined) init.body.set('grant_type', grantType);
      const isJson = settings.requestFormat === 'json';
      answer = await this.#parts.egress.request({
        url,
        method: init.method,
        headers: isJson ? { ...init.headers, 'content-type': 'application/json' } : init.headers,
        body: isJson ? JSON.stringify(Object.fromEntries(init.body)) : init.body.toString(),
        team,
        timeoutMs: providerTimeoutMs,
        responseBytesMax: providerBodyBytesMax,
      });
      return new Response();
    };
    try {
      await question({
        server: {
          ...serverOf(settings),
          token_endpoint: (isRefresh ? settings.refreshUrl : undefined) ?? settings.tokenUrl,
        },
        self: { client_id: settings.clientId },
        authentication: authenticationOf(client),
        // The egress says where plain http may go.
        options: { [oauth.customFetch]: ask, [oauth.allowInsecureRequests]: true },
      });
    } catch (error) {
      throw failureOf(error);
    }
    if (answer === undefined)
      throw new TypeError('a request was sent to a provider outside its turn');
    // SECURITY: exposed to see that neither of them comes back as an access token.
    const secret = clientSecret.expose();
    return readAnswer(answer, {
      tokenPath: settings.tokenPath,
      isRefresh,
      instance: client.instance,
      others: new Secret([...others, ...(secret === undefined ? [] : [secret])]),
      at,
    });
  }
}

interface Question {
  readonly server: oauth.AuthorizationServer;
  readonly self: oauth.Client;
  readonly authentication: oauth.ClientAuth;
  readonly options: oauth.TokenEndpointRequestOptions;
}

/**
 * The parameters of an authorization's answer, when they are from the provider that was asked:
 * `iss` is the one that is expected, and not missing where the settings demand it. Throws
 * ProviderRefused.
 */
export function checkAuthorizationAnswer(
  settings: OAuthSettings,
  answer: { code: string; iss: string | undefined },
): URLSearchParams {
  const { issuer, issuerCheck, clientId } = settings;
  const { code, iss } = answer;
  // SECURITY: a code of another provider's must not be sent to this one (mix-up). Where no issuer
  // is named, one of the same origin is it.
  if (iss === undefined) {
    if (issuer !== undefined && issuerCheck !== 'ifSent')
      throw new ProviderRefused('issuerMissing');
  } else if (
    issuer === undefined
      ? originOf(iss) !== originOf(settings.authorizationUrl ?? '') || originOf(iss) === undefined
      : iss !== issuer
  ) {
    throw new ProviderRefused('issuerMismatch');
  }
  try {
    return oauth.validateAuthResponse(
      { ...serverOf(settings), issuer: iss ?? issuer ?? settings.tokenUrl },
      { client_id: clientId },
      new URLSearchParams({ code, ...(iss === undefined ? {} : { iss }) }),
    );
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
    : basic(secret, settings.basicEncoding === 'none' ? (text) => text : formEncoded);
}

/**
 * RFC 6749, 2.3.1, which encodes both halves as in a form; some providers decode nothing. The
 * library escapes what needs no escaping, which those would take as it stands.
 */
const basic =
  (secret: string, encode: (text: string) => string): oauth.ClientAuth =>
  (_server, { client_id: id }, _body, headers) => {
    const pair = Buffer.from(`${encode(id)}:${encode(secret)}`).toString('base64');
    headers.set('authorization', `Basic ${pair}`);
  };

/** Unreserved characters stay as they are. */
const formEncoded = (text: string): string =>
  encodeURIComponent(text)
    .replace(/[!'()*]/g, (each) => `%${each.charCodeAt(0).toString(16).toUpperCase()}`)
    .replaceAll('%20', '+');

/** What goes along with every token request, and with this one: the latter wins. */
function merged({ tokenParameters }: OAuthSettings, own: string | undefined): URLSearchParams {
  const all = new URLSearchParams(tokenParameters ?? '');
  const special = new URLSearchParams(own ?? '');
  for (const name of special.keys()) all.delete(name);
  for (const [name, value] of special) all.append(name, value);
  return all;
}

/** SECURITY: nothing of what is thrown beyond this file carries what a provider said. */
function failureOf(error: unknown): Error {
  if (error instanceof ProviderUnavailable) return error;
  return error instanceof EgressFailed
    ? new ProviderUnavailable()
    : new TypeError('cannot send a request to a provider');
}
