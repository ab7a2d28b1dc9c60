// Several issuers: each token is verified by the rules and the keys of the issuer that it names, and
// by nothing of another's. And tokens in the shapes that real providers give them.
import t from 'tap';
import type { Issuer } from '../../src/access/issuers.ts';
import { fixedKey } from '../../src/access/verifying-keys.ts';
import {
  audience,
  forge,
  jwkOf,
  keyPair,
  type Signer,
  startProvider,
} from '../helpers/identity.ts';
import { generateRootKey } from '../../src/crypto/index.ts';
import { testDatabase } from '../helpers/database.ts';
import { issuerWith } from '../helpers/issuers.ts';
import { askLease, demand, registerEngine, storeOpenai } from '../helpers/leases.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

const second = (): number => Math.floor(Date.now() / 1000);
const day = 86_400;

const withToken = (
  vault: TestVault,
  token: string,
  method = 'GET',
  url = '/v1/whoami',
  body?: unknown,
): Promise<Answer> => vault.call(null, method, url, body, { authorization: `Bearer ${token}` });

let asked = 0;

/** The subject that the vault sees, or the reason in the log. */
async function seen(vault: TestVault, token: string): Promise<string> {
  vault.logs.length = 0;
  asked += 1;
  // Each from an address of its own: of one the log would count what it refuses.
  const answer = await vault.call(null, 'GET', '/v1/whoami', undefined, {
    authorization: `Bearer ${token}`,
    'x-forwarded-for': `203.0.${asked >> 8}.${asked & 255}`,
  });
  if (answer.status === 200) return `is ${String(answer.json.subject)}`;
  const lines = vault.logs.map((line) => JSON.parse(line) as Record<string, unknown>);
  const refused = lines.find(({ event }) => event === 'tokenRefused');
  return `${answer.status} ${String(refused?.['reason'])}`;
}

const start = (
  test: Parameters<typeof startVault>[0],
  options: Parameters<typeof startVault>[1],
): Promise<TestVault> => startVault(test, { trustedProxies: ['127.0.0.1'], ...options });

t.test('no issuer verifies with the key, audience or algorithm of another', async (t) => {
  const provider = await startProvider(t);
  const published = keyPair('ES256', { kid: 'same' });
  provider.answer([jwkOf(published)]);
  const parts = [
    { iss: 'https://a.test', aud: 'vault-a', key: published, prefix: 'a:' },
    { iss: 'https://b.test', aud: 'vault-b', key: keyPair('ES256', { kid: 'same' }), prefix: 'b:' },
    { iss: 'https://c.test', aud: 'vault-c', key: keyPair('RS256', { kid: 'same' }), prefix: 'c:' },
  ] as const;
  const vault = await start(t, {
    moreIssuers: parts.map(({ iss, aud, key, prefix }, index) =>
      issuerWith({
        issuer: iss,
        audiences: [aud],
        keys:
          index === 0
            ? { kind: 'jwksUrl', url: provider.url }
            : { kind: 'fixed', keys: [{ ...fixedKey(key.verifier), kid: 'same' }] },
        subjectPrefix: prefix,
      }),
    ),
  });
  for (const [i, { iss, prefix }] of parts.entries())
    for (const [j, { key }] of parts.entries())
      for (const [k, { aud }] of parts.entries())
        for (const alg of ['ES256', 'RS256']) {
          const claims = { iss, aud, sub: 'eve', iat: second(), exp: second() + 600 };
          const found = await seen(vault, forge(key, { alg, kid: 'same' }, claims));
          const isTheirs = i === j && j === k && alg === key.alg;
          const what = `issuer ${i}, key ${j}, audience ${k}, ${alg}`;
          if (isTheirs) t.equal(found, `is ${prefix}eve`, what);
          else t.match(found, /^401 (signature|audience|algorithm|key)$/, what);
        }
  const { key } = parts[1];
  for (const iss of ['https://a.test/', 'https://d.test', 'none', '', null, 7, ['https://b.test']])
    t.equal(
      await seen(
        vault,
        forge(
          key,
          { alg: 'ES256', kid: 'same' },
          {
            iss,
            aud: 'vault-b',
            sub: 'eve',
            iat: second(),
            exp: second() + 600,
          },
        ),
      ),
      '401 issuer',
      `the issuer ${JSON.stringify(iss)}`,
    );
});

