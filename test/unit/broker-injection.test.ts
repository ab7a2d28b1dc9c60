// How each kind of injection looks in the request, and which values the broker refuses to carry: by
// name. Real types, no network.
import { briefRule } from '../helpers/faults.ts';
import t from 'tap';
import { BrokerRefusal } from '../../src/broker/refusal.ts';
import { render } from '../../src/broker/injection.ts';
import { injectionFaults } from '../../src/credentials/injectable.ts';
import { credentialTypes, findType } from '../../src/credentials/types/registry.ts';
import type { CredentialType } from '../../src/credentials/types/define.ts';

const typeOf = (name: string): CredentialType => findType(name)!;
const reasonOf = (action: () => unknown): string | undefined => {
  try {
    action();
    return undefined;
  } catch (error) {
    if (error instanceof BrokerRefusal) return error.reason;
    throw error;
  }
};
const rulesOf = (type: string, fields: Record<string, string>): string[] =>
  injectionFaults(typeOf(type), fields).map((fault) => `${fault.pointer} ${briefRule(fault)}`);
const key = 'sk-live-0123456789';

t.test('each kind puts the secret where its type says', async (t) => {
  const headers = (type: string, fields: Record<string, string>): unknown =>
    render(typeOf(type), fields).headers;
  for (const type of ['openai', 'customLlm', 'cohere'])
    t.strictSame(headers(type, { apiKey: key }), { authorization: `Bearer ${key}` }, type);
  t.strictSame(headers('bearer', { token: key }), { authorization: `Bearer ${key}` });
  t.strictSame(headers('google', { apiKey: key }), { 'x-goog-api-key': key });
  t.strictSame(headers('anthropic', { apiKey: key }), { 'x-api-key': key });
  t.strictSame(render(typeOf('anthropic'), { apiKey: key }).defaults, {
    'anthropic-version': '2023-06-01',
  });
  t.strictSame(headers('header', { name: 'X-Auth-Key', value: `Token ${key}` }), {
    'x-auth-key': `Token ${key}`,
  });
  t.strictSame(
    headers('httpBasic', { username: 'Aladdin', password: 'open sesame' }),
    { authorization: 'Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==' },
    'the example of RFC 7617',
  );
  t.strictSame(
    headers('httpBasic', { username: 'test', password: '123£56789' }),
    { authorization: `Basic ${Buffer.from('test:123£56789').toString('base64')}` },
    'UTF-8',
  );
  t.strictSame(headers('httpBasic', { password: 'open sesame' }), {
    authorization: `Basic ${Buffer.from(':open sesame').toString('base64')}`,
  });
  t.equal(
    render(typeOf('telegram'), { botToken: '110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw' }).path(
      '/getMe?a=%20b',
    ),
    '/bot110201543:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/getMe?a=%20b',
  );
});

t.test(
  "a query parameter is added, the caller's own of that name goes, all else stays to the byte",
  async (t) => {
    const path = (given: string, name = 'api key'): string =>
      render(typeOf('httpQuery'), { name, value: 'a&b=c/ü #1' }).path(given);
    const own = 'api%20key=a%26b%3Dc%2F%C3%BC%20%231';
    t.equal(path('/x'), `/x?${own}`);
    t.equal(path('/x?'), `/x?${own}`);
    t.equal(path('/x?b=%7e+%zz&a&c=?'), `/x?b=%7e+%zz&a&c=?&${own}`);
    for (const same of ['api%20key=mine', 'api+key', 'api%20ke%79=1', '%61pi%20key=1=2'])
      t.equal(path(`/x?${same}&z=1`), `/x?z=1&${own}`, same);
    t.equal(
      render(typeOf('httpQuery'), { name: 'k', value: key }).path('/x?kk=1&K=2'),
      `/x?kk=1&K=2&k=${key}`,
    );
  },
);

t.test('a secret URL is called as it is; the caller adds a query at most', async (t) => {
  const webhookUrl =
    'https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX';
  const slack = render(typeOf('slack'), { webhookUrl });
  t.equal(slack.path('/'), '/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX');
  t.equal(slack.path(''), '/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX');
  t.equal(
    slack.path('/?wait=true'),
    '/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX?wait=true',
  );
  t.equal(
    render(typeOf('slack'), { webhookUrl: `${webhookUrl}?a=1` }).path('/?b=2'),
    '/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX?a=1&b=2',
  );
  t.equal(
    reasonOf(() => slack.path('/other')),
    'path',
  );
  t.ok(
    slack.sensitive.includes('XXXXXXXXXXXXXXXXXXXXXXXX') && slack.sensitive.includes(webhookUrl),
  );
});

