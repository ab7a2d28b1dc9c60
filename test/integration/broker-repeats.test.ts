// A kept connection on which the upstream hangs up as the next request comes: nobody knows whether
// it was carried out. What changes nothing is asked again, once; what may have changed something
// never is, body or not.
import t from 'tap';
import { startBroker } from '../helpers/broker.ts';

t.test(
  'a request whose connection was just closed is repeated only where it is safe',
  async (t) => {
    const seen: string[] = [];
    const used = new WeakSet<object>();
    let hangUps = 0;
    const stage = await startBroker(
      t,
      (request, response) => {
        seen.push(`${request.method} ${request.url}`);
        if (request.url === '/garbage') {
          request.socket.end('this is no answer\r\n\r\n');
          return;
        }
        if (used.has(request.socket) && hangUps > 0) {
          hangUps -= 1;
          request.socket.destroy();
          return;
        }
        used.add(request.socket);
        request.resume().on('end', () => response.end('fine'));
      },
      { plain: true },
    );
    /** A call on a connection that was kept and is closed under it so many times; what arrived of it. */
    async function onClosing(
      method: string,
      times: number,
      body?: string,
    ): Promise<{ status: number; arrived: number }> {
      hangUps = 0;
      t.equal((await stage.call('GET', '/warm')).status, 200);
      const before = seen.length;
      hangUps = times;
      const { status } = await stage.call(method, '/act', body === undefined ? {} : { body });
      t.equal(hangUps, 0, `${method}: it was the kept connection`);
      return { status, arrived: seen.length - before };
    }

    for (const method of ['POST', 'PUT', 'PATCH', 'DELETE'])
      for (const body of [undefined, 'x'])
        t.same(
          await onClosing(method, 1, body),
          { status: 502, arrived: 1 },
          `${method} with ${body === undefined ? 'no' : 'a'} body went out once`,
        );
    for (const method of ['GET', 'HEAD', 'OPTIONS'])
      t.same(await onClosing(method, 1), { status: 200, arrived: 2 }, `${method} is asked again`);
    t.same(
      await onClosing('GET', 1, 'x'),
      { status: 502, arrived: 1 },
      'a body is gone once it was sent',
    );
    const before = seen.length;
    t.equal((await stage.call('GET', '/garbage')).status, 502);
    t.equal(seen.length, before + 1, 'an answer that is none is no closed connection');
  },
);
