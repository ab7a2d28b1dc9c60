// What is sent to webhooks: signed as receivers check it, once whoever sends, again until it arrives, and never past the rules of the credential.
import { randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { sql } from 'kysely';
import t, { type Test as Tap } from 'tap';
import { Webhook } from 'standardwebhooks';
import { attemptsMax } from '../../src/notifications/retries.ts';
import { Retention } from '../../src/retention/service.ts';
import { everyColumn, formsOf, seek } from '../helpers/canary.ts';
import { egressTo } from '../helpers/egress.ts';
import { intrude } from '../helpers/intruder.ts';
import { askLease, demand, registerEngine, rulesOf } from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { runPython, skipWithoutPython } from '../helpers/python.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';
import { deliveriesOf, hurry, newSecret, type Receiver, startReceiver, storeWebhook, subscribe, untilDeliveries } from '../helpers/webhooks.ts';

t.setTimeout(180_000);

const test = (vault: TestVault, id: string, team = 'payments'): Promise<any> => demand(vault.call('alice', 'POST', `/v1/teams/${team}/webhooks/${id}/test`), 202);
const any = { 'if-match': '*' };

async function setStage(t: Tap, receivers: readonly Receiver[], options: Parameters<typeof startVault>[1] = {}): Promise<TestVault> {
  const vault = await startVault(t, { egress: egressTo(t, receivers), ...options });
  await vault.team('payments');
  vault.start();
  return vault;
}
const eventsOf = async (vault: TestVault, id: string): Promise<any[]> =>
  (await demand(vault.call('alice', 'GET', `/v1/teams/payments/audit-events?limit=200&target=${id}`), 200) as { items: any[] }).items.filter(({ action }) => /^credential\.use/.test(action)).reverse();

t.test('a message arrives whole: receivers verify it, the trail has intent and outcome, and nothing shows the secret', async (t) => {
  const receiver = await startReceiver(t, 'hooks.test', { secret: newSecret(48) });
  const vault = await setStage(t, [receiver]);
  const id = await subscribe(vault, receiver, ['key.overdue']);
  const made = await test(vault, id);
  t.match(made, { type: 'webhook.test', state: 'pending', attempts: 0, subject: { type: 'credential', id } });
  const [delivery] = await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
  t.match(delivery, { id: made.id, attempts: 1, outcome: 'ok', nextAttemptAt: null });
  t.equal(receiver.received.length, 1);
  const { headers, message, path } = receiver.received[0]!;
  t.match(message, { type: 'webhook.test', data: { team: 'payments', credential: { id, type: 'webhook' } } }, 'the signature is good');
  t.ok(Math.abs(Date.parse(message.timestamp) - Date.now()) < 60_000);
  t.match(headers, { 'webhook-id': made.id, 'content-type': 'application/json', 'webhook-signature': /^v1,[A-Za-z0-9+/]{43}=$/ });
  t.equal(path, '/vault');
  const events = await eventsOf(vault, id);
  t.match(events, [
    { action: 'credential.use', actor: null, decision: 'allow', details: { notification: made.id, type: 'webhook.test', attempt: 1 }, intact: true },
    { action: 'credential.used', actor: null, details: { notification: made.id, outcome: 'ok' }, intact: true },
  ]);
  t.match(await demand(vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}`), 200), { state: 'ok', pending: 0, lastDeliveredAt: /^2/, credential: { id } });
  await until(async () => (await demand(vault.call('alice', 'GET', `/v1/credentials/${id}`), 200)).useCount === 1);
  const haystacks = [...vault.answers.map((text, index) => ({ place: `answer ${index}`, text })), { place: 'the log', text: vault.logs.join('') }, ...await everyColumn(vault.db)];
  const bare = receiver.secret.slice('whsec_'.length);
  for (const secret of [bare, Buffer.from(bare, 'base64').toString('latin1')]) t.same(seek(formsOf(secret), haystacks), []);
  t.ok(seek(new Map([['control', made.id]]), haystacks).length > 3, 'the search finds what is there');
});

t.test('the Python of the page takes what is sent, and nothing else', { skip: skipWithoutPython }, async (t) => {
  const receiver = await startReceiver(t);
  const vault = await setStage(t, [receiver]);
  const id = await subscribe(vault, receiver, ['key.overdue']);
  await test(vault, id);
  await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
  const [{ headers, body }] = receiver.received as [Receiver['received'][number]];
  const page = readFileSync(join(import.meta.dirname, '../../docs/notifications.md'), 'utf8');
  const code = /```python\n([\s\S]*?)```/.exec(page)![1]!;
  const verify = (given: object): boolean => runPython<boolean>(`${code}\nanswer(verify(given["secret"], given["headers"], given["body"].encode()))`, { secret: receiver.secret, headers, body, ...given });
  t.same([verify({}), verify({ secret: newSecret() }), verify({ body: `${body} ` }), verify({ headers: { ...headers, 'webhook-id': 'x' } }), verify({ headers: { ...headers, 'webhook-timestamp': '1' } })], [true, false, false, false, false]);
});

t.test('without a policy of its own no engine gets it, whatever the team gives to engines', async (t) => {
  const receiver = await startReceiver(t);
  const vault = await setStage(t, [receiver]);
  await demand(vault.call('alice', 'PATCH', '/v1/teams/payments', { defaultDelivery: ['lease', 'broker'] }, any), 200);
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const id = await storeWebhook(vault, receiver);
  t.same((await demand(vault.call('alice', 'GET', `/v1/credentials/${id}`), 200)).policy, { delivery: [], allowedHosts: [] });
  t.same(rulesOf(await askLease(vault, engine.sub, [{ id }])), ['/credentials/0 deliveryNotAllowed']);
});

t.test('it is sent again, with the same id and body and a signature of its own, until it arrives', async (t) => {
  const receiver = await startReceiver(t);
  const vault = await setStage(t, [receiver]);
  const id = await subscribe(vault, receiver, ['key.overdue']);
  const answers = [500, 302, 404, 200];
  receiver.answer = (response) => { response.writeHead(answers[receiver.received.length - 1] ?? 500, { location: `${receiver.url}/elsewhere` }).end('a body that nobody reads'); };
  const { id: message } = await test(vault, id);
  for (const [attempt, outcome] of [[1, 'unexpected'], [2, 'unexpected'], [3, 'refused']] as const) {
    const [delivery] = await untilDeliveries(vault, id, ([first]) => first.attempts === attempt);
    t.match(delivery, { id: message, state: 'pending', outcome });
    t.ok(Date.parse(delivery.nextAttemptAt) > Date.parse(delivery.lastAttemptAt), 'later');
    t.match(await demand(vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}`), 200), { state: 'failing', pending: 1, pausedUntil: /^2/ });
    await hurry(vault.db, id);
  }
  await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
  t.equal(receiver.received.length, 4);
  t.same([...new Set(receiver.received.map((each) => each.id))], [message]);
  t.equal(new Set(receiver.received.map(({ body }) => body)).size, 1);
  for (const { message: verified, path } of receiver.received) t.match([verified?.type, path], ['webhook.test', '/vault'], 'verified, and no redirect followed');
  t.match(await demand(vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}`), 200), { state: 'ok', failingSince: null });
});

t.test('after ten attempts, or too long, it is given up', async (t) => {
  const receiver = await startReceiver(t);
  receiver.answer = (response) => { response.writeHead(503).end(); };
  const vault = await setStage(t, [receiver]);
  const id = await subscribe(vault, receiver, ['key.overdue']);
  const { id: message } = await test(vault, id);
  await until(async () => {
    const [delivery] = await deliveriesOf(vault, id);
    if (delivery.state === 'pending') await hurry(vault.db, id);
    return delivery.state === 'failed';
  });
  t.match(await deliveriesOf(vault, id), [{ id: message, attempts: attemptsMax, outcome: 'unexpected', nextAttemptAt: null }]);
  t.equal(receiver.received.length, attemptsMax);
  await test(vault, id);
  await hurry(vault.db, id);
  await untilDeliveries(vault, id, ([first]) => first.attempts === 1);
  vault.clock.ms += 81 * 3_600_000;
  t.match(await untilDeliveries(vault, id, ([first]) => first.state === 'failed'), [{ outcome: 'tooLate', attempts: 1 }, {}]);
  t.equal(receiver.received.length, attemptsMax + 1);
});

t.test('Retry-After is heeded, for everything that waits', async (t) => {
  const receiver = await startReceiver(t);
  receiver.answer = (response) => { response.writeHead(429, { 'retry-after': '7200' }).end(); };
  const vault = await setStage(t, [receiver]);
  const id = await subscribe(vault, receiver, ['key.overdue']);
  await test(vault, id);
  const [delivery] = await untilDeliveries(vault, id, ([first]) => first.attempts === 1);
  t.ok(Date.parse(delivery.nextAttemptAt) - Date.parse(delivery.lastAttemptAt) >= 7_200_000);
  const { pausedUntil } = await demand(vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}`), 200);
  t.ok(Date.parse(pausedUntil) - Date.parse(delivery.lastAttemptAt) >= 7_200_000);
});

