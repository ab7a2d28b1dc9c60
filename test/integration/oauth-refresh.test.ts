// Stored tokens are made new when they are used: once, whoever asks, and with an end that can be
// seen.
import { sql } from 'kysely';
import t from 'tap';
import { openDatabase } from '../../src/db/client.ts';
import {
  type AuthorizationServer,
  startAuthorizationServer,
} from '../helpers/authorization-server.ts';
import { testDatabase } from '../helpers/database.ts';
import { intrude } from '../helpers/intruder.ts';
import { askLease, demand, openAnswer, rulesOf } from '../helpers/leases.ts';
import {
  begin,
  callbackOf,
  connect,
  leaseFields,
  oauthStage,
  type OAuthStage,
  storeOAuth,
} from '../helpers/oauth.ts';
import { until } from '../helpers/processes.ts';
import { startVault } from '../helpers/vault.ts';

const hour = 3_600_000;
const connectionOf = (stage: OAuthStage, id: string): Promise<any> =>
  demand(stage.vault.call('alice', 'GET', `/v1/credentials/${id}/oauth`), 200);
const problemsOf = async (stage: OAuthStage, id: string): Promise<string[]> =>
  (await demand(stage.vault.call('alice', 'GET', `/v1/credentials/${id}`), 200)).problems;
const refuse = (server: AuthorizationServer, status: number, error = ''): void => {
  Object.assign(server.behaviour, {
    status,
    body: error === '' ? '' : JSON.stringify({ error, error_description: 'in its own words' }),
  });
};

t.test('a token is made new before it ends, and the refresh token with it', async (t) => {
  const server = await startAuthorizationServer(t, { ttlSeconds: 3600 });
  const stage = await oauthStage(t, server);
  const { id, revision } = await storeOAuth(stage, 'sheets');
  await connect(stage, id);
  stage.vault.clock.ms = hour - 90_000;
  t.equal(
    (await leaseFields(stage, id))['accessToken'],
    server.given.accessTokens[0],
    'more than a minute is left',
  );
  for (let round = 1; round <= 3; round += 1) {
    stage.vault.clock.ms += hour;
    const { accessToken, expiresAt } = await leaseFields(stage, id);
    t.equal(accessToken, server.given.accessTokens[round]);
    t.ok(
      Date.parse(String(expiresAt)) > Date.now() + stage.vault.clock.ms + hour / 2,
      'with its own end',
    );
    t.equal(
      server.asked['refresh_token'],
      round,
      'with the refresh token of the time before, which is good once',
    );
  }
  t.equal(
    (await demand(stage.vault.call('alice', 'GET', `/v1/credentials/${id}`), 200)).revision,
    revision,
  );
  const events = await stage.vault.db
    .selectFrom('audit_event')
    .select(['action', 'decision', 'details', 'key_id'])
    .where('target_id', '=', id)
    .where('action', 'like', 'oauth.%')
    .orderBy('at')
    .execute();
  t.same(
    events.map(({ action }) => action),
    [
      'oauth.authorize',
      'oauth.callback',
      'oauth.connect',
      'oauth.refresh',
      'oauth.refresh',
      'oauth.refresh',
    ],
  );
  t.match(events.at(-1), { decision: 'allow', details: { sequence: 4, isRefreshTokenNew: true } });
  t.ok(events.at(-1)?.key_id);
});

