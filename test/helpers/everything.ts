// One of everything that the vault can do, done once for real: every operation of openapi.yaml with
// success, calls through the broker, refusals, and what runs in the background. For tests that look
// at what happens below while it does.
import { sql } from 'kysely';
import { generateEngineKey } from '../../src/client/index.ts';
import { orders, sortNames } from '../../src/credentials/lists/sorts.ts';
import { recomputeRowMacs } from '../../src/integrity/recompute-row-macs.ts';
import { platformPage, startAuthorizationServer } from './authorization-server.ts';
import { askTicket, callBroker } from './broker.ts';
import { egressTo, tlsUpstream } from './egress.ts';
import { hooked } from './hooked.ts';
import { askLease, demand, registerEngine } from './leases.ts';
import { callbackOf } from './oauth.ts';
import { until } from './processes.ts';
import { startVault, type TestVault } from './vault.ts';
import { startReceiver } from './webhooks.ts';

interface Teardown {
  teardown(action: () => unknown): unknown;
}

const any = { 'if-match': '*' };
const hour = 3_600_000;

/**
 * Does everything; the vault, which runs no more, and the operations that succeeded. An operation
 * that is added is added here.
 */
export async function doEverything(
  t: Teardown,
  database?: NonNullable<Parameters<typeof startVault>[1]>['database'],
): Promise<{ vault: TestVault; succeeded: ReadonlySet<string> }> {
  const succeeded = new Set<string>();
  const upstream = await tlsUpstream(t, 'upstream.test', (_request, response) => {
    response.setHeader('content-type', 'application/json').end('{"data":[]}');
  });
  const receiver = await startReceiver(t);
  const provider = await startAuthorizationServer(t, { ttlSeconds: 600 });
  let brokerUrl = '';
  const vault = await hooked(
    (app) => {
      app.addHook('onResponse', (request, reply, done) => {
        const { operation } = request.routeOptions.config;
        if (operation !== undefined && reply.statusCode < 400) succeeded.add(operation.operationId);
        done();
      });
    },
    () =>
      startVault(t, {
        egress: egressTo(t, [upstream, receiver, provider.upstream]),
        oauthRedirectUri: platformPage,
        brokerUrl: () => brokerUrl,
        ...(database === undefined ? {} : { database }),
      }),
  );
  brokerUrl = await vault.broker.listen({ host: '127.0.0.1', port: 0 });
  const ok = async (
    as: string | null,
    method: string,
    url: string,
    body?: unknown,
    headers: Record<string, string> = {},
  ): Promise<any> => {
    const answer = await vault.call(as, method, url, body, headers);
    if (answer.status >= 400)
      throw new Error(`${method} ${url} as ${as}: ${answer.status} ${answer.text}`);
    return answer.json;
  };
  const ofTeam = '/v1/teams/payments';
  const list = `${ofTeam}/credentials`;
  const keyed = (key: string): Record<string, string> => ({ 'idempotency-key': key });
  /** Every page of a list. */
  const pages = async (as: string, url: string): Promise<void> => {
    for (let cursor: string | null = ''; cursor !== null; ) {
      const page: any = await ok(
        as,
        'GET',
        `${url}${url.includes('?') ? '&' : '?'}limit=1${cursor === '' ? '' : `&cursor=${cursor}`}`,
      );
      cursor = page.nextCursor;
    }
  };

  // teams and members
  await vault.team('payments');
  for (const _ of [1, 2])
    await ok(
      'operator',
      'POST',
      '/v1/teams',
      { slug: 'lending', name: 'Lending', admins: ['otto'] },
      keyed('lending'),
    );
  await vault.team('gone');
  await ok('alice', 'DELETE', '/v1/teams/gone', undefined, any);
  for (const [sub, role] of [
    ['eddie', 'editor'],
    ['vera', 'viewer'],
    ['audrey', 'auditor'],
    ['eve', 'viewer'],
  ] as const)
    await vault.member('payments', sub, role);
  await vault.member('payments', 'eve', 'admin');
  await vault.member('payments', 'eve', 'editor');
  await ok('alice', 'DELETE', `${ofTeam}/members/eve`, undefined, any);
  await pages('alice', `${ofTeam}/members`);
  await vault.member('lending', 'alice', 'viewer', 'otto');
  await pages('alice', '/v1/teams');
  await ok('alice', 'GET', ofTeam);
  await ok(
    'alice',
    'PATCH',
    ofTeam,
    { name: 'Money', rotateEveryDays: 30, refuseExposedLeases: true },
    any,
  );
  await ok('alice', 'GET', '/v1/whoami');

  // engines
  await registerEngine(vault, 'n8n');
  const other = await registerEngine(vault, 'other');
  await pages('operator', '/v1/engines');
  await ok('operator', 'PATCH', `/v1/engines/${other.id}`, { name: 'another' }, any);
  const { keys } = await ok('operator', 'GET', `/v1/engines/${other.id}`);
  await ok('operator', 'POST', `/v1/engines/${other.id}/keys`, {
    key: generateEngineKey('P-256').publicJwk,
  });
  await ok('operator', 'DELETE', `/v1/engines/${other.id}/keys/${keys[0].kid}`, undefined, any);
  await ok('operator', 'DELETE', `/v1/engines/${other.id}`, undefined, any);
  await vault.member('payments', 'n8n', 'engine', 'alice', { actsForItself: true });
  await vault.member('lending', 'n8n', 'engine', 'otto');

  // webhooks, so that what follows is told of
  const hook = await ok('alice', 'POST', list, {
    name: 'receiver',
    type: 'webhook',
    fields: { url: `${receiver.url}/vault`, secret: receiver.secret },
  });
  const hookUrl = `${ofTeam}/webhooks/${hook.id}`;
  await ok('alice', 'PUT', hookUrl, {
    events: [
      'credential.expiring',
      'credential.expired',
      'credential.rotationDue',
      'credential.refreshFailed',
      'credential.exposed',
      'key.rotationEnded',
      'key.overdue',
      'row.sealBroken',
    ],
  });
  await ok('alice', 'GET', `${ofTeam}/webhooks`);
  await ok('alice', 'GET', hookUrl);
  await ok('alice', 'POST', `${hookUrl}/test`);

  // types of a platform's own
  const crm = '/v1/credential-types/acme.crm';
  const declared = {
    title: 'Acme CRM',
    description: 'An API key of Acme.',
    fields: [{ name: 'apiKey', title: 'API key', class: 'secret', isRequired: true }],
    injection: { kind: 'bearer', field: 'apiKey' },
    upstream: { kind: 'fixed', baseUrl: 'https://api.acme.example' },
  };
  await ok('operator', 'PUT', crm, declared);
  await ok('operator', 'PUT', crm, { ...declared, title: 'Acme' }, any);
  await ok('alice', 'POST', list, {
    name: 'crm',
    type: 'acme.crm',
    fields: { apiKey: 'acme-everything' },
  });
  await ok('operator', 'PUT', '/v1/credential-types/acme.erp', declared);
  await ok('operator', 'DELETE', '/v1/credential-types/acme.erp', undefined, any);

  // credentials
  const openai = (name: string, more: object = {}): object => ({
    name,
    type: 'openai',
    fields: { apiKey: 'sk-everything-000000', baseUrl: upstream.url },
    policy: { delivery: ['lease', 'broker'], allowedHosts: [] },
    ...more,
  });
  const main = await ok(
    'alice',
    'POST',
    list,
    openai('main', { labels: { env: 'prod' }, expiresAt: '2999-01-01T00:00:00Z' }),
  );
  for (const _ of [1, 2]) await ok('alice', 'POST', list, openai('second'), keyed('second'));
  const bearer = { type: 'bearer', fields: { token: 'bearer-everything' } };
  await ok('alice', 'PUT', `${list}/third?dryRun=true`, bearer);
  await ok('alice', 'PUT', `${list}/third`, bearer);
  await ok('alice', 'PUT', `${list}/third?dryRun=true`, { ...bearer, description: 'x' }, any);
  await ok('alice', 'PUT', `${list}/third`, { ...bearer, description: 'x' }, any);
  const { results } = await ok('alice', 'POST', `${list}/bulk`, {
    items: [
      { op: 'create', name: 'many-1', type: 'bearer', fields: { token: 'many-everything' } },
      { op: 'create', name: 'many-2', type: 'bearer', fields: { token: 'many-everything' } },
    ],
  });
  await ok('alice', 'POST', `${list}/bulk`, {
    items: [
      { op: 'update', id: results[0].credential.id, revision: '*', description: 'changed' },
      { op: 'delete', id: results[1].credential.id, revision: '*' },
    ],
  });
  const at = `/v1/credentials/${main.id}`;
  await ok('vera', 'GET', at);
  await ok('alice', 'PATCH', at, { description: 'a description' }, any);
  await ok('alice', 'PATCH', at, { fields: { apiKey: 'sk-everything-000001' } }, any);
  await ok('alice', 'PATCH', at, { fields: { organization: 'org' } }, any).catch(() => undefined);
  await ok('alice', 'POST', `${at}/disable`);
  await ok('alice', 'POST', `${at}/enable`, undefined, keyed('enable'));
  await ok('alice', 'GET', `${at}/versions`);
  await pages('alice', `${at}/versions`);
  await ok('alice', 'POST', `${at}/versions/1/restore`);
  await ok('alice', 'DELETE', `${at}/versions/1`);
  await ok('alice', 'DELETE', `/v1/credentials/${results[0].credential.id}`, undefined, any);
  await ok('alice', 'POST', `/v1/credentials/${results[0].credential.id}/restore`);
  await ok('eddie', 'POST', `${at}/test`);

  // shared
  for (const access of ['read', 'use']) {
    await ok('alice', 'PUT', `${at}/grants/teams/lending`, { access }, any);
    await ok('alice', 'PUT', `${at}/grants/subjects/otto`, { access }, any);
  }
  await pages('alice', `${at}/grants`);
  await ok('otto', 'GET', at);
  await ok('otto', 'GET', '/v1/credentials');
  await ok('otto', 'GET', '/v1/teams/lending/credentials?shared=true');
  await ok('otto', 'GET', '/v1/credentials?view=names');
  await ok('alice', 'DELETE', `${at}/grants/subjects/otto`, undefined, any);

  // leases, tickets, calls
  for (const _ of [1, 2, 3]) {
    await demand(askLease(vault, 'n8n', [{ id: main.id }]), 201);
    await demand(
      askLease(vault, 'n8n', [{ id: main.id }, { team: 'payments', name: 'second' }]),
      201,
    );
    await demand(
      askLease(vault, 'n8n', [{ id: main.id, knownVersion: 1 }], { onBehalfOf: 'otto' }),
      201,
    );
  }
  await askLease(vault, 'n8n', [{ team: 'payments', name: 'nothing' }]);
  await askLease(vault, 'n8n', [{ id: main.id }], { onBehalfOf: 'stranger' });
  for (const behalf of ['alice', 'otto', null]) {
    const ticket = await demand(
      askTicket(vault, 'n8n', { id: main.id }, { onBehalfOf: behalf }),
      201,
    );
    const { port } = new URL(brokerUrl);
    for (const _ of [1, 2, 3]) {
      const called = await callBroker(Number(port), 'GET', `/broker/${ticket.id}/v1/models`, {
        authorization: `Bearer ${ticket.ticket}`,
      });
      if (called.status !== 200) throw new Error(`a call: ${called.status} ${called.text}`);
    }
    await callBroker(Number(port), 'GET', `/broker/${ticket.id}/v1/models`, {
      authorization: 'Bearer vbt_x',
    });
    await ok('n8n', 'PATCH', `/v1/broker-tickets/${ticket.id}`, { ttlSeconds: 600 });
    await ok(behalf === null ? 'alice' : 'n8n', 'DELETE', `/v1/broker-tickets/${ticket.id}`);
  }
  await ok('alice', 'DELETE', `${at}/grants/teams/lending`, undefined, any);

  // given away
  for (const verb of ['accept', 'decline'] as const) {
    const moving = await ok('alice', 'POST', list, openai(`moving-${verb}`));
    const { id } = await ok('alice', 'POST', `/v1/credentials/${moving.id}/transfers`, {
      team: 'lending',
    });
    await pages('otto', '/v1/teams/lending/transfers');
    await pages('alice', `${ofTeam}/transfers`);
    if (verb === 'accept') await ok('otto', 'POST', `/v1/transfers/${id}/accept`);
    else await ok('otto', 'DELETE', `/v1/transfers/${id}`);
  }

  // accounts at providers
  const account = await ok('alice', 'POST', list, {
    name: 'account',
    type: 'oauth2',
    fields: provider.fields(),
  });
  const oauth = `/v1/credentials/${account.id}/oauth`;
  const begun = await ok('alice', 'POST', `${oauth}/authorizations`);
  await ok(
    'alice',
    'POST',
    '/v1/oauth/callbacks',
    callbackOf(await provider.visit(begun.authorizationUrl)),
  );
  await vault.call('alice', 'POST', '/v1/oauth/callbacks', { state: 'A'.repeat(64), code: 'x' });
  await ok('alice', 'GET', oauth);
  await demand(askLease(vault, 'n8n', [{ id: account.id }]), 201);
  vault.clock.ms += hour / 2;
  await demand(askLease(vault, 'n8n', [{ id: account.id }]), 201);
  provider.behaviour.status = 400;
  provider.behaviour.body = '{"error":"invalid_grant"}';
  vault.clock.ms += hour / 2;
  await askLease(vault, 'n8n', [{ id: account.id }]);
  provider.behaviour.status = undefined;
  provider.behaviour.body = undefined;

  // lists
  const filters = [
    '',
    '&type=openai',
    '&label=env:prod',
    '&namePrefix=m',
    '&updatedSince=2020-01-01T00:00:00Z',
    '&problem=disabled',
    '&problem=undecryptable',
    '&problem=exposed',
    '&problem=refreshFailed',
    '&problem=expired',
    '&problem=expiring',
    '&label=env:prod&type=openai',
  ];
  for (const sort of sortNames)
    for (const order of orders)
      for (const filter of filters)
        for (const url of [list, '/v1/credentials']) {
          await ok('alice', 'GET', `${url}?sort=${sort}&order=${order}${filter}`);
          if (filter === '' || filter === '&type=openai')
            await pages('alice', `${url}?sort=${sort}&order=${order}${filter}`);
        }
  for (const query of [
    'deleted=true',
    'deleted=true&type=bearer',
    'unusedSince=2999-01-01T00:00:00Z&sort=lastUsedAt',
    'expiresBefore=2999-12-31T00:00:00Z&sort=expiresAt',
    'dueBefore=2999-12-31T00:00:00Z&sort=dueAt',
    'view=names',
    'view=names&namePrefix=m',
    'view=names&type=openai',
    'limit=200',
  ])
    for (const url of [list, '/v1/credentials']) {
      await ok('alice', 'GET', `${url}?${query}`);
      if (query.startsWith('view')) await pages('alice', `${url}?${query}`);
    }
  await ok('alice', 'GET', `${ofTeam}/problems`);
  await ok('alice', 'GET', '/v1/credential-types');
  await ok('alice', 'GET', '/v1/oauth-providers');
  await ok('alice', 'GET', '/v1/credential-types/openai');

  // keys
  vault.start();
  const settled = (id: string): Promise<unknown> =>
    until(
      async () => (await ok('alice', 'GET', `${ofTeam}/key-rotations/${id}`)).state !== 'running',
    );
  const { id: rotation } = await ok(
    'alice',
    'POST',
    `${ofTeam}/key-rotations`,
    undefined,
    keyed('r'),
  );
  await settled(rotation);
  await pages('alice', `${ofTeam}/keys`);
  await pages('alice', `${ofTeam}/key-rotations`);
  const {
    items: [, former],
  } = await ok('alice', 'GET', `${ofTeam}/keys`);
  const key = `${ofTeam}/keys/${former.id}`;
  await ok('alice', 'GET', key);
  for (const [verb, body] of [
    ['retire', undefined],
    ['restore', undefined],
    ['retire', undefined],
    ['schedule-destroy', { days: 7 }],
    ['cancel-destroy', undefined],
    ['mark-compromised', { reason: 'a test' }],
  ] as const)
    await ok('alice', 'POST', `${key}/${verb}`, body);
  const cancelled = await ok('alice', 'POST', `${ofTeam}/key-rotations`);
  await vault.call('alice', 'POST', `${ofTeam}/key-rotations/${cancelled.id}/cancel`);
  await settled(cancelled.id);
  while (!succeeded.has('cancelRotation')) {
    const { id } = await ok('alice', 'POST', `${ofTeam}/key-rotations`);
    const { status } = await vault.call('alice', 'POST', `${ofTeam}/key-rotations/${id}/cancel`);
    if (status >= 500) throw new Error(`cancel: ${status}`);
    await settled(id);
  }
  await ok('operator', 'GET', '/v1/root-keys');
  await sql`insert into root_key (fingerprint, canary) values ('0123456789abcdef', '\\x00')`.execute(
    vault.db,
  );
  await ok('operator', 'POST', '/v1/root-key-rotations');
  await ok('operator', 'POST', '/v1/root-keys/0123456789abcdef/mark-compromised', {
    reason: 'a test',
  });
  await ok('operator', 'GET', '/v1/status');
  await recomputeRowMacs(vault.db, vault.keyring, () => false);

  // the audit log
  await pages('audrey', `${ofTeam}/audit-events?action=credential.update`);
  for (const query of [
    '',
    `?target=${main.id}`,
    '?decision=deny',
    '?from=2020-01-01T00:00:00Z&until=2999-01-01T00:00:00Z',
  ])
    await ok('audrey', 'GET', `${ofTeam}/audit-events${query}`);
  await ok('audrey', 'GET', `${ofTeam}/export`);

  // refused
  for (const [as, method, url] of [
    ['vera', 'PATCH', at],
    ['stranger', 'GET', at],
    ['stranger', 'GET', '/v1/teams/nowhere'],
    ['vera', 'GET', '/v1/status'],
    [null, 'GET', at],
  ] as const)
    await vault.call(as, method, url);

  await until(() => receiver.received.length > 1);
  await ok('alice', 'GET', `${hookUrl}/deliveries`);
  await pages('alice', `${hookUrl}/deliveries`);
  await ok('alice', 'DELETE', hookUrl, undefined, any);
  for (const url of ['/healthz', '/readyz', '/.well-known/jwks.json']) await ok(null, 'GET', url);
  await until(async () => (await ok('alice', 'GET', at)).useCount > 0);

  // teams at their bounds, and counted anew
  const full = await startVault(t, {
    database: { url: vault.databaseUrl, db: vault.db },
    rootKey: vault.rootKey,
    growthLimits: { credentials: 1 },
  });
  full.clock.ms = vault.clock.ms + 25 * hour;
  const refused = await full.call('alice', 'POST', list, openai('too-many'));
  if (refused.status !== 409) throw new Error(`beyond the bound: ${refused.status}`);
  const replaced = { fields: { apiKey: 'sk-everything-000002', baseUrl: upstream.url } };
  await demand(full.call('alice', 'PATCH', at, replaced, any), 200);
  await full.stop();
  await vault.stop();
  return { vault, succeeded };
}
