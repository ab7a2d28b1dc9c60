// Whether requests come in, as the background is told: during one, for a moment after it, and when
// calls of the broker begin and end.
import t from 'tap';
import fastify from 'fastify';
import { pino } from 'pino';
import type { Calls } from '../../src/broker/call.ts';
import { createBrokerListener } from '../../src/broker/listener.ts';
import type { BrokerProxy } from '../../src/broker/proxy.ts';
import { Traffic } from '../../src/http/traffic.ts';
import { until } from '../helpers/processes.ts';

t.test(
  'busy while a request is answered, however long, and for a moment after its end',
  async (t) => {
    let now = 0;
    const traffic = new Traffic(() => now);
    t.equal(traffic.isBusy(), false);
    const app = fastify();
    const answer = Promise.withResolvers<undefined>();
    traffic.watch(app);
    app.get('/', async () => {
      await answer.promise;
      return 'ok';
    });
    const url = await app.listen({ port: 0, host: '127.0.0.1' });
    t.teardown(() => app.close());
    const answered = fetch(url);
    await until(() => traffic.isBusy());
    now += 3_600_000;
    t.equal(traffic.isBusy(), true, 'still being answered');
    answer.resolve(undefined);
    t.equal(await (await answered).text(), 'ok');
    t.equal(traffic.isBusy(), true, 'a moment ago');
    now += 249;
    t.equal(traffic.isBusy(), true);
    await until(() => {
      now += 250;
      return !traffic.isBusy();
    });
  },
);

t.test('a call through the broker counts when it begins and when it ends', async (t) => {
  let told = 0;
  const admitting = Promise.withResolvers<never>();
  const app = await createBrokerListener({
    logger: pino({ level: 'silent' }),
    trustedProxies: [],
    tls: undefined,
    isStopping: () => false,
    rateLimits: { address: 0 },
    brokerUrl: () => undefined,
    onTraffic: () => {
      told += 1;
    },
    calls: { admit: () => admitting.promise } as unknown as Calls,
    proxy: {} as BrokerProxy,
  });
  const url = await app.listen({ port: 0, host: '127.0.0.1' });
  t.teardown(() => app.close());
  const answered = fetch(`${url}/broker/1/path`);
  await until(() => told === 1);
  admitting.reject(new Error('refused'));
  await (await answered).text();
  await until(() => told === 2);
});
