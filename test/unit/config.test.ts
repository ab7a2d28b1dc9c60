import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { inspect } from 'node:util';
import t from 'tap';
import { ConfigInvalid, fileNames, type Mode, names, readConfig } from '../../src/config/config.ts';
import { testCertificate } from '../helpers/certificate.ts';
import type { Environment } from '../../src/config/reader.ts';

const rootKey = (): string => `${randomBytes(32).toString('base64url')}=`;
const noFiles = (): never => {
  throw Object.assign(new Error('no such file'), { code: 'ENOENT' });
};
const faultsOf = (
  environment: Environment,
  mode: Mode,
  readFile: (path: string) => string = noFiles,
): readonly string[] => {
  try {
    readConfig(environment, mode, readFile);
    return [];
  } catch (error) {
    if (error instanceof ConfigInvalid) return error.faults;
    throw error;
  }
};
const production: Environment = {
  DATABASE_URL: 'postgresql://vault:pa%2Fss@db1:5432,db2/vault?sslmode=verify-full',
  CREDVAULT_ROOT_KEYS: `${rootKey()},${rootKey()}`,
  CREDVAULT_JWT_ISSUER: 'https://id.example.com/',
  CREDVAULT_JWT_AUDIENCE: 'credential-vault',
  CREDVAULT_JWT_SECRET: randomBytes(32).toString('base64'),
};
const pem = (pair: {
  publicKey: { export(options: { type: 'spki'; format: 'pem' }): string | Buffer };
}): string => pair.publicKey.export({ type: 'spki', format: 'pem' }) as string;

t.test(
  'local runs with nothing set, on 127.0.0.1:7300, and has no secrets to give away',
  async (t) => {
    const { config, secrets } = readConfig({ PATH: '/bin', HOME: '/root' }, 'local', noFiles);
    t.match(config, {
      mode: 'local',
      host: '127.0.0.1',
      port: 7300,
      logLevel: 'info',
      dataFolder: './data',
      poolMax: 16,
      namedStatements: true,
      tokenFormat: 'fernet',
      operators: [],
      publicUrl: 'http://127.0.0.1:7300',
    });
    t.same(config.rateLimits, { address: 12_000, subject: 6_000 });
    t.same(config.growthLimits, {
      credentials: 1_000_000,
      ciphertextBytes: 4 * 1024 ** 3,
      members: 10_000,
      authorizations: 100,
      grants: 1_000,
      keys: 10_000,
    });
    t.same(Object.keys(secrets), []);
  },
);

t.test('serve runs with the least that production needs', async (t) => {
  const { config, secrets } = readConfig(production, 'serve', noFiles);
  t.match(config, {
    mode: 'serve',
    host: '127.0.0.1',
    issuers: [
      {
        issuer: 'https://id.example.com/',
        audiences: ['credential-vault'],
        keys: { kind: 'secret' },
        algorithms: ['HS256'],
        subjectPrefix: '',
        teams: undefined,
        areOperators: true,
      },
    ],
    trustedProxies: [],
    isTlsTerminated: false,
  });
  t.equal(secrets.databaseUrl, production['DATABASE_URL']);
  t.equal(secrets.rootKeys, production['CREDVAULT_ROOT_KEYS']);
  t.equal(secrets.jwtSecret, production['CREDVAULT_JWT_SECRET']);
});