t.test('a public key is no secret that tokens are signed with', async (t) => {
  const key = keyPair('ES256');
  const vault = await start(t, {
    moreIssuers: [
      issuerWith({
        issuer: 'https://b.test',
        audiences: [audience],
        keys: { kind: 'fixed', keys: [fixedKey(key.verifier)] },
        subjectPrefix: 'b:',
      }),
    ],
  });
  const { sharedSecret } = await import('../helpers/identity.ts');
  for (const secret of [key.verifier, key.verifier.trim()])
    t.equal(
      await seen(
        vault,
        forge(
          sharedSecret(secret),
          { alg: 'HS256' },
          {
            iss: 'https://b.test',
            aud: audience,
            sub: 'eve',
            iat: second(),
            exp: second() + 600,
          },
        ),
      ),
      '401 algorithm',
    );
});

t.test('an issuer makes no subject of another', async (t) => {
  const [people, machines] = [keyPair('EdDSA'), keyPair('EdDSA')];
  const vault = await start(t, {
    verification: {
      issuer: 'https://people.test',
      audience,
      source: { publicKey: people.verifier },
    },
    moreIssuers: [
      issuerWith({
        issuer: 'https://k8s.test',
        audiences: [audience],
        keys: { kind: 'fixed', keys: [fixedKey(machines.verifier)] },
        subjectPrefix: 'k8s:',
      }),
    ],
  });
  const token = (key: Signer, iss: string, sub: string): string =>
    forge(key, { alg: key.alg }, { iss, aud: audience, sub, iat: second(), exp: second() + 600 });
  for (const sub of ['k8s:system:serviceaccount:a:b', 'k8s:x', 'k8s: x'])
    t.equal(await seen(vault, token(people, 'https://people.test', sub)), '401 claim:sub', sub);
  for (const sub of ['k8s', 'K8s:x', ' k8s:x'.trim().replace('k8s', 'k8')])
    t.equal(await seen(vault, token(people, 'https://people.test', sub)), `is ${sub}`);
  t.equal(await seen(vault, token(machines, 'https://k8s.test', 'x')), 'is k8s:x');
  t.equal(await seen(vault, token(machines, 'https://k8s.test', 'k8s:x')), 'is k8s:k8s:x');
});