t.test('an access token that a provider gave is held to the same rules', async (t) => {
  const type: CredentialType = {
    name: 'x',
    title: 'X',
    description: 'X',
    fields: {},
    broker: { injection: { kind: 'oauth' }, upstream: { kind: 'policy' } },
  };
  t.strictSame(render(type, { accessToken: 'ya29.abcdef' }).headers, {
    authorization: 'Bearer ya29.abcdef',
  });
  for (const accessToken of ['short', 'ya29.abc\r\nx: y', 'ya29.ÿabcdef', ''])
    t.equal(
      reasonOf(() => render(type, { accessToken })),
      'secretUnusable',
    );
  t.equal(
    reasonOf(() => render(type, {})),
    'secretUnusable',
  );
});

t.test(
  'values that do not fit their place are refused, by the rule and never by the value',
  async (t) => {
    const unsafe = [
      'sk-live-1\r\nX-Evil: 1',
      'sk-live-1\n',
      'sk-live-12\0',
      'sk-live-ÿ123',
      'sk-live-Ā123',
      'sk-live-\u{1f511}12',
      'sk-live-\t12',
      ' sk-live-12',
      'sk-live-\u007f12',
    ];
    for (const value of unsafe) {
      t.strictSame(
        rulesOf('openai', { apiKey: value }),
        ['/fields/apiKey headerUnsafe'],
        JSON.stringify(value),
      );
      t.strictSame(rulesOf('anthropic', { apiKey: value }), ['/fields/apiKey headerUnsafe']);
      t.strictSame(rulesOf('header', { name: 'x-key', value }), ['/fields/value headerUnsafe']);
      t.strictSame(
        rulesOf('aws', {
          accessKeyId: 'AKIDEXAMPLE',
          secretAccessKey: 'wJalrXUtnFEMI',
          sessionToken: value,
        }),
        ['/fields/sessionToken headerUnsafe'],
      );
      t.equal(
        reasonOf(() => render(typeOf('openai'), { apiKey: value })),
        'secretUnusable',
        'asked again when it is used',
      );
    }
    t.strictSame(rulesOf('openai', { apiKey: 'a b c d e' }), ['/fields/apiKey headerUnsafe']);
    t.strictSame(rulesOf('header', { name: 'x-key', value: 'Token a b c' }), []);
    for (const botToken of [
      '1:aaaaaa/../x',
      '1:aaaaaaa?x',
      '1:aaaaaaa#x',
      '1:aaaaaa%2e',
      '1:aaaaaa\\x',
      '1:aaaaa\u00fc',
    ])
      t.strictSame(rulesOf('telegram', { botToken }), ['/fields/botToken pathUnsafe']);
    for (const password of ['p\nassword', 'p\0assword'])
      t.strictSame(rulesOf('httpBasic', { password }), ['/fields/password headerUnsafe']);
    t.strictSame(rulesOf('httpBasic', { username: 'a:b', password: 'password' }), [
      '/fields/username noColon',
    ]);
    for (const accessKeyId of ['AK/ID', 'AK ID', 'AK\u00ffID', 'A,Signature=0'])
      t.strictSame(rulesOf('aws', { accessKeyId, secretAccessKey: 'wJalrXUtnFEMI' }), [
        '/fields/accessKeyId headerUnsafe',
      ]);
  },
);

t.test('secrets under 8 bytes and over 8 KiB are not for the broker', async (t) => {
  t.strictSame(rulesOf('openai', { apiKey: '1234567' }), ['/fields/apiKey minBytes:8']);
  t.strictSame(rulesOf('openai', { apiKey: '12345678' }), []);
  t.strictSame(rulesOf('httpBasic', { password: 'pässwö' }), [], 'bytes count, not characters');
  t.strictSame(rulesOf('openai', { apiKey: 'x'.repeat(8193) }), ['/fields/apiKey maxBytes:8192']);
  t.strictSame(rulesOf('openai', {}), ['/fields/apiKey required']);
});

t.test('a header that the connection is made of is no place for a secret', async (t) => {
  for (const name of [
    'Host',
    'connection',
    'Content-Length',
    'Transfer-Encoding',
    'Accept-Encoding',
    'Proxy-Authorization',
    'X-Forwarded-For',
    'X_Forwarded_For',
    'Content_Length',
    'Expect',
    'Upgrade',
    'Range',
    'TE',
    'X-HTTP-Method-Override',
  ]) {
    t.strictSame(rulesOf('header', { name, value: key }), ['/fields/name headerTaken'], name);
  }
  for (const name of ['Authorization', 'Cookie', 'X-Api-Key', 'hostname', 'X-Content'])
    t.strictSame(rulesOf('header', { name, value: key }), [], name);
});

t.test('a secret URL is plain https', async (t) => {
  const bad = [
    'http://hooks.example/services/x1234',
    'https://user@hooks.example/services/x',
    'https://u:p@hooks.example/services/x',
    'https://hooks.example/services/x#f',
    'https://hooks.example\\services\\x',
    'https://hooks.example/a/../services/x',
    'HTTPS://hooks.example/services/x',
    'https://HOOKS.example/services/x',
    'https://hooks.example:443/services/x',
    'https:hooks.example/services',
    'ftp://hooks.example/services',
    'no url at all',
    'https:///hooks.example/services',
  ];
  for (const webhookUrl of bad) t.equal(rulesOf('slack', { webhookUrl }).length, 1, webhookUrl);
  t.strictSame(
    rulesOf('slack', { webhookUrl: 'https://hooks.example/x' }),
    ['/fields/webhookUrl minBytes:8'],
    'a path that could not be told from other text',
  );
  t.strictSame(rulesOf('slack', { webhookUrl: 'https://hooks.example:8443/services/x?y=z' }), []);
});

