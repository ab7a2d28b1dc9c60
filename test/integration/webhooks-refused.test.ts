// What is not sent to webhooks: with a credential that may not be used, by somebody else's words,
// to where nobody may dial; and who may say what is sent.
import { randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import t, { type Test as Tap } from 'tap';
import { egressTo } from '../helpers/egress.ts';
import { intrude } from '../helpers/intruder.ts';
import { askLease, demand, registerEngine, rulesOf } from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';
import {
  hurry,
  newSecret,
  type Receiver,
  startReceiver,
  storeWebhook,
  subscribe,
  untilDeliveries,
} from '../helpers/webhooks.ts';

t.setTimeout(180_000);

const test = (vault: TestVault, id: string, team = 'payments'): Promise<any> =>
  demand(vault.call('alice', 'POST', `/v1/teams/${team}/webhooks/${id}/test`), 202);
const any = { 'if-match': '*' };

async function setStage(
  t: Tap,
  receivers: readonly Receiver[],
  options: Parameters<typeof startVault>[1] = {},
): Promise<TestVault> {
  const vault = await startVault(t, { egress: egressTo(t, receivers), ...options });
  await vault.team('payments');
  vault.start();
  return vault;
}

t.test(
  'without a policy of its own no engine gets it, whatever the team gives to engines',
  async (t) => {
    const receiver = await startReceiver(t);
    const vault = await setStage(t, [receiver]);
    await demand(
      vault.call(
        'alice',
        'PATCH',
        '/v1/teams/payments',
        { defaultDelivery: ['lease', 'broker'] },
        any,
      ),
      200,
    );
    const engine = await registerEngine(vault, 'n8n');
    await vault.member('payments', 'n8n', 'engine');
    const id = await storeWebhook(vault, receiver);
    t.same((await demand(vault.call('alice', 'GET', `/v1/credentials/${id}`), 200)).policy, {
      delivery: [],
      allowedHosts: [],
    });
    t.same(rulesOf(await askLease(vault, engine.sub, [{ id }])), [
      '/credentials/0 deliveryNotAllowed',
    ]);
  },
);

t.test('a credential that may not be used is not used', async (t) => {
  const receiver = await startReceiver(t);
  const vault = await setStage(t, [receiver]);
  const cases: [string, (id: string) => Promise<unknown>][] = [
    ['disabled', (id) => demand(vault.call('alice', 'POST', `/v1/credentials/${id}/disable`), 200)],
    [
      'expired',
      (id) =>
        demand(
          vault.call(
            'alice',
            'PATCH',
            `/v1/credentials/${id}`,
            { expiresAt: '2020-01-01T00:00:00Z' },
            any,
          ),
          200,
        ),
    ],
    [
      'a policy without POST',
      (id) =>
        demand(
          vault.call(
            'alice',
            'PATCH',
            `/v1/credentials/${id}`,
            { policy: { delivery: [], allowedHosts: [], methods: ['GET'] } },
            any,
          ),
          200,
        ),
    ],
    [
      'a policy for other paths',
      (id) =>
        demand(
          vault.call(
            'alice',
            'PATCH',
            `/v1/credentials/${id}`,
            { policy: { delivery: [], allowedHosts: [], pathPrefixes: ['/other'] } },
            any,
          ),
          200,
        ),
    ],
    [
      'changed past the service',
      (id) =>
        intrude(
          vault.db,
          `update credential_version set public_fields = '{"url":"${receiver.url}/evil"}' where credential_id = '${id}'`,
        ),
    ],
  ];
  for (const [what, change] of cases) {
    const id = await subscribe(vault, receiver, ['key.overdue']);
    await change(id);
    const asked = await vault.call('alice', 'POST', `/v1/teams/payments/webhooks/${id}/test`);
    if (what === 'changed past the service') {
      t.equal(asked.status, 404, 'not even the message is written');
      continue;
    }
    const made = asked.json;
    const {
      rows: [row],
    } = await until(async () => {
      const found = await sql<{
        attempts: number;
        outcome: string;
      }>`select attempts, outcome from notification where id = ${made.id}`.execute(vault.db);
      return (found.rows[0]?.attempts ?? 0) > 0 ? found : undefined;
    });
    t.equal(row?.outcome, 'credential', what);
    const {
      rows: [event],
    } = await sql<{
      decision: string;
    }>`select decision from audit_event where target_id = ${id} and action = 'credential.use'`.execute(
      vault.db,
    );
    t.equal(event?.decision, 'deny', `${what}: stands in the audit log`);
  }
  const deleted = await subscribe(vault, receiver, ['key.overdue']);
  await demand(vault.call('alice', 'DELETE', `/v1/credentials/${deleted}`, undefined, any), 204);
  t.equal((await vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${deleted}`)).status, 404);
  t.equal(receiver.received.length, 0);
});

t.test('an exposed secret signs nothing where the team refuses such', async (t) => {
  const receiver = await startReceiver(t);
  const vault = await setStage(t, [receiver]);
  const id = await subscribe(vault, receiver, ['key.overdue']);
  await demand(
    vault.call('alice', 'PATCH', '/v1/teams/payments', { refuseExposedLeases: true }, any),
    200,
  );
  const {
    items: [{ id: key }],
  } = await demand(vault.call('alice', 'GET', '/v1/teams/payments/keys'), 200);
  await demand(
    vault.call('alice', 'POST', `/v1/teams/payments/keys/${key}/mark-compromised`, {
      reason: 'a drill',
    }),
    200,
  );
  await test(vault, id);
  await untilDeliveries(vault, id, ([first]) => first.outcome === 'credential');
  await demand(
    vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { fields: { secret: receiver.secret } },
      any,
    ),
    200,
  );
  await hurry(vault.db, id);
  await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
  t.equal(receiver.received.length, 1);
});

t.test('what was written past the service is not signed', async (t) => {
  const receiver = await startReceiver(t);
  const other = await startReceiver(t, 'others.test');
  const vault = await setStage(t, [receiver, other]);
  await vault.team('elsewhere');
  const [id, foreign] = [
    await subscribe(vault, receiver, ['key.overdue']),
    await subscribe(vault, other, ['key.overdue'], { team: 'elsewhere' }),
  ];
  const forge = async (what: string, ...statements: string[]): Promise<void> => {
    await sql`update webhook set paused_until = now() + interval '1 hour'`.execute(vault.db);
    const { id: message } = await test(vault, id);
    await intrude(
      vault.db,
      ...statements.map((statement) => statement.replaceAll('$message', message)),
    );
    await sql`update webhook set paused_until = null`.execute(vault.db);
    const alarms = vault.logs.length;
    const found = await until(
      async () =>
        (
          await sql<{
            outcome: string;
            state: string;
          }>`select outcome, state from notification where outcome = 'sealBroken'`.execute(vault.db)
        ).rows[0],
    );
    t.match(found, { outcome: 'sealBroken' }, what);
    t.ok(
      vault.logs
        .slice(alarms)
        .concat(vault.logs)
        .some((line) => /"sealBroken"/.test(line) && /"notify"/.test(line)),
      `${what}: an alarm`,
    );
    await sql`delete from notification`.execute(vault.db);
    await sql`update webhook set paused_until = null, failing_since = null`.execute(vault.db);
  };
  await forge(
    'the data',
    `update notification set data = jsonb_build_object('team', 'payments', 'credential', 'forged') where id = '$message'`,
  );
  await forge(
    'the kind',
    `update notification set type = 'credential.exposed' where id = '$message'`,
  );
  await forge(
    'another receiver',
    `update notification set webhook_id = '${foreign}' where id = '$message'`,
  );
  await forge(
    'what a webhook asks for',
    `update webhook set events = '{credential.exposed}' where credential_id = '${id}'`,
  );
  t.equal(receiver.received.length + other.received.length, 0);
  t.equal(
    (await vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}`)).status,
    404,
    'it is no webhook any more',
  );
  await demand(
    vault.call('alice', 'DELETE', `/v1/teams/payments/webhooks/${id}`, undefined, any),
    204,
  );
});

