// What webhooks are told of: each kind once, written where it happens, found by time, and within
// bounds.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { sql } from 'kysely';
import pg from 'pg';
import { parse } from 'yaml';
import t, { type Test as Tap } from 'tap';
import { startAuthorizationServer } from '../helpers/authorization-server.ts';
import { egressTo } from '../helpers/egress.ts';
import { intrude } from '../helpers/intruder.ts';
import { takes } from '../helpers/json-schema.ts';
import { askLease, demand, storeOpenai } from '../helpers/leases.ts';
import { connect, oauthStage, storeOAuth } from '../helpers/oauth.ts';
import { until } from '../helpers/processes.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';
import { type Receiver, startReceiver, subscribe } from '../helpers/webhooks.ts';
import { DueScanner } from '../../src/notifications/due-scanner.ts';
import { Outbox, pendingMax } from '../../src/notifications/outbox.ts';
import { eventTypes } from '../../src/notifications/types.ts';

t.setTimeout(120_000);
const any = { 'if-match': '*' };
const day = 86_400_000;
const raise = (error: Error): never => {
  throw error;
};

async function setStage(
  t: Tap,
  { isStarted = true }: { isStarted?: boolean } = {},
): Promise<{ vault: TestVault; receiver: Receiver; id: string; dueScanner: DueScanner }> {
  const receiver = await startReceiver(t);
  const vault = await startVault(t, { egress: egressTo(t, [receiver]) });
  await vault.team('payments');
  const id = await subscribe(vault, receiver, eventTypes);
  if (isStarted) vault.start();
  const now = (): number => Date.now() + vault.clock.ms;
  const dueScanner = new DueScanner({
    db: vault.db,
    now,
    outbox: new Outbox({ keyring: vault.keyring, now, onError: raise }),
    keyring: vault.keyring,
    onAlarm: () => undefined,
    onError: raise,
  });
  return { vault, receiver, id, dueScanner };
}
const arrived = (receiver: Receiver, type: string, count = 1): Promise<any[]> =>
  until(() => {
    const found = receiver.received.filter(({ message }) => message?.type === type);
    for (const { message } of found) checkShape(message);
    return found.length >= count ? found.map(({ message }) => message) : undefined;
  });
const waiting = async (vault: TestVault, type: string): Promise<any[]> => {
  const { rows } = await sql<{
    data: any;
    at: Date;
    state: string;
    subject_id: string;
  }>`select data, at, state, subject_id from notification where type = ${type} order by id`.execute(
    vault.db,
  );
  for (const { data, at } of rows.filter(({ data }) => Object.keys(data as object).length > 0))
    checkShape({ type, timestamp: at.toISOString(), data });
  return rows;
};

const document = parse(
  readFileSync(join(import.meta.dirname, '../../openapi.yaml'), 'utf8'),
) as Record<string, any>;
/** Throws unless the message has the shape that openapi.yaml gives its type. */
function checkShape(message: { type: string; timestamp?: string; data?: unknown }): void {
  const schema =
    document['webhooks'][message.type]?.post.requestBody.content['application/json'].schema;
  if (schema === undefined || !takes(schema, message, document))
    throw new Error(`not as openapi.yaml says: ${JSON.stringify(message)}`);
}

t.test('openapi.yaml has every message that is sent, and no other', (t) => {
  t.same(
    Object.keys(document['webhooks'] as object).sort(),
    [...eventTypes, 'webhook.test'].sort(),
  );
  for (const [type, { post }] of Object.entries(document['webhooks'] as Record<string, any>)) {
    const { schema, example } = post.requestBody.content['application/json'];
    t.ok(takes(schema, example, document) && example.type === type, `${type}: its example`);
    t.notOk(
      takes(schema, { ...example, data: { ...example.data, more: 1 } }, document),
      `${type}: the check can fail`,
    );
  }
  t.end();
});

