// Calls through the broker with a credential whose tokens are stored: the token of now, another one
// when the upstream refuses it, and nothing of either in what comes back.
import { createServer, type IncomingMessage, request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { sql } from 'kysely';
import t, { type Test } from 'tap';
import type { Outcomes } from '../../src/broker/outcomes.ts';
import { extractTicket } from '../../src/broker/ticket-extraction.ts';
import { BrokerProxy } from '../../src/broker/proxy.ts';
import { limitDefaults, policyOf } from '../../src/credentials/policy.ts';
import { parseAllowRules } from '../../src/egress/allow.ts';
import {
  clientSecret,
  platformPage,
  startAuthorizationServer,
} from '../helpers/authorization-server.ts';
import { askTicket, type BrokerAnswer, callBroker } from '../helpers/broker.ts';
import { egressTo, listening, MovedEgress, tlsUpstream } from '../helpers/egress.ts';
import { demand } from '../helpers/leases.ts';
import { connect, oauthStage, storeOAuth } from '../helpers/oauth.ts';
import { until } from '../helpers/processes.ts';
import { waitOf } from '../helpers/waits.ts';
import type { Admitted } from '../../src/broker/types.ts';

const hour = 3_600_000;

/**
 * A vault whose broker listens, a provider, an API that both are for, and a ticket for a credential
 * that is not connected yet.
 */
async function setStage(
  t: Test,
  ttlSeconds: number,
  { policy = {}, refusalBody }: { policy?: object; refusalBody?: 'never ends' } = {},
) {
  const server = await startAuthorizationServer(t, { ttlSeconds });
  const refused = new Set<string>();
  const refusal = { status: 401 };
  const behaviour: { onCall?: () => Promise<unknown> } = {};
  const seen: { token: string; method: string; headers: IncomingMessage['headers'] }[] = [];
  let refusalsEnded = 0;
  const api = await tlsUpstream(t, 'api.test', (request, response) => {
    const token = String(request.headers.authorization).replace(/^Bearer /, '');
    seen.push({ token, method: request.method ?? '', headers: request.headers });
    request.resume();
    void (behaviour.onCall?.() ?? Promise.resolve()).then(() => {
      if (refused.has(token) && refusalBody !== undefined) {
        response.on('close', () => {
          refusalsEnded += 1;
        });
        response.writeHead(refusal.status).write('a beginning');
        return;
      }
      response
        .writeHead(refused.has(token) ? refusal.status : 200, {
          'content-type': 'application/json',
        })
        .end(JSON.stringify({ echo: request.headers }));
    });
  });
  const hosts = [api, server.upstream];
  const egress = new MovedEgress(
    {
      allow: parseAllowRules(
        hosts.map(({ host, port }) => `${host}:${port}=127.0.0.0/8`).join(','),
      ),
      own: () => [],
      ca: hosts.map(({ certificate }) => certificate).join(''),
      resolve: async (name) => (hosts.some(({ host }) => host === name) ? ['127.0.0.1'] : []),
    },
    { 'api.test': api.port },
  );
  t.teardown(() => egress.close());
  let url = '';
  const stage = await oauthStage(t, server, {
    egress,
    oauthRedirectUri: platformPage,
    brokerUrl: () => url,
  });
  const { vault } = stage;
  url = await vault.broker.listen({ host: '127.0.0.1', port: 0 });
  const { port } = vault.broker.server.address() as AddressInfo;
  const { id } = await storeOAuth(
    stage,
    'sheets',
    {},
    { policy: { delivery: ['broker'], allowedHosts: ['api.test'], ...policy } },
  );
  const ticket = await demand(askTicket(vault, 'n8n', { id }, { ttlSeconds: 3600 }), 201);
  const call = (method = 'GET', body?: string): Promise<BrokerAnswer> =>
    callBroker(
      port,
      method,
      `/broker/${ticket.id}/v1/values`,
      { authorization: `Bearer ${ticket.ticket}` },
      body,
    );
  const latest = (): string => server.given.accessTokens.at(-1)!;

  return {
    server,
    refused,
    refusal,
    refusalsEnded: () => refusalsEnded,
    behaviour,
    seen,
    stage,
    vault,
    id,
    port,
    ticket,
    call,
    latest,
  };
}

t.test('the broker puts the stored token in, and another one when it is refused', async (t) => {
  const { server, refused, seen, stage, vault, id, port, call, latest } = await setStage(t, 3600);
  t.match((await call()).json, { code: 'brokerRefused', errors: [{ rule: 'notConnected' }] });
  await connect(stage, id);
  const first = await call();
  t.equal(first.status, 200, first.text);
  t.equal(seen.at(-1)?.token, latest());
  for (const secret of [latest(), server.given.refreshTokens[0]!, clientSecret])
    t.notOk(
      JSON.stringify(first.headers).includes(secret) || first.text.includes(secret),
      'an echo shows none of it',
    );
  t.notOk(
    JSON.stringify(seen).includes(clientSecret) ||
      JSON.stringify(seen).includes(server.given.refreshTokens[0]!),
    'the upstream gets the access token and nothing else',
  );

  refused.add(latest());
  t.equal((await call()).status, 401, 'a token that has just been got is not made new for a 401');
  t.equal(server.asked['refresh_token'], undefined);
  vault.clock.ms += 60_000;
  const again = await Promise.all(Array.from({ length: 10 }, () => call()));
  t.same(
    again.map(({ status }) => status),
    Array(10).fill(200),
    'refused, made new, and sent again',
  );
  t.equal(server.asked['refresh_token'], 1, 'once for all of them');
  t.notOk(
    again.some(({ text }) => server.given.accessTokens.some((token) => text.includes(token))),
    'neither the new one nor the old one comes back',
  );

  refused.add(latest());
  vault.clock.ms += 300_000;
  const posts = seen.length;
  t.equal((await call('POST', '{}')).status, 401, 'what may not be sent twice is not');
  t.equal(seen.length, posts + 1);
  await until(() => server.asked['refresh_token'] === 2);
  await until(
    async () =>
      (await vault.db.selectFrom('oauth_token').select('sequence').executeTakeFirstOrThrow())
        .sequence === 3,
  );
  t.equal((await call('POST', '{}')).status, 200, 'but the next call has another token');

  await server.revoke();
  vault.clock.ms += 50 * 60_000;
  refused.add(latest());
  t.equal(
    (await call()).status,
    401,
    "where none is to be had, the upstream's answer is the answer",
  );
  t.match((await vault.call('alice', 'GET', `/v1/credentials/${id}/oauth`)).json, {
    state: 'refreshFailed',
    reason: 'invalid_grant',
  });
  vault.clock.ms += hour;
  const other = await demand(askTicket(vault, 'n8n', { id }), 201);
  t.match(
    (
      await callBroker(port, 'GET', `/broker/${other.id}/v1/values`, {
        authorization: `Bearer ${other.ticket}`,
      })
    ).json,
    { code: 'brokerRefused', errors: [{ rule: 'refreshFailed' }] },
  );
});

t.test(
  'what is taken away while the provider is asked counts before the call goes out',
  async (t) => {
    const { server, seen, stage, vault, id, call, latest } = await setStage(t, 120);
    await connect(stage, id);
    t.equal((await call()).status, 200);
    vault.clock.ms += 90_000;
    t.equal((await call()).status, 200, 'made new on the way');
    t.equal(seen.at(-1)?.token, latest());
    vault.clock.ms += 180_000;
    const before = seen.length;
    server.behaviour.onToken = async () => {
      await demand(vault.call('alice', 'POST', `/v1/credentials/${id}/disable`), 200);
    };
    t.match((await call()).json, { code: 'brokerRefused', errors: [{ rule: 'disabled' }] });
    t.equal(seen.length, before, 'nothing went out');
  },
);

t.test(
  "a failure of the vault's own after a 401 is its own, in the answer, the log and the audit log",
  async (t) => {
    const { refused, behaviour, stage, vault, id, call, latest } = await setStage(t, 3600);
    await connect(stage, id);
    t.equal((await call()).status, 200);
    vault.clock.ms += 60_000;
    refused.add(latest());
    const rename = (from: string, to: string): Promise<unknown> =>
      sql`alter table ${sql.id(from)} rename to ${sql.id(to)}`.execute(vault.db);
    behaviour.onCall = () => rename('oauth_token', 'oauth_token_away');
    const logged = vault.logs.length;
    const answer = await call();
    t.match(
      answer,
      { status: 500, json: { code: 'internal' }, headers: { 'vault-error': 'true' } },
      'the upstream said 401, and the vault could not do its part',
    );
    const lines = (): string[] => vault.logs.slice(logged);
    t.match(JSON.parse(lines().find((line) => line.includes('requestFailed')) ?? '{}'), {
      code: 'internal',
      requestId: answer.json.requestId,
      causes: [{ code: '42P01' }],
    });
    const outcomes = async (): Promise<unknown[]> =>
      (
        await vault.db
          .selectFrom('audit_event')
          .select('details')
          .where('action', '=', 'credential.used')
          .execute()
      ).map(({ details }) => details);
    await until(async () =>
      (await outcomes()).some(
        (details) => (details as { failure?: string }).failure === 'internal',
      ),
    );

    await rename('oauth_token_away', 'oauth_token');
    const before = vault.logs.length;
    t.equal(
      (await call('POST', '{}')).status,
      401,
      "what may not be sent twice has the upstream's",
    );
    await until(() =>
      vault.logs.slice(before).some((line) => line.includes('cannot refresh a token')),
    );
    behaviour.onCall = async () => undefined;
    await rename('oauth_token_away', 'oauth_token');
    t.equal((await call()).status, 200, 'and when it can again, it does');
  },
);

t.test(
  'who waits for a provider has a place, and who hangs up meanwhile gives it back',
  async (t) => {
    const { server, stage, vault, id, port, ticket, call } = await setStage(t, 120, {
      policy: { limits: { concurrency: 1 } },
    });
    await connect(stage, id);
    vault.clock.ms += 180_000;
    const asked = Promise.withResolvers<void>();
    const answer = Promise.withResolvers<void>();
    server.behaviour.onToken = () => {
      asked.resolve();
      return answer.promise;
    };
    const request = httpRequest({
      host: '127.0.0.1',
      port,
      path: `/broker/${ticket.id}/v1/values`,
      headers: { authorization: `Bearer ${ticket.ticket}` },
      agent: false,
    });
    request.on('error', () => undefined).end();
    await asked.promise;
    t.match((await call()).json, { code: 'rateLimited' }, 'another call is one too many');
    request.destroy();
    await until(async () => (await waitOf(vault, 'brokerCalls')).inUse === 0);
    const next = call();
    await until(async () => (await waitOf(vault, 'brokerCalls')).inUse === 1);
    answer.resolve();
    t.equal((await next).status, 200, 'the next one has waited for the same refresh');
    t.equal(server.asked['refresh_token'], 1);
  },
);

t.test('a refusal whose body never ends is left, and its connection closed', async (t) => {
  const { refused, refusalsEnded, stage, vault, id, call, latest } = await setStage(t, 3600, {
    refusalBody: 'never ends',
    policy: { limits: { idleSeconds: 3_600 } },
  });
  await connect(stage, id);
  refused.add(latest());
  vault.clock.ms += 60_000;
  t.equal((await call()).status, 200, 'asked again with another token');
  await until(() => refusalsEnded() === 1);
  t.pass('nobody waits for the end of the first answer');
});

t.test(
  'SECURITY: another token is got on the statuses that the policy names, 401 without',
  async (t) => {
    for (const [policy, renewing] of [
      [{}, [401]],
      [{ renewOn: [401, 403] }, [401, 403]],
      [{ renewOn: [400] }, [400]],
      [{ renewOn: [] }, []],
    ] as const) {
      await t.test(JSON.stringify(policy), async (t) => {
        const { server, refused, refusal, seen, stage, vault, id, call, latest } = await setStage(
          t,
          90_000,
          { policy },
        );
        await connect(stage, id);
        for (const status of [400, 401, 403, 404, 500]) {
          const isRenewing = (renewing as readonly number[]).includes(status);
          vault.clock.ms += 11 * 60_000; // less than the ticket's hour in all
          refusal.status = status;
          refused.add(latest());
          const [before, sent] = [server.asked['refresh_token'] ?? 0, seen.length];
          if (status !== 401) {
            t.equal((await call('POST', '{}')).status, status, 'what may not be sent twice');
            t.equal(seen.length, sent + 1);
            t.equal(
              server.asked['refresh_token'] ?? 0,
              before,
              `${status} with POST renews nothing`,
            );
          }
          t.equal((await call()).status, isRenewing ? 200 : status, String(status));
          t.equal((server.asked['refresh_token'] ?? 0) - before, isRenewing ? 1 : 0);
          refused.clear();
        }
      });
    }
  },
);

t.test('SECURITY: an hour of forbidden paths forces a few refreshes, and no more', async (t) => {
  const { server, refusal, refused, stage, vault, id, call } = await setStage(t, 3_600, {
    policy: { renewOn: [401, 403] },
  });
  await connect(stage, id);
  refusal.status = 403;
  refused.has = () => true;
  for (let n = 0; n < 120; n += 1) {
    t.equal((await call()).status, 403);
    vault.clock.ms += 30_000;
  }
  t.ok((server.asked['refresh_token'] ?? 0) <= 8, `${server.asked['refresh_token']} of 120`);
  t.match((await vault.call('alice', 'GET', `/v1/credentials/${id}`)).json, {
    problems: ['rejectedByUpstream'],
  });
});

t.test(
  'SECURITY: only a 401 makes a token new for a call that may not be sent twice',
  async (t) => {
    const asked: string[] = [];
    const api = await tlsUpstream(t, 'api.test', (request, response) => {
      request.resume();
      response.writeHead(Number(request.url?.slice(1)), { 'content-length': '0' }).end();
    });
    const outcomes = { add: () => undefined } as unknown as Outcomes;
    const proxy = new BrokerProxy({
      egress: egressTo(t, [api]),
      outcomes,
      now: Date.now,
      onError: (error) => t.error(error),
    });
    const server = createServer((request, response) => {
      const admitted = {
        caller: { requestId: 'r' },
        presented: extractTicket(['x-api-key', `vbt_${'A'.repeat(43)}`]),
        team: 'payments',
        credential: 'c',
        policy: policyOf(['broker']),
        target: { origin: { protocol: 'https:', host: 'api.test', port: api.port }, basePath: '' },
        rendered: { headers: {}, defaults: {}, dropHeaders: [], path: String, sensitive: [] },
        path: request.url,
        callPath: request.url,
        isObjectStore: false,
        limits: limitDefaults,
        event: { target: { type: 'credential', id: 'c' } },
        renewOn: [400, 401, 403],
        renew: async () => {
          asked.push(`${request.method} ${request.url}`);
          return undefined;
        },
        leave: () => undefined,
      } as unknown as Admitted;
      const exchange = {
        request,
        response,
        seenAt: { brokerPath: '', brokerUrl: '', ticketNames: [] },
        take: () => undefined,
      };
      void proxy.carry(admitted, { ...exchange, log: (failure) => t.error(failure) });
    });
    const port = await listening(t, server);
    for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'PATCH'])
      for (const status of [200, 400, 401, 403])
        t.equal((await fetch(`http://127.0.0.1:${port}/${status}`, { method })).status, status);
    t.same(asked, [
      'GET /400',
      'GET /401',
      'GET /403',
      'POST /401',
      'PUT /401',
      'DELETE /401',
      'PATCH /401',
    ]);
  },
);