t.test('every setting of serve arrives where it belongs', async (t) => {
  const { certificate, key } = testCertificate();
  const { config, secrets } = readConfig(
    {
      ...production,
      HOST: '::',
      PORT: '443',
      LOG_LEVEL: 'debug',
      CREDVAULT_OPERATORS: 'ops,auth0|7',
      CREDVAULT_TOKEN_FORMAT: 'fernet-256',
      CREDVAULT_TLS_CERT: certificate,
      CREDVAULT_TLS_KEY: key,
      CREDVAULT_TRUST_PROXY: '10.0.0.7,10.1.0.0/16,fd00::/8',
      CREDVAULT_NAMED_STATEMENTS: 'off',
      CREDVAULT_POOL_SIZE: '40',
      CREDVAULT_RATE_LIMIT_ADDRESS: '0',
      CREDVAULT_RATE_LIMIT_SUBJECT: '100',
      CREDVAULT_PUBLIC_URL: 'https://vault.example.com',
      CREDVAULT_EGRESS_ALLOW: 'grist.internal:8484=10.1.0.0/16,models.internal:443=10.2.0.7@ml',
      CREDVAULT_EGRESS_CA: certificate + certificate,
    },
    'serve',
    noFiles,
  );
  t.match(config, {
    host: '::',
    port: 443,
    logLevel: 'debug',
    operators: ['ops', 'auth0|7'],
    tokenFormat: 'fernet-256',
    tlsCertificate: certificate,
    trustedProxies: ['10.0.0.7', '10.1.0.0/16', 'fd00::/8'],
    namedStatements: false,
    poolMax: 40,
    rateLimits: { address: 0, subject: 100 },
    publicUrl: 'https://vault.example.com',
  });
  t.match(config.egress, {
    allow: [
      { host: 'grist.internal', port: 8484, team: undefined },
      { host: 'models.internal', port: 443, team: 'ml' },
    ],
    ca: certificate + certificate,
  });
  t.match(faultsOf({ ...production, CREDVAULT_EGRESS_CA: certificate + key }, 'serve'), [
    /^CREDVAULT_EGRESS_CA must be certificates without a key/,
  ]);
  t.same(
    readConfig({ CREDVAULT_EGRESS_ALLOW: 'model.test:11434=127.0.0.1' }, 'local', noFiles).config
      .egress.allow.length,
    1,
    'in local mode too',
  );
  t.equal(secrets.tlsKey, key);
});

t.test('the hosts of credentials are of a domain that nothing else is under', async (t) => {
  const with_ = (suffix: string, more: Record<string, string> = {}): readonly string[] =>
    faultsOf(
      {
        ...production,
        CREDVAULT_PUBLIC_URL: 'https://vault.example.com',
        CREDVAULT_JWT_ISSUER: 'https://id.corp.example/realm',
        CREDVAULT_OAUTH_REDIRECT_URI: 'https://app.platform.example/oauth',
        CREDVAULT_BROKER_PORT: '7302',
        CREDVAULT_BROKER_PUBLIC_URL: 'https://broker.example.net',
        CREDVAULT_BROKER_HOST_SUFFIX: suffix,
        ...more,
      },
      'serve',
    );
  for (const suffix of [
    'creds.example',
    'broker.example.net',
    'x.broker.example.net',
    'vault-example.com',
  ])
    t.same(with_(suffix), [], suffix);
  for (const suffix of [
    'example.com',
    'vault.example.com',
    'creds.vault.example.com',
    'corp.example',
    'id.corp.example',
    'x.id.corp.example',
    'platform.example',
    'app.platform.example',
  ])
    t.match(with_(suffix), [/^CREDVAULT_BROKER_HOST_SUFFIX must be a domain of its own/], suffix);
  t.match(
    faultsOf(
      {
        ...production,
        CREDVAULT_BROKER_PORT: '7302',
        CREDVAULT_BROKER_HOST_SUFFIX: 'creds.example',
      },
      'serve',
    ),
    [/^CREDVAULT_BROKER_HOST_SUFFIX needs CREDVAULT_BROKER_PUBLIC_URL/],
  );
  t.match(
    faultsOf(
      {
        CREDVAULT_PUBLIC_URL: 'https://vault.example.com',
        CREDVAULT_BROKER_PORT: '7302',
        CREDVAULT_BROKER_PUBLIC_URL: 'https://broker.example.net',
        CREDVAULT_BROKER_HOST_SUFFIX: 'example.com',
      },
      'local',
    ),
    [/must be a domain of its own/],
    'in local mode too',
  );
  t.match(
    readConfig(
      {
        ...production,
        CREDVAULT_BROKER_PUBLIC_URL: 'https://broker.example.net',
        CREDVAULT_BROKER_HOST_SUFFIX: 'creds.example',
      },
      'serve',
      noFiles,
    ).config.broker,
    { hostSuffix: 'creds.example' },
  );
});

