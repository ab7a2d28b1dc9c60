// A credential whose tokens are stored, through the broker: the upstream sees an access token and
// nothing else of it.
import { Egress, type Origin } from '../../src/egress/index.ts';
import { parseAllowRules } from '../../src/egress/allow.ts';
import t from 'tap';
import { startAuthorizationServer } from '../helpers/authorization-server.ts';
import { askTicket, type BrokerAnswer, callBroker } from '../helpers/broker.ts';
import { tlsUpstream } from '../helpers/egress.ts';
import { demand } from '../helpers/leases.ts';
import { connect, oauthStage, storeOAuth } from '../helpers/oauth.ts';
import { until } from '../helpers/processes.ts';

/**
 * Hosts of a policy are reached at port 443, which a test may not have: for one host another port
 * stands for it.
 */
class Ported extends Egress {
  readonly #ports: Readonly<Record<string, number>>;
  constructor(
    parts: ConstructorParameters<typeof Egress>[0],
    ports: Readonly<Record<string, number>>,
  ) {
    super(parts);
    this.#ports = ports;
  }
  override dispatcher(origin: Origin, team: string): ReturnType<Egress['dispatcher']> {
    return super.dispatcher({ ...origin, port: this.#ports[origin.host] ?? origin.port }, team);
  }
}

t.test('a held access token', async (t) => {
  const server = await startAuthorizationServer(t);
  const seen: string[] = [];
  let refused: string | undefined;
  const api = await tlsUpstream(t, 'api.test', (request, response) => {
    const token = request.headers.authorization ?? '';
    seen.push(`${request.method} ${token}`);
    request.resume();
    response.writeHead(token === `Bearer ${refused}` ? 401 : 200, { 'x-echo': token }).end(token);
  });
  const egress = new Ported(
    {
      allow: parseAllowRules(
        `api.test:${api.port}=127.0.0.0/8,${server.upstream.host}:${server.upstream.port}=127.0.0.0/8`,
      ),
      own: () => [],
      ca: api.certificate + server.upstream.certificate,
      resolve: async () => ['127.0.0.1'],
    },
    { 'api.test': api.port },
  );
  t.teardown(() => egress.close());
  const stage = await oauthStage(t, server, { egress });
  const { vault } = stage;
  await vault.broker.listen({ host: '127.0.0.1', port: 0 });
  const { port } = vault.broker.server.address() as { port: number };
  const { id } = await storeOAuth(
    stage,
    'held',
    {},
    { policy: { delivery: ['broker'], allowedHosts: ['api.test'] } },
  );
  const ticket = await demand(askTicket(vault, 'n8n', { id }, { ttlSeconds: 3600 }), 201);
  const call = (method: string, body?: string): Promise<BrokerAnswer> =>
    callBroker(
      port,
      method,
      `/broker/${ticket.id}/x`,
      { authorization: `Bearer ${ticket.ticket}` },
      body,
    );
  const { given } = server;

  t.match(
    await call('GET'),
    { status: 403, json: { code: 'brokerRefused', errors: [{ rule: 'notConnected' }] } },
    'before somebody connected it',
  );
  await connect(stage, id);
  const first = await call('GET');
  t.equal(seen.at(-1), `GET Bearer ${given.accessTokens[0]}`);
  t.match(first, {
    status: 200,
    text: 'Bearer [redacted]',
    headers: { 'x-echo': 'Bearer [redacted]' },
  });

  await t.test('refused by the upstream: a new one, once, for what may be repeated', async (t) => {
    vault.clock.ms += 60_000; // a token as young as the first one is not made new
    refused = given.accessTokens.at(-1);
    t.match(
      await call('GET'),
      { status: 200, text: 'Bearer [redacted]', headers: { 'x-echo': 'Bearer [redacted]' } },
      'and the new one does not come back either',
    );
    t.equal(given.accessTokens.length, 2);
    t.strictSame(seen.slice(-2), [
      `GET Bearer ${given.accessTokens[0]}`,
      `GET Bearer ${given.accessTokens[1]}`,
    ]);
    refused = given.accessTokens.at(-1);
    const before = seen.length;
    t.equal((await call('GET')).status, 401, 'the new one is refused too: that is the answer');
    t.ok(seen.length - before <= 2);
  });

  await t.test('what may not be repeated is not, and the next call has a new one', async (t) => {
    vault.clock.ms += 6 * 60_000; // refused again: it is asked once more after five minutes
    refused = given.accessTokens.at(-1);
    const before = seen.length;
    t.equal((await call('POST', 'do it')).status, 401);
    t.equal(seen.length, before + 1);
    await until(
      async () =>
        (
          await vault.db
            .selectFrom('audit_event')
            .select('id')
            .where('action', '=', 'oauth.refresh')
            .execute()
        ).length === 2,
    );
    t.equal((await call('POST', 'do it')).status, 200);
  });

  await t.test('the end of a refresh token is told by its rule', async (t) => {
    await server.revoke();
    vault.clock.ms += 2 * 3_600_000;
    const later = await demand(askTicket(vault, 'n8n', { id }), 201);
    t.match(await callBroker(port, 'GET', `/broker/${later.id}/x`, { 'api-key': later.ticket }), {
      status: 403,
      json: { errors: [{ rule: 'refreshFailed' }] },
    });
  });
  for (const token of [...given.accessTokens, ...given.refreshTokens])
    for (const line of vault.logs) t.notOk(line.includes(token));
});
