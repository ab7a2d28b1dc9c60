// The file of issuers: what it may say, and that everything that is wrong with it is said at once,
// by place and rule and never by value.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import { ConfigInvalid, readConfig, type ServeConfig } from '../../src/config/config.ts';
import type { Environment } from '../../src/config/reader.ts';
import { entrySchema } from '../../src/config/issuers.ts';
import { testCertificate } from '../helpers/certificate.ts';
import { jwkOf, keyPair } from '../helpers/identity.ts';

const marker = `marker${randomBytes(6).toString('hex')}`;
const environment: Environment = {
  DATABASE_URL: 'postgresql://vault:pw@db/vault',
  CREDVAULT_ROOT_KEYS: `${randomBytes(32).toString('base64url')}=`,
  CREDVAULT_ISSUERS_FILE: '/etc/issuers.json',
};
const pemOf = (pair: {
  publicKey: { export(o: { type: 'spki'; format: 'pem' }): unknown };
}): string => pair.publicKey.export({ type: 'spki', format: 'pem' }) as string;
const [ec, ed] = [
  generateKeyPairSync('ec', { namedCurve: 'P-256' }),
  generateKeyPairSync('ed25519'),
];
const { certificate, key } = testCertificate();
const signers = [keyPair('ES256', { kid: 'one' }), keyPair('RS256', { kid: 'two' })];
const files: Readonly<Record<string, string>> = {
  '/keys/ec.pem': pemOf(ec),
  '/keys/ed.pem': pemOf(ed),
  '/keys/private.pem': ed.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
  '/keys/jwks.json': JSON.stringify({ keys: signers.map((signer) => jwkOf(signer)) }),
  '/keys/no-kid.json': JSON.stringify({ keys: [{ ...jwkOf(signers[0]!), kid: undefined }] }),
  '/keys/private.json': JSON.stringify({ keys: [{ ...jwkOf(signers[0]!), d: 'x' }] }),
  '/keys/twice.json': JSON.stringify({ keys: [jwkOf(signers[0]!), jwkOf(signers[0]!)] }),
  '/keys/ec.json': JSON.stringify({
    keys: [{ ...ec.publicKey.export({ format: 'jwk' }), kid: 'the same key' }],
  }),
  '/keys/empty.json': '{"keys":[]}',
  '/keys/text.json': marker,
  '/ca.pem': certificate,
  '/ca-key.pem': key,
};

const read = (text: unknown, more: Environment = {}): ServeConfig =>
  readConfig({ ...environment, ...more }, 'serve', (path) => {
    if (path === '/etc/issuers.json') return typeof text === 'string' ? text : JSON.stringify(text);
    const found = files[path];
    if (found === undefined)
      throw Object.assign(new Error(`no such file ${path}`), { code: 'ENOENT' });
    return found;
  }).config;
const faultsOf = (text: unknown, more: Environment = {}): readonly string[] => {
  try {
    read(text, more);
    return [];
  } catch (error) {
    if (error instanceof ConfigInvalid) return error.faults;
    throw error;
  }
};
const people = {
  issuer: 'https://id.example.com/',
  audiences: ['credential-vault'],
  keys: { jwksUrl: 'https://id.example.com/jwks' },
};
const machines = {
  issuer: 'https://kubernetes.default.svc',
  audiences: ['credential-vault'],
  keys: { publicKeyFile: '/keys/ec.pem' },
  subjectPrefix: 'k8s:',
};
const faultsOfEntry = (entry: object): readonly string[] => faultsOf({ issuers: [entry] });

