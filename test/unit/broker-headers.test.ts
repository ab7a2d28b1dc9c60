// Which headers go out and which come back.
import t from 'tap';
import { answerHeaders, isScannable, requestHeaders, widthsOf } from '../../src/broker/headers.ts';
import { render } from '../../src/broker/injection.ts';
import { mark, Redactor } from '../../src/broker/redaction/redactor.ts';
import type { Target } from '../../src/broker/target.ts';
import { findType } from '../../src/credentials/types/registry.ts';

const key = 'sk-live-0123456789';
const none = { headers: {}, defaults: {}, dropHeaders: [] };
const raw = (headers: readonly (readonly [string, string])[]): string[] => headers.flat();
const ticket = `vbt_${'A'.repeat(43)}`;

t.test(
  'what belongs to the connection, to the way here and to the ticket stays behind',
  async (t) => {
    const stays = [
      'Connection',
      'Keep-Alive',
      'Proxy-Connection',
      'TE',
      'Trailer',
      'Transfer-Encoding',
      'Upgrade',
      'HTTP2-Settings',
      'Host',
      'Authorization',
      'Cookie',
      'Content-Length',
      'Expect',
      'Accept-Encoding',
      'Proxy-Authorization',
      'Proxy-Anything',
      'Forwarded',
      'Via',
      'X-Forwarded-For',
      'X-Forwarded-Host',
      'X-Forwarded-Proto',
      'X-Real-IP',
      'x-api-key',
      'X-Goog-Api-Key',
      'api-key',
      'X-HTTP-Method-Override',
      'X-HTTP-Method',
      'X-Method-Override',
      'X-Original-URL',
      'X-Rewrite-URL',
      'X_Api_Key',
      'x_forwarded_for',
      'X_HTTP_Method_Override',
    ];
    for (const name of stays)
      t.strictSame(
        { ...requestHeaders([name, '1'], none, 'unknown') },
        { 'accept-encoding': 'identity' },
        name,
      );
    t.strictSame(
      {
        ...requestHeaders(
          raw([
            ['Connection', 'X-One, close'],
            ['connection', 'x-two'],
            ['X-One', '1'],
            ['X-Two', '2'],
            ['X-Three', '3'],
          ]),
          none,
          'unknown',
        ),
      },
      { 'x-three': '3', 'accept-encoding': 'identity' },
    );
  },
);

t.test('the rest goes on as it was sent, repeated ones too', async (t) => {
  const sent = raw([
    ['Content-Type', 'application/json'],
    ['OpenAI-Organization', 'org'],
    ['X-A', '1'],
    ['x-a', '2'],
    ['X-A', '3'],
    ['Range', 'bytes=0-9'],
    ['Idempotency-Key', 'k'],
    ['__proto__', 'x'],
  ]);
  t.strictSame(Object.entries(requestHeaders(sent, none, 'unknown')), [
    ['content-type', 'application/json'],
    ['openai-organization', 'org'],
    ['x-a', ['1', '2', '3']],
    ['range', 'bytes=0-9'],
    ['idempotency-key', 'k'],
    ['__proto__', 'x'],
    ['accept-encoding', 'identity'],
  ]);
});

t.test(
  'the injected header is the only one of its name, however the caller wrote it',
  async (t) => {
    const named = render(findType('header')!, { name: 'X-Auth', value: key });
    for (const name of ['X-Auth', 'x-auth', 'X_AUTH', 'x_auth'])
      t.strictSame(
        { ...requestHeaders([name, 'mine', name, 'mine too'], named, 'unknown') },
        { 'x-auth': key, 'accept-encoding': 'identity' },
        name,
      );
    const bearer = render(findType('openai')!, { apiKey: key });
    t.strictSame(
      {
        ...requestHeaders(
          raw([
            ['Authorization', `Bearer ${ticket}`],
            ['x-api-key', ticket],
          ]),
          bearer,
          'unknown',
        ),
      },
      { authorization: `Bearer ${key}`, 'accept-encoding': 'identity' },
    );
    const anthropic = render(findType('anthropic')!, { apiKey: key });
    t.equal(requestHeaders([], anthropic, 'unknown')['anthropic-version'], '2023-06-01');
    t.equal(
      requestHeaders(['Anthropic-Version', '2024-01-01'], anthropic, 'unknown')[
        'anthropic-version'
      ],
      '2024-01-01',
      'the caller knows better',
    );
  },
);

t.test('a ticket goes on in no header', async (t) => {
  for (const name of ['X-Custom', 'X-Authorization', 'Referer', 'Ocp-Apim-Subscription-Key'])
    t.notOk(
      JSON.stringify(requestHeaders([name, `Bearer ${ticket}`], none, 'unknown')).includes(ticket),
      name,
    );
});

