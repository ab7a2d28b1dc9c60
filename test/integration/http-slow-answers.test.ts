// Answers that nobody takes, or hardly: cut off after their time, and forgotten when they are taken.
import { connect } from 'node:net';
import { once } from 'node:events';
import { Readable } from 'node:stream';
import { pino } from 'pino';
import t from 'tap';
import { createServer } from '../../src/http/server.ts';
import { endSlowAnswers } from '../../src/http/slow-answers.ts';
import { until } from '../helpers/processes.ts';

t.test('an answer has its time to be taken', async (t) => {
  const app = await createServer({
    logger: pino({ level: 'silent' }),
    trustedProxies: [],
    tls: undefined,
    isStopping: () => false,
    addressLimit: 0,
  });
  endSlowAnswers(app, { answerMs: 300, everyMs: 20 });
  const long = 'x'.repeat(32 * 1024 * 1024);
  const stream = new Readable({ read: () => undefined });
  app.get('/long', async (_request, reply) => reply.type('text/plain').send(long));
  const shorter = 'x'.repeat(128 * 1024);
  app.get('/shorter', async (_request, reply) => reply.type('text/plain').send(shorter));
  app.get('/stream', async (_request, reply) => reply.type('text/plain').send(stream));
  const { port, hostname } = new URL(await app.listen({ host: '127.0.0.1', port: 0 }));
  t.teardown(() => app.close());
  const connections = (): Promise<number> =>
    new Promise((resolve) => {
      app.server.getConnections((_error, count) => {
        resolve(count);
      });
    });
  const ask = (path: string) => {
    const socket = connect(Number(port), hostname);
    socket.on('error', () => undefined);
    socket.write(`GET ${path} HTTP/1.1\r\nHost: vault\r\n\r\n`);
    return socket;
  };

  const streaming = ask('/stream');
  stream.push('the first of it');
  await once(streaming, 'data');
  const quick = ask('/shorter');
  let bytes = 0;
  quick.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
  });
  await until(() => bytes > shorter.length);
  const idle = ask('/long').pause();
  await until(async () => (await connections()) === 3);
  await until(async () => (await connections()) === 2);
  t.notOk(idle.destroyed, 'one that is not taken is cut off');
  t.notOk(streaming.destroyed || quick.destroyed, 'a stream, and one that was taken, are let be');
  stream.push(null);
  for (const socket of [idle, quick, streaming]) socket.destroy();
});
