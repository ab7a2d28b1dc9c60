// Lifetimes that nobody said, and access tokens that an upstream refused: one refresh for any
// number of reports, never many, and no more when fresh tokens fare no better.
import t, { type Test } from 'tap';
import { openDatabase } from '../../src/db/client.ts';
import {
  type AuthorizationServer,
  startAuthorizationServer,
} from '../helpers/authorization-server.ts';
import { testDatabase } from '../helpers/database.ts';
import { askLease, demand, openAnswer, registerEngine, rulesOf } from '../helpers/leases.ts';
import { connect, leaseFields, type OAuthStage, oauthStage, storeOAuth } from '../helpers/oauth.ts';
import { type Answer, startVault } from '../helpers/vault.ts';

const [minute, hour] = [60_000, 3_600_000];

async function setStage(
  t: Test,
  fields: object = {},
  { says = 3600 as number | null } = {},
): Promise<{ server: AuthorizationServer; stage: OAuthStage; id: string }> {
  const server = await startAuthorizationServer(t, { ttlSeconds: 100_000 });
  server.behaviour.dress = ({ expires_in: _, ...issued }) => ({
    body: { ...issued, ...(says === null ? {} : { expires_in: says }) },
  });
  const stage = await oauthStage(t, server);
  const { id } = await storeOAuth(stage, 'account', fields);
  await connect(stage, id);
  return { server, stage, id };
}
const connectionOf = ({ vault }: OAuthStage, id: string): Promise<any> =>
  demand(vault.call('alice', 'GET', `/v1/credentials/${id}/oauth`), 200);
const report = ({ vault }: OAuthStage, id: string, tokenId: string, engine = 'n8n') =>
  askLease(vault, engine, [{ id }], { rejected: [{ id, tokenId }] });
const refreshes = ({ asked }: AuthorizationServer): number => asked['refresh_token'] ?? 0;
const tokenIdOf = (answer: Answer): string => answer.json.credentials[0].tokenId;
const problemsOf = async ({ vault }: OAuthStage, id: string): Promise<string[]> =>
  (await demand(vault.call('alice', 'GET', `/v1/credentials/${id}`), 200)).problems;

t.test('where no lifetime is said an hour is assumed, or what the credential says', async (t) => {
  const { server, stage, id } = await setStage(t, {}, { says: null });
  const { obtainedAt, validUntil, isLifetimeAssumed } = await connectionOf(stage, id);
  t.equal(Date.parse(validUntil) - Date.parse(obtainedAt), hour);
  t.equal(isLifetimeAssumed, true);
  t.equal((await leaseFields(stage, id))['expiresAt'], validUntil, 'an engine is told');
  stage.vault.clock.ms += 58 * minute;
  await leaseFields(stage, id);
  t.equal(refreshes(server), 0);
  stage.vault.clock.ms += 2 * minute;
  t.equal((await leaseFields(stage, id))['accessToken'], server.given.accessTokens.at(-1));
  t.equal(refreshes(server), 1);

  await demand(
    stage.vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { fields: { assumedLifetimeSeconds: 7200 } },
      { 'if-match': '*' },
    ),
    200,
  );
  stage.vault.clock.ms += 90 * minute;
  await leaseFields(stage, id);
  t.equal(refreshes(server), 1, 'it counts at once, and ends nothing that is stored');
  stage.vault.clock.ms += 31 * minute;
  await leaseFields(stage, id);
  t.equal(refreshes(server), 2);
  for (const seconds of [59, 315_360_001, 0, -1, 1.5, '3600'])
    t.equal(
      (
        await stage.vault.call(
          'alice',
          'PATCH',
          `/v1/credentials/${id}`,
          { fields: { assumedLifetimeSeconds: seconds } },
          { 'if-match': '*' },
        )
      ).status,
      400,
      String(seconds),
    );
});

t.test('what is only assumed to be over is given while the provider is away', async (t) => {
  const { server, stage, id } = await setStage(t, {}, { says: null });
  Object.assign(server.behaviour, { status: 503, body: '' });
  stage.vault.clock.ms += 2 * hour;
  for (let n = 0; n < 3; n += 1) {
    const fields = await leaseFields(stage, id);
    t.equal(fields['accessToken'], server.given.accessTokens[0]);
    t.notOk('expiresAt' in fields, 'nobody says that it is good');
  }
  t.equal(server.asked['answered as told'], 1);
  t.ok((await connectionOf(stage, id)).unavailableSince);
  Object.assign(server.behaviour, { status: 400, body: '' });
  stage.vault.clock.ms += 10 * minute;
  t.same(
    rulesOf(await askLease(stage.vault, 'n8n', [{ id }])),
    ['/credentials/0 refreshFailed'],
    'a refusal for good is one',
  );
});