t.test('fifty uses on two replicas with four connections each refresh once', async (t) => {
  const server = await startAuthorizationServer(t);
  const { url, db } = await testDatabase(t);
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
  const { id } = await storeOAuth(stage, 'sheets');
  await connect(stage, id);
  for (const isSlow of [false, true]) {
    const { promise: isDone, resolve: done } = Promise.withResolvers<void>();
    server.behaviour.onToken = isSlow ? () => isDone : undefined;
    stage.vault.clock.ms += 2 * hour;
    other.vault.clock.ms += 2 * hour;
    const before = server.asked['refresh_token'] ?? 0;
    const engines = Array.from({ length: 50 }, (_, index) => (index % 2 === 0 ? stage : other));
    const [leases] = await Promise.all([
      Promise.all(engines.map(({ vault }) => askLease(vault, 'n8n', [{ id }]))),
      // The provider answers only after requests that have nothing to do with it: nobody holds a
      // connection while it is asked.
      isSlow &&
        (async () => {
          await until(() =>
            db
              .selectFrom('oauth_token')
              .select('claimed_until')
              .where('claim_id', 'is not', null)
              .executeTakeFirst(),
          );
          for (let n = 0; n < 20; n += 1)
            await demand(stage.vault.call('alice', 'GET', `/v1/credentials/${id}`), 200);
          done();
        })(),
    ]);
    t.same(
      leases.filter(({ status }) => status !== 201).map(({ text }) => text),
      [],
    );
    t.equal((server.asked['refresh_token'] ?? 0) - before, 1, 'the provider was asked once');
    const tokens = await Promise.all(
      leases
        .slice(0, 4)
        .map(async (lease) => (await openAnswer(stage.vault, stage.engine, lease)).credentials[0]),
    );
    t.ok(
      tokens.every(
        (credential) =>
          credential !== undefined &&
          !credential.notModified &&
          credential.fields['accessToken'] === server.given.accessTokens.at(-1),
      ),
      'and all have what it gave',
    );
  }
  t.same(
    await db
      .selectFrom('audit_event')
      .select('action')
      .where('action', '=', 'oauth.refresh')
      .execute(),
    [{ action: 'oauth.refresh' }, { action: 'oauth.refresh' }],
  );
});

t.test('a provider that sends no other refresh token keeps the one it gave', async (t) => {
  const server = await startAuthorizationServer(t, {
    configuration: { rotateRefreshToken: false },
  });
  const stage = await oauthStage(t, server);
  const { id } = await storeOAuth(stage, 'sheets');
  await connect(stage, id);
  server.behaviour.keepsRefreshToken = true;
  for (let round = 1; round <= 3; round += 1) {
    stage.vault.clock.ms += 2 * hour;
    t.equal((await leaseFields(stage, id))['accessToken'], server.given.accessTokens[round]);
  }
  t.equal(server.asked['refresh_token'], 3);
  t.match(await connectionOf(stage, id), { state: 'connected', isRefreshable: true });
});

t.test(
  'refused for good: seen with its reason, not tried again, and ended by connecting again',
  async (t) => {
    const server = await startAuthorizationServer(t);
    const stage = await oauthStage(t, server);
    const { vault } = stage;
    const { id } = await storeOAuth(stage, 'sheets');
    await storeOAuth(stage, 'other');
    await connect(stage, id);
    await server.revoke();
    vault.clock.ms += 2 * hour;
    for (let n = 0; n < 3; n += 1)
      t.same(rulesOf(await askLease(vault, 'n8n', [{ id }])), ['/credentials/0 refreshFailed']);
    t.equal(server.asked['refresh_token'], 1, 'asked once');
    t.match(await connectionOf(stage, id), { state: 'refreshFailed', reason: 'invalid_grant' });
    t.match(await demand(vault.call('alice', 'GET', `/v1/credentials/${id}`), 200), {
      health: 'refreshFailed',
      problems: ['refreshFailed'],
      revision: 1,
    });
    t.same(
      (
        await demand(vault.call('alice', 'GET', '/v1/credentials?problem=refreshFailed'), 200)
      ).items.map((each: { id: string }) => each.id),
      [id],
    );
    t.match(
      await vault.db
        .selectFrom('audit_event')
        .select(['decision', 'reason', 'details'])
        .where('action', '=', 'oauth.refresh')
        .execute(),
      [{ decision: 'deny', reason: 'invalid_grant', details: { sequence: 1 } }],
    );
    t.match(await connect(stage, id), { state: 'connected', reason: null });
    t.same(await problemsOf(stage, id), []);
    t.equal((await leaseFields(stage, id))['accessToken'], server.given.accessTokens.at(-1));
    for (const [error, reason] of [
      ['invalid_client', 'invalid_client'],
      ['of_their_own', 'refused'],
    ] as const) {
      refuse(server, 400, error);
      vault.clock.ms += 2 * hour;
      t.same(rulesOf(await askLease(vault, 'n8n', [{ id }])), ['/credentials/0 refreshFailed']);
      t.match(await connectionOf(stage, id), { reason });
      server.behaviour.status = undefined;
      await demand(
        vault.call(
          'alice',
          'PATCH',
          `/v1/credentials/${id}`,
          { fields: { clientSecret: String(stage.server.fields()['clientSecret']) } },
          { 'if-match': '*' },
        ),
        200,
      );
      t.equal(
        (await leaseFields(stage, id))['accessToken'],
        server.given.accessTokens.at(-1),
        'a new client secret lets it be tried again',
      );
    }
  },
);

