// One request after another that changes something, of every kind: what a test of durability runs
// through. Each names its operation; that none is missing is for the test to ask.
import type { Answer, TestVault } from './vault.ts';
import { demand, registerEngine, storeOpenai, type TestEngine } from './leases.ts';
import { typeSamples } from './type-samples.ts';
import { generateEngineKey } from '../../src/client/index.ts';

/** A request that is about to be sent; what it needs is there. */
export interface Prepared {
  readonly as: string;
  readonly method: 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly url: string;
  readonly body?: unknown;
  readonly headers?: Record<string, string>;
}

export interface Stage {
  readonly vault: TestVault;
  readonly engine: TestEngine;
}

const any = { 'if-match': '*' };
let names = 0;
const fresh = (): string => {
  names += 1;
  return `thing-${names}`;
};

/** Two teams, an engine in the first one. */
export async function writingStage(vault: TestVault): Promise<Stage> {
  await vault.team('payments');
  await vault.team('sales', ['sam']);
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  return { vault, engine };
}

const declaredType = {
  title: 'Acme',
  description: 'A key of Acme.',
  fields: [{ name: 'apiKey', title: 'API key', class: 'secret', isRequired: true }],
};
const policy = { delivery: ['lease', 'broker'], allowedHosts: [] };
const credential = async ({ vault }: Stage): Promise<any> =>
  storeOpenai(vault, 'payments', fresh(), 'sk-test-secret', { policy });
const versioned = async (stage: Stage): Promise<any> => {
  const { id } = await credential(stage);
  await demand(
    stage.vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { fields: { apiKey: 'sk-test-second' } },
      any,
    ),
    200,
  );
  return id;
};
const team = async ({ vault }: Stage): Promise<string> => {
  const slug = fresh();
  await vault.team(slug);
  return slug;
};
const member = async ({ vault }: Stage): Promise<string> => {
  const sub = fresh();
  await vault.member('payments', sub, 'viewer');
  return sub;
};
const offered = async (stage: Stage): Promise<any> =>
  demand(
    stage.vault.call('alice', 'POST', `/v1/credentials/${(await credential(stage)).id}/transfers`, {
      team: 'sales',
    }),
    201,
  );
const webhook = async ({ vault }: Stage, team = 'payments'): Promise<string> => {
  const { public: open, secret } = typeSamples['webhook']!;
  const { id } = await demand(
    vault.call('alice', 'POST', `/v1/teams/${team}/credentials`, {
      name: fresh(),
      type: 'webhook',
      fields: { ...open, ...secret },
    }),
    201,
  );
  return id;
};
const subscribed = async (stage: Stage): Promise<string> => {
  const slug = await team(stage);
  const url = `/v1/teams/${slug}/webhooks/${await webhook(stage, slug)}`;
  await demand(stage.vault.call('alice', 'PUT', url, { events: ['key.overdue'] }), 200);
  return url;
};
const spareKey = async ({ vault }: Stage): Promise<{ id: string; kid: string }> => {
  const { id } = await registerEngine(vault, fresh());
  const made = await demand(
    vault.call('operator', 'POST', `/v1/engines/${id}/keys`, {
      key: generateEngineKey('P-256').publicJwk,
    }),
    201,
  );
  return { id, kid: made.keys.at(-1).kid };
};
/** A team with a key that is not active any more, in this state. */
const keyOf = async (
  stage: Stage,
  state: 'decryptOnly' | 'retired' | 'destroyPending',
): Promise<string> => {
  const { vault } = stage;
  const slug = await team(stage);
  const { items } = await demand(vault.call('alice', 'GET', `/v1/teams/${slug}/keys`), 200);
  const { id } = await demand(vault.call('alice', 'POST', `/v1/teams/${slug}/key-rotations`), 202);
  await demand(vault.call('alice', 'POST', `/v1/teams/${slug}/key-rotations/${id}/cancel`), 200);
  const key = `/v1/teams/${slug}/keys/${items[0].id}`;
  if (state !== 'decryptOnly') await demand(vault.call('alice', 'POST', `${key}/retire`), 200);
  if (state === 'destroyPending')
    await demand(vault.call('alice', 'POST', `${key}/schedule-destroy`, { days: 7 }), 200);
  return key;
};

