// A real authorization server (oidc-provider) over TLS on loopback, and the browser of a person who
// logs in and consents there.
import Provider, { type Configuration } from 'oidc-provider';
import type { Egress } from '../../src/egress/index.ts';
import { egressTo, tlsUpstream, type Upstream } from './egress.ts';

interface Teardown {
  teardown(action: () => unknown): unknown;
}

export const platformPage = 'https://platform.test/connected?from=provider';
export const clientId = 'vault-client';
export const clientSecret = 'the client secret of the tests, not to be seen';
const host = 'id.test';

/** An answer as a provider sends it. */
export interface Dressed {
  readonly status?: number;
  readonly body: string | Buffer | object;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface AuthorizationServer {
  readonly issuer: string;
  readonly upstream: Upstream;
  /** An egress of a vault that may reach it; each vault closes its own. */
  egress(): Egress;
  /** What the token endpoint was asked, by grant. */
  readonly asked: Record<string, number>;
  /** What it answered with: every token that it ever gave. */
  readonly given: { accessTokens: string[]; refreshTokens: string[] };
  /** How it behaves at the token endpoint. */
  readonly behaviour: {
    delayMs: number;
    status: number | undefined;
    body: string | undefined;
    keepsRefreshToken: boolean;
    onToken: (() => Promise<void>) | undefined;
    /** What becomes of an answer on its way out; the tokens in it are real. */
    dress: ((issued: Record<string, unknown>, grant: string) => Dressed) | undefined;
  };
  /** Makes every refresh token that was given void. */
  revoke(): Promise<void>;
  /** The settings of a credential for it. */
  fields(more?: object): Record<string, unknown>;
  /** Goes where the vault says, logs in and consents; what came back to the platform's page. */
  visit(
    authorizationUrl: string,
    options?: { isAborted?: boolean },
  ): Promise<Record<string, string>>;
}

/** Starts it. Refresh tokens rotate and are good once, as OAuth 2.1 wants. */
export async function startAuthorizationServer(
  t: Teardown,
  {
    ttlSeconds = 3600,
    configuration = {},
  }: { ttlSeconds?: number; configuration?: Partial<Configuration> } = {},
): Promise<AuthorizationServer> {
  let handle: ReturnType<Provider['callback']> | undefined;
  const upstream = await tlsUpstream(t, host, (request, response) => {
    void handle!(request, response);
  });
  const issuer = upstream.url;
  const provider = new Provider(issuer, {
    clients: [
      {
        client_id: clientId,
        client_secret: clientSecret,
        redirect_uris: [platformPage],
        grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
        token_endpoint_auth_method: 'client_secret_basic',
      },
      {
        client_id: 'in-the-body',
        client_secret: clientSecret,
        redirect_uris: [platformPage],
        grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
        token_endpoint_auth_method: 'client_secret_post',
      },
      {
        client_id: 'public',
        redirect_uris: [platformPage],
        grant_types: ['authorization_code', 'refresh_token'],
        token_endpoint_auth_method: 'none',
      },
    ],
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: true },
      rpInitiatedLogout: { enabled: false },
    },
    pkce: { required: () => true },
    scopes: ['openid', 'offline_access', 'sheets'],
    ttl: {
      AccessToken: ttlSeconds,
      ClientCredentials: ttlSeconds,
      AuthorizationCode: 60,
      RefreshToken: 86_400,
      Grant: 86_400,
      Interaction: 600,
      Session: 600,
      IdToken: 600,
    },
    issueRefreshToken: async () => true,
    rotateRefreshToken: true,
    cookies: { keys: ['only for the tests'] },
    findAccount: async (_context, accountId) => ({
      accountId,
      claims: async () => ({ sub: accountId }),
    }),
    ...configuration,
  });
  const asked: AuthorizationServer['asked'] = {};
  const given: AuthorizationServer['given'] = { accessTokens: [], refreshTokens: [] };
  const behaviour: AuthorizationServer['behaviour'] = {
    delayMs: 0,
    status: undefined,
    body: undefined,
    keepsRefreshToken: false,
    onToken: undefined,
    dress: undefined,
  };
  const live: { destroy(): Promise<unknown> }[] = [];
  provider.on('refresh_token.saved', (token) => {
    live.push(token);
  });
  provider.use(async (context, next) => {
    if (context.path !== '/token') return next();
    if (behaviour.onToken !== undefined) await behaviour.onToken();
    if (behaviour.delayMs > 0)
      await new Promise((resolve) => {
        setTimeout(resolve, behaviour.delayMs);
      });
    if (behaviour.status !== undefined) {
      asked['answered as told'] = (asked['answered as told'] ?? 0) + 1;
      context.status = behaviour.status;
      context.type = 'application/json';
      context.body = behaviour.body ?? '';
      return undefined;
    }
    await next();
    const grant = String(
      (context as { oidc?: { params?: { grant_type?: string } } }).oidc?.params?.grant_type,
    );
    asked[grant] = (asked[grant] ?? 0) + 1;
    const body = context.body as { access_token?: string; refresh_token?: string };
    if (body.access_token !== undefined) given.accessTokens.push(body.access_token);
    if (body.refresh_token !== undefined) given.refreshTokens.push(body.refresh_token);
    if (behaviour.keepsRefreshToken && grant === 'refresh_token') delete body.refresh_token;
    if (behaviour.dress !== undefined && body.access_token !== undefined) {
      const { status, headers, body: dressed } = behaviour.dress({ ...body }, grant);
      context.status = status ?? context.status;
      context.body = dressed;
      context.set({ ...headers });
    }
    return undefined;
  });
  handle = provider.callback();
  const egress = (): Egress => egressTo(t, [upstream]);
  const browser = egress();
  return {
    issuer,
    upstream,
    egress,
    asked,
    given,
    behaviour,
    revoke: async () => {
      for (const token of live.splice(0)) await token.destroy();
    },
    fields: (more = {}) => ({
      authorizationUrl: `${issuer}/auth`,
      tokenUrl: `${issuer}/token`,
      clientId,
      clientSecret,
      scope: 'openid offline_access',
      parameters: 'prompt=consent',
      issuer,
      ...more,
    }),
    visit: (authorizationUrl, options = {}) => visit(browser, authorizationUrl, options),
  };
}