t.test('a rotation that has ended is told, however it ended', async (t) => {
  const { vault, receiver } = await setStage(t);
  await storeOpenai(vault, 'payments', 'openai', 'sk-1');
  const one = await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);
  const [message] = await arrived(receiver, 'key.rotationEnded');
  t.strictSame(message.data, {
    team: 'payments',
    rotation: { id: one.id, state: 'completed', toKey: one.toKey, total: 2, done: 2, failed: 0 },
  });
  await intrude(
    vault.db,
    `update credential_version set token = overlay(token placing 'AAAA' from 40) where secret_field_names = '{apiKey}'`,
  );
  const two = await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);
  t.match(await arrived(receiver, 'key.rotationEnded', 2), [
    {},
    { data: { rotation: { id: two.id, state: 'completedWithFailures', failed: 1 } } },
  ]);
  await vault.stop();
  const again = await startVault(t, {
    database: { url: vault.databaseUrl, db: vault.db },
    rootKey: vault.rootKey,
  });
  const three = await demand(again.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);
  await demand(
    again.call('alice', 'POST', `/v1/teams/payments/key-rotations/${three.id}/cancel`),
    200,
  );
  t.match((await waiting(again, 'key.rotationEnded')).at(-1), {
    state: 'pending',
    data: { rotation: { id: three.id, state: 'cancelled' } },
  });
  const four = await demand(again.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);
  await demand(
    again.call('alice', 'POST', `/v1/teams/payments/keys/${four.toKey}/mark-compromised`, {
      reason: 'a drill',
    }),
    200,
  );
  t.match(
    (await waiting(again, 'key.rotationEnded')).at(-1),
    { state: 'pending', data: { rotation: { id: four.id, state: 'cancelled' } } },
    'cancelled by a compromise',
  );
});

t.test('a compromised key is told, in the transaction that marks it', async (t) => {
  const { vault, receiver } = await setStage(t);
  const {
    items: [{ id: key }],
  } = await demand(vault.call('alice', 'GET', '/v1/teams/payments/keys'), 200);
  await demand(
    vault.call('alice', 'POST', `/v1/teams/payments/keys/${key}/mark-compromised`, {
      reason: 'words that stay inside',
    }),
    200,
  );
  const [message] = await arrived(receiver, 'credential.exposed');
  t.strictSame(message.data, { team: 'payments', key: { id: key, version: 1 } });
  await vault.team('others');
  // While messages cannot be written at all, what they tell of is not done: both or neither.
  await sql`create function full_up() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = '53100'; end $$`.execute(
    vault.db,
  );
  await sql`create trigger full_up before insert on notification for each row execute function full_up()`.execute(
    vault.db,
  );
  const {
    items: [{ id: next }],
  } = await demand(vault.call('alice', 'GET', '/v1/teams/payments/keys'), 200);
  t.equal(
    (
      await vault.call('alice', 'POST', `/v1/teams/payments/keys/${next}/mark-compromised`, {
        reason: 'x',
      })
    ).status,
    503,
  );
  t.match(await demand(vault.call('alice', 'GET', `/v1/teams/payments/keys/${next}`), 200), {
    compromised: false,
  });
  const {
    items: [{ id: elsewhere }],
  } = await demand(vault.call('alice', 'GET', '/v1/teams/others/keys'), 200);
  t.equal(
    (
      await vault.call('alice', 'POST', `/v1/teams/others/keys/${elsewhere}/mark-compromised`, {
        reason: 'x',
      })
    ).status,
    200,
    'a team without webhooks is not held up',
  );
});

t.test('a message that does not fit is lost alone, and is told of', async (t) => {
  const { vault, receiver, id } = await setStage(t);
  const second = await startReceiver(t, 'second.test');
  const other = await subscribe(vault, second, ['credential.exposed']);
  await sql
    .raw(`alter table notification add constraint no_room check (webhook_id <> '${id}')`)
    .execute(vault.db);
  const {
    items: [{ id: key }],
  } = await demand(vault.call('alice', 'GET', '/v1/teams/payments/keys'), 200);
  await demand(
    vault.call('alice', 'POST', `/v1/teams/payments/keys/${key}/mark-compromised`, {
      reason: 'x',
    }),
    200,
  );
  t.match(await demand(vault.call('alice', 'GET', `/v1/teams/payments/keys/${key}`), 200), {
    compromised: true,
  });
  const rows = await sql<{ webhook: string }>`
    select webhook_id as webhook from notification where type = 'credential.exposed'`.execute(
    vault.db,
  );
  t.same(rows.rows, [{ webhook: other }]);
  t.ok(vault.logs.some((line) => line.includes('1 messages do not fit and were lost')));
  t.same(receiver.received, []);
});