t.test('Content-Length is said anew, and only where the length is known', async (t) => {
  t.equal(requestHeaders(['Content-Length', '007'], none, 7)['content-length'], '7');
  t.equal(requestHeaders([], none, 7)['content-length'], '7', 'what was read whole');
  t.equal(requestHeaders(['Content-Length', '0'], none, 0)['content-length'], '0');
  t.equal(requestHeaders([], none, 0)['content-length'], undefined, 'a GET says nothing');
  t.equal(
    requestHeaders(['Content-Length', '7', 'Transfer-Encoding', 'chunked'], none, 'unknown')[
      'content-length'
    ],
    undefined,
  );
});

const redactor = new Redactor([key]);
const target: Target = {
  origin: { protocol: 'https:', host: 'api.example', port: 443 },
  basePath: '/base',
};
const seenAt = {
  brokerPath: '/broker/t1',
  brokerUrl: 'https://broker.example/broker/t1',
  ticketNames: ['authorization'],
};
const back = (
  headers: Record<string, string | string[]>,
  hasBody = true,
): Record<string, string | string[]> => ({
  ...answerHeaders(headers, redactor, { target, ...seenAt }, hasBody),
});
const always = {
  'x-content-type-options': 'nosniff',
  'content-security-policy': 'sandbox',
  'cache-control': 'private',
  vary: 'authorization',
};

t.test("what a browser would believe about the broker's origin stays away", async (t) => {
  const stays = [
    'connection',
    'keep-alive',
    'proxy-authenticate',
    'te',
    'trailer',
    'transfer-encoding',
    'upgrade',
    'set-cookie',
    'set-cookie2',
    'alt-svc',
    'clear-site-data',
    'strict-transport-security',
    'service-worker-allowed',
    'access-control-allow-origin',
    'access-control-allow-credentials',
    'access-control-expose-headers',
    'vault-error',
    'Vault-Error',
    'content-length',
    'content-encoding',
    'content-security-policy',
    'content-security-policy-report-only',
    'x-content-type-options',
    'nel',
    'report-to',
    'x-accel-redirect',
    'x-sendfile',
  ];
  for (const name of stays) t.strictSame(back({ [name]: '1' }), always, name);
  t.strictSame(back({ connection: 'x-hop', 'x-hop': '1', 'x-end': '2' }), {
    'x-end': '2',
    ...always,
  });
  t.strictSame(
    back({
      'content-type': 'text/html',
      etag: '"1"',
      link: ['<a>', '<b>'],
      'x-request-id': 'r',
      'retry-after': '1',
    }),
    {
      'content-type': 'text/html',
      etag: '"1"',
      link: ['<https://broker.example/broker/t1/a>', '<https://broker.example/broker/t1/b>'],
      'x-request-id': 'r',
      'retry-after': '1',
      ...always,
    },
  );
});

t.test('no cache that several share keeps an answer', async (t) => {
  for (const [given, kept] of [
    ['public, max-age=60', 'private, max-age=60'],
    ['PUBLIC,S-MaxAge=60,  stale-while-revalidate=5', 'private, stale-while-revalidate=5'],
    ['no-store', 'private, no-store'],
    ['private="set-cookie", no-cache="a, public"', 'private, no-cache="a, public"'],
    ['max-age="60", public', 'private, max-age="60"'],
    ['public, "', 'private, no-store'],
    ['public; max-age=1', 'private, no-store'],
    ['', 'private'],
  ] as const)
    t.equal(back({ 'cache-control': given })['cache-control'], kept, given);
  t.equal(
    back({ 'cache-control': ['public', 's-maxage=9, max-age=1'] })['cache-control'],
    'private, max-age=1',
  );
  for (const name of ['cdn-cache-control', 'vercel-cdn-cache-control', 'surrogate-control'])
    t.strictSame(back({ [name]: 'public, max-age=60' }), always, name);
  t.equal(back({ vary: 'Accept, Authorization' })['vary'], 'Accept, Authorization');
  t.equal(back({ vary: ['accept', 'origin'] })['vary'], 'accept, origin, authorization');
  t.equal(back({ vary: '*' })['vary'], '*');
});

t.test('a secret leaves in no header, neither value nor name', async (t) => {
  t.strictSame(
    back({
      'x-echo': `Bearer ${key}`,
      'x-list': ['a', Buffer.from(`user:${key}`).toString('base64')],
      [key]: '1',
    })['x-echo'],
    `Bearer ${mark}`,
  );
  const all = JSON.stringify(
    back({
      'x-list': ['a', Buffer.from(key).toString('base64')],
      [key]: '1',
      [`x-${key}`]: '2',
      'x-é': 'caf\u00e9',
    }),
  );
  t.notOk(all.includes(key) || all.includes(Buffer.from(key).toString('base64').slice(0, 20)));
  t.ok(all.includes('caf\u00e9'), 'latin-1 passes as it is');
});

