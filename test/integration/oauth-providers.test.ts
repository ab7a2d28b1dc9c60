// Providers by name: an entry is written out when a credential is stored, and nothing that the
// catalogue says later moves a stored secret.
import t, { type Test } from 'tap';
import { findProvider, oauthProviders } from '../../src/credentials/providers/catalogue.ts';
import { defineProvider, type OAuthProvider } from '../../src/credentials/providers/define.ts';
import { clientSecret, platformPage } from '../helpers/authorization-server.ts';
import { testDatabase } from '../helpers/database.ts';
import { egressTo, tlsUpstream, type Upstream } from '../helpers/egress.ts';
import { askLease, demand, openAnswer, registerEngine, rulesOf } from '../helpers/leases.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

const hour = 3_600_000;
const google = findProvider('google')!;
let stored = 0;
const store = (vault: TestVault, fields: object, type = 'oauth2'): Promise<Answer> =>
  vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
    name: `account ${(stored += 1)}`,
    type,
    fields: { clientId: 'vault', clientSecret, ...fields },
  });
const patch = (vault: TestVault, id: string, fields: object, as = 'alice'): Promise<Answer> =>
  vault.call(as, 'PATCH', `/v1/credentials/${id}`, { fields }, { 'if-match': '*' });
const read = (vault: TestVault, id: string): Promise<any> =>
  demand(vault.call('alice', 'GET', `/v1/credentials/${id}`), 200);

t.test('a provider stands in place of URLs, and is written out', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  const { publicFields, id } = await demand(
    store(vault, { provider: 'google', scope: 'a b' }),
    201,
  );
  t.strictSame(
    { ...publicFields },
    {
      grant: 'authorizationCode',
      provider: 'google',
      providerRevision: google.revision,
      providerParameters: 'access_type=offline&prompt=consent',
      authorizationUrl: google.authorizationUrl,
      tokenUrl: google.tokenUrl,
      clientId: 'vault',
      clientAuthentication: 'body',
      scope: 'a b',
    },
  );
  // A form sends back what it was shown.
  const same = await patch(vault, id, { ...publicFields });
  t.match([same.status, same.json.version], [200, 1], same.text);
  t.equal((await patch(vault, id, { provider: 'google' })).json.version, 1);
  t.equal((await patch(vault, id, { scope: 'c' })).json.publicFields.scope, 'c');
  for (const fields of [
    { tokenUrl: 'https://evil.test/token' },
    { authorizationUrl: 'https://evil.test/' },
    { issuer: 'https://evil.test' },
    { providerParameters: 'a=b' },
    { provider: 'google', tokenUrl: 'https://evil.test/token' },
  ]) {
    t.match(rulesOf(await patch(vault, id, { ...fields, clientSecret })), [/ notWithProvider$/]);
    t.match(rulesOf(await store(vault, { provider: 'google', ...fields })), [/ notWithProvider$/]);
  }
  t.strictSame((await read(vault, id)).publicFields.tokenUrl, google.tokenUrl);
  for (const [fields, rule] of [
    [{ provider: 'nobody' }, '/fields/provider enum'],
    [{ provider: 'google', tenant: 'a' }, '/fields/tenant notForProvider'],
    [{ provider: 'google', providerRevision: 999 }, '/fields/providerRevision current'],
    [{ provider: 'google', grant: 'clientCredentials' }, '/fields/grant notForProvider'],
    [
      { tokenUrl: 'https://id.test/token', authorizationUrl: 'https://id.test/', tenant: 'a' },
      '/fields/tenant needsProvider',
    ],
    [
      {
        tokenUrl: 'https://id.test/token',
        authorizationUrl: 'https://id.test/',
        providerRevision: 1,
      },
      '/fields/providerRevision needsProvider',
    ],
    [{}, '/fields/tokenUrl requiredAnyOf'],
  ] as const)
    t.same(rulesOf(await store(vault, fields)), [rule], JSON.stringify(fields));
});