t.test(
  'a refused address and an unknown name are alike; a certificate for another name is not taken',
  async (t) => {
    const receiver = await startReceiver(t);
    const wrong = await startReceiver(t, 'wrong.test', { names: ['other.test'] });
    const vault = await setStage(t, [], {
      egress: egressTo(
        t,
        [{ ...receiver, certificate: receiver.certificate + wrong.certificate }, wrong],
        { resolve: async (name) => (name === 'unknown.test' ? [] : ['127.0.0.1']) },
      ),
    });
    const outcomeOf = async (url: string): Promise<any> => {
      const id = await subscribe(vault, { url, secret: newSecret() }, ['key.overdue']);
      await test(vault, id);
      const [{ outcome, state, attempts }] = (await untilDeliveries(
        vault,
        id,
        ([first]) => first.attempts === 1,
      )) as [any];
      await demand(
        vault.call('alice', 'DELETE', `/v1/teams/payments/webhooks/${id}`, undefined, any),
        204,
      );
      return { outcome, state, attempts };
    };
    for (const url of [
      'https://unknown.test',
      'https://inside.test',
      'https://127.0.0.1',
      'https://169.254.169.254',
      `https://localhost:${receiver.port}`,
      `https://hooks.test:${wrong.port}`,
    ]) {
      t.same(await outcomeOf(url), { outcome: 'name', state: 'pending', attempts: 1 }, url);
    }
    t.match(await outcomeOf(wrong.url), { outcome: 'tls' });
    t.equal(wrong.received.length, 0);
    t.match(await outcomeOf(receiver.url), { outcome: 'ok' }, 'the control');
  },
);

