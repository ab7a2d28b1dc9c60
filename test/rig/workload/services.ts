// What credentials are connected to: providers of OAuth 2.0, tests of connections, webhooks.
import { randomBytes } from 'node:crypto';
import { webhooksMax } from '../../../src/notifications/service.ts';
import { bodyOf, create, type Owned, planned } from './credential.ts';
import type { Lane } from './lane.ts';
import type { TeamOfRig } from './types.ts';
import type { Work } from './work.ts';

export class ServicesLane {
  readonly lane: Lane;
  readonly team: TeamOfRig;
  account: Owned | undefined;
  state: string | undefined;
  tested: Owned | undefined;
  webhooks: { owned: Owned; revision: number; isLoose: boolean }[] = [];
  /** Webhooks that the lane lost sight of, and that may still stand in the vault. */
  astray = 0;

  constructor(lane: Lane, team: TeamOfRig) {
    this.lane = lane;
    this.team = team;
  }

  async make(
    type: string,
    secret: string,
    fields: object,
    more: object = {},
  ): Promise<Owned | undefined> {
    const plan = { ...planned(this.lane, this.team, type), secrets: { 1: secret } };
    return create(this.lane, plan, this.team.admin, bodyOf(plan, fields, more));
  }
}

// ── accounts at a provider ────────────────────────────────────────────────────────────────────────

const connection = ({ label }: Owned): string => `connection/${label}`;

async function startAuthorization(of: ServicesLane): Promise<boolean> {
  const { url } = of.lane.stage.peers;
  const secret = of.lane.fresh('client-secret');
  of.account ??= await of.make('oauth2', secret, {
    clientId: 'rig',
    clientSecret: secret,
    authorizationUrl: `${url}/authorize`,
    tokenUrl: `${url}/token`,
    scope: 'all',
  });
  if (of.account === undefined) return false;
  const answer = await of.lane.read(
    { operation: 'startAuthorization', as: of.team.editor, params: { id: of.account.id } },
    () => ({}),
    { events: { 'oauth.authorize': 1 } },
  );
  const to = answer?.json?.authorizationUrl;
  of.state = to === undefined ? undefined : (new URL(to).searchParams.get('state') ?? undefined);
  return of.state !== undefined;
}

async function finishAuthorization(of: ServicesLane): Promise<boolean> {
  const { state, account } = of;
  if (state === undefined || account === undefined) return false;
  of.state = undefined; // it is good once
  const { verdict } = await of.lane.change({
    operation: 'finishAuthorization',
    as: of.team.editor,
    body: { state, code: of.lane.fresh('code') },
    effects: { [connection(account)]: { connected: true } },
    events: { 'oauth.connect': 1 },
    expected: ['oauthUnavailable', 'oauthRefused', 'oauthStateInvalid'],
  });
  return verdict === 'done';
}

async function getOauthConnection(of: ServicesLane): Promise<boolean> {
  const { account } = of;
  if (account === undefined) return false;
  await of.lane.read(
    { operation: 'getOauthConnection', as: of.team.viewer, params: { id: account.id } },
    (json) => ({
      [connection(account)]: json.connectedAt === null ? null : { connected: true },
    }),
  );
  return true;
}

async function testConnection(of: ServicesLane): Promise<boolean> {
  const secret = of.lane.fresh('sk-tested');
  const fields = { apiKey: secret, baseUrl: of.lane.stage.peers.url };
  of.tested ??= await of.make('openai', secret, fields);
  if (of.tested === undefined) return false;
  const answer = await of.lane.read(
    { operation: 'testConnection', as: of.team.editor, params: { id: of.tested.id } },
    () => ({}),
    { expected: ['rateLimited'] },
  );
  return answer?.status === 200;
}

// ── webhooks ──────────────────────────────────────────────────────────────────────────────────────

const webhookThing = ({ owned }: { owned: Owned }): string => `webhook/${owned.label}`;
const eventLists = [
  ['key.rotationEnded'],
  ['credential.exposed', 'key.rotationEnded'],
  ['key.overdue'],
];

