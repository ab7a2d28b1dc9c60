// Compressed answers: their coding is taken off within the limits, the secret is looked for, and
// they go on as they are without it.
import { once } from 'node:events';
import {
  brotliCompressSync,
  constants,
  createGzip,
  deflateRawSync,
  deflateSync,
  gzipSync,
  zstdCompressSync,
} from 'node:zlib';
import t from 'tap';
import { lastOutcome, responseOf, stageOf } from '../helpers/broker.ts';
import { until } from '../helpers/processes.ts';

const codings: readonly [said: string, coded: (text: string | Buffer) => Buffer][] = [
  ['gzip', gzipSync],
  ['x-gzip', gzipSync],
  ['GZIP', gzipSync],
  ['identity, gzip', gzipSync],
  ['deflate', deflateSync],
  ['deflate', deflateRawSync],
  ['br', brotliCompressSync],
  ['zstd', zstdCompressSync],
];

t.test('compressed answers', async (t) => {
  const stage = await stageOf(t);

  await t.test('come as they are without their coding, without the secret', async (t) => {
    for (const [said, coded] of codings)
      for (const how of ['whole', 'streamed', 'in bytes', 'long'])
        await t.test(`${said}, ${how}`, async (t) => {
          const text = `${'x'.repeat(how === 'long' ? 300_000 : 0)} "${stage.secret}" end`;
          const body = coded(text);
          stage.on((request, response) => {
            response.setHeader('content-encoding', said);
            response.setHeader('x-asked', String(request.headers['accept-encoding']));
            if (how === 'whole') response.setHeader('content-length', body.length);
            if (how === 'in bytes') for (const byte of body) response.write(Buffer.from([byte]));
            else response.write(body);
            response.end();
          });
          const answer = await stage.call('GET', '/x', {
            headers: { 'accept-encoding': 'gzip, br' },
          });
          t.match(answer, { status: 200, headers: { 'x-asked': 'identity' } });
          t.equal(answer.text, text.replace(stage.secret, '[redacted]'));
          t.notOk('content-encoding' in answer.headers);
          t.notOk('content-length' in answer.headers);
        });
  });

  await t.test('nothing at all is nothing in every coding', async (t) => {
    for (const [said] of codings) {
      stage.on((_request, response) => {
        response.writeHead(200, { 'content-encoding': said, 'content-length': 0 }).end();
      });
      t.match(await stage.call('GET', '/x'), { status: 200, text: '' }, said);
    }
  });

  await t.test('an event arrives before the next one is sent', async (t) => {
    const gzip = createGzip({ flush: constants.Z_SYNC_FLUSH });
    stage.on((_request, response) => {
      response.writeHead(200, {
        'content-encoding': 'gzip',
        'content-type': 'text/event-stream',
      });
      gzip.pipe(response);
      gzip.write('data: 0\n\n');
    });
    const request = stage.begin('GET', '/x');
    request.end();
    const response = await responseOf(request);
    for (let i = 0; i < 3; i += 1) {
      t.equal(String((await once(response, 'data'))[0]), `data: ${i}\n\n`);
      if (i < 2) gzip.write(`data: ${i + 1}\n\n`);
    }
    const ended = once(response, 'end');
    gzip.end();
    response.resume();
    await ended;
  });

  await t.test('what is not what it says it is does not come', async (t) => {
    const incompressible = Buffer.alloc(20 * 2 ** 20);
    for (let i = 0; i < incompressible.length; i += 4)
      incompressible.writeUInt32LE(Math.imul(i, 2_654_435_761) >>> 0, i);
    const largeZstd = zstdCompressSync(incompressible, {
      params: { [constants.ZSTD_c_windowLog]: 24 },
    });
    const largeBrotli = brotliCompressSync(incompressible, {
      params: { [constants.BROTLI_PARAM_LGWIN]: 24, [constants.BROTLI_PARAM_QUALITY]: 1 },
    });
    const wrong: readonly [what: string, said: string, body: Buffer][] = [
      ...codings.map(([said]): [string, string, Buffer] => [
        'no coding at all',
        said,
        Buffer.from(`{"key":"${stage.secret}"}`),
      ]),
      ['another coding', 'gzip', brotliCompressSync(stage.secret)],
      ['two codings, one said', 'br, gzip', gzipSync(brotliCompressSync(stage.secret))],
      ['twice the same', 'gzip, gzip', gzipSync(gzipSync(stage.secret))],
      ['an unknown one', 'compress', Buffer.from(stage.secret)],
      ['a window of 16 MiB', 'zstd', largeZstd],
      ['a window of 16 MiB', 'br', largeBrotli],
    ];
    for (const [what, said, body] of wrong) {
      stage.on((_request, response) => {
        response.on('error', () => undefined);
        response.writeHead(200, { 'content-encoding': said }).end(body);
      });
      const answer = await stage.call('GET', '/x');
      t.match(
        answer,
        { status: 502, headers: { 'vault-error': 'true' }, json: { code: 'upstreamUnusable' } },
        `${said}: ${what}`,
      );
      t.notOk(answer.text.includes(stage.secret));
    }
    for (const [said, coded] of codings) {
      stage.on((_request, response) => {
        const body = coded(incompressible.subarray(0, 2 ** 20));
        response.writeHead(200, { 'content-encoding': said }).end(body.subarray(0, -3));
      });
      await t.rejects(stage.call('GET', '/x'), `${said}: cut off, and not ended`);
    }
    stage.on((_request, response) => {
      response
        .writeHead(206, { 'content-encoding': 'gzip', 'content-range': 'bytes 0-9/99' })
        .end(gzipSync('a part'));
    });
    t.match(await stage.call('GET', '/x'), { status: 502 }, 'a part of what is coded');
  });

  await t.test('a bomb stops at the limit, in a second coding too', async (t) => {
    const { id } = await stage.store('small', { limits: { responseBytes: 2 ** 20 } });
    const ticket = await stage.newTicket({}, id);
    for (const [said, coded] of [codings[0]!, codings[6]!, codings[7]!]) {
      const body = coded(Buffer.alloc(256 * 2 ** 20));
      let isClosed = false;
      stage.on((_request, response) => {
        response.on('close', () => {
          isClosed = true;
        });
        response.writeHead(200, { 'content-encoding': said }).write(body); // and never ends it
      });
      await t.rejects(stage.call('GET', `/${said}`, { ticket }), said);
      await until(() => isClosed);
      const { receivedBytes } = await lastOutcome(stage, ({ failure }) => failure === 'size');
      t.ok(receivedBytes <= 2 ** 20 + 64 * 1024, `${said}: ${receivedBytes} bytes went on`);
    }
  });

  await t.test('bytes that decode to nothing do not keep a call alive', async (t) => {
    const { id } = await stage.store('quick', { limits: { idleSeconds: 1 } });
    const ticket = await stage.newTicket({}, id);
    const emptyBlock = Buffer.from([0x00, 0x00, 0x00, 0xff, 0xff]);
    stage.on((_request, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip' });
      response.write(Buffer.from('1f8b080000000000000', 'hex'));
      response.write(Buffer.from([0x03]));
      const dripping = setInterval(() => response.write(emptyBlock), 50);
      response
        .on('error', () => undefined)
        .on('close', () => {
          clearInterval(dripping);
        });
    });
    t.match(await stage.call('GET', '/x', { ticket }), {
      status: 504,
      json: { code: 'upstreamTimeout' },
    });
  });

  await t.test('sums over the coded body do not come, other than without coding', async (t) => {
    const sums = { 'x-amz-checksum-crc32': 'AAAAAA==', 'x-goog-hash': 'crc32c=x' };
    for (const said of ['gzip', 'identity']) {
      stage.on((_request, response) => {
        response
          .writeHead(200, { ...sums, etag: '"1"', 'content-encoding': said })
          .end(said === 'gzip' ? gzipSync('body') : 'body');
      });
      const { headers, text } = await stage.call('GET', '/x');
      t.equal(text, 'body');
      t.equal(headers['x-amz-checksum-crc32'], said === 'gzip' ? undefined : 'AAAAAA==', said);
      t.equal(headers['x-goog-hash'], said === 'gzip' ? undefined : 'crc32c=x', said);
      t.equal(headers['etag'], '"1"');
    }
  });
});

