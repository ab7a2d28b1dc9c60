// The test of each type over HTTP, against a local service that answers as the real one does: with
// its key, without it, and where there is nothing. What goes over the wire is real; only the host
// is another one.
import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import t, { type Test as Tap } from 'tap';
import { testHttp } from '../../src/connection-tests/http.ts';
import { TestFailed } from '../../src/connection-tests/report.ts';
import { credentialTypes } from '../../src/credentials/types/registry.ts';
import type { Egress, EgressRequest } from '../../src/egress/index.ts';
import { egressTo, tlsUpstream } from '../helpers/egress.ts';

const { version } = JSON.parse(
  readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
) as { version: string };
const key = 'key-0123456789abcdef';
const basic = (user: string, password: string): string =>
  `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`;

interface Service {
  readonly fields: Readonly<Record<string, string | number | boolean>>;
  /** Where the request has to go, and how. */
  readonly at: string;
  readonly method?: 'POST';
  readonly path: string;
  readonly headers: Readonly<Record<string, string | RegExp>>;
  readonly body?: RegExp;
  /** Its answer to the right key, and to another one. */
  readonly good: readonly [status: number, body?: string];
  readonly bad: readonly [status: number, body?: string];
  /** Answers that show that the key is known, though it may do less. */
  readonly narrower?: readonly [status: number, body?: string];
}
const bearer = { authorization: `Bearer ${key}` };

