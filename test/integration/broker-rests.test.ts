// How long a connection to the broker may rest: as little as anywhere, but under a call that was let
// out, which has a clock of its own.
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import t from 'tap';
import { connectionTimeoutMs } from '../../src/shared/limits.ts';
import { stageOf } from '../helpers/broker.ts';
import { until } from '../helpers/processes.ts';

t.test('a connection that rests', async (t) => {
  const stage = await stageOf(t, { plain: true });
  const { server } = stage.vault.broker;
  const { port } = server.address() as AddressInfo;
  t.equal(server.timeout, connectionTimeoutMs);

  await t.test(
    'SECURITY: is ended where nobody takes the answers to what is no call',
    async (test) => {
      server.timeout = 300;
      const connected = once(server, 'connection');
      const here = connect(port, '127.0.0.1').pause();
      here.on('error', () => undefined);
      here.write('GET /x HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(20_000));
      const [there] = (await connected) as [Socket];
      await until(() => there.destroyed);
      test.pass('it is gone');
      here.destroy();
      server.timeout = connectionTimeoutMs;
    },
  );

  await t.test('is let be while a call is carried over it', async (t) => {
    const hanging: ServerResponse[] = [];
    stage.on((_request, response) => {
      hanging.push(response);
    });
    const connected = once(server, 'connection');
    const call = stage.begin('GET', '/hang');
    const answered = once(call, 'response');
    call.end();
    const [there] = (await connected) as [Socket];
    t.equal(there.timeout, connectionTimeoutMs, 'before it is let out it is as any other');
    await until(() => hanging.length === 1);
    t.equal(there.timeout, 0, 'the call has its own clock');
    hanging[0]!.end('{}');
    await answered;
    await until(() => there.destroyed || there.timeout! > 0);
    t.pass('and afterwards it is as any other again');
    call.destroy();
  });
});
