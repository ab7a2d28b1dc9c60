// What a request's head may not be; and that no header of which Node keeps only the first is
// forgotten.
import { once } from 'node:events';
import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import t from 'tap';
import { faultOfHead, type Head } from '../../src/http/head.ts';

type Lines = readonly (readonly [name: string, value: string])[];

/** Heads as Node reads them, from real requests. */
async function reader(test: {
  teardown(action: () => unknown): unknown;
}): Promise<(lines: Lines, version?: string) => Promise<Head>> {
  const server = createServer({ requireHostHeader: false });
  server.maxHeadersCount = 0;
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  test.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return async (lines, version = '1.1') => {
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
    socket.on('error', () => undefined);
    const head = new Promise<IncomingMessage>((resolve) => {
      for (const event of ['request', 'checkExpectation', 'checkContinue'])
        server.removeAllListeners(event).once(event, resolve);
    });
    socket.write(
      `GET / HTTP/${version}\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join('')}\r\n`,
    );
    await head;
    socket.destroy();
    return head;
  };
}

const errorsOf = async (head: Promise<Head>): Promise<unknown> => {
  const fault = faultOfHead(await head);
  return fault === undefined ? undefined : [fault.code, ...(fault.errors ?? [])];
};
const host = ['Host', 'vault.test'] as const;

t.test('each header that Node would silently take the first of may come once', async (test) => {
  const read = await reader(test);
  const names = [
    // of HTTP
    ...'Accept Accept-Charset Accept-Encoding Accept-Language Accept-Ranges Age Allow Authorization Cache-Control Connection Content-Disposition Content-Encoding Content-Language Content-Location Content-Range Content-Type Cookie Date ETag Expires From Host If-Match If-Modified-Since If-None-Match If-Range If-Unmodified-Since Last-Modified Link Location Max-Forwards Origin Pragma Proxy-Authenticate Proxy-Authorization Range Referer Retry-After Server Set-Cookie TE Trailer Upgrade User-Agent Vary Via Warning WWW-Authenticate'.split(
      ' ',
    ),
    // of others, of ours, and of nobody
    ...'Forwarded X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto Idempotency-Key X-Api-Key Traceparent X-Anything'.split(
      ' ',
    ),
  ];
  const droppedByNode: string[] = [];
  for (const name of names) {
    const lines = [
      ...(name === 'Host' ? [] : [host]),
      [name, 'first'],
      ['X-Between', 'x'],
      [name.toUpperCase(), 'second'],
    ] as Lines;
    const head = await read(lines);
    const isDropped = head.headers[name.toLowerCase()] === 'first';
    if (isDropped) droppedByNode.push(name);
    const fault = faultOfHead(head);
    if (!isDropped || name === 'Authorization') {
      test.notMatch(fault, { errors: [{ rule: 'once' }] }, `${name} is a list, or ours to judge`);
      continue;
    }
    test.match(
      fault,
      {
        code: 'malformedHttp',
        errors: [{ pointer: `/headers/${name === 'ETag' ? 'Etag' : name}`, rule: 'once' }],
      },
      name,
    );
  }
  test.ok(droppedByNode.length >= 15, 'Node drops some');
  for (const name of ['Host', 'Content-Type', 'Authorization'])
    test.ok(droppedByNode.includes(name), name);
});

t.test('the same value twice is twice; and the second may stand far behind', async (test) => {
  const read = await reader(test);
  test.match(await errorsOf(read([host, host])), ['malformedHttp', { rule: 'once' }]);
  const many = Array.from({ length: 2_000 }, () => ['a', 'b'] as const);
  test.match(await errorsOf(read([host, ...many, ['HOST', 'evil.test']])), [
    'malformedHttp',
    { pointer: '/headers/Host', rule: 'once' },
  ]);
  test.equal(await errorsOf(read([host, ...many])), undefined, 'many of another name are no fault');
});

t.test('Host, versions, codings, expectations', async (test) => {
  const read = await reader(test);
  const enough = [host, ['Connection', 'close']] as const;
  for (const [what, lines, version, fault] of [
    ['no Host', [], '1.1', ['malformedHttp', { pointer: '/headers/Host', rule: 'required' }]],
    ['an empty Host', [['Host', '']], '1.1', undefined],
    ['no Host under 1.0', [], '1.0', undefined],
    ['two under 1.0', [host, host], '1.0', ['malformedHttp', { rule: 'once' }]],
    ['2.0', enough, '2.0', ['malformedHttp']],
    ['0.9', enough, '0.9', ['malformedHttp']],
    ['chunks', [host, ['Transfer-Encoding', 'Chunked']], '1.1', undefined],
    [
      'a coding before the chunks',
      [host, ['Transfer-Encoding', 'gzip, chunked']],
      '1.1',
      ['malformedHttp', { pointer: '/headers/Transfer-Encoding', rule: 'chunked' }],
    ],
    [
      'a coding without an end',
      [host, ['Transfer-Encoding', 'gzip']],
      '1.1',
      ['malformedHttp', { rule: 'chunked' }],
    ],
    [
      'chunks under 1.0',
      [['Transfer-Encoding', 'chunked']],
      '1.0',
      ['malformedHttp', { rule: 'chunked' }],
    ],
    ['100-continue', [host, ['Expect', '100-Continue']], '1.1', undefined],
    [
      'a miracle',
      [host, ['Expect', 'a-miracle']],
      '1.1',
      ['expectationFailed', { pointer: '/headers/Expect', rule: 'enum' }],
    ],
    [
      'both',
      [host, ['Expect', '100-continue, a-miracle']],
      '1.1',
      ['expectationFailed', { rule: 'enum' }],
    ],
    ['nothing', [host, ['Expect', '']], '1.1', ['expectationFailed', { rule: 'enum' }]],
    ['a miracle under 1.0', [['Expect', 'a-miracle']], '1.0', undefined],
  ] as const) {
    const errors = await errorsOf(read(lines, version));
    if (fault === undefined) test.equal(errors, undefined, what);
    else test.match(errors, [...fault], what);
  }
});
