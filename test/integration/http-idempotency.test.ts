// Idempotency-Key: at most one thing for one key, whoever asks how often; a repetition gets no more
// than they may see now.
import { randomBytes } from 'node:crypto';
import t from 'tap';
import { watchStatements } from '../../bench/plans.ts';
import { type Answer, startVault } from '../helpers/vault.ts';

const vault = await startVault(t);
await vault.team('payments');
await vault.team('sales', ['alice', 'sam']);
await vault.member('payments', 'bob', 'editor');
const create = '/v1/teams/payments/credentials';
const body = (name: string, more: object = {}): object => ({
  name,
  type: 'openai',
  fields: { apiKey: `sk-${name}` },
  ...more,
});
const key = (): string => randomBytes(12).toString('hex');
const post = (as: string, what: unknown, idempotencyKey: string, url = create): Promise<Answer> =>
  vault.call(as, 'POST', url, what, { 'idempotency-key': idempotencyKey });
const count = async (
  table: 'credential' | 'idempotency_record' | 'audit_event' | 'team',
): Promise<number> =>
  (
    await vault.db
      .selectFrom(table)
      .select((select) => select.fn.countAll<number>().as('n'))
      .executeTakeFirstOrThrow()
  ).n;

t.test('a repetition answers with the same thing and makes nothing', async (test) => {
  const mine = key();
  const first = await post('bob', body('a'), mine);
  const [credentials, events] = [await count('credential'), await count('audit_event')];
  const again = await post('bob', body('a'), mine);
  test.equal(first.status, 201);
  test.match(again, {
    status: 201,
    headers: { etag: first.headers['etag'], location: first.headers['location'] },
    json: { id: first.json.id },
  });
  const reordered = JSON.stringify(
    { fields: { apiKey: 'sk-a' }, type: 'openai', name: 'a' },
    null,
    2,
  );
  test.match(
    await post('bob', reordered, mine),
    { status: 201, json: { id: first.json.id } },
    'the same members in another order are the same body',
  );
  test.same([await count('credential'), await count('audit_event')], [credentials, events]);
});

t.test('a repetition shows the thing as it is now', async (test) => {
  const mine = key();
  const {
    json: { id },
  } = await post('bob', body('b'), mine);
  await vault.call(
    'alice',
    'PATCH',
    `/v1/credentials/${id}`,
    { name: 'b-renamed' },
    { 'if-match': '*' },
  );
  test.match(await post('bob', body('b'), mine), {
    status: 201,
    headers: { etag: '"2"' },
    json: { id, name: 'b-renamed', revision: 2 },
  });
  await vault.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, { 'if-match': '*' });
  test.match(
    await post('bob', body('b'), mine),
    { status: 404, json: { code: 'notFound' } },
    'and not at all once it is gone: nothing is made again',
  );
});

t.test('the same key with another request is refused', async (test) => {
  const mine = key();
  await post('alice', body('c'), mine);
  const before = await count('credential');
  for (const [what, other] of Object.entries({
    'another name': body('c2'),
    'another secret': body('c', { fields: { apiKey: 'sk-other' } }),
    'a member more': body('c', { description: null }),
  })) {
    const answer = await post('alice', other, mine);
    test.match(answer, { status: 422, json: { code: 'idempotencyKeyReused' } }, what);
    test.notOk(answer.text.includes('sk-'), what);
  }
  test.match(
    await post('alice', body('c'), mine, '/v1/teams/sales/credentials'),
    { status: 422 },
    'another team',
  );
  test.equal(await count('credential'), before);
});

t.test('a key belongs to a subject, a method and a route', async (test) => {
  const shared = key();
  const [mine, theirs] = [
    await post('alice', body('d-alice'), shared),
    await post('bob', body('d-bob'), shared),
  ];
  test.match(
    [mine, theirs],
    [
      { status: 201, json: { name: 'd-alice' } },
      { status: 201, json: { name: 'd-bob' } },
    ],
  );
  const engineless = await vault.call(
    'operator',
    'POST',
    '/v1/teams',
    { slug: 'another', name: 'x', admins: ['alice'] },
    { 'idempotency-key': shared },
  );
  test.equal(engineless.status, 201, 'another route is another request');
  const disable = (verb: string): Promise<Answer> =>
    vault.call('alice', 'POST', `/v1/credentials/${mine.json.id}/${verb}`, undefined, {
      'idempotency-key': shared,
    });
  test.match(
    [await disable('disable'), await disable('disable'), await disable('enable')],
    [{ status: 200 }, { status: 200 }, { status: 200 }],
    'a change of state can be repeated',
  );
});

t.test('a repetition is authorised afresh', async (test) => {
  const mine = key();
  await vault.member('payments', 'eve', 'editor');
  test.equal((await post('eve', body('e'), mine)).status, 201);
  await vault.member('payments', 'eve', 'viewer');
  test.match(await post('eve', body('e'), mine), { status: 403 }, 'without the right');
  await vault.call('alice', 'DELETE', '/v1/teams/payments/members/eve', undefined, {
    'if-match': '*',
  });
  test.match(await post('eve', body('e'), mine), { status: 404 }, 'outside the team');
});

