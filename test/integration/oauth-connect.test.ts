// Connecting an account by authorization code, against a real authorization server.
import { createHash, randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import t from 'tap';
import { startAuthorizationServer } from '../helpers/authorization-server.ts';
import { intrude } from '../helpers/intruder.ts';
import { askLease, demand, rulesOf } from '../helpers/leases.ts';
import {
  begin,
  callbackOf,
  connect,
  leaseFields,
  oauthStage,
  storeOAuth,
} from '../helpers/oauth.ts';
import { until } from '../helpers/processes.ts';
import { countWaiting } from '../helpers/tokens.ts';
import type { Answer } from '../helpers/vault.ts';

t.test(
  'an account is connected, and an engine gets an access token and nothing else',
  async (t) => {
    const server = await startAuthorizationServer(t);
    const stage = await oauthStage(t, server);
    const { vault, engine } = stage;
    const made = await storeOAuth(stage, 'sheets');
    t.same(made.problems, ['notConnected'], 'the answer that stores it says so');
    const { id, revision } = made;
    t.same(rulesOf(await askLease(vault, engine.sub, [{ id }])), ['/credentials/0 notConnected']);
    t.match((await vault.call('alice', 'GET', `/v1/credentials/${id}/oauth`)).json, {
      state: 'notConnected',
      reason: null,
    });
    // As a problem: of the credential, of a list's filter, of the team's counts.
    const notConnected = async (): Promise<unknown[]> => [
      `health ${(await vault.call('alice', 'GET', `/v1/credentials/${id}`)).json.health}`,
      (await vault.call('alice', 'GET', '/v1/credentials?problem=notConnected')).json.items[0]?.id,
      (await vault.call('alice', 'GET', '/v1/teams/payments/problems')).json.problems.notConnected,
    ];
    t.same(await notConnected(), ['health notConnected', id, 1]);
    const { authorizationUrl } = await begin(stage, id);
    const url = new URL(authorizationUrl);
    t.match(Object.fromEntries(url.searchParams), {
      response_type: 'code',
      code_challenge_method: 'S256',
      prompt: 'consent',
      scope: 'openid offline_access',
      client_id: 'vault-client',
    });
    const callback = callbackOf(await server.visit(authorizationUrl));
    const answer = await vault.call('alice', 'POST', '/v1/oauth/callbacks', callback);
    t.equal(answer.status, 200, answer.text);
    t.match(answer.json, {
      credential: id,
      state: 'connected',
      reason: null,
      isRefreshable: true,
      connectedBy: 'alice',
    });
    t.same(server.asked, { authorization_code: 1 });
    const fields = await leaseFields(stage, id);
    t.equal(fields['accessToken'], server.given.accessTokens[0]);
    t.notOk(
      'refreshToken' in fields || 'clientSecret' in fields,
      'neither refresh token nor client secret',
    );
    t.match(fields, { tokenUrl: `${server.issuer}/token`, expiresAt: /Z$/ });
    t.match(
      (await askLease(vault, engine.sub, [{ id, knownVersion: 1 }])).json.credentials,
      [{ notModified: false }],
      'access tokens come and go without a version',
    );
    const after = await vault.call('alice', 'GET', `/v1/credentials/${id}`);
    t.equal(after.json.revision, revision, 'no ETag changes by it');
    t.equal(after.json.version, 1, 'and there is no other version');
    t.same(after.json.problems, []);
    t.same(await notConnected(), ['health ok', undefined, 0]);
    t.equal(
      (await vault.call('alice', 'POST', '/v1/oauth/callbacks', callback)).json.code,
      'oauthStateInvalid',
      'a state is good once',
    );
  },
);

t.test('a state is good once, in time, for who began it, and as it was begun', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  const { id } = await storeOAuth(stage, 'sheets');
  const { id: other } = await storeOAuth(stage, 'other');
  const send = (as: string, callback: object): Promise<Answer> =>
    vault.call(as, 'POST', '/v1/oauth/callbacks', callback);
  const come = async (as = 'alice'): Promise<Record<string, string>> =>
    server.visit((await begin(stage, id, as)).authorizationUrl);
  const refused = (answer: Answer, why: string): void => {
    t.equal(answer.json.code, 'oauthStateInvalid', `${why}: ${answer.text}`);
  };

  const came = await come();
  const bytes = Buffer.from(came['state']!, 'base64url');
  refused(
    await send('alice', callbackOf({ ...came, state: randomBytes(48).toString('base64url') })),
    'a state that nobody made',
  );
  refused(
    await send(
      'alice',
      callbackOf({
        ...came,
        state: Buffer.concat([bytes.subarray(0, 16), randomBytes(32)]).toString('base64url'),
      }),
    ),
    'the id of one with another half',
  );
  refused(await send('eddie', callbackOf(came)), 'somebody else, who may write the credential too');
  refused(await send('operator', callbackOf(came)), 'the operator');
  t.same(server.asked, {}, 'the provider was not asked once');
  // Both have found it, and stand before it, when the first one takes it.
  const twice = await vault.db
    .transaction()
    .execute(async (trx) => {
      await sql`select 1 from oauth_authorization for update`.execute(trx);
      const all = [send('alice', callbackOf(came)), send('alice', callbackOf(came))];
      await until(async () => (await countWaiting(trx)) >= 2);
      return all;
    })
    .then((all) => Promise.all(all));
  t.same(twice.map(({ status }) => status).sort(), [200, 400], 'of two at once one gets through');
  t.same(server.asked, { authorization_code: 1 });

  const late = await come();
  vault.clock.ms += 10 * 60_000 + 1;
  refused(await send('alice', callbackOf(late)), 'after ten minutes');
  vault.clock.ms = 0;
  for (const [what, bend] of [
    ['another credential', `credential_id = '${other}'`],
    ['another person', `subject_id = (select id from subject where sub = 'eddie')`],
    ['more time', `expires_at = expires_at + interval '1 day'`],
    ['another page', `redirect_uri = 'https://evil.test/'`],
    ['another client', `client = client || '{"tokenUrl":"https://evil.test/token"}'`],
    ['another salt', `salt = '\\x00'`],
  ] as const) {
    const tampered = await come();
    await intrude(vault.db, `update oauth_authorization set ${bend}`);
    refused(
      await send(what === 'another person' ? 'eddie' : 'alice', callbackOf(tampered)),
      `${what} written into the row`,
    );
    await intrude(vault.db, 'delete from oauth_authorization');
  }
  t.same(server.asked, { authorization_code: 1 }, 'none of them reached the provider');
  const denials = await vault.db
    .selectFrom('audit_event')
    .select('reason')
    .where('target_type', '=', 'authorization')
    .execute();
  for (const reason of ['stateExpired', 'stateOfAnother', 'stateUnknown'])
    t.ok(
      denials.some((each) => each.reason === reason),
      `${reason} stands in the audit log`,
    );
});