t.test('everything that an issuer can say', async (t) => {
  const { issuers } = read({
    issuers: [
      people,
      {
        issuer: 'https://sso.example.com/realms/m',
        audiences: ['a', 'b'],
        keys: { discovery: true },
        caFile: '/ca.pem',
        algorithms: ['RS512'],
        types: ['at+jwt', 'Application/AT+JWT', 'absent'],
        subjectClaim: 'oid',
        subjectPrefix: 'm:',
        subjectPattern: 'svc-*',
        teams: 'heym-*',
        scopeClaims: ['scp', 'roles'],
        require: { tid: 'x', level: [1, 2], email_verified: true },
        maxLifetimeSeconds: 31_622_400,
        clockToleranceSeconds: 300,
        iatRequired: false,
        console: { clientId: 'console' },
      },
      {
        issuer: 'none',
        audiences: ['v'],
        keys: { jwksFile: '/keys/jwks.json' },
        subjectPrefix: 'wl:',
        trustDomain: 'corp.example',
      },
      { ...machines, teams: ['a-*', 'b'] },
    ],
  });
  t.match(issuers[0], {
    issuer: 'https://id.example.com/',
    keys: { kind: 'jwksUrl', url: 'https://id.example.com/jwks' },
    subjectPrefix: '',
    subjectClaim: 'sub',
    scopeClaims: ['scope'],
    maxLifetimeSeconds: 86_400,
    clockToleranceSeconds: 5,
    isIatRequired: true,
    areOperators: false,
    teams: undefined,
  });
  t.match(issuers[1], {
    keys: { kind: 'discovery' },
    ca: certificate,
    algorithms: ['RS512'],
    types: ['at+jwt', 'absent'],
    subjectClaim: 'oid',
    subjectPattern: 'svc-*',
    teams: ['heym-*'],
    scopeClaims: ['scp', 'roles'],
    maxLifetimeSeconds: 31_622_400,
    clockToleranceSeconds: 300,
    isIatRequired: false,
    consoleClientId: 'console',
  });
  t.same(
    [...issuers[1]!.require],
    [
      ['tid', ['x']],
      ['level', [1, 2]],
      ['email_verified', [true]],
    ],
  );
  t.match(issuers[2], {
    issuer: undefined,
    trustDomain: 'corp.example',
    keys: { kind: 'fixed', keys: [{ kid: 'one' }, { kid: 'two' }] },
  });
  t.match(issuers[3], { teams: ['a-*', 'b'], keys: { kind: 'fixed', keys: [{ kid: undefined }] } });
  t.equal(issuers[2]?.keys.kind, 'fixed');
});