t.test('what tokens of real providers look like', async (t) => {
  const [people, k8s, spire, github, apps] = [
    keyPair('RS256'),
    keyPair('RS256'),
    keyPair('ES256'),
    keyPair('RS256'),
    keyPair('ES256'),
  ];
  const provider = await startProvider(t, [jwkOf(k8s)]);
  const issuers: Issuer[] = [
    issuerWith({
      issuer: 'https://kubernetes.default.svc.cluster.local',
      audiences: ['credential-vault'],
      keys: { kind: 'jwksUrl', url: provider.url },
      subjectPrefix: 'k8s:',
      subjectPattern: 'system:serviceaccount:engines:*',
      maxLifetimeSeconds: 366 * day,
    }),
    issuerWith({
      issuer: undefined,
      audiences: ['credential-vault'],
      keys: { kind: 'fixed', keys: [{ ...fixedKey(spire.verifier), kid: spire.kid }] },
      subjectPrefix: 'wl:',
      trustDomain: 'corp.example',
      isIatRequired: false,
    }),
    issuerWith({
      issuer: 'https://token.actions.githubusercontent.com',
      audiences: ['https://vault.example.com'],
      keys: { kind: 'fixed', keys: [{ ...fixedKey(github.verifier), kid: github.kid }] },
      subjectPrefix: 'gh:',
      require: new Map([
        ['repository_owner_id', ['123456']],
        ['job_workflow_ref', ['octo-org/octo-repo/.github/workflows/deploy.yml@refs/heads/main']],
      ]),
    }),
    issuerWith({
      issuer: 'https://login.test/tenant/v2.0',
      audiences: ['api://credential-vault', '00000000-0000-0000-0000-00000000000a'],
      keys: { kind: 'fixed', keys: [{ ...fixedKey(apps.verifier), kid: apps.kid }] },
      subjectPrefix: 'app:',
      subjectClaim: 'oid',
      scopeClaims: ['scp', 'roles'],
    }),
  ];
  const vault = await start(t, {
    verification: {
      issuer: 'https://sso.example.com/realms/corp',
      audience,
      source: { publicKey: people.verifier },
    },
    moreIssuers: issuers,
  });
  const sign = (key: Signer, claims: object, header: object = {}): string =>
    forge(
      key,
      { alg: key.alg, kid: key.kid, ...header },
      {
        iat: second(),
        exp: second() + 3_600,
        ...claims,
      },
    );

  const adfs = {
    iss: 'https://sso.example.com/realms/corp',
    aud: [audience, 'account'],
    sub: 'adfs|corp|Jane Doe',
    typ: 'Bearer',
    scope: 'openid profile',
  };
  t.equal(await seen(vault, sign(people, adfs, { typ: 'JWT' })), 'is adfs|corp|Jane Doe');
  const groups = Array.from({ length: 177 }, (_, n) => `group-${String(n).padStart(34, '0')}`);
  const large = sign(people, { ...adfs, groups });
  t.ok(large.length > 9_700, `a token of ${large.length} bytes`);
  t.equal(await seen(vault, large), 'is adfs|corp|Jane Doe', '177 groups');

  const projected = {
    iss: 'https://kubernetes.default.svc.cluster.local',
    aud: ['credential-vault'],
    sub: 'system:serviceaccount:engines:airflow',
    exp: second() + 365 * day,
    nbf: second(),
    jti: '8d5e6f',
    'kubernetes.io': {
      namespace: 'engines',
      pod: { name: 'airflow-0', uid: 'u' },
      serviceaccount: { name: 'airflow', uid: 'u' },
      warnafter: second() + 3_607,
    },
  };
  t.equal(
    await seen(vault, sign(k8s, projected)),
    '401 lifetime',
    'a token of a year is of nobody before an engine is registered',
  );
  const airflow = 'k8s:system:serviceaccount:engines:airflow';
  await vault.call(null, 'GET', '/v1/whoami');
  const operator = sign(people, { ...adfs, sub: 'operator' });
  const engineKey = (await import('../../src/client/index.ts')).generateEngineKey();
  await demand(
    withToken(vault, operator, 'POST', '/v1/engines', {
      name: 'airflow',
      subject: airflow,
      keys: [engineKey.publicJwk],
    }),
    201,
  );
  t.equal(await seen(vault, sign(k8s, projected)), `is ${airflow}`);
  t.equal(
    await seen(vault, sign(k8s, { ...projected, exp: second() + 3_600 }, { kid: undefined })),
    `is ${airflow}`,
    'without a key id, and there is one key',
  );
  t.equal(
    await seen(vault, sign(k8s, { ...projected, sub: 'system:serviceaccount:default:airflow' })),
    '401 claim:sub',
    'another namespace',
  );
  t.equal(
    await seen(vault, sign(k8s, { ...projected, exp: second() + 367 * day })),
    '401 lifetime',
  );

  const svid = { sub: 'spiffe://corp.example/ns/engines/sa/n8n', aud: ['credential-vault'] };
  t.equal(
    await seen(vault, sign(spire, { ...svid, iat: undefined }, { typ: 'JOSE' })),
    'is wl:spiffe://corp.example/ns/engines/sa/n8n',
    'a JWT-SVID has no issuer',
  );
  for (const sub of [
    'spiffe://corp.example',
    'spiffe://corp.example/',
    'spiffe://corp.example//x',
    'spiffe://corp.example/a/../b',
    'spiffe://corp.example/a/./b',
    'spiffe://corp.example/a b',
    'spiffe://corp.example/a%2fb',
    'spiffe://corp.example/a?b',
    'spiffe://corp.example.evil/x',
    'spiffe://evil.example/x',
    'SPIFFE://corp.example/x',
    'n8n',
  ])
    t.equal(await seen(vault, sign(spire, { ...svid, sub })), '401 claim:sub', sub);
  t.equal(await seen(vault, sign(spire, { ...svid, iss: 'none' })), '401 issuer');
  t.equal(await seen(vault, sign(spire, { ...svid, iss: null })), '401 issuer');
  t.equal(
    await seen(vault, sign(people, { aud: audience, sub: 'spiffe://corp.example/x' })),
    '401 algorithm',
    'who leaves the issuer out is taken for that one, whose key it is not',
  );

  const workflow = {
    iss: 'https://token.actions.githubusercontent.com',
    aud: 'https://vault.example.com',
    sub: 'repo:octo-org/octo-repo:ref:refs/heads/main',
    repository: 'octo-org/octo-repo',
    repository_owner: 'octo-org',
    repository_owner_id: '123456',
    job_workflow_ref: 'octo-org/octo-repo/.github/workflows/deploy.yml@refs/heads/main',
    nbf: second() - 300,
    exp: second() + 300,
    runner_environment: 'github-hosted',
  };
  t.equal(
    await seen(vault, sign(github, workflow, { typ: 'JWT', x5t: 'eBZ_cn3sXYAd0ch4THBKHIgOwOE' })),
    'is gh:repo:octo-org/octo-repo:ref:refs/heads/main',
  );
  for (const [claims, claim] of [
    [{ repository_owner_id: '654321' }, 'repository_owner_id'],
    [{ repository_owner_id: 123456 }, 'repository_owner_id'],
    [{ repository_owner_id: undefined }, 'repository_owner_id'],
    [{ repository_owner_id: null }, 'repository_owner_id'],
    [{ repository_owner_id: '123456 ' }, 'repository_owner_id'],
    [{ job_workflow_ref: `${workflow.job_workflow_ref}-2` }, 'job_workflow_ref'],
    [{ job_workflow_ref: '' }, 'job_workflow_ref'],
  ] as const)
    t.equal(
      await seen(vault, sign(github, { ...workflow, ...claims })),
      `401 claim:${claim}`,
      JSON.stringify(claims),
    );

  const client = {
    iss: 'https://login.test/tenant/v2.0',
    aud: 'api://credential-vault',
    sub: 'a-pairwise-id',
    oid: '5b0ca5d4-1f0e-4bfb-8b6b-0c0e3f7d2c11',
    azp: 'n8n',
    roles: ['vault:operate'],
    scp: 'vault:operate',
  };
  const oid = 'app:5b0ca5d4-1f0e-4bfb-8b6b-0c0e3f7d2c11';
  t.equal(await seen(vault, sign(apps, client)), `is ${oid}`, 'client credentials');
  t.equal(await seen(vault, sign(apps, { ...client, oid: undefined })), '401 claim:oid');
  t.equal(
    (await withToken(vault, sign(apps, client))).json.isOperator,
    false,
    'a scope makes an operator only where the entry says so',
  );
});

