// What bounds a call: the limits of the credential's policy, and callers and upstreams that are
// slow on purpose.
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import t from 'tap';
import { lastOutcome, rawCall, readAnswer, responseOf, stageOf } from '../helpers/broker.ts';
import { until } from '../helpers/processes.ts';

t.test('limits of a credential', async (t) => {
  const stage = await stageOf(t, {
    policy: {
      limits: { concurrency: 2, requestBytes: 1_000, responseBytes: 5_000, idleSeconds: 1 },
    },
  });

  await t.test('bytes of the request: said, and not said', async (t) => {
    let calls = 0;
    stage.on((request, response) => {
      calls += 1;
      request
        .on('error', () => undefined)
        .resume()
        .on('end', () => response.end());
    });
    t.match(await stage.call('POST', '/x', { body: 'x'.repeat(1_001) }), {
      status: 413,
      json: { code: 'payloadTooLarge' },
    });
    t.equal(calls, 0, 'nothing was dialled');
    const announced = stage.begin('POST', '/x', { 'content-length': 1_001 });
    announced.on('error', () => undefined).flushHeaders();
    t.equal((await responseOf(announced)).statusCode, 413, 'and nothing of it was waited for');
    announced.destroy();
    t.equal((await stage.call('POST', '/x', { body: 'x'.repeat(1_000) })).status, 200);
    const request = stage.begin('POST', '/x');
    request.on('error', () => undefined);
    request.write('x'.repeat(600));
    request.write('x'.repeat(600));
    t.match(await readAnswer(await responseOf(request)), {
      status: 413,
      json: { code: 'payloadTooLarge' },
    });
    request.destroy();
  });

  await t.test('bytes of the answer: said, and not said', async (t) => {
    stage.on((_request, response) => {
      response.end('x'.repeat(100_000));
    });
    t.match(await stage.call('GET', '/x'), {
      status: 502,
      json: { code: 'upstreamUnusable', errors: [{ rule: 'size' }] },
    });
    stage.on((_request, response) => {
      for (let i = 0; i < 6; i += 1) response.write('x'.repeat(1_000));
      response.end();
    });
    const request = stage.begin('GET', '/x');
    request.end();
    await t.rejects(responseOf(request).then(readAnswer), { code: /ECONNRESET/ });
    t.match(
      await lastOutcome(
        stage,
        ({ failure, receivedBytes }) => failure === 'size' && receivedBytes > 0,
      ),
      { status: 200 },
    );
    stage.on((_request, response) => {
      response.end('x'.repeat(5_000));
    });
    t.equal((await stage.call('GET', '/x')).text.length, 5_000);
  });

  await t.test(
    'silence: of the upstream before its answer and within it, of the caller within its body',
    async (t) => {
      stage.on(() => undefined);
      t.match(await stage.call('GET', '/x'), {
        status: 504,
        json: { code: 'upstreamTimeout' },
        headers: { 'vault-error': 'true' },
      });
      stage.on((_request, response) => {
        response.write('beginning');
      });
      const silent = stage.begin('GET', '/x');
      silent.end();
      await t.rejects(responseOf(silent).then(readAnswer), { code: /ECONNRESET/ });
      stage.on((request, response) => {
        request
          .on('error', () => undefined)
          .resume()
          .on('end', () => response.end());
      });
      const stalled = stage.begin('POST', '/x', { 'content-length': 10 });
      stalled.on('error', () => undefined);
      stalled.write('part');
      t.match(await readAnswer(await responseOf(stalled)), {
        status: 408,
        json: { code: 'requestTimeout' },
      });
      stalled.destroy();
    },
  );

  await t.test(
    'a stream that moves may take longer than the silence that is allowed',
    async (t) => {
      stage.on((_request, response) => {
        let beats = 0;
        const timer = setInterval(() => {
          beats += 1;
          response.write('.');
          if (beats === 8) {
            clearInterval(timer);
            response.end();
          }
        }, 250);
      });
      t.equal((await stage.call('GET', '/x')).text, '........');
    },
  );

  await t.test(
    'calls at once: one more is 429, another credential is not concerned, and a place is free at the end',
    async (t) => {
      const waiting: ServerResponse[] = [];
      stage.on((request, response) => {
        if (request.url === '/wait') waiting.push(response);
        else response.end('fine');
      });
      const running = [stage.call('GET', '/wait'), stage.call('GET', '/wait')];
      await until(() => waiting.length === 2);
      t.match(await stage.call('GET', '/x'), {
        status: 429,
        json: { code: 'rateLimited' },
        headers: { 'retry-after': '1', 'vault-error': 'true' },
      });
      const other = await stage.store('unconcerned');
      t.equal(
        (await stage.call('GET', '/x', { ticket: await stage.newTicket({}, other.id) })).status,
        200,
      );
      for (const response of waiting) response.end('late');
      for (const each of running) t.equal((await each).text, 'late');
      t.equal((await stage.call('GET', '/x')).status, 200);
    },
  );

  await t.test('calls a minute', async (t) => {
    const { id } = await stage.store('seldom', { limits: { requestsPerMinute: 2 } });
    const ticket = await stage.newTicket({}, id);
    stage.on((_request, response) => {
      response.end('fine');
    });
    const ask = async (): Promise<number> => (await stage.call('GET', '/x', { ticket })).status;
    t.strictSame([await ask(), await ask(), await ask()], [200, 200, 429]);
    t.match((await stage.call('GET', '/x', { ticket })).headers, {
      'retry-after': /^([1-9]|[1-5][0-9]|60)$/,
    });
    stage.vault.clock.ms += 60_000;
    t.equal(await ask(), 200);
  });
});