t.test(
  'one entry that breaks one rule',
  folded(async (t) => {
    for (const [what, entry, fault] of [
      [
        'no issuer',
        { ...people, issuer: undefined },
        /^CREDVAULT_ISSUERS_FILE: \/issuers\/0\/issuer /,
      ],
      ['no audience', { ...people, audiences: [] }, /\/issuers\/0\/audiences /],
      ['an audience twice', { ...people, audiences: ['a', 'a'] }, /\/audiences breaks unique/],
      ['no keys', { ...people, keys: undefined }, /\/issuers\/0\/keys /],
      ['no source of keys', { ...people, keys: {} }, /\/keys breaks exactlyOne/],
      [
        'two sources of keys',
        { ...people, keys: { ...people.keys, publicKeyFile: '/keys/ec.pem' } },
        /\/keys breaks exactlyOne/,
      ],
      ['no discovery', { ...people, keys: { discovery: false } }, /\/keys\/discovery /],
      [
        'a secret',
        { ...people, keys: { ...people.keys, secret: marker } },
        /\/keys\/secret breaks unknownField/,
      ],
      [
        'plain http',
        { ...people, keys: { jwksUrl: 'http://id.example.com/' } },
        /\/keys\/jwksUrl must be https/,
      ],
      [
        'a JWKS with a password',
        { ...people, keys: { jwksUrl: `https://u:${marker}@x/` } },
        /\/keys\/jwksUrl /,
      ],
      ['HS256', { ...people, algorithms: ['HS256'] }, /\/algorithms\/0 /],
      ['none', { ...people, algorithms: ['none'] }, /\/algorithms\/0 /],
      [
        'algorithms twice',
        { ...people, algorithms: ['ES256', 'ES256'] },
        /\/algorithms breaks unique/,
      ],
      [
        'an algorithm that the key is not for',
        { ...machines, algorithms: ['RS256'] },
        /\/algorithms must name one for each/,
      ],
      ['another type', { ...people, types: ['id_token'] }, /\/types\/0 breaks enum/],
      ['a prefix without its end', { ...people, subjectPrefix: 'k8s' }, /\/subjectPrefix /],
      ['a prefix with a blank', { ...people, subjectPrefix: 'k 8s:' }, /\/subjectPrefix /],
      ['a prefix beyond ASCII', { ...people, subjectPrefix: 'ü:' }, /\/subjectPrefix /],
      [
        'a prefix that is too long',
        { ...people, subjectPrefix: `${'a'.repeat(257)}:` },
        /\/subjectPrefix /,
      ],
      [
        'a regular expression',
        { ...people, subjectPattern: '^repo:.*$' },
        /\/subjectPattern breaks noRegularExpression/,
      ],
      ['teams that are no slugs', { ...people, teams: 'Heym*' }, /\/teams /],
      ['no teams', { ...people, teams: [] }, /\/teams /],
      ['a lifetime of 0', { ...people, maxLifetimeSeconds: 0 }, /\/maxLifetimeSeconds /],
      ['a lifetime as text', { ...people, maxLifetimeSeconds: '60' }, /\/maxLifetimeSeconds /],
      [
        'a tolerance of 301 s',
        { ...people, clockToleranceSeconds: 301 },
        /\/clockToleranceSeconds /,
      ],
      ['a list of operators', { ...people, operators: ['alice'] }, /\/operators /],
      [
        'operators by a file',
        { ...machines, operators: true },
        /\/operators must not be true where the keys are files/,
      ],
      [
        'operators in teams',
        { ...people, operators: true, teams: 'a*' },
        /\/operators must not be true where the subjects/,
      ],
      [
        'an issuer of everybody',
        { ...people, issuer: 'https://token.actions.githubusercontent.com' },
        /\/require is required/,
      ],
      [
        'one of its enterprises',
        { ...people, issuer: 'https://token.actions.githubusercontent.com/octo' },
        /\/require is required/,
      ],
      ['GitLab', { ...people, issuer: 'https://gitlab.com' }, /\/require is required/],
      ['Google', { ...people, issuer: 'accounts.google.com' }, /\/require is required/],
      [
        'Microsoft, everybody',
        { ...people, issuer: 'https://login.microsoftonline.com/common/v2.0' },
        /\/require is required/,
      ],
      [
        'Microsoft, at home',
        {
          ...people,
          issuer: 'https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0',
        },
        /\/require is required/,
      ],
      [
        'an empty requirement',
        { ...people, issuer: 'https://gitlab.com', require: {} },
        /\/require is required/,
      ],
      ['a requirement of nothing', { ...people, require: { a: [] } }, /\/require\/a /],
      ['a requirement of null', { ...people, require: { a: null } }, /\/require\/a /],
      ['no trust domain', { ...people, issuer: 'none' }, /\/trustDomain is required/],
      [
        'a trust domain in capitals',
        { ...people, issuer: 'none', trustDomain: 'Corp' },
        /\/trustDomain /,
      ],
      [
        'an issuer that is not discovered',
        { ...people, issuer: 'id.example.com', keys: { discovery: true } },
        /\/issuer must be an https URL/,
      ],
      [
        'one over plain http',
        { ...people, issuer: 'http://id.example.com', keys: { discovery: true } },
        /\/issuer must be an https URL/,
      ],
      [
        'one with a query',
        { ...people, issuer: 'https://x/?a', keys: { discovery: true } },
        /\/issuer must be an https URL/,
      ],
      ['a CA for nothing', { ...machines, caFile: '/ca.pem' }, /\/caFile is of no use/],
      ['a CA that is a key', { ...people, caFile: '/ca-key.pem' }, /\/caFile must be certificates/],
      [
        'a CA that is not there',
        { ...people, caFile: `/${marker}` },
        /\/caFile names a file that cannot be read \(ENOENT\)/,
      ],
      [
        'a private key',
        { ...people, keys: { publicKeyFile: '/keys/private.pem' } },
        /\/keys\/publicKeyFile must be a public key/,
      ],
      [
        'keys without an id',
        { ...people, keys: { jwksFile: '/keys/no-kid.json' } },
        /\/keys\/jwksFile must give each key an id/,
      ],
      [
        'private keys',
        { ...people, keys: { jwksFile: '/keys/private.json' } },
        /\/keys\/jwksFile must hold public keys/,
      ],
      [
        'keys twice',
        { ...people, keys: { jwksFile: '/keys/twice.json' } },
        /\/keys\/jwksFile must hold public keys/,
      ],
      [
        'no key',
        { ...people, keys: { jwksFile: '/keys/empty.json' } },
        /\/keys\/jwksFile must hold a key/,
      ],
      [
        'no JWKS',
        { ...people, keys: { jwksFile: '/keys/text.json' } },
        /\/keys\/jwksFile must be a JWKS/,
      ],
      [
        'an unknown member',
        { ...people, audience: 'x' },
        /\/issuers\/0\/audience breaks unknownField/,
      ],
      [
        'an unknown member that tells something',
        { ...people, [`${marker}12345`]: 'x' },
        /\/issuers\/0 breaks unknownField/,
      ],
      ['a client without an id', { ...people, console: {} }, /\/console\/clientId /],
    ] as const) {
      const faults = faultsOfEntry(entry);
      t.equal(faults.length, 1, `${what}: ${faults.join(' | ')}`);
      t.match(faults[0], fault, what);
      t.notOk(faults.join('').includes(marker), `${what}: no value is said`);
    }
  }),
);