t.test('the right counts when it ends as well as when it began', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  const { id } = await storeOAuth(stage, 'sheets');
  const come = async (): Promise<object> =>
    callbackOf(await server.visit((await begin(stage, id, 'eddie')).authorizationUrl));
  const demoted = await come();
  await vault.member('payments', 'eddie', 'viewer');
  t.equal(
    (await vault.call('eddie', 'POST', '/v1/oauth/callbacks', demoted)).json.code,
    'forbidden',
  );
  await vault.member('payments', 'eddie', 'editor');
  const removed = await come();
  await demand(
    vault.call('alice', 'DELETE', '/v1/teams/payments/members/eddie', undefined, {
      'if-match': '*',
    }),
    204,
  );
  t.equal(
    (await vault.call('eddie', 'POST', '/v1/oauth/callbacks', removed)).json.code,
    'notFound',
  );
  await vault.member('payments', 'eddie', 'editor');
  const changed = await come();
  await demand(
    vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { fields: { scope: 'openid sheets' } },
      { 'if-match': '*' },
    ),
    200,
  );
  t.equal(
    (await vault.call('eddie', 'POST', '/v1/oauth/callbacks', changed)).json.code,
    'stateConflict',
    'the client has changed',
  );
  const deleted = await come();
  await demand(
    vault.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, { 'if-match': '*' }),
    204,
  );
  t.equal(
    (await vault.call('eddie', 'POST', '/v1/oauth/callbacks', deleted)).json.code,
    'notFound',
  );
  t.same(server.asked, {}, 'the provider was never asked');
});