t.test('a webhook that is removed while it is written to fails nothing', async (t) => {
  const { vault, id } = await setStage(t, { isStarted: false });
  const holder = new pg.Client({ connectionString: vault.databaseUrl });
  await holder.connect();
  t.teardown(() => holder.end());
  const {
    items: [{ id: key }],
  } = await demand(vault.call('alice', 'GET', '/v1/teams/payments/keys'), 200);
  await holder.query('begin');
  await holder.query('delete from webhook where credential_id = $1', [id]);
  const marked = vault.call('alice', 'POST', `/v1/teams/payments/keys/${key}/mark-compromised`, {
    reason: 'x',
  });
  await until(async () => {
    const { rows } = await sql`
      select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and query like '%notification%'`.execute(
      vault.db,
    );
    return rows.length > 0 || undefined;
  });
  await holder.query('commit');
  t.match(await demand(marked, 200), { compromised: true });
  t.same(await waiting(vault, 'credential.exposed'), []);
  t.notOk(vault.logs.some((line) => line.includes('messages do not fit')));
});

t.test('a tampered row keeps none of the others from being told of', async (t) => {
  const { vault, id, dueScanner } = await setStage(t, { isStarted: false });
  await vault.team('others');
  const receiver = await startReceiver(t, 'others.test');
  await subscribe(vault, receiver, ['key.overdue'], { team: 'others' });
  for (const team of ['payments', 'others'])
    await demand(
      vault.call('alice', 'PATCH', `/v1/teams/${team}`, { rotateEveryDays: 1 }, any),
      200,
    );
  await intrude(
    vault.db,
    `update data_key set created_at = now() - interval '3 days'`,
    `update data_key set created_at = '-infinity' where team_id = (select id from team where slug = 'payments')`,
  );
  await dueScanner.run();
  t.equal((await waiting(vault, 'key.overdue')).length, 1);
  t.ok(id);
});

t.test(
  'a compromised root key is told to every team whose keys it ever wrapped, each of its own',
  async (t) => {
    const { vault } = await setStage(t, { isStarted: false });
    await vault.team('others');
    await vault.team('untouched');
    const other = await startReceiver(t, 'others.test');
    for (const team of ['others', 'untouched'])
      await subscribe(vault, other, ['credential.exposed'], { team });
    const root = '0123456789abcdef';
    await intrude(
      vault.db,
      `insert into root_key (fingerprint, canary) values ('${root}', '\\x00')`,
      `update data_key set root_history = array['${root}'] || root_history where team_id in (select id from team where slug <> 'untouched')`,
    );
    t.match(
      await demand(
        vault.call('operator', 'POST', `/v1/root-keys/${root}/mark-compromised`, {
          reason: 'a drill',
        }),
        200,
      ),
      { keys: 2, teams: 2 },
    );
    t.same(
      (await waiting(vault, 'credential.exposed'))
        .map(({ data }) => `${data.team} ${data.key.version}`)
        .sort(),
      ['others 1', 'payments 1'],
    );
  },
);

