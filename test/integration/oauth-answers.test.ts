// What providers answer, the whole way: stored before anything else is thought about it, refused
// where the endpoint refuses, tried again where it gives no answer.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import t, { type Test } from 'tap';
import {
  type AuthorizationServer,
  clientSecret,
  startAuthorizationServer,
} from '../helpers/authorization-server.ts';
import { askLease, demand, rulesOf } from '../helpers/leases.ts';
import {
  begin,
  callbackOf,
  connect,
  leaseFields,
  type OAuthStage,
  oauthStage,
  storeOAuth,
} from '../helpers/oauth.ts';

const hour = 3_600_000;
const cases = JSON.parse(
  readFileSync(join(import.meta.dirname, '../vectors/oauth/token-answers.json'), 'utf8'),
);

async function setStage(
  t: Test,
  fields: object = {},
): Promise<{ server: AuthorizationServer; stage: OAuthStage; id: string }> {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { id } = await storeOAuth(stage, 'account', fields);
  return { server, stage, id };
}
const connectionOf = ({ vault }: OAuthStage, id: string): Promise<any> =>
  demand(vault.call('alice', 'GET', `/v1/credentials/${id}/oauth`), 200);
const answerAs = ({ behaviour }: AuthorizationServer, status: number, body: unknown): void => {
  Object.assign(behaviour, {
    status,
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
};
/** Somebody does something: the failure is forgotten and the next use tries again. */
const touch = ({ vault }: OAuthStage, id: string): Promise<unknown> =>
  demand(
    vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { fields: { clientSecret } },
      { 'if-match': '*' },
    ),
    200,
  );

t.test('each grant of the cases is stored, and leased', async (t) => {
  const { server, stage } = await setStage(t);
  for (const [at, { name, status, body, right }] of cases.grants.entries()) {
    const isNested = body.authed_user !== undefined;
    const { id } = await storeOAuth(stage, `account ${at}`);
    server.behaviour.status = undefined;
    const came = await server.visit((await begin(stage, id)).authorizationUrl);
    answerAs(server, status, body);
    const answer = await stage.vault.call('alice', 'POST', '/v1/oauth/callbacks', callbackOf(came));
    if (isNested) {
      t.match(answer.json, { code: 'oauthRefused', reason: 'accessTokenMissing' }, name);
      continue;
    }
    t.equal(answer.status, 200, `${name}: ${answer.text}`);
    t.equal(
      (await leaseFields(stage, id))['accessToken'],
      right.accessToken ?? body.access_token,
      name,
    );
  }
});

t.test('what was issued is stored before anything else is thought about it', async (t) => {
  const { server, stage, id } = await setStage(t);
  await connect(stage, id);
  // Each refresh token here is good once: whoever drops one has lost the account.
  const dresses: readonly [string, NonNullable<AuthorizationServer['behaviour']['dress']>][] = [
    ['an odd kind', (issued) => ({ body: { ...issued, token_type: 'bot' } })],
    ['no kind', ({ token_type: _, ...issued }) => ({ body: issued })],
    ['a list of scopes', (issued) => ({ body: { ...issued, scope: ['a', 'b'] } })],
    ['201', (issued) => ({ status: 201, body: issued })],
    [
      'a form',
      (issued) => ({
        body: new URLSearchParams(issued as Record<string, string>).toString(),
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
      }),
    ],
    [
      'gzip with a mark',
      (issued) => ({
        body: gzipSync(`\ufeff${JSON.stringify(issued)}`),
        headers: { 'content-encoding': 'gzip', 'content-type': 'text/html' },
      }),
    ],
    ['an error besides', (issued) => ({ body: { ...issued, error: 'deprecated' } })],
  ];
  for (const [what, dress] of dresses) {
    server.behaviour.dress = dress;
    stage.vault.clock.ms += 2 * hour;
    t.equal((await leaseFields(stage, id))['accessToken'], server.given.accessTokens.at(-1), what);
  }
});

t.test('a good refresh token beside an access token that cannot be used survives', async (t) => {
  for (const [reason, spoil] of [
    ['tokenForm', { access_token: 'to\r\nken: 1' }],
    ['tokenForm', { access_token: 'x'.repeat(60_000) }],
    ['tokenType', { token_type: 'DPoP' }],
    ['accessTokenMissing', { access_token: undefined }],
  ] as const) {
    await t.test(`${reason} ${Object.keys(spoil).join()}`, async (t) => {
      const { server, stage, id } = await setStage(t);
      await connect(stage, id);
      server.behaviour.dress = (issued) => ({ body: { ...issued, ...spoil } });
      stage.vault.clock.ms += 2 * hour;
      t.same(rulesOf(await askLease(stage.vault, 'n8n', [{ id }])), [
        '/credentials/0 refreshFailed',
      ]);
      t.equal(server.asked['refresh_token'], 1);
      t.match(await connectionOf(stage, id), {
        state: 'refreshFailed',
        reason,
        isRefreshable: true,
      });
      const told = await stage.vault.db
        .selectFrom('audit_event')
        .select(['decision', 'reason'])
        .where('action', '=', 'oauth.refresh')
        .execute();
      t.same(told, [{ decision: 'deny', reason }], 'it stands in the log');
      t.same(rulesOf(await askLease(stage.vault, 'n8n', [{ id }])), [
        '/credentials/0 refreshFailed',
      ]);
      t.equal(server.asked['refresh_token'], 1, 'and is not asked for again');
      server.behaviour.dress = undefined;
      await touch(stage, id);
      t.equal(
        (await leaseFields(stage, id))['accessToken'],
        server.given.accessTokens.at(-1),
        'the refresh token of the answer, which was good once, is the one that was kept',
      );
      t.equal(server.asked['refresh_token'], 2);
      t.match(await connectionOf(stage, id), { state: 'connected', reason: null });
    });
  }
  await t.test('at the connection too', async (t) => {
    const { server, stage, id } = await setStage(t);
    server.behaviour.dress = (issued) => ({ body: { ...issued, token_type: 'mac' } });
    const came = await server.visit((await begin(stage, id)).authorizationUrl);
    t.match(
      (await stage.vault.call('alice', 'POST', '/v1/oauth/callbacks', callbackOf(came))).json,
      { code: 'oauthRefused', reason: 'tokenType' },
    );
    t.match(await connectionOf(stage, id), { state: 'refreshFailed', reason: 'tokenType' });
    server.behaviour.dress = undefined;
    await touch(stage, id);
    t.equal((await leaseFields(stage, id))['accessToken'], server.given.accessTokens.at(-1));
    t.same(server.asked, { authorization_code: 1, refresh_token: 1 });
  });
  await t.test('an access token of before is good to its end', async (t) => {
    const { server, stage, id } = await setStage(t);
    await connect(stage, id);
    server.behaviour.dress = (issued) => ({ body: { ...issued, access_token: '' } });
    stage.vault.clock.ms += hour - 40_000;
    t.equal((await leaseFields(stage, id))['accessToken'], server.given.accessTokens[0]);
    t.equal(server.asked['refresh_token'], 1);
    t.match(await connectionOf(stage, id), { reason: 'accessTokenMissing' });
    t.equal((await leaseFields(stage, id))['accessToken'], server.given.accessTokens[0]);
    stage.vault.clock.ms += 60_000;
    t.same(rulesOf(await askLease(stage.vault, 'n8n', [{ id }])), ['/credentials/0 refreshFailed']);
  });
});

t.test('what the endpoint refuses is refused, whatever its body says, and told', async (t) => {
  const { server, stage, id } = await setStage(t);
  await connect(stage, id);
  const { vault } = stage;
  for (const [status, body] of [
    ...cases.refusals.slice(0, 3).map((each: any) => [each.status, each.body]),
    [401, ''],
    [403, '<html>blocked</html>'],
    [400, 'Bad Request'],
  ] as const) {
    vault.clock.ms += 2 * hour;
    answerAs(server, status, body);
    const before = server.asked['answered as told'] ?? 0;
    for (let n = 0; n < 2; n += 1)
      t.same(rulesOf(await askLease(vault, 'n8n', [{ id }])), ['/credentials/0 refreshFailed']);
    t.equal((server.asked['answered as told'] ?? 0) - before, 1, `${status}: asked once`);
    t.match(await connectionOf(stage, id), {
      state: 'refreshFailed',
      reason: 'refused',
      unavailableSince: null,
    });
    t.match(await demand(vault.call('alice', 'GET', `/v1/credentials/${id}`), 200), {
      problems: ['refreshFailed'],
    });
    server.behaviour.status = undefined;
    await touch(stage, id);
    await leaseFields(stage, id);
  }
});

t.test('where there is no answer it is tried again, and since when is said', async (t) => {
  const { server, stage, id } = await setStage(t);
  await connect(stage, id);
  const { vault } = stage;
  const now = (): number => Date.now() + vault.clock.ms;
  for (const status of [408, 429, 500, 503]) {
    vault.clock.ms += 2 * hour;
    const startedAt = now();
    answerAs(server, status, cases.refusals[3].body);
    for (let n = 0; n < 4; n += 1) {
      t.same(
        rulesOf(await askLease(vault, 'n8n', [{ id }])),
        ['/credentials/0 refreshUnavailable'],
        String(status),
      );
      vault.clock.ms += 60_000;
    }
    const { state, reason, unavailableSince } = await connectionOf(stage, id);
    t.same([state, reason], ['connected', null]);
    const since = Date.parse(unavailableSince) - startedAt;
    t.ok(since >= 0 && since < 60_000, 'since the first of them');
    server.behaviour.status = undefined;
    vault.clock.ms += 600_000;
    t.equal((await leaseFields(stage, id))['accessToken'], server.given.accessTokens.at(-1));
    t.match(await connectionOf(stage, id), { unavailableSince: null });
  }
  vault.clock.ms += 2 * hour;
  answerAs(server, 503, '');
  await askLease(vault, 'n8n', [{ id }]);
  vault.clock.ms += 60_000;
  answerAs(server, 400, '');
  await askLease(vault, 'n8n', [{ id }]);
  t.match(
    await connectionOf(stage, id),
    { state: 'refreshFailed', unavailableSince: null },
    'a refusal is an answer',
  );
});

t.test('an error at the callback ends the authorization, whatever its letters', async (t) => {
  const { stage, id } = await setStage(t);
  const { vault } = stage;
  const send = (callback: object) => vault.call('alice', 'POST', '/v1/oauth/callbacks', callback);
  const errors = [
    'OAUTH_APP_BLOCKED',
    'access-denied',
    'Error 42!',
    'interaction.required',
    'say "no"',
    'back\\slash',
    'ошибка 🔑',
    '',
    ' ',
    'a\nb',
    'x'.repeat(4_096),
  ];
  for (const error of errors) {
    const { authorizationUrl } = await begin(stage, id);
    const state = new URL(authorizationUrl).searchParams.get('state');
    const answer = await send({ state, error });
    t.match(
      [answer.status, answer.json.code, answer.json.reason],
      [422, 'oauthRefused', 'refused'],
      JSON.stringify(error),
    );
    if (error.trim() !== '')
      t.notOk(answer.text.includes(JSON.stringify(error).slice(1, -1)), 'not repeated');
    t.equal((await send({ state, error })).json.code, 'oauthStateInvalid', 'and it is over');
  }
  const recorded = await vault.db
    .selectFrom('audit_event')
    .select(['decision', 'reason', 'details'])
    .where('action', '=', 'oauth.connect')
    .execute();
  t.equal(recorded.length, errors.length);
  t.ok(recorded.every(({ decision, reason }) => decision === 'deny' && reason === 'refused'));
});