t.test('the broker: off, here, elsewhere', async (t) => {
  const brokerOf = (more: Record<string, string>, mode: 'serve' | 'local' = 'serve'): unknown =>
    readConfig({ ...(mode === 'serve' ? production : {}), ...more }, mode, noFiles).config.broker;
  t.equal(brokerOf({}), undefined);
  t.same(brokerOf({ CREDVAULT_BROKER_PORT: '7302' }), {
    listen: { host: '127.0.0.1', port: 7302 },
    publicUrl: 'http://127.0.0.1:7302',
  });
  t.same(brokerOf({ CREDVAULT_BROKER_PORT: '0' }, 'local'), {
    listen: { host: '127.0.0.1', port: 0 },
    publicUrl: undefined,
  });
  t.same(brokerOf({ CREDVAULT_BROKER_PUBLIC_URL: 'https://broker.example.com' }), {
    listen: undefined,
    publicUrl: 'https://broker.example.com',
  });
  t.same(
    brokerOf({
      CREDVAULT_BROKER_PORT: '443',
      CREDVAULT_BROKER_HOST: '::1',
      CREDVAULT_BROKER_PUBLIC_URL: 'https://b.example',
    }),
    { listen: { host: '::1', port: 443 }, publicUrl: 'https://b.example' },
  );
  t.match(faultsOf({ ...production, CREDVAULT_BROKER_HOST: '127.0.0.1' }, 'serve'), [
    /^CREDVAULT_BROKER_HOST needs CREDVAULT_BROKER_PORT/,
  ]);
  t.match(faultsOf(production, 'broker'), [/^CREDVAULT_BROKER_PORT is required/]);
  t.same(faultsOf({ ...production, CREDVAULT_BROKER_PORT: '7302' }, 'broker'), []);
  t.match(faultsOf({ CREDVAULT_BROKER_PORT: '7302', CREDVAULT_BROKER_HOST: '0.0.0.0' }, 'local'), [
    /^CREDVAULT_BROKER_HOST must be 127\.0\.0\.1/,
  ]);
  const outside = {
    ...production,
    CREDVAULT_BROKER_PORT: '7302',
    CREDVAULT_BROKER_HOST: '0.0.0.0',
  };
  t.match(faultsOf(outside, 'serve'), [/^CREDVAULT_BROKER_HOST may be outside loopback only with/]);
  t.same(faultsOf({ ...outside, CREDVAULT_TLS_TERMINATED: '1' }, 'serve'), []);
});

t.test('bounds of growth', (t) => {
  const { growthLimits } = readConfig(
    {
      ...production,
      CREDVAULT_CREDENTIALS_MAX: '5000',
      CREDVAULT_CIPHERTEXT_BYTES_MAX: '1125899906842624',
      CREDVAULT_MEMBERS_MAX: '1',
      CREDVAULT_AUTHORIZATIONS_MAX: '7',
      CREDVAULT_GRANTS_MAX: '10000',
      CREDVAULT_KEYS_MAX: '3',
    },
    'serve',
    noFiles,
  ).config;
  t.same(growthLimits, {
    credentials: 5_000,
    ciphertextBytes: 1024 ** 5,
    members: 1,
    authorizations: 7,
    grants: 10_000,
    keys: 3,
  });
  t.end();
});

t.test('config and secrets are frozen, and the secrets do not print', async (t) => {
  const { config, secrets } = readConfig(production, 'serve', noFiles);
  t.ok(
    [
      config,
      config.issuers,
      config.issuers[0],
      config.issuers[0]?.keys,
      config.rateLimits,
      config.growthLimits,
      config.operators,
      config.trustedProxies,
      config.egress,
      config.egress.allow,
      secrets,
    ].every(Object.isFrozen),
  );
  const printed = `${inspect(secrets, { depth: 9, showHidden: true })}${JSON.stringify({ secrets })}${JSON.stringify(config)}`;
  for (const name of ['DATABASE_URL', 'CREDVAULT_ROOT_KEYS', 'CREDVAULT_JWT_SECRET'])
    t.notOk(printed.includes(production[name]!), name);
});

t.test('all faults stand in one message, with names and rules but no value', async (t) => {
  const environment = {
    DATABASE_URL: 'mysql://zzz-value@h/d',
    CREDVAULT_ROOT_KEYS: 'zzz-value',
    CREDVAULT_JWT_SECRET: 'zzz-value',
    CREDVAULT_JWT_JWKS_URL: 'http://zzz-value.example.com/',
    PORT: 'zzz-value',
    LOG_LEVEL: 'zzz-value',
    HOST: '0.0.0.0',
    CREDVAULT_POOL_SIZE: '0',
    CREDVAULT_TRUST_PROXY: 'zzz-value',
    CREDVAULT_ROOT_KEY: 'zzz-value',
    CREDVAULT_TLS_KEY_FILE: '/zzz-value',
  };
  let message = '';
  try {
    readConfig(environment, 'serve', noFiles);
  } catch (error) {
    message = (error as Error).message;
  }
  for (const name of [
    ...Object.keys(environment),
    'CREDVAULT_JWT_ISSUER',
    'CREDVAULT_JWT_AUDIENCE',
    'exactly one of',
  ])
    t.match(message, name, name);
  t.notMatch(message, 'zzz-value');
  t.match(message, /^the configuration has 15 faults:\n- /);
});

