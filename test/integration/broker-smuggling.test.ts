// What arrives at the upstream to the byte, from callers who would have it read two requests in
// one, and what an upstream can do that answers more than it was asked.
import { once } from 'node:events';
import { connect } from 'node:net';
import { createServer, type TLSSocket } from 'node:tls';
import t from 'tap';
import { type BrokerStage, startBroker, type Ticket } from '../helpers/broker.ts';
import { testCertificate } from '../helpers/certificate.ts';
import { egressTo, listening } from '../helpers/egress.ts';

const host = 'raw.test';

/**
 * A TLS server without HTTP: keeps every byte of every connection, and answers what `answer` says
 * once a request looks whole.
 */
async function rawUpstream(
  t: Parameters<typeof listening>[0],
  answer: (got: string) => string | undefined,
): Promise<{ port: number; certificate: string; host: string; connections: string[] }> {
  const { certificate, key } = testCertificate([host]);
  const connections: string[] = [];
  const server = createServer({ cert: certificate, key }, (socket: TLSSocket) => {
    const at = connections.push('') - 1;
    socket
      .on('error', () => undefined)
      .on('data', (chunk) => {
        connections[at] += chunk.toString('latin1');
        const reply = answer(connections[at]!);
        if (reply !== undefined) socket.write(reply, 'latin1');
      });
  });
  return { port: await listening(t, server), certificate, host, connections };
}

async function rawStage(
  t: Parameters<typeof startBroker>[0],
  answer: (got: string) => string | undefined,
): Promise<BrokerStage & { raw: Awaited<ReturnType<typeof rawUpstream>>; own: Ticket }> {
  const raw = await rawUpstream(t, answer);
  const stage = await startBroker(t, () => undefined, { vault: { egress: egressTo(t, [raw]) } });
  const { id } = await stage.store(
    'raw',
    {},
    { fields: { apiKey: stage.secret, baseUrl: `https://${host}:${raw.port}` } },
  );
  return { ...stage, raw, own: await stage.newTicket({}, id) };
}

/** Sends bytes to the broker; what came back until it hangs up, or until `enough`. */
async function send(
  port: number,
  bytes: string,
  enough: (text: string) => boolean = () => false,
): Promise<string> {
  const socket = connect(port, '127.0.0.1');
  let text = '';
  socket
    .on('error', () => undefined)
    .on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
      if (enough(text)) socket.destroy();
    });
  socket.write(bytes, 'latin1');
  await once(socket, 'close');
  return text;
}

const isWhole = (got: string): boolean => {
  const [head = '', ...rest] = got.split('\r\n\r\n');
  const body = rest.join('\r\n\r\n');
  const length = /\r\ncontent-length: (\d+)/i.exec(head)?.[1];
  if (length !== undefined) return body.length >= Number(length);
  return /\r\ntransfer-encoding: chunked/i.test(head)
    ? body.includes('0\r\n\r\n') || body.endsWith('0\r\n') || /(?:^|\r\n)0\r\n/.test(`${body}\r\n`)
    : got.includes('\r\n\r\n');
};
const ok = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok';

