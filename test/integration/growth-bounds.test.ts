// What a team can grow to: each bound is kept, one request after the other and all at once, on
// several replicas; what is freed can be filled again; and what was larger already goes on working.
import { sql } from 'kysely';
import t, { type Test } from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { Retention } from '../../src/retention/service.ts';
import type { GrowthLimits } from '../../src/shared/growth.ts';
import { watchStatements } from '../../bench/plans.ts';
import { platformPage, startAuthorizationServer } from '../helpers/authorization-server.ts';
import { demand, registerEngine, storeOpenai } from '../helpers/leases.ts';
import { callbackOf, connect, oauthStage, storeOAuth } from '../helpers/oauth.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const list = '/v1/teams/payments/credentials';
const openai = (name: string, apiKey = 'sk-test-00000000'): object => ({
  name,
  type: 'openai',
  fields: { apiKey },
});
const put = (vault: TestVault, name: string, query = ''): Promise<Answer> =>
  vault.call('alice', 'PUT', `${list}/${name}${query}`, {
    type: 'openai',
    fields: { apiKey: 'sk-test-00000000' },
  });
const create = (vault: TestVault, name: string, apiKey?: string): Promise<Answer> =>
  vault.call('alice', 'POST', list, openai(name, apiKey));

async function start(t: Test, growthLimits: Partial<GrowthLimits>): Promise<TestVault> {
  const vault = await startVault(t, { growthLimits });
  await vault.team('payments');
  return vault;
}
/** Another replica, which may have other bounds. */
const replica = (
  t: Test,
  vault: TestVault,
  growthLimits: Partial<GrowthLimits>,
): Promise<TestVault> =>
  startVault(t, {
    database: { url: vault.databaseUrl, db: vault.db },
    rootKey: vault.rootKey,
    growthLimits,
  });

const refused = (t: Test, answer: Answer, limit: string, max: number, what: string): void => {
  t.match(
    answer.json,
    { status: 409, code: 'limitReached', limit, max },
    `${what}: ${answer.status}`,
  );
};
/** How many of these were done; the others were refused by the bound. */
const doneOf = (t: Test, answers: readonly Answer[], limit: string): number => {
  const others = answers.filter(({ status }) => status >= 300);
  t.ok(
    others.every(({ json }) => json.code === 'limitReached' && json.limit === limit),
    JSON.stringify(others.map(({ json }) => json.code)),
  );
  return answers.length - others.length;
};
const count = async ({ db }: TestVault, from: string): Promise<number> => {
  const { rows } = await sql<{ count: number }>`
    select count(*) as count from ${sql.raw(from)}`.execute(db);
  return rows[0]!.count;
};
const living = (vault: TestVault): Promise<number> =>
  count(vault, `credential where state <> 'deleted'`);

t.test('credentials of a team, by each way to make one', async (t) => {
  const vault = await start(t, { credentials: 3 });
  const ids: string[] = [];
  for (const name of ['one', 'two', 'three']) ids.push((await demand(create(vault, name), 201)).id);
  const full = async (what: string): Promise<void> => {
    refused(t, await create(vault, 'another'), 'credentials', 3, `${what}: by POST`);
    refused(
      t,
      await vault.call('alice', 'POST', list, openai('another'), {
        'idempotency-key': what.replaceAll(' ', '-'),
      }),
      'credentials',
      3,
      `${what}: with an idempotency key`,
    );
    for (const query of ['', '?dryRun=true'])
      refused(t, await put(vault, 'another', query), 'credentials', 3, `${what}: by PUT${query}`);
    const { results } = await demand(
      vault.call('alice', 'POST', `${list}/bulk`, {
        items: [{ op: 'create', ...openai('another') }],
      }),
      200,
    );
    t.match(results, [{ problem: { code: 'limitReached', limit: 'credentials' } }], what);
  };
  await full('full');
  await demand(vault.call('alice', 'DELETE', `/v1/credentials/${ids[0]}`, undefined, any), 204);
  await demand(put(vault, 'four', '?dryRun=true'), 200);
  await demand(create(vault, 'four'), 201);
  await full('full again');
  refused(
    t,
    await vault.call('alice', 'POST', `/v1/credentials/${ids[0]}/restore`),
    'credentials',
    3,
    'bringing back',
  );
  await demand(vault.call('alice', 'DELETE', `/v1/credentials/${ids[1]}`, undefined, any), 204);
  await demand(vault.call('alice', 'POST', `/v1/credentials/${ids[0]}/restore`), 200);
  await full('after one came back');
  // what is there can be changed, read and taken out of use
  await demand(
    vault.call('alice', 'PATCH', `/v1/credentials/${ids[2]}`, { name: 'five' }, any),
    200,
  );
  await demand(vault.call('alice', 'POST', `/v1/credentials/${ids[2]}/disable`), 200);
  await vault.team('billing', ['bella']);
  await demand(vault.call('bella', 'POST', '/v1/teams/billing/credentials', openai('one')), 201);
  t.equal(await living(vault), 4, 'another team has its own');
});