t.test('an answer that is not of this provider, or is none, connects nothing', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  const { id } = await storeOAuth(stage, 'strict');
  const { id: lax } = await storeOAuth(stage, 'lax', { issuer: undefined });
  const send = async (
    of: string,
    change: (came: Record<string, string>) => Record<string, string>,
  ): Promise<Answer> =>
    vault.call(
      'alice',
      'POST',
      '/v1/oauth/callbacks',
      callbackOf(change(await server.visit((await begin(stage, of)).authorizationUrl))),
    );
  const without = (came: Record<string, string>): Record<string, string> => {
    const { iss: _, ...rest } = came;
    return rest;
  };
  for (const [what, reason, answer] of [
    [
      'another issuer',
      'issuerMismatch',
      await send(id, (came) => ({ ...came, iss: 'https://evil.test' })),
    ],
    ['none where one is named', 'issuerMissing', await send(id, without)],
    [
      'another where none is named',
      'issuerMismatch',
      await send(lax, (came) => ({ ...came, iss: 'https://evil.test' })),
    ],
    [
      'no URL where none is named',
      'issuerMismatch',
      await send(lax, (came) => ({ ...came, iss: 'nobody' })),
    ],
  ] as const)
    t.match(answer.json, { code: 'oauthRefused', reason }, what);
  t.same(server.asked, {}, 'no code went anywhere');
  t.equal((await send(lax, (came) => came)).status, 200, 'an issuer of the same origin');
  t.equal((await send(lax, without)).status, 200, 'none where none is named');
  t.match(
    (await send(id, (came) => ({ ...came, code: 'made up' }))).json,
    { code: 'oauthRefused', reason: 'invalid_grant' },
    'a code that nobody gave',
  );

  const aborted = await server.visit((await begin(stage, id)).authorizationUrl, {
    isAborted: true,
  });
  t.equal(aborted['error'], 'access_denied');
  t.match(
    (await vault.call('alice', 'POST', '/v1/oauth/callbacks', callbackOf(aborted))).json,
    { code: 'oauthRefused', reason: 'access_denied' },
    'the person said no',
  );
  t.equal(
    (await vault.call('alice', 'POST', '/v1/oauth/callbacks', callbackOf(aborted))).json.code,
    'oauthStateInvalid',
    'and that is over',
  );
  const odd = await server.visit((await begin(stage, id)).authorizationUrl);
  t.match(
    (
      await vault.call('alice', 'POST', '/v1/oauth/callbacks', {
        state: odd['state'],
        error: 'something_of_its_own',
      })
    ).json,
    { code: 'oauthRefused', reason: 'refused' },
  );
  for (const body of [{ state: odd['state'] }, { state: odd['state'], code: 'x', error: 'y' }])
    t.equal((await vault.call('alice', 'POST', '/v1/oauth/callbacks', body)).status, 400);
  t.match((await vault.call('alice', 'GET', `/v1/credentials/${id}/oauth`)).json, {
    state: 'notConnected',
  });
});

t.test('the verifier is demanded by the provider and stands in no column', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  const { id } = await storeOAuth(stage, 'sheets');
  const { authorizationUrl } = await begin(stage, id);
  const without = new URL(authorizationUrl);
  without.searchParams.delete('code_challenge');
  t.equal(
    (await server.visit(without.href))['error'],
    'invalid_request',
    'the server takes no authorization without a challenge',
  );
  const other = new URL(authorizationUrl);
  other.searchParams.set(
    'code_challenge',
    createHash('sha256').update('of somebody else').digest('base64url'),
  );
  const answer = await vault.call(
    'alice',
    'POST',
    '/v1/oauth/callbacks',
    callbackOf(await server.visit(other.href)),
  );
  t.match(
    answer.json,
    { code: 'oauthRefused', reason: 'invalid_grant' },
    'a code for another challenge',
  );
  const { authorizationUrl: second } = await begin(stage, id);
  const challenge = new URL(second).searchParams.get('code_challenge')!;
  const text = JSON.stringify(
    await vault.db
      .selectFrom('oauth_authorization')
      .select(['client', 'redirect_uri', 'state_hash', 'salt'])
      .execute(),
  );
  t.notOk(
    text.includes(challenge) || text.includes(new URL(second).searchParams.get('state')!),
    'neither challenge nor state is stored',
  );
});

