// The address of a credential at the broker: it stays when tickets change, it moves with the name,
// and it tells nobody what else there is.
import { type ClientRequest, request as httpRequest } from 'node:http';
import t from 'tap';
import { type BrokerAnswer, callBroker, rawCall, startBroker } from '../helpers/broker.ts';
import { demand } from '../helpers/leases.ts';

const any = { 'if-match': '*' };
/** An answer without what differs between any two. */
const plain = ({ status, headers, json }: BrokerAnswer): object => ({
  status,
  json: { ...json, requestId: '' },
  headers: { ...headers, date: '', 'x-request-id': '' },
});

const stageRequest = (port: number, ticket: string): ClientRequest =>
  httpRequest({
    host: '127.0.0.1',
    port,
    method: 'POST',
    path: '/payments/main/x',
    headers: { authorization: `Bearer ${ticket}` },
    agent: false,
  });

t.test('by name, by id, and by nothing else', async (t) => {
  const seen: string[] = [];
  const stage = await startBroker(t, (request, response) => {
    seen.push(request.url!);
    response.end('fine');
  });
  const { vault, port, credential } = stage;
  const ask = (path: string, ticket = stage.ticket): Promise<BrokerAnswer> =>
    callBroker(port, 'GET', path, { authorization: `Bearer ${ticket.ticket}` });
  const rename = (id: string, name: string): Promise<unknown> =>
    demand(vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { name }, any), 200);
  const none = await callBroker(port, 'GET', '/payments/main/v1/x');
  t.equal(none.status, 401);

  await t.test('two tickets, one address', async (t) => {
    const second = await stage.newTicket();
    t.equal(second.baseUrl, stage.ticket.baseUrl);
    t.equal(new URL(second.baseUrl).pathname, '/payments/main/');
    for (const ticket of [stage.ticket, second])
      for (const [path, upstream] of [
        ['/payments/main/v1/x?a=%2F', '/v1/x?a=%2F'],
        ['/payments/main', '/'],
        ['/payments/main/', '/'],
        ['/payments/main?q=1', '/?q=1'],
        ['/payments/%6Dain/v1/x', '/v1/x'],
        [`/-/${credential}/v1/x`, '/v1/x'],
        [`/-/${credential}`, '/'],
        [`/broker/${ticket.id}/v1/x`, '/v1/x'],
        ['/payments/main/api/v4/projects/group%2Fproj', '/api/v4/projects/group%2Fproj'],
      ] as const) {
        t.equal((await ask(path, ticket)).status, 200, path);
        t.equal(seen.at(-1), upstream, path);
      }
  });

  await t.test('401: every other address, whether there is such a thing or not', async (t) => {
    await vault.team('secretive', ['mallory']);
    const { id: foreign } = await demand(
      vault.call('mallory', 'POST', '/v1/teams/secretive/credentials', {
        name: 'main',
        type: 'openai',
        fields: { apiKey: 'sk-somebody-elses' },
        policy: { delivery: ['broker'], allowedHosts: [] },
      }),
      201,
    );
    const { id: other } = await stage.store('other');
    const ofOther = await stage.newTicket({}, other);
    const before = seen.length;
    for (const path of [
      '/secretive/main/v1/x',
      '/secretive/nothing/v1/x',
      '/nowhere/main/v1/x',
      '/payments/other/v1/x',
      '/payments/nothing/v1/x',
      '/Payments/main/v1/x',
      '/payments/Main/v1/x',
      '/payments/main%20/v1/x',
      '/payments/main%2F/v1/x',
      '/payments/%256Dain/v1/x',
      `/-/${foreign}/v1/x`,
      `/-/${other}/v1/x`,
      `/-/${ofOther.id}/v1/x`,
      `/-/${stage.ticket.id}/v1/x`,
      '/-/main/v1/x',
      `/-/${credential.toUpperCase()}/v1/x`,
      `/broker/${ofOther.id}/v1/x`,
      `/broker/${credential}/v1/x`,
      `/payments/${credential}/v1/x`,
    ]) {
      const answer = await ask(path);
      t.strictSame(plain(answer), plain(none), path);
    }
    t.equal(seen.length, before, 'nothing was dialled');
  });

  await t.test('404: what is no address at all', async (t) => {
    for (const path of ['/', '/payments', '/payments/', '//main/v1/x', '/-', '/-/'])
      t.equal((await ask(path)).status, 404, path);
  });

  await t.test("a name that another credential has taken over is the other one's", async (t) => {
    const { id } = await stage.store('first');
    const ticket = await stage.newTicket({}, id);
    t.equal((await ask('/payments/first/v1/x', ticket)).status, 200);
    await rename(id, 'moved');
    t.strictSame(plain(await ask('/payments/first/v1/x', ticket)), plain(none), "nobody's");
    const { id: next } = await stage.store('first');
    t.strictSame(plain(await ask('/payments/first/v1/x', ticket)), plain(none), "another one's");
    const ofNext = await stage.newTicket({}, next);
    t.equal((await ask('/payments/first/v1/x', ofNext)).status, 200);
    for (const path of ['/payments/moved/v1/x', `/-/${id}/v1/x`])
      t.equal((await ask(path, ticket)).status, 200, path);
    await demand(vault.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any), 204);
    t.strictSame(plain(await ask('/payments/moved/v1/x', ticket)), plain(none), 'deleted');
    t.match(await ask(`/-/${id}/v1/x`, ticket), {
      status: 403,
      json: { errors: [{ rule: 'deleted' }] },
    });
    t.match(
      await vault.db
        .selectFrom('audit_event')
        .select('reason')
        .where('action', '=', 'credential.use')
        .where('reason', '=', 'otherAddress')
        .executeTakeFirst(),
      { reason: 'otherAddress' },
      'and the audit log says it',
    );
  });

  await t.test('names with a slash, a backslash or a percent sign are reached by id', async (t) => {
    for (const name of ['a/b', 'a\\b', '100%', 'a%2Fb', '%2e%2e']) {
      const { id } = await stage.store(name);
      const ticket = await stage.newTicket({}, id);
      t.equal(new URL(ticket.baseUrl).pathname, `/-/${id}/`, name);
      t.equal((await ask(`/-/${id}/v1/x`, ticket)).status, 200, name);
      for (const segment of [
        encodeURIComponent(name),
        encodeURIComponent(encodeURIComponent(name)),
      ])
        t.strictSame(plain(await ask(`/payments/${segment}/v1/x`, ticket)), plain(none), name);
    }
    for (const name of ['a b', 'a?b', 'a#b', 'ä.ö', 'a;b', "it's", '日本', 'x..', 'a+b', 'a&b=c']) {
      const { id } = await stage.store(name);
      const ticket = await stage.newTicket({}, id);
      const { pathname } = new URL(ticket.baseUrl);
      t.equal((await ask(`${pathname}v1/x`, ticket)).status, 200, pathname);
      t.equal(seen.at(-1), '/v1/x');
    }
  });
});