async function putWebhook(of: ServicesLane): Promise<boolean> {
  const isNew = of.webhooks.length < 2 && of.webhooks.length + of.astray < webhooksMax;
  let webhook = of.webhooks.shift();
  if (isNew) {
    if (webhook !== undefined) of.webhooks.push(webhook);
    const secret = `whsec_${randomBytes(24).toString('base64')}`;
    const fields = { url: `${of.lane.stage.peers.url}/hook`, secret };
    const owned = await of.make('webhook', secret, fields);
    webhook = owned === undefined ? undefined : { owned, revision: 0, isLoose: false };
  }
  if (webhook === undefined) return false;
  const { owned, revision: before } = webhook;
  const events = of.lane.random.pick(eventLists);
  const revision = before + 1;
  const { verdict, answer, isLoose } = await of.lane.change({
    operation: 'putWebhook',
    as: of.team.admin,
    params: { team: of.team.slug, credential: owned.id },
    headers: before === 0 ? {} : { 'if-match': `"${before}"` },
    body: { events },
    effects: { [webhookThing(webhook)]: { revision } },
    happened: ({ code }) => code === (before === 0 ? 'preconditionRequired' : 'preconditionFailed'),
    mismatch: (json) => (json.revision === revision ? undefined : `revision ${json.revision}`),
  });
  const isThere = answer?.status === 412 || answer?.status === 428;
  if (verdict === 'done')
    of.webhooks.push({ owned, revision, isLoose: webhook.isLoose || isLoose });
  else if (verdict === 'refused' && before > 0 && !isThere) of.webhooks.push(webhook);
  else if (verdict !== 'refused' || isThere) of.astray += 1;
  return verdict === 'done';
}

async function deleteWebhook(of: ServicesLane): Promise<boolean> {
  const at = of.webhooks.findIndex(({ isLoose }) => !isLoose);
  const webhook = at < 0 ? undefined : of.webhooks.splice(at, 1)[0];
  if (webhook === undefined) return false;
  const { verdict } = await of.lane.change({
    operation: 'deleteWebhook',
    as: of.team.admin,
    params: { team: of.team.slug, credential: webhook.owned.id },
    headers: { 'if-match': `"${webhook.revision}"` },
    effects: { [webhookThing(webhook)]: null },
    events: { 'webhook.remove': 1 },
    happened: ({ code }) => code === 'notFound',
  });
  if (verdict !== 'done') of.astray += 1;
  return verdict === 'done';
}

const ofWebhook =
  (
    operation: string,
    { isWatched = false, events = {}, expected = [] as readonly string[] } = {},
  ) =>
  async (of: ServicesLane): Promise<boolean> => {
    const webhook = of.webhooks[0];
    if (webhook === undefined) return false;
    const answer = await of.lane.read(
      {
        operation,
        as: of.team.admin,
        params: { team: of.team.slug, credential: webhook.owned.id },
      },
      (json, { status }) =>
        isWatched && status === 200 ? { [webhookThing(webhook)]: { revision: json.revision } } : {},
      { events, expected },
    );
    return answer !== null && (answer.status ?? 500) < 400;
  };

async function listWebhooks(of: ServicesLane): Promise<boolean> {
  const answer = await of.lane.read(
    { operation: 'listWebhooks', as: of.team.admin, params: { team: of.team.slug } },
    (json) =>
      Object.fromEntries(
        of.webhooks.map((webhook) => {
          const found = json.items.find(
            ({ credential }: { credential: { id: string } }) => credential.id === webhook.owned.id,
          );
          return [webhookThing(webhook), found === undefined ? null : { revision: found.revision }];
        }),
      ),
  );
  return answer !== null;
}

const probe = (operation: string) => async (of: ServicesLane) =>
  (await of.lane.read({ operation, as: null }, () => ({}), { expected: ['notReady'] }))?.status ===
  200;

export const servicesWork: Work<ServicesLane> = {
  startAuthorization: { weight: 2, run: startAuthorization },
  finishAuthorization: { weight: 3, run: finishAuthorization },
  getOauthConnection: { weight: 1, run: getOauthConnection },
  testConnection: { weight: 1, run: testConnection },
  putWebhook: { weight: 3, run: putWebhook },
  getWebhook: { weight: 1, run: ofWebhook('getWebhook', { isWatched: true }) },
  listWebhooks: { weight: 1, run: listWebhooks },
  deleteWebhook: { weight: 1, run: deleteWebhook },
  testWebhook: {
    weight: 1,
    run: ofWebhook('testWebhook', {
      events: { 'webhook.test': 1 },
      expected: ['rateLimited', 'stateConflict'],
    }),
  },
  listWebhookDeliveries: { weight: 1, run: ofWebhook('listWebhookDeliveries') },
  getHealth: { weight: 1, run: probe('getHealth') },
  getReadiness: { weight: 1, run: probe('getReadiness') },
  headHealth: { weight: 1, run: probe('headHealth') },
  headReadiness: { weight: 1, run: probe('headReadiness') },
  headLeaseKeys: { weight: 1, run: probe('headLeaseKeys') },
};