t.test('410 ends it until somebody puts it again', async (t) => {
  const receiver = await startReceiver(t);
  receiver.answer = (response) => { response.writeHead(410).end(); };
  const vault = await setStage(t, [receiver]);
  const id = await subscribe(vault, receiver, ['key.overdue']);
  await test(vault, id);
  await untilDeliveries(vault, id, ([first]) => first.state === 'failed' && first.outcome === 'gone');
  t.match(await demand(vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}`), 200), { state: 'gone', pending: 0 });
  t.equal((await vault.call('alice', 'POST', `/v1/teams/payments/webhooks/${id}/test`)).json.code, 'stateConflict');
  receiver.answer = (response) => { response.writeHead(200).end(); };
  await demand(vault.call('alice', 'PUT', `/v1/teams/payments/webhooks/${id}`, { events: ['key.overdue'] }, any), 200);
  await test(vault, id);
  await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
});

t.test('a secret is replaced without a gap: both sign as long as both are there', async (t) => {
  const receiver = await startReceiver(t);
  const vault = await setStage(t, [receiver]);
  const id = await subscribe(vault, receiver, ['key.overdue']);
  const next = newSecret();
  await demand(vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { fields: { secret: next, previousSecret: receiver.secret } }, any), 200);
  await test(vault, id);
  await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
  const [{ body, headers, message }] = receiver.received as [Receiver['received'][number]];
  t.equal(message.type, 'webhook.test', 'good by the one before');
  t.match(new Webhook(next).verify(body, headers as Record<string, string>), { type: 'webhook.test' }, 'and by the one to come');
});

t.test('a credential that may not be used is not used', async (t) => {
  const receiver = await startReceiver(t);
  const vault = await setStage(t, [receiver]);
  const cases: [string, (id: string) => Promise<unknown>][] = [
    ['disabled', (id) => demand(vault.call('alice', 'POST', `/v1/credentials/${id}/disable`), 200)],
    ['expired', (id) => demand(vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { expiresAt: '2020-01-01T00:00:00Z' }, any), 200)],
    ['a policy without POST', (id) => demand(vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { policy: { delivery: [], allowedHosts: [], methods: ['GET'] } }, any), 200)],
    ['a policy for other paths', (id) => demand(vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { policy: { delivery: [], allowedHosts: [], pathPrefixes: ['/other'] } }, any), 200)],
    ['changed past the service', (id) => intrude(vault.db, `update credential_version set public_fields = '{"url":"${receiver.url}/evil"}' where credential_id = '${id}'`)],
  ];
  for (const [what, change] of cases) {
    const id = await subscribe(vault, receiver, ['key.overdue']);
    await change(id);
    const made = (await vault.call('alice', 'POST', `/v1/teams/payments/webhooks/${id}/test`)).json;
    const { rows: [row] } = await until(async () => {
      const found = await sql<{ attempts: number; outcome: string }>`select attempts, outcome from notification where id = ${made.id}`.execute(vault.db);
      return (found.rows[0]?.attempts ?? 0) > 0 ? found : undefined;
    });
    t.equal(row?.outcome, 'credential', what);
    const { rows: [event] } = await sql<{ decision: string }>`select decision from audit_event where target_id = ${id} and action = 'credential.use'`.execute(vault.db);
    t.equal(event?.decision, 'deny', `${what}: stands in the trail`);
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
  await demand(vault.call('alice', 'PATCH', '/v1/teams/payments', { refuseExposedLeases: true }, any), 200);
  const { items: [{ id: key }] } = await demand(vault.call('alice', 'GET', '/v1/teams/payments/keys'), 200);
  await demand(vault.call('alice', 'POST', `/v1/teams/payments/keys/${key}/mark-compromised`, { reason: 'a drill' }), 200);
  await test(vault, id);
  await untilDeliveries(vault, id, ([first]) => first.outcome === 'credential');
  await demand(vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { fields: { secret: receiver.secret } }, any), 200);
  await hurry(vault.db, id);
  await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
  t.equal(receiver.received.length, 1);
});

t.test('what was written past the service is not signed', async (t) => {
  const receiver = await startReceiver(t);
  const other = await startReceiver(t, 'others.test');
  const vault = await setStage(t, [receiver, other]);
  await vault.team('elsewhere');
  const [id, foreign] = [await subscribe(vault, receiver, ['key.overdue']), await subscribe(vault, other, ['key.overdue'], { team: 'elsewhere' })];
  const forge = async (what: string, ...statements: string[]): Promise<void> => {
    await sql`update webhook set paused_until = now() + interval '1 hour'`.execute(vault.db);
    const { id: message } = await test(vault, id);
    await intrude(vault.db, ...statements.map((statement) => statement.replaceAll('$message', message)));
    await sql`update webhook set paused_until = null`.execute(vault.db);
    const alarms = vault.logs.length;
    const found = await until(async () => (await sql<{ outcome: string; state: string }>`select outcome, state from notification where outcome = 'sealBroken'`.execute(vault.db)).rows[0]);
    t.match(found, { outcome: 'sealBroken' }, what);
    t.ok(vault.logs.slice(alarms).concat(vault.logs).some((line) => /"sealBroken"/.test(line) && /"notify"/.test(line)), `${what}: an alarm`);
    await sql`delete from notification`.execute(vault.db);
    await sql`update webhook set paused_until = null, failing_since = null`.execute(vault.db);
  };
  await forge('the data', `update notification set data = jsonb_build_object('team', 'payments', 'credential', 'forged') where id = '$message'`);
  await forge('the kind', `update notification set type = 'credential.exposed' where id = '$message'`);
  await forge('another receiver', `update notification set webhook_id = '${foreign}' where id = '$message'`);
  await forge('what a webhook asks for', `update webhook set events = '{credential.exposed}' where credential_id = '${id}'`);
  t.equal(receiver.received.length + other.received.length, 0);
  t.equal((await vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}`)).status, 404, 'it is no webhook any more');
  await demand(vault.call('alice', 'DELETE', `/v1/teams/payments/webhooks/${id}`, undefined, any), 204);
});