t.test('a host for each credential', async (t) => {
  let referers: (string | undefined)[] = [];
  const stage = await startBroker(
    t,
    (request, response) => {
      referers = [request.headers.referer, request.headers.origin, request.headers.host];
      response.writeHead(request.url === '/go' ? 302 : 200, { location: '/there?x=1' }).end();
    },
    { vault: { brokerHostSuffix: 'creds.example' } },
  );
  const { port, credential, ticket } = stage;
  const broker = `127.0.0.1:${port}`;
  const own = `${credential}.creds.example:${port}`;
  const asked = (host: string | null, target: string, more: Record<string, string> = {}) =>
    rawCall(
      port,
      [
        `GET ${target} HTTP/1.1`,
        ...(host === null ? [] : [`Host: ${host}`]),
        `Authorization: Bearer ${ticket.ticket}`,
        ...Object.entries(more).map(([name, value]) => `${name}: ${value}`),
        'Connection: close',
        '',
        '',
      ].join('\r\n'),
    );
  const statusOf = async (host: string | null, target: string): Promise<number> =>
    Number(/^HTTP\/1\.1 (\d+)/.exec(await asked(host, target))?.[1]);

  await t.test('two readings of Host, and 421 for every other one', async (t) => {
    const { credentials } = await demand(
      stage.vault.call('n8n', 'POST', '/v1/broker-tickets', {
        credentials: [{ id: credential }],
        purpose: 'x',
        onBehalfOf: 'alice',
      }),
      201,
    );
    t.equal(credentials[0].hostUrl, `http://${own}/`);
    for (const [host, target, status] of [
      [broker, '/payments/main/v1/x', 200],
      [own, '/v1/x', 200],
      [own.toUpperCase(), '/v1/x', 200],
      [own, '/', 200],
      [own, '/payments/main/v1/x', 200],
      [own, `http://${own}/v1/x`, 200],
      [broker, `http://${broker}/payments/main/v1/x`, 200],
      [own, `http://${broker}/payments/main/v1/x`, 421],
      [broker, `http://${own}/v1/x`, 421],
      [broker, 'http://evil.test/payments/main/v1/x', 421],
      [broker, '/v1/x', 401],
      [broker, '/v1', 404],
      [`${credential}.creds.example`, '/v1/x', 421],
      [`${credential}.creds.example:1`, '/v1/x', 421],
      [`x.${own}`, '/v1/x', 421],
      [`creds.example:${port}`, '/v1/x', 421],
      [`main.creds.example:${port}`, '/v1/x', 421],
      [`${credential}.creds.example.evil.test:${port}`, '/v1/x', 421],
      [`${credential}xcreds.example:${port}`, '/v1/x', 421],
      ['rebound.evil.test', '/payments/main/v1/x', 421],
      [`localhost:${port}`, '/payments/main/v1/x', 421],
      ['127.0.0.1', '/payments/main/v1/x', 421],
      [`019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d.creds.example:${port}`, '/v1/x', 401],
    ] as const)
      t.equal(await statusOf(host, target), status, `${host} ${target}`);
  });

  await t.test('421 comes before the ticket is looked at', async (t) => {
    const refused = await callBroker(port, 'GET', '/payments/main/x', { host: 'evil.test' });
    t.match(refused, { status: 421, json: { code: 'misdirected' } });
    t.equal(refused.headers['vault-error'], 'true');
  });

  await t.test('a redirect stays on the host that was asked', async (t) => {
    t.match(await asked(own, '/go'), /\r\nlocation: \/there\?x=1\r\n/i);
    t.match(
      await asked(broker, '/payments/main/go'),
      /\r\nlocation: \/payments\/main\/there\?x=1\r\n/i,
    );
    t.match(
      await asked(broker, `/-/${credential}/go`),
      new RegExp(`\r\nlocation: /-/${credential}/there\\?x=1\r\n`, 'i'),
    );
  });

  await t.test('Origin and Referer that name the broker stay behind, others go', async (t) => {
    for (const mine of [
      `http://${own}/x`,
      `http://${broker}/y`,
      'https://creds.example',
      `https://other.creds.example/z`,
    ]) {
      await asked(own, '/v1/x', { Origin: mine, Referer: mine });
      t.strictSame(referers.slice(0, 2), [undefined, undefined], mine);
    }
    await asked(own, '/v1/x', { Origin: 'https://app.example', Referer: 'https://app.example/p' });
    t.strictSame(referers.slice(0, 2), ['https://app.example/p', 'https://app.example']);
    t.equal(referers[2], `upstream.test:${stage.upstream.port}`);
  });
});