const services: Readonly<Record<string, Service | readonly Service[]>> = {
  openai: {
    fields: { apiKey: key, baseUrl: 'https://api.openai.com' },
    at: 'https://api.openai.com',
    path: '/v1/models',
    headers: bearer,
    good: [200, '{"object":"list","data":[]}'],
    bad: [401, '{"error":{"code":"invalid_api_key"}}'],
  },
  azureOpenai: [
    {
      fields: { apiKey: key, endpoint: 'https://acme.openai.azure.com/' },
      at: 'https://acme.openai.azure.com',
      path: '/openai/models?api-version=2024-10-21',
      headers: { 'api-key': key },
      good: [200, '{"data":[]}'],
      bad: [401, '{"error":{"code":"401"}}'],
    },
    {
      fields: { apiKey: key, endpoint: 'https://acme.openai.azure.com', apiVersion: '2025-01-01' },
      at: 'https://acme.openai.azure.com',
      path: '/openai/models?api-version=2025-01-01',
      headers: { 'api-key': key },
      good: [200, '{"data":[]}'],
      bad: [401],
    },
  ],
  google: {
    fields: { apiKey: key },
    at: 'https://generativelanguage.googleapis.com',
    path: '/v1beta/models',
    headers: { 'x-goog-api-key': key },
    good: [200, '{"models":[]}'],
    bad: [400, '{"error":{"status":"INVALID_ARGUMENT"}}'],
  },
  anthropic: {
    fields: { apiKey: key, baseUrl: 'https://api.anthropic.com' },
    at: 'https://api.anthropic.com',
    path: '/v1/models',
    headers: { 'x-api-key': key, 'anthropic-version': /^\d/ },
    good: [200, '{"data":[]}'],
    bad: [401, '{"type":"error"}'],
  },
  cohere: {
    fields: { apiKey: key },
    at: 'https://api.cohere.com',
    path: '/v1/models',
    headers: bearer,
    good: [200, '{"models":[]}'],
    bad: [401, '{"message":"invalid api token"}'],
  },
  customLlm: {
    fields: { apiKey: key, baseUrl: 'https://llm.example/v1' },
    at: 'https://llm.example',
    path: '/v1/models',
    headers: bearer,
    good: [200, '{"data":[]}'],
    bad: [401],
  },
  decision: {
    fields: { apiKey: key, baseUrl: 'https://jev.example/v1' },
    at: 'https://jev.example',
    path: '/v1/models',
    headers: bearer,
    good: [200, '{"data":[]}'],
    bad: [401],
  },
  pgvector: {
    fields: { embeddingApiKey: key },
    at: 'https://api.openai.com',
    path: '/v1/models',
    headers: bearer,
    good: [200, '{"data":[]}'],
    bad: [401],
  },
  telegram: {
    fields: { botToken: '123456:ABC-def' },
    at: 'https://api.telegram.org',
    path: '/bot123456:ABC-def/getMe',
    headers: {},
    good: [200, '{"ok":true,"result":{"is_bot":true}}'],
    bad: [404, '{"ok":false,"error_code":404,"description":"Not Found"}'],
  },
  slackBot: {
    fields: { botToken: key },
    at: 'https://slack.com',
    method: 'POST',
    path: '/api/auth.test',
    headers: bearer,
    good: [200, '{"ok":true,"team":"T"}'],
    bad: [200, '{"ok":false,"error":"invalid_auth"}'],
  },
  github: {
    fields: { apiKey: key, baseUrl: 'https://api.github.com' },
    at: 'https://api.github.com',
    path: '/user',
    headers: bearer,
    good: [200, '{"login":"octocat"}'],
    bad: [401, '{"message":"Bad credentials"}'],
    narrower: [403, '{"message":"Resource not accessible by integration"}'],
  },
  gitlab: {
    fields: { token: key, baseUrl: 'https://gitlab.example/gitlab' },
    at: 'https://gitlab.example',
    path: '/gitlab/api/v4/user',
    headers: { 'private-token': key },
    good: [200, '{"username":"ada"}'],
    bad: [401, '{"message":"401 Unauthorized"}'],
  },
  jira: [
    {
      fields: { email: 'ada@example.com', apiToken: key, baseUrl: 'https://acme.atlassian.net' },
      at: 'https://acme.atlassian.net',
      path: '/rest/api/2/myself',
      headers: { authorization: basic('ada@example.com', key) },
      good: [200, '{"accountId":"1"}'],
      bad: [401, 'Client must be authenticated to access this resource.'],
    },
    {
      fields: { apiToken: key, baseUrl: 'https://jira.example' },
      at: 'https://jira.example',
      path: '/rest/api/2/myself',
      headers: bearer,
      good: [200, '{"name":"ada"}'],
      bad: [401],
    },
  ],
  linear: {
    fields: { apiKey: key },
    at: 'https://api.linear.app',
    method: 'POST',
    path: '/graphql',
    headers: { authorization: key, 'content-type': 'application/json' },
    body: /viewer/,
    good: [200, '{"data":{"viewer":{"id":"1"}}}'],
    bad: [200, '{"errors":[{"extensions":{"code":"AUTHENTICATION_ERROR"}}]}'],
  },
  notion: {
    fields: { apiToken: key },
    at: 'https://api.notion.com',
    path: '/v1/users/me',
    headers: { ...bearer, 'notion-version': /^\d{4}-\d\d-\d\d$/ },
    good: [200, '{"object":"user"}'],
    bad: [401, '{"code":"unauthorized"}'],
  },
  grist: {
    fields: { apiKey: key, serverUrl: 'https://grist.example' },
    at: 'https://grist.example',
    path: '/api/orgs',
    headers: bearer,
    good: [200, '[]'],
    bad: [401, '{"error":"invalid API key"}'],
  },
  supabase: {
    fields: { key, url: 'https://x.supabase.co', schema: 'public' },
    at: 'https://x.supabase.co',
    path: '/rest/v1/',
    headers: { ...bearer, apikey: key },
    good: [200, '{"swagger":"2.0"}'],
    bad: [401, '{"message":"Invalid API key"}'],
  },
  sentry: {
    fields: { apiToken: key, baseUrl: 'https://sentry.io' },
    at: 'https://sentry.io',
    path: '/api/0/',
    headers: bearer,
    good: [200, '{"version":"0","auth":{"scopes":[]}}'],
    bad: [401, '{"detail":"Invalid token"}'],
  },
  elevenlabs: {
    fields: { apiKey: key },
    at: 'https://api.elevenlabs.io',
    path: '/v1/user',
    headers: { 'xi-api-key': key },
    good: [200, '{"subscription":{}}'],
    bad: [401, '{"detail":{"status":"invalid_api_key"}}'],
  },
  clickhouse: [
    {
      fields: { host: 'ch.example', port: 8443, username: 'default', password: key, secure: true },
      at: 'https://ch.example:8443',
      path: '/?query=SELECT%201',
      headers: { 'x-clickhouse-user': 'default', 'x-clickhouse-key': key },
      good: [200, '1\n'],
      bad: [403, 'Code: 516. DB::Exception: Authentication failed'],
    },
    {
      fields: { host: 'ch.example', port: 8123, username: 'default', secure: false },
      at: 'http://ch.example:8123',
      path: '/?query=SELECT%201',
      headers: { 'x-clickhouse-user': 'default' },
      good: [200, '1\n'],
      bad: [401],
    },
  ],
  stripe: {
    fields: { apiKey: key },
    at: 'https://api.stripe.com',
    path: '/v1/balance',
    headers: bearer,
    good: [200, '{"object":"balance"}'],
    bad: [401, '{"error":{"type":"invalid_request_error"}}'],
    narrower: [403, '{"error":{"message":"does not have the required permissions"}}'],
  },
  hubspot: {
    fields: { accessToken: key },
    at: 'https://api.hubapi.com',
    path: '/account-info/v3/details',
    headers: bearer,
    good: [200, '{"portalId":1}'],
    bad: [401, '{"category":"INVALID_AUTHENTICATION"}'],
  },
  twilio: [
    {
      fields: { accountSid: 'AC1', authToken: key },
      at: 'https://api.twilio.com',
      path: '/2010-04-01/Accounts/AC1.json',
      headers: { authorization: basic('AC1', key) },
      good: [200, '{"sid":"AC1"}'],
      bad: [401, '{"code":20003}'],
    },
    {
      fields: {
        accountSid: 'AC1',
        authToken: 'another-token',
        apiKeySid: 'SK1',
        apiKeySecret: key,
      },
      at: 'https://api.twilio.com',
      path: '/2010-04-01/Accounts/AC1.json',
      headers: { authorization: basic('SK1', key) },
      good: [200, '{"sid":"AC1"}'],
      bad: [401, '{"code":20003}'],
    },
  ],
  sendgrid: {
    fields: { apiKey: key },
    at: 'https://api.sendgrid.com',
    path: '/v3/scopes',
    headers: bearer,
    good: [200, '{"scopes":[]}'],
    bad: [401, '{"errors":[{"message":"authorization required"}]}'],
  },
  airtable: {
    fields: { token: key },
    at: 'https://api.airtable.com',
    path: '/v0/meta/whoami',
    headers: bearer,
    good: [200, '{"id":"usr1"}'],
    bad: [401, '{"error":{"type":"AUTHENTICATION_REQUIRED"}}'],
  },
  s3: [
    {
      fields: { accessKeyId: 'AKIA1', secretAccessKey: key, region: 'eu-central-1' },
      at: 'https://s3.eu-central-1.amazonaws.com',
      path: '/',
      headers: {
        authorization:
          /^AWS4-HMAC-SHA256 Credential=AKIA1\/\d{8}\/eu-central-1\/s3\/aws4_request, /,
        'x-amz-date': /^\d{8}T\d{6}Z$/,
      },
      good: [200, '<ListAllMyBucketsResult/>'],
      bad: [403, '<Error><Code>SignatureDoesNotMatch</Code></Error>'],
      narrower: [403, '<Error><Code>AccessDenied</Code></Error>'],
    },
    {
      fields: {
        accessKeyId: 'AKIA1',
        secretAccessKey: key,
        region: 'auto',
        endpoint: 'https://store.example:9000',
      },
      at: 'https://store.example:9000',
      path: '/',
      headers: { authorization: /\/auto\/s3\/aws4_request, / },
      good: [200, '<ListAllMyBucketsResult/>'],
      bad: [403, '<Error><Code>InvalidAccessKeyId</Code></Error>'],
    },
  ],
};