t.test('another provider, and none, are other destinations', async (t) => {
  const other = defineProvider({
    ...findProvider('oidc')!,
    hasDiscovery: undefined as never,
    authorizationUrl: 'https://other.test/authorize',
    tokenUrl: 'https://other.test/token',
    quirks: { clientAuthentication: 'header', pkce: 'off', tokenParameters: 'a=b' },
  });
  const vault = await startVault(t, { oauthProviders: [google, other] });
  await vault.team('payments');
  const { id } = await demand(store(vault, { provider: 'google', parameters: 'hd=x' }), 201);
  for (const fields of [{ provider: 'oidc' }, { provider: null }])
    t.equal((await patch(vault, id, fields)).json.code, 'secretRequired', JSON.stringify(fields));
  const moved = await demand(patch(vault, id, { provider: 'oidc', clientSecret }), 200);
  t.match(moved.publicFields, {
    provider: 'oidc',
    tokenUrl: 'https://other.test/token',
    pkce: 'off',
    tokenParameters: 'a=b',
    clientAuthentication: 'header',
    parameters: 'hd=x',
  });
  t.notOk('providerParameters' in moved.publicFields);
  const back = await demand(
    patch(vault, id, { provider: 'google', clientAuthentication: 'header', clientSecret }),
    200,
  );
  t.match(back.publicFields, { clientAuthentication: 'header', tokenUrl: google.tokenUrl });
  t.notOk('pkce' in back.publicFields, 'what the other one wanted is gone');
  const none = await demand(patch(vault, id, { provider: null, clientSecret }), 200);
  t.strictSame(
    { ...none.publicFields },
    {
      grant: 'authorizationCode',
      authorizationUrl: google.authorizationUrl,
      tokenUrl: google.tokenUrl,
      clientId: 'vault',
      clientAuthentication: 'header',
      parameters: 'access_type=offline&prompt=consent&hd=x',
    },
    'the endpoints are its own now',
  );

  // What an earlier version has written out comes back as it was, whatever the catalogue says now.
  const versions: any[] = (
    await demand(vault.call('alice', 'GET', `/v1/credentials/${id}/versions`), 200)
  ).items;
  for (const { version, publicFields } of versions.slice(1)) {
    const restored = await demand(
      vault.call('alice', 'POST', `/v1/credentials/${id}/versions/${version}/restore`),
      200,
    );
    t.strictSame(restored.publicFields, publicFields, `version ${version}`);
  }
  t.equal(versions.length, 4);
});

/** Two token endpoints that record their callers. */
async function twoServers(t: Test): Promise<{
  old: Upstream;
  next: Upstream;
  asked: string[];
}> {
  const asked: string[] = [];
  const start = (host: string) =>
    tlsUpstream(t, host, (request, response) => {
      request.resume();
      asked.push(`${host} ${request.url}`);
      response.writeHead(200, { 'content-type': 'application/json' }).end(
        JSON.stringify({
          access_token: `access-${asked.length}-0123456789`,
          refresh_token: `refresh-${asked.length}-0123456789`,
          expires_in: 3600,
        }),
      );
    });
  return { old: await start('old.test'), next: await start('next.test'), asked };
}
const entryAt = (url: string, more: Partial<OAuthProvider> = {}): OAuthProvider => ({
  ...google,
  authorizationUrl: `${url}/authorize`,
  tokenUrl: `${url}/token`,
  ...more,
});
async function connect(vault: TestVault, id: string): Promise<void> {
  const { authorizationUrl } = await demand(
    vault.call('alice', 'POST', `/v1/credentials/${id}/oauth/authorizations`),
    201,
  );
  const state = new URL(authorizationUrl).searchParams.get('state');
  await demand(vault.call('alice', 'POST', '/v1/oauth/callbacks', { state, code: 'a' }), 200);
}