t.test('two entries that meet', async (t) => {
  const second = {
    ...people,
    issuer: 'https://b.example.com',
    keys: { publicKeyFile: '/keys/ed.pem' },
  };
  for (const [what, entries, fault] of [
    [
      'one issuer twice',
      [people, { ...second, issuer: people.issuer, subjectPrefix: 'b:' }],
      /\/issuers\/1\/issuer is that of \/issuers\/0/,
    ],
    [
      'no prefix twice',
      [people, second],
      /\/issuers\/1\/subjectPrefix is that of \/issuers\/0: at most one/,
    ],
    [
      'one prefix twice',
      [machines, { ...second, subjectPrefix: 'k8s:' }],
      /\/issuers\/1\/subjectPrefix is that of/,
    ],
    [
      'the beginning of another',
      [machines, { ...second, subjectPrefix: 'k8s:eu:' }],
      /one the beginning of the other/,
    ],
    [
      'the other way round',
      [{ ...second, subjectPrefix: 'k8s:eu:' }, machines],
      /one the beginning of the other/,
    ],
    [
      'one JWKS',
      [
        people,
        { ...second, subjectPrefix: 'b:', keys: { jwksUrl: 'https://ID.example.com:443/jwks' } },
      ],
      /\/issuers\/1\/keys are those of/,
    ],
    [
      'one key',
      [machines, { ...second, subjectPrefix: 'b:', keys: { publicKeyFile: '/keys/ec.pem' } }],
      /\/issuers\/1\/keys are those of/,
    ],
    [
      'one key, as a JWKS',
      [machines, { ...second, subjectPrefix: 'b:', keys: { jwksFile: '/keys/ec.json' } }],
      /\/issuers\/1\/keys are those of/,
    ],
    [
      'two without an issuer',
      [
        { ...machines, issuer: 'none', trustDomain: 'a' },
        { ...second, issuer: 'none', trustDomain: 'b', subjectPrefix: 'b:' },
      ],
      /\/issuers\/1\/issuer is that of/,
    ],
  ] as const) {
    const faults = faultsOf({ issuers: entries });
    t.equal(faults.length, 1, `${what}: ${faults.join(' | ')}`);
    t.match(faults[0], fault, what);
  }
  t.same(faultsOf({ issuers: [people, machines, { ...second, subjectPrefix: 'k8s2:' }] }), []);
});

