// Where a call may go: hosts, methods, and a corpus of paths that servers and parsers read in
// different ways.
import t from 'tap';
import { BrokerRefusal } from '../../src/broker/refusal.ts';
import {
  checkCall,
  hostHeader,
  isAllowedHost,
  isBehindPath,
  originText,
  targetOf,
  type Target,
  upstreamPath,
} from '../../src/broker/target.ts';
import { awsServices, givesCredentials } from '../../src/credentials/aws-services.ts';
import type { Policy } from '../../src/credentials/policy.ts';
import { findType } from '../../src/credentials/types/registry.ts';
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
const reasonOrOrigin = (make: () => Target): string | undefined => {
  let made: string | undefined;
  return (
    reasonOf(() => {
      made = originText(make().origin);
    }) ?? made
  );
};
const policy = (extra: Partial<Policy> = {}): Policy => ({
  delivery: ['broker'],
  allowedHosts: [],
  ...extra,
});
const call = (
  pathAndQuery: string,
  of: Partial<Policy> = {},
  method = 'GET',
  isUpgrade = false,
  isBehind = false,
): string | undefined =>
  reasonOf(() => {
    checkCall(policy(of), { method, pathAndQuery, isUpgrade }, isBehind);
  });
/** The same behind a base path. */
const behind = (pathAndQuery: string, of: Partial<Policy> = {}): string | undefined =>
  call(pathAndQuery, of, 'GET', false, true);

t.test('a path that is held to a part could be read in two ways: refused', async (t) => {
  const corpus = [
    '',
    'x',
    'v1/models',
    '*',
    'http://evil.test/',
    'https://evil.test/x',
    '//evil.test/x',
    '///evil.test',
    '/v1//models',
    '/v1/models//',
    '/\\evil.test',
    '/v1\\..\\admin',
    '\\\\evil.test',
    '/..',
    '/.',
    '/../admin',
    '/v1/..',
    '/v1/../admin',
    '/v1/./models',
    '/v1/.',
    '/v1/..;/admin',
    '/v1/..;a=b/admin',
    '/v1/.;/x',
    '/;/../x',
    '/%2e%2e/admin',
    '/v1/%2e%2e/admin',
    '/v1/%2E%2E/admin',
    '/v1/%2e./admin',
    '/v1/.%2E/admin',
    '/v1/%2e/x',
    '/v1/a%2eb',
    '/v1/%252e%252e/admin',
    '/v1/%25252e%25252e/x',
    '/v1%2fmodels',
    '/v1%2Fmodels',
    '/v1%252Fmodels',
    '/v1%5cmodels',
    '/v1%5Cmodels',
    '/v1%255cmodels',
    '/v1/..%3b/admin',
    '/v1/..%3B/admin',
    '/v1/%20../x',
    '/v1/..%20/x',
    '/v1/a b',
    '/v1/a\tb',
    '/v1/a\r\nX: y',
    '/v1/a\nb',
    '/v1/a\0b',
    '/v1/%00',
    '/v1/%0d%0aX:y',
    '/v1/%0A',
    '/v1/%1f',
    '/v1/%7f',
    '/v1/%250a',
    '/v1/\u0085',
    '/v1/\u00fc',
    '/v1/\u2025',
    '/v1/\uff0e\uff0e/x',
    '/v1/%',
    '/v1/%2',
    '/v1/%zz',
    '/v1/%c0%ae%c0%ae/x',
    '/v1/%c0%af',
    '/v1/%ff',
    '/v1/%ed%a0%80',
    // dots, slashes and percent signs to whoever normalizes (NFKC), and what nobody sees
    '/v1/%EF%BC%8E%EF%BC%8E/admin',
    '/v1/.%EF%BC%8E/admin',
    '/v1/%E2%80%A5/admin',
    '/v1/%E2%80%A4%E2%80%A4/admin',
    '/v1/%EF%B9%92%EF%B9%92/admin',
    '/v1/%EF%B8%B0/admin',
    '/v1/..%EF%BC%9Bx/admin',
    '/v1/%EF%BC%8Fadmin',
    '/v1/a%EF%BC%BCb',
    '/v1/a%EF%B9%A8b',
    '/v1/%E2%84%80/admin',
    '/v1/%EF%BC%852e%EF%BC%852e/admin',
    '/v1/.%E2%80%8B./admin',
    '/v1/%E2%81%A0../admin',
    '/v1/.%C2%AD./admin',
    '/v1/%C2%85',
    '/v1#frag',
    '/v1?a#b',
    '/v1?a b',
    '/v1?a=\u00fc',
    '/v1?\r\nx',
    '/v1?a\\\u0000',
    '/v1/vbt_0123456789012345678901234567890123456789012',
    '/v1?key=vbt_0123456789012345678901234567890123456789012',
  ];
  for (const path of corpus) {
    t.equal(behind(path), 'path', JSON.stringify(path));
    t.equal(call(path, { pathPrefixes: ['/'] }), 'path', `with a prefix: ${JSON.stringify(path)}`);
  }
});

