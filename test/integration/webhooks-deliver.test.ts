// What is sent to webhooks: signed as receivers check it, once whoever sends, and again until it
// arrives.
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { sql } from 'kysely';
import t, { type Test as Tap } from 'tap';
import { Webhook } from 'standardwebhooks';
import { attemptsMax } from '../../src/notifications/retries.ts';
import { Retention } from '../../src/retention/service.ts';
import { everyColumn, formsOf, seek } from '../helpers/canary.ts';
import { egressTo } from '../helpers/egress.ts';
import { demand } from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { runPython, skipWithoutPython } from '../helpers/python.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';
import {
  deliveriesOf,
  hurry,
  newSecret,
  type Receiver,
  startReceiver,
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
const eventsOf = async (vault: TestVault, id: string): Promise<any[]> =>
  (
    (await demand(
      vault.call('alice', 'GET', `/v1/teams/payments/audit-events?limit=200&target=${id}`),
      200,
    )) as { items: any[] }
  ).items
    .filter(({ action }) => /^credential\.use/.test(action))
    .reverse();

t.test(
  'a message arrives whole: receivers verify it, the audit log has intent and outcome, and nothing shows the secret',
  async (t) => {
    const receiver = await startReceiver(t, 'hooks.test', { secret: newSecret(48) });
    const vault = await setStage(t, [receiver]);
    const id = await subscribe(vault, receiver, ['key.overdue']);
    const made = await test(vault, id);
    t.match(made, {
      type: 'webhook.test',
      state: 'pending',
      attempts: 0,
      subject: { type: 'credential', id },
    });
    const [delivery] = await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
    t.match(delivery, { id: made.id, attempts: 1, outcome: 'ok', nextAttemptAt: null });
    t.equal(receiver.received.length, 1);
    const { headers, message, path } = receiver.received[0]!;
    t.match(
      message,
      { type: 'webhook.test', data: { team: 'payments', credential: { id, type: 'webhook' } } },
      'the signature is good',
    );
    t.ok(Math.abs(Date.parse(message.timestamp) - Date.now()) < 60_000);
    t.match(headers, {
      'webhook-id': made.id,
      'content-type': 'application/json',
      'webhook-signature': /^v1,[A-Za-z0-9+/]{43}=$/,
    });
    t.equal(path, '/vault');
    const events = await eventsOf(vault, id);
    t.match(events, [
      {
        action: 'credential.use',
        actor: null,
        decision: 'allow',
        details: { notification: made.id, type: 'webhook.test', attempt: 1 },
        intact: true,
      },
      {
        action: 'credential.used',
        actor: null,
        details: { notification: made.id, outcome: 'ok' },
        intact: true,
      },
    ]);
    t.match(await demand(vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}`), 200), {
      state: 'ok',
      pending: 0,
      lastDeliveredAt: /^2/,
      credential: { id },
    });
    await until(
      async () =>
        (await demand(vault.call('alice', 'GET', `/v1/credentials/${id}`), 200)).useCount === 1,
    );
    const haystacks = [
      ...vault.answers.map((text, index) => ({ place: `answer ${index}`, text })),
      { place: 'the log', text: vault.logs.join('') },
      ...(await everyColumn(vault.db)),
    ];
    const bare = receiver.secret.slice('whsec_'.length);
    for (const secret of [bare, Buffer.from(bare, 'base64').toString('latin1')])
      t.same(seek(formsOf(secret), haystacks), []);
    t.ok(
      seek(new Map([['control', made.id]]), haystacks).length > 3,
      'the search finds what is there',
    );
  },
);

t.test(
  'the Python of the page takes what is sent, and nothing else',
  { skip: skipWithoutPython },
  async (t) => {
    const receiver = await startReceiver(t);
    const vault = await setStage(t, [receiver]);
    const id = await subscribe(vault, receiver, ['key.overdue']);
    await test(vault, id);
    await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
    const [{ headers, body }] = receiver.received as [Receiver['received'][number]];
    const page = readFileSync(join(import.meta.dirname, '../../docs/notifications.md'), 'utf8');
    const code = /```python\n([\s\S]*?)```/.exec(page)![1]!;
    const verify = (given: object): boolean =>
      runPython<boolean>(
        `${code}\nanswer(verify(given["secret"], given["headers"], given["body"].encode()))`,
        { secret: receiver.secret, headers, body, ...given },
      );
    t.same(
      [
        verify({}),
        verify({ secret: newSecret() }),
        verify({ body: `${body} ` }),
        verify({ headers: { ...headers, 'webhook-id': 'x' } }),
        verify({ headers: { ...headers, 'webhook-timestamp': '1' } }),
      ],
      [true, false, false, false, false],
    );
  },
);

t.test(
  'it is sent again, with the same id and body and a signature of its own, until it arrives',
  async (t) => {
    const receiver = await startReceiver(t);
    const vault = await setStage(t, [receiver]);
    const id = await subscribe(vault, receiver, ['key.overdue']);
    const answers = [500, 302, 404, 200];
    receiver.answer = (response) => {
      response
        .writeHead(answers[receiver.received.length - 1] ?? 500, {
          location: `${receiver.url}/elsewhere`,
        })
        .end('a body that nobody reads');
    };
    const { id: message } = await test(vault, id);
    for (const [attempt, outcome] of [
      [1, 'unexpected'],
      [2, 'unexpected'],
      [3, 'refused'],
    ] as const) {
      const [delivery] = await untilDeliveries(vault, id, ([first]) => first.attempts === attempt);
      t.match(delivery, { id: message, state: 'pending', outcome });
      t.ok(Date.parse(delivery.nextAttemptAt) > Date.parse(delivery.lastAttemptAt), 'later');
      t.match(await demand(vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}`), 200), {
        state: 'failing',
        pending: 1,
        pausedUntil: /^2/,
      });
      await hurry(vault.db, id);
    }
    await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
    t.equal(receiver.received.length, 4);
    t.same([...new Set(receiver.received.map((each) => each.id))], [message]);
    t.equal(new Set(receiver.received.map(({ body }) => body)).size, 1);
    for (const { message: verified, path } of receiver.received)
      t.match(
        [verified?.type, path],
        ['webhook.test', '/vault'],
        'verified, and no redirect followed',
      );
    t.match(await demand(vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}`), 200), {
      state: 'ok',
      failingSince: null,
    });
  },
);

t.test('after ten attempts, or too long, it is given up', async (t) => {
  const receiver = await startReceiver(t);
  receiver.answer = (response) => {
    response.writeHead(503).end();
  };
  const vault = await setStage(t, [receiver]);
  const id = await subscribe(vault, receiver, ['key.overdue']);
  const { id: message } = await test(vault, id);
  await until(async () => {
    const [delivery] = await deliveriesOf(vault, id);
    if (delivery.state === 'pending') await hurry(vault.db, id);
    return delivery.state === 'failed';
  });
  t.match(await deliveriesOf(vault, id), [
    { id: message, attempts: attemptsMax, outcome: 'unexpected', nextAttemptAt: null },
  ]);
  t.equal(receiver.received.length, attemptsMax);
  t.match(await demand(vault.call('operator', 'GET', '/v1/status'), 200), {
    notificationsPending: 0,
    notificationsFailed: 1,
    receiversFailing: 1,
  });
  await test(vault, id);
  await hurry(vault.db, id);
  await untilDeliveries(vault, id, ([first]) => first.attempts === 1);
  vault.clock.ms += 81 * 3_600_000;
  t.match(await untilDeliveries(vault, id, ([first]) => first.state === 'failed'), [
    { outcome: 'tooLate', attempts: 1 },
    {},
  ]);
  t.equal(receiver.received.length, attemptsMax + 1);
});

t.test('Retry-After is heeded, for everything that waits', async (t) => {
  const receiver = await startReceiver(t);
  receiver.answer = (response) => {
    response.writeHead(429, { 'retry-after': '7200' }).end();
  };
  const vault = await setStage(t, [receiver]);
  const id = await subscribe(vault, receiver, ['key.overdue']);
  await test(vault, id);
  const [delivery] = await untilDeliveries(vault, id, ([first]) => first.attempts === 1);
  t.ok(Date.parse(delivery.nextAttemptAt) - Date.parse(delivery.lastAttemptAt) >= 7_200_000);
  const { pausedUntil } = await demand(
    vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}`),
    200,
  );
  t.ok(Date.parse(pausedUntil) - Date.parse(delivery.lastAttemptAt) >= 7_200_000);
});

