// A cache that several callers share (undici's, by RFC 9111) between them and the broker: the
// address does not say for whom an answer is.
import t from 'tap';
import { Agent, interceptors, request } from 'undici';
import { stageOf } from '../helpers/broker.ts';

t.test("a shared cache gives nobody another one's answer", async (t) => {
  const stage = await stageOf(t);
  let asked = 0;
  const cached = new Agent().compose(interceptors.cache({ type: 'shared' }));
  t.teardown(() => cached.close());
  const ask = async (path: string, headers: Record<string, string>): Promise<string> =>
    (await request(`${stage.ticket.baseUrl}${path}`, { dispatcher: cached, headers })).body.text();
  for (const said of [
    'public, max-age=600',
    's-maxage=600, max-age=0',
    'max-age=600, must-revalidate',
    'PUBLIC, immutable, max-age=600',
  ]) {
    stage.on((_request, response) => {
      asked += 1;
      response.writeHead(200, { 'cache-control': said }).end(String(asked));
    });
    const path = `x?${encodeURIComponent(said)}`;
    const before = asked;
    for (const name of ['x-api-key', 'api-key', 'x-goog-api-key'])
      for (let i = 1; i <= 2; i += 1) await ask(path, { [name]: stage.ticket.ticket });
    t.equal(asked - before, 6, said);
  }
});

t.test('the cache of that test does keep what may be kept', async (t) => {
  const { createServer } = await import('node:http');
  let asked = 0;
  const server = createServer((_request, response) => {
    asked += 1;
    response.writeHead(200, { 'cache-control': 'public, max-age=600' }).end('x');
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const cached = new Agent().compose(interceptors.cache({ type: 'shared' }));
  t.teardown(async () => {
    await cached.close();
    server.close();
  });
  const { port } = server.address() as { port: number };
  for (let i = 0; i < 2; i += 1)
    await (
      await request(`http://127.0.0.1:${port}/`, {
        dispatcher: cached,
        headers: { 'x-api-key': 'a' },
      })
    ).body.text();
  t.equal(asked, 1);
});
