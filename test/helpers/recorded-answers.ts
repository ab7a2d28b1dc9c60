// What a running vault answers, by the name of the answer's schema: the examples of openapi.yaml.
// What differs from run to run (ids, times, keys, ciphertexts) is replaced by values that don't.
import { hash } from 'node:crypto';
import { generateEngineKey } from '../../src/client/index.ts';
import { platformPage, startAuthorizationServer } from './authorization-server.ts';
import { askTicket } from './broker.ts';
import { egressTo, tlsUpstream } from './egress.ts';
import { askLease, demand } from './leases.ts';
import { callbackOf } from './oauth.ts';
import { until } from './processes.ts';
import { startVault } from './vault.ts';
import { startReceiver } from './webhooks.ts';

interface Teardown {
  teardown(action: () => unknown): unknown;
}

/** Does what a team does in its first hours, and returns an answer of each kind. */
export async function recordAnswers(t: Teardown): Promise<Record<string, unknown>> {
  const startedAt = Date.now();
  const upstream = await tlsUpstream(t, 'upstream.test', (_request, response) => {
    response.setHeader('content-type', 'application/json').end('{"data":[]}');
  });
  const receiver = await startReceiver(t);
  const provider = await startAuthorizationServer(t, { ttlSeconds: 3600 });
  const vault = await startVault(t, {
    egress: egressTo(t, [upstream, receiver, provider.upstream]),
    oauthRedirectUri: platformPage,
    brokerUrl: () => 'https://broker.example',
  });
  const answers: Record<string, unknown> = {};
  const ok = async (
    as: string | null,
    method: string,
    url: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<any> => {
    const { status, text, json } = await vault.call(as, method, url, body, headers);
    if (status >= 400) throw new Error(`${method} ${url} as ${as}: ${status} ${text}`);
    return json;
  };
  const ofTeam = '/v1/teams/payments';
  const credentials = `${ofTeam}/credentials`;

  answers['Team'] = await ok('operator', 'POST', '/v1/teams', {
    slug: 'payments',
    name: 'Payments',
    admins: ['alice'],
  });
  await ok('operator', 'POST', '/v1/teams', { slug: 'billing', name: 'Billing', admins: ['bob'] });
  answers['Member'] = await ok('alice', 'PUT', `${ofTeam}/members/eddie`, { role: 'editor' });
  answers['TeamWithRole'] = (await ok('eddie', 'GET', '/v1/teams')).items[0];
  answers['Whoami'] = await ok('alice', 'GET', '/v1/whoami');
  const { publicJwk } = generateEngineKey('X25519');
  answers['Engine'] = await ok('operator', 'POST', '/v1/engines', {
    name: 'n8n production',
    subject: 'n8n',
    keys: [publicJwk],
  });
  await ok('alice', 'PUT', `${ofTeam}/members/n8n`, { role: 'engine' });

  const stored = await ok('alice', 'POST', credentials, {
    name: 'openai-prod',
    type: 'openai',
    fields: { apiKey: 'sk-recorded-answers', baseUrl: upstream.url },
    labels: { env: 'prod' },
    policy: { delivery: ['lease', 'broker'] },
  });
  answers['Credential'] = stored;
  const at = `/v1/credentials/${stored.id}`;
  answers['ConnectionReport'] = await ok('alice', 'POST', `${at}/test`);
  answers['CredentialUpsert'] = await ok('alice', 'PUT', `${credentials}/sendgrid`, {
    type: 'bearer',
    fields: { token: 'recorded-answers' },
  });
  answers['CredentialBulkResults'] = await ok('alice', 'POST', `${credentials}/bulk`, {
    items: [{ op: 'create', name: 'crm', type: 'bearer', fields: { token: 'recorded-answers' } }],
  });
  answers['CredentialVersionPage'] = await ok('alice', 'GET', `${at}/versions`);
  answers['Grant'] = await ok('alice', 'PUT', `${at}/grants/teams/billing`, { access: 'use' });
  answers['CredentialSeen'] = await ok('bob', 'GET', at);
  answers['Lease'] = await demand(
    askLease(vault, 'n8n', [{ team: 'payments', name: 'openai-prod' }]),
    201,
  );
  answers['BrokerTicket'] = await demand(
    askTicket(vault, 'n8n', { team: 'payments', name: 'openai-prod' }, { onBehalfOf: 'alice' }),
    201,
  );
  answers['Transfer'] = await ok(
    'alice',
    'POST',
    `/v1/credentials/${(await ok('alice', 'GET', `${credentials}?namePrefix=crm`)).items[0].id}/transfers`,
    { team: 'billing' },
  );

  const hook = await ok('alice', 'POST', credentials, {
    name: 'on-call',
    type: 'webhook',
    fields: { url: `${receiver.url}/vault`, secret: receiver.secret },
  });
  answers['Webhook'] = await ok('alice', 'PUT', `${ofTeam}/webhooks/${hook.id}`, {
    events: ['credential.expiring', 'key.rotationEnded'],
  });

  const account = await ok('alice', 'POST', credentials, {
    name: 'calendar',
    type: 'oauth2',
    fields: provider.fields(),
  });
  const oauth = `/v1/credentials/${account.id}/oauth`;
  const authorization = await ok('alice', 'POST', `${oauth}/authorizations`);
  answers['OAuthAuthorization'] = {
    ...authorization,
    authorizationUrl:
      'https://login.example/authorize?response_type=code&client_id=the-client&state=AZqnwltefDqdUgpPbhssPQ',
  };
  await ok(
    'alice',
    'POST',
    '/v1/oauth/callbacks',
    callbackOf(await provider.visit(authorization.authorizationUrl)),
  );
  answers['OAuthConnection'] = await ok('alice', 'GET', oauth);

  vault.start();
  const { id } = await ok('alice', 'POST', `${ofTeam}/key-rotations`);
  await until(async () => {
    answers['KeyRotationWithFailures'] = await ok('alice', 'GET', `${ofTeam}/key-rotations/${id}`);
    return (answers['KeyRotationWithFailures'] as any).state !== 'running';
  });
  answers['Key'] = (await ok('alice', 'GET', `${ofTeam}/keys`)).items[1];
  answers['TeamProblems'] = await ok('alice', 'GET', `${ofTeam}/problems`);
  answers['AuditEvent'] = (
    await ok('alice', 'GET', `${ofTeam}/audit-events?action=credential.create`)
  ).items[0];
  await vault.stop();
  return steady(answers, startedAt) as Record<string, unknown>;
}

/** The same value with ids, times and random texts that are the same in every run. */
function steady(value: unknown, startedAt: number): unknown {
  const ids = new Map<string, string>();
  const idOf = (id: string): string => {
    const known = ids.get(id) ?? exampleId(ids.size);
    ids.set(id, known);
    return known;
  };
  const walk = (node: unknown, name = ''): unknown => {
    if (Array.isArray(node)) return node.map((each) => walk(each, name));
    if (typeof node === 'object' && node !== null)
      return Object.fromEntries(Object.entries(node).map(([key, each]) => [key, walk(each, key)]));
    if (typeof node === 'number') return name === 'rowsPerSecond' ? 840 : node;
    if (typeof node !== 'string') return node;
    if (name === 'x') return 'hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo';
    if (name === 'kid') return drawn(node);
    if (isTime.test(node)) return timeOf(Date.parse(node) - startedAt);
    return node
      .replaceAll(uuid, idOf)
      .replaceAll(/^[0-9a-f]{16}$/g, '9f86d081884c7d65')
      .replaceAll(/https:\/\/upstream\.test:\d+/g, 'https://api.openai.com')
      .replaceAll(/https:\/\/[a-z.]+:\d+/g, 'https://login.example')
      .replaceAll(random, (text) =>
        text.startsWith('eyJ')
          ? text.replaceAll(/[^.]+/g, (part) => drawn(part).slice(0, 22))
          : drawn(text),
      );
  };
  const drawn = (text: string): string => {
    const prefix = text.startsWith('vbt_') ? 'vbt_' : '';
    return (
      prefix +
      hash('sha256', `${prefix}${text.length}`, 'base64url').slice(0, text.length - prefix.length)
    );
  };
  return walk(value);
}

const isTime = /^\d{4}-\d\d-\d\dT[\d:.]+Z$/;
const uuid = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;
const random = /(?:[a-z]+_)?(?=[\w-]*[A-Z])(?=[\w-]*\d)[\w-]{24,}[\w.-]*/g;
const exampleId = (n: number): string =>
  hash('sha256', `id ${n}`).replace(
    /^.{8}(.{3})(.{3}).(.{4})(.{8}).*/,
    (_, a: string, b: string, c: string, d: string) => `019aa7c2-5b1e-7${a}-9${b}-${c}${d}`,
  );
/** The day of the examples, and whole five minutes behind it: what the session takes is nothing. */
const timeOf = (ms: number): string =>
  new Date(Date.UTC(2026, 10, 22, 10) + Math.floor((ms + 1_000) / 300_000) * 300_000).toISOString();
