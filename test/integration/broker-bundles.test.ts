// Tickets of one call: a ticket each, good for one credential; one id extends and ends them.
import { randomUUIDv7 } from 'node:crypto';
import { sql } from 'kysely';
import t from 'tap';
import { type BrokerStage, callBroker, startBroker } from '../helpers/broker.ts';
import { demand, registerEngine, rulesOf } from '../helpers/leases.ts';

const any = { 'if-match': '*' };

async function stageWith(
  t: Parameters<typeof startBroker>[0],
): Promise<BrokerStage & { ids: Record<string, string> }> {
  const stage = await startBroker(t, (request, response) => {
    response.end(String(request.headers.authorization));
  });
  const ids: Record<string, string> = { main: stage.credential };
  for (const name of ['second', 'third'])
    ids[name] = (
      await stage.store(name, {}, { fields: fieldsOf(stage, `sk-the-key-of-${name}`) })
    ).id;
  return { ...stage, ids };
}
const fieldsOf = (stage: BrokerStage, apiKey: string): object => ({
  apiKey,
  baseUrl: `https://upstream.test:${stage.upstream.port}`,
});
const ask = (
  { vault }: BrokerStage,
  credentials: readonly object[],
  more: object = {},
  as = 'n8n',
) =>
  vault.call(as, 'POST', '/v1/broker-tickets', {
    credentials,
    purpose: 'a test',
    onBehalfOf: 'alice',
    ...more,
  });
const events = async ({ vault }: BrokerStage, action: string): Promise<any[]> =>
  vault.db
    .selectFrom('audit_event')
    .leftJoin('team', 'team.id', 'team_id')
    .select(['action', 'decision', 'reason', 'target_id', 'details', 'slug'])
    .where('action', '=', action)
    .orderBy('audit_event.id')
    .execute();

t.test('a ticket each, and each good for one credential', async (t) => {
  const stage = await stageWith(t);
  const { vault, port, ids } = stage;
  const made = await demand(
    ask(stage, [{ team: 'payments', name: 'main' }, { id: ids['second'] }, { id: ids['third'] }], {
      runId: 'run-1',
      ttlSeconds: 60,
    }),
    201,
  );
  t.strictSame(Object.keys(made).sort(), ['baseUrl', 'credentials', 'expiresAt', 'id', 'ticket']);
  t.equal(made.ticket, made.credentials[0].ticket);
  t.strictSame(
    made.credentials.map(({ ticket, ...each }: any) => each),
    ['main', 'second', 'third'].map((name) => ({
      id: ids[name],
      team: 'payments',
      name,
      type: 'openai',
      publicFields: { baseUrl: `https://upstream.test:${stage.upstream.port}` },
      baseUrl: `http://127.0.0.1:${port}/payments/${name}/`,
    })),
  );
  t.equal(new Set(made.credentials.map(({ ticket }: any) => ticket)).size, 3);
  for (const [at, { ticket }] of made.credentials.entries())
    for (const [there, { baseUrl, id }] of made.credentials.entries())
      for (const path of [new URL(baseUrl).pathname, `/-/${id}/`, `/broker/${made.id}/`]) {
        const { status, text } = await callBroker(port, 'GET', path, { 'x-api-key': ticket });
        const isItsOwn = at === there && !path.startsWith('/broker/');
        t.equal(status, isItsOwn ? 200 : 401, `ticket ${at} at ${path}`);
        if (isItsOwn) t.notMatch(text, /vbt_/);
      }
  const recorded = (await events(stage, 'ticket.create')).slice(-3);
  t.strictSame(
    recorded.map(({ target_id, details }) => [target_id, details.ticket, details.runId]),
    ['main', 'second', 'third'].map((name) => [ids[name], made.id, 'run-1']),
  );
  const used = (await events(stage, 'credential.use')).filter(
    ({ decision }) => decision === 'allow',
  );
  t.ok(
    used.every(({ details }) => details.ticket === made.id),
    'calls name it by its id',
  );
  t.equal((await vault.call('n8n', 'DELETE', `/v1/broker-tickets/${made.id}`)).status, 204);
  for (const { ticket, baseUrl } of made.credentials)
    t.equal(
      (await callBroker(port, 'GET', new URL(baseUrl).pathname, { 'x-api-key': ticket })).status,
      401,
    );
  t.equal((await events(stage, 'ticket.delete')).length, 3);
});