t.test('a refused address and an unknown name are alike; a certificate for another name is not taken', async (t) => {
  const receiver = await startReceiver(t);
  const wrong = await startReceiver(t, 'wrong.test', { names: ['other.test'] });
  const vault = await setStage(t, [], { egress: egressTo(t, [{ ...receiver, certificate: receiver.certificate + wrong.certificate }, wrong], { resolve: async (name) => (name === 'unknown.test' ? [] : ['127.0.0.1']) }) });
  const outcomeOf = async (url: string): Promise<any> => {
    const id = await subscribe(vault, { url, secret: newSecret() }, ['key.overdue']);
    await test(vault, id);
    const [{ outcome, state, attempts }] = await untilDeliveries(vault, id, ([first]) => first.attempts === 1) as [any];
    await demand(vault.call('alice', 'DELETE', `/v1/teams/payments/webhooks/${id}`, undefined, any), 204);
    return { outcome, state, attempts };
  };
  for (const url of ['https://unknown.test', 'https://inside.test', 'https://127.0.0.1', 'https://169.254.169.254', `https://localhost:${receiver.port}`, `https://hooks.test:${wrong.port}`]) {
    t.same(await outcomeOf(url), { outcome: 'name', state: 'pending', attempts: 1 }, url);
  }
  t.match(await outcomeOf(wrong.url), { outcome: 'tls' });
  t.equal(wrong.received.length, 0);
  t.match(await outcomeOf(receiver.url), { outcome: 'ok' }, 'the control');
});

