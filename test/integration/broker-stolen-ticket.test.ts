// A stolen ticket is worth calls to its credential's destination until it expires, and nothing
// else: tried on every other route there is.
import type { IncomingMessage } from 'node:http';
import { sql } from 'kysely';
import t from 'tap';
import { callBroker, rawCall, startBroker } from '../helpers/broker.ts';

t.test('a stolen ticket', async (t) => {
  const seen: IncomingMessage['headers'][] = [];
  const urls: string[] = [];
  const stage = await startBroker(
    t,
    (request, response) => {
      seen.push(request.headers);
      urls.push(request.url!);
      response.end('ok');
    },
    { policy: { methods: ['GET'], pathPrefixes: ['/v1/chat'] } },
  );
  const {
    vault,
    ticket: { id, ticket },
    credential,
    port,
  } = stage;
  const bearer = { authorization: `Bearer ${ticket}` };

  await t.test('opens no operation of the vault', async (t) => {
    const values: Record<string, string> = {
      team: 'payments',
      id: credential,
      credential,
      subject: 'alice',
      engine: stage.engine.id,
      name: 'main',
      version: '1',
    };
    let closed = 0;
    for (const { method, url, access, operationId } of vault.app.operations) {
      const path = url.replaceAll(/:([a-zA-Z]+)/g, (_, name: string) => values[name] ?? id);
      const alone = await vault.app.inject({ method: method as 'GET', url: path });
      const forms: readonly (readonly [string, Record<string, string>])[] = [
        [path, bearer],
        [path, { authorization: `Basic ${Buffer.from(`x:${ticket}`).toString('base64')}` }],
        [path, { authorization: ticket }],
        [path, { 'x-api-key': ticket }],
        [path, { 'x-goog-api-key': ticket }],
        [path, { 'api-key': ticket }],
        [path, { cookie: `token=${ticket}` }],
        [`${path}?access_token=${ticket}`, {}],
      ];
      for (const [where, headers] of forms) {
        const answer = await vault.app.inject({ method: method as 'GET', url: where, headers });
        if (access === 'public') continue;
        closed += 1;
        t.equal(answer.statusCode, 401, `${operationId} ${JSON.stringify(Object.keys(headers))}`);
        t.notMatch(answer.body, ticket);
      }
      if (access !== 'public') t.equal(alone.statusCode, 401, operationId);
    }
    t.ok(closed > 300, `${closed} doors were tried`);
    t.equal(
      (await vault.app.inject({ method: 'GET', url: `/broker/${id}/v1/chat`, headers: bearer }))
        .statusCode,
      404,
      "the vault's own listener is no broker",
    );
  });

  await t.test('is no proof of a person', async (t) => {
    const lease = await vault.call('n8n', 'POST', '/v1/leases', {
      credentials: [{ id: credential }],
      purpose: 'x',
      subjectToken: ticket,
    });
    const more = await vault.call('n8n', 'POST', '/v1/broker-tickets', {
      credential: { id: credential },
      purpose: 'x',
      subjectToken: ticket,
    });
    for (const { status, json } of [lease, more])
      t.match(
        { status, code: json.code },
        { status: /^40[013]$/, code: /invalidRequest|subjectTokenInvalid/ },
      );
  });

  await t.test('reaches no other credential, host, method or path', async (t) => {
    const other = await stage.newTicket({}, (await stage.store('other')).id);
    const path = `/broker/${id}/v1/chat`;
    const tries: readonly (readonly [string, string, Record<string, string>, number])[] = [
      ['GET', `/broker/${other.id}/v1/chat`, bearer, 401],
      ['GET', `/broker/${credential}/v1/chat`, bearer, 401],
      ['POST', path, bearer, 403],
      ['DELETE', path, bearer, 403],
      ['GET', `/broker/${id}/v1/models`, bearer, 403],
      ['GET', `/broker/${id}/`, bearer, 403],
      ['GET', `/broker/${id}/v1/chats`, bearer, 403],
      ['GET', `/broker/${id}/v1/chat/../models`, bearer, 400],
      ['GET', `/broker/${id}//evil.test/v1/chat`, bearer, 400],
      ['GET', `/broker/${id}/v1/chat/%2e%2e/models`, bearer, 400],
    ];
    for (const [method, url, headers, status] of tries)
      t.equal((await callBroker(port, method, url, headers)).status, status, `${method} ${url}`);
    const absolute = await rawCall(
      port,
      `GET http://evil.test/broker/${id}/v1/chat HTTP/1.1\r\nHost: evil.test\r\nAuthorization: Bearer ${ticket}\r\nConnection: close\r\n\r\n`,
    );
    t.match(absolute, /^HTTP\/1\.1 40[04] /);
    t.match(
      await rawCall(
        port,
        `CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\nAuthorization: Bearer ${ticket}\r\n\r\n`,
      ),
      /^HTTP\/1\.1 501 /,
    );
    t.match(
      await rawCall(
        port,
        `TRACE ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${ticket}\r\nConnection: close\r\n\r\n`,
      ),
      /^HTTP\/1\.1 501 /,
    );
    t.match(
      await rawCall(
        port,
        `GET ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${ticket}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
      ),
      /^HTTP\/1\.1 501 /,
    );
    t.same(urls, [], 'nothing of it went out');
  });

  await t.test('is worth calls to its destination, until it expires', async (t) => {
    for (const headers of [
      bearer,
      {
        ...bearer,
        host: 'evil.test',
        'x-forwarded-host': 'evil.test',
        'x-original-url': '/v1/models',
        'x-http-method-override': 'DELETE',
      },
    ]) {
      t.equal((await callBroker(port, 'GET', `/broker/${id}/v1/chat?x=y`, headers)).status, 200);
    }
    t.same(urls, ['/v1/chat?x=y', '/v1/chat?x=y']);
    for (const headers of seen) {
      t.equal(headers.host, `upstream.test:${stage.upstream.port}`);
      for (const name of ['x-forwarded-host', 'x-original-url', 'x-http-method-override'])
        t.notOk(name in headers, name);
    }
    vault.clock.ms += 3_600_000;
    t.equal((await callBroker(port, 'GET', `/broker/${id}/v1/chat`, bearer)).status, 401);
    t.equal(urls.length, 2);
    t.notMatch(vault.logs.join('\n'), ticket);
  });
});

t.test('who tries tickets in a loop does not fill the disk', async (t) => {
  const stage = await startBroker(t, (_request, response) => {
    response.end('ok');
  });
  const { vault, ticket } = stage;
  const guessed = { ...ticket, ticket: `vbt_${'A'.repeat(43)}` };
  for (let i = 0; i < 30; i += 1)
    t.equal((await stage.call('GET', '/v1/models', { ticket: guessed })).status, 401);
  await vault.stop();
  const { rows } = await sql<{ reason: string; count: number }>`
    select reason, count from access_record where status = 401 order by at, id`.execute(vault.db);
  t.strictSame(rows, [
    ...Array.from({ length: 10 }, () => ({ reason: 'ticket', count: 1 })),
    { reason: 'ticket', count: 20 },
  ]);
  t.equal(vault.logs.filter((line) => line.includes('ticketRefused')).length, 11);
});