t.test('one by itself is answered as ever, and in the list', async (t) => {
  const stage = await stageWith(t);
  const alone = await demand(
    stage.vault.call('n8n', 'POST', '/v1/broker-tickets', {
      credential: { id: stage.credential },
      purpose: 'x',
      onBehalfOf: 'alice',
    }),
    201,
  );
  t.match(alone, { id: /./, ticket: /^vbt_/, baseUrl: /\/payments\/main\/$/, expiresAt: /./ });
  t.match(alone.credentials, [{ ticket: alone.ticket, baseUrl: alone.baseUrl }]);
});

t.test('all or none: each that is refused by its place', async (t) => {
  const stage = await stageWith(t);
  const { vault, ids } = stage;
  const { id: leased } = await stage.store('leased', { delivery: ['lease'] });
  const { id: bearer } = await demand(
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: 'bearer',
      type: 'bearer',
      fields: { token: 'a-token-of-length' },
      policy: { delivery: ['broker'], allowedHosts: ['a.example', 'b.example:8443'] },
    }),
    201,
  );
  const count = async (): Promise<number> =>
    (await vault.db.selectFrom('broker_ticket').select('id').execute()).length;
  const before = await count();
  const nothing = randomUUIDv7();
  t.strictSame(
    rulesOf(
      await ask(stage, [
        { id: ids['main'] },
        { id: nothing },
        { id: leased },
        { id: bearer },
        { id: bearer, host: 'c.example' },
        { id: bearer, host: 'b.example' },
        { id: ids['second'], onBehalfOf: 'stranger' },
        { id: ids['second'] },
        { team: 'payments', name: 'second' },
        { id: ids['third'], host: 'a.example' },
      ]),
    ),
    [
      '/credentials/1 notFound',
      '/credentials/2 deliveryNotAllowed',
      '/credentials/3/host hostRequired',
      '/credentials/4/host hostNotAllowed',
      '/credentials/5/host hostNotAllowed',
      '/credentials/6 onBehalfOfRefused',
      '/credentials/8 duplicate',
      '/credentials/9/host hostNotAllowed',
    ],
  );
  t.equal(await count(), before);
  t.equal((await ask(stage, [{ id: ids['main'] }], {}, 'alice')).status, 403);
  const both = await demand(
    ask(stage, [
      { id: bearer, host: 'a.example' },
      { id: bearer, host: 'b.example:8443' },
      { id: ids['main'] },
      { id: ids['main'], onBehalfOf: 'eddie' },
    ]),
    201,
  );
  t.equal(both.credentials.length, 4, 'two hosts, and two persons, are two tickets');
  t.strictSame(
    (
      await sql<{ host: string }>`
        select host from broker_ticket where bundle_id = ${both.id} and host is not null order by id`.execute(
        vault.db,
      )
    ).rows.map(({ host }) => host),
    ['a.example', 'b.example:8443'],
  );
  for (const [credentials, pointer] of [
    [[], '/credentials'],
    [Array(101).fill({ id: nothing }), '/credentials'],
    [[{ id: nothing, runId: 'x' }], '/credentials/0'],
    [[{ id: nothing, host: 'a.example:0' }], '/credentials/0'],
    [[{ id: nothing, host: 'a.example:65536' }], '/credentials/0'],
  ] as const) {
    const answer = await ask(stage, credentials);
    t.equal(answer.status, 400);
    t.ok(answer.json.errors[0].pointer.startsWith(pointer), answer.text);
  }
});