t.test('every fault is said at once', async (t) => {
  const faults = faultsOf({
    issuers: [
      { ...people, keys: { jwksUrl: 'ftp://x' }, subjectPattern: '^x' },
      { ...machines, algorithms: ['HS256'], operators: true, caFile: `/${marker}` },
      { ...people, [marker]: 1, keys: { publicKeyFile: `/${marker}` }, audiences: 'x' },
      marker,
    ],
    more: 1,
  });
  t.notOk(faults.join('').includes(`/${marker}`));
  for (const expected of [
    /\/more breaks unknownField/,
    /\/issuers\/0\/keys\/jwksUrl/,
    /\/issuers\/0\/subjectPattern/,
    /\/issuers\/1\/algorithms\/0/,
    /\/issuers\/1\/operators/,
    /\/issuers\/1\/caFile/,
    /\/issuers\/2\/audiences/,
    /\/issuers\/2\/keys\/publicKeyFile/,
    /\/issuers\/2\/issuer is that of \/issuers\/0/,
    /\/issuers\/2\/subjectPrefix is that of \/issuers\/0/,
    /\/issuers\/3 /,
  ])
    t.ok(
      faults.some((fault) => expected.test(fault)),
      `${String(expected)} among ${faults.join(' | ')}`,
    );
});

t.test('a text that is no file of issuers', async (t) => {
  for (const [what, text] of Object.entries({
    'no JSON': marker,
    'an empty one': '',
    'a list': '[]',
    'a member twice': '{"issuers":[],"issuers":[]}',
    null: 'null',
    'no issuer': '{"issuers":[]}',
    'too long': `{"issuers":[]}${' '.repeat(1024 * 1024)}`,
    '101 issuers': JSON.stringify({ issuers: Array.from({ length: 101 }, () => 1) }),
  })) {
    const faults = faultsOf(text);
    t.ok(faults.length > 0, what);
    t.notOk(faults.join('').includes(marker), what);
  }
  t.match(faultsOf('{}', { CREDVAULT_ISSUERS_FILE: '/nowhere' }), [
    /^CREDVAULT_ISSUERS_FILE names a file that cannot be read \(ENOENT\)/,
  ]);
  t.match(faultsOf('{}', { CREDVAULT_ISSUERS_FILE: '' }), [/^CREDVAULT_ISSUERS_FILE /]);
  t.match(
    faultsOf(
      { issuers: [people] },
      { CREDVAULT_JWT_ISSUER: 'x', CREDVAULT_JWT_SECRET: randomBytes(40).toString('hex') },
    ),
    [
      /^CREDVAULT_JWT_ISSUER must not be set beside/,
      /^CREDVAULT_JWT_SECRET must not be set beside/,
    ],
  );
});

t.test('an operator is a subject of an issuer, and of one that is not kept to teams', async (t) => {
  const issuers = [
    { ...people, subjectPrefix: 'p:' },
    { ...machines, teams: 'a-*' },
  ];
  t.same(faultsOf({ issuers }, { CREDVAULT_OPERATORS: 'p:alice,p:Jane Doe' }), []);
  t.match(faultsOf({ issuers }, { CREDVAULT_OPERATORS: 'p:alice,bob' }), [
    'CREDVAULT_OPERATORS names at position 2 a subject that no issuer has, prefix included',
  ]);
  t.match(faultsOf({ issuers }, { CREDVAULT_OPERATORS: 'k8s:x' }), [
    'CREDVAULT_OPERATORS names at position 1 a subject of an issuer that is kept to teams',
  ]);
});

t.test('what docs/identity.md shows is what is taken', async (t) => {
  const page = readFileSync(new URL('../../docs/identity.md', import.meta.url), 'utf8');
  const blocks = [...page.matchAll(/```json\n([^`]*)```/g)].map(
    ([, text]) => JSON.parse(text!) as { issuers?: object[] },
  );
  t.ok(blocks.length > 3, `${blocks.length} examples`);
  const shown = (path: string): string => (path.endsWith('ca.pem') ? certificate : jwks);
  const jwks = files['/keys/jwks.json']!;
  for (const block of blocks) {
    const text = JSON.stringify(block.issuers === undefined ? { issuers: [block] } : block);
    const { config } = readConfig(environment, 'serve', (path) =>
      path === '/etc/issuers.json' ? text : shown(path),
    );
    t.ok(config.issuers.length > 0);
  }
  const members = Object.keys(entrySchema.shape);
  for (const name of members) t.match(page, `| \`${name}\` |`, `${name} is described`);
});
