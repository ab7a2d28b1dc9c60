// The authorization server of the tests in the place of one provider of the catalogue, at its hosts
// and paths, with its quirks: it refuses what the provider would not understand and answers as the
// provider does.
import type { IncomingMessage, ServerResponse } from 'node:http';
import Provider from 'oidc-provider';
import type { OAuthProvider, PlaceholderName } from '../../src/credentials/providers/define.ts';
import { clientSecret, platformPage } from './authorization-server.ts';

export interface ProviderServer {
  readonly handle: (request: IncomingMessage, response: ServerResponse) => void;
  /** What was asked wrongly; none, if the entry is right. */
  readonly complaints: string[];
  /** Every access token that was meant for the account, and the refreshes. */
  readonly given: string[];
  readonly refreshes: () => number;
}

/** The values of an entry's placeholders, as its examples have them. */
export const exampleValues = ({ placeholders = {} }: OAuthProvider): Record<string, string> =>
  Object.fromEntries(Object.entries(placeholders).map(([name, { example }]) => [name, example]));

/** An endpoint of an entry, put together by hand. */
export function endpointOf(
  entry: OAuthProvider,
  name: 'authorizationUrl' | 'tokenUrl' | 'refreshUrl',
  issuer: string,
): URL | undefined {
  if (entry.hasDiscovery === true)
    return name === 'refreshUrl'
      ? undefined
      : new URL(name === 'authorizationUrl' ? '/auth' : '/token', issuer);
  const template = entry[name];
  if (template === undefined) return undefined;
  const filled = template.replace(/\{(\w+)\}/g, (_, placeholder: PlaceholderName) => {
    const found = entry.placeholders![placeholder]!;
    return found.kind === 'word' ? found.words[found.example]! : found.example;
  });
  return new URL(filled);
}