t.test(
  "a credential that went to another team tells neither of anything until that one's admin says so",
  async (t) => {
    const receiver = await startReceiver(t);
    const vault = await setStage(t, [receiver]);
    await vault.team('elsewhere');
    const id = await subscribe(vault, receiver, ['key.overdue']);
    await sql`update webhook set paused_until = now() + interval '1 hour'`.execute(vault.db);
    await test(vault, id);
    const { id: transfer } = await demand(
      vault.call('alice', 'POST', `/v1/credentials/${id}/transfers`, { team: 'elsewhere' }),
      201,
    );
    await demand(vault.call('alice', 'POST', `/v1/transfers/${transfer}/accept`), 200);
    await sql`update webhook set paused_until = null`.execute(vault.db);
    for (const team of ['payments', 'elsewhere'])
      t.equal(
        (await vault.call('alice', 'GET', `/v1/teams/${team}/webhooks/${id}`)).status,
        404,
        team,
      );
    t.same(
      (await sql`select 1 from notification`.execute(vault.db)).rows,
      [],
      'what waited went with it',
    );
    await demand(
      vault.call('alice', 'PUT', `/v1/teams/elsewhere/webhooks/${id}`, { events: ['key.overdue'] }),
      200,
    );
    await test(vault, id, 'elsewhere');
    await untilDeliveries(vault, id, ([first]) => first.state === 'delivered', 'elsewhere');
    t.match(
      receiver.received.map(({ message }) => message.data.team),
      ['elsewhere'],
    );
  },
);