t.test('a cache between two callers keeps nothing for the other one', async (t) => {
  const stage = await startBroker(t, (_request, response) => {
    response
      .writeHead(200, {
        'cache-control': 'public, s-maxage=600, max-age=60',
        'cdn-cache-control': 'public',
        vary: 'Accept',
      })
      .end('fine');
  });
  for (const [headers, name] of [
    [{ authorization: `Bearer ${stage.ticket.ticket}` }, 'authorization'],
    [{ 'x-api-key': stage.ticket.ticket }, 'x-api-key'],
  ] as const) {
    const { headers: got } = await callBroker(stage.port, 'GET', '/payments/main/', headers);
    t.match(got, { 'cache-control': 'private, max-age=60', vary: `Accept, ${name}` });
    t.notOk('cdn-cache-control' in got);
  }
});

t.test('a ticket in a body goes nowhere', async (t) => {
  const bodies: string[] = [];
  const stage = await startBroker(t, (request, response) => {
    let body = '';
    request
      .on('data', (chunk: Buffer) => {
        body += chunk.toString('latin1');
      })
      .on('end', () => {
        bodies.push(body);
        response.end('fine');
      });
  });
  const { ticket } = stage.ticket;
  const refused = await stage.call('POST', '/x', { body: `{"api_key":"${ticket}"}` });
  t.match(refused, {
    status: 403,
    json: { code: 'brokerRefused', errors: [{ rule: 'ticketPlace' }] },
  });
  for (const cut of [1, 4, 20, 46]) {
    const request = stageRequest(stage.port, ticket);
    request.write(`{"key":"${ticket.slice(0, cut)}`);
    await new Promise((done) => {
      setImmediate(done);
    });
    request.end(`${ticket.slice(cut)}"}`);
    const status = await new Promise<number | undefined>((resolve) => {
      request.on('response', (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      request.on('error', () => {
        resolve(undefined);
      });
    });
    t.not(status, 200, `cut at ${cut}`);
  }
  t.notOk(bodies.some((body) => body.includes(ticket.slice(0, 30))));
  const near = `vbt_vbt_${ticket.slice(0, 46)} v vb vbt vbt_`;
  t.equal((await stage.call('POST', '/x', { body: near })).status, 200);
  t.equal(bodies.at(-1), near, 'to the byte');
});
