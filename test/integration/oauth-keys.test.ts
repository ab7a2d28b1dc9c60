// Stored tokens in the life of a team's keys, in changes of their credential, and wherever a secret
// could slip out.
import { sql } from 'kysely';
import t from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { verifyAll } from '../../src/integrity/verify.ts';
import { Retention } from '../../src/retention/service.ts';
import { clientSecret, startAuthorizationServer } from '../helpers/authorization-server.ts';
import { commandLines, everyColumn, formsOf, type Haystack, seek } from '../helpers/canary.ts';
import { intrude } from '../helpers/intruder.ts';
import { askLease, demand, rulesOf } from '../helpers/leases.ts';
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

const hour = 3_600_000;
const any = { 'if-match': '*' };
const patch = ({ vault }: OAuthStage, id: string, body: object): Promise<any> =>
  demand(vault.call('alice', 'PATCH', `/v1/credentials/${id}`, body, any), 200);
const problemsOf = async ({ vault }: OAuthStage, id: string): Promise<string[]> =>
  (await demand(vault.call('alice', 'GET', `/v1/credentials/${id}`), 200)).problems;
const keysOf = async ({ vault }: OAuthStage): Promise<any[]> =>
  (await demand(vault.call('alice', 'GET', '/v1/teams/payments/keys'), 200)).items;
const findings = async ({ vault }: OAuthStage): Promise<object[]> => {
  const found: object[] = [];
  await verifyAll(vault, {
    onFinding: (finding) => {
      found.push(finding);
    },
    isStopping: () => false,
  });
  return found;
};
async function rotate({ vault }: OAuthStage): Promise<any> {
  const { id } = await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);
  return until(async () => {
    const rotation = await demand(
      vault.call('alice', 'GET', `/v1/teams/payments/key-rotations/${id}`),
      200,
    );
    return rotation.state !== 'running' && rotation;
  });
}

t.test(
  'a key that stored tokens are under is not retired; a rotation takes them along, and refreshes go on meanwhile',
  async (t) => {
    const server = await startAuthorizationServer(t);
    const stage = await oauthStage(t, server);
    const { vault } = stage;
    const { id } = await storeOAuth(stage, 'sheets');
    await connect(stage, id);
    const before = await vault.db
      .selectFrom('oauth_token')
      .select(['sequence', 'data_key_id', 'token', 'key_history'])
      .executeTakeFirstOrThrow();
    const [first] = await keysOf(stage);
    t.equal(first.rows, 2, 'a version and the stored token set');
    const begun = await demand(
      vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'),
      202,
    );
    // Nobody moves yet: under the demoted key a token still opens, and a refresh writes under the
    // next one.
    t.equal((await leaseFields(stage, id))['accessToken'], server.given.accessTokens[0]);
    t.match(
      (await vault.call('alice', 'POST', `/v1/teams/payments/keys/${first.id}/retire`)).json,
      { code: 'keyInUse', rows: { credential_version: 1, oauth_token: 1 } },
    );
    vault.start();
    await until(
      async () =>
        (
          await demand(
            vault.call('alice', 'GET', `/v1/teams/payments/key-rotations/${begun.id}`),
            200,
          )
        ).state === 'completed',
    );
    t.equal((await keysOf(stage))[1].rows, 0);
    const after = await vault.db
      .selectFrom('oauth_token')
      .select(['sequence', 'data_key_id', 'token', 'key_history'])
      .executeTakeFirstOrThrow();
    t.equal(after.sequence, before.sequence, 'the same value');
    t.not(after.token, before.token);
    t.same(after.key_history, [before.data_key_id, after.data_key_id]);
    await demand(vault.call('alice', 'POST', `/v1/teams/payments/keys/${first.id}/retire`), 200);
    t.equal((await leaseFields(stage, id))['accessToken'], server.given.accessTokens[0]);

    server.behaviour.delayMs = 300;
    for (let round = 1; round <= 3; round += 1) {
      vault.clock.ms += 2 * hour;
      const [fields, rotation] = await Promise.all([leaseFields(stage, id), rotate(stage)]);
      t.equal(fields['accessToken'], server.given.accessTokens[round]);
      t.equal(rotation.state, 'completed');
      t.equal(
        (await leaseFields(stage, id))['accessToken'],
        server.given.accessTokens[round],
        'what was got while the key went is under the next one',
      );
    }
    t.same(await findings(stage), []);
  },
);