t.test('requests that break a rule', async (t) => {
  const receiver = await startReceiver(t);
  const vault = await setStage(t, [receiver]);
  await vault.member('payments', 'eddie', 'editor');
  const id = await storeWebhook(vault, receiver);
  const put = (
    as: string,
    body: unknown,
    headers: Record<string, string> = {},
    of = id,
  ): Promise<any> => vault.call(as, 'PUT', `/v1/teams/payments/webhooks/${of}`, body, headers);
  t.equal((await put('eddie', { events: ['key.overdue'] })).json.code, 'forbidden');
  for (const events of [
    [],
    ['no.such'],
    ['key.overdue', 'key.overdue'],
    'key.overdue',
    ['webhook.test'],
  ])
    t.equal((await put('alice', { events })).json.code, 'invalidRequest', JSON.stringify(events));
  const { id: plain } = (await demand(
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: 'plain',
      type: 'bearer',
      fields: { token: 't' },
    }),
    201,
  )) as { id: string };
  t.match((await put('alice', { events: ['key.overdue'] }, {}, plain)).json, {
    code: 'invalidRequest',
    errors: [{ pointer: '/params/credential', rule: 'notAWebhook' }],
  });
  await vault.team('elsewhere');
  const foreign = await storeWebhook(vault, receiver, { team: 'elsewhere' });
  t.equal(
    (await put('alice', { events: ['key.overdue'] }, {}, foreign)).json.code,
    'notFound',
    'a credential of another team',
  );
  const made = await put('alice', { events: ['key.overdue', 'credential.expiring'] });
  t.match(
    [made.status, made.headers['etag'], made.json.events],
    [200, '"1"', ['credential.expiring', 'key.overdue']],
  );
  t.equal((await put('alice', { events: ['key.overdue'] })).json.code, 'preconditionRequired');
  t.equal(
    (await put('alice', { events: ['key.overdue'] }, { 'if-match': '"7"' })).json.code,
    'preconditionFailed',
  );
  t.match((await put('alice', { events: ['key.overdue'] }, { 'if-match': '"1"' })).json, {
    revision: 2,
  });
  t.match((await demand(vault.call('alice', 'GET', '/v1/teams/payments/webhooks'), 200)).items, [
    { credential: { id }, revision: 2 },
  ]);
  await sql`update webhook set paused_until = now() + interval '1 hour'`.execute(vault.db);
  for (let i = 0; i < 5; i += 1) await test(vault, id);
  t.match((await vault.call('alice', 'POST', `/v1/teams/payments/webhooks/${id}/test`)).json, {
    code: 'rateLimited',
  });
  t.match(
    await demand(
      vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}/deliveries?limit=2`),
      200,
    ),
    { items: [{ type: 'webhook.test' }, {}], nextCursor: String },
  );
  for (let i = 0; i < 9; i += 1) await subscribe(vault, receiver, ['key.overdue']);
  t.equal(
    (await put('alice', { events: ['key.overdue'] }, {}, await storeWebhook(vault, receiver))).json
      .code,
    'stateConflict',
    'eleven are too many',
  );
  for (const [field, value] of [
    ['url', 'http://hooks.test/'],
    ['url', 'https://user@hooks.test/'],
    ['secret', 'whsec_short'],
    ['secret', newSecret(23)],
    ['secret', newSecret(65)],
    ['secret', randomBytes(32).toString('base64')],
    ['secret', newSecret().replace('=', '')],
  ] as const) {
    const answer = await vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { fields: { secret: newSecret(), [field]: value } },
      any,
    );
    t.match(
      answer.json,
      { code: 'invalidRequest', errors: [{ pointer: `/fields/${field}` }] },
      `${field} ${value.slice(0, 8)}`,
    );
  }
  for (const bytes of [24, 64])
    t.equal(
      (
        await vault.call(
          'alice',
          'PATCH',
          `/v1/credentials/${id}`,
          { fields: { secret: newSecret(bytes) } },
          any,
        )
      ).status,
      200,
    );
  await demand(
    vault.call('alice', 'DELETE', `/v1/teams/payments/webhooks/${id}`, undefined, any),
    204,
  );
  t.equal((await vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}`)).status, 404);
  t.equal(
    (await vault.call('alice', 'GET', `/v1/credentials/${id}`)).status,
    200,
    'the credential stays',
  );
});