t.test('for whom: each its own, and proof for one is proof of no other', async (t) => {
  const stage = await stageWith(t);
  const { vault, ids } = stage;
  const made = await demand(
    ask(
      stage,
      [
        { id: ids['main'] },
        { id: ids['second'], onBehalfOf: 'eddie' },
        { id: ids['third'], onBehalfOf: 'alice' },
      ],
      { onBehalfOf: undefined, subjectToken: await vault.token('alice') },
    ),
    201,
  );
  const recorded = (await events(stage, 'ticket.create')).filter(
    ({ details }) => details.ticket === made.id,
  );
  t.strictSame(
    recorded.map(({ details }) => details.isProven),
    [true, false, true],
  );
  t.equal(new Set(recorded.map(({ details }) => details.onBehalfOf)).size, 2);
  // The one person's right is the one ticket's.
  await demand(
    vault.call('alice', 'DELETE', '/v1/teams/payments/members/eddie', undefined, any),
    204,
  );
  const statuses = [];
  for (const { ticket, baseUrl } of made.credentials)
    statuses.push(
      (await callBroker(stage.port, 'GET', new URL(baseUrl).pathname, { 'x-api-key': ticket }))
        .status,
    );
  t.strictSame(statuses, [200, 403, 200]);
});

t.test('large ones are read one by one, and too large ones not at all', async (t) => {
  const stage = await stageWith(t);
  const { vault } = stage;
  const large = 'x'.repeat(60_000);
  const ids: string[] = [];
  for (let n = 0; n < 20; n += 1) {
    const { id } = await demand(
      vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
        name: `large-${n}`,
        type: 'oauth2',
        fields: {
          authorizationUrl: 'https://id.example/authorize',
          tokenUrl: 'https://id.example/token',
          clientId: 'vault',
          clientSecret: large,
          accessToken: large,
          refreshToken: large,
        },
        policy: { delivery: ['broker'], allowedHosts: ['a.example'] },
      }),
      201,
    );
    ids.push(id);
  }
  const asked = (count: number) =>
    ask(
      stage,
      ids.slice(0, count).map((id) => ({ id })),
    );
  const made = await demand(asked(8), 201);
  t.strictSame(
    made.credentials.map(({ id }: { id: string }) => id),
    ids.slice(0, 8),
    'in their order',
  );
  t.strictSame(rulesOf(await asked(20)), ['/credentials size']);
});

t.test('extended by its engine up to the bound, and no further', async (t) => {
  const stage = await stageWith(t);
  const { vault, ids, port } = stage;
  await vault.team('lending', ['lena']);
  const other = await registerEngine(vault, 'other-engine');
  t.ok(other);
  await vault.member('payments', 'other-engine', 'engine');
  const made = await demand(
    ask(stage, [{ id: ids['main'] }, { id: ids['second'] }], { ttlSeconds: 600 }),
    201,
  );
  const extend = (ttlSeconds: number, id = made.id, as = 'n8n') =>
    vault.call(as, 'PATCH', `/v1/broker-tickets/${id}`, { ttlSeconds });
  const status = async (): Promise<number> =>
    (
      await callBroker(port, 'GET', '/payments/main/', {
        'x-api-key': made.credentials[0].ticket,
      })
    ).status;
  vault.clock.ms += 500_000;
  const { expiresAt } = await demand(extend(600), 200);
  t.ok(Date.parse(expiresAt) > Date.parse(made.expiresAt));
  vault.clock.ms += 200_000;
  t.equal(await status(), 200, 'beyond what it was made for');
  t.strictSame(
    (await events(stage, 'ticket.extend')).map(({ target_id, slug, decision, details }) => [
      target_id,
      slug,
      decision,
      details.ticket,
      details.ttlSeconds,
    ]),
    ['main', 'second'].map((name) => [ids[name], 'payments', 'allow', made.id, 600]),
  );
  for (const [as, expected] of [
    ['other-engine', 403],
    ['alice', 403],
    ['eddie', 403],
    ['lena', 404],
    ['operator', 404],
    ['stranger', 404],
  ] as const)
    t.equal((await extend(60, made.id, as)).status, expected, as);
  t.equal((await extend(60, randomUUIDv7())).status, 404);
  const tooLong = await extend(2_950);
  t.equal(tooLong.status, 422);
  t.match(tooLong.json.errors, [{ pointer: '/ttlSeconds', rule: 'max' }]);
  const { max } = tooLong.json.errors[0];
  t.ok(max > 2_880 && max <= 2_900, `an hour from the making: ${max}`);
  await demand(extend(max - 40), 200);
  vault.clock.ms += (max - 50) * 1_000;
  t.equal(await status(), 200);
  t.equal((await extend(120)).status, 422, 'the bound is reached');
  t.equal(await status(), 200, 'and nothing else has changed');
  vault.clock.ms += 11_000;
  t.equal(await status(), 401);
  t.equal((await extend(1)).status, 404, 'what has ended stays ended');
  const ended = await demand(ask(stage, [{ id: ids['main'] }]), 201);
  await demand(vault.call('n8n', 'DELETE', `/v1/broker-tickets/${ended.id}`), 204);
  t.equal((await extend(60, ended.id)).status, 404);
  for (const ttlSeconds of [0, 43_201, 1.5, '60'])
    t.equal((await extend(ttlSeconds as number)).status, 400);
});