t.test('a compromised key exposes what was held under it, until it is another value', async (t) => {
  const server = await startAuthorizationServer(t, {
    configuration: { rotateRefreshToken: false },
  });
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  vault.start();
  const { id } = await storeOAuth(stage, 'sheets');
  await connect(stage, id);
  const [first] = await keysOf(stage);
  await demand(
    vault.call('alice', 'POST', `/v1/teams/payments/keys/${first.id}/mark-compromised`, {
      reason: 'a test',
    }),
    200,
  );
  await until(async () => (await keysOf(stage))[1].rows === 0);
  await patch(stage, id, { fields: { clientSecret } });
  t.same(
    await problemsOf(stage, id),
    ['exposed'],
    'the version is another one, the stored token is not',
  );
  await demand(
    vault.call('alice', 'PATCH', '/v1/teams/payments', { refuseExposedLeases: true }, any),
    200,
  );
  t.same(rulesOf(await askLease(vault, 'n8n', [{ id }])), ['/credentials/0 exposed']);
  await demand(
    vault.call('alice', 'PATCH', '/v1/teams/payments', { refuseExposedLeases: false }, any),
    200,
  );
  server.behaviour.keepsRefreshToken = true;
  vault.clock.ms += 2 * hour;
  await leaseFields(stage, id);
  t.same(
    await problemsOf(stage, id),
    ['exposed'],
    'the refresh token is still the one that was under it',
  );
  await connect(stage, id);
  t.same(await problemsOf(stage, id), [], 'connected again, it is gone');
});

t.test(
  'what does not open is named by a rotation and by verify, and blocks the key until it is replaced',
  async (t) => {
    const server = await startAuthorizationServer(t);
    const stage = await oauthStage(t, server);
    const { vault } = stage;
    vault.start();
    const { id } = await storeOAuth(stage, 'sheets');
    await connect(stage, id);
    await intrude(vault.db, `update oauth_token set token = overlay(token placing 'AAAA' from 60)`);
    t.same(await findings(stage), [{ table: 'oauth_token', row: id, fault: 'tokenDoesNotOpen' }]);
    const rotation = await rotate(stage);
    t.match(rotation, {
      state: 'completedWithFailures',
      failed: 1,
      failures: [{ credential: id, version: null }],
    });
    const [, old] = await keysOf(stage);
    t.match((await vault.call('alice', 'POST', `/v1/teams/payments/keys/${old.id}/retire`)).json, {
      code: 'keyInUse',
      rows: { oauth_token: 1 },
    });
    t.same(await problemsOf(stage, id), ['refreshFailed']);
    t.match(
      await vault.db
        .selectFrom('audit_event')
        .select(['target_id', 'details'])
        .where('action', '=', 'key.rotationRowFailed')
        .execute(),
      [{ target_id: id, details: { table: 'oauth_token' } }],
    );
    await connect(stage, id);
    await demand(vault.call('alice', 'POST', `/v1/teams/payments/keys/${old.id}/retire`), 200);
    t.same(await findings(stage), []);
  },
);

t.test('past the service, the table keeps what it is', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  const { id } = await storeOAuth(stage, 'sheets');
  await connect(stage, id);
  const [first] = await keysOf(stage);
  await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);
  const refusal = (statement: string): Promise<string> =>
    sql
      .raw(statement)
      .execute(vault.db)
      .then(
        () => 'done',
        (error: { constraint?: string }) => error.constraint ?? String(error),
      );
  for (const [statement, constraint] of [
    [
      `update oauth_token set token = token || 'A', data_key_id = '${first.id}'`,
      'token_needs_active_key',
    ],
    [`update oauth_token set sequence = sequence - 1`, 'oauth_token_keeps_its_place'],
    [`update oauth_token set client = '{}'`, 'oauth_token_keeps_its_place'],
    [`update oauth_token set policy = '{}'`, 'oauth_token_keeps_its_place'],
    [
      `update oauth_token set key_history = array[gen_random_uuid()]`,
      'oauth_token_keeps_its_place',
    ],
    [`update oauth_token set token = null, data_key_id = null`, 'oauth_token_keeps_its_place'],
    [`update oauth_token set token = 'plain', sequence = sequence + 1`, 'token_needs_active_key'],
    [`update oauth_token set token = null, sequence = sequence + 1`, 'oauth_token_under_a_key'],
    [
      `update oauth_token set failure = 'their own words', failed_at = now()`,
      'oauth_token_failure_known',
    ],
    [
      `update data_key set state = 'retired', retired_at = now() where id = '${first.id}'`,
      'data_key_in_use',
    ],
  ] as const)
    t.equal(await refusal(statement), constraint, statement);
  await intrude(
    vault.db,
    `update credential_version set data_key_id = (select id from data_key where state = 'active')`,
  );
  t.equal(
    await refusal(
      `update data_key set state = 'retired', retired_at = now() where id = '${first.id}'`,
    ),
    'data_key_in_use',
    'with nothing but a stored token under it',
  );
});

