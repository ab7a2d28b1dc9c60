// What Node would answer by itself, at both listeners, with and without TLS: a problem document
// like any other, with an id, a line in the log, and counted by the limit of its address.
import { randomBytes } from 'node:crypto';
import t from 'tap';
import { problemMediaType, problems } from '../../src/http/problem.ts';
import { problem } from '../../src/http/schemas.ts';
import type { ErrorCode } from '../../src/shared/errors.ts';
import { testCertificate } from '../helpers/certificate.ts';
import { until } from '../helpers/processes.ts';
import { answersIn, rawConnect, rawExchange, type RawTarget } from '../helpers/raw.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const marker = `marker${randomBytes(8).toString('hex')}`;

interface Listener extends RawTarget {
  readonly name: 'api' | 'broker';
  readonly vault: TestVault;
}

/** Both listeners of a vault. */
async function listeners(
  test: { teardown(action: () => unknown): unknown },
  options: Parameters<typeof startVault>[1] & { isTls?: boolean } = {},
): Promise<Listener[]> {
  const { isTls = false, ...more } = options;
  const { certificate: cert, key } = testCertificate();
  const vault = await startVault(test, { ...more, ...(isTls ? { tls: { cert, key } } : {}) });
  return Promise.all(
    (['api', 'broker'] as const).map(async (name) => {
      const app = name === 'api' ? vault.app : vault.broker;
      const url = await app.listen({ host: '127.0.0.1', port: 0 });
      return { name, vault, isTls, port: Number(new URL(url).port) };
    }),
  );
}