/** The provider, for a client that is called `vault`. */
export function providerServer(entry: OAuthProvider, issuer: string): ProviderServer {
  const { quirks, answers, offlineScope, scopeSeparator = ' ' } = entry;
  const complaints: string[] = [];
  const given: string[] = [];
  let refreshes = 0;
  let isOffline = offlineScope === undefined;
  const [authorizationUrl, tokenUrl, refreshUrl] = (
    ['authorizationUrl', 'tokenUrl', 'refreshUrl'] as const
  ).map((name) => endpointOf(entry, name, issuer));
  const demand = (is: boolean, what: string): void => {
    if (!is) complaints.push(what);
  };
  const demandParameters = (sent: URLSearchParams, wanted: unknown, where: string): void => {
    for (const [name, value] of new URLSearchParams(String(wanted ?? '')))
      demand(sent.getAll(name).includes(value), `${where} lacks ${name}=${value}`);
  };

  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: 'vault',
        client_secret: clientSecret,
        redirect_uris: [platformPage],
        grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
        token_endpoint_auth_method:
          quirks.clientAuthentication === 'header' ? 'client_secret_basic' : 'client_secret_post',
      },
    ],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: true },
      rpInitiatedLogout: { enabled: false },
    },
    pkce: { required: () => quirks.pkce !== 'off' },
    scopes: ['openid', 'offline_access'],
    issueRefreshToken: async () => isOffline && answers.refreshToken !== 'none',
    rotateRefreshToken: answers.refreshToken !== 'keeps',
    cookies: { keys: ['only for the tests'] },
    findAccount: async (_context, accountId) => ({
      accountId,
      claims: async () => ({ sub: accountId }),
    }),
  });
  /** A person comes, with what the vault has put into the URL. */
  function authorize(request: IncomingMessage, url: URL): void {
    const { searchParams: sent } = url;
    demandParameters(sent, entry.parameters, 'the authorization');
    const name = String(quirks.scopeParameter ?? 'scope');
    const scopes = (sent.get(name) ?? '').split(scopeSeparator);
    demand(scopes.includes('one') && scopes.includes('two'), `the scopes are ${sent.get(name)}`);
    if (name !== 'scope') demand(!sent.has('scope'), 'a scope besides');
    isOffline = offlineScope === undefined || scopes.includes(offlineScope);
    if (quirks.pkce === 'off') demand(!sent.has('code_challenge'), 'a challenge');
    sent.set('scope', 'openid offline_access');
    sent.set('prompt', 'consent');
    sent.set('response_type', sent.get('response_type') ?? '');
    request.url = `/auth?${sent}`;
  }

  /** The vault asks for tokens. */
  async function token(request: IncomingMessage, url: URL): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString();
    const isJson = quirks.requestFormat === 'json';
    const type = String(request.headers['content-type']);
    demand(
      type.startsWith(isJson ? 'application/json' : 'application/x-www-form-urlencoded'),
      type,
    );
    const sent = new URLSearchParams(isJson ? JSON.parse(text) : text);
    const grant = sent.get('grant_type');
    const isRefresh = grant === 'refresh_token';
    demand(
      url.pathname === (isRefresh ? (refreshUrl ?? tokenUrl) : tokenUrl)?.pathname,
      `${grant} at ${url.pathname}`,
    );
    demand(url.search === tokenUrl?.search, `the query ${url.search}`);
    demandParameters(sent, quirks.tokenParameters, 'the token request');
    if (isRefresh) demandParameters(sent, quirks.refreshParameters, 'the refresh');
    else demandParameters(sent, quirks.exchangeParameters, 'the exchange');
    if (isRefresh && quirks.redirectUriOnRefresh === true)
      demand(sent.get('redirect_uri') === platformPage, 'the refresh lacks the redirect URI');
    if (!isRefresh && quirks.grantType !== undefined) {
      demand(grant === quirks.grantType, `the grant is ${grant}`);
      sent.set('grant_type', 'client_credentials');
    }
    sent.delete('scope');
    // What is parsed already is taken as it is.
    Object.assign(request, { body: Object.fromEntries(sent) });
    request.headers['content-type'] = 'application/x-www-form-urlencoded';
    request.url = '/token';
  }

  provider.use(async (context, next) => {
    await next();
    const body = context.body as Record<string, unknown> | undefined;
    if (context.path !== '/token' || typeof body?.['access_token'] !== 'string') {
      if (context.path === '/token') complaints.push(`refused: ${JSON.stringify(context.body)}`);
      return;
    }
    given.push(body['access_token']);
    const grant = (context as { oidc?: { params?: { grant_type?: string } } }).oidc?.params
      ?.grant_type;
    const isRefresh = grant === 'refresh_token';
    if (isRefresh) refreshes += 1;
    const { id_token: _, scope: __, ...issued } = body;
    if (answers.isWithoutLifetime === true) delete issued['expires_in'];
    if (answers.refreshToken === 'keeps' && isRefresh) delete issued['refresh_token'];
    const whole = {
      ...(answers.under === undefined || isRefresh
        ? issued
        : { access_token: 'a-bots-token-0123456789', [answers.under]: issued }),
      ...answers.members,
    };
    // Some answer as a form whatever they are asked for.
    context.body =
      answers.isForm === true
        ? new URLSearchParams(whole as Record<string, string>).toString()
        : whole;
    if (answers.isForm === true) context.type = 'application/x-www-form-urlencoded';
  });

  const handle = provider.callback();
  return {
    complaints,
    given,
    refreshes: () => refreshes,
    handle: (request, response) => {
      const url = new URL(request.url ?? '/', `https://${request.headers.host}`);
      // The port that it really listens on is not shown.
      request.headers.host = url.hostname;
      const isAt = (endpoint: URL | undefined): boolean =>
        endpoint?.hostname === url.hostname && endpoint.pathname === url.pathname;
      if (request.method === 'POST' && (isAt(tokenUrl) || isAt(refreshUrl)))
        void token(request, url).then(() => handle(request, response));
      else {
        if (request.method === 'GET' && isAt(authorizationUrl)) authorize(request, url);
        void handle(request, response);
      }
    },
  };
}
