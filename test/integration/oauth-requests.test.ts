// What goes out to providers: endpoints with a query, parameters of each request, and every way in
// which providers want to be asked otherwise than the standard says.
import type { IncomingMessage } from 'node:http';
import t, { type Test } from 'tap';
import { clientSecret, platformPage } from '../helpers/authorization-server.ts';
import { egressTo, tlsUpstream } from '../helpers/egress.ts';
import {
  askLease,
  demand,
  openAnswer,
  registerEngine,
  rulesOf,
  type TestEngine,
} from '../helpers/leases.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const hour = 3_600_000;

interface Asked {
  readonly url: string;
  readonly headers: IncomingMessage['headers'];
  readonly body: Record<string, string>;
  readonly text: string;
}
interface Stage {
  readonly vault: TestVault;
  readonly engine: TestEngine;
  readonly issuer: string;
  readonly asked: Asked[];
  /** What the token endpoint answers with. */
  readonly answer: { body: object };
}

/** A vault, and a token endpoint that writes down how it is asked. */
async function setStage(t: Test): Promise<Stage> {
  const asked: Asked[] = [];
  const answer: Stage['answer'] = { body: {} };
  let number = 0;
  const upstream = await tlsUpstream(t, 'id.test', (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const text = Buffer.concat(chunks).toString();
      const isJson = request.headers['content-type'] === 'application/json';
      asked.push({
        url: request.url ?? '',
        headers: request.headers,
        text,
        body: isJson ? JSON.parse(text) : Object.fromEntries(new URLSearchParams(text)),
      });
      number += 1;
      const issued = {
        access_token: `access-${number}-0123456789`,
        refresh_token: `refresh-${number}-0123456789`,
        expires_in: 3600,
      };
      response
        .writeHead(200, { 'content-type': 'application/json' })
        .end(JSON.stringify({ ...issued, ...answer.body }));
    });
  });
  const vault = await startVault(t, {
    egress: egressTo(t, [upstream]),
    oauthRedirectUri: platformPage,
  });
  await vault.team('payments');
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  return { vault, engine, issuer: upstream.url, asked, answer };
}

let stored = 0;
const store = async ({ vault, issuer }: Stage, fields: object = {}): Promise<string> =>
  (
    await demand(
      vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
        name: `account ${(stored += 1)}`,
        type: 'oauth2',
        fields: {
          authorizationUrl: `${issuer}/authorize`,
          tokenUrl: `${issuer}/token`,
          clientId: 'vault',
          clientSecret,
          ...fields,
        },
      }),
      201,
    )
  ).id;
/** Connects, by a code that the endpoint takes for good; where the browser was sent. */
async function connect({ vault }: Stage, id: string): Promise<URL> {
  const { authorizationUrl } = await demand(
    vault.call('alice', 'POST', `/v1/credentials/${id}/oauth/authorizations`),
    201,
  );
  const url = new URL(authorizationUrl);
  await demand(
    vault.call('alice', 'POST', '/v1/oauth/callbacks', {
      state: url.searchParams.get('state'),
      code: 'the-code',
    }),
    200,
  );
  return url;
}
async function lease({ vault, engine }: Stage, id: string): Promise<any> {
  const { credentials } = await openAnswer(vault, engine, await askLease(vault, 'n8n', [{ id }]));
  return (credentials[0] as any).fields;
}
/** Connects and refreshes; how the endpoint was asked both times. */
async function both(
  stage: Stage,
  fields: object,
): Promise<{ url: URL; first: Asked; second: Asked }> {
  const id = await store(stage, fields);
  const url = await connect(stage, id);
  stage.vault.clock.ms += 2 * hour;
  await lease(stage, id);
  const [first, second] = stage.asked.splice(0) as [Asked, Asked];
  return { url, first, second };
}

t.test('endpoints are asked with their query, and the vault speaks last', async (t) => {
  const stage = await setStage(t);
  const { url, first, second } = await both(stage, {
    authorizationUrl: `${stage.issuer}/authorize?p=signin&prompt=none&x=a%20b`,
    tokenUrl: `${stage.issuer}/token?p=signin&tenant=a%2Fb`,
    parameters: 'prompt=consent&resource=a&resource=b',
    scope: 'read write',
  });
  t.match(url.href, `${stage.issuer}/authorize?`);
  t.same(
    [...url.searchParams.entries()].filter(([name]) => !/^(?:state|code_challenge)$/.test(name)),
    [
      ['p', 'signin'],
      ['x', 'a b'],
      ['prompt', 'consent'],
      ['resource', 'a'],
      ['resource', 'b'],
      ['response_type', 'code'],
      ['client_id', 'vault'],
      ['redirect_uri', platformPage],
      ['code_challenge_method', 'S256'],
      ['scope', 'read write'],
    ],
    'a stored parameter stands for one of the query, and both are there besides',
  );
  t.same([first.url, second.url], Array(2).fill('/token?p=signin&tenant=a%2Fb'));
});

