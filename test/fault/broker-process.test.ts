// The broker in processes: beside the vault, and alone over the same database.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import t from 'tap';
import { generateEngineKey } from '../../src/client/index.ts';
import { callBroker } from '../helpers/broker.ts';
import { testDatabase } from '../helpers/database.ts';
import { deploy, type Serving, startProgram } from '../helpers/serve.ts';

t.setTimeout(90_000);

const must = async (answer: ReturnType<Serving['call']>, status: number): Promise<any> => {
  const { status: got, json } = await answer;
  if (got !== status) throw new Error(`expected ${status}, got ${got}: ${JSON.stringify(json)}`);
  return json;
};

t.test(
  'tickets of a vault are good at the broker beside it and at one that runs alone',
  async (t) => {
    const upstream = createServer((request, response) => {
      response.end(`${request.method} ${request.url} ${request.headers.authorization?.length}`);
    });
    await new Promise<void>((resolve) => {
      upstream.listen(0, '127.0.0.1', resolve);
    });
    t.teardown(() => {
      upstream.closeAllConnections();
      upstream.close();
    });
    const { port } = upstream.address() as AddressInfo;
    const database = await testDatabase(t);
    const deployment = deploy(t, database.url);
    const allowed = {
      CREDVAULT_EGRESS_ALLOW: `localhost:${port}=127.0.0.1/32,localhost:${port}=::1/128`,
    };
    const vault = await deployment.start({ ...allowed, CREDVAULT_BROKER_PORT: '0' });
    const beside = Number(/"brokerUrl":"http:\/\/127\.0\.0\.1:(\d+)"/.exec(vault.output())?.[1]);
    t.ok(beside > 0, 'it says where the broker listens');
    const program = startProgram(t, ['broker'], {
      ...deployment.environment,
      ...allowed,
      CREDVAULT_BROKER_PORT: '0',
    });
    const alone = Number(
      new URL(await program.printed(/"event":"listening","url":"([^"]+)"/)).port,
    );

    await must(
      vault.call('operator', 'POST', '/v1/teams', {
        slug: 'payments',
        name: 'Payments',
        admins: ['alice'],
      }),
      201,
    );
    await must(
      vault.call('operator', 'POST', '/v1/engines', {
        name: 'n8n',
        subject: 'n8n',
        keys: [generateEngineKey().publicJwk],
      }),
      201,
    );
    await must(
      vault.call('alice', 'PUT', '/v1/teams/payments/members/n8n', { role: 'engine' }),
      200,
    );
    const { id } = await must(
      vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
        name: 'model',
        type: 'openai',
        fields: { apiKey: 'sk-1234567890', baseUrl: `http://localhost:${port}` },
        policy: { delivery: ['broker'], allowedHosts: [] },
      }),
      201,
    );
    const ticket = await must(
      vault.call('n8n', 'POST', '/v1/broker-tickets', {
        credential: { id },
        purpose: 'a test',
        onBehalfOf: 'alice',
      }),
      201,
    );
    t.equal(ticket.baseUrl, `http://127.0.0.1:${beside}/payments/model/`);
    for (const at of [beside, alone]) {
      t.match(
        await callBroker(at, 'GET', `/broker/${ticket.id}/v1/models?x=1`, {
          authorization: `Bearer ${ticket.ticket}`,
        }),
        { status: 200, text: 'GET /v1/models?x=1 20' },
      );
      t.match(await callBroker(at, 'GET', '/healthz'), {
        status: 404,
        headers: { 'vault-error': 'true' },
      });
    }
    t.match(
      await callBroker(vault.port, 'GET', `/broker/${ticket.id}/v1/models`, {
        authorization: `Bearer ${ticket.ticket}`,
      }),
      { status: 404 },
      "the vault's own listener is none",
    );
    await must(vault.call('n8n', 'DELETE', `/v1/broker-tickets/${ticket.id}`), 204);
    for (const at of [beside, alone])
      t.equal(
        (
          await callBroker(at, 'GET', `/broker/${ticket.id}/`, {
            authorization: `Bearer ${ticket.ticket}`,
          })
        ).status,
        401,
      );
    for (const child of [vault, program]) {
      child.child.kill('SIGTERM');
      t.equal(await child.ended, 0);
      t.equal(child.errors(), '');
    }
  },
);

t.test('a vault without a broker gives no tickets and does not listen for one', async (t) => {
  const database = await testDatabase(t);
  const vault = await deploy(t, database.url).start();
  t.notMatch(vault.output(), 'brokerUrl');
  await must(
    vault.call('operator', 'POST', '/v1/engines', {
      name: 'n8n',
      subject: 'n8n',
      keys: [generateEngineKey().publicJwk],
    }),
    201,
  );
  const refused = await vault.call('n8n', 'POST', '/v1/broker-tickets', {
    credential: { team: 'payments', name: 'model' },
    purpose: 'a test',
  });
  t.match(refused, { status: 409, json: { code: 'brokerOff' } });
});