t.test('a Location leads back to the broker or nowhere', async (t) => {
  const location = (value: string | string[]): unknown => back({ location: value })['location'];
  t.equal(location('/base/v1/x?y=z#f'), '/broker/t1/v1/x?y=z#f');
  t.equal(location('https://api.example/base/v1'), '/broker/t1/v1');
  t.equal(location('https://api.example:443/base'), '/broker/t1');
  t.equal(location('v1/x'), '/broker/t1/v1/x');
  t.equal(location(`/base/x?token=${key}`), `/broker/t1/x?token=${mark}`);
  for (const value of [
    'https://evil.test/base/x',
    'http://api.example/base/x',
    'https://api.example:8443/base/x',
    '//evil.test/base',
    '/other',
    '/based',
    '/base/../x',
    'https://u@api.example/base/',
    'javascript:1',
    '\\\\evil.test',
    'https://api.example.evil.test/base',
  ]) {
    t.equal(location(value), undefined, value);
  }
});

t.test(
  'the length of a body is told by a store of objects alone, and there without it',
  async (t) => {
    const stored = (headers: Record<string, string>, hasBody: boolean): unknown =>
      answerHeaders(headers, redactor, { target, ...seenAt, isObjectStore: true }, hasBody)[
        'content-length'
      ];
    t.equal(stored({ 'content-length': '12' }, false), '12');
    t.equal(stored({ 'content-length': '12' }, true), undefined);
    t.equal(stored({ 'content-length': '12, 13' }, false), undefined);
    for (const hasBody of [true, false])
      t.equal(back({ 'content-length': '12' }, hasBody)['content-length'], undefined);
  },
);

t.test('nor is it told in other words, nor a hash to try guesses on', async (t) => {
  const telling = {
    'content-range': 'bytes 0-4095/9999',
    'x-uncompressed-content-length': '9999',
    'x-original-content-length': '9999',
    'content-md5': 'x',
    digest: 'x',
    'content-digest': 'x',
    'repr-digest': 'x',
    'x-content-sha256': 'x',
    etag: 'W/"c-Lve95gjOVATpfV8EL5X4nxwjKHE"',
  };
  for (const hasBody of [true, false]) t.strictSame(back(telling, hasBody), always);
  const kept = {
    etag: '"0f8fad5b-d9cb-469f-a165-70867728950e"',
    'x-amz-checksum-sha256': 'x',
    'x-goog-hash': 'crc32c=x',
    'accept-ranges': 'bytes',
    'x-ratelimit-limit': '12',
  };
  t.strictSame(back(kept), { ...kept, ...always });
  for (const etag of ['"1"', 'W/"abc"', '"d41d8cd98f00b204e9800998ecf8427e-38"', '"5f3e-1a2b3c"'])
    t.equal(back({ etag })['etag'], etag, etag);
  const store = { target, ...seenAt, isObjectStore: true };
  const { 'content-range': range } = answerHeaders(telling, redactor, store, true);
  t.equal(range, 'bytes 0-4095/9999', 'of a store of objects all of it is');
});

t.test('what cannot be scanned is known by its headers', async (t) => {
  for (const headers of [
    {},
    { 'content-encoding': 'identity' },
    { 'content-encoding': '' },
    { 'transfer-encoding': 'chunked' },
    { 'content-type': 'text/html; charset=utf-8' },
    { 'content-type': 'application/json' },
    { 'content-type': 'text/plain; charset=ISO-8859-1' },
  ]) {
    t.ok(isScannable(headers), JSON.stringify(headers));
  }
  for (const coding of ['gzip', 'GZIP', 'br', 'zstd', 'deflate', 'x-gzip', 'identity, gzip']) {
    t.ok(isScannable({ 'content-encoding': coding }), coding);
    t.ok(isScannable({ 'content-encoding': ['identity', coding] }), coding);
  }
  for (const coding of ['compress', 'aws-chunked', 'gzip, br', 'gzip, gzip', 'unknown', '*']) {
    t.notOk(isScannable({ 'content-encoding': coding }), coding);
    t.notOk(isScannable({ 'content-encoding': ['identity', coding] }), coding);
  }
  t.notOk(isScannable({ 'transfer-encoding': 'gzip, chunked' }));
  const charset = (name: string): Record<string, string> => ({
    'content-type': `text/plain; charset=${name}`,
  });
  for (const name of ['utf-7', 'ibm500', 'cp037', 'EBCDIC-US', 'iso-10646-utf-1', '"scsu"'])
    t.notOk(isScannable(charset(name)), name);
  for (const name of ['utf-16', 'UTF-16LE', '"utf-16be"', 'ucs-2', 'UTF_16', 'unicode']) {
    t.ok(isScannable(charset(name)), name);
    t.strictSame(widthsOf(charset(name)), ['utf16le', 'utf16be'], name);
  }
  for (const name of ['"utf-32"', 'UTF-32BE', 'ucs-4', 'iso-10646-ucs-4'])
    t.strictSame(widthsOf(charset(name)), ['utf32le', 'utf32be'], name);
  for (const name of ['utf-8', 'iso-8859-1', 'gb18030']) t.strictSame(widthsOf(charset(name)), []);
  t.notOk(isScannable(charset('utf-16; charset=utf-7')), 'one that nobody reads is enough');
});
