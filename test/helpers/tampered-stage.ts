// A vault with a row of every kind in it, over real servers that note what reaches them. Each case
// of the test over all columns starts from here.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import { generateRootKey, parseRootKeys } from '../../src/crypto/index.ts';
import type { Egress } from '../../src/egress/index.ts';
import { Subjects } from '../../src/db/subjects.ts';
import { testDatabase } from './database.ts';
import { egressTo, tlsUpstream } from './egress.ts';
import { intrude } from './intruder.ts';
import { jobsOf } from './jobs.ts';
import { askLease, demand, registerEngine, type TestEngine } from './leases.ts';
import { askTicket, type Ticket } from './broker.ts';
import { until } from './processes.ts';
import { startVault, type TestVault } from './vault.ts';
import { newSecret } from './webhooks.ts';

interface Teardown {
  teardown(action: () => unknown): unknown;
}

/** What came from the vault to one of the servers. */
export interface Arrival {
  readonly host: string;
  readonly text: string;
}

/** The stage as it is before anybody tampers with it. */
export interface TamperedStage {
  readonly vault: TestVault;
  /** What jobs dial through. */
  readonly egress: Egress;
  /** Another process on the same database, which remembers nothing. */
  restart(): Promise<TestVault>;
  readonly brokerPort: number;
  readonly engines: Readonly<Record<'n8n' | 'bot' | 'spy' | 'off' | 'spare', TestEngine>>;
  /** Ids of credentials by their names. */
  readonly ids: Readonly<Record<string, string>>;
  readonly keys: Readonly<Record<string, readonly string[]>>;
  readonly rotations: readonly string[];
  readonly transfers: Readonly<Record<'accepted' | 'declined' | 'left', string>>;
  readonly ticket: Ticket;
  readonly oldRoot: string;
  readonly authorization: { readonly state: string };
  readonly urls: Readonly<Record<'upstream' | 'hooks' | 'id', string>>;
  /** Secrets by their owners: what a lease may hold of a credential beside which public fields. */
  readonly secrets: Map<string, Owner>;
  readonly arrivals: Arrival[];
  /** Every name that was to be dialled. */
  readonly dialled: string[];
}
export interface Owner {
  readonly credential: string;
  /** The public fields beside which it was stored, as JSON; several where it was sent alone. */
  readonly beside: ReadonlySet<string>;
}

/** The host to which nothing is ever to go. */
export const evilHost = 'evil.example';
const any = { 'if-match': '*' };
const bothWays = { delivery: ['lease', 'broker'], allowedHosts: [] as string[] };
const leaseOnly = { delivery: ['lease'], allowedHosts: [] as string[] };