t.test('two replicas send each message once, and a dead receiver holds up nobody', async (t) => {
  const good = await startReceiver(t);
  const dead = await startReceiver(t, 'dead.test');
  dead.answer = () => undefined;   // never
  const vault = await setStage(t, [good, dead]);
  const twin = await startVault(t, { database: { url: vault.databaseUrl, db: vault.db }, rootKey: vault.rootKey, egress: egressTo(t, [good, dead]) });
  twin.start();
  await vault.team('elsewhere');
  const id = await subscribe(vault, good, ['key.overdue']);
  const stuck = await Promise.all(Array.from({ length: 5 }, () => subscribe(vault, dead, ['key.overdue'], { team: 'elsewhere' })));
  for (const each of stuck) await test(vault, each, 'elsewhere');
  const asked: string[] = [];
  for (let round = 0; round < 4; round += 1) {
    const made = await Promise.all(Array.from({ length: 5 }, () => test(vault, id)));
    asked.push(...made.map((each) => each.id as string));
    await untilDeliveries(vault, id, (items) => items.length === asked.length && items.every(({ state }) => state === 'delivered'));
  }
  t.same(good.received.map((each) => each.id).sort(), [...asked].sort());
  t.ok(dead.received.length > 0, 'the dead one was asked meanwhile');
  await sql`delete from webhook where team_id = (select id from team where slug = 'elsewhere')`.execute(vault.db);
});