t.test('each rule of an entry is asked of its tokens', async (t) => {
  const key = keyPair('EdDSA');
  const of = async (
    entry: Partial<Issuer>,
    claims: object,
    header: object = {},
  ): Promise<string> => {
    const vault = await start(t, {
      database,
      rootKey,
      moreIssuers: [
        issuerWith({
          issuer: 'https://m.test',
          audiences: ['one', 'two'],
          keys: { kind: 'fixed', keys: [fixedKey(key.verifier)] },
          subjectPrefix: 'm:',
          ...entry,
        }),
      ],
    });
    const all = {
      iss: 'https://m.test',
      aud: 'two',
      sub: 'ann',
      iat: second(),
      exp: second() + 600,
      ...claims,
    };
    return seen(vault, forge(key, { alg: key.alg, ...header }, all));
  };
  const database = await testDatabase(t);
  const rootKey = generateRootKey();
  const mail = { subjectClaim: 'email' };
  const address = { email: 'ann@corp.example' };
  t.equal(await of(mail, { ...address, email_verified: true }), 'is m:ann@corp.example');
  for (const email_verified of [undefined, false, 'true', 1, null])
    t.equal(
      await of(mail, { ...address, email_verified }),
      '401 claim:email_verified',
      `an address that is verified: ${JSON.stringify(email_verified)}`,
    );
  t.equal(await of(mail, { email_verified: true }), '401 claim:email');
  t.equal(await of({}, { aud: ['x', 'one'] }), 'is m:ann');
  t.equal(await of({}, { aud: 'three' }), '401 audience');
  t.equal(await of({ subjectPattern: 'a*n' }, {}), 'is m:ann');
  t.equal(await of({ subjectPattern: 'b*' }, {}), '401 claim:sub');
  t.equal(await of({ types: ['at+jwt'] }, {}), '401 type');
  t.equal(await of({ types: ['at+jwt'] }, {}, { typ: 'at+jwt' }), 'is m:ann');
  t.equal(await of({ algorithms: ['ES256', 'EdDSA'] }, {}), 'is m:ann');
  t.equal(await of({ isIatRequired: false }, { iat: undefined }), 'is m:ann');
  t.equal(await of({}, { iat: undefined }), '401 claim:iat');
  t.equal(await of({ isIatRequired: false }, { iat: 'x' }), '401 claim:iat');
  t.equal(await of({ maxLifetimeSeconds: 300 }, {}), '401 lifetime');
  t.equal(await of({ maxLifetimeSeconds: 300 }, { exp: second() + 200 }), 'is m:ann');
  t.equal(
    await of({ maxLifetimeSeconds: 300, isIatRequired: false }, { iat: undefined }),
    '401 lifetime',
    'from now on, where nothing says since when',
  );
  t.equal(await of({ clockToleranceSeconds: 120 }, { exp: second() - 60 }), 'is m:ann');
  t.equal(
    await of({ clockToleranceSeconds: 0 }, { exp: second() - 3, iat: second() - 60 }),
    '401 expired',
  );
  t.equal(await of({ clockToleranceSeconds: 120 }, { nbf: second() + 60 }), 'is m:ann');
  t.equal(await of({}, { nbf: second() + 60 }), '401 notYet');
  const required = { require: new Map([['groups', ['vault', 7, true]]]) };
  for (const groups of ['vault', 7, true, ['a', 'vault'], [7]])
    t.equal(await of(required, { groups }), 'is m:ann', JSON.stringify(groups));
  for (const groups of [undefined, null, 'vaults', '7', 'true', [], [['vault']], { vault: true }])
    t.equal(await of(required, { groups }), '401 claim:groups', JSON.stringify(groups));
  t.equal(
    await of({ require: new Map([['constructor', ['x']]]) }, {}),
    '401 claim:constructor',
    'what every object has is no claim',
  );
});

