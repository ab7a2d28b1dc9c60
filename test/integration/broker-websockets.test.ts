// WebSockets through the broker, with a real client and a real server: both ways, without the
// secret, within their bounds, and no longer than the right behind them stands.
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import OpenAI from 'openai';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import t from 'tap';
import type { WebSocket } from 'ws';
import { webSocketTimes, type WebSocketTimes } from '../../src/broker/index.ts';
import { lastOutcome, stageOf, type SwitchableStage } from '../helpers/broker.ts';
import { testCertificate } from '../helpers/certificate.ts';
import { demand } from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import {
  clientOf,
  rawClient,
  rawFrame,
  rawServer,
  refusedOf,
  serverOf,
} from '../helpers/web-sockets.ts';

const short: WebSocketTimes = { ...webSocketTimes, closeMs: 500 };
const live = (
  t: Parameters<typeof stageOf>[0],
  policy: object = {},
  times: Partial<WebSocketTimes> = {},
): Promise<SwitchableStage> =>
  stageOf(t, {
    policy: { webSockets: true, ...policy },
    vault: { webSocketTimes: { ...short, ...times } },
  });

t.test('both ways', async (t) => {
  const stage = await live(t);

  await t.test('text, binary, pings, subprotocol and close arrive as they were sent', async (t) => {
    const closed = Promise.withResolvers<[number, string]>();
    let asked: IncomingMessage | undefined;
    const pinged: string[] = [];
    serverOf(t, stage, (socket, request) => {
      asked = request;
      socket.on('message', (data, isBinary) => {
        socket.send(data, { binary: isBinary });
      });
      socket.on('ping', (data: Buffer) => pinged.push(String(data)));
      socket.on('close', (code, reason) => {
        closed.resolve([code, String(reason)]);
      });
    });
    const client = await clientOf(stage, { path: 'live?model=m', protocols: ['chat', 'other'] });
    t.equal(client.socket.protocol, 'chat');
    t.equal(client.socket.extensions, '', 'no extension was agreed on');
    t.match(asked, {
      url: '/live?model=m',
      headers: {
        authorization: `Bearer ${stage.secret}`,
        host: `${stage.upstream.host}:${stage.upstream.port}`,
        'sec-websocket-protocol': 'chat, other',
        'sec-websocket-version': '13',
      },
    });
    t.notOk('sec-websocket-extensions' in asked!.headers);
    t.notMatch(JSON.stringify(asked!.rawHeaders), /vbt_/);
    const sent = ['grüße', '', 'x'.repeat(126), 'y'.repeat(70_000), 'z'.repeat(2 ** 20)];
    for (const text of sent) client.socket.send(text);
    client.socket.send(Buffer.from([0, 1, 255]));
    await until(() => client.heard.length === sent.length + 1);
    for (const [i, text] of sent.entries())
      t.ok(client.heard[i]!.text === Buffer.from(text).toString('latin1'), `${text.length}`);
    t.strictSame(client.heard.at(-1), { text: '\u0000\u0001ÿ', isBinary: true });
    client.socket.ping('are you there');
    await once(client.socket, 'pong');
    t.strictSame(pinged, ['are you there']);
    client.socket.close(4001, 'done');
    t.strictSame(await closed.promise, [4001, 'done']);
    t.strictSame(await client.closed, { code: 4001, reason: 'done' });
    const said = await lastOutcome(stage, ({ closeCode }) => closeCode === 4001);
    t.match(said, { status: 101 });
    t.ok(said.sentBytes > 2 ** 20 && said.receivedBytes > 2 ** 20);
    const [begun] = await stage.vault.db
      .selectFrom('audit_event')
      .select('details')
      .where('action', '=', 'credential.use')
      .execute();
    t.match(begun!.details, { method: 'GET', path: '/live', webSocket: true });
    await until(() =>
      stage.vault.logs.some((line) => line.includes('"status":101') && !line.includes('isCut')),
    );
  });

  await t.test('fragments of a message stay fragments', async (t) => {
    serverOf(t, stage, (socket) => {
      socket.send('one ', { fin: false });
      socket.send('two ', { fin: false });
      socket.send('three', { fin: true });
      socket.on('message', (data: Buffer) => {
        socket.send(`whole: ${String(data)}`);
      });
    });
    const client = await clientOf(stage);
    client.socket.send('a', { fin: false });
    client.socket.send('b', { fin: true });
    await until(() => client.heard.length === 2);
    t.strictSame(
      client.heard.map(({ text }) => text),
      ['one two three', 'whole: ab'],
    );
    client.socket.close();
    await client.closed;
  });

  await t.test('the secret is found over the borders of frames, wherever it stands', async (t) => {
    const { secret } = stage;
    serverOf(t, stage, (socket) => {
      socket.send(`{"key":"${secret}"}`);
      socket.send(Buffer.from(`binary ${secret} end`));
      for (const cut of [1, 7, secret.length - 1]) {
        socket.send(`cut ${secret.slice(0, cut)}`, { fin: false });
        socket.send(`${secret.slice(cut)} end`, { fin: true });
      }
      const text = `in bytes ${Buffer.from(secret).toString('base64')} end`;
      for (const [i, letter] of [...text].entries())
        socket.send(letter, { fin: i === text.length - 1 });
      socket.send(`a beginning: ${secret.slice(0, 20)}`);
      socket.ping(secret);
      socket.send('last');
      socket.once('message', () => {
        socket.close(4000, `because of ${secret}`);
      });
    });
    const client = await clientOf(stage);
    await until(() => client.heard.at(-1)?.text === 'last');
    const all = client.heard.map(({ text }) => text);
    t.strictSame(all, [
      '{"key":"[redacted]"}',
      'binary [redacted] end',
      ...[1, 7, secret.length - 1].map(() => 'cut [redacted] end'),
      'in bytes [redacted] end',
      'a beginning: [redacted]',
      'last',
    ]);
    t.strictSame(client.pings, ['[redacted]']);
    client.socket.send('go');
    t.strictSame(await client.closed, { code: 4000, reason: 'because of [redacted]' });
  });

  await t.test('a side that goes without a word closes the other one', async (t) => {
    const sockets: WebSocket[] = [];
    serverOf(t, stage, (socket) => {
      sockets.push(socket);
    });
    const first = await clientOf(stage);
    first.socket.terminate();
    const [code] = (await once(sockets[0]!, 'close')) as [number];
    t.equal(code, 1001);
    await lastOutcome(stage, ({ failure }) => failure === 'callerGone');
    const second = await clientOf(stage);
    sockets[1]!.terminate();
    t.equal((await second.closed).code, 1014);
    await lastOutcome(stage, ({ failure }) => failure === 'response');
  });
});