t.test(
  'a provider that is down is asked again later and later, and a token that is still good is used meanwhile',
  async (t) => {
    const server = await startAuthorizationServer(t);
    const stage = await oauthStage(t, server);
    const { vault } = stage;
    const { id } = await storeOAuth(stage, 'sheets');
    await connect(stage, id);
    const tried = (): number => server.asked['answered as told'] ?? 0;
    refuse(server, 503);
    vault.clock.ms = hour - 30_000;
    for (let n = 0; n < 3; n += 1)
      t.equal(
        (await leaseFields(stage, id))['accessToken'],
        server.given.accessTokens[0],
        'half a minute is left of it',
      );
    t.equal(tried(), 1);
    vault.clock.ms = 2 * hour;
    for (let n = 0; n < 3; n += 1)
      t.same(rulesOf(await askLease(vault, 'n8n', [{ id }])), [
        '/credentials/0 refreshUnavailable',
      ]);
    t.equal(tried(), 2);
    vault.clock.ms += 1_500;
    t.same(rulesOf(await askLease(vault, 'n8n', [{ id }])), ['/credentials/0 refreshUnavailable']);
    t.equal(tried(), 2, 'the second pause is longer');
    t.match(await connectionOf(stage, id), { state: 'connected', reason: null });
    t.same(await problemsOf(stage, id), []);
    server.behaviour.status = undefined;
    vault.clock.ms += 5_000;
    t.equal((await leaseFields(stage, id))['accessToken'], server.given.accessTokens.at(-1));
  },
);

t.test('who dies between the provider and the database leaves a claim that ends', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  const { id } = await storeOAuth(stage, 'sheets');
  await connect(stage, id);
  vault.clock.ms += 2 * hour;
  const at = new Date(Date.now() + vault.clock.ms);
  await sql`update oauth_token set claim_id = gen_random_uuid(), claimed_until = ${new Date(at.getTime() + 30_000)}`.execute(
    vault.db,
  );
  const waiting = askLease(vault, 'n8n', [{ id }]);
  await until(async () => true);
  vault.clock.ms += 31_000;
  t.equal((await waiting).status, 201, 'somebody else claims it when it is over');
  t.equal(server.asked['refresh_token'], 1);
  // The answer was lost, and the refresh token was good once: that is seen, and a person connects
  // again.
  await server.revoke();
  vault.clock.ms += 2 * hour;
  t.same(rulesOf(await askLease(vault, 'n8n', [{ id }])), ['/credentials/0 refreshFailed']);
  t.match(await connectionOf(stage, id), { reason: 'invalid_grant' });
});

t.test(
  'what a provider answers is not lost because the database is busy, and not written over what came meanwhile',
  async (t) => {
    const server = await startAuthorizationServer(t);
    const stage = await oauthStage(t, server);
    const { vault } = stage;
    const { id } = await storeOAuth(stage, 'sheets');
    await connect(stage, id);
    vault.clock.ms += 2 * hour;
    // What a sequence counts stays counted when the transaction goes.
    await sql`create sequence busy_times`.execute(vault.db);
    await sql`create function busy() returns trigger language plpgsql as $$ begin if nextval('busy_times') <= 2 then raise exception 'busy' using errcode = '53300'; end if; return new; end $$`.execute(
      vault.db,
    );
    await sql`create trigger busy before update of sequence on oauth_token for each row execute function busy()`.execute(
      vault.db,
    );
    t.equal((await leaseFields(stage, id))['accessToken'], server.given.accessTokens.at(-1));
    t.equal(server.asked['refresh_token'], 1, 'the provider was asked once');
    await sql`drop trigger busy on oauth_token`.execute(vault.db);

    vault.clock.ms += 2 * hour;
    const callback = callbackOf(await server.visit((await begin(stage, id)).authorizationUrl));
    server.behaviour.onToken = async () => {
      server.behaviour.onToken = undefined;
      await demand(vault.call('alice', 'POST', '/v1/oauth/callbacks', callback), 200);
    };
    const fields = await leaseFields(stage, id);
    const kept = (await leaseFields(stage, id))['accessToken'];
    t.equal(fields['accessToken'], kept, 'the caller gets the stored token');
    t.equal(
      kept,
      server.given.accessTokens.at(-2),
      "which is what the person's connection brought",
    );
    t.equal(
      (await vault.db.selectFrom('oauth_token').select('sequence').executeTakeFirstOrThrow())
        .sequence,
      3,
      'the connection of a person stands, the refresh of before is dropped',
    );
  },
);