t.test(
  'a path that is held to nothing: dot segments in no reading, the rest to the byte',
  async (t) => {
    const target = targetOf(
      typeOf('openai'),
      { baseUrl: 'https://api.openai.com' },
      policy(),
      undefined,
    );
    const free = [
      '/api/v4/projects/group%2Fproj/issues?state=opened',
      '/api/v4/projects/group%2fproj%2Fsub/x',
      '/v1/a%252Fb',
      '/bucket//key',
      '/bucket/a//',
      '/v1/a%2eb',
      '/v1/a%5Cb',
      '/v1/%EF%BC%8Fadmin',
      '/v1/%E2%84%80/admin',
      '/v1/...%2Fx',
      '/v1/100%25/x',
    ];
    for (const path of free) {
      t.equal(call(path), undefined, path);
      t.equal(
        upstreamPath(target, path, (given) => given),
        path,
      );
    }
    const refused = [
      '',
      '*',
      'http://evil.test/',
      '//evil.test/x',
      '///evil.test',
      '/\\evil.test',
      '/v1\\..\\admin',
      '/a/../b',
      '/..',
      '/./x',
      '/v1/..;/admin',
      '/v1/%2e%2e/admin',
      '/v1/..%2fadmin',
      '/v1/..%2f..%2Fadmin',
      '/v1/%2e%2e%2fadmin',
      '/v1/..%5cadmin',
      '/v1/a%2f..%2fb',
      '/v1/a%2f%2e%2e',
      '/v1/%252e%252e/admin',
      '/v1/..%252fadmin',
      '/v1/..%25252fadmin',
      '/v1/..%255c..%255cx',
      '/v1/..%3b/admin',
      '/v1/%2e%3bx%2fadmin',
      '/v1/.%E2%80%8B./admin',
      '/v1/%EF%BC%8E%EF%BC%8E/admin',
      '/v1/..%EF%BC%8Fadmin',
      '/v1/%E2%80%A5/admin',
      `/v1/..%${'25'.repeat(30)}2fadmin`,
      '/v1/%00',
      '/v1/%0d%0aX:y',
      '/v1/%250a',
      '/v1/%',
      '/v1/%ff',
      '/v1#frag',
      '/v1?a#b',
      '/v1/vbt_0123456789012345678901234567890123456789012',
      '/v1?key=vbt_0123456789012345678901234567890123456789012',
      '/v1?key=%76bt_0123456789012345678901234567890123456789012',
      '/v1?key=vbt%255F0123456789012345678901234567890123456789012',
    ];
    for (const path of refused) t.equal(call(path), 'path', JSON.stringify(path));
  },
);