t.test('off unless the policy says so; what is no handshake is no WebSocket', async (t) => {
  const stage = await stageOf(t, { policy: { methods: ['GET'] } });
  serverOf(t, stage, () => {
    t.fail('nothing arrives');
  });
  t.match(await refusedOf(clientOf(stage)), { status: 501, text: /unsupportedCall/ });
  const { id } = await stage.store('posts', { webSockets: true, methods: ['POST'] });
  const posts = await stage.newTicket({}, id);
  t.match(await refusedOf(clientOf(stage, { ticket: posts })), {
    status: 403,
    text: /methodNotAllowed/,
  });
  const on = await stage.newTicket({}, (await stage.store('on', { webSockets: true })).id);
  t.match(await refusedOf(clientOf(stage, { ticket: { ...on, ticket: stage.ticket.ticket } })), {
    status: 401,
    text: /ticketInvalid/,
    headers: { 'vault-error': 'true' },
  });
  const good = {
    authorization: `Bearer ${on.ticket}`,
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-version': '13',
    'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
  };
  for (const wrong of [
    { connection: 'keep-alive, upgrade', 'sec-websocket-version': '8' },
    { 'sec-websocket-key': 'short' },
    { 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZR==' },
    { 'sec-websocket-protocol': 'a, a' },
    { 'sec-websocket-protocol': 'a b' },
    { 'content-length': '3' },
  ]) {
    const answer = await stage.call('GET', '/live', { ticket: on, headers: { ...good, ...wrong } });
    t.match([answer.status, answer.json?.code], [400, 'malformedHttp'], JSON.stringify(wrong));
  }
  // SECURITY: both sides repeat subprotocols, so no ticket is taken there.
  const headers = {
    ...good,
    'sec-websocket-protocol': `realtime, openai-insecure-api-key.${on.ticket}`,
  };
  const answer = await stage.call('GET', '/live', { ticket: on, headers });
  t.same([answer.status, answer.json?.code], [401, 'ticketInvalid']);
});

t.test("the upstream's handshake has to be the answer to ours", async (t) => {
  const stage = await live(t);
  const right = [
    'HTTP/1.1 101 Switching Protocols',
    'Upgrade: websocket',
    'Connection: Upgrade',
    'Sec-WebSocket-Accept: {accept}',
  ];
  const wrong: readonly [string, readonly string[]][] = [
    ['no key', right.slice(0, 3)],
    ['a wrong key', [...right.slice(0, 3), 'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=']],
    ['no upgrade', [right[0]!, ...right.slice(2)]],
    ['another upgrade', [right[0]!, 'Upgrade: h2c', ...right.slice(2)]],
    ['an extension', [...right, 'Sec-WebSocket-Extensions: permessage-deflate']],
    ['a protocol that nobody asked for', [...right, 'Sec-WebSocket-Protocol: other']],
  ];
  for (const [what, lines] of wrong)
    await t.test(what, async (t) => {
      rawServer(t, stage, lines, (socket) => socket.write(rawFrame(0x81, stage.secret, false)));
      const answer = await refusedOf(clientOf(stage));
      t.match(answer, { status: 502, headers: { 'vault-error': 'true' } });
      t.notMatch(answer.text, stage.secret);
    });
  await t.test('a refusal is an answer like any other', async (t) => {
    rawServer(
      t,
      stage,
      [
        'HTTP/1.1 403 Forbidden',
        'Content-Type: text/plain',
        `X-Echo: ${stage.secret}`,
        'Set-Cookie: a=b',
        'Connection: close',
      ],
      (socket) => socket.end(`no: ${stage.secret}`),
    );
    const answer = await refusedOf(clientOf(stage));
    t.match(answer, { status: 403, text: 'no: [redacted]', headers: { 'x-echo': '[redacted]' } });
    t.notOk('set-cookie' in answer.headers);
    t.match(await lastOutcome(stage, ({ status }) => status === 403), { receivedBytes: 14 });
  });
  await t.test('one that never answers is waited for as any other', async (t) => {
    const { id } = await stage.store('quick', { webSockets: true, limits: { idleSeconds: 1 } });
    const ticket = await stage.newTicket({}, id);
    const silent = (): undefined => undefined;
    stage.upstream.server.on('upgrade', silent);
    t.teardown(() => stage.upstream.server.off('upgrade', silent));
    t.match(await refusedOf(clientOf(stage, { ticket })), { status: 504 });
  });
});

t.test('what are no frames', async (t) => {
  const stage = await live(t, { limits: { requestBytes: 5_000, responseBytes: 5_000 } });
  const large = (first: number, isMasked: boolean): Buffer => {
    const head = Buffer.alloc(10);
    head[0] = first;
    head[1] = (isMasked ? 0x80 : 0) | 127;
    head.writeBigUInt64BE(2n ** 20n + 1n, 2);
    return head;
  };
  const wrong = (isMasked: boolean): readonly [string, number, Buffer][] => {
    const frame = (first: number, payload: Buffer | string = ''): Buffer =>
      rawFrame(first, payload, isMasked);
    const notMinimal = Buffer.concat([
      Buffer.from([0x81, (isMasked ? 0x80 : 0) | 126, 0, 5]),
      Buffer.alloc((isMasked ? 4 : 0) + 5, 'a'),
    ]);
    return [
      ['the other mask', 1002, rawFrame(0x81, 'x', !isMasked)],
      ['RSV1, which is compression', 1002, frame(0xc1, 'x')],
      ['RSV2', 1002, frame(0xa1, 'x')],
      ['RSV3', 1002, frame(0x91, 'x')],
      ['a reserved kind', 1002, frame(0x83, 'x')],
      ['a reserved control', 1002, frame(0x8b, 'x')],
      ['a long ping', 1002, frame(0x89, 'x'.repeat(126))],
      ['a fragmented ping', 1002, frame(0x09, 'x')],
      ['a continuation of nothing', 1002, frame(0x80, 'x')],
      ['a message within a message', 1002, Buffer.concat([frame(0x01, 'x'), frame(0x81, 'y')])],
      ['a length said longer than it is', 1002, notMinimal],
      ['a close of one byte', 1002, frame(0x88, 'x')],
      ['a close with 1005', 1002, frame(0x88, Buffer.from([0x03, 0xed]))],
      ['a close with 999', 1002, frame(0x88, Buffer.from([0x03, 0xe7]))],
      ['a close that is no UTF-8', 1007, frame(0x88, Buffer.from([0x03, 0xe8, 0xc3, 0x28]))],
      ['a frame of more than a MiB', 1009, large(0x82, isMasked)],
      ['a request', 1002, Buffer.from('GET /broker/x HTTP/1.1\r\nHost: x\r\n\r\n')],
      [
        'fragments beyond the limit',
        1009,
        Buffer.concat([frame(0x02, 'x'.repeat(3_000)), frame(0x80, 'x'.repeat(3_000))]),
      ],
    ];
  };
  /** The code of the close frame at the end of what a bare client heard. */
  const codeIn = (bytes: Buffer): number => bytes.readUInt16BE(bytes.lastIndexOf(0x88) + 2);

  await t.test("of the caller's", async (t) => {
    const closings: number[] = [];
    const arrived: string[] = [];
    serverOf(t, stage, (socket) => {
      socket.on('message', (data: Buffer) => arrived.push(String(data)));
      socket.on('close', (code) => closings.push(code));
    });
    for (const [what, code, bytes] of wrong(true)) {
      const client = await rawClient(stage);
      client.socket.write(bytes);
      await client.closed;
      t.equal(codeIn(client.heard()), code, what);
      await until(() => closings.length > 0);
      t.equal(closings.shift(), 1001, `${what}: the upstream`);
    }
    t.strictSame(arrived, [], 'none of it went on');
    const smuggled = await rawClient(stage, {
      head: `GET /broker/${stage.ticket.id}/second HTTP/1.1\r\nHost: x\r\n\r\n`,
    });
    await smuggled.closed;
    t.equal(codeIn(smuggled.heard()), 1002, 'a second request behind the handshake');
  });

  for (const [what, code, bytes] of wrong(false))
    await t.test(`of the upstream's: ${what}`, async (t) => {
      const told = Promise.withResolvers<Buffer>();
      rawServer(
        t,
        stage,
        [
          'HTTP/1.1 101 Switching Protocols',
          'Upgrade: websocket',
          'Connection: upgrade',
          'Sec-WebSocket-Accept: {accept}',
        ],
        (socket) => {
          socket.once('data', (chunk: Buffer) => {
            told.resolve(chunk);
          });
          socket.write(bytes);
        },
      );
      const client = await clientOf(stage);
      t.equal((await client.closed).code, code === 1009 ? 1009 : 1014);
      const close = await told.promise;
      t.equal(close[0], 0x88);
      t.equal((close.readUInt16BE(6) ^ close.readUInt16BE(2)) & 0xffff, code);
    });
});

t.test('rights are asked again while it is open', async (t) => {
  const stage = await live(t, {}, { askMs: 40 });
  const closings: number[] = [];
  serverOf(t, stage, (socket) => {
    socket.on('close', (code) => closings.push(code));
  });
  const ended = async (what: string, act: () => Promise<unknown>): Promise<void> => {
    const ticket = await stage.newTicket();
    const client = await clientOf(stage, { ticket });
    client.socket.on('pong', () => undefined);
    await act();
    t.equal((await client.closed).code, 1008, what);
    await until(() => closings.length > 0);
    t.equal(closings.shift(), 1008, `${what}: at the upstream`);
  };
  const { vault, credential } = stage;
  const put = (policy: object) =>
    demand(
      vault.call(
        'alice',
        'PATCH',
        `/v1/credentials/${credential}`,
        {
          policy: { delivery: ['broker'], allowedHosts: [], ...policy },
          fields: { apiKey: stage.secret },
        },
        { 'if-match': '*' },
      ),
      200,
    );
  let last = stage.ticket;
  await ended('the policy', () => put({}));
  await put({ webSockets: true });
  {
    last = await stage.newTicket();
    const client = await clientOf(stage, { ticket: last });
    await demand(vault.call('n8n', 'DELETE', `/v1/broker-tickets/${last.id}`), 204);
    t.equal((await client.closed).code, 1008, 'the ticket');
    closings.length = 0;
  }
  await ended('the credential', () =>
    demand(
      vault.call('alice', 'POST', `/v1/credentials/${credential}/disable`, undefined, {
        'if-match': '*',
      }),
      200,
    ),
  );
  await demand(
    vault.call('alice', 'POST', `/v1/credentials/${credential}/enable`, undefined, {
      'if-match': '*',
    }),
    200,
  );
  await ended('the membership of the engine', () =>
    demand(
      vault.call('alice', 'DELETE', '/v1/teams/payments/members/n8n', undefined, {
        'if-match': '*',
      }),
      204,
    ),
  );
  t.match(await lastOutcome(stage, ({ failure }) => failure === 'notAllowed'), {
    closeCode: 1008,
    status: 101,
  });
});

t.test('one whose rights stand stays open', async (t) => {
  const stage = await live(t, {}, { askMs: 10, eventMs: 30 });
  serverOf(t, stage, (socket) => {
    socket.on('message', (data) => {
      socket.send(data);
    });
  });
  const client = await clientOf(stage);
  client.socket.send('before');
  await lastOutcome(stage, ({ isOpen, receivedBytes }) => isOpen === true && receivedBytes === 6);
  client.socket.send('after');
  await until(() => client.heard.length === 2);
  client.socket.close(1000);
  await client.closed;
  const last = await lastOutcome(stage, ({ closeCode }) => closeCode === 1000);
  t.match(last, { sentBytes: 11, receivedBytes: 11, status: 101 });
  t.notOk('isOpen' in last || 'failure' in last);
});

t.test('its time is bounded: without movement, and in all', async (t) => {
  for (const [times, failure] of [
    [{ idleMs: 100 }, 'idle'],
    [{ longestMs: 100 }, 'longest'],
  ] as const) {
    const stage = await live(t, {}, times);
    serverOf(t, stage, () => undefined);
    const client = await clientOf(stage);
    if (failure === 'longest') {
      const pinging = setInterval(() => client.socket.ping(), 20);
      void client.closed.then(() => {
        clearInterval(pinging);
      });
    }
    t.equal((await client.closed).code, 1001, failure);
    await lastOutcome(stage, (details) => details.failure === failure);
  }
});

t.test('it has a place among the calls, and gives it back', async (t) => {
  const stage = await live(t, { limits: { concurrency: 1 } });
  serverOf(t, stage, () => undefined);
  const client = await clientOf(stage);
  t.match(await refusedOf(clientOf(stage)), { status: 429 });
  t.match(await stage.call('GET', '/x'), { status: 429 });
  client.socket.close();
  await client.closed;
  await until(async () => (await stage.call('GET', '/x')).status === 200);
});

t.test('a stop closes it in order', async (t) => {
  const stage = await live(t);
  const closings: number[] = [];
  serverOf(t, stage, (socket) => {
    socket.on('close', (code) => closings.push(code));
  });
  const clients = [await clientOf(stage), await clientOf(stage)];
  const stopped = stage.vault.stop();
  for (const client of clients) t.equal((await client.closed).code, 1001);
  await stopped;
  await until(() => closings.length === 2);
  t.strictSame(closings, [1001, 1001]);
});

t.test("OpenAI's realtime client, over TLS", async (t) => {
  const { certificate, key } = testCertificate(['localhost']);
  const stage = await stageOf(t, {
    policy: { webSockets: true },
    vault: { tls: { cert: certificate, key }, webSocketTimes: short },
  });
  serverOf(t, stage, (socket, request) => {
    socket.send(JSON.stringify({ type: 'session.created', asked: request.url }));
    socket.on('message', (data: Buffer) => {
      const event = JSON.parse(String(data)) as { type: string };
      socket.send(
        JSON.stringify({
          type: 'response.output_text.delta',
          delta: `${event.type} ${request.headers.authorization}`,
        }),
      );
    });
  });
  const ticket = stage.ticket;
  const baseURL = `https://localhost:${stage.port}${new URL(ticket.baseUrl).pathname}v1`;
  const client = new OpenAI({ apiKey: ticket.ticket, baseURL });
  const realtime = new OpenAIRealtimeWS(
    { model: 'gpt-realtime', options: { ca: certificate } },
    client,
  );
  const created = Promise.withResolvers<unknown>();
  const delta = Promise.withResolvers<string>();
  realtime.on('error', (error) => {
    created.reject(error);
    delta.reject(error);
  });
  realtime.on('session.created', (event) => {
    created.resolve(event);
    realtime.send({ type: 'response.create' });
  });
  realtime.on('response.output_text.delta', (event) => {
    delta.resolve(event.delta);
  });
  t.match(await created.promise, { asked: '/v1/realtime?model=gpt-realtime' });
  t.equal(await delta.promise, 'response.create Bearer [redacted]');
  realtime.close();
});