t.test('only an issuer whose entry says so makes operators by a scope', async (t) => {
  const key = keyPair('EdDSA');
  const isOperator = async (
    entry: Partial<Issuer>,
    claims: object,
    operators: string[] = [],
  ): Promise<boolean | undefined> => {
    const vault = await start(t, {
      operators,
      moreIssuers: [
        issuerWith({
          issuer: 'https://m.test',
          audiences: [audience],
          keys: { kind: 'fixed', keys: [fixedKey(key.verifier)] },
          subjectPrefix: 'm:',
          ...entry,
        }),
      ],
    });
    const token = forge(
      key,
      { alg: key.alg },
      {
        iss: 'https://m.test',
        aud: audience,
        sub: 'mallory',
        iat: second(),
        exp: second() + 600,
        ...claims,
      },
    );
    const { status, json } = await withToken(vault, token);
    if (status === 401) return undefined;
    const said = json.isOperator as boolean;
    const may = (await withToken(vault, token, 'GET', '/v1/engines')).status === 200;
    t.equal(said, may, 'what is said is what is let');
    return may;
  };
  const scopes = [
    { scope: 'openid vault:operate' },
    { scope: ['openid', 'vault:operate'] },
    { scp: 'vault:operate' },
    { scp: ['vault:operate'] },
  ];
  for (const claims of scopes) {
    t.equal(await isOperator({}, claims), false, JSON.stringify(claims));
    t.equal(
      await isOperator({ areOperators: true, scopeClaims: ['scope', 'scp'] }, claims),
      true,
      `${JSON.stringify(claims)} where the entry says so`,
    );
    t.equal(
      await isOperator(
        { areOperators: true, scopeClaims: ['scope', 'scp'], teams: ['a*'] },
        claims,
      ),
      false,
      'never one who is kept to teams',
    );
  }
  t.equal(
    await isOperator({ areOperators: true }, { scope: ['a vault:operate'] }),
    false,
    'an item of a list is one scope',
  );
  t.equal(await isOperator({}, {}, ['m:mallory']), true, 'by the whole subject');
  t.equal(await isOperator({}, {}, ['mallory']), false, 'and by no part of it');
  t.equal(await isOperator({ teams: ['a*'] }, {}, ['m:mallory']), false);
  const month = { exp: second() + 30 * day };
  t.equal(
    await isOperator({ maxLifetimeSeconds: 366 * day }, month, ['m:mallory']),
    undefined,
    'nor by a token that lives for a month',
  );
});