t.test("the policy's bound: at the making, and as it is when they are extended", async (t) => {
  const stage = await stageWith(t);
  const { vault, ids } = stage;
  const limit = (name: string, ticketSeconds: number) =>
    demand(
      vault.call(
        'alice',
        'PATCH',
        `/v1/credentials/${ids[name]}`,
        {
          policy: { delivery: ['broker'], limits: { ticketSeconds } },
          fields: { apiKey: 'sk-another-one' },
        },
        any,
      ),
      200,
    );
  await limit('main', 300);
  await limit('second', 40_000);
  const asked = (names: string[], more: object = {}) =>
    ask(
      stage,
      names.map((name) => ({ id: ids[name] })),
      more,
    );
  t.match((await asked(['main'], { ttlSeconds: 301 })).json.errors, [
    { pointer: '/ttlSeconds', rule: 'max', max: 300 },
  ]);
  t.match((await asked(['second', 'main'], { ttlSeconds: 301 })).json.errors, [{ max: 300 }]);
  t.match((await asked(['third'], { ttlSeconds: 3_601 })).json.errors, [{ max: 3_600 }]);
  await demand(asked(['second'], { ttlSeconds: 40_000 }), 201);
  const short = await demand(asked(['main', 'second']), 201);
  const seconds = (Date.parse(short.expiresAt) - Date.now() - vault.clock.ms) / 1_000;
  t.ok(seconds > 200 && seconds <= 300, 'without a word as long as the shortest gives');
  const made = await demand(asked(['second'], { ttlSeconds: 60 }), 201);
  await limit('second', 120);
  const patch = (ttlSeconds: number) =>
    vault.call('n8n', 'PATCH', `/v1/broker-tickets/${made.id}`, { ttlSeconds });
  t.equal((await patch(300)).status, 422, 'as the policy is now');
  t.equal((await patch(100)).status, 200);
});

t.test('rights are asked again: one that is gone, and none is extended', async (t) => {
  const stage = await stageWith(t);
  const { vault, ids } = stage;
  const made = await demand(
    ask(stage, [{ id: ids['main'] }, { id: ids['second'], onBehalfOf: 'eddie' }]),
    201,
  );
  const patch = () =>
    vault.call('n8n', 'PATCH', `/v1/broker-tickets/${made.id}`, { ttlSeconds: 900 });
  await demand(patch(), 200);
  await vault.member('payments', 'eddie', 'viewer');
  t.strictSame(rulesOf(await patch()), ['/credentials/1 onBehalfOfRefused']);
  await vault.member('payments', 'eddie', 'editor');
  await demand(vault.call('alice', 'POST', `/v1/credentials/${ids['main']}/disable`), 200);
  t.strictSame(rulesOf(await patch()), ['/credentials/0 disabled']);
  await demand(vault.call('alice', 'POST', `/v1/credentials/${ids['main']}/enable`), 200);
  await demand(patch(), 200);
  await demand(
    vault.call('operator', 'PATCH', `/v1/engines/${stage.engine.id}`, { state: 'disabled' }, any),
    200,
  );
  t.equal((await patch()).status, 403);
});