const host = 'Host: vault.test\r\n';
const close = 'Connection: close\r\n';
const long = 'x'.repeat(17 * 1024);
/** What is sent, and what each listener answers: the same unless it says otherwise. */
const sent: readonly (readonly [
  what: string,
  bytes: string,
  api: ErrorCode,
  broker?: ErrorCode,
])[] = [
  [
    'an expectation',
    `GET /healthz HTTP/1.1\r\n${host}${close}Expect: ${marker}\r\n\r\n`,
    'expectationFailed',
  ],
  [
    'an empty one',
    `GET /${marker} HTTP/1.1\r\n${host}${close}Expect:\r\n\r\n`,
    'expectationFailed',
  ],
  [
    'two',
    `GET /${marker} HTTP/1.1\r\n${host}${close}Expect: 100-continue\r\nExpect: ${marker}\r\n\r\n`,
    'expectationFailed',
  ],
  ['no Host', `GET /healthz HTTP/1.1\r\n${close}\r\n`, 'malformedHttp'],
  ['two Hosts', `GET /healthz HTTP/1.1\r\n${host}Host: ${marker}\r\n${close}\r\n`, 'malformedHttp'],
  [
    'two media types',
    `POST /v1/teams HTTP/1.1\r\n${host}${close}Content-Type: application/json\r\nContent-Type: ${marker}\r\nContent-Length: 2\r\n\r\n{}`,
    'malformedHttp',
  ],
  [
    'two User-Agents',
    `GET /${marker} HTTP/1.1\r\n${host}${close}User-Agent: a\r\nUser-Agent: ${marker}\r\n\r\n`,
    'malformedHttp',
  ],
  [
    'a second Host behind a thousand lines',
    `GET /healthz HTTP/1.1\r\n${host}${close}${'a:b\r\n'.repeat(1_500)}Host: ${marker}\r\n\r\n`,
    'malformedHttp',
  ],
  [
    'CONNECT',
    `CONNECT ${marker}:443 HTTP/1.1\r\n${host}\r\n`,
    'methodNotAllowed',
    'unsupportedCall',
  ],
  ['CONNECT without a Host', `CONNECT ${marker}:443 HTTP/1.1\r\n\r\n${marker}`, 'malformedHttp'],
  [
    'CONNECT and what should go through',
    `CONNECT ${marker}:443 HTTP/1.1\r\n${host}\r\n${marker}${long}`,
    'methodNotAllowed',
    'unsupportedCall',
  ],
  ['OPTIONS *', `OPTIONS * HTTP/1.1\r\n${host}${close}\r\n`, 'methodNotAllowed', 'notFound'],
  [
    'a method of WebDAV',
    `PROPFIND /${marker} HTTP/1.1\r\n${host}${close}\r\n`,
    'notFound',
    'unsupportedCall',
  ],
  ['TRACE', `TRACE /${marker} HTTP/1.1\r\n${host}${close}\r\n`, 'notFound', 'unsupportedCall'],
  ['HTTP/2.0', `GET /healthz HTTP/2.0\r\n${host}\r\n`, 'malformedHttp'],
  ['HTTP/0.9', `GET /${marker}\r\n\r\n`, 'malformedHttp'],
  ['the preface of HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'malformedHttp'],
  ['PRI under 1.1', `PRI * HTTP/1.1\r\n${host}\r\n`, 'malformedHttp'],
  ['no HTTP', `${marker}\r\n\r\n`, 'malformedHttp'],
  ['a broken header', `GET / HTTP/1.1\r\n${host}${marker}\r\n\r\n`, 'malformedHttp'],
  [
    'a coding that is none',
    `POST /${marker} HTTP/1.1\r\n${host}${close}Transfer-Encoding: gzip\r\n\r\n`,
    'malformedHttp',
  ],
  [
    'chunks of HTTP/1.0',
    'POST /x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    'malformedHttp',
  ],
  ['headers of 17 KiB', `GET / HTTP/1.1\r\n${host}X: ${marker}${long}\r\n\r\n`, 'headersTooLarge'],
  [
    'a URL that is none',
    `GET /v1/teams/%zz${marker} HTTP/1.1\r\n${host}${close}\r\n`,
    'invalidUrl',
  ],
  [
    'an upgrade to nothing',
    `GET /${marker} HTTP/1.1\r\n${host}Connection: close, Upgrade\r\nUpgrade: websocket\r\n\r\n`,
    'notFound',
  ],
];

for (const isTls of [false, true]) {
  t.test(`each is a problem document${isTls ? ', over TLS too' : ''}`, async (test) => {
    for (const { vault, ...listener } of await listeners(test, { isTls })) {
      for (const [what, bytes, ofApi, ofBroker = ofApi] of sent) {
        const code = listener.name === 'api' ? ofApi : ofBroker;
        const at = `${listener.name}: ${what}`;
        vault.logs.length = 0;
        const text = await rawExchange(listener, bytes);
        const [answer, ...more] = answersIn(text);
        test.same(more, [], `${at}: one answer`);
        test.equal(answer?.status, problems[code].status, at);
        test.match(
          answer?.headers,
          {
            'content-type': problemMediaType,
            connection: 'close',
            'cache-control': 'no-store',
            'x-content-type-options': 'nosniff',
            'referrer-policy': 'no-referrer',
            'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
            'x-request-id': answer?.json?.requestId,
            ...(listener.name === 'broker' ? { 'vault-error': 'true' } : {}),
            ...(isTls ? { 'strict-transport-security': /^max-age=/ } : {}),
            ...(code === 'methodNotAllowed'
              ? { allow: 'DELETE, GET, HEAD, PATCH, POST, PUT' }
              : {}),
          },
          at,
        );
        test.ok(problem.safeParse(answer?.json).success, `${at}: it fits its schema`);
        test.equal(answer?.json.code, code, at);
        test.notOk(text.includes(marker), `${at}: nothing of it comes back`);
        const lines = await until(() => (vault.logs.length > 0 ? vault.logs : undefined));
        test.match(
          lines.map((line) => JSON.parse(line) as object),
          [{ event: 'request', requestId: answer?.json.requestId, status: answer?.status }],
          `${at}: one line in the log`,
        );
        test.equal(lines.length, 1, at);
        test.notOk(lines.join('').includes(marker), `${at}: and nothing of it there`);
      }
    }
  });
}

t.test('each counts for its address, also where a probe is asked for', async (test) => {
  for (const isTls of [false, true]) {
    let n = 0;
    for (const { name, ...listener } of await listeners(test, {
      isTls,
      rateLimits: { address: 2, subject: 0 },
    })) {
      for (const [what, bytes, ofApi, ofBroker = ofApi] of sent) {
        n += 1;
        const target = { ...listener, from: `127.0.${isTls ? 2 : 1}.${n}` };
        const seen = [];
        for (let times = 0; times < 3; times += 1)
          seen.push(answersIn(await rawExchange(target, bytes))[0]);
        const { status } = problems[name === 'api' ? ofApi : ofBroker];
        test.same(
          seen.map((answer) => answer?.status),
          [status, status, 429],
          `${name}: ${what}`,
        );
        test.match(
          seen[2],
          { headers: { 'retry-after': /^[1-9]\d?$/ }, json: { code: 'rateLimited' } },
          `${name}: ${what}`,
        );
      }
    }
  }
});

t.test('a request that does not arrive is answered, logged and counted', async (test) => {
  const both = await listeners(test, { rateLimits: { address: 1, subject: 0 } });
  for (const [n, { name, vault, ...listener }] of both.entries()) {
    const { server } = name === 'api' ? vault.app : vault.broker;
    server.headersTimeout = 1;
    server.requestTimeout = 1;
    const target = { ...listener, from: `127.0.3.${n + 1}` };
    vault.logs.length = 0;
    const [late] = answersIn(await rawExchange(target, `GET /${marker} HTTP/1.1\r\nHost: x\r\n`));
    test.match(late, { status: 408, json: { code: 'requestTimeout' } }, name);
    test.match(
      vault.logs.map((line) => JSON.parse(line) as object),
      [{ event: 'request', status: 408, requestId: late?.json.requestId }],
    );
    server.headersTimeout = 60_000;
    test.match(
      answersIn(await rawExchange(target, `${marker}\r\n\r\n`)),
      [{ status: 429 }],
      `${name}: it has counted`,
    );
  }
});

t.test('what came whole before the fault gets its own answer first', async (test) => {
  const [api] = await listeners(test);
  const { vault, ...listener } = api!;
  const get = `GET /healthz HTTP/1.1\r\n${host}\r\n`;
  for (const [what, behind, status] of [
    ['garbage', `${marker}\r\n\r\n`, 400],
    ['CONNECT', `CONNECT a:1 HTTP/1.1\r\n${host}\r\n`, 405],
    ['two Hosts', `GET /healthz HTTP/1.1\r\n${host}${host}${close}\r\n`, 400],
  ] as const) {
    const answers = answersIn(await rawExchange(listener, get + get + behind));
    test.same(
      answers.map((answer) => answer.status),
      [200, 200, status],
      what,
    );
    test.ok(answers[2]?.json.requestId, what);
  }
  // Under way, and whole: what comes behind it must not be answered in its place.
  const entered = Promise.withResolvers<undefined>();
  const { seal } = vault.keyring;
  await vault.team('payments');
  const token = await vault.token('alice');
  const body = JSON.stringify({ name: 'a', type: 'openai', fields: { apiKey: 'sk-a' } });
  vault.keyring.seal = (...args) => {
    entered.resolve(undefined);
    return seal.apply(vault.keyring, args);
  };
  const bytes = `POST /v1/teams/payments/credentials HTTP/1.1\r\n${host}Authorization: Bearer ${token}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
  const text = await rawExchange(listener, `${bytes}${marker}\r\n\r\n`);
  await entered.promise;
  vault.keyring.seal = seal;
  test.same(
    answersIn(text).map(({ status }) => status),
    [201, 400],
    'who has made something is told so',
  );
});

t.test('a body is sent for when the request is let through, and not before', async (test) => {
  const [api] = await listeners(test);
  const { vault, ...listener } = api!;
  await vault.team('payments');
  const body = JSON.stringify({ name: 'a', type: 'openai', fields: { apiKey: 'sk-a' } });
  const ask = async (as: string | null, length = body.length): Promise<string> => {
    const socket = await rawConnect(listener);
    let text = '';
    socket.on('data', (chunk: Buffer) => {
      if (text === '' && chunk.toString().startsWith('HTTP/1.1 100 Continue')) socket.write(body);
      text += chunk.toString();
    });
    socket.write(
      `POST /v1/teams/payments/credentials HTTP/1.1\r\n${host}${close}${as === null ? '' : `Authorization: Bearer ${await vault.token(as)}\r\n`}` +
        `Content-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`,
    );
    await new Promise((resolve) => {
      socket.once('close', resolve);
    });
    return text;
  };
  test.match(await ask('alice'), /^HTTP\/1\.1 100 Continue\r\n\r\nHTTP\/1\.1 201 /);
  test.match(await ask(null), /^HTTP\/1\.1 401 /, 'nobody');
  test.match(await ask('mallory'), /^HTTP\/1\.1 404 /, 'a stranger');
  test.match(await ask('alice', 600_000), /^HTTP\/1\.1 413 /, 'more than there may be');
});

t.test("a connection that breaks under TLS is nobody's request", async (test) => {
  const [api] = await listeners(test, { isTls: true });
  const { vault, ...listener } = api!;
  vault.logs.length = 0;
  await rawExchange({ ...listener, isTls: false }, `GET /${marker} HTTP/1.1\r\n${host}\r\n`);
  test.match(
    (await until(() => (vault.logs.length > 0 ? vault.logs : undefined))).map(
      (line) => JSON.parse(line) as object,
    ),
    [{ event: 'handshakeFailed', level: 20 }],
  );
  test.notOk(vault.logs.join('').includes(marker));
});