t.test('twenty receivers that do not answer hold two places of each team, and nobody else waits', async (t) => {
  const good = await startReceiver(t);
  const dead = await startReceiver(t, 'dead.test');
  dead.answer = () => undefined;   // never
  const vault = await setStage(t, [good, dead]);
  const id = await subscribe(vault, good, ['key.overdue']);
  await sql`update webhook set paused_until = now() + interval '1 hour'`.execute(vault.db);
  for (const team of ['east', 'west']) {
    await vault.team(team);
    for (let i = 0; i < 10; i += 1) {
      const stuck = await subscribe(vault, dead, ['key.overdue'], { team });
      await sql`update webhook set paused_until = now() + interval '1 hour' where credential_id = ${stuck}`.execute(vault.db);
      for (const _ of [1, 2]) await test(vault, stuck, team);
    }
  }
  await sql`update webhook set paused_until = null`.execute(vault.db);
  await until(() => dead.received.length >= 4);
  await test(vault, id);
  await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
  t.equal(dead.received.length, 4, 'two of each team, while the others are served');
  await sql`delete from webhook where credential_id <> ${id}`.execute(vault.db);
});

t.test('a credential that went to another team tells neither of anything until that one\'s admin says so', async (t) => {
  const receiver = await startReceiver(t);
  const vault = await setStage(t, [receiver]);
  await vault.team('elsewhere');
  const id = await subscribe(vault, receiver, ['key.overdue']);
  await sql`update webhook set paused_until = now() + interval '1 hour'`.execute(vault.db);
  await test(vault, id);
  const { id: transfer } = await demand(vault.call('alice', 'POST', `/v1/credentials/${id}/transfers`, { team: 'elsewhere' }), 201);
  await demand(vault.call('alice', 'POST', `/v1/transfers/${transfer}/accept`), 200);
  await sql`update webhook set paused_until = null`.execute(vault.db);
  for (const team of ['payments', 'elsewhere']) t.equal((await vault.call('alice', 'GET', `/v1/teams/${team}/webhooks/${id}`)).status, 404, team);
  t.same((await sql`select 1 from notification`.execute(vault.db)).rows, [], 'what waited went with it');
  await demand(vault.call('alice', 'PUT', `/v1/teams/elsewhere/webhooks/${id}`, { events: ['key.overdue'] }), 200);
  await test(vault, id, 'elsewhere');
  await untilDeliveries(vault, id, ([first]) => first.state === 'delivered', 'elsewhere');
  t.match(receiver.received.map(({ message }) => message.data.team), ['elsewhere']);
});

t.test('what has ended is remembered for 35 days, what waits for longer', async (t) => {
  const receiver = await startReceiver(t);
  const vault = await setStage(t, [receiver]);
  const id = await subscribe(vault, receiver, ['key.overdue']);
  await test(vault, id);
  await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
  await sql`update webhook set paused_until = now() + interval '1 year'`.execute(vault.db);
  await test(vault, id);
  const at = (days: number): Promise<void> => new Retention({ db: vault.db, audit: { record: async () => undefined } as never, now: () => Date.now() + days * 86_400_000, onError: () => undefined }).run();
  await at(34);
  t.same((await deliveriesOf(vault, id)).map(({ state }) => state), ['pending', 'delivered']);
  await at(36);
  t.same((await deliveriesOf(vault, id)).map(({ state }) => state), ['pending']);
});