t.test('a token that lives longer than a day speaks for engines only', async (t) => {
  const key = keyPair('EdDSA');
  const vault = await start(t, {
    moreIssuers: [
      issuerWith({
        issuer: 'https://m.test',
        audiences: [audience],
        keys: { kind: 'fixed', keys: [fixedKey(key.verifier)] },
        subjectPrefix: 'm:',
        maxLifetimeSeconds: 366 * day,
        isIatRequired: false,
      }),
    ],
  });
  await vault.team('payments', ['alice', 'm:admin']);
  const { id } = await storeOpenai(vault, 'payments', 'openai', 'sk-test');
  const engine = await registerEngine(vault, 'm:engine');
  await vault.member('payments', 'm:engine', 'engine', 'alice', { actsForItself: true });
  const token = (sub: string, times: object): string =>
    forge(key, { alg: key.alg }, { iss: 'https://m.test', aud: audience, sub, ...times });
  const short = { iat: second(), exp: second() + 600 };
  const year = { iat: second(), exp: second() + 365 * day };
  const unknown = { exp: second() + 600 };
  t.equal(await seen(vault, token('admin', short)), 'is m:admin');
  t.equal(await seen(vault, token('admin', year)), '401 lifetime', "an admin's token of a year");
  t.equal(
    await seen(vault, token('admin', unknown)),
    '401 lifetime',
    'one of which nobody knows since when it has been good',
  );
  t.equal(await seen(vault, token('stranger', year)), '401 lifetime');
  t.equal(await seen(vault, token('engine', year)), 'is m:engine');
  const lease = await withToken(vault, token('engine', year), 'POST', '/v1/leases', {
    credentials: [{ id }],
    purpose: 'a test',
  });
  t.equal(lease.status, 201, lease.text);
  const asked = await withToken(vault, token('engine', short), 'POST', '/v1/leases', {
    credentials: [{ id }],
    purpose: 'a test',
    subjectToken: token('admin', year),
  });
  t.match(
    asked,
    { json: { code: 'subjectTokenInvalid' } },
    'nor does one prove for whom an engine asks',
  );
  t.ok(engine.id);
  t.ok(askLease);
});

t.test('whom nobody has given a right is not written down', async (t) => {
  const key = keyPair('EdDSA');
  const vault = await start(t, {
    moreIssuers: [
      issuerWith({
        issuer: 'https://everybody.test',
        audiences: [audience],
        keys: { kind: 'fixed', keys: [fixedKey(key.verifier)] },
        subjectPrefix: 'e:',
      }),
    ],
  });
  await vault.team('payments');
  const { id } = await storeOpenai(vault, 'payments', 'openai', 'sk-test');
  const count = async (): Promise<number> =>
    (await vault.db.selectFrom('subject').select('id').execute()).length;
  const before = await count();
  const statuses = new Set<number>();
  for (let n = 0; n < 100; n += 1) {
    const token = forge(
      key,
      { alg: key.alg },
      {
        iss: 'https://everybody.test',
        aud: audience,
        sub: `somebody-${n}`,
        iat: second(),
        exp: second() + 600,
      },
    );
    for (const [method, url, body] of [
      ['GET', '/v1/whoami'],
      ['GET', '/v1/teams'],
      ['GET', '/v1/credentials'],
      ['GET', '/v1/teams/payments'],
      ['GET', `/v1/credentials/${id}`],
      ['GET', '/v1/engines'],
      ['POST', '/v1/leases', { credentials: [{ id }], purpose: 'x' }],
      ['POST', '/v1/broker-tickets', { credential: { id }, purpose: 'x' }],
      ['POST', '/v1/teams', { slug: 'mine', name: 'mine', admins: ['e:x'] }],
    ] as const)
      statuses.add((await withToken(vault, token, method, url, body)).status);
  }
  t.same([...statuses].sort(), [200, 403, 404]);
  t.equal(await count(), before);
  const events = await vault.db
    .selectFrom('audit_event')
    .select(['actor_id as actor', 'details', 'action'])
    .where('decision', '=', 'deny')
    .execute();
  t.ok(events.length > 0 && events.length < 100, `${events.length} events stand for all of them`);
  t.ok(
    events.every(
      ({ actor, details }) => actor === null && details['issuer'] === 'https://everybody.test',
    ),
    'counted by issuer, and not by name',
  );
});