t.test('a value that breaks a rule is refused, never replaced by the default', async (t) => {
  const bad: Record<string, readonly string[]> = {
    PORT: ['', '-1', '65536', '7300.0', '7300 ', '0x10', '1e3', 'NaN'],
    HOST: ['', 'a b', '999.1.1.1:80', 'ho/st', '[::1]'],
    LOG_LEVEL: ['', 'INFO', 'silent', 'verbose'],
    CREDVAULT_OPERATORS: ['', ',', 'a,', 'a,a', 'space ', 'a, b', 'a,é', 'x'.repeat(513)],
    CREDVAULT_TOKEN_FORMAT: ['', 'aes', 'FERNET'],
    CREDVAULT_POOL_SIZE: ['', '1', '501', 'many', '16.5'],
    CREDVAULT_NAMED_STATEMENTS: ['', 'true', '1'],
    CREDVAULT_RATE_LIMIT_ADDRESS: ['', '-1', 'off'],
    CREDVAULT_RATE_LIMIT_SUBJECT: ['', '-1', 'off'],
    CREDVAULT_CREDENTIALS_MAX: ['', '0', '-1', '1000000001', '1e6', 'unlimited'],
    CREDVAULT_CIPHERTEXT_BYTES_MAX: ['', '0', '4GiB', '1125899906842625', '9'.repeat(17)],
    CREDVAULT_MEMBERS_MAX: ['', '0', '1000001'],
    CREDVAULT_AUTHORIZATIONS_MAX: ['', '0', '100001'],
    CREDVAULT_GRANTS_MAX: ['', '0', '10001'],
    CREDVAULT_KEYS_MAX: ['', '0', '1000001'],
    CREDVAULT_PUBLIC_URL: [
      '',
      'vault.example.com',
      'ftp://x',
      'https://u:p@x',
      'https://x/?a=b',
      'https://x/',
      'https://x#f',
    ],
    CREDVAULT_BROKER_PORT: ['', '-1', '65536', 'on'],
    CREDVAULT_BROKER_PUBLIC_URL: ['', 'broker.example.com', 'https://x/', 'https://x/?a=b'],
    CREDVAULT_BROKER_HOST_SUFFIX: [
      '',
      'hosts',
      '.hosts.example',
      'hosts.example.',
      'Hosts.example',
      '*.hosts.example',
      'hosts.example:443',
      '10.0.0.1',
      'a_b.example',
      `${'a'.repeat(64)}.example`,
    ],
    CREDVAULT_TRUST_PROXY: [
      '',
      'loopback',
      '10.0.0',
      '0.0.0.0/0',
      '::/0',
      '10.0.0.0/33',
      '10.0.0.1,',
      '10.0.0.1/8/8',
      'true',
      '1',
      '::ffff:0:0/96',
      '::ffff:10.0.0.0/103',
      'fe80::1%eth0',
    ],
    CREDVAULT_TLS_TERMINATED: ['', 'yes', 'true'],
    CREDVAULT_EGRESS_ALLOW: [
      '',
      'grist',
      'grist:80',
      'grist:80=10.0.0.1,',
      'grist:80=0.0.0.0/0',
      '127.0.0.1:80=127.0.0.1',
      'grist:80=169.254.169.254',
      'grist:80=10.0.0.1@Team',
    ],
    CREDVAULT_EGRESS_CA: ['', 'x', '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----'],
    CREDVAULT_JWT_ISSUER: ['', 'a\nb', 'x'.repeat(1_001)],
    CREDVAULT_JWT_AUDIENCE: ['', 'a\0b'],
  };
  for (const [name, values] of Object.entries(bad)) {
    for (const value of values)
      t.match(
        faultsOf({ ...production, [name]: value }, 'serve'),
        [new RegExp(`^${name} `)],
        `${name}=${JSON.stringify(value).slice(0, 40)}`,
      );
  }
});