t.test(
  'stored tokens end with their client and with a narrower policy, and with nothing else',
  async (t) => {
    const server = await startAuthorizationServer(t);
    const stage = await oauthStage(t, server);
    const { vault } = stage;
    const { id } = await storeOAuth(
      stage,
      'sheets',
      {},
      { policy: { delivery: ['lease'], allowedHosts: ['a.test', 'b.test'] } },
    );
    const isConnected = async (): Promise<boolean> =>
      (await demand(vault.call('alice', 'GET', `/v1/credentials/${id}/oauth`), 200)).state ===
        'connected' && (await askLease(vault, 'n8n', [{ id }])).status === 201;
    const secret = { clientSecret };
    await connect(stage, id);
    for (const [what, body] of [
      ['a name', { name: 'renamed' }],
      ['a narrower policy', { policy: { delivery: ['lease'], allowedHosts: ['a.test'] } }],
      ['the client secret', { fields: secret }],
      ['how the client says who it is', { fields: { clientAuthentication: 'header' } }],
      ['labels', { labels: { a: 'b' } }],
    ] as const) {
      await patch(stage, id, body);
      t.ok(await isConnected(), `${what}: stays`);
    }
    for (const [what, body] of [
      ['another token URL', { fields: { ...secret, tokenUrl: `${server.issuer}/token/` } }],
      ['the one from before', { fields: { ...secret, tokenUrl: `${server.issuer}/token` } }],
      ['another client', { fields: { clientId: 'public' } }],
      ['the client from before', { fields: { clientId: 'vault-client' } }],
      ['another scope', { fields: { scope: 'openid sheets offline_access' } }],
      ['other parameters', { fields: { ...secret, parameters: 'prompt=consent&a=b' } }],
      [
        'a host more',
        { fields: secret, policy: { delivery: ['lease'], allowedHosts: ['a.test', 'c.test'] } },
      ],
      [
        'a delivery more',
        {
          fields: secret,
          policy: { delivery: ['lease', 'broker'], allowedHosts: ['a.test', 'c.test'] },
        },
      ],
    ] as const) {
      await patch(stage, id, body);
      t.notOk(await isConnected(), `${what}: ends`);
      t.match(await demand(vault.call('alice', 'GET', `/v1/credentials/${id}/oauth`), 200), {
        state: 'notConnected',
        connectedAt: null,
      });
      if (what !== 'another token URL' && what !== 'another client') await connect(stage, id);
    }
    // And where a row was put back past the service, it counts for nothing.
    t.ok(await isConnected());
    const kept = await vault.db
      .selectFrom('oauth_token')
      .select(['token', 'data_key_id', 'sequence', 'client', 'policy'])
      .executeTakeFirstOrThrow();
    await patch(stage, id, { fields: { scope: 'openid' } });
    await intrude(
      vault.db,
      `update oauth_token set token = '${kept.token}', data_key_id = '${kept.data_key_id}', sequence = ${kept.sequence}`,
    );
    t.same(
      rulesOf(await askLease(vault, 'n8n', [{ id }])),
      ['/credentials/0 notConnected'],
      'another client',
    );
    await patch(stage, id, { fields: { scope: 'openid sheets offline_access' } });
    await intrude(
      vault.db,
      `update oauth_token set token = '${kept.token}', data_key_id = '${kept.data_key_id}', sequence = ${kept.sequence}`,
    );
    t.ok(await isConnected(), 'the same client and policy: it is what it was');
    await patch(stage, id, {
      fields: { clientSecret },
      policy: { delivery: ['lease', 'broker'], allowedHosts: ['a.test', 'c.test', 'd.test'] },
    });
    await intrude(
      vault.db,
      `update oauth_token set token = '${kept.token}', data_key_id = '${kept.data_key_id}', sequence = ${kept.sequence}`,
    );
    t.same(
      rulesOf(await askLease(vault, 'n8n', [{ id }])),
      ['/credentials/0 notConnected'],
      'a narrower policy than now',
    );
  },
);