t.test('without a refresh token nothing is assumed', async (t) => {
  const server = await startAuthorizationServer(t, {
    configuration: { issueRefreshToken: async () => false },
  });
  server.behaviour.dress = ({ expires_in: _, ...issued }) => ({ body: issued });
  const stage = await oauthStage(t, server);
  const { id } = await storeOAuth(stage, 'account');
  await connect(stage, id);
  t.match(await connectionOf(stage, id), { validUntil: null, isLifetimeAssumed: false });
  stage.vault.clock.ms += 1_000 * hour;
  t.equal((await leaseFields(stage, id))['accessToken'], server.given.accessTokens[0]);
  t.same(await problemsOf(stage, id), []);
});

t.test(
  'a refused token is made new if it is still the stored one, and named in a lease',
  async (t) => {
    const { server, stage, id } = await setStage(t);
    const { vault, engine } = stage;
    const first = await askLease(vault, 'n8n', [{ id }]);
    const opened = await openAnswer(vault, engine, first);
    t.equal(opened.credentials[0]?.tokenId, tokenIdOf(first), 'inside as outside');
    t.match(tokenIdOf(first), /^[a-z0-9.]{1,40}$/);
    t.notOk(server.given.accessTokens[0]?.includes(tokenIdOf(first)));
    vault.clock.ms += minute;
    const second = await report(stage, id, tokenIdOf(first));
    t.equal(second.status, 201, second.text);
    t.not(tokenIdOf(second), tokenIdOf(first));
    t.equal(refreshes(server), 1);
    const late = await report(stage, id, tokenIdOf(first));
    t.equal(tokenIdOf(late), tokenIdOf(second), 'a stale report gets the stored one');
    for (const made of ['t999', 'x', 'v1.0'])
      t.equal(tokenIdOf(await report(stage, id, made)), tokenIdOf(second), made);
    t.equal(refreshes(server), 1);
    t.match(
      await vault.db
        .selectFrom('audit_event')
        .innerJoin('subject', 'subject.id', 'audit_event.actor_id')
        .select(['subject.sub', 'details'])
        .where('action', '=', 'oauth.refresh')
        .execute(),
      [{ sub: 'n8n', details: { rejected: tokenIdOf(first) } }],
      'it stands in the log with its engine',
    );
  },
);

t.test('tokens that versions brought have names of their own', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { id } = await storeOAuth(stage, 'brought', { accessToken: 'the-first-of-them' });
  const first = await askLease(stage.vault, 'n8n', [{ id }]);
  await demand(
    stage.vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { fields: { accessToken: 'the-second-of-them' } },
      { 'if-match': '*' },
    ),
    200,
  );
  const second = await askLease(stage.vault, 'n8n', [{ id }]);
  t.not(tokenIdOf(second), tokenIdOf(first));
  t.equal(
    (await report(stage, id, tokenIdOf(first))).status,
    201,
    'a report of the first is stale',
  );
});

t.test('a report is of what the lease is about', async (t) => {
  const { stage, id } = await setStage(t);
  const { vault } = stage;
  const { id: other } = await storeOAuth(stage, 'other');
  const { id: key } = await demand(
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: 'key',
      type: 'openai',
      fields: { apiKey: 'a key of an API' },
    }),
    201,
  );
  const ask = (references: object[], rejected: unknown) =>
    askLease(vault, 'n8n', references as never, { rejected });
  for (const [what, references, rejected] of [
    ['another credential', [{ id }], [{ id: other, tokenId: 't1' }]],
    ['one without access tokens', [{ id: key }], [{ id: key, tokenId: 't1' }]],
  ] as const)
    t.same(rulesOf(await ask([...references], rejected)), ['/rejected/0/id notInLease'], what);
  t.equal(
    (await ask([{ team: 'payments', name: 'account' }], [{ id, tokenId: 't0' }])).status,
    201,
    'asked for by its name',
  );
  for (const wrong of [
    [{ id }],
    [{ id, tokenId: '' }],
    [{ id, tokenId: 'T 1' }],
    [{ id, tokenId: 'x'.repeat(41) }],
    [
      { id, tokenId: 't1' },
      { id, tokenId: 't2' },
    ],
    { id, tokenId: 't1' },
  ])
    t.equal((await ask([{ id }], wrong)).status, 400, JSON.stringify(wrong));
});

