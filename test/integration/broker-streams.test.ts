// Streams through the broker, both ways, with real sockets: nothing is held back, nothing piles up,
// and who goes away is noticed on the other side. Where one side waits for the other, the test
// would hang if the broker held anything.
import { once } from 'node:events';
import { type IncomingMessage, request as httpRequest, type ServerResponse } from 'node:http';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { lastOutcome, readAnswer, responseOf, stageOf } from '../helpers/broker.ts';
import { until } from '../helpers/processes.ts';

t.test('streams', async (t) => {
  const stage = await stageOf(t);

  await t.test(
    'each event of a stream arrives before the next one is sent, the headers before the first',
    async (t) => {
      let send: ServerResponse | undefined;
      stage.on((_request, response) => {
        response.writeHead(200, { 'content-type': 'text/event-stream' });
        response.flushHeaders();
        send = response;
      });
      const request = stage.begin('POST', '/v1/stream', { 'content-length': 2 });
      request.end('{}');
      const response = await responseOf(request);
      t.equal(response.headers['content-type'], 'text/event-stream');
      for (let i = 0; i < 5; i += 1) {
        const event = `data: {"n":${i}}\n\n`;
        send!.write(event);
        t.equal(String((await once(response, 'data'))[0]), event);
      }
      const ended = once(response, 'end');
      send!.end('data: [DONE]\n\n');
      t.equal(String((await once(response, 'data'))[0]), 'data: [DONE]\n\n');
      await ended;
    },
  );

  await t.test('an upload arrives piece by piece', async (t) => {
    const pieces: string[] = [];
    let onPiece = (): void => undefined;
    stage.on((request, response) => {
      request
        .on('data', (piece: Buffer) => {
          pieces.push(String(piece));
          onPiece();
        })
        .on('end', () => {
          response.end('done');
        });
    });
    const request = stage.begin('PUT', '/v1/files');
    for (const piece of ['one', 'two', 'three']) {
      const arrived = new Promise<void>((resolve) => {
        onPiece = resolve;
      });
      request.write(piece);
      await arrived;
    }
    request.end();
    t.equal((await readAnswer(await responseOf(request))).text, 'done');
    t.strictSame(pieces, ['one', 'two', 'three']);
  });

  await t.test('100 MB up and down, whole, without growing', async (t) => {
    const big = await stage.store('big', {
      limits: { requestBytes: 200 * 2 ** 20, responseBytes: 200 * 2 ** 20 },
    });
    const ticket = await stage.newTicket({}, big.id);
    const piece = Buffer.alloc(64 * 1024, 1);
    const count = 1_600;
    stage.on(async (request, response) => {
      let bytes = 0;
      for await (const chunk of request) bytes += (chunk as Buffer).length;
      response.writeHead(200, { 'x-bytes': String(bytes) });
      for (let i = 0; i < count; i += 1) if (!response.write(piece)) await once(response, 'drain');
      response.end();
    });
    const request = httpRequest({
      host: '127.0.0.1',
      port: stage.port,
      method: 'PUT',
      path: `/broker/${ticket.id}/big`,
      headers: { 'x-api-key': ticket.ticket },
      agent: false,
    });
    const collect = collector();
    // What a collection finds dead outside of the heap is let go a moment later, by another thread.
    const held = async (): Promise<number> => {
      collect();
      await delay(5);
      collect();
      const { arrayBuffers, heapUsed } = process.memoryUsage();
      return arrayBuffers + heapUsed;
    };
    const before = await held();
    let most = before;
    for (let i = 0; i < count; i += 1) {
      if (!request.write(piece)) await once(request, 'drain');
      if (i % 200 === 199) most = Math.max(most, await held());
    }
    request.end();
    const response = await responseOf(request);
    let bytes = 0;
    for await (const chunk of response) {
      const step = Math.floor(bytes / 2 ** 24);
      bytes += (chunk as Buffer).length;
      if (Math.floor(bytes / 2 ** 24) > step) most = Math.max(most, await held());
    }
    t.equal(response.headers['x-bytes'], String(count * piece.length));
    t.equal(bytes, count * piece.length);
    t.ok(
      most - before < 48 * 2 ** 20,
      `${Math.round((most - before) / 2 ** 20)} MiB more at most, of 200`,
    );
  });

  await t.test('who does not read is not written for: up', async (t) => {
    let reading: IncomingMessage | undefined;
    stage.on((request) => {
      request.pause();
      reading = request;
    });
    const request = stage.begin('POST', '/v1/slow');
    request.on('error', () => undefined);
    const written = await fill(request);
    t.ok(written < 16 * 2 ** 20, `${written} bytes were taken`);
    t.ok(reading);
    request.destroy();
  });

  await t.test('who does not read is not written for: down', async (t) => {
    let written = -1;
    stage.on((_request, response) => {
      response.on('error', () => undefined);
      void fill(response).then((bytes) => {
        written = bytes;
      });
    });
    const request = stage.begin('GET', '/v1/slow');
    request.end();
    const response = await responseOf(request);
    response.pause();
    await until(() => written >= 0);
    t.ok(written < 16 * 2 ** 20, `${written} bytes were taken`);
    response.on('error', () => undefined).destroy();
  });

  await t.test(
    'the caller goes away: before the answer, within it, within its own body',
    async (t) => {
      const gone = (what: string): Promise<void> =>
        new Promise((resolve) => {
          stage.on((request, response) => {
            response.on('close', () => {
              resolve();
            });
            if (what === 'answer') response.write('beginning');
            if (what === 'body') request.resume();
          });
        });
      for (const what of ['nothing', 'answer', 'body']) {
        const closed = gone(what);
        const request = stage.begin(
          'POST',
          '/v1/gone',
          what === 'body' ? {} : { 'content-length': 0 },
        );
        request.on('error', () => undefined);
        if (what === 'body') request.write('part');
        else request.end();
        if (what === 'answer') {
          const response = await responseOf(request);
          response.on('error', () => undefined);
          await once(response, 'data');
        } else
          await until(
            async () =>
              (
                await stage.vault.db
                  .selectFrom('audit_event')
                  .select('id')
                  .where('action', '=', 'credential.use')
                  .execute()
              ).length > 0,
          );
        if (what !== 'answer')
          await new Promise<void>((resolve) => {
            stage.upstream.server.once('request', () => {
              resolve();
            });
            setTimeout(resolve, 300);
          });
        request.destroy();
        await closed;
      }
      t.equal(
        (await lastOutcome(stage, ({ failure }) => failure === 'callerGone')).failure,
        'callerGone',
      );
    },
  );

  await t.test(
    "the upstream goes away within its answer: the caller's breaks off too, and is not ended",
    async (t) => {
      for (const head of [{}, { 'content-length': '100' }, { 'content-length': '1000000' }]) {
        stage.on((_request, response) => {
          response.writeHead(200, head);
          response.write('beginning', () => {
            response.destroy();
          });
        });
        const request = stage.begin('GET', '/v1/broken');
        request.end();
        await t.rejects(
          responseOf(request).then(readAnswer),
          { code: /ECONNRESET/ },
          JSON.stringify(head),
        );
      }
      t.match(
        await lastOutcome(stage, ({ failure, status }) => failure === 'response' && status === 200),
        { receivedBytes: Number },
      );
    },
  );

  await t.test('the upstream goes away before its answer: 502, said by the vault', async (t) => {
    let calls = 0;
    stage.on((_request, response) => {
      calls += 1;
      response.destroy();
    });
    t.match(await stage.call('POST', '/v1/x', { body: 'x' }), {
      status: 502,
      json: { code: 'upstreamUnusable', errors: [{ rule: 'response' }] },
      headers: { 'vault-error': 'true' },
    });
    t.equal(calls, 1, 'what may have been done is not done again');
  });

  await t.test('an upstream that answers 502 itself is passed on as it is', async (t) => {
    for (const status of [400, 401, 404, 429, 500, 502, 503]) {
      stage.on((_request, response) => {
        response
          .writeHead(status, {
            'content-type': 'application/problem+json',
            'vault-error': 'true',
            'retry-after': '7',
          })
          .end('{"mine":true}');
      });
      const answer = await stage.call('GET', '/v1/x');
      t.match(answer, { status, json: { mine: true }, headers: { 'retry-after': '7' } });
      t.notOk('vault-error' in answer.headers, "and cannot pass for the vault's");
    }
  });

  await t.test('a redirect is an answer, and leads nowhere by itself', async (t) => {
    const seen: string[] = [];
    stage.on((request, response) => {
      seen.push(request.url!);
      response.writeHead(Number(request.url!.slice(1)), { location: 'https://evil.test/x' }).end();
    });
    for (const status of [301, 302, 303, 307, 308]) {
      const answer = await stage.call('POST', `/${status}`, { body: 'x' });
      t.equal(answer.status, status);
      t.notOk('location' in answer.headers);
    }
    t.strictSame(seen, ['/301', '/302', '/303', '/307', '/308']);
  });

  await t.test('answers without a body, trailers, early hints', async (t) => {
    stage.on((request, response) => {
      const status = Number(request.url!.slice(1));
      if (request.method === 'HEAD') {
        response.writeHead(200, { 'content-length': '1234', 'content-type': 'text/plain' }).end();
        return;
      }
      response.writeEarlyHints({ link: '</style.css>; rel=preload' }, () => {
        if (status === 200) {
          response.writeHead(200, { trailer: 'x-sum' });
          response.write('body');
          response.addTrailers({ 'x-sum': 'abc' });
          response.end();
        } else response.writeHead(status, { etag: '"x"' }).end();
      });
    });
    const head = await stage.call('HEAD', '/200');
    t.match(head, { status: 200, text: '', headers: { 'content-type': 'text/plain' } });
    t.notOk('content-length' in head.headers, 'of an echo it would tell the length of the secret');
    for (const status of [204, 304])
      t.match(await stage.call('GET', `/${status}`), {
        status,
        text: '',
        headers: { etag: '"x"' },
      });
    const answer = await stage.call('GET', '/200');
    t.match(answer, { status: 200, text: 'body' });
    t.strictSame(answer.trailers, {});
  });

  await t.test(
    'the secret that comes back is not passed on, in headers or body, small or streamed',
    async (t) => {
      for (const isStreamed of [false, true]) {
        stage.on((request, response) => {
          response.setHeader('x-echo', request.headers.authorization!);
          if (isStreamed) {
            for (const byte of Buffer.from(JSON.stringify(request.headers)))
              response.write(Buffer.from([byte]));
            response.end();
          } else response.end(JSON.stringify(request.headers));
        });
        const answer = await stage.call('GET', '/v1/echo');
        t.equal(answer.status, 200);
        t.match(answer.headers['x-echo'], /redacted/);
        t.match(answer.text, /redacted/);
        t.notOk((answer.text + JSON.stringify(answer.headers)).includes(stage.secret.slice(3, 20)));
        if (!isStreamed) t.equal(answer.headers['content-length'], String(answer.bytes.length));
      }
    },
  );

  await t.test(
    'a kept connection that the upstream just closed: what may be repeated is, once',
    async (t) => {
      let calls = 0;
      stage.on((request, response) => {
        calls += 1;
        if (calls === 1) request.socket.destroy();
        else response.end('again');
      });
      t.match(await stage.call('GET', '/v1/x'), { status: 200, text: 'again' });
      t.equal(calls, 2);
      stage.on((request) => {
        calls += 1;
        request.socket.destroy();
      });
      t.match(await stage.call('GET', '/v1/x'), { status: 502 });
      t.equal(calls, 4, 'and no third time');
    },
  );
});

/** Collects garbage, so that only memory in use is left. */
function collector(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}

/** Writes until nothing is taken for a while; how many bytes were. */
async function fill(stream: NodeJS.WritableStream): Promise<number> {
  const piece = Buffer.alloc(64 * 1024, 'x');
  let bytes = 0;
  for (;;) {
    while (stream.write(piece)) bytes += piece.length;
    bytes += piece.length;
    if (bytes > 256 * 2 ** 20) return bytes;
    const isDrained = await new Promise<boolean>((resolve) => {
      const timer = setTimeout(() => {
        resolve(false);
      }, 1_000);
      stream.once('drain', () => {
        clearTimeout(timer);
        resolve(true);
      });
    });
    if (!isDrained) return bytes;
  }
}
