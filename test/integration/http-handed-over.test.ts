// Connections that Node hands over at CONNECT, and looks after no more: whoever takes nothing of
// the answers before it keeps neither them nor the stop.
import { once } from 'node:events';
import type { AddressInfo, Socket } from 'node:net';
import { connect } from 'node:net';
import type { FastifyInstance } from 'fastify';
import { pino } from 'pino';
import t from 'tap';
import { connectionTimeoutMs } from '../../src/shared/limits.ts';
import { createServer } from '../../src/http/server.ts';
import { until } from '../helpers/processes.ts';

const connectRequest = 'CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n';
const longRequest = 'GET /long HTTP/1.1\r\nHost: x\r\n\r\n';

async function listening(connectionMs: number): Promise<{
  app: FastifyInstance;
  /** A connection of which nothing is read, as both ends have it, when CONNECT was met. */
  open(bytes: string): Promise<{ here: Socket; there: Socket }>;
}> {
  const app = await createServer({
    logger: pino({ level: 'silent' }),
    trustedProxies: [],
    tls: undefined,
    isStopping: () => false,
    addressLimit: 0,
    timeouts: { requestMs: 0, connectionMs, headersMs: 30_000 },
  });
  // More than lies with the operating system while nobody reads.
  const long = 'x'.repeat(32 * 1024 * 1024);
  app.get('/long', async (_request, reply) => reply.type('text/plain').send(long));
  await app.listen({ host: '127.0.0.1', port: 0 });
  const { port } = app.server.address() as AddressInfo;
  return {
    app,
    open: async (bytes) => {
      const connected = once(app.server, 'connection');
      const met = once(app.server, 'connect');
      const here = connect(port, '127.0.0.1').pause();
      here.on('error', () => undefined);
      here.write(bytes);
      const [there] = (await connected) as [Socket];
      await met;
      return { here, there };
    },
  };
}

t.test('SECURITY: one on which nothing moves is ended', async (t) => {
  const { app, open } = await listening(400);
  t.teardown(() => app.closeGently(0));
  const { here, there } = await open(longRequest + connectRequest);
  await until(() => there.destroyed);
  here.destroy();
});

t.test('SECURITY: also where a connection may rest as long as it likes', async (t) => {
  const { app, open } = await listening(0);
  t.teardown(() => app.closeGently(0));
  const { here, there } = await open(connectRequest);
  t.equal(there.timeout, connectionTimeoutMs, 'from its turn on it may not');
  there.emit('timeout');
  t.ok(there.destroyed);
  here.destroy();
});

t.test('a stop waits for none of them longer than it waits for others', async (t) => {
  const { app, open } = await listening(0);
  const { here, there } = await open(longRequest + connectRequest);
  await app.closeGently(50);
  t.ok(there.destroyed);
  here.destroy();
});