t.test(
  'SECURITY: under a catalogue with another host the request goes to the stored one',
  async (t) => {
    const { old, next, asked } = await twoServers(t);
    const database = await testDatabase(t);
    const before = await startVault(t, {
      database,
      egress: egressTo(t, [old, next]),
      oauthRedirectUri: platformPage,
      oauthProviders: [entryAt(old.url, { revision: 0 })],
    });
    await before.team('payments');
    const engine = await registerEngine(before, 'n8n');
    await before.member('payments', 'n8n', 'engine');
    await before.member('payments', 'eddie', 'editor');
    const { id } = await demand(store(before, { provider: 'google' }), 201);
    const { id: sheets } = await demand(store(before, {}, 'googleSheets'), 201);
    for (const each of [id, sheets]) await connect(before, each);
    asked.splice(0);

    const after = await startVault(t, {
      database,
      rootKey: before.rootKey,
      egress: egressTo(t, [old, next]),
      oauthRedirectUri: platformPage,
      oauthProviders: [entryAt(next.url)],
    });
    after.clock.ms += 2 * hour;
    for (const each of [id, sheets]) {
      const lease = await openAnswer(after, engine, await askLease(after, 'n8n', [{ id: each }]));
      t.match(lease.credentials[0], { fields: { accessToken: /^access-/ } });
      await connect(after, each);
    }
    t.same(asked, Array(4).fill('old.test /token'), 'refresh and exchange, both');
    t.same((await read(after, id)).problems, ['providerOutdated']);
    t.same(
      (
        await demand(after.call('alice', 'GET', '/v1/credentials?problem=providerOutdated'), 200)
      ).items
        .map((each: any) => each.id)
        .sort(),
      [id, sheets].sort(),
    );
    t.match(await demand(after.call('alice', 'GET', '/v1/teams/payments/problems'), 200), {
      problems: { providerOutdated: 2 },
    });
    // What is sent for something else leaves it as it is.
    for (const fields of [{ scope: 'b' }, { provider: 'google' }, { clientSecret }])
      t.match((await demand(patch(after, id, fields), 200)).publicFields, {
        tokenUrl: `${old.url}/token`,
        providerRevision: 0,
      });
    // Another host needs the secrets, an admin's word notwithstanding.
    for (const each of [id, sheets])
      t.equal((await patch(after, each, { providerRevision: 1 })).json.code, 'secretRequired');
    t.match(
      (await demand(patch(after, id, { providerRevision: 1, clientSecret }), 200)).publicFields,
      { tokenUrl: `${next.url}/token`, providerRevision: 1 },
    );
    t.same((await read(after, id)).problems, ['notConnected']);
  },
);

t.test('an admin adopts an entry of the same places without the secrets', async (t) => {
  const { old, next } = await twoServers(t);
  const database = await testDatabase(t);
  const before = await startVault(t, {
    database,
    oauthProviders: [entryAt(old.url, { revision: 0 })],
  });
  await before.team('payments');
  await before.member('payments', 'eddie', 'editor');
  const made = async (fields: object = {}): Promise<string> =>
    (await demand(store(before, { provider: 'google', ...fields }), 201)).id;
  const id = await made();
  const elsewhere = await made();
  const vaultWith = (entry: OAuthProvider): Promise<TestVault> =>
    startVault(t, { database, rootKey: before.rootKey, oauthProviders: [entry] });
  const moved = await vaultWith(
    entryAt(old.url, {
      tokenUrl: `${old.url}/v2/token`,
      quirks: { clientAuthentication: 'header', tokenParameters: 'a=b' },
    }),
  );
  t.equal((await patch(moved, id, { providerRevision: 1 }, 'eddie')).json.code, 'forbidden');
  t.equal(
    (await patch(moved, id, { providerRevision: 1, parameters: 'a=b' })).json.code,
    'secretRequired',
    'nothing else comes along with it',
  );
  t.match((await demand(patch(moved, id, { providerRevision: 1 }), 200)).publicFields, {
    tokenUrl: `${old.url}/v2/token`,
    clientAuthentication: 'header',
    tokenParameters: 'a=b',
    providerRevision: 1,
  });
  for (const [what, entry] of [
    ['another port', entryAt(old.url, { tokenUrl: 'https://old.test:1/token' })],
    ['another host for the token', entryAt(old.url, { tokenUrl: `${next.url}/token` })],
    ['another host for the person', entryAt(old.url, { authorizationUrl: `${next.url}/a` })],
  ] as const) {
    const vault = await vaultWith(entry);
    t.equal(
      (await patch(vault, elsewhere, { providerRevision: 1 })).json.code,
      'secretRequired',
      what,
    );
  }
});