t.test('escaped slashes that a policy allows: under a prefix in both readings', async (t) => {
  const of = { pathPrefixes: ['/api/v4/projects', '/v1/a/b'], encodedSlashes: true };
  for (const path of [
    '/api/v4/projects/group%2Fproj/issues?x=%2F..%2F',
    '/api/v4/projects/group%2fproj',
  ])
    t.equal(call(path, of), undefined, path);
  for (const path of [
    '/api/v4%2Fprojects/x',
    '/api%2Fv4/projects/x',
    '/v1/a%2Fb/c',
    '/v1/a/b%2Fc',
    '/v1/other/x',
  ])
    t.equal(call(path, of), 'pathPrefix', path);
  for (const path of [
    '/api/v4/projects/x%2F..%2F..%2Fadmin',
    '/api/v4/projects/..%2Fadmin',
    '/api/v4/projects/x%2F%2Fy',
    '/api/v4/projects/x%252Fy',
    '/api/v4/projects/x%5Cy',
    '/api/v4/projects/%2e%2e/x',
    '/api/v4/projects/x%2F.%2Fy',
  ])
    t.equal(call(path, of), 'path', path);
  for (const unset of [{}, { encodedSlashes: false }])
    t.equal(
      call('/api/v4/projects/a%2Fb', { pathPrefixes: ['/api/v4/projects'], ...unset }),
      'path',
    );
  t.equal(behind('/a%2Fb'), 'path', 'a base path is a prefix');
  t.equal(behind('/a%2Fb', { encodedSlashes: true }), undefined);
  t.equal(behind('/a%2F..%2Fb', { encodedSlashes: true }), 'path');
});

t.test(
  'what is in front of the path counts: a base path, and what is injected there',
  async (t) => {
    const is = (
      type: string,
      fields: Record<string, string>,
      hosts: string[] = [],
      host?: string,
    ) =>
      isBehindPath(typeOf(type), () =>
        targetOf(typeOf(type), fields, policy({ allowedHosts: hosts }), host),
      );
    t.equal(is('openai', { baseUrl: 'https://api.openai.com' }), false);
    t.equal(is('openai', { baseUrl: 'https://gate.example/tenant-a' }), true);
    t.equal(is('telegram', {}), true, 'the token is in the path');
    t.equal(is('slack', {}), true, 'the URL is the secret');
    t.equal(is('bearer', {}, ['api.example.com']), false);
  },
);

t.test('what is plain passes to the byte, the query whatever it says', async (t) => {
  const plain = [
    '/',
    '/v1/models',
    '/v1/models/',
    '/v1/a.b/..c/c../...',
    '/v1/a%20b',
    '/v1/%C3%BC',
    '/v1/%e2%82%ac',
    '/v1/%EF%BD%81%EF%BC%8Etxt',
    '/v1/caf%C3%A9/%E4%B8%AD%E6%96%87',
    '/v1/%E2%80%A6',
    '/v1/a;b=c',
    '/v1/a:b@c',
    '/v1/a+b',
    '/v1/{id}',
    '/v1/"x"',
    '/v1/a|b^c`',
    '/~user',
    '/v1/%25',
    '/v1/100%25',
    '/v1?',
    '/v1?a=../..//\\%2e%2e%2f%00%zz%',
    '/v1?a=b&a=c&&=',
    '/v1?url=https://evil.test//x',
    '/v1??x',
  ];
  const target = targetOf(
    typeOf('customLlm'),
    { baseUrl: 'https://llm.example/base/' },
    policy(),
    undefined,
  );
  for (const path of plain) {
    t.equal(behind(path), undefined, path);
    t.equal(
      upstreamPath(target, path, (given) => given),
      `/base${path}`,
      path,
    );
  }
});

t.test('what the parser makes of the whole must be what was put together', async (t) => {
  const root = targetOf(
    typeOf('openai'),
    { baseUrl: 'https://api.openai.com' },
    policy(),
    undefined,
  );
  const based = targetOf(
    typeOf('openai'),
    { baseUrl: 'https://api.openai.com/a/b' },
    policy(),
    undefined,
  );
  for (const injected of [
    '@evil.test/',
    ':443@evil.test/',
    '.evil.test/x',
    'evil',
    '/x/../../y',
    '/..',
    '/%2e%2e/x',
    '\\..\\x',
    '/a\tb/../c',
    '/x#y',
  ]) {
    t.equal(
      reasonOf(() => upstreamPath(root, '/x', () => injected)),
      'path',
      injected,
    );
    t.equal(
      reasonOf(() => upstreamPath(based, '/x', () => injected)),
      'path',
      injected,
    );
  }
  t.equal(
    upstreamPath(based, '', (given) => given),
    '/a/b',
  );
});