t.test(
  'an editor gives a webhook another secret, and sends nothing to where no admin has said',
  async (t) => {
    const [receiver, other] = [await startReceiver(t), await startReceiver(t, 'other.test')];
    const vault = await setStage(t, [receiver, other]);
    await vault.member('payments', 'eddie', 'editor');
    const id = await subscribe(vault, receiver, ['key.rotationEnded'], { name: 'on-call' });
    const elsewhere = { url: `${other.url}/vault`, secret: other.secret };
    const byName = '/v1/teams/payments/credentials/on-call';
    t.equal(
      (await vault.call('eddie', 'PATCH', `/v1/credentials/${id}`, { fields: elsewhere }, any))
        .status,
      403,
      'by its id',
    );
    t.equal(
      (await vault.call('eddie', 'PUT', byName, { type: 'webhook', fields: elsewhere }, any))
        .status,
      403,
      'by its name',
    );
    const item = { op: 'update', id, revision: '*', fields: elsewhere };
    const { results } = (await demand(
      vault.call('eddie', 'POST', '/v1/teams/payments/credentials/bulk', { items: [item] }),
      200,
    )) as { results: any[] };
    t.equal(results[0].problem?.code, 'forbidden', 'among others');
    t.match((await demand(vault.call('alice', 'GET', `/v1/credentials/${id}`), 200)).publicFields, {
      url: `${receiver.url}/vault`,
    });
    const { rows: denied } =
      await sql`select 1 from audit_event where target_id = ${id} and action = 'credential.manage' and decision = 'deny'`.execute(
        vault.db,
      );
    t.equal(denied.length, 3, 'each stands in the audit log');

    const next = newSecret();
    await demand(
      vault.call(
        'eddie',
        'PATCH',
        `/v1/credentials/${id}`,
        { fields: { secret: next, previousSecret: receiver.secret } },
        any,
      ),
      200,
    );
    await demand(
      vault.call(
        'eddie',
        'PATCH',
        `/v1/credentials/${id}`,
        { description: 'pages whoever is on call' },
        any,
      ),
      200,
    );
    await demand(
      vault.call(
        'alice',
        'PATCH',
        `/v1/credentials/${id}`,
        { fields: { ...elsewhere, previousSecret: null } },
        any,
      ),
      200,
    );
    const made = await test(vault, id);
    t.equal(
      (
        await untilDeliveries(vault, id, (all) =>
          all.some((each: any) => each.id === made.id && each.state === 'delivered'),
        )
      ).length > 0,
      true,
    );
    t.equal(receiver.received.length, 0);
    t.equal(other.received.length, 1, 'an admin may');
  },
);

t.test('a team has ten webhooks, whatever it deletes and restores', async (t) => {
  const vault = await setStage(t, []);
  const ids: string[] = [];
  const add = async (): Promise<number> => {
    const id = await storeWebhook(vault, { url: 'https://hooks.test', secret: newSecret() });
    const { status } = await vault.call('alice', 'PUT', `/v1/teams/payments/webhooks/${id}`, {
      events: ['key.overdue'],
    });
    if (status === 200) ids.push(id);
    return status;
  };
  for (let n = 0; n < 10; n += 1) t.equal(await add(), 200);
  t.equal(await add(), 409, 'ten and no more');
  const [deleted, kept] = ids as [string, string];
  await demand(vault.call('alice', 'DELETE', `/v1/credentials/${kept}`, undefined, any), 204);
  await demand(vault.call('alice', 'POST', `/v1/credentials/${kept}/restore`), 200);
  await demand(vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${kept}`), 200);
  await demand(vault.call('alice', 'DELETE', `/v1/credentials/${deleted}`, undefined, any), 204);
  t.equal(await add(), 200, 'what was deleted makes room');
  await demand(vault.call('alice', 'POST', `/v1/credentials/${deleted}/restore`), 200);
  t.equal(
    (await sql`select 1 from webhook`.execute(vault.db)).rows.length,
    10,
    'and comes back as no webhook',
  );
  t.equal((await vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${deleted}`)).status, 404);
  t.equal(
    (await demand(vault.call('alice', 'GET', '/v1/teams/payments/webhooks'), 200)).items.length,
    10,
  );
  const { rows } = await sql<{
    target_id: string;
    reason: string;
  }>`select target_id, reason from audit_event where action = 'webhook.remove'`.execute(vault.db);
  t.strictSame(rows, [{ target_id: deleted, reason: 'credentialDeleted' }]);
});