t.test('what cannot be scanned passes only where the policy says so', async (t) => {
  const stage = await stageOf(t, { policy: { unscanned: true } });
  const answers: readonly [string, Record<string, string>, Buffer][] = [
    ['unknown', { 'content-encoding': 'x-own' }, Buffer.from([1, 2, 3, 0xff])],
    ['two', { 'content-encoding': 'gzip, br' }, brotliCompressSync(gzipSync('two'))],
    ['charset', { 'content-type': 'text/plain; charset=utf-7' }, Buffer.from('+AGE-')],
    ['long', { 'content-encoding': 'x-own' }, Buffer.alloc(200_000, 7)],
  ];
  for (const [what, headers, body] of answers) {
    stage.on((_request, response) => {
      response.writeHead(200, headers).end(body);
    });
    const answer = await stage.call('GET', `/${what}`);
    t.equal(answer.status, 200, what);
    t.ok(answer.bytes.equals(body), `${what}: to the byte`);
    t.equal(answer.headers['content-encoding'], headers['content-encoding'], what);
    const said = await lastOutcome(
      stage,
      ({ isUnscanned, receivedBytes }) => isUnscanned === true && receivedBytes === body.length,
    );
    t.equal(said.status, 200, `${what}: the event says it`);
  }
  stage.on((_request, response) => {
    response
      .writeHead(206, { 'content-encoding': 'gzip', 'content-range': 'bytes 5-9/99' })
      .end('parts');
  });
  t.match(await stage.call('GET', '/part'), {
    status: 206,
    text: 'parts',
    headers: { 'content-encoding': 'gzip' },
  });
  stage.on((_request, response) => {
    response
      .writeHead(201, { 'content-encoding': 'gzip' })
      .end(gzipSync(`what can be is: ${stage.secret}`));
  });
  t.match(await stage.call('GET', '/x'), { status: 201, text: 'what can be is: [redacted]' });
  t.notOk('isUnscanned' in (await lastOutcome(stage, ({ status }) => status === 201)));
  stage.on((_request, response) => {
    response.writeHead(200, { 'content-encoding': 'gzip' }).end('not in it');
  });
  t.match(await stage.call('GET', '/x'), { status: 502 }, 'what says that it can be has to be so');
});