t.test(
  'unknown names with the prefix are refused in every mode, other names are not looked at',
  async (t) => {
    for (const mode of ['local', 'serve', 'migrate'] as const) {
      const faults = faultsOf(
        {
          ...(mode === 'local' ? {} : production),
          CREDVAULT_TLS_CRET: 'x',
          CREDVAULT_OPERATORS_FILE: 'x',
          NODE_ENV: 'production',
          SOMETHING: 'x',
        },
        mode,
      );
      t.same(
        faults,
        [
          'CREDVAULT_OPERATORS_FILE is not a name that the vault knows',
          'CREDVAULT_TLS_CRET is not a name that the vault knows',
        ],
        mode,
      );
    }
  },
);

t.test(
  'each secret may come from a file, without its last line end; name and file together are a fault',
  async (t) => {
    const files: Record<string, string> = {
      '/run/url': `${production['DATABASE_URL']}\n`,
      '/run/keys': `${production['CREDVAULT_ROOT_KEYS']}\r\n`,
      '/run/jwt': `${production['CREDVAULT_JWT_SECRET']}\n\n`,
    };
    const readFile = (path: string): string => files[path] ?? noFiles();
    const {
      DATABASE_URL: _1,
      CREDVAULT_ROOT_KEYS: _2,
      CREDVAULT_JWT_SECRET: _3,
      ...rest
    } = production;
    const { secrets } = readConfig(
      {
        ...rest,
        DATABASE_URL_FILE: '/run/url',
        CREDVAULT_ROOT_KEYS_FILE: '/run/keys',
        CREDVAULT_JWT_SECRET_FILE: '/run/jwt',
      },
      'serve',
      readFile,
    );
    t.equal(secrets.databaseUrl, production['DATABASE_URL']);
    t.equal(secrets.rootKeys, production['CREDVAULT_ROOT_KEYS']);
    t.equal(
      secrets.jwtSecret,
      `${production['CREDVAULT_JWT_SECRET']}\n`,
      'only one line end is taken off',
    );
    t.same(faultsOf({ ...production, DATABASE_URL_FILE: '/run/url' }, 'serve', readFile), [
      'DATABASE_URL and DATABASE_URL_FILE must not both be set',
    ]);
    t.same(
      faultsOf(
        {
          ...rest,
          DATABASE_URL_FILE: '/absent',
          CREDVAULT_ROOT_KEYS_FILE: '/run/keys',
          CREDVAULT_JWT_SECRET_FILE: '/run/jwt',
        },
        'serve',
        readFile,
      ),
      ['DATABASE_URL_FILE names a file that cannot be read (ENOENT)'],
    );
    t.ok([...fileNames].every((name) => names.includes(name)));
  },
);

t.test(
  'serve refuses missing, malformed, doubled and weak root keys, and says at which position',
  async (t) => {
    const good = rootKey();
    const cases: readonly (readonly [string | undefined, RegExp])[] = [
      [undefined, /is required/],
      [`${good},`, /position 2/],
      [good.slice(0, -1), /position 1/],
      [`${good},${good}`, /same key at positions 1 and 2/],
      [`${Buffer.alloc(32).toString('base64url')}=`, /too regular/],
      [`${Buffer.alloc(32, 0x5a).toString('base64url')}=`, /too regular/],
      [`${Buffer.alloc(31).toString('base64url')}`, /44 characters/],
      [randomBytes(32).fill(0xfb, 0, 3).toString('base64'), /44 characters/], // the standard alphabet
      [`${'A'.repeat(42)}B=`, /44 characters/], // another spelling of 32 zero bytes
      [` ${good}`, /44 characters/],
      [Array.from({ length: 17 }, rootKey).join(), /at most 16/],
    ];
    for (const [value, rule] of cases)
      t.match(
        faultsOf({ ...production, CREDVAULT_ROOT_KEYS: value }, 'serve'),
        [rule],
        String(rule),
      );
  },
);

