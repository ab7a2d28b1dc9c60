// Ten thousand broken exchanges of all kinds, at both listeners, with and without TLS. Afterwards
// the process still answers, and nothing of them is left.
import type { Server } from 'node:http';
import t from 'tap';
import { startBroker } from '../helpers/broker.ts';
import { drawExchange, drawFrom, kindNames, runExchange, type Asked } from '../helpers/broken.ts';
import { testCertificate } from '../helpers/certificate.ts';
import { until } from '../helpers/processes.ts';
import { answersIn, rawExchange } from '../helpers/raw.ts';

t.setTimeout(600_000);
const exchangesPerListener = 2_500;
const atOnce = 24;
const seed = Number(process.env['TEST_SEED'] ?? 20261130);

const connections = (server: Server): Promise<number> =>
  new Promise((resolve) => {
    server.getConnections((_error, count) => {
      resolve(count);
    });
  });

for (const isTls of [false, true]) {
  t.test(`they end, and the process goes on${isTls ? ', over TLS' : ''}`, async (test) => {
    test.comment(`TEST_SEED=${seed}`);
    const { certificate: cert, key } = testCertificate();
    const stage = await startBroker(
      test,
      (request, response) => {
        const { pathname } = new URL(request.url ?? '/', 'http://upstream');
        request.on('error', () => undefined).resume();
        if (pathname === '/hang') return;
        if (pathname === '/drip') response.write('a drop');
        else if (pathname === '/cut') response.destroy();
        else if (pathname === '/torn') response.writeHead(200, { 'content-length': 99 }).end('x');
        else if (pathname === '/much') response.end('x'.repeat(300_000));
        else response.end('fine');
      },
      {
        policy: {
          limits: {
            requestBytes: 50_000,
            responseBytes: 200_000,
            idleSeconds: 1,
            requestsPerMinute: 1_000_000,
            concurrency: 1_000,
          },
        },
        ...(isTls ? { vault: { tls: { cert, key } } } : {}),
      },
    );
    const { vault, ticket } = stage;
    const api = Number(new URL(await vault.app.listen({ host: '127.0.0.1', port: 0 })).port);
    const asToken = [`Authorization: Bearer ${await vault.token('alice')}`];
    const asTicket = [`Authorization: Bearer ${ticket.ticket}`];
    const json = 'Content-Type: application/json';
    const body = (name: string): string =>
      JSON.stringify({
        name,
        type: 'openai',
        fields: { apiKey: 'sk-a' },
        description: 'x'.repeat(500),
      });
    const ofApi: Asked[] = [
      { method: 'GET', url: '/openapi.json', headers: [] },
      { method: 'GET', url: '/healthz', headers: [] },
      { method: 'HEAD', url: '/docs', headers: [] },
      { method: 'GET', url: '/v1/whoami', headers: asToken },
      { method: 'GET', url: '/v1/whoami', headers: [] },
      { method: 'GET', url: '/v1/teams/nothing', headers: asToken },
      { method: 'GET', url: '/v1/teams/payments/export', headers: asToken },
      { method: 'PUT', url: '/v1/teams', headers: asToken, body: '{}' },
      {
        method: 'POST',
        url: '/v1/teams/payments/credentials',
        headers: [...asToken, json],
        body: body('taken'),
      },
      {
        method: 'POST',
        url: '/v1/teams/payments/credentials',
        headers: [...asToken, json],
        body: '{"name":',
      },
      { method: 'DELETE', url: `/v1/credentials/${stage.credential}`, headers: asToken },
    ];
    const ofBroker: Asked[] = [
      ...['/much', '/', '/hang', '/drip', '/cut', '/torn'].map((path) => ({
        method: 'GET',
        url: `/broker/${ticket.id}${path}`,
        headers: asTicket,
      })),
      ...['/', '/hang', '/cut'].map((path) => ({
        method: 'POST',
        url: `/broker/${ticket.id}${path}`,
        headers: asTicket,
        body: 'b'.repeat(30_000),
      })),
      { method: 'POST', url: `/broker/${ticket.id}/`, headers: asTicket, body: 'b'.repeat(60_000) },
      { method: 'GET', url: `/broker/${ticket.id}/`, headers: [] },
      { method: 'GET', url: '/elsewhere', headers: asTicket },
    ];
    vault.logs.length = 0;
    const met = new Set<string>();
    for (const [port, asked] of [
      [api, ofApi],
      [stage.port, ofBroker],
    ] as const) {
      const draw = drawFrom(seed + (isTls ? 1 : 0) + (asked === ofApi ? 0 : 2));
      const exchanges = Array.from({ length: exchangesPerListener }, () =>
        drawExchange(draw, asked),
      );
      for (const { kind } of exchanges) met.add(kind);
      const left = exchanges.values();
      await Promise.all(
        Array.from({ length: atOnce }, async () => {
          for (const exchange of left) await runExchange({ port, isTls }, exchange);
        }),
      );
    }
    test.same([...met].sort(), [...kindNames].sort(), 'every kind was met');
    for (const [name, { server }] of [
      ['api', vault.app],
      ['broker', vault.broker],
    ] as const)
      await until(async () => (await connections(server)) === 0).catch(async () => {
        test.equal(await connections(server), 0, `${name}: every connection has ended`);
      });
    const failures = vault.logs.filter((line) => /"code":"internal"|"level":60/.test(line));
    test.same(failures.slice(0, 3), [], 'none of it was a failure of the vault');
    const begun = vault.logs.filter((line) => line.includes('"event":"request"')).length;
    test.ok(begun > exchangesPerListener, `${begun} requests were answered or cut off`);
    const get = (url: string, headers: readonly string[]): string =>
      `GET ${url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${headers.map((line) => `${line}\r\n`).join('')}\r\n`;
    // A machine that is busy may take longer than the second that this credential waits.
    for (const [port, bytes] of [
      [api, get('/healthz', [])],
      [api, get('/v1/teams/payments/credentials', asToken)],
      [stage.port, get(`/broker/${ticket.id}/`, asTicket)],
    ] as const)
      await until(async () => {
        const [answer] = answersIn(await rawExchange({ port, isTls }, bytes));
        return answer?.status === 200;
      });
  });
}