t.test('fifty engines on two replicas with one stale token: one refresh', async (t) => {
  const server = await startAuthorizationServer(t);
  const { url } = await testDatabase(t);
  const small = (): Parameters<typeof startVault>[1] => {
    const database = openDatabase({ url, poolMax: 4, onError: () => undefined });
    t.teardown(() => database.close());
    return { database: { url, db: database.db } };
  };
  const stage = await oauthStage(t, server, small());
  const other = {
    ...stage,
    vault: await startVault(t, {
      ...small(),
      rootKey: stage.vault.rootKey,
      egress: server.egress(),
    }),
  };
  const { id } = await storeOAuth(stage, 'account');
  await connect(stage, id);
  const stale = tokenIdOf(await askLease(stage.vault, 'n8n', [{ id }]));
  for (const { vault } of [stage, other]) vault.clock.ms += minute;
  const leases = await Promise.all(
    Array.from({ length: 50 }, (_, at) => report(at % 2 === 0 ? stage : other, id, stale)),
  );
  t.same(
    leases.filter(({ status }) => status !== 201).map(({ text }) => text),
    [],
  );
  t.equal(new Set(leases.map(tokenIdOf)).size, 1);
  t.equal(refreshes(server), 1);
});

t.test(
  'one forced refresh in five minutes, then twice as long, three in a row at most',
  async (t) => {
    const { server, stage, id } = await setStage(t, {}, { says: 90_000 });
    const { vault } = stage;
    await registerEngine(vault, 'other');
    await vault.member('payments', 'other', 'engine');
    vault.clock.ms += 2 * hour;
    const forcedAt: number[] = [];
    const startedAt = vault.clock.ms;
    let last = '';
    // Somebody to whom every token is refused, every half a minute for an hour.
    for (let before = 0; vault.clock.ms - startedAt < hour; vault.clock.ms += minute / 2) {
      const held = tokenIdOf(await askLease(vault, 'other', [{ id }]));
      const answer = await report(stage, id, held);
      last = rulesOf(answer).join();
      if (refreshes(server) > before) forcedAt.push((vault.clock.ms - startedAt) / minute);
      before = refreshes(server);
    }
    t.equal(refreshes(server), 3, 'at most eight in an hour');
    t.same(
      forcedAt.slice(1).map((at, index) => Math.round(at - forcedAt[index]!)),
      [5, 10],
      'five minutes between the first and the second, ten before the third',
    );
    t.equal(last, '/credentials/0 rejectedByUpstream');
    t.same(await problemsOf(stage, id), ['rejectedByUpstream']);
    t.same(
      (
        await demand(vault.call('alice', 'GET', '/v1/credentials?problem=rejectedByUpstream'), 200)
      ).items.map((each: { id: string }) => each.id),
      [id],
      'seen in lists',
    );
    t.match(await demand(vault.call('alice', 'GET', '/v1/teams/payments/problems'), 200), {
      problems: { rejectedByUpstream: 1 },
    });
    const { state, rejectedSince } = await connectionOf(stage, id);
    t.equal(state, 'connected');
    t.ok(rejectedSince);
    t.match(
      await vault.db
        .selectFrom('audit_event')
        .innerJoin('subject', 'subject.id', 'audit_event.actor_id')
        .select(['subject.sub', 'decision', 'reason'])
        .where('action', '=', 'oauth.rejected')
        .execute(),
      [{ sub: 'n8n', decision: 'deny', reason: 'rejectedByUpstream' }],
      'once, with its engine',
    );
    t.equal(
      (await askLease(vault, 'other', [{ id }])).status,
      201,
      'others get the token as it is',
    );
    // Somebody does something.
    await connect(stage, id);
    t.same(await problemsOf(stage, id), []);
    vault.clock.ms += minute;
    t.equal(
      (await report(stage, id, tokenIdOf(await askLease(vault, 'n8n', [{ id }])))).status,
      201,
    );
    t.equal(refreshes(server), 4);
  },
);

t.test('a token that was good for long and is refused then counts as the first', async (t) => {
  const { server, stage, id } = await setStage(t, {}, { says: 90_000 });
  for (let round = 1; round <= 6; round += 1) {
    stage.vault.clock.ms += 2 * hour;
    const held = tokenIdOf(await askLease(stage.vault, 'n8n', [{ id }]));
    t.equal((await report(stage, id, held)).status, 201, `round ${round}`);
    t.equal(refreshes(server), round);
  }
});