t.test('who dies between intent and outcome leaves it to another, with the same id', async (t) => {
  const receiver = await startReceiver(t);
  const vault = await startVault(t, { egress: egressTo(t, [receiver]) });
  await vault.team('payments');
  const id = await subscribe(vault, receiver, ['key.overdue']);
  const { id: message } = await test(vault, id);
  // What a process leaves that was killed while it sent: its claim.
  await sql`update webhook set claim_id = ${randomUUID()}, claimed_until = now() + interval '60 seconds' where credential_id = ${id}`.execute(vault.db);
  vault.start();
  await new Promise((resolve) => { setTimeout(resolve, 1_500); });
  t.equal(receiver.received.length, 0, 'as long as it could live');
  await sql`update webhook set claimed_until = now() - interval '1 second' where credential_id = ${id}`.execute(vault.db);
  await untilDeliveries(vault, id, ([first]) => first.state === 'delivered');
  t.same(receiver.received.map((each) => each.id), [message]);
});

t.test('requests that break a rule', async (t) => {
  const receiver = await startReceiver(t);
  const vault = await setStage(t, [receiver]);
  await vault.member('payments', 'eddie', 'editor');
  const id = await storeWebhook(vault, receiver);
  const put = (as: string, body: unknown, headers: Record<string, string> = {}, of = id): Promise<any> => vault.call(as, 'PUT', `/v1/teams/payments/webhooks/${of}`, body, headers);
  t.equal((await put('eddie', { events: ['key.overdue'] })).json.code, 'forbidden');
  for (const events of [[], ['no.such'], ['key.overdue', 'key.overdue'], 'key.overdue', ['webhook.test']]) t.equal((await put('alice', { events })).json.code, 'invalidRequest', JSON.stringify(events));
  const { id: plain } = await demand(vault.call('alice', 'POST', '/v1/teams/payments/credentials', { name: 'plain', type: 'bearer', fields: { token: 't' } }), 201) as { id: string };
  t.match((await put('alice', { events: ['key.overdue'] }, {}, plain)).json, { code: 'invalidRequest', errors: [{ pointer: '/params/credential', rule: 'notAWebhook' }] });
  await vault.team('elsewhere');
  const foreign = await storeWebhook(vault, receiver, { team: 'elsewhere' });
  t.equal((await put('alice', { events: ['key.overdue'] }, {}, foreign)).json.code, 'notFound', 'a credential of another team');
  const made = await put('alice', { events: ['key.overdue', 'credential.expiring'] });
  t.match([made.status, made.headers['etag'], made.json.events], [200, '"1"', ['credential.expiring', 'key.overdue']]);
  t.equal((await put('alice', { events: ['key.overdue'] })).json.code, 'preconditionRequired');
  t.equal((await put('alice', { events: ['key.overdue'] }, { 'if-match': '"7"' })).json.code, 'preconditionFailed');
  t.match((await put('alice', { events: ['key.overdue'] }, { 'if-match': '"1"' })).json, { revision: 2 });
  t.match((await demand(vault.call('alice', 'GET', '/v1/teams/payments/webhooks'), 200)).items, [{ credential: { id }, revision: 2 }]);
  await sql`update webhook set paused_until = now() + interval '1 hour'`.execute(vault.db);
  for (let i = 0; i < 5; i += 1) await test(vault, id);
  t.match((await vault.call('alice', 'POST', `/v1/teams/payments/webhooks/${id}/test`)).json, { code: 'rateLimited' });
  t.match((await demand(vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}/deliveries?limit=2`), 200)), { items: [{ type: 'webhook.test' }, {}], nextCursor: String });
  for (let i = 0; i < 9; i += 1) await subscribe(vault, receiver, ['key.overdue']);
  t.equal((await put('alice', { events: ['key.overdue'] }, {}, await storeWebhook(vault, receiver))).json.code, 'stateConflict', 'eleven are too many');
  for (const [field, value] of [['url', 'http://hooks.test/'], ['url', 'https://user@hooks.test/'], ['secret', 'whsec_short'], ['secret', newSecret(23)], ['secret', newSecret(65)], ['secret', randomBytes(32).toString('base64')], ['secret', newSecret().replace('=', '')]] as const) {
    const answer = await vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { fields: { secret: newSecret(), [field]: value } }, any);
    t.match(answer.json, { code: 'invalidRequest', errors: [{ pointer: `/fields/${field}` }] }, `${field} ${value.slice(0, 8)}`);
  }
  for (const bytes of [24, 64]) t.equal((await vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { fields: { secret: newSecret(bytes) } }, any)).status, 200);
  await demand(vault.call('alice', 'DELETE', `/v1/teams/payments/webhooks/${id}`, undefined, any), 204);
  t.equal((await vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}`)).status, 404);
  t.equal((await vault.call('alice', 'GET', `/v1/credentials/${id}`)).status, 200, 'the credential stays');
});