t.test('what the broker cannot put anywhere it does not render', async (t) => {
  for (const type of credentialTypes.filter(({ broker }) => broker === undefined)) {
    t.equal(
      reasonOf(() => render(type, {})),
      'unsupported',
      type.name,
    );
    t.strictSame(injectionFaults(type, {}), []);
  }
});

t.test('a second way of the same type, and several headers', async (t) => {
  const authorization = (type: string, fields: Record<string, string>): unknown =>
    render(typeOf(type), fields).headers['authorization'];
  const basic = (pair: string): string => `Basic ${Buffer.from(pair).toString('base64')}`;
  for (const [type, fields, expected] of [
    ['httpBasic', { apiKey: key }, basic(`${key}:`)],
    ['httpBasic', { apiKey: key, password: 'X' }, basic(`${key}:X`)],
    ['httpBasic', { username: 'ada', password: key }, basic(`ada:${key}`)],
    ['jira', { email: 'ada@example.com', apiToken: key }, basic(`ada@example.com:${key}`)],
    ['jira', { apiToken: key }, `Bearer ${key}`],
    ['twilio', { accountSid: 'AC1', authToken: key }, basic(`AC1:${key}`)],
    [
      'twilio',
      { accountSid: 'AC1', authToken: 'a-token', apiKeySid: 'SK1', apiKeySecret: key },
      basic(`SK1:${key}`),
    ],
  ] as const)
    t.equal(authorization(type, fields), expected, `${type} ${Object.keys(fields).join(' ')}`);
  const { sensitive } = render(typeOf('httpBasic'), { apiKey: key, password: 'X' });
  t.ok(sensitive.includes(key) && sensitive.includes(Buffer.from(`${key}:X`).toString('base64')));
  t.notOk(sensitive.includes('X'), 'one letter would be found everywhere');
  const supabase = render(typeOf('supabase'), { key });
  t.strictSame(supabase.headers, { apikey: key, authorization: `Bearer ${key}` });
  t.strictSame(supabase.dropHeaders, ['apikey', 'authorization']);
  const clickhouse = render(typeOf('clickhouse'), { username: 'default' });
  t.strictSame(clickhouse.headers, { 'x-clickhouse-user': 'default' });
  t.ok(clickhouse.dropHeaders.includes('x-clickhouse-key'), "the caller's own goes all the same");
  t.strictSame(rulesOf('httpBasic', { apiKey: 'a:b-012345' }), ['/fields/apiKey noColon']);
  t.strictSame(rulesOf('clickhouse', { username: 'a\nb', password: key }), [
    '/fields/username headerUnsafe',
  ]);
  t.strictSame(rulesOf('supabase', { key: 'a' }).length, 1, 'said once');
});

t.test(
  'the registry: what a type injects are fields of its own, the secret ones secret',
  async (t) => {
    for (const type of credentialTypes) {
      const { injection, upstream } = type.broker ?? {};
      if (injection === undefined || upstream === undefined) continue;
      const parts =
        injection.kind === 'whenSet'
          ? [injection.set, injection.unset]
          : injection.kind === 'headers'
            ? injection.headers.filter(({ field }) => type.fields[field]?.class === 'secret')
            : [injection];
      t.ok(parts.length > 0, `${type.name}: something secret is injected`);
      for (const [member, name] of parts.flatMap((part) => Object.entries(part))) {
        if (member === 'field' || member === 'passwordField')
          t.equal(type.fields[name as string]?.class, 'secret', `${type.name} ${member}`);
        if (member === 'nameField' || member === 'usernameField')
          t.equal(type.fields[name as string]?.class, 'public', `${type.name} ${member}`);
        if (member === 'nameField')
          t.ok(
            type.fields[name as string]?.isDestination,
            `${type.name}: where in the request is a destination`,
          );
      }
      if (upstream.kind === 'field' || upstream.kind === 'optionalField')
        t.ok(
          type.fields[upstream.field]?.isDestination,
          `${type.name}: its base URL is a destination`,
        );
      if (upstream.kind === 'hostPort')
        for (const name of [
          upstream.hostField,
          upstream.portField,
          ...(upstream.secureField === undefined ? [] : [upstream.secureField]),
        ])
          t.ok(type.fields[name]?.isDestination, `${type.name}: its ${name} is a destination`);
      if (upstream.kind === 'fixed') t.match(upstream.baseUrl, /^https:\/\/[a-z0-9.-]+$/);
    }
  },
);
