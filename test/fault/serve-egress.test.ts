// What a process of `serve` dials, with its settings from the environment: the targets of its
// rules, and never itself.
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { databaseProxy } from '../helpers/database-proxy.ts';
import { testDatabase } from '../helpers/database.ts';
import { listening, tlsUpstream } from '../helpers/egress.ts';
import { deploy, type Serving } from '../helpers/serve.ts';

t.setTimeout(90_000);

const freePort = async (): Promise<number> => {
  const opened: (() => unknown)[] = [];
  const port = await listening({ teardown: (action) => opened.push(action) }, createServer());
  await Promise.all(opened.map((close) => close()));
  return port;
};

/** What a test of a credential with this base URL ends with. */
async function lastStep(serving: Serving, baseUrl: string): Promise<string> {
  const made = await serving.call('alice', 'POST', '/v1/teams/payments/credentials', {
    name: `at ${baseUrl}`,
    type: 'customLlm',
    fields: { baseUrl, apiKey: 'sk-0123456789' },
  });
  const { json } = await serving.call('alice', 'POST', `/v1/credentials/${made.json.id}/test`);
  return `${json.steps.at(-1).step} ${json.steps.at(-1).outcome}`;
}

t.test(
  'targets of the rules are reached, with the authorities of CREDVAULT_EGRESS_CA; the vault and its database never',
  async (t) => {
    const database = await testDatabase(t);
    const hop = await databaseProxy(t, database.url);
    const folder = t.testdir();
    const upstream = await tlsUpstream(t, 'localhost', (request, response) => {
      response
        .writeHead(request.headers.authorization === 'Bearer sk-0123456789' ? 200 : 401)
        .end();
    });
    const ca = join(folder, 'ca.pem');
    writeFileSync(ca, upstream.certificate);
    const { username, pathname } = new URL(database.url.replace(/^postgres(ql)?:/, 'http:'));
    const deployment = deploy(t, `postgresql://${username}@127.0.0.1:${hop.port}${pathname}`);
    const [port, brokerPort] = [await freePort(), await freePort()];
    const allow = [upstream.port, hop.port, port, brokerPort]
      .flatMap((each) => [`localhost:${each}=127.0.0.1`, `localhost:${each}=::1`])
      .join(',');
    const serving = await deployment.start({
      PORT: String(port),
      CREDVAULT_BROKER_PORT: String(brokerPort),
      CREDVAULT_BROKER_PUBLIC_URL: 'https://broker.test',
      CREDVAULT_EGRESS_ALLOW: allow,
      CREDVAULT_EGRESS_CA_FILE: ca,
    });
    t.equal(
      (
        await serving.call('operator', 'POST', '/v1/teams', {
          slug: 'payments',
          name: 'Payments',
          admins: ['alice'],
        })
      ).status,
      201,
    );
    t.equal(await lastStep(serving, upstream.url), 'login ok', 'the control: a rule opens it');
    t.equal(await lastStep(serving, `http://localhost:${port}`), 'name failed', 'its own listener');
    t.equal(
      await lastStep(serving, `http://localhost:${brokerPort}`),
      'name failed',
      "its broker's, though others know it by another name",
    );
    t.equal(
      await lastStep(serving, `http://localhost:${hop.port}`),
      'name failed',
      'its own database',
    );
    t.equal(
      await lastStep(serving, 'http://localhost:1'),
      'name failed',
      'what no rule names looks the same',
    );
  },
);