t.test(
  'tokens to start with count until there are others, and again when others are sent',
  async (t) => {
    const server = await startAuthorizationServer(t);
    const stage = await oauthStage(t, server);
    const { vault } = stage;
    const { id: donor } = await storeOAuth(stage, 'donor');
    const grant = async (): Promise<{ accessToken: string; refreshToken: string }> => {
      await connect(stage, donor);
      return {
        accessToken: server.given.accessTokens.at(-1)!,
        refreshToken: server.given.refreshTokens.at(-1)!,
      };
    };
    const start = await grant();
    const { id } = await storeOAuth(stage, 'imported', {
      ...start,
      expiresAt: new Date(Date.now() + hour).toISOString(),
    });
    const stateOf = (): Promise<any> =>
      demand(vault.call('alice', 'GET', `/v1/credentials/${id}/oauth`), 200);
    t.match(await stateOf(), { state: 'connected', isRefreshable: true, connectedAt: null });
    t.match(await leaseFields(stage, id), { accessToken: start.accessToken });
    t.notOk('refreshToken' in (await leaseFields(stage, id)));
    t.equal(
      (
        await vault.db
          .selectFrom('oauth_token')
          .select('credential_id')
          .where('credential_id', '=', id as never)
          .execute()
      ).length,
      0,
      'nothing is copied before it has to be',
    );
    vault.clock.ms += 2 * hour;
    t.equal(
      (await leaseFields(stage, id))['accessToken'],
      server.given.accessTokens.at(-1),
      'made new with the refresh token that came along',
    );
    t.equal(server.asked['refresh_token'], 1);
    vault.clock.ms += 2 * hour;
    t.equal(
      (await leaseFields(stage, id))['accessToken'],
      server.given.accessTokens.at(-1),
      'and then with the one that the provider gave',
    );
    await patch(stage, id, { fields: { clientSecret } });
    t.equal(
      (await leaseFields(stage, id))['accessToken'],
      server.given.accessTokens.at(-1),
      'another version keeps the stored token set',
    );
    const next = await grant();
    await patch(stage, id, {
      fields: { ...next, expiresAt: new Date(Date.now() + vault.clock.ms + hour).toISOString() },
    });
    t.equal(
      (await leaseFields(stage, id))['accessToken'],
      next.accessToken,
      'tokens that are sent count from now on',
    );
    vault.clock.ms += 2 * hour;
    t.equal((await leaseFields(stage, id))['accessToken'], server.given.accessTokens.at(-1));
    await patch(stage, id, { fields: { accessToken: null, refreshToken: null, expiresAt: null } });
    t.match(await stateOf(), { state: 'notConnected' });
    t.same(
      rulesOf(await askLease(vault, 'n8n', [{ id }])),
      ['/credentials/0 notConnected'],
      'cleared is cleared',
    );

    for (const type of ['googleSheets', 'bigquery']) {
      const body = {
        name: type,
        type,
        fields: {
          clientId: 'c',
          clientSecret: 's',
          accessToken: 'ya29.start',
          refreshToken: '1//start',
          tokenExpiry: new Date(Date.now() + vault.clock.ms + hour).toISOString(),
        },
      };
      const { id: google } = await demand(
        vault.call('alice', 'POST', '/v1/teams/payments/credentials', body),
        201,
      );
      const fields = await leaseFields(stage, google);
      t.match(fields, {
        clientId: 'c',
        accessToken: 'ya29.start',
        tokenExpiry: body.fields.tokenExpiry,
      });
      t.same(Object.keys(fields).sort(), [
        'accessToken',
        'authorizationUrl',
        'clientAuthentication',
        'clientId',
        'provider',
        'providerParameters',
        'providerRevision',
        'tokenExpiry',
        'tokenUrl',
      ]);
      const { authorizationUrl } = await begin(stage, google);
      t.match(Object.fromEntries(new URL(authorizationUrl).searchParams), {
        access_type: 'offline',
        prompt: 'consent',
        code_challenge_method: 'S256',
        client_id: 'c',
      });
      t.equal(new URL(authorizationUrl).origin, 'https://accounts.google.com');
      vault.clock.ms += 2 * hour;
      t.same(
        rulesOf(await askLease(vault, 'n8n', [{ id: google }])),
        ['/credentials/0 refreshUnavailable'],
        'the provider is not to be reached from here',
      );
    }
  },
);