t.test('prefixes hold on the borders of segments', async (t) => {
  const of = { pathPrefixes: ['/v1/chat', '/v2/'] };
  for (const path of [
    '/v1/chat',
    '/v1/chat/',
    '/v1/chat/completions',
    '/v1/chat?x=1',
    '/v2/',
    '/v2/x',
  ])
    t.equal(call(path, of), undefined, path);
  for (const path of [
    '/',
    '/v1',
    '/v1/chats',
    '/v1/chat.json',
    '/v1/chat%20',
    '/V1/chat',
    '/v1/%63hat',
    '/v2',
    '/v1/models?x=/v1/chat',
  ])
    t.equal(call(path, of), 'pathPrefix', path);
  t.equal(call('/v1/chat/../models', of), 'path');
  t.equal(call('/anything', { pathPrefixes: ['/'] }), undefined);
});

t.test('methods: those of the policy, and never one that tunnels or echoes', async (t) => {
  for (const method of ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'])
    t.equal(call('/', {}, method), undefined, method);
  for (const method of ['CONNECT', 'TRACE']) t.equal(call('/', {}, method), 'unsupported', method);
  t.equal(call('/', {}, 'GET', true), 'unsupported', 'Upgrade');
  for (const method of ['get', 'PROPFIND', 'PURGE', 'M-SEARCH', 'QUERY', ''])
    t.equal(call('/', {}, method), 'method', method);
  t.equal(call('/', { methods: ['GET'] }, 'GET'), undefined);
  for (const method of ['HEAD', 'POST', 'DELETE'])
    t.equal(call('/', { methods: ['GET'] }, method), 'method', method);
});

t.test("the host: the credential's own, or one that the policy names", async (t) => {
  const host = (
    type: string,
    fields: Record<string, string>,
    allowedHosts: string[],
    wanted?: string,
  ): string | undefined => {
    try {
      return originText(targetOf(typeOf(type), fields, policy({ allowedHosts }), wanted).origin);
    } catch (error) {
      if (error instanceof BrokerRefusal) return error.reason;
      throw error;
    }
  };
  t.equal(host('cohere', {}, []), 'https://api.cohere.com');
  t.equal(
    host('openai', { baseUrl: 'https://api.openai.com:8443/x' }, []),
    'https://api.openai.com:8443',
  );
  t.equal(host('openai', { baseUrl: 'http://llm.internal:8000' }, []), 'http://llm.internal:8000');
  t.equal(
    host('google', {}, ['vision.googleapis.com'], 'vision.googleapis.com'),
    'https://vision.googleapis.com',
    'beyond its own',
  );
  t.equal(
    host('google', {}, ['vision.googleapis.com']),
    'https://generativelanguage.googleapis.com',
  );
  t.equal(
    host('google', {}, [], 'generativelanguage.googleapis.com'),
    'https://generativelanguage.googleapis.com',
  );
  t.equal(host('google', {}, [], 'vision.googleapis.com'), 'host');
  t.equal(host('bearer', {}, []), 'host');
  t.equal(host('bearer', {}, ['api.example.com']), 'https://api.example.com');
  t.equal(
    host('bearer', {}, ['api.example.com', 'b.example.com']),
    'host',
    'two: one has to be said',
  );
  t.equal(
    host('bearer', {}, ['api.example.com', 'b.example.com'], 'b.example.com'),
    'https://b.example.com',
  );
  t.equal(host('bearer', {}, ['*.example.com']), 'host', 'a wildcard is no host');
  t.equal(
    host('slack', { webhookUrl: 'https://hooks.slack.com/services/x' }, []),
    'https://hooks.slack.com',
  );
  t.equal(
    host(
      'slack',
      { webhookUrl: 'https://hooks.slack.com/services/x' },
      ['other.example'],
      'other.example',
    ),
    'host',
    'a secret URL goes to its own host only',
  );
  t.equal(host('imap', {}, []), 'unsupported');
  for (const wanted of [
    'api.example.com.',
    'API.example.com',
    'api.example.com:8443',
    'api.example.com:0',
    'api.example.com:443:443',
    'api.example.com:0443',
    'api.example.com:65536',
    'api.example.com:',
    'api.example.com/',
    'x@api.example.com',
    'api.example.com#',
    'a.api.example.com',
    'example.com',
    'xample.com',
    'api\u3002example.com',
    '127.0.0.1',
    '127.1',
    '0x7f000001',
    '[::1]',
    '::1',
    '2130706433',
    '',
    'api.example.com\0',
    'аpi.example.com',
  ]) {
    t.equal(host('bearer', {}, ['api.example.com'], wanted), 'host', JSON.stringify(wanted));
    t.equal(
      host('bearer', {}, ['api.example.com', wanted], wanted),
      wanted === 'api.example.com:8443' ||
        wanted === 'a.api.example.com' ||
        wanted === 'example.com' ||
        wanted === 'xample.com'
        ? `https://${wanted}`
        : 'host',
      `${JSON.stringify(wanted)}, even if a policy named it`,
    );
  }
  for (const baseUrl of [
    'https://127.0.0.1/',
    'https://[::1]/',
    'https://0x7f.1/',
    'https://①②⑦.0.0.1/',
    'nonsense',
    'file:///etc/passwd',
    'https://host./',
  ])
    t.equal(host('openai', { baseUrl }, []), 'host', baseUrl);
});

t.test('ports: an entry without one means 443, and both have to be the same', async (t) => {
  const to = (allowedHosts: string[], wanted?: string): string | undefined =>
    reasonOrOrigin(() => targetOf(typeOf('bearer'), {}, policy({ allowedHosts }), wanted));
  const minio = 'minio.corp.example:9000';
  t.equal(to([minio]), 'https://minio.corp.example:9000');
  t.equal(to([minio], minio), 'https://minio.corp.example:9000');
  t.equal(to([minio], 'minio.corp.example'), 'host');
  t.equal(to([minio], 'minio.corp.example:443'), 'host');
  t.equal(to([minio], 'minio.corp.example:9001'), 'host');
  t.equal(to(['a.example'], 'a.example:443'), 'https://a.example');
  t.equal(to(['a.example:443'], 'a.example'), 'https://a.example');
  t.equal(to(['a.example'], 'a.example:8443'), 'host');
  t.equal(to(['*.a.example:8443'], 'x.a.example:8443'), 'https://x.a.example:8443');
  t.equal(to(['*.a.example:8443'], 'x.a.example'), 'host');
  t.equal(to(['*.a.example'], 'x.a.example:8443'), 'host');
  t.equal(to(['127.0.0.1:9000']), 'host');
  const s3 = (fields: Record<string, string>, hosts: string[], wanted?: string) =>
    reasonOrOrigin(() => targetOf(typeOf('s3'), fields, policy({ allowedHosts: hosts }), wanted));
  t.equal(s3({ endpoint: 'http://minio.corp.example:9000' }, []), 'http://minio.corp.example:9000');
  t.equal(s3({}, [minio]), 'https://minio.corp.example:9000');
  t.equal(s3({}, []), 'host');
  t.equal(
    s3({ endpoint: 'https://minio.corp.example:9000' }, ['b.example'], 'b.example'),
    'https://b.example',
  );
});

t.test('services of AWS: in the stored region, and none that gives out credentials', async (t) => {
  const all = awsServices;
  const to = (
    services: readonly (typeof all)[number][],
    wanted?: string,
    region: string | undefined = 'eu-west-1',
    allowedHosts: string[] = [],
  ) =>
    reasonOrOrigin(() =>
      targetOf(
        typeOf('aws'),
        region === undefined ? {} : { region },
        policy({ allowedHosts, awsServices: services }),
        wanted,
      ),
    );
  t.equal(to(['sqs']), 'https://sqs.eu-west-1.amazonaws.com', 'the only one');
  t.equal(to(['sqs', 's3']), 'host');
  for (const host of [
    's3.eu-west-1.amazonaws.com',
    'my-bucket.s3.eu-west-1.amazonaws.com',
    'sqs.eu-west-1.amazonaws.com',
  ])
    t.equal(to(['sqs', 's3'], host), `https://${host}`);
  t.equal(
    to(['sqs'], 'sqs.cn-north-1.amazonaws.com.cn', 'cn-north-1'),
    'https://sqs.cn-north-1.amazonaws.com.cn',
  );
  for (const host of [
    'sqs.us-east-1.amazonaws.com',
    'sqs.eu-west-1.amazonaws.com:8443',
    'my-bucket.s3.us-east-1.amazonaws.com',
    'a.b.s3.eu-west-1.amazonaws.com',
    'x.sqs.eu-west-1.amazonaws.com',
    's3.amazonaws.com',
    'my-bucket.s3.amazonaws.com',
    'x.s3.eu-west-1.amazonaws.com.evil.test',
    's3-control.eu-west-1.amazonaws.com',
    'x.s3-accesspoint.eu-west-1.amazonaws.com',
    'sts.eu-west-1.amazonaws.com',
    'sts.amazonaws.com',
    'iam.amazonaws.com',
    'cognito-identity.eu-west-1.amazonaws.com',
    'api.ecr.eu-west-1.amazonaws.com',
    'portal.sso.eu-west-1.amazonaws.com',
    'oidc.eu-west-1.amazonaws.com',
    'eu-west-1.signin.aws.amazon.com',
    'd.codeartifact.eu-west-1.amazonaws.com',
    'organizations.us-east-1.amazonaws.com',
    'secretsmanager.eu-west-1.amazonaws.com',
    'ec2-1-2-3-4.eu-west-1.compute.amazonaws.com',
    'x.execute-api.eu-west-1.amazonaws.com',
    'x.eu-west-1.elb.amazonaws.com',
    'x.lambda-url.eu-west-1.on.aws',
  ])
    t.equal(to(all, host), 'host', host);
  for (const region of ['', 'evil.test#', 'x.evil.test/', 'eu-west-1.evil.test', 'EU-WEST-1'])
    t.equal(to(['sqs'], undefined, region), 'host', region);
  t.equal(
    reasonOrOrigin(() =>
      targetOf(
        typeOf('bearer'),
        { region: 'eu-west-1' },
        policy({ awsServices: ['sqs'] }),
        undefined,
      ),
    ),
    'host',
    'nothing to another type',
  );
  t.equal(
    to(['sqs'], 'sts.eu-west-1.amazonaws.com', 'eu-west-1', ['sts.eu-west-1.amazonaws.com']),
    'https://sts.eu-west-1.amazonaws.com',
    'named as a host',
  );
  for (const host of [
    'sts.amazonaws.com',
    'sts.eu-west-1.amazonaws.com:443',
    'sts-fips.us-east-1.amazonaws.com',
    'iam.amazonaws.com',
    '*.amazonaws.com',
    '*.eu-west-1.amazonaws.com',
    'cognito-idp.eu-west-1.amazonaws.com',
    'x.auth.eu-west-1.amazoncognito.com',
    'api.ecr.eu-west-1.amazonaws.com',
    'portal.sso.eu-west-1.amazonaws.com',
    'signin.aws.amazon.com',
  ])
    t.ok(givesCredentials(host), host);
  for (const host of [
    's3.eu-west-1.amazonaws.com',
    'sts.example.com',
    'sqs.eu-west-1.amazonaws.com',
  ])
    t.notOk(givesCredentials(host), host);
  for (const service of all)
    t.notOk(givesCredentials(`${service}.eu-west-1.amazonaws.com`), service);
});

t.test('a wildcard stands for exactly one label', async (t) => {
  const allowed = policy({ allowedHosts: ['*.example.com'] });
  for (const host of ['a.example.com', 'a-b.example.com'])
    t.ok(isAllowedHost(allowed, { host, port: 443 }), host);
  for (const host of [
    'example.com',
    'a.b.example.com',
    '.example.com',
    'aexample.com',
    'a.example.com.evil.test',
    'a.example.org',
    '*.example.co',
  ])
    t.notOk(isAllowedHost(allowed, { host, port: 443 }), host);
});

t.test("the Host header has the port where it is not the scheme's own", async (t) => {
  t.equal(hostHeader({ protocol: 'https:', host: 'a.example', port: 443 }), 'a.example');
  t.equal(hostHeader({ protocol: 'https:', host: 'a.example', port: 80 }), 'a.example:80');
  t.equal(hostHeader({ protocol: 'http:', host: 'a.example', port: 80 }), 'a.example');
});
