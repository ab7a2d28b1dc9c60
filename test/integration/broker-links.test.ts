// Headers of an upstream that say where to go on, followed by a client who knows nothing of the
// broker: pages, operations, and what a hostile one says.
import t from 'tap';
import { callBroker, stageOf } from '../helpers/broker.ts';

t.test('links', async (t) => {
  const stage = await stageOf(t);
  const { ticket, upstream, port } = stage;
  const at = `https://${upstream.host}:${upstream.port}`;
  const follow = (url: string): Promise<Response> =>
    fetch(url, { headers: { authorization: `Bearer ${ticket.ticket}` }, redirect: 'manual' });

  await t.test('pages are walked to their end by rel="next"', async (t) => {
    const asked: string[] = [];
    stage.on((request, response) => {
      asked.push(request.url!);
      const page = Number(new URL(request.url!, at).searchParams.get('page') ?? 1);
      const link = [
        `<${at}/items?page=1>; rel="first"`,
        ...(page < 3 ? [`<${at}/items?page=${page + 1}>; rel="next"`] : []),
      ];
      response.writeHead(200, { link: link.join(', '), 'content-type': 'application/json' });
      response.end(JSON.stringify([page]));
    });
    const items: number[] = [];
    for (let url: string | undefined = `${ticket.baseUrl}items`; url !== undefined; ) {
      const answer = await follow(url);
      items.push(...((await answer.json()) as number[]));
      url = /<([^<>]+)>; rel="next"/.exec(answer.headers.get('link') ?? '')?.[1];
    }
    t.strictSame(items, [1, 2, 3]);
    t.strictSame(asked, ['/items', '/items?page=2', '/items?page=3']);
  });

  await t.test('an operation is polled where its header says', async (t) => {
    stage.on((request, response) => {
      if (request.method === 'POST')
        response.writeHead(202, { 'operation-location': `${at}/operations/7?api=1` }).end();
      else response.end(request.url);
    });
    const begun = await fetch(`${ticket.baseUrl}jobs`, {
      method: 'POST',
      headers: { authorization: `Bearer ${ticket.ticket}` },
    });
    const answer = await follow(begun.headers.get('operation-location')!);
    t.equal(await answer.text(), '/operations/7?api=1');
  });

  await t.test('what leads elsewhere is left out, whatever the header', async (t) => {
    stage.on((_request, response) => {
      response
        .writeHead(200, {
          link: `<https://evil.test/?page=2>; rel="next", <${at}/x>; rel="last"`,
          'operation-location': 'https://evil.test/x',
          'content-location': '//evil.test/x',
          'azure-asyncoperation': 'http://evil.test/x',
          'x-next-url': 'https://evil.test/x',
          refresh: '0; url=https://evil.test/x',
        })
        .end('fine');
    });
    const answer = await follow(`${ticket.baseUrl}x`);
    t.equal(answer.status, 200);
    t.notMatch(JSON.stringify([...answer.headers]), /evil/);
    t.equal(answer.headers.get('link'), `<${ticket.baseUrl}x>; rel="last"`);
  });

  await t.test('links are written from the configuration, not from a Host', async (t) => {
    stage.on((_request, response) => {
      response.writeHead(200, { link: `<${at}/x>; rel="next"` }).end('fine');
    });
    const answer = await callBroker(port, 'GET', `${new URL(ticket.baseUrl).pathname}y`, {
      authorization: `Bearer ${ticket.ticket}`,
      host: 'evil.test',
    });
    t.equal(answer.headers['link'], `<${ticket.baseUrl}x>; rel="next"`);
  });
});