t.test('the client asks for itself, and again when its token is over', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { id } = await storeOAuth(stage, 'by itself', {
    grant: 'clientCredentials',
    authorizationUrl: undefined,
    scope: undefined,
    parameters: undefined,
  });
  t.match(await connectionOf(stage, id), {
    state: 'connected',
    isRefreshable: true,
    validUntil: null,
  });
  for (let round = 0; round < 3; round += 1) {
    const all = await Promise.all(Array.from({ length: 10 }, () => leaseFields(stage, id)));
    t.ok(all.every(({ accessToken }) => accessToken === server.given.accessTokens[round]));
    t.equal(server.asked['client_credentials'], round + 1);
    stage.vault.clock.ms += 2 * hour;
  }
  refuse(server, 401, 'invalid_client');
  t.same(rulesOf(await askLease(stage.vault, 'n8n', [{ id }])), ['/credentials/0 refreshFailed']);
  t.same(await problemsOf(stage, id), ['refreshFailed']);
});

t.test('an access token that ends without a refresh token is a problem by itself', async (t) => {
  const server = await startAuthorizationServer(t, {
    configuration: { issueRefreshToken: async () => false },
  });
  const stage = await oauthStage(t, server);
  const { id } = await storeOAuth(stage, 'sheets');
  t.match(await connect(stage, id), { state: 'connected', isRefreshable: false });
  stage.vault.clock.ms = hour - 30_000;
  t.equal(
    (await leaseFields(stage, id))['accessToken'],
    server.given.accessTokens[0],
    'to the end',
  );
  stage.vault.clock.ms = hour + 1_000;
  t.same(await problemsOf(stage, id), ['refreshFailed']);
  t.match(await connectionOf(stage, id), { state: 'refreshFailed', reason: 'no_refresh_token' });
  t.same(rulesOf(await askLease(stage.vault, 'n8n', [{ id }])), ['/credentials/0 refreshFailed']);
});

t.test(
  'a stored token that does not open is named once, and connecting again heals it',
  async (t) => {
    const server = await startAuthorizationServer(t);
    const stage = await oauthStage(t, server);
    const { vault } = stage;
    const { id } = await storeOAuth(stage, 'sheets');
    const { id: other } = await storeOAuth(stage, 'other');
    for (const each of [id, other]) await connect(stage, each);
    for (const [what, bend] of [
      [
        'the token of another credential',
        `token = (select token from oauth_token where credential_id = '${other}')`,
      ],
      ['another sequence', 'sequence = sequence + 1'],
      [
        'a policy as wide as is wished',
        `policy = '{"delivery":["lease","broker"],"allowedHosts":["evil.test"]}'`,
      ],
      [
        'the token of a version',
        `token = (select token from credential_version where credential_id = '${id}')`,
      ],
    ] as const) {
      await intrude(vault.db, `update oauth_token set ${bend} where credential_id = '${id}'`);
      for (let n = 0; n < 2; n += 1)
        t.same(
          rulesOf(await askLease(vault, 'n8n', [{ id }])),
          ['/credentials/0 refreshFailed'],
          what,
        );
      t.match(await connectionOf(stage, id), { reason: 'undecryptable' });
      await connect(stage, id);
      t.ok((await leaseFields(stage, id))['accessToken'], 'healed');
    }
    const named = await vault.db
      .selectFrom('audit_event')
      .select(['reason', 'key_id'])
      .where('action', '=', 'oauth.refresh')
      .where('reason', '=', 'undecryptable')
      .execute();
    t.equal(named.length, 4);
    t.ok(named.every(({ key_id }) => key_id !== null));
    t.equal(
      (await leaseFields(stage, other))['accessToken'],
      server.given.accessTokens[1],
      'the other one is as it was',
    );
  },
);