t.test(
  'a failure leaves no record: the key is free for the request once it is right',
  async (test) => {
    const mine = key();
    const before = await count('idempotency_record');
    test.equal((await post('alice', body('f', { type: 'nothing' }), mine)).status, 400);
    test.equal((await post('alice', body('d-alice'), mine)).status, 409, 'a name that is taken');
    test.equal((await post('mallory', body('f'), mine)).status, 404);
    test.equal(await count('idempotency_record'), before);
    test.equal((await post('alice', body('f'), mine)).status, 201);
  },
);

t.test('twenty at once make one', async (test) => {
  for (const [as, url, what, table] of [
    ['alice', create, body('g'), 'credential'],
    ['operator', '/v1/teams', { slug: 'twins', name: 'x', admins: ['alice'] }, 'team'],
  ] as const) {
    const mine = key();
    const before = await count(table);
    const answers = await Promise.all(Array.from({ length: 20 }, () => post(as, what, mine, url)));
    const made = answers.filter(({ status }) => status === 201);
    test.ok(made.length > 0);
    test.ok(
      answers.every(
        ({ status, json }) => status === 201 || (status === 409 && json.code === 'stateConflict'),
      ),
      'the others wait for it, or are told that it is being worked on',
    );
    test.equal(new Set(made.map(({ json }) => json.id ?? json.slug)).size, 1);
    test.equal(await count(table), before + 1);
  }
  test.notOk(vault.logs.some((line) => line.includes('requestFailed')));
});

t.test('a record holds for a day', async (test) => {
  const mine = key();
  const first = await post('alice', body('h'), mine);
  await vault.call('alice', 'DELETE', `/v1/credentials/${first.json.id}`, undefined, {
    'if-match': '*',
  });
  vault.clock.ms += 24 * 3_600_000 - 60_000;
  test.equal((await post('alice', body('h'), mine)).status, 404, 'to its end');
  vault.clock.ms += 120_000;
  const second = await post('alice', body('h'), mine);
  test.equal(second.status, 201, 'and then the key is a new one');
  test.not(second.json.id, first.json.id);
  test.match(await post('alice', body('h'), mine), { status: 201, json: { id: second.json.id } });
  vault.clock.ms = 0;
});

t.test('keys that are none', async (test) => {
  for (const idempotencyKey of ['', ' ', 'a b', 'x'.repeat(129), 'k\u00e9y', 'a, b', 'tab\there']) {
    test.match(
      await post('alice', body('i'), idempotencyKey),
      { status: 400, json: { errors: [{ pointer: '/headers/Idempotency-Key', rule: 'pattern' }] } },
      JSON.stringify(idempotencyKey),
    );
  }
  test.equal((await post('alice', body('i'), '!'.repeat(128))).status, 201);
});

t.test('of key and body only a hash and a MAC are kept', async (test) => {
  const mine = key();
  await post('alice', body('j'), mine);
  const rows = await vault.db.selectFrom('idempotency_record').selectAll().execute();
  const text = JSON.stringify(
    rows.map((row) => ({
      ...row,
      key_hash: row.key_hash.toString('latin1'),
      body_mac: row.body_mac.toString('latin1'),
    })),
  );
  test.notOk(text.includes(mine) || text.includes('sk-j'));
  test.ok(rows.every((row) => row.body_mac.length === 32));
});

t.test('where nothing is made, a key is not looked at', async (test) => {
  test.equal(
    (await vault.call('alice', 'GET', create, undefined, { 'idempotency-key': 'a b' })).status,
    200,
  );
});

t.test('repetitions of one key share one wait, and count twice against the limit', async (test) => {
  const stage = await startVault(test);
  await stage.team('payments');
  const mine = key();
  const repeat = (on = stage): Promise<Answer> =>
    on.call('alice', 'POST', create, body('a'), { 'idempotency-key': mine });
  const first = await repeat();
  let waits = 0;
  const stop = watchStatements(({ text }) => {
    if (text.includes('pg_logical_emit_message')) waits += 1;
  });
  try {
    for (let n = 0; n < 200; n += 1) test.equal((await repeat()).status, 201);
    test.equal(waits, 1, 'what was confirmed once is confirmed');
    await stage.call(
      'alice',
      'PATCH',
      `/v1/credentials/${first.json.id}`,
      { description: 'another' },
      { 'if-match': '*' },
    );
    waits = 0;
    test.match(await repeat(), { status: 201, json: { description: 'another' } });
    test.equal(waits, 1, 'another answer is confirmed anew');
    test.match(await repeat(), { status: 201, json: { description: 'another' } });
    test.equal(waits, 1);
  } finally {
    stop();
  }

  const limited = await startVault(test, {
    database: { url: stage.databaseUrl, db: stage.db },
    rootKey: stage.rootKey,
    rateLimits: { address: 0, subject: 5 },
  });
  test.same(
    [(await repeat(limited)).status, (await repeat(limited)).status],
    [201, 201],
    'four of five',
  );
  test.match(await repeat(limited), { status: 429, json: { code: 'rateLimited' } });
});