t.test('a shared secret must be 32 bytes and not visibly regular', async (t) => {
  for (const [value, rule] of [
    ['short', /32 bytes/],
    ['a'.repeat(64), /too regular/],
    ['changeme'.repeat(8), /too regular/],
    ['0123456789abcdef'.repeat(4), /too regular/],
    ['abcdefg'.repeat(5), /too regular/],
    ['0123456'.padEnd(40, '0'), /too regular/],
  ] as const) {
    t.match(faultsOf({ ...production, CREDVAULT_JWT_SECRET: value }, 'serve'), [rule]);
  }
  t.same(
    faultsOf({ ...production, CREDVAULT_JWT_SECRET: randomBytes(16).toString('hex') }, 'serve'),
    [],
  );
});

t.test('the types of tokens are narrowed by words out of a list', (t) => {
  const typesOf = (text: string): unknown =>
    readConfig({ ...production, CREDVAULT_JWT_TYPES: text }, 'serve', noFiles).config.issuers[0]
      ?.types;
  t.same(readConfig(production, 'serve', noFiles).config.issuers[0]?.types, [
    'absent',
    'JWT',
    'JOSE',
    'at+jwt',
  ]);
  t.same(typesOf('at+jwt'), ['at+jwt']);
  t.same(typesOf('application/at+jwt,AT+JWT'), ['at+jwt']);
  t.same(typesOf('absent,jwt,Jose'), ['absent', 'JWT', 'JOSE']);
  for (const bad of ['id_token', 'JWT,', 'JWT, JOSE', 'jwt,logout+jwt', 'none', '*'])
    t.match(
      faultsOf({ ...production, CREDVAULT_JWT_TYPES: bad }, 'serve'),
      [
        'CREDVAULT_JWT_TYPES must be a comma-separated list out of absent, jwt, jose, at+jwt, application/at+jwt',
      ],
      bad,
    );
  t.end();
});

t.test('exactly one source of signing keys', async (t) => {
  const { CREDVAULT_JWT_SECRET: secret, ...none } = production;
  const url = 'https://id.example.com/jwks';
  t.match(faultsOf(none, 'serve'), [/^exactly one of/]);
  t.match(
    faultsOf({ ...none, CREDVAULT_JWT_SECRET: secret, CREDVAULT_JWT_JWKS_URL: url }, 'serve'),
    [/^exactly one of/],
  );
  t.same(
    readConfig({ ...none, CREDVAULT_JWT_JWKS_URL: url }, 'serve', noFiles).config.issuers[0]?.keys,
    {
      kind: 'jwksUrl',
      url,
    },
  );
  t.same(
    faultsOf({ ...none, CREDVAULT_JWT_JWKS_URL: 'http://127.0.0.1:9000/jwks' }, 'serve'),
    [],
    'plain http is for loopback',
  );
  for (const bad of [
    'http://id.example.com/jwks',
    'https://u:p@id.example.com/',
    'file:///etc/jwks',
    'id.example.com',
    'http://127.0.0.1.evil.example/',
    'https://x/#f',
  ]) {
    t.match(
      faultsOf({ ...none, CREDVAULT_JWT_JWKS_URL: bad }, 'serve'),
      [/^CREDVAULT_JWT_JWKS_URL /],
      bad,
    );
  }
});

t.test('public keys: sound types pass, short, private and foreign ones do not', async (t) => {
  const { CREDVAULT_JWT_SECRET: _, ...none } = production;
  const faults = (text: string): readonly string[] =>
    faultsOf({ ...none, CREDVAULT_JWT_PUBLIC_KEY: text }, 'serve');
  const ed25519 = generateKeyPairSync('ed25519');
  for (const pair of [
    ed25519,
    generateKeyPairSync('ec', { namedCurve: 'P-256' }),
    generateKeyPairSync('ec', { namedCurve: 'P-384' }),
    generateKeyPairSync('rsa', { modulusLength: 2048 }),
  ])
    t.same(faults(pem(pair)), []);
  t.match(faults(pem(generateKeyPairSync('rsa', { modulusLength: 1024 }))), [/2048 bits/]);
  t.match(faults(pem(generateKeyPairSync('ec', { namedCurve: 'secp256k1' }))), [/must be an RSA/]);
  t.match(faults(pem(generateKeyPairSync('x25519'))), [/must be an RSA/]);
  t.match(faults(ed25519.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string), [
    /holds a private one/,
  ]);
  t.match(faults(testCertificate().certificate), [/BEGIN PUBLIC KEY/]);
  t.match(faults('-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----'), [/can be parsed/]);
  const keys = readConfig({ ...none, CREDVAULT_JWT_PUBLIC_KEY_FILE: '/run/pem' }, 'serve', () =>
    pem(ed25519),
  ).config.issuers[0]?.keys;
  t.same(keys, {
    kind: 'fixed',
    keys: [{ kid: undefined, pem: pem(ed25519), algorithms: ['EdDSA'] }],
  });
});