t.test('a row that somebody wrote to is never protected anew', async (t) => {
  const stage = await stageWith(t);
  const { vault, ids, port } = stage;
  for (const change of [
    sql`expires_at = expires_at + interval '1 hour'`,
    sql`created_at = created_at + interval '1 hour'`,
    sql`bundle_id = null`,
    sql`host = 'evil.example'`,
  ]) {
    const made = await demand(ask(stage, [{ id: ids['main'] }]), 201);
    await sql`update broker_ticket set ${change} where bundle_id = ${made.id}`.execute(vault.db);
    t.equal(
      (await vault.call('n8n', 'PATCH', `/v1/broker-tickets/${made.id}`, { ttlSeconds: 60 }))
        .status,
      404,
    );
    t.equal(
      (
        await callBroker(port, 'GET', '/payments/main/', {
          'x-api-key': made.credentials[0].ticket,
        })
      ).status,
      401,
    );
  }
});

t.test('a ticket of a release before: it is used and ended, and not extended', async (t) => {
  const stage = await stageWith(t);
  const { vault, port, ticket } = stage;
  const row = await vault.db
    .selectFrom('broker_ticket')
    .selectAll()
    .where('id', '=', ticket.id as never)
    .executeTakeFirstOrThrow();
  const seal = vault.keyring.rowMac('broker_ticket', {
    id: row.id,
    hash: row.ticket_hash.toString('base64url'),
    credential: row.credential_id,
    engine: row.engine_id,
    onBehalfOf: row.behalf_subject_id,
    host: row.host,
    expiresAt: row.expires_at.toISOString(),
    revision: row.revision,
  });
  await vault.db
    .updateTable('broker_ticket')
    .set({ bundle_id: null, seal })
    .where('id', '=', row.id)
    .execute();
  for (const path of [`/broker/${ticket.id}/x`, '/payments/main/x'])
    t.equal(
      (await callBroker(port, 'GET', path, { authorization: `Bearer ${ticket.ticket}` })).status,
      200,
      path,
    );
  t.equal(
    (await vault.call('n8n', 'PATCH', `/v1/broker-tickets/${ticket.id}`, { ttlSeconds: 60 }))
      .status,
    422,
  );
  t.equal((await vault.call('n8n', 'DELETE', `/v1/broker-tickets/${ticket.id}`)).status, 204);
});

t.test("an admin ends the tickets of the team's credentials, and no others", async (t) => {
  const stage = await stageWith(t);
  const { vault, ids, port } = stage;
  await vault.team('lending', ['lena']);
  await vault.member('lending', 'n8n', 'engine', 'lena');
  await vault.member('lending', 'alice', 'editor', 'lena');
  const { id: lent } = await demand(
    vault.call('lena', 'POST', '/v1/teams/lending/credentials', {
      name: 'theirs',
      type: 'openai',
      fields: fieldsOf(stage, 'sk-the-key-of-lending'),
      policy: { delivery: ['broker'], allowedHosts: [] },
    }),
    201,
  );
  const made = await demand(ask(stage, [{ id: ids['main'] }, { id: lent }]), 201);
  const end = (as: string) => vault.call(as, 'DELETE', `/v1/broker-tickets/${made.id}`);
  t.equal((await end('eddie')).status, 403);
  t.equal((await end('stranger')).status, 404);
  t.equal((await end('lena')).status, 204);
  const statuses = [];
  for (const { ticket, baseUrl } of made.credentials)
    statuses.push(
      (await callBroker(port, 'GET', new URL(baseUrl).pathname, { 'x-api-key': ticket })).status,
    );
  t.not(statuses[0], 401);
  t.equal(statuses[1], 401);
  t.equal((await end('lena')).status, 404, 'hers are gone, and the others are none of hers');
  t.equal((await end('n8n')).status, 204);
});