t.test('many at once, on two replicas, make as many as there may be', async (t) => {
  const first = await start(t, { credentials: 5 });
  const second = await replica(t, first, { credentials: 5 });
  const some = Array.from({ length: 24 }, (_, n) => n);
  const answers = await Promise.all(
    some.map((n) => create(n % 2 === 0 ? first : second, `one of ${n}`)),
  );
  t.equal(doneOf(t, answers, 'credentials'), 5);
  t.equal(await living(first), 5);
  // two go and come back, while others are made
  const ids = answers.flatMap(({ status, json }) => (status === 201 ? [json.id as string] : []));
  for (const id of ids.slice(0, 2))
    await demand(first.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any), 204);
  const then = await Promise.all([
    ...ids.slice(0, 2).map((id) => second.call('alice', 'POST', `/v1/credentials/${id}/restore`)),
    ...some.slice(0, 6).map((n) => create(n % 2 === 0 ? first : second, `another of ${n}`)),
  ]);
  t.equal(doneOf(t, then, 'credentials'), 2);
  t.equal(await living(first), 5);
});

t.test('who makes and deletes in a loop fills twice the bound, until retention', async (t) => {
  const vault = await start(t, { credentials: 2 });
  const made: Answer[] = [];
  for (let n = 0; n < 7; n += 1) {
    const answer = await create(vault, 'again');
    made.push(answer);
    if (answer.status === 201)
      await demand(
        vault.call('alice', 'DELETE', `/v1/credentials/${answer.json.id}`, undefined, any),
        204,
      );
  }
  t.equal(doneOf(t, made, 'storedCredentials'), 4);
  refused(t, await create(vault, 'again'), 'storedCredentials', 4, 'a fifth');
  vault.clock.ms += 31 * 86_400_000;
  const { db, keyring } = vault;
  const now = (): number => Date.now() + vault.clock.ms;
  const onError = (error: Error): void => {
    throw error;
  };
  const audit = new AuditLog({ db, keyring, now, onError, onAlarm: () => undefined });
  await new Retention({ db, audit, clock: vault.databaseClock, onError }).run();
  // the refusal before has just counted: another replica need not wait until it counts again
  await demand(create(await replica(t, vault, { credentials: 2 }), 'again'), 201);
});

