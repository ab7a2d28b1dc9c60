// Calls through the broker, with real sockets on both sides: what arrives at the upstream, what
// comes back, and who is let through.
import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import { randomUUIDv7 } from 'node:crypto';
import { connect } from 'node:net';
import t from 'tap';
import { callBroker, rawCall, startBroker } from '../helpers/broker.ts';

interface Seen {
  method: string;
  url: string;
  headers: Record<string, unknown>;
  body: Buffer;
}

t.test('what goes out and what comes back', async (t) => {
  const seen: Seen[] = [];
  const stage = await startBroker(t, (request, response) => {
    const chunks: Buffer[] = [];
    request
      .on('data', (chunk: Buffer) => chunks.push(chunk))
      .on('end', () => {
        seen.push({
          method: request.method!,
          url: request.url!,
          headers: request.headers,
          body: Buffer.concat(chunks),
        });
        response
          .writeHead(200, { 'content-type': 'application/json', 'x-own': 'upstream' })
          .end(JSON.stringify({ ok: true }));
      });
  });
  const { call, secret, ticket, vault } = stage;

  await t.test(
    'every method, with its body, its query to the byte, and the secret in its place',
    async (t) => {
      for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'HEAD']) {
        const path = '/v1/things?a=%2F&b=+&c=%e4&&d=1;2&e[]=x';
        const body = ['POST', 'PUT', 'PATCH', 'DELETE'].includes(method)
          ? `{"m":"${method}"}`
          : undefined;
        const answer = await call(method, path, {
          headers: { 'x-mine': 'yes', cookie: 'a=b' },
          ...(body === undefined ? {} : { body }),
        });
        t.equal(answer.status, 200, method);
        t.notOk('vault-error' in answer.headers);
        t.match(answer.headers, { 'x-own': 'upstream', 'vault-request-id': /^[0-9a-f-]{36}$/ });
        t.equal(answer.text, method === 'HEAD' ? '' : '{"ok":true}', method);
        const got = seen.at(-1)!;
        t.equal(got.method, method);
        t.equal(got.url, path, method);
        t.equal(got.body.toString(), body ?? '');
        t.match(got.headers, {
          authorization: `Bearer ${secret}`,
          'x-mine': 'yes',
          host: `upstream.test:${stage.upstream.port}`,
          'accept-encoding': 'identity',
        });
        t.notOk('cookie' in got.headers);
        t.notMatch(JSON.stringify(got.headers), ticket.ticket);
      }
    },
  );

  await t.test('the ticket is taken from the headers that SDKs use', async (t) => {
    const path = `/broker/${ticket.id}/v1/things`;
    const basic = (user: string): string =>
      `Basic ${Buffer.from(`${user}:${ticket.ticket}`).toString('base64')}`;
    for (const headers of [
      { authorization: `Bearer ${ticket.ticket}` },
      { authorization: `bearer ${ticket.ticket}` },
      { 'x-api-key': ticket.ticket },
      { 'x-goog-api-key': ticket.ticket },
      { 'api-key': ticket.ticket },
      { authorization: ticket.ticket },
      { authorization: `token ${ticket.ticket}` },
      { authorization: `Token ${ticket.ticket}` },
      { authorization: basic('') },
      { authorization: basic('x-access-token') },
      { authorization: basic(ticket.ticket) },
      { authorization: `Basic ${Buffer.from(`${ticket.ticket}:`).toString('base64')}` },
      { 'x-api-key': ticket.ticket, authorization: 'Bearer something-else' },
      { 'x-api-key': ticket.ticket, authorization: `Bearer ${ticket.ticket}` },
    ])
      t.equal(
        (await callBroker(stage.port, 'GET', path, headers)).status,
        200,
        JSON.stringify(headers),
      );
  });

  await t.test('401: anything else, all alike, with nothing dialled', async (t) => {
    const other = await stage.newTicket();
    const before = seen.length;
    const path = `/broker/${ticket.id}/v1/things`;
    const jwt = await vault.token('n8n');
    const cases: [string, Record<string, string | string[]>][] = [
      [path, {}],
      [path, { authorization: `Bearer ${jwt}` }],
      [
        path,
        {
          authorization: `Bearer ${ticket.ticket.slice(0, -1)}${ticket.ticket.endsWith('A') ? 'E' : 'A'}`,
        },
      ],
      [path, { authorization: `Bearer ${other.ticket}` }],
      [path, { authorization: `Bearer ${secret}` }],
      [path, { authorization: `Basic ${Buffer.from(`any:${ticket.ticket}`).toString('base64')}` }],
      [path, { authorization: `Token token=${ticket.ticket}` }],
      [path, { authorization: `Bearer ${ticket.ticket}`, 'x-auth': ticket.ticket }],
      [path, { authorization: `Bearer ${ticket.ticket}`, cookie: `a=${ticket.ticket}` }],
      [path, { 'x-auth': ticket.ticket }],
      [path, { cookie: `authorization=${ticket.ticket}` }],
      [`${path}?access_token=${ticket.ticket}`, {}],
      [`${path}/${ticket.ticket}`, {}],
      [path, { 'x-api-key': ticket.ticket, 'api-key': other.ticket }],
      [`/broker/${randomUUIDv7()}/v1/things`, { authorization: `Bearer ${ticket.ticket}` }],
      [`/broker/${ticket.ticket}/v1/things`, { authorization: `Bearer ${ticket.ticket}` }],
      ['/broker/x/v1/things', { authorization: `Bearer ${ticket.ticket}` }],
    ];
    for (const [url, headers] of cases) {
      const {
        status,
        headers: answered,
        json,
      } = await callBroker(stage.port, 'POST', url, headers, 'x');
      t.match(
        {
          status,
          code: json?.code,
          vault: answered['vault-error'],
          www: answered['www-authenticate'],
        },
        { status: 401, code: 'ticketInvalid', vault: 'true', www: 'Bearer' },
        `${url} ${JSON.stringify(headers)}`,
      );
      t.strictSame(
        { ...json, requestId: '' },
        { ...(await callBroker(stage.port, 'POST', path, {})).json, requestId: '' },
      );
    }
    const twice = await rawCall(
      stage.port,
      `GET ${path} HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer ${ticket.ticket}\r\nAuthorization: Bearer something-else\r\nConnection: close\r\n\r\n`,
    );
    t.match(twice, /^HTTP\/1\.1 401 /);
    t.equal(seen.length, before);
    t.equal(
      (await callBroker(stage.port, 'GET', path, { authorization: `Bearer ${ticket.ticket}` }))
        .status,
      200,
    );
  });

  await t.test('404: there is no other route, and its own answers are marked', async (t) => {
    const headers = { authorization: `Bearer ${ticket.ticket}` };
    for (const path of [
      '/',
      '/healthz',
      '/docs',
      '/openapi.json',
      '/v1/whoami',
      '/broker',
      '/broker/',
      `/Broker/${ticket.id}/x`,
      `/%62roker/${ticket.id}/x`,
      `//broker/${ticket.id}/x`,
      `/x/../broker/${ticket.id}/x`,
    ]) {
      const answer = await callBroker(stage.port, 'GET', path, headers);
      t.match(
        {
          status: answer.status,
          vault: answer.headers['vault-error'],
          type: answer.headers['content-type'],
        },
        { status: /^40[014]$/, vault: 'true', type: /^application\/problem\+json/ },
        path,
      );
    }
    const bad = await callBroker(stage.port, 'GET', `/broker/${ticket.id}/%zz`, headers);
    t.match(
      { status: bad.status, vault: bad.headers['vault-error'] },
      { status: 400, vault: 'true' },
    );
    const garbage = await rawCall(stage.port, 'NONSENSE\r\n\r\n');
    t.match(garbage, /^HTTP\/1\.1 400 [\s\S]*vault-error: true/i);
  });

  await t.test('501: what would turn the connection into something else', async (t) => {
    const before = seen.length;
    const authorization = `Authorization: Bearer ${ticket.ticket}\r\n`;
    const upgrade = await rawCall(
      stage.port,
      `GET /broker/${ticket.id}/x HTTP/1.1\r\nHost: b\r\n${authorization}Connection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n`,
    );
    t.match(upgrade, /^HTTP\/1\.1 501 [\s\S]*unsupportedCall/);
    const trace = await rawCall(
      stage.port,
      `TRACE /broker/${ticket.id}/x HTTP/1.1\r\nHost: b\r\n${authorization}Connection: close\r\n\r\n`,
    );
    t.match(trace, /^HTTP\/1\.1 501 [\s\S]*unsupportedCall/);
    t.notMatch(trace, ticket.ticket);
    const tunnel = await rawCall(
      stage.port,
      `CONNECT upstream.test:443 HTTP/1.1\r\nHost: b\r\n${authorization}\r\n`,
    );
    t.match(tunnel, /^HTTP\/1\.1 501 [\s\S]*vault-error: true/);
    t.equal(seen.length, before);
    const offered = await rawCall(
      stage.port,
      `GET /broker/${ticket.id}/x HTTP/1.1\r\nHost: b\r\n${authorization}Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n`,
    );
    t.match(offered, /^HTTP\/1\.1 200 /, 'an offer of HTTP/2 is passed over');
    t.notOk('upgrade' in seen.at(-1)!.headers);
  });

  await t.test('a path that can be read in two ways goes nowhere', async (t) => {
    const before = seen.length;
    for (const path of [
      '//evil.test/x',
      '/a/../b',
      '/a/%2e%2e/b',
      '/a\\b',
      '/a%2f..%2fb',
      '/a/..%5cb',
    ])
      t.equal((await call('GET', path)).status, 400, path);
    t.equal(seen.length, before);
  });

  await t.test(
    'Expect: 100-continue is answered when the call is admitted, and does not go on',
    async (t) => {
      const request = httpRequest({
        host: '127.0.0.1',
        port: stage.port,
        method: 'POST',
        path: `/broker/${ticket.id}/up`,
        headers: {
          authorization: `Bearer ${ticket.ticket}`,
          expect: '100-continue',
          'content-length': 5,
        },
        agent: false,
      });
      request.flushHeaders();
      await once(request, 'continue');
      request.end('hello');
      const [response] = await once(request, 'response');
      t.equal(response.statusCode, 200);
      response.resume();
      t.equal(seen.at(-1)!.body.toString(), 'hello');
      t.notOk('expect' in seen.at(-1)!.headers);
      const refused = connect(stage.port, '127.0.0.1');
      refused.write(
        `POST /broker/${ticket.id}/up HTTP/1.1\r\nHost: b\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n`,
      );
      const [first] = (await once(refused, 'data')) as [Buffer];
      t.match(first.toString(), /^HTTP\/1\.1 401 /, 'who is refused is not asked for a body');
      refused.destroy();
    },
  );

  await t.test(
    'the audit log has the intent and the outcome of each call, and no query, header or body',
    async (t) => {
      await call('POST', '/v1/chat/completions?key=quite-secret', { body: 'the body of the call' });
      await call('GET', '/v1/users/user-no-4711-17/jane@example.com');
      await stage.vault.stop();
      const events = await vault.db
        .selectFrom('audit_event')
        .select([
          'action',
          'decision',
          'details',
          'target_id',
          'request_id',
          'key_id',
          'credential_version',
          'actor_id',
        ])
        .where('action', 'in', ['credential.use', 'credential.used'])
        .orderBy('id')
        .execute();
      const intents = events.filter(
        ({ action, decision }) => action === 'credential.use' && decision === 'allow',
      );
      const outcomes = events.filter(({ action }) => action === 'credential.used');
      t.equal(intents.length, outcomes.length);
      t.equal(intents.length, seen.length);
      for (const intent of intents) {
        t.match(intent, {
          target_id: stage.credential,
          credential_version: 1,
          details: {
            ticket: /./,
            engine: stage.engine.id,
            host: 'upstream.test',
            method: /^[A-Z]+$/,
            path: /^\//,
          },
        });
        const outcome = outcomes.find(({ request_id }) => request_id === intent.request_id);
        t.match(outcome, {
          target_id: stage.credential,
          details: {
            ticket: /./,
            status: 200,
            ms: Number,
            sentBytes: Number,
            receivedBytes: Number,
          },
        });
      }
      t.strictSame(
        intents.slice(-2).map(({ details }) => details['path']),
        ['/v1/chat/completions', '/v1/users/…'],
      );
      t.match(
        outcomes.find(({ request_id }) => request_id === intents.at(-2)?.request_id),
        { details: { sentBytes: 20, receivedBytes: 11 } },
      );
      t.match(
        vault.logs.find((line) => line.includes('"route":"/*"') && line.includes('"status":200')),
        /"method":"[A-Z]+".*"subject":"n8n"/,
        'one line in the log, with the template of the route',
      );
      const text = JSON.stringify(events) + vault.logs.join('');
      for (const word of [
        'quite-secret',
        'the body of',
        'jane',
        'user-no-4711',
        ticket.ticket,
        secret,
        ticket.ticket.slice(4, 30),
      ])
        t.notOk(text.includes(word), word);
      const { use_count } = await vault.db
        .selectFrom('credential_usage')
        .select('use_count')
        .where('credential_id', '=', stage.credential as never)
        .executeTakeFirstOrThrow();
      t.equal(use_count, intents.length);
    },
  );
});