t.test(
  'what comes by time is told once, whoever looks, and again when the time is another',
  async (t) => {
    const { vault, dueScanner } = await setStage(t, { isStarted: false });
    const at = (days: number): string => new Date(Date.now() + days * day).toISOString();
    const names = { soon: at(13), later: at(15), over: at(-1), long: at(-40) };
    const ids: Record<string, string> = {};
    for (const [name, expiresAt] of Object.entries(names))
      ids[name] = (await storeOpenai(vault, 'payments', name, 'sk-1', { expiresAt })).id;
    await vault.team('others');
    await storeOpenai(vault, 'others', 'foreign', 'sk-1', { expiresAt: at(1) });
    t.equal(await dueScanner.run(), 2);
    t.strictSame(
      (await waiting(vault, 'credential.expiring')).map(({ data }) => data),
      [
        {
          team: 'payments',
          credential: { id: ids['soon'], name: 'soon', type: 'openai' },
          expiresAt: names.soon,
        },
      ],
    );
    t.strictSame(
      (await waiting(vault, 'credential.expired')).map(({ data }) => data),
      [
        {
          team: 'payments',
          credential: { id: ids['over'], name: 'over', type: 'openai' },
          expiresAt: names.over,
        },
      ],
    );
    t.same(await Promise.all([dueScanner.run(), dueScanner.run(), dueScanner.run()]), [0, 0, 0]);
    await demand(
      vault.call('alice', 'PATCH', `/v1/credentials/${ids['soon']}`, { expiresAt: at(12) }, any),
      200,
    );
    t.equal(
      (await Promise.all([dueScanner.run(), dueScanner.run(), dueScanner.run()])).reduce(
        (a, b) => a + b,
      ),
      1,
      'another time is another message, once',
    );
    await demand(
      vault.call('alice', 'DELETE', `/v1/credentials/${ids['later']}`, undefined, any),
      204,
    );
    vault.clock.ms += 13 * day;
    t.equal(await dueScanner.run(), 1, 'the one that has expired since, and not the deleted one');
    t.equal((await waiting(vault, 'credential.expired')).length, 2);
  },
);

t.test('that a secret should be replaced is told when the time has come', async (t) => {
  const { vault, dueScanner } = await setStage(t, { isStarted: false });
  const rotateAfter = new Date(Date.now() + day).toISOString();
  const { id } = await storeOpenai(vault, 'payments', 'openai', 'sk-1', { rotateAfter });
  t.equal(await dueScanner.run(), 0);
  vault.clock.ms += 2 * day;
  t.equal(await dueScanner.run(), 1);
  t.equal(await dueScanner.run(), 0);
  t.strictSame(
    (await waiting(vault, 'credential.rotationDue')).map(({ data }) => data),
    [{ team: 'payments', credential: { id, name: 'openai', type: 'openai' }, rotateAfter }],
  );
});

t.test('a key is overdue when the vault has not rotated it', async (t) => {
  const { vault, dueScanner } = await setStage(t, { isStarted: false });
  await demand(
    vault.call('alice', 'PATCH', '/v1/teams/payments', { rotateEveryDays: 30 }, any),
    200,
  );
  vault.clock.ms += 30 * day + 60_000;
  t.equal(await dueScanner.run(), 0, 'not in the minute in which it is due');
  vault.clock.ms += 3_600_000;
  t.equal(await dueScanner.run(), 1);
  t.equal(await dueScanner.run(), 0);
  t.match(await waiting(vault, 'key.overdue'), [
    { data: { team: 'payments', key: { version: 1 }, rotateAt: /^2/ } },
  ]);
});