/** Operation → a request that it carries out, made afresh at each call. */
export const writes: Readonly<Record<string, (stage: Stage) => Promise<Prepared>>> = {
  createTeam: async () => ({
    as: 'operator',
    method: 'POST',
    url: '/v1/teams',
    body: { slug: fresh(), name: 'x', admins: ['alice'] },
  }),
  updateTeam: async () => ({
    as: 'alice',
    method: 'PATCH',
    url: '/v1/teams/payments',
    body: { name: fresh() },
    headers: any,
  }),
  deleteTeam: async (stage) => ({
    as: 'alice',
    method: 'DELETE',
    url: `/v1/teams/${await team(stage)}`,
    headers: any,
  }),
  putMember: async () => ({
    as: 'alice',
    method: 'PUT',
    url: `/v1/teams/payments/members/${fresh()}`,
    body: { role: 'viewer' },
  }),
  removeMember: async (stage) => ({
    as: 'alice',
    method: 'DELETE',
    url: `/v1/teams/payments/members/${await member(stage)}`,
    headers: any,
  }),
  createCredential: async () => ({
    as: 'alice',
    method: 'POST',
    url: '/v1/teams/payments/credentials',
    body: { name: fresh(), type: 'openai', fields: { apiKey: 'sk-test' } },
  }),
  putCredential: async () => ({
    as: 'alice',
    method: 'PUT',
    url: `/v1/teams/payments/credentials/${fresh()}`,
    body: { type: 'openai', fields: { apiKey: 'sk-test' } },
  }),
  updateCredential: async (stage) => ({
    as: 'alice',
    method: 'PATCH',
    url: `/v1/credentials/${(await credential(stage)).id}`,
    body: { description: fresh() },
    headers: any,
  }),
  deleteCredential: async (stage) => ({
    as: 'alice',
    method: 'DELETE',
    url: `/v1/credentials/${(await credential(stage)).id}`,
    headers: any,
  }),
  restoreCredential: async (stage) => {
    const { id } = await credential(stage);
    await demand(stage.vault.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any), 204);
    return { as: 'alice', method: 'POST', url: `/v1/credentials/${id}/restore` };
  },
  disableCredential: async (stage) => ({
    as: 'alice',
    method: 'POST',
    url: `/v1/credentials/${(await credential(stage)).id}/disable`,
  }),
  enableCredential: async (stage) => {
    const { id } = await credential(stage);
    await demand(stage.vault.call('alice', 'POST', `/v1/credentials/${id}/disable`), 200);
    return { as: 'alice', method: 'POST', url: `/v1/credentials/${id}/enable` };
  },
  restoreCredentialVersion: async (stage) => ({
    as: 'alice',
    method: 'POST',
    url: `/v1/credentials/${await versioned(stage)}/versions/1/restore`,
  }),
  destroyCredentialVersion: async (stage) => ({
    as: 'alice',
    method: 'DELETE',
    url: `/v1/credentials/${await versioned(stage)}/versions/1`,
    headers: any,
  }),
  putTeamGrant: async (stage) => ({
    as: 'alice',
    method: 'PUT',
    url: `/v1/credentials/${(await credential(stage)).id}/grants/teams/sales`,
    body: { access: 'read' },
  }),
  removeTeamGrant: async (stage) => {
    const url = `/v1/credentials/${(await credential(stage)).id}/grants/teams/sales`;
    await demand(stage.vault.call('alice', 'PUT', url, { access: 'read' }), 200);
    return { as: 'alice', method: 'DELETE', url, headers: any };
  },
  putSubjectGrant: async (stage) => ({
    as: 'alice',
    method: 'PUT',
    url: `/v1/credentials/${(await credential(stage)).id}/grants/subjects/sam`,
    body: { access: 'read' },
  }),
  removeSubjectGrant: async (stage) => {
    const url = `/v1/credentials/${(await credential(stage)).id}/grants/subjects/sam`;
    await demand(stage.vault.call('alice', 'PUT', url, { access: 'read' }), 200);
    return { as: 'alice', method: 'DELETE', url, headers: any };
  },
  changeCredentials: async () => ({
    as: 'alice',
    method: 'POST',
    url: '/v1/teams/payments/credentials/bulk',
    body: {
      items: [{ op: 'create', name: fresh(), type: 'openai', fields: { apiKey: 'sk-test' } }],
    },
  }),
  offerTransfer: async (stage) => ({
    as: 'alice',
    method: 'POST',
    url: `/v1/credentials/${(await credential(stage)).id}/transfers`,
    body: { team: 'sales' },
  }),
  acceptTransfer: async (stage) => ({
    as: 'sam',
    method: 'POST',
    url: `/v1/transfers/${(await offered(stage)).id}/accept`,
  }),
  declineTransfer: async (stage) => ({
    as: 'sam',
    method: 'DELETE',
    url: `/v1/transfers/${(await offered(stage)).id}`,
  }),
  createLease: async (stage) => ({
    as: 'n8n',
    method: 'POST',
    url: '/v1/leases',
    body: {
      credentials: [{ id: (await credential(stage)).id }],
      purpose: 'a test',
      onBehalfOf: 'alice',
    },
  }),
  createBrokerTicket: async (stage) => ({
    as: 'n8n',
    method: 'POST',
    url: '/v1/broker-tickets',
    body: {
      credential: { id: (await credential(stage)).id },
      purpose: 'a test',
      onBehalfOf: 'alice',
    },
  }),
  updateBrokerTicket: async (stage) => {
    const { body, ...ticket } = await writes['createBrokerTicket']!(stage);
    const { id } = await demand(stage.vault.call(ticket.as, 'POST', ticket.url, body), 201);
    return {
      as: 'n8n',
      method: 'PATCH',
      url: `/v1/broker-tickets/${id}`,
      body: { ttlSeconds: 60 },
    };
  },
  deleteBrokerTicket: async (stage) => {
    const { body, ...ticket } = await writes['createBrokerTicket']!(stage);
    const { id } = await demand(stage.vault.call(ticket.as, 'POST', ticket.url, body), 201);
    return { as: 'n8n', method: 'DELETE', url: `/v1/broker-tickets/${id}` };
  },
  createEngine: async () => ({
    as: 'operator',
    method: 'POST',
    url: '/v1/engines',
    body: { name: fresh(), subject: fresh(), keys: [generateEngineKey('X25519').publicJwk] },
  }),
  addEngineKey: async ({ engine }) => ({
    as: 'operator',
    method: 'POST',
    url: `/v1/engines/${engine.id}/keys`,
    body: { key: generateEngineKey('P-256').publicJwk },
  }),
  removeEngineKey: async (stage) => {
    const { id, kid } = await spareKey(stage);
    return { as: 'operator', method: 'DELETE', url: `/v1/engines/${id}/keys/${kid}`, headers: any };
  },
  updateEngine: async ({ engine }) => ({
    as: 'operator',
    method: 'PATCH',
    url: `/v1/engines/${engine.id}`,
    body: { name: fresh() },
    headers: any,
  }),
  putCredentialType: async () => ({
    as: 'operator',
    method: 'PUT',
    url: `/v1/credential-types/acme.${fresh()}`,
    body: declaredType,
  }),
  deleteCredentialType: async ({ vault }) => {
    const url = `/v1/credential-types/acme.${fresh()}`;
    await demand(vault.call('operator', 'PUT', url, declaredType), 200);
    return { as: 'operator', method: 'DELETE', url, headers: any };
  },
  deleteEngine: async ({ vault }) => ({
    as: 'operator',
    method: 'DELETE',
    url: `/v1/engines/${(await registerEngine(vault, fresh())).id}`,
    headers: any,
  }),
  rotateRootKey: async () => ({ as: 'operator', method: 'POST', url: '/v1/root-key-rotations' }),
  startRotation: async (stage) => ({
    as: 'alice',
    method: 'POST',
    url: `/v1/teams/${await team(stage)}/key-rotations`,
  }),
  cancelRotation: async (stage) => {
    const slug = await team(stage);
    const { id } = await demand(
      stage.vault.call('alice', 'POST', `/v1/teams/${slug}/key-rotations`),
      202,
    );
    return {
      as: 'alice',
      method: 'POST',
      url: `/v1/teams/${slug}/key-rotations/${id}/cancel`,
    };
  },
  retireKey: async (stage) => ({
    as: 'alice',
    method: 'POST',
    url: `${await keyOf(stage, 'decryptOnly')}/retire`,
  }),
  restoreKey: async (stage) => ({
    as: 'alice',
    method: 'POST',
    url: `${await keyOf(stage, 'retired')}/restore`,
  }),
  scheduleKeyDestruction: async (stage) => ({
    as: 'alice',
    method: 'POST',
    url: `${await keyOf(stage, 'retired')}/schedule-destroy`,
    body: { days: 7 },
  }),
  cancelKeyDestruction: async (stage) => ({
    as: 'alice',
    method: 'POST',
    url: `${await keyOf(stage, 'destroyPending')}/cancel-destroy`,
  }),
  markKeyCompromised: async (stage) => ({
    as: 'alice',
    method: 'POST',
    url: `${await keyOf(stage, 'decryptOnly')}/mark-compromised`,
    body: { reason: 'a test' },
  }),
  putWebhook: async (stage) => {
    const slug = await team(stage);
    return {
      as: 'alice',
      method: 'PUT',
      url: `/v1/teams/${slug}/webhooks/${await webhook(stage, slug)}`,
      body: { events: ['key.overdue'] },
    };
  },
  deleteWebhook: async (stage) => ({
    as: 'alice',
    method: 'DELETE',
    url: await subscribed(stage),
    headers: any,
  }),
  testWebhook: async (stage) => ({
    as: 'alice',
    method: 'POST',
    url: `${await subscribed(stage)}/test`,
  }),
};

/** Sends a prepared request. */
export const send = (
  { vault }: Stage,
  { as, method, url, body, headers }: Prepared,
): Promise<Answer> => vault.call(as, method, url, body, headers);