/** Sets the stage: some hundred requests. */
export async function setTamperedStage(t: Teardown): Promise<TamperedStage> {
  const arrivals: Arrival[] = [];
  const dialled: string[] = [];
  const serve = (host: string, answer: (text: string, response: ServerResponse) => void) =>
    tlsUpstream(t, host, (request, response) => {
      void textOf(request).then((text) => {
        arrivals.push({ host, text });
        answer(text, response);
      });
    });
  const upstream = await serve('upstream.test', (_text, response) => {
    response.writeHead(200, { 'content-type': 'application/json' }).end('{"data":[]}');
  });
  const hooks = await serve('hooks.test', (_text, response) => {
    response.writeHead(204).end();
  });
  const id = await serve('id.test', (text, response) => {
    const isBrief = text.includes('brief');
    response.writeHead(200, { 'content-type': 'application/json' }).end(
      JSON.stringify({
        access_token: storedSecrets.access,
        refresh_token: storedSecrets.refresh,
        token_type: 'Bearer',
        expires_in: isBrief ? 1 : 3600,
      }),
    );
  });
  const targets = [upstream, hooks, id];
  const egress = () =>
    egressTo(t, targets, {
      rememberNamesMs: 0,
      resolve: async (name) => {
        dialled.push(name);
        return targets.some(({ host }) => host === name) || name === evilHost ? ['127.0.0.1'] : [];
      },
    });

  const [oldRootKey, freshRootKey] = [generateRootKey(), generateRootKey()];
  const [oldRoot] = parseRootKeys(oldRootKey).fingerprints;
  const database = await testDatabase(t);
  const before = await startVault(t, { database, rootKey: oldRootKey });
  await before.team('leaky');
  await before.stop();

  let brokerUrl = '';
  const restart = () =>
    startVault(t, {
      database,
      rootKey: `${freshRootKey},${oldRootKey}`,
      egress: egress(),
      brokerUrl: () => brokerUrl,
      oauthRedirectUri: 'https://platform.test/connected',
    });
  const vault = await restart();
  brokerUrl = await vault.broker.listen({ host: '127.0.0.1', port: 0 });
  const { call } = vault;
  const set = (
    as: string,
    method: string,
    url: string,
    body?: object,
    headers: Record<string, string> = any,
  ) =>
    call(as, method, url, body, headers).then(({ status, text, json }) => {
      if (status >= 300) throw new Error(`${method} ${url}: ${status} ${text}`);
      return json;
    });

  await vault.team('payments', ['alice', 'adam']);
  await vault.team('billing', ['bella']);
  await vault.team('elsewhere', ['mallory']);
  await vault.team('gone');
  await set('alice', 'DELETE', '/v1/teams/gone');
  await set('alice', 'PATCH', '/v1/teams/payments', {
    defaultDelivery: ['broker'],
    versionsKept: 20,
    rotateEveryDays: 30,
    tokenFormat: 'fernet-256',
  });
  await set('alice', 'PATCH', '/v1/teams/leaky', { refuseExposedLeases: true });
  for (const [sub, role] of [
    ['eddie', 'editor'],
    ['vera', 'viewer'],
    ['audrey', 'auditor'],
    ['leaver', 'viewer'],
  ] as const)
    await vault.member('payments', sub, role);
  const engines = {
    n8n: await registerEngine(vault, 'n8n'),
    bot: await registerEngine(vault, 'bot'),
    spy: await registerEngine(vault, 'spy'),
    off: await registerEngine(vault, 'off'),
    spare: await registerEngine(vault, 'spare', 'P-256'),
  };
  await vault.member('payments', 'n8n', 'engine');
  await vault.member('payments', 'off', 'engine');
  await vault.member('leaky', 'n8n', 'engine');
  await vault.member('billing', 'bot', 'engine', 'bella', { actsForItself: true });
  await vault.member('elsewhere', 'spy', 'engine', 'mallory', { actsForItself: true });
  await set('operator', 'PATCH', `/v1/engines/${engines.off.id}`, { state: 'disabled' });

  const secrets = new Map<string, Owner>();
  const ids: Record<string, string> = {};
  const store = async (
    name: string,
    type: string,
    fields: Record<string, unknown>,
    { team = 'payments', as = 'alice', ...more }: Record<string, unknown> = {},
    secret = 'apiKey',
  ): Promise<string> => {
    const made = await set(String(as), 'POST', `/v1/teams/${String(team)}/credentials`, {
      name,
      type,
      fields,
      policy: bothWays,
      ...more,
    });
    ids[name] = made.id;
    own(secrets, fields, secret, made.id);
    return made.id;
  };
  const openai = (key: string, path: string) => ({
    apiKey: `sk-${key}-${randomBytes(8).toString('hex')}`,
    baseUrl: `${upstream.url}/${path}`,
  });
  const change = async (name: string, fields: Record<string, unknown>): Promise<void> => {
    await set('alice', 'PATCH', `/v1/credentials/${ids[name]}`, { fields });
    own(secrets, fields, 'apiKey', ids[name]!);
  };
  await set(
    'operator',
    'PUT',
    '/v1/credential-types/acme.crm',
    {
      title: 'Acme CRM',
      description: 'An API key of Acme.',
      fields: [
        { name: 'apiKey', title: 'API key', class: 'secret', isRequired: true },
        { name: 'baseUrl', title: 'URL', class: 'public', form: 'httpsUrl', isRequired: true },
      ],
      injection: { kind: 'bearer', field: 'apiKey' },
      upstream: { kind: 'field', field: 'baseUrl' },
    },
    {},
  );
  await store('crm', 'acme.crm', openai('crm', 'one'));
  await store('leaked', 'openai', openai('leaked', 'one'), { team: 'leaky' });
  await store('main', 'openai', openai('main-1', 'one'), { labels: { env: 'prod' } });
  await change('main', openai('main-2', 'two'));
  await change('main', openai('main-3', 'three'));
  await store('control', 'openai', openai('control', 'one'), { labels: { env: 'test' } });
  await store('off', 'openai', openai('off', 'one'));
  await store('removed', 'openai', openai('removed', 'one'));
  await store('victim', 'openai', openai('victim', 'one'));
  await store('old', 'openai', openai('old', 'one'), {
    expiresAt: new Date(Date.now() + 3_600_000).toISOString(),
    rotateAfter: '2024-01-01T00:00:00Z',
  });
  await store('closed', 'openai', openai('closed', 'one'), {
    policy: { delivery: [], allowedHosts: [] },
  });
  await store('shared', 'openai', openai('shared', 'one'));
  await store('offered', 'openai', openai('offered', 'one'));
  await store('unwanted', 'openai', openai('unwanted', 'one'));
  await store('waiting', 'openai', openai('waiting', 'one'));
  await store('solver', 'flaresolverr', { url: `${upstream.url}/solver` }, { policy: leaseOnly });
  await store('spoilt', 'openai', openai('spoilt', 'one'));
  await store('own', 'openai', openai('own', 'one'), { team: 'billing', as: 'bella' });
  const tok = { token: `tok-${randomBytes(8).toString('hex')}` };
  await store(
    'plain',
    'bearer',
    tok,
    { policy: { ...bothWays, allowedHosts: ['upstream.test'] } },
    'token',
  );
  await store(
    'hook',
    'webhook',
    { url: `${hooks.url}/vault`, secret: newSecret() },
    { policy: { delivery: [], allowedHosts: [] } },
    'secret',
  );
  const client = (clientId: string) => ({
    authorizationUrl: `${id.url}/auth`,
    tokenUrl: `${id.url}/token`,
    clientId,
    clientSecret: `cs-${clientId}-${randomBytes(8).toString('hex')}`,
  });
  for (const name of ['account', 'brief', 'begun', 'lost'])
    await store(name, 'oauth2', client(name), {}, 'clientSecret');
  for (const name of ['account', 'brief', 'lost'])
    await set('alice', 'POST', '/v1/oauth/callbacks', {
      state: await beginAuthorization(vault, ids[name]!),
      code: 'x',
    });
  const keep = { 'idempotency-key': 'kept' };
  ids['twice'] = (
    await demand(call('alice', 'POST', '/v1/teams/payments/credentials', twice, keep), 201)
  ).id;
  secrets.set(twice.fields.apiKey, {
    credential: ids['twice']!,
    beside: new Set([JSON.stringify({ baseUrl: 'https://api.openai.com' })]),
  });

  await set('alice', 'POST', `/v1/credentials/${ids['off']}/disable`);
  await set('alice', 'DELETE', `/v1/credentials/${ids['removed']}`);
  const grants = `/v1/credentials/${ids['shared']}/grants`;
  await set('alice', 'PUT', `${grants}/teams/billing`, { access: 'use' });
  await set('alice', 'PUT', `${grants}/subjects/sam`, { access: 'read' });
  const offer = async (name: string): Promise<string> =>
    (await set('alice', 'POST', `/v1/credentials/${ids[name]}/transfers`, { team: 'billing' })).id;
  const transfers = {
    accepted: await offer('offered'),
    declined: await offer('unwanted'),
    left: await offer('waiting'),
  };
  await set('alice', 'PUT', `/v1/teams/payments/webhooks/${ids['hook']}`, {
    events: ['credential.rotationDue', 'key.rotationEnded', 'key.overdue'],
  });
  for (let n = 0; n < 2; n += 1)
    await set('alice', 'POST', `/v1/teams/payments/webhooks/${ids['hook']}/test`);

  const ofJobs = egress();
  const jobs = jobsOf(vault, ofJobs);
  const [leakyKey] = await keysOf(vault, 'leaky');
  await set('alice', 'POST', `/v1/teams/leaky/keys/${leakyKey}/mark-compromised`, {
    reason: 'a copy was found',
  });
  await jobs.move();
  await intrude(
    vault.db,
    `update credential_version set token = overlay(token placing 'AAAAAAAA' from 40) where credential_id = '${ids['spoilt']}'`,
    `update oauth_token set token = overlay(token placing 'AAAAAAAA' from 40) where credential_id = '${ids['lost']}'`,
  );
  const rotations: string[] = [];
  for (const [as, team] of [
    ['alice', 'payments'],
    ['bella', 'billing'],
  ] as const)
    rotations.push((await set(as, 'POST', `/v1/teams/${team}/key-rotations`)).id);
  await jobs.move();
  rotations.push((await set('alice', 'POST', '/v1/teams/payments/key-rotations')).id);
  const leased = await askLease(
    vault,
    'n8n',
    ['main', 'control', 'plain'].map((name) => ({ id: ids[name]! })),
  );
  if (leased.status !== 201) throw new Error(leased.text);
  const ticket = await demand(
    askTicket(vault, 'n8n', { id: ids['plain'] }, { host: 'upstream.test' }),
    201,
  );
  const authorization = { state: await beginAuthorization(vault, ids['begun']!) };
  await vault.db
    .insertInto('subject_prefix')
    .values({ prefix: 'k8s:', issuer: 'https://k8s.test' })
    .execute();
  const subjects = new Subjects();
  for (const sub of ['newbie', 'fresh-engine', 'sam', 'sue', 'audrey', 'eddie', 'adam', 'leaver'])
    await subjects.ensure(vault.db, sub);
  await call('alice', 'GET', '/v1/credentials'); // an access record, at the latest when it is flushed
  await until(async () => {
    const { rows } = await sql`select 1 from access_record limit 1`.execute(vault.db);
    return rows.length > 0;
  });
  for (const secret of Object.values(storedSecrets))
    secrets.set(secret, { credential: 'held', beside: new Set() });
  return {
    vault,
    egress: ofJobs,
    restart,
    brokerPort: (vault.broker.server.address() as AddressInfo).port,
    engines,
    ids,
    keys: Object.fromEntries(
      await Promise.all(
        ['payments', 'billing', 'leaky'].map(async (team) => [team, await keysOf(vault, team)]),
      ),
    ) as Record<string, string[]>,
    rotations,
    transfers,
    ticket,
    oldRoot: oldRoot!,
    authorization,
    urls: { upstream: upstream.url, hooks: hooks.url, id: id.url },
    secrets,
    arrivals,
    dialled,
  };
}