t.test('a refresh that the provider refuses is told; one that fails for now is not', async (t) => {
  const server = await startAuthorizationServer(t, { ttlSeconds: 3600 });
  const receiver = await startReceiver(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  await subscribe(vault, receiver, ['credential.refreshFailed']);
  const { id } = await storeOAuth(stage, 'sheets');
  await connect(stage, id);
  vault.clock.ms += 2 * 3_600_000;
  Object.assign(server.behaviour, { status: 503, body: '' });
  await askLease(vault, 'n8n', [{ id }]);
  t.same(await waiting(vault, 'credential.refreshFailed'), []);
  vault.clock.ms += 600_000;
  Object.assign(server.behaviour, {
    status: 400,
    body: JSON.stringify({ error: 'invalid_grant', error_description: 'in its own words' }),
  });
  await askLease(vault, 'n8n', [{ id }]);
  t.strictSame(
    (await waiting(vault, 'credential.refreshFailed')).map(({ data }) => data),
    [
      {
        team: 'payments',
        credential: { id, name: 'sheets', type: 'oauth2' },
        reason: 'invalid_grant',
      },
    ],
  );

  const { id: other } = await storeOAuth(stage, 'drive');
  Object.assign(server.behaviour, { status: 200, body: '' });
  await sql`
    insert into oauth_token (credential_id, team_id, sequence, data_key_id, token, client, policy, key_history, expires_at, is_refreshable)
    select ${other}, held.team_id, 1, held.data_key_id, held.token, held.client, held.policy, held.key_history, ${new Date(Date.now() + vault.clock.ms - 60_000)}, false from oauth_token held where held.credential_id = ${id}`.execute(
    vault.db,
  );
  const now = (): number => Date.now() + vault.clock.ms;
  const dueScanner = new DueScanner({
    db: vault.db,
    now,
    outbox: new Outbox({ keyring: vault.keyring, now, onError: raise }),
    keyring: vault.keyring,
    onAlarm: () => undefined,
    onError: raise,
  });
  t.same([await dueScanner.run(), await dueScanner.run()], [1, 0]);
  t.match(
    (await waiting(vault, 'credential.refreshFailed')).at(-1).data,
    { credential: { id: other, name: 'drive' }, reason: 'no_refresh_token' },
    'over, without a way to another',
  );
});

t.test(
  'a tampered row is told once for each row and day, and never more than a hundred',
  async (t) => {
    const { vault, receiver, dueScanner } = await setStage(t);
    const { id } = await storeOpenai(vault, 'payments', 'openai', 'sk-1');
    await intrude(
      vault.db,
      `update credential set expires_at = now() + interval '1 year' where id = '${id}'`,
    );
    for (let i = 0; i < 5; i += 1)
      t.equal((await vault.call('alice', 'GET', `/v1/credentials/${id}`)).status, 404);
    await vault.call('alice', 'GET', '/v1/teams/payments/credentials');
    const [message] = await arrived(receiver, 'row.sealBroken');
    t.strictSame(message.data, {
      team: 'payments',
      row: { type: 'credential', id },
      action: 'credential.read',
    });
    const {
      rows: [team],
    } = await sql<{ id: never }>`select id from team where slug = 'payments'`.execute(vault.db);
    const see = (n: number): void => {
      dueScanner.noteTamperedRow({
        team: { id: team!.id, slug: 'payments' },
        target: { type: 'credential', id: `row ${n}` },
        action: 'credential.read',
      });
    };
    for (let n = 0; n < 300; n += 1) see(n % 150); // another replica's count
    await dueScanner.stop();
    t.equal((await waiting(vault, 'row.sealBroken')).length, 101);
  },
);

t.test(
  'an outbox that is full takes no more: what happens once is kept as failed, what comes by time waits',
  async (t) => {
    const { vault, dueScanner, id } = await setStage(t, { isStarted: false });
    await sql`
    insert into notification (id, webhook_id, team_id, type, subject_type, subject_id, due_at, at, data, seal, state, next_attempt_at)
    select ('019aa7c2-5b1e-7c3a-9d52-' || lpad(to_hex(n), 12, '0'))::uuid, ${id}, team_id, 'webhook.test', 'credential', n::text, now(), now(), '{}', '', 'pending', now() + interval '1 day'
    from webhook, generate_series(1, ${pendingMax}) n`.execute(vault.db);
    await storeOpenai(vault, 'payments', 'soon', 'sk-1', {
      expiresAt: new Date(Date.now() + day).toISOString(),
    });
    t.equal(await dueScanner.run(), 0);
    const {
      items: [{ id: key }],
    } = await demand(vault.call('alice', 'GET', '/v1/teams/payments/keys'), 200);
    await demand(
      vault.call('alice', 'POST', `/v1/teams/payments/keys/${key}/mark-compromised`, {
        reason: 'a drill',
      }),
      200,
    );
    t.match(await waiting(vault, 'credential.exposed'), [{ state: 'failed' }]);
    t.match(
      (
        await demand(
          vault.call('alice', 'GET', `/v1/teams/payments/webhooks/${id}/deliveries?limit=200`),
          200,
        )
      ).items.filter(({ type }: { type: string }) => type === 'credential.exposed'),
      [{ outcome: 'queueFull', attempts: 0 }],
    );
    await sql`delete from notification where type = 'webhook.test'`.execute(vault.db);
    t.equal(await dueScanner.run(), 1);
  },
);