t.test(
  'public clients, secrets in the body, reconnecting, and what cannot be connected',
  async (t) => {
    const server = await startAuthorizationServer(t);
    const stage = await oauthStage(t, server);
    const { vault } = stage;
    const open = await storeOAuth(stage, 'public', { clientId: 'public', clientSecret: undefined });
    const body = await storeOAuth(stage, 'body', {
      clientId: 'in-the-body',
      clientAuthentication: 'body',
    });
    for (const { id } of [open, body]) t.match(await connect(stage, id), { state: 'connected' });
    const first = (await leaseFields(stage, body.id))['accessToken'];
    await connect(stage, body.id, 'eddie');
    const second = (await leaseFields(stage, body.id))['accessToken'];
    t.not(second, first);
    t.equal(second, server.given.accessTokens.at(-1));
    t.match((await vault.call('alice', 'GET', `/v1/credentials/${body.id}/oauth`)).json, {
      connectedBy: 'eddie',
    });

    const { id: openai } = await demand(
      vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
        name: 'openai',
        type: 'openai',
        fields: { apiKey: 'sk' },
      }),
      201,
    );
    const { id: byItself } = await storeOAuth(stage, 'by itself', { grant: 'clientCredentials' });
    for (const id of [openai, byItself])
      t.equal(
        (await vault.call('alice', 'POST', `/v1/credentials/${id}/oauth/authorizations`)).json.code,
        'stateConflict',
      );
    const bare = await oauthStage(t, server, { oauthRedirectUri: undefined as never });
    const { id: lonely } = await storeOAuth(bare, 'sheets');
    t.equal(
      (await bare.vault.call('alice', 'POST', `/v1/credentials/${lonely}/oauth/authorizations`))
        .json.code,
      'oauthNotConfigured',
    );
  },
);

t.test('a provider that is not there, or says nothing that can be used', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  const { id } = await storeOAuth(stage, 'sheets');
  for (const [status, body] of [
    [500, ''],
    [302, ''],
    [200, 'no json'],
    [400, '{"error":"temporarily_unavailable"}'],
    [200, `"${'x'.repeat(300_000)}"`],
  ] as const) {
    Object.assign(server.behaviour, { status, body });
    const came = await server.visit((await begin(stage, id)).authorizationUrl);
    const answer = await vault.call('alice', 'POST', '/v1/oauth/callbacks', callbackOf(came));
    t.equal(answer.json.code, 'oauthUnavailable', `${status} ${body.slice(0, 30)}`);
  }
  for (const [body, reason] of [
    ['{"error":"bad_verification_code","error_description":"said with 200"}', 'refused'],
    ['{"token_type":"bearer"}', 'accessTokenMissing'],
    ['{"access_token":"a\\nb","token_type":"bearer"}', 'tokenForm'],
    ['{"access_token":"tok-0123456789","token_type":"DPoP"}', 'tokenType'],
  ] as const) {
    Object.assign(server.behaviour, { status: 200, body });
    const came = await server.visit((await begin(stage, id)).authorizationUrl);
    const answer = await vault.call('alice', 'POST', '/v1/oauth/callbacks', callbackOf(came));
    t.match(answer.json, { code: 'oauthRefused', reason }, body);
    t.notOk(answer.text.includes('0123456789'));
  }
  server.behaviour.status = undefined;
  const { id: nowhere } = await storeOAuth(stage, 'nowhere', {
    tokenUrl: 'https://nowhere.test/token',
  });
  t.equal(
    (
      await vault.call(
        'alice',
        'POST',
        '/v1/oauth/callbacks',
        callbackOf(await server.visit((await begin(stage, nowhere)).authorizationUrl)),
      )
    ).json.code,
    'oauthUnavailable',
  );
});