/** What the authorization server gives, always. */
export const storedSecrets = {
  access: 'held-access-token-0815',
  refresh: 'held-refresh-token-4711',
};
/** What is created with an idempotency key, and can be again. */
export const twice = {
  name: 'twice',
  type: 'openai',
  fields: { apiKey: 'sk-twice-91d3c07a' },
  policy: bothWays,
};

/** Notes whose secret stands among the fields, and beside what. */
export function own(
  secrets: Map<string, Owner>,
  fields: Readonly<Record<string, unknown>>,
  secret: string,
  credential: string,
): void {
  const { [secret]: value, ...publicFields } = fields;
  if (typeof value === 'string')
    secrets.set(value, { credential, beside: new Set([JSON.stringify(publicFields)]) });
}

/** Begins as alice; the state. */
export async function beginAuthorization(vault: TestVault, id: string): Promise<string> {
  const { authorizationUrl } = await demand(
    vault.call('alice', 'POST', `/v1/credentials/${id}/oauth/authorizations`),
    201,
  );
  return new URL(authorizationUrl).searchParams.get('state')!;
}

async function keysOf({ db }: TestVault, slug: string): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    select data_key.id from data_key join team on team.id = team_id where slug = ${slug} order by version`.execute(
    db,
  );
  return rows.map(({ id }) => id);
}

async function textOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return `${request.method} ${request.url}\n${JSON.stringify(request.headers)}\n${Buffer.concat(chunks).toString('latin1')}`;
}