t.test('callers that are slow on purpose', async (t) => {
  const stage = await stageOf(t);
  const { server } = stage.vault.broker;
  t.equal(server.headersTimeout, 30_000, 'a header block has half a minute');
  t.equal(server.requestTimeout, 0, 'a body has its own clock');

  await t.test('a body that nobody asked for is listened to for a little while only', async (t) => {
    const socket: Socket = connect(stage.port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.write(
      `POST /broker/${stage.ticket.id}/x HTTP/1.1\r\nHost: b\r\nTransfer-Encoding: chunked\r\n\r\n`,
    );
    const [answer] = (await once(socket, 'data')) as [Buffer];
    t.match(String(answer), /^HTTP\/1\.1 401 /);
    const drip = setInterval(() => {
      socket.write('1\r\nx\r\n');
    }, 100);
    await new Promise((resolve) => {
      socket.once('close', resolve);
    }); // with or without an error: what was on its way is not read
    clearInterval(drip);
  });

  await t.test('the answer to a request that was not read to its end is whole', async (t) => {
    stage.on((_request, response) => {
      response.end('early');
    });
    const request = stage.begin('POST', '/x');
    request.on('error', () => undefined);
    request.write('part');
    t.equal((await readAnswer(await responseOf(request))).text, 'early');
    request.destroy();
  });

  await t.test('HTTP/1.0 callers are answered', async (t) => {
    stage.on((_request, response) => {
      response.write('a');
      response.end('b');
    });
    t.match(
      await rawCall(
        stage.port,
        `GET /broker/${stage.ticket.id}/x HTTP/1.0\r\nAuthorization: Bearer ${stage.ticket.ticket}\r\n\r\n`,
      ),
      /^HTTP\/1\.1 200 [\s\S]*ab$/,
    );
  });
});

t.test(
  'a replica carries as many calls at once as it is told to, and no team more than half of them',
  async (t) => {
    const stage = await stageOf(t, { vault: { brokerCallsMax: 2 } });
    const begun = Promise.withResolvers<ServerResponse>();
    stage.on((_request, response) => {
      response.write('beginning');
      begun.resolve(response);
    });
    const open = stage.begin('GET', '/x');
    const answered = responseOf(open);
    open.end();
    const upstream = await begun.promise;
    const refused = await stage.call('GET', '/x');
    t.match(refused, {
      status: 429,
      headers: { 'retry-after': '1', 'vault-error': 'true' },
      json: { code: 'rateLimited' },
    });
    upstream.end();
    await readAnswer(await answered);
    stage.on((_request, response) => {
      response.end('fine');
    });
    await until(async () => (await stage.call('GET', '/x')).status === 200);
  },
);