t.test('bytes of a team: versions, public fields and stored tokens', async (t) => {
  const vault = await start(t, { ciphertextBytes: 14_500 });
  await demand(vault.call('alice', 'PATCH', '/v1/teams/payments', { versionsKept: 2 }, any), 200);
  const large = (n: number): string => `sk-${n}`.padEnd(2_000, 'x');
  const { id } = await demand(create(vault, 'one', large(1)), 201); // some 2,800 bytes
  const patch = (n: number): Promise<Answer> =>
    vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { fields: { apiKey: large(n) } }, any);
  await demand(create(vault, 'two', large(2)), 201);
  await demand(patch(3), 200);
  const { id: three } = await demand(create(vault, 'three', large(3)), 201);
  refused(t, await create(vault, 'four', large(4)), 'ciphertextBytes', 14_500, 'by making one');
  await demand(create(vault, 'small'), 201);
  for (let n = 5; n < 10; n += 1) await demand(patch(n), 200); // a version goes for each
  refused(
    t,
    await vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${three}`,
      { fields: { apiKey: large(4) } },
      any,
    ),
    'ciphertextBytes',
    14_500,
    'by a version more',
  );
  const { items } = await demand(vault.call('alice', 'GET', `/v1/credentials/${id}/versions`), 200);
  await demand(
    vault.call('alice', 'DELETE', `/v1/credentials/${id}/versions/${items[1].version}`),
    204,
  );
  await demand(create(vault, 'four', large(4)), 201);
  // nothing that the vault does for itself is refused
  await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);
});

t.test('what is larger already goes on working, and does not grow', async (t) => {
  const before = await start(t, {});
  const ids: string[] = [];
  for (let n = 0; n < 5; n += 1) ids.push((await demand(create(before, `one of ${n}`), 201)).id);
  await demand(before.call('alice', 'PATCH', '/v1/teams/payments', { versionsKept: 1 }, any), 200);
  await sql`delete from team_size`.execute(before.db); // as after an upgrade
  const vault = await replica(t, before, { credentials: 2, ciphertextBytes: 500, members: 1 });
  refused(t, await create(vault, 'another'), 'credentials', 2, 'one more');
  const at = (n: number): string => `/v1/credentials/${ids[n]}`;
  await demand(vault.call('alice', 'GET', at(0)), 200);
  await demand(
    vault.call('alice', 'PATCH', at(0), { fields: { apiKey: 'sk-test-00000001' } }, any),
    200,
  );
  await demand(vault.call('alice', 'PATCH', at(0), { description: 'x' }, any), 200);
  for (let n = 0; n < 4; n += 1)
    await demand(vault.call('alice', 'DELETE', at(n), undefined, any), 204);
  refused(t, await create(vault, 'another'), 'storedCredentials', 4, 'rows that are still there');
  await demand(
    vault.call('alice', 'PUT', '/v1/teams/payments/members/alice', { role: 'admin' }, any),
    200,
  );
});

t.test('a credential that is given away moves only where there is room', async (t) => {
  const vault = await start(t, { credentials: 2 });
  await vault.team('billing', ['bella']);
  const ids: string[] = [];
  for (const name of ['one', 'two']) ids.push((await demand(create(vault, name), 201)).id);
  await demand(vault.call('bella', 'POST', '/v1/teams/billing/credentials', openai('own')), 201);
  const offers = await Promise.all(
    ids.map((id) =>
      demand(
        vault.call('alice', 'POST', `/v1/credentials/${id}/transfers`, { team: 'billing' }),
        201,
      ),
    ),
  );
  refused(t, await create(vault, 'three'), 'credentials', 2, 'as long as they are there');
  const taken = await Promise.all(
    offers.map(({ id }) => vault.call('bella', 'POST', `/v1/transfers/${id}/accept`)),
  );
  t.equal(doneOf(t, taken, 'credentials'), 1, 'there was room for one');
  await demand(create(vault, 'three'), 201);
  refused(t, await create(vault, 'four'), 'credentials', 2, 'as many as had left');
});

t.test('an account that is connected is counted, and connected again at the bound', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { id } = await storeOAuth(stage, 'sheets');
  const other = await storeOAuth(stage, 'drive');
  await connect(stage, id);
  const { vault } = stage;
  await vault.stop(); // which writes what it has counted
  const { rows } = await sql<{ bytes: number }>`
    select (select sum(octet_length(token) + pg_column_size(public_fields)) from credential_version)
      + (select sum(octet_length(token)) from oauth_token) as bytes`.execute(vault.db);
  const max = Number(rows[0]!.bytes) + 200;
  const bounded = await startVault(t, {
    database: { url: vault.databaseUrl, db: vault.db },
    rootKey: vault.rootKey,
    growthLimits: { ciphertextBytes: max },
    egress: server.egress(),
    oauthRedirectUri: platformPage,
  });
  await connect({ ...stage, vault: bounded }, id);
  const { authorizationUrl } = await demand(
    bounded.call('alice', 'POST', `/v1/credentials/${other.id}/oauth/authorizations`),
    201,
  );
  refused(
    t,
    await bounded.call(
      'alice',
      'POST',
      '/v1/oauth/callbacks',
      callbackOf(await server.visit(authorizationUrl)),
    ),
    'ciphertextBytes',
    max,
    'another account',
  );
});

t.test('authorizations begun and not ended', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server, { growthLimits: { authorizations: 3 } });
  const { vault } = stage;
  const { id } = await storeOAuth(stage, 'sheets');
  const begin = (as = 'alice'): Promise<Answer> =>
    vault.call(as, 'POST', `/v1/credentials/${id}/oauth/authorizations`);
  const answers = await Promise.all(
    Array.from({ length: 10 }, (_, n) => begin(n % 2 === 0 ? 'alice' : 'eddie')),
  );
  t.equal(doneOf(t, answers, 'authorizations'), 3, 'of a team, whoever begins');
  const full = await begin();
  refused(t, full, 'authorizations', 3, 'a fourth');
  const after = Number(full.headers['retry-after']);
  t.ok(after > 0 && after <= 600, `says when to come back: ${after}`);
  const ended = answers.find(({ status }, n) => status === 201 && n % 2 === 0);
  if (ended !== undefined)
    await demand(
      vault.call(
        'alice',
        'POST',
        '/v1/oauth/callbacks',
        callbackOf(await server.visit(ended.json.authorizationUrl)),
      ),
      200,
    );
  else vault.clock.ms += 600_000;
  t.equal((await begin()).status, 201, 'one that was ended makes room');
  vault.clock.ms += 601_000;
  t.equal((await begin()).status, 201, 'and so do those whose time is over');
});

t.test('members', async (t) => {
  const vault = await start(t, { members: 4 });
  const put = (sub: string): Promise<Answer> =>
    vault.call('alice', 'PUT', `/v1/teams/payments/members/${sub}`, { role: 'viewer' }, any);
  const answers = await Promise.all(Array.from({ length: 9 }, (_, n) => put(`member-${n}`)));
  t.equal(doneOf(t, answers, 'members'), 3, 'with the admin who was there');
  const one = answers.findIndex(({ status }) => status === 200);
  t.equal((await put(`member-${one}`)).status, 200, 'who is there can be given another role');
  const at = `/v1/teams/payments/members/member-${one}`;
  await demand(vault.call('alice', 'DELETE', at, undefined, any), 204);
  t.equal((await put('somebody')).status, 200);
  refused(t, await put('nobody'), 'members', 4, 'one more');
  refused(
    t,
    await vault.call('operator', 'POST', '/v1/teams', {
      slug: 'crowd',
      name: 'crowd',
      admins: ['a', 'b', 'c', 'd', 'e'],
    }),
    'members',
    4,
    'a team of too many',
  );
});

t.test('grants of a credential', async (t) => {
  const vault = await start(t, { grants: 3 });
  await vault.team('billing', ['bella']);
  await registerEngine(vault, 'n8n');
  const { id } = await storeOpenai(vault, 'payments', 'one', 'sk-test-00000000');
  const put = (to: string): Promise<Answer> =>
    vault.call('alice', 'PUT', `/v1/credentials/${id}/grants/${to}`, { access: 'read' }, any);
  const all = ['teams/billing', 'subjects/n8n', 'subjects/a', 'subjects/b', 'subjects/c'];
  const answers = await Promise.all(all.map(put));
  t.equal(doneOf(t, answers, 'grants'), 3);
  const one = all[answers.findIndex(({ status }) => status === 200)]!;
  t.equal((await put(one)).status, 200, 'what is there can be changed');
  await demand(
    vault.call('alice', 'DELETE', `/v1/credentials/${id}/grants/${one}`, undefined, any),
    204,
  );
  t.equal((await put('subjects/d')).status, 200);
  refused(t, await put('subjects/e'), 'grants', 3, 'one more');
});

t.test("keys, by somebody's own rotations", async (t) => {
  const vault = await start(t, { keys: 3 });
  vault.start();
  const rotate = async (): Promise<Answer> => {
    for (;;) {
      const answer = await vault.call('alice', 'POST', '/v1/teams/payments/key-rotations');
      if (answer.json.code !== 'rotationRunning') return answer;
    }
  };
  t.same([(await rotate()).status, (await rotate()).status], [202, 202]);
  refused(t, await rotate(), 'keys', 3, 'a fourth key');
  const { items } = await demand(vault.call('alice', 'GET', '/v1/teams/payments/keys'), 200);
  await demand(
    vault.call('alice', 'POST', `/v1/teams/payments/keys/${items[0].id}/mark-compromised`, {
      reason: 'a test',
    }),
    200,
  );
  t.equal(
    await count(vault, 'data_key'),
    4,
    'a key that is known to somebody is left all the same',
  );
});

t.test('far from its bounds a team costs nothing to count', async (t) => {
  const vault = await start(t, {});
  await demand(create(vault, 'first'), 201);
  const sent: string[] = [];
  const stop = watchStatements(({ text }) => sent.push(text));
  for (const name of ['second', 'third']) await demand(create(vault, name), 201);
  stop();
  t.same(
    sent.filter((text) => /insert into credential\b/.test(text)).length,
    2,
    'one statement each',
  );
  t.same(
    sent.filter((text) => /team_size|^begin|commit/.test(text)),
    [],
    'and none for the count',
  );
  t.match(
    (await sql`select * from team_size`.execute(vault.db)).rows,
    [{ living_credentials: 1, stored_credentials: 1 }],
    'which is written later',
  );
  await vault.stop();
  t.match(
    (await sql`select * from team_size`.execute(vault.db)).rows,
    [{ living_credentials: 3, stored_credentials: 3 }],
    'at the stop at the latest',
  );
});