t.test('410 ends it until somebody puts it again', async (t) => {
  const receiver = await startReceiver(t);
  receiver.answer = (response) => {
    response.writeHead(410).end();
  };
  const vault = await setStage(t, [receiver]);
  const id = await subscribe(vault, receiver, ['key.overdue']);
  await test(vault, id);
  await untilDeliveries(
    vault,
    id,
    ([first]) => first.state === 'failed' && first.outcome === 'gone',
  );
  t.match(await demand(vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}`), 200), {
    state: 'gone',
    pending: 0,
  });
  t.equal(
    (await vault.call('alice', 'POST', `/v1/teams/payments/webhooks/${id}/test`)).json.code,
    'stateConflict',
  );
  receiver.answer = (response) => {
    response.writeHead(200).end();
  };
  await demand(
    vault.call(
      'alice',
      'PUT',
      `/v1/teams/payments/webhooks/${id}`,
      { events: ['key.overdue'] },
      any,
    ),
    200,
  );
  await test(vault, id);
  await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
});

t.test('a secret is replaced without a gap: both sign as long as both are there', async (t) => {
  const receiver = await startReceiver(t);
  const vault = await setStage(t, [receiver]);
  const id = await subscribe(vault, receiver, ['key.overdue']);
  const next = newSecret();
  await demand(
    vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { fields: { secret: next, previousSecret: receiver.secret } },
      any,
    ),
    200,
  );
  await test(vault, id);
  await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
  const [{ body, headers, message }] = receiver.received as [Receiver['received'][number]];
  t.equal(message.type, 'webhook.test', 'good by the one before');
  t.match(
    new Webhook(next).verify(body, headers as Record<string, string>),
    { type: 'webhook.test' },
    'and by the one to come',
  );
});

t.test('two replicas send each message once, and a dead receiver holds up nobody', async (t) => {
  const good = await startReceiver(t);
  const dead = await startReceiver(t, 'dead.test');
  dead.answer = () => undefined; // never
  const vault = await setStage(t, [good, dead]);
  const twin = await startVault(t, {
    database: { url: vault.databaseUrl, db: vault.db },
    rootKey: vault.rootKey,
    egress: egressTo(t, [good, dead]),
  });
  twin.start();
  await vault.team('elsewhere');
  const id = await subscribe(vault, good, ['key.overdue']);
  const stuck = await Promise.all(
    Array.from({ length: 5 }, () => subscribe(vault, dead, ['key.overdue'], { team: 'elsewhere' })),
  );
  for (const each of stuck) await test(vault, each, 'elsewhere');
  const asked: string[] = [];
  for (let round = 0; round < 4; round += 1) {
    const made = await Promise.all(Array.from({ length: 5 }, () => test(vault, id)));
    asked.push(...made.map((each) => each.id as string));
    await untilDeliveries(
      vault,
      id,
      (items) => items.length === asked.length && items.every(({ state }) => state === 'delivered'),
    );
  }
  t.same(good.received.map((each) => each.id).sort(), [...asked].sort());
  t.ok(dead.received.length > 0, 'the dead one was asked meanwhile');
  await sql`delete from webhook where team_id = (select id from team where slug = 'elsewhere')`.execute(
    vault.db,
  );
});

t.test(
  'twenty receivers that do not answer hold two places of each team, and nobody else waits',
  async (t) => {
    const good = await startReceiver(t);
    const dead = await startReceiver(t, 'dead.test');
    dead.answer = () => undefined; // never
    const vault = await setStage(t, [good, dead]);
    const id = await subscribe(vault, good, ['key.overdue']);
    await sql`update webhook set paused_until = now() + interval '1 hour'`.execute(vault.db);
    for (const team of ['east', 'west']) {
      await vault.team(team);
      for (let i = 0; i < 10; i += 1) {
        const stuck = await subscribe(vault, dead, ['key.overdue'], { team });
        await sql`update webhook set paused_until = now() + interval '1 hour' where credential_id = ${stuck}`.execute(
          vault.db,
        );
        for (const _ of [1, 2]) await test(vault, stuck, team);
      }
    }
    await sql`update webhook set paused_until = null`.execute(vault.db);
    await until(() => dead.received.length >= 4);
    await test(vault, id);
    await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
    t.equal(dead.received.length, 4, 'two of each team, while the others are served');
    await sql`delete from webhook where credential_id <> ${id}`.execute(vault.db);
  },
);

t.test('what has ended is remembered for 35 days, what waits for longer', async (t) => {
  const receiver = await startReceiver(t);
  const vault = await setStage(t, [receiver]);
  const id = await subscribe(vault, receiver, ['key.overdue']);
  await test(vault, id);
  await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
  await sql`update webhook set paused_until = now() + interval '1 year'`.execute(vault.db);
  await test(vault, id);
  const at = async (days: number): Promise<void> => {
    vault.clock.ms = days * 86_400_000;
    await new Retention({
      db: vault.db,
      audit: { record: async () => undefined, makeMonths: async () => undefined } as never,
      clock: vault.databaseClock,
      onError: () => undefined,
    }).run();
    vault.clock.ms = 0;
  };
  await at(34);
  t.same(
    (await deliveriesOf(vault, id)).map(({ state }) => state),
    ['pending', 'delivered'],
  );
  await at(36);
  t.same(
    (await deliveriesOf(vault, id)).map(({ state }) => state),
    ['pending'],
  );
});

t.test('who dies between intent and outcome leaves it to another, with the same id', async (t) => {
  const receiver = await startReceiver(t);
  const vault = await startVault(t, { egress: egressTo(t, [receiver]) });
  await vault.team('payments');
  const id = await subscribe(vault, receiver, ['key.overdue']);
  const { id: message } = await test(vault, id);
  // What a process leaves that was killed while it sent: its claim.
  await sql`update webhook set claim_id = ${randomUUID()}, claimed_until = now() + interval '60 seconds' where credential_id = ${id}`.execute(
    vault.db,
  );
  vault.start();
  await new Promise((resolve) => {
    setTimeout(resolve, 1_500);
  });
  t.equal(receiver.received.length, 0, 'as long as it could live');
  await sql`update webhook set claimed_until = now() - interval '1 second' where credential_id = ${id}`.execute(
    vault.db,
  );
  await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
  t.same(
    receiver.received.map((each) => each.id),
    [message],
  );
});