t.test('parameters of their own for the exchange, for refreshes, for both', async (t) => {
  const stage = await setStage(t);
  const { first, second } = await both(stage, {
    tokenParameters: 'audience=x&both=1&overruled=general',
    exchangeParameters: 'once=2&overruled=special',
    refreshParameters: 'again=3',
  });
  t.match(first.body, { audience: 'x', both: '1', once: '2', overruled: 'special' });
  t.notOk('again' in first.body);
  t.match(second.body, { audience: 'x', both: '1', again: '3', overruled: 'general' });
  t.notOk('once' in second.body);
  t.match(first.body, {
    grant_type: 'authorization_code',
    code: 'the-code',
    redirect_uri: platformPage,
  });
  t.match(second.body, { grant_type: 'refresh_token', refresh_token: 'refresh-1-0123456789' });
  t.notOk('redirect_uri' in second.body);
});

t.test('the redirect URI on refresh, where it is asked for', async (t) => {
  const stage = await setStage(t);
  const { second } = await both(stage, { redirectUriOnRefresh: true });
  t.match(second.body, { grant_type: 'refresh_token', redirect_uri: platformPage });
});

t.test("a grant type of the provider's own", async (t) => {
  const stage = await setStage(t);
  const id = await store(stage, {
    grant: 'clientCredentials',
    authorizationUrl: undefined,
    grantType: 'account_credentials',
    tokenParameters: 'account_id=42',
    scope: 'meetings',
  });
  await lease(stage, id);
  stage.vault.clock.ms += 2 * hour;
  await lease(stage, id);
  for (const { body } of stage.asked)
    t.same(body, { grant_type: 'account_credentials', account_id: '42', scope: 'meetings' });
  t.equal(stage.asked.splice(0).length, 2);
  const { first, second } = await both(stage, { grantType: 'urn:example:own' });
  t.equal(first.body['grant_type'], 'urn:example:own');
  t.equal(second.body['grant_type'], 'refresh_token');
});

t.test('Basic leaves unreserved characters alone, and can encode nothing', async (t) => {
  const stage = await setStage(t);
  const pairOf = ({ headers }: Asked): string =>
    Buffer.from(String(headers.authorization).replace(/^Basic /, ''), 'base64').toString();
  const secret = "a-b_c.d~e !'()*:%+/ü";
  for (const [fields, pair] of [
    [
      { clientId: '463558a3-725e_f.apps~x' },
      '463558a3-725e_f.apps~x:a-b_c.d~e+%21%27%28%29%2A%3A%25%2B%2F%C3%BC',
    ],
    [
      { clientId: '463558a3-725e_f.apps~x', basicEncoding: 'none' },
      `463558a3-725e_f.apps~x:${secret}`,
    ],
    [
      { clientId: 'a:b', basicEncoding: 'form' },
      'a%3Ab:a-b_c.d~e+%21%27%28%29%2A%3A%25%2B%2F%C3%BC',
    ],
  ] as const) {
    const { first, second } = await both(stage, { ...fields, clientSecret: secret });
    t.same([pairOf(first), pairOf(second)], [pair, pair]);
    for (const { body } of [first, second])
      t.notOk('client_secret' in body || 'client_id' in body, 'and not in the body besides');
  }
  const { first } = await both(stage, { clientAuthentication: 'body' });
  t.match(first.body, { client_id: 'vault', client_secret: clientSecret });
  t.equal(first.headers.authorization, undefined);
});

t.test('PKCE is on, and off where it is said', async (t) => {
  const stage = await setStage(t);
  const on = await both(stage, {});
  t.ok(on.url.searchParams.get('code_challenge') && on.first.body['code_verifier']);
  const off = await both(stage, { pkce: 'off' });
  t.notOk(off.url.searchParams.has('code_challenge'));
  t.notOk(off.url.searchParams.has('code_challenge_method'));
  t.notOk('code_verifier' in off.first.body);
  const { vault } = stage;
  const id = await store(stage, { pkce: 'off' });
  const refused = await vault.call(
    'alice',
    'PATCH',
    `/v1/credentials/${id}`,
    { fields: { clientSecret: null } },
    { 'if-match': '*' },
  );
  t.same(rulesOf(refused), ['/fields/pkce needsClientSecret'], 'nor can the secret go');
});