t.test('plain HTTP stays on loopback unless TLS is there or said to be', async (t) => {
  const { certificate, key } = testCertificate();
  const other = testCertificate();
  for (const host of ['127.0.0.1', '127.9.9.9', '::1', 'localhost'])
    t.same(faultsOf({ ...production, HOST: host }, 'serve'), [], host);
  for (const host of [
    '0.0.0.0',
    '::',
    '10.0.0.1',
    'vault.internal',
    'localhost.evil.example',
    '128.0.0.1',
  ]) {
    t.match(
      faultsOf({ ...production, HOST: host }, 'serve'),
      [/^HOST may be outside loopback only with/],
      host,
    );
    t.match(
      faultsOf({ ...production, HOST: host, CREDVAULT_TLS_TERMINATED: '0' }, 'serve'),
      [/^HOST may be/],
      `${host} with 0`,
    );
    t.same(
      faultsOf({ ...production, HOST: host, CREDVAULT_TLS_TERMINATED: '1' }, 'serve'),
      [],
      `${host} with 1`,
    );
    t.same(
      faultsOf(
        { ...production, HOST: host, CREDVAULT_TLS_CERT: certificate, CREDVAULT_TLS_KEY: key },
        'serve',
      ),
      [],
      `${host} with TLS`,
    );
  }
  t.match(faultsOf({ ...production, CREDVAULT_TLS_CERT: certificate }, 'serve'), [/go together/]);
  t.match(faultsOf({ ...production, CREDVAULT_TLS_KEY: key }, 'serve'), [/go together/]);
  t.match(
    faultsOf(
      { ...production, CREDVAULT_TLS_CERT: certificate, CREDVAULT_TLS_KEY: other.key },
      'serve',
    ),
    [/must be the key of/],
  );
  t.match(
    faultsOf({ ...production, CREDVAULT_TLS_CERT: key, CREDVAULT_TLS_KEY: certificate }, 'serve'),
    [/^CREDVAULT_TLS_CERT must be/, /^CREDVAULT_TLS_KEY must be/],
  );
});

t.test(
  'local refuses a database, keys, tokens from elsewhere and other addresses; serve refuses a data folder',
  async (t) => {
    for (const name of [
      'DATABASE_URL',
      'DATABASE_URL_FILE',
      'CREDVAULT_ROOT_KEYS',
      'CREDVAULT_ROOT_KEYS_FILE',
      'CREDVAULT_JWT_ISSUER',
      'CREDVAULT_JWT_SECRET',
      'CREDVAULT_JWT_JWKS_URL',
      'CREDVAULT_TLS_CERT',
      'CREDVAULT_TRUST_PROXY',
    ]) {
      t.match(faultsOf({ [name]: 'x' }, 'local'), [/must not be set for `local`/], name);
    }
    for (const host of ['0.0.0.0', '::1', 'localhost', '127.0.0.2'])
      t.match(faultsOf({ HOST: host }, 'local'), [/^HOST must be 127\.0\.0\.1/], host);
    t.match(faultsOf({ ...production, CREDVAULT_DATA_DIR: './data' }, 'serve'), [
      /^CREDVAULT_DATA_DIR/,
    ]);
  },
);

t.test('migrate needs only a database URL, and prefers its own', async (t) => {
  const url = 'postgresql://admin@db/vault';
  t.equal(readConfig({ DATABASE_URL: url }, 'migrate', noFiles).secrets.databaseUrl, url);
  t.equal(
    readConfig({ ...production, CREDVAULT_MIGRATE_DATABASE_URL: url }, 'migrate', noFiles).secrets
      .databaseUrl,
    url,
  );
  t.match(faultsOf({}, 'migrate'), [/^DATABASE_URL is required/]);
  t.match(
    faultsOf({ ...production, CREDVAULT_MIGRATE_DATABASE_URL: 'x' }, 'migrate'),
    [/^CREDVAULT_MIGRATE_DATABASE_URL must have the form/],
    'a bad one of its own is not replaced by the other',
  );
});