interface Stage {
  /** The service's answer, and what it was asked. */
  answer: readonly [status: number, body?: string];
  readonly asked: { request: IncomingMessage; body: string; origin: string }[];
  readonly egress: Egress;
}

/** A real server; requests for any host get there. */
async function stage(t: Tap): Promise<Stage> {
  const asked: Stage['asked'] = [];
  let origin = '';
  const set: { answer: Stage['answer'] } = { answer: [200] };
  const upstream = await tlsUpstream(t, 'service.test', (request, response) => {
    let body = '';
    request
      .on('data', (chunk: Buffer) => {
        body += chunk.toString();
      })
      .on('end', () => {
        asked.push({ request, body, origin });
        const [status, text = ''] = set.answer;
        response.writeHead(status).end(text);
      });
  });
  const real = egressTo(t, [upstream]);
  const egress = {
    request: (request: EgressRequest) => {
      origin = /^https?:\/\/[^/]+/.exec(request.url)?.[0] ?? '';
      return real.request({ ...request, url: upstream.url + request.url.slice(origin.length) });
    },
  } as unknown as Egress;
  return Object.assign(set, { asked, egress });
}

t.test('each test over HTTP asks as its service wants it, and reads what it says', async (t) => {
  const all = await stage(t);
  const tested = credentialTypes.filter(({ test }) => test?.kind === 'http');
  t.same(
    tested.map(({ name }) => name).sort(),
    Object.keys(services).sort(),
    'a service for each type with such a test',
  );
  for (const type of tested) {
    const { test } = type;
    if (test?.kind !== 'http') continue;
    for (const service of [services[type.name] ?? []].flat() as Service[]) {
      const outcome = async (answer: Service['good']): Promise<string> => {
        all.answer = answer;
        try {
          await testHttp(
            {
              egress: all.egress,
              team: 'payments',
              fields: service.fields,
              wire: { isTls: false },
              timeoutMs: 30_000,
              now: () => Date.parse('2026-12-01T00:00:00Z'),
            },
            type,
            { delivery: [], allowedHosts: ['elsewhere.test'] },
            test,
          );
          return 'ok';
        } catch (error) {
          if (error instanceof TestFailed) return `${error.step} ${error.outcome}`;
          throw error;
        }
      };
      all.asked.length = 0;
      t.equal(await outcome(service.good), 'ok', `${type.name} good`);
      const [{ request, body, origin } = { request: undefined, body: '', origin: '' }] = all.asked;
      t.equal(origin, service.at, type.name);
      t.match(
        request,
        { method: service.method ?? 'GET', url: service.path, headers: service.headers },
        type.name,
      );
      t.equal(request?.headers['user-agent'], `credential-vault/${version}`);
      t.match(body, service.body ?? /^$/, type.name);
      t.equal(await outcome(service.bad), 'login refused', `${type.name} bad`);
      if (service.narrower !== undefined)
        t.equal(await outcome(service.narrower), 'ok', `${type.name} narrower`);
      const isNotFound = service.bad[0] === 404 ? 'login refused' : 'login unexpected';
      t.equal(await outcome([404, 'not found']), isNotFound, `${type.name} 404`);
      for (const status of [302, 402, 405, 408, 410, 422, 429, 500, 503])
        t.equal(await outcome([status]), 'login unexpected', `${type.name} ${status}`);
      if (test.refusal !== undefined)
        t.equal(await outcome([200, '<html>']), 'login unexpected', `${type.name} no JSON`);
    }
  }
});