t.test('versions put back, credentials destroyed, authorizations never answered', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  const { id } = await storeOAuth(stage, 'sheets');
  await connect(stage, id);
  await patch(stage, id, { fields: { clientSecret: 'another one' } });
  await demand(vault.call('alice', 'POST', `/v1/credentials/${id}/versions/1/restore`), 200);
  t.equal(
    (await askLease(vault, 'n8n', [{ id }])).status,
    201,
    'the same client: the stored token set stays',
  );
  await patch(stage, id, { fields: { scope: 'openid' } });
  await connect(stage, id);
  await demand(vault.call('alice', 'POST', `/v1/credentials/${id}/versions/1/restore`), 200);
  t.match(await demand(vault.call('alice', 'GET', `/v1/credentials/${id}/oauth`), 200), {
    state: 'notConnected',
  });
  t.same(
    rulesOf(await askLease(vault, 'n8n', [{ id }])),
    ['/credentials/0 notConnected'],
    'what was held for another client does not come back',
  );
  await connect(stage, id);
  await begin(stage, id);
  await demand(vault.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any), 204);
  await demand(vault.call('alice', 'POST', `/v1/credentials/${id}/restore`), 200);
  t.equal(
    (await askLease(vault, 'n8n', [{ id }])).status,
    201,
    'deleted and restored, it is as it was',
  );
  const { id: other } = await storeOAuth(stage, 'other');
  await begin(stage, other);
  await demand(vault.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any), 204);
  const clean = (ms: number): Promise<void> => {
    vault.clock.ms = ms;
    return new Retention({
      db: vault.db,
      audit: new AuditLog({
        db: vault.db,
        keyring: vault.keyring,
        now: vault.databaseClock.now,
        onError: (error) => {
          throw error;
        },
        onAlarm: () => undefined,
      }),
      clock: vault.databaseClock,
      onError: (error) => {
        throw error;
      },
    }).run();
  };
  const counts = async (): Promise<number[]> =>
    Promise.all(
      (['oauth_token', 'oauth_authorization'] as const).map(
        async (table) =>
          (await vault.db.selectFrom(table).select('credential_id').execute()).length,
      ),
    );
  t.same(await counts(), [1, 2]);
  await clean(5 * 60_000);
  t.same(await counts(), [1, 2]);
  await clean(11 * 60_000);
  t.same(await counts(), [1, 0]);
  await clean(31 * 24 * hour);
  t.same(await counts(), [0, 0]);
});

t.test('no token, no code, no state, no secret comes out anywhere', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  vault.start();
  const { id } = await storeOAuth(stage, 'sheets');
  const { authorizationUrl } = await begin(stage, id);
  const came = await server.visit(authorizationUrl);
  const sought = [clientSecret, came['code']!, came['state']!];
  const started = vault.answers.length;
  await demand(vault.call('alice', 'POST', '/v1/oauth/callbacks', callbackOf(came)), 200);
  await vault.call('alice', 'POST', '/v1/oauth/callbacks', callbackOf(came));
  await vault.call('alice', 'POST', '/v1/oauth/callbacks', {
    ...callbackOf(came),
    more: came['code'],
  });
  for (let round = 0; round < 2; round += 1) {
    vault.clock.ms += 2 * hour;
    await leaseFields(stage, id);
  }
  for (const [status, body] of [
    [400, { error: 'invalid_scope', error_description: clientSecret }],
    [
      200,
      {
        access_token: server.given.accessTokens.at(-1),
        refresh_token: 'x',
        token_type: 'strange',
        more: clientSecret,
      },
    ],
    [500, {}],
  ] as const) {
    Object.assign(server.behaviour, { status, body: JSON.stringify(body) });
    vault.clock.ms += 2 * hour;
    await askLease(vault, 'n8n', [{ id }]);
    await vault.call(
      'alice',
      'POST',
      '/v1/oauth/callbacks',
      callbackOf(await server.visit((await begin(stage, id)).authorizationUrl)),
    );
    await patch(stage, id, { fields: { clientSecret } });
  }
  server.behaviour.status = undefined;
  await rotate(stage);
  for (const url of [
    `/v1/credentials/${id}`,
    `/v1/credentials/${id}/oauth`,
    `/v1/credentials/${id}/versions`,
    '/v1/teams/payments/audit-events?limit=200',
  ])
    t.equal((await vault.call('alice', 'GET', url)).status, 200, url);
  const haystacks: Haystack[] = [
    ...vault.answers.slice(started).map((text, index) => ({ place: `answer ${index}`, text })),
    ...vault.logs.map((text, index) => ({ place: `log line ${index}`, text })),
    ...(await everyColumn(vault.db)),
    commandLines(),
  ];
  for (const secret of [...sought, ...server.given.accessTokens, ...server.given.refreshTokens])
    t.same(seek(formsOf(secret), haystacks), [], 'a secret is nowhere');
  t.ok(seek(formsOf('vault-client'), haystacks).length > 0, 'the search finds what is there');
});