t.test('the scope under another name, requests as JSON, the token somewhere else', async (t) => {
  const stage = await setStage(t);
  const { url, first, second } = await both(stage, {
    scope: 'chat:write,users:read',
    scopeParameter: 'user_scope',
    requestFormat: 'json',
  });
  t.equal(url.searchParams.get('user_scope'), 'chat:write,users:read');
  t.notOk(url.searchParams.has('scope'));
  for (const { headers, text } of [first, second]) {
    t.equal(headers['content-type'], 'application/json');
    t.equal(typeof JSON.parse(text), 'object');
  }
  t.match(second.body, { grant_type: 'refresh_token', refresh_token: /^refresh-/ });
  stage.answer.body = {
    authed_user: { access_token: 'nested-0123456789', refresh_token: 'its-own-0123456789' },
  };
  const id = await store(stage, { tokenPath: 'authed_user.access_token' });
  await connect(stage, id);
  t.equal((await lease(stage, id))['accessToken'], 'nested-0123456789');
  stage.asked.splice(0);
  stage.vault.clock.ms += 2 * hour;
  await lease(stage, id);
  t.equal(stage.asked[0]?.body['refresh_token'], 'its-own-0123456789');
});

t.test('an issuer that need not be named, and must not be another one', async (t) => {
  const stage = await setStage(t);
  const id = await store(stage, { issuer: stage.issuer, issuerCheck: 'ifSent' });
  await connect(stage, id);
  const { authorizationUrl } = await demand(
    stage.vault.call('alice', 'POST', `/v1/credentials/${id}/oauth/authorizations`),
    201,
  );
  t.match(
    (
      await stage.vault.call('alice', 'POST', '/v1/oauth/callbacks', {
        state: new URL(authorizationUrl).searchParams.get('state'),
        code: 'the-code',
        iss: `${stage.issuer}/other`,
      })
    ).json,
    { code: 'oauthRefused', reason: 'issuerMismatch' },
  );
});

t.test('SECURITY: each of these is a destination, and ends what is stored', async (t) => {
  const stage = await setStage(t);
  const { vault } = stage;
  await vault.member('payments', 'eddie', 'editor');
  const changes = {
    authorizationUrl: `${stage.issuer}/authorize?a=b`,
    tokenUrl: `${stage.issuer}/token?a=b`,
    parameters: 'a=b',
    tokenParameters: 'a=b',
    exchangeParameters: 'a=b',
    refreshParameters: 'a=b',
    scopeParameter: 'user_scope',
    grantType: 'own',
    redirectUriOnRefresh: true,
    basicEncoding: 'none',
    requestFormat: 'json',
    pkce: 'off',
    tokenPath: 'a.access_token',
    issuer: stage.issuer,
  };
  for (const [name, value] of Object.entries(changes)) {
    const id = await store(stage);
    await connect(stage, id);
    const patch = (fields: object) =>
      vault.call('eddie', 'PATCH', `/v1/credentials/${id}`, { fields }, { 'if-match': '*' });
    const refused = await patch({ [name]: value });
    t.match([refused.status, refused.json.code], [422, 'secretRequired'], name);
    t.equal((await askLease(vault, 'n8n', [{ id }])).status, 201, 'what is stored stands');
    await demand(patch({ [name]: value, clientSecret }), 200);
    t.same(
      rulesOf(await askLease(vault, 'n8n', [{ id }])),
      ['/credentials/0 notConnected'],
      `${name}: what was stored for the client of before is over`,
    );
  }
});

t.test(
  'a query is shown with names only, wherever it is shown, and kept when it is sent back',
  async (t) => {
    const stage = await setStage(t);
    const { vault, issuer } = stage;
    const [hidden, more] = ['a-value-to-hide', 'another-to-hide'];
    const id = await store(stage, {
      authorizationUrl: `${issuer}/authorize?p=${hidden}&q`,
      tokenUrl: `${issuer}/token?key=${hidden}&p=${more}`,
    });
    await connect(stage, id);
    const shown = {
      authorizationUrl: `${issuer}/authorize?p&q`,
      tokenUrl: `${issuer}/token?key&p`,
    };
    const get = (url: string) => vault.call('alice', 'GET', url);
    const { json: credential } = await get(`/v1/credentials/${id}`);
    t.match(credential.publicFields, shown);
    const patch = (fields: object) =>
      vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { fields }, { 'if-match': '*' });
    const same = await patch(credential.publicFields);
    t.match(
      [same.status, same.json.version],
      [200, 1],
      'sent back as it was shown: nothing changes',
    );
    t.match(
      (await patch({ tokenUrl: `${issuer}/token?p&key` })).json,
      { code: 'secretRequired' },
      'anything else is another destination',
    );
    const texts = await Promise.all(
      [
        `/v1/credentials/${id}`,
        '/v1/credentials',
        '/v1/teams/payments/credentials',
        `/v1/credentials/${id}/versions`,
        `/v1/credentials/${id}/oauth`,
        '/v1/teams/payments/export',
        '/v1/teams/payments/audit-events',
      ].map(async (url) => [url, (await get(url)).text] as const),
    );
    texts.push(['a lease', JSON.stringify(await lease(stage, id))]);
    texts.push(['the log', vault.logs.join('\n')]);
    for (const [where, text] of texts)
      t.notOk(text.includes(hidden) || text.includes(more), `${where} does not show it`);
    t.equal(stage.asked[0]?.url, `/token?key=${hidden}&p=${more}`, 'and it is asked with it');
  },
);