/** Follows redirects with cookies, answers what it is asked, and stops at the platform's page. */
export async function visit(
  browser: Egress,
  authorizationUrl: string,
  { isAborted = false }: { isAborted?: boolean } = {},
): Promise<Record<string, string>> {
  const cookies = new Map<string, string>();
  let next: { url: string; body?: string } = { url: authorizationUrl };
  for (let steps = 0; steps < 20; steps += 1) {
    const answer = await browser.request({
      url: next.url,
      method: next.body === undefined ? 'GET' : 'POST',
      team: 'browser',
      timeoutMs: 10_000,
      responseBytesMax: 1_000_000,
      headers: {
        cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; '),
        ...(next.body === undefined ? {} : { 'content-type': 'application/x-www-form-urlencoded' }),
      },
      ...(next.body === undefined ? {} : { body: next.body }),
    });
    for (const cookie of answer.headers.getSetCookie()) {
      const [name = '', value = ''] = cookie.split(';', 1)[0]!.split(/=(.*)/s);
      if (value === '') cookies.delete(name);
      else cookies.set(name, value);
    }
    const location = answer.headers.get('location');
    if (location === null) {
      const page = answer.body.toString('utf8');
      if (answer.status !== 200)
        throw new Error(`the provider answers ${answer.status}: ${page.slice(0, 500)}`);
      if (isAborted) {
        const abort = /href="([^"]+\/abort)"/.exec(page)?.[1] ?? '';
        next = { url: new URL(abort, next.url).href };
        continue;
      }
      const isLogin = page.includes('name="login"');
      next = {
        url: next.url,
        body: isLogin ? 'prompt=login&login=somebody&password=anything' : 'prompt=consent',
      };
      continue;
    }
    const url = new URL(location, next.url);
    if (url.href.startsWith(new URL(platformPage).origin))
      return Object.fromEntries(url.searchParams);
    next = { url: url.href };
  }
  throw new Error('the provider sends in circles');
}