t.test("Google's types: written out from now on, and stored ones keep what 0.1 said", async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  const { id, publicFields } = await demand(store(vault, {}, 'googleDrive'), 201);
  t.match(publicFields, { provider: 'google', tokenUrl: google.tokenUrl });
  for (const fields of [
    { tokenUrl: 'https://evil.test/token' },
    { authorizationUrl: 'https://evil.test/' },
    { clientAuthentication: 'header' },
    { providerParameters: 'a=b' },
  ]) {
    t.match(rulesOf(await patch(vault, id, { ...fields, clientSecret })), [/ notWithProvider$/]);
    t.match(rulesOf(await store(vault, fields, 'googleDrive')), [/ notWithProvider$/]);
  }
  t.same(rulesOf(await patch(vault, id, { provider: 'oidc', clientSecret })), [
    '/fields/provider immutable',
  ]);
  t.match((await demand(patch(vault, id, { provider: null, scope: 'x' }), 200)).publicFields, {
    provider: 'google',
    tokenUrl: google.tokenUrl,
  });
});

t.test('every entry holds together', async (t) => {
  t.equal(new Set(oauthProviders.map(({ name }) => name)).size, oauthProviders.length);
  const vault = await startVault(t);
  const { items } = await demand(vault.call('anybody', 'GET', '/v1/oauth-providers'), 200);
  t.same(
    items.map((each: any) => each.name),
    oauthProviders.map(({ name }) => name),
  );
  t.equal((await vault.call(null, 'GET', '/v1/oauth-providers')).status, 401);
  for (const { name, read: pages, placeholders = {}, ...entry } of oauthProviders) {
    t.match(name, /^[a-z][A-Za-z0-9]{0,39}$/, name);
    t.ok(pages.length > 0, `${name} says where it was read`);
    for (const { url, on } of pages) {
      t.match(url, /^https:\/\//, `${name}: ${url}`);
      t.match(on, /^20\d\d-\d\d-\d\d$/);
    }
    const templates = [entry.authorizationUrl, entry.tokenUrl].filter((url) => url !== undefined);
    t.equal(templates.length > 0, entry.hasDiscovery !== true, `${name}: URLs or discovery`);
    t.same(
      [
        ...new Set(templates.flatMap((url) => [...url.matchAll(/\{(\w+)\}/g)].map(([, of]) => of))),
      ].sort(),
      Object.keys(placeholders).sort(),
      `${name}: the placeholders of its URLs`,
    );
  }
});

t.test('SECURITY: discovery is read once, and says no other host', async (t) => {
  const asked: string[] = [];
  let document: (url: string) => unknown = (url) => ({
    issuer: url,
    authorization_endpoint: `${url}/authorize`,
    token_endpoint: `${url}/token?p=x`,
    token_endpoint_auth_methods_supported: ['client_secret_post'],
    authorization_response_iss_parameter_supported: true,
  });
  let status = 200;
  const upstream = await tlsUpstream(t, 'id.test', (request, response) => {
    asked.push(request.url ?? '');
    response
      .writeHead(status, { location: '/elsewhere' })
      .end(JSON.stringify(document(upstream.url)));
  });
  const vault = await startVault(t, { egress: egressTo(t, [upstream]) });
  await vault.team('payments');
  const issuer = upstream.url;
  const { id, publicFields } = await demand(store(vault, { provider: 'oidc', issuer }), 201);
  t.match(publicFields, {
    provider: 'oidc',
    issuer,
    authorizationUrl: `${issuer}/authorize`,
    tokenUrl: `${issuer}/token?p`,
    clientAuthentication: 'body',
  });
  t.notOk('issuerCheck' in publicFields);
  t.same(asked.splice(0), ['/.well-known/openid-configuration']);
  await demand(patch(vault, id, { scope: 'b', provider: 'oidc', issuer }), 200);
  t.strictSame(
    (await demand(vault.call('alice', 'POST', `/v1/credentials/${id}/versions/1/restore`), 200))
      .publicFields,
    publicFields,
    'a version that comes back',
  );
  await demand(patch(vault, id, publicFields), 200);
  t.same(asked, [], 'nothing is read again');
  t.equal((await patch(vault, id, { issuer: `${issuer}/tenant` })).json.code, 'invalidRequest');
  vault.clock.ms += 61_000;

  const good = document(issuer) as Record<string, unknown>;
  for (const [what, change] of [
    ['another issuer', { issuer: 'https://evil.test' }],
    ['the issuer with a slash', { issuer: `${issuer}/` }],
    ['no issuer', { issuer: undefined }],
    ['the token at another host', { token_endpoint: 'https://evil.test/token' }],
    ['the token at another port', { token_endpoint: 'https://id.test:1/token' }],
    ['the token without TLS', { token_endpoint: `${issuer.replace('https', 'http')}/token` }],
    ['the person at another host', { authorization_endpoint: 'https://evil.test/authorize' }],
    ['a user in the URL', { token_endpoint: issuer.replace('://', '://a:b@') }],
    ['a reserved name', { token_endpoint: `${issuer}/token?client_secret=x` }],
    ['no token endpoint', { token_endpoint: undefined }],
    ['a list', { token_endpoint: [`${issuer}/token`] }],
  ] as const) {
    document = () => ({ ...good, ...change });
    t.same(
      rulesOf(await store(vault, { provider: 'oidc', issuer })),
      ['/fields/issuer discovery'],
      what,
    );
    vault.clock.ms += 10_000;
  }
  for (const [what, body] of [
    ['no object', 'text'],
    ['null', null],
  ] as const) {
    document = () => body;
    t.same(
      rulesOf(await store(vault, { provider: 'oidc', issuer })),
      ['/fields/issuer discovery'],
      what,
    );
    vault.clock.ms += 10_000;
  }
  document = () => good;
  for (const other of [302, 404, 500]) {
    status = other;
    t.equal((await store(vault, { provider: 'oidc', issuer })).json.code, 'oauthUnavailable');
    vault.clock.ms += 10_000;
  }
  t.notOk(asked.includes('/elsewhere'), 'no redirect is followed');
  for (const nowhere of ['https://nowhere.test', 'https://127.0.0.1', 'https://localhost']) {
    t.equal(
      (await store(vault, { provider: 'oidc', issuer: nowhere })).json.code,
      'oauthUnavailable',
      `${nowhere}: one answer for what is not there and what may not be asked`,
    );
    vault.clock.ms += 10_000;
  }
  t.same(rulesOf(await store(vault, { provider: 'oidc' })), ['/fields/issuer required']);
  const { results } = await demand(
    vault.call('alice', 'POST', '/v1/teams/payments/credentials/bulk', {
      items: [
        {
          op: 'create',
          name: 'of nowhere',
          type: 'oauth2',
          fields: { provider: 'oidc', issuer: 'https://nowhere.test', clientId: 'c' },
        },
        { op: 'create', name: 'of its own', type: 'bearer', fields: { token: 'of its own' } },
      ],
    }),
    200,
  );
  t.match(
    results,
    [{ status: 503, problem: { code: 'oauthUnavailable' } }, { status: 201 }],
    'of many, an issuer that is not there is the trouble of its own item',
  );
  status = 200;
  vault.clock.ms += 61_000;
  const answers: number[] = [];
  for (let n = 0; n < 12; n += 1)
    answers.push((await store(vault, { provider: 'oidc', issuer })).status);
  t.same(answers, [...Array(10).fill(201), 429, 429], 'nobody scans by it');
});