t.test('what arrives is one request, whatever was sent', async (t) => {
  const stage = await rawStage(t, (got) => (isWhole(got) ? ok : undefined));
  const { own, raw, port, secret } = stage;
  const head = (line: string, ...headers: string[]): string =>
    [
      `${line} HTTP/1.1`,
      'Host: broker',
      `Authorization: Bearer ${own.ticket}`,
      'Connection: close',
      ...headers,
      '',
      '',
    ].join('\r\n');
  const path = `/broker/${own.id}/v1/x`;
  const post = (headers: string[], body = ''): string => head(`POST ${path}`, ...headers) + body;
  const inner = 'GET /evil HTTP/1.1\r\nHost: evil.test\r\n\r\n';
  const sent: readonly (readonly [what: string, bytes: string, status: number])[] = [
    ['a request in the body', post([`Content-Length: ${inner.length}`], inner), 200],
    [
      'a request in a chunk',
      post(['Transfer-Encoding: chunked'], `${inner.length.toString(16)}\r\n${inner}\r\n0\r\n\r\n`),
      200,
    ],
    [
      'a chunk extension and trailers',
      post(
        ['Transfer-Encoding: chunked', 'Trailer: X-Late'],
        '2;ext="x"\r\nok\r\n0\r\nX-Late: 1\r\nAuthorization: Bearer late\r\n\r\n',
      ),
      200,
    ],
    [
      'length and chunks',
      post(
        ['Content-Length: 4', 'Transfer-Encoding: chunked'],
        '0\r\n\r\nGET /evil HTTP/1.1\r\n\r\n',
      ),
      400,
    ],
    [
      'chunks and length',
      post(['Transfer-Encoding: chunked', 'Content-Length: 4'], '0\r\n\r\n'),
      400,
    ],
    ['two lengths', post(['Content-Length: 4', 'Content-Length: 40'], 'abcd'), 400],
    ['two lengths in one', post(['Content-Length: 4, 4'], 'abcd'), 400],
    ['a length with a sign', post(['Content-Length: +4'], 'abcd'), 400],
    ['a coding that is none', post(['Transfer-Encoding: xchunked'], '0\r\n\r\n'), 400],
    ['a coding twice', post(['Transfer-Encoding: chunked, identity'], '0\r\n\r\n'), 400],
    ['a blank before the colon', post(['Transfer-Encoding : chunked'], '0\r\n\r\n'), 400],
    ['a folded header', post(['X-Folded: a\r\n Authorization: Bearer folded'], ''), 400],
    ['a bare line feed', post(['X-Bare: a\nAuthorization: Bearer bare'], ''), 400],
    ['a bare carriage return', post(['X-Bare: a\rAuthorization: Bearer bare'], ''), 400],
    ['a NUL', post(['X-Nul: a\0b'], ''), 400],
    ['a bad chunk size', post(['Transfer-Encoding: chunked'], '-1\r\nx\r\n0\r\n\r\n'), 400],
    ['a line feed in the path', head(`GET ${path}%0d%0aX-Evil:%201`), 400],
    ['an absolute target', head(`GET http://evil.test${path}`), 404],
    [
      'another host',
      head(`GET ${path}`, 'X-Forwarded-Host: evil.test', 'Forwarded: host=evil.test'),
      200,
    ],
    [
      'headers that name headers',
      head(
        `GET ${path}`,
        'Keep-Alive: timeout=5',
        'TE: trailers',
        'Proxy-Authorization: x',
        'Upgrade-Insecure-Requests: 1',
      ),
      200,
    ],
    ['HTTP/1.0', `GET ${path} HTTP/1.0\r\nAuthorization: Bearer ${own.ticket}\r\n\r\n`, 200],
  ];
  for (const [what, bytes, status] of sent) {
    raw.connections.length = 0;
    const answer = await send(port, bytes);
    t.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `), what);
    const got = raw.connections.join('');
    if (status !== 200 && !what.includes('chunk size') && !what.includes('coding twice'))
      t.equal(got, '', `${what}: nothing goes out`);
    if (status !== 200) continue;
    const [first = '', ...rest] = got.split('\r\n\r\n');
    const lines = first.split('\r\n');
    const named = (name: string): string[] =>
      lines.filter((line) => line.toLowerCase().startsWith(`${name}:`));
    t.match(lines[0], /^(?:GET|POST) \/v1\/x HTTP\/1\.1$/, what);
    t.same(named('host'), [`host: ${host}:${raw.port}`], what);
    t.same(named('authorization'), [`authorization: Bearer ${secret}`], what);
    t.equal(
      named('content-length').length + named('transfer-encoding').length,
      lines[0]!.startsWith('POST') ? 1 : 0,
      `${what}: one length at most`,
    );
    t.notMatch(
      got,
      /vbt_|evil\.test:|x-late|bearer (?!sk-)|x-forwarded|forwarded:|proxy-|te: |trailer/i,
      what,
    );
    if (what === 'a request in the body')
      t.equal(rest.join('\r\n\r\n'), inner, 'the body is a body');
  }
});

t.test("what an upstream sends beyond its answer is nobody's answer", async (t) => {
  const second = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil';
  const answers: Record<string, string> = {
    '/two': `HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok${second}`,
    '/lengths': `HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 50\r\n\r\nok${second}`,
    '/both': `HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n${second}`,
    '/early': `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok`,
    '/split': 'HTTP/1.1 200 OK\r\nX-A: b\rSet-Cookie: c\r\nContent-Length: 2\r\n\r\nok',
    '/upgrade':
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\nConnection: Upgrade\r\n\r\nevil',
    '/plain': 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain',
  };
  const stage = await rawStage(t, (got) => {
    const paths = [...got.matchAll(/(?:^|\r\n\r\n)GET (\/\w+) HTTP/g)];
    return answers[paths.at(-1)?.[1] ?? ''];
  });
  const { call, own } = stage;
  for (const path of Object.keys(answers)) {
    const odd = await call('GET', path, { ticket: own }).then(
      ({ status, text, headers }) => ({ status, text, cookie: headers['set-cookie'] }),
      () => ({ status: 0, text: '', cookie: undefined }),
    );
    t.ok([0, 200, 502].includes(odd.status), `${path}: ${odd.status}`);
    t.notMatch(odd.text, /evil/, path);
    t.equal(odd.cookie, undefined, path);
    const next = await call('GET', '/plain', { ticket: own });
    t.equal(next.text, 'plain', `${path}: the next caller gets his own`);
  }
});
