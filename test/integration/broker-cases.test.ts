// The requests of SDKs as they are, from the list of cases: what concerns hosts, paths and tickets.
// A line that no test here knows fails.
import { readFileSync } from 'node:fs';
import t from 'tap';
import { parseAllowRules } from '../../src/egress/allow.ts';
import { callBroker, startBroker, stageOf } from '../helpers/broker.ts';
import { plainUpstream, tlsUpstream } from '../helpers/egress.ts';
import { demand } from '../helpers/leases.ts';

const cases = JSON.parse(
  readFileSync(new URL('../vectors/broker/requests.json', import.meta.url), 'utf8'),
);

t.test('paths', async (t) => {
  const seen: string[] = [];
  const stage = await stageOf(t);
  stage.on((request, response) => {
    seen.push(request.url!);
    response.end('fine');
  });
  const { id: bound } = await stage.store('bound', { pathPrefixes: ['/api'] });
  const { id: slashes } = await stage.store('slashes', {
    pathPrefixes: ['/api'],
    encodedSlashes: true,
  });
  const status = async (path: string, credential?: string): Promise<number> =>
    (
      await callBroker(stage.port, 'GET', `/-/${credential ?? stage.credential}${path}`, {
        authorization: `Bearer ${(await stage.newTicket({}, credential)).ticket}`,
      })
    ).status;
  const tests: Record<string, () => Promise<void>> = {
    'GET /api/v4/projects/group%2Fproj/issues?state=opened': async () => {
      const path = '/api/v4/projects/group%2Fproj/issues?state=opened';
      t.equal(await status(path), 200);
      t.equal(seen.at(-1), path, 'to the byte');
      t.equal(await status(path, bound), 400, 'with prefixes');
      t.equal(await status(path, slashes), 200, 'the credential allows it');
      t.equal(seen.at(-1), path);
    },
    "octokit.repos.getContent({ path: 'dir/file.txt' })": async () => {
      for (const path of [
        '/repos/o/r/contents/dir/file.txt',
        '/repos/o/r/contents/dir%2Ffile.txt',
      ]) {
        t.equal(await status(path), 200);
        t.equal(seen.at(-1), path);
      }
    },
    'GET /a/../b': async () => {
      for (const credential of [undefined, bound, slashes])
        t.equal(await status('/a/../b', credential), 400);
    },
  };
  for (const { request } of cases.paths) {
    const test = tests[request];
    if (test === undefined) t.fail(`no test of ${request}`);
    else await test();
  }
});

t.test('tickets', async (t) => {
  let got: Record<string, unknown> = {};
  const stage = await stageOf(t);
  stage.on((request, response) => {
    got = request.headers;
    response.end('fine');
  });
  const url = `https://upstream.test:${stage.upstream.port}`;
  const store = (type: string, fields: object): Promise<{ id: string }> =>
    demand(
      stage.vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
        name: `one of ${type}`,
        type,
        fields,
        policy: {
          delivery: ['broker'],
          allowedHosts: [`upstream.test:${stage.upstream.port}`],
        },
      }),
      201,
    );
  t.ok(url);
  const tests: Record<string, () => Promise<void>> = {
    'Authorization: token vbt_…': async () => {
      const { status } = await stage.call('GET', '/', {
        headers: { authorization: `token ${stage.ticket.ticket}` },
      });
      t.equal(status, 200);
      t.equal(got['authorization'], `Bearer ${stage.secret}`);
    },
    'PRIVATE-TOKEN: vbt_…': async () => {
      const { id } = await store('header', {
        name: 'PRIVATE-TOKEN',
        value: 'glpat-0123456789',
      });
      const ticket = await stage.newTicket({}, id);
      const call = (headers: Record<string, string>) =>
        callBroker(stage.port, 'GET', `/-/${id}/`, headers);
      t.equal((await call({ 'PRIVATE-TOKEN': ticket.ticket })).status, 200);
      t.equal(got['private-token'], 'glpat-0123456789');
      t.equal((await call({ 'OTHER-TOKEN': ticket.ticket })).status, 401);
      const { status } = await stage.call('GET', '/', {
        headers: { authorization: 'none', 'PRIVATE-TOKEN': stage.ticket.ticket },
      });
      t.equal(status, 401, 'a type that does not inject that header');
    },
    'Authorization: Basic base64(vbt_…:)': async () => {
      const { status } = await stage.call('GET', '/', {
        headers: {
          authorization: `Basic ${Buffer.from(`${stage.ticket.ticket}:`).toString('base64')}`,
        },
      });
      t.equal(status, 200);
    },
  };
  for (const { header } of cases.tickets) {
    const test = tests[header];
    if (test === undefined) t.fail(`no test of ${header}`);
    else await test();
  }
});

t.test('hosts', async (t) => {
  const minio = await tlsUpstream(t, 'minio.corp.example', (request, response) => {
    response.end(`${request.headers.host} ${request.headers.authorization}`);
  });
  const plain = await plainUpstream(t, 'plain.corp.example', (request, response) => {
    response.end(`${request.headers.host} ${request.url}`);
  });
  const rules = [minio, plain].map(({ host, port }) => `${host}:${port}=127.0.0.0/8`).join(',');
  const stage = await startBroker(
    t,
    (_request, response) => {
      response.end('fine');
    },
    {
      egress: {
        allow: parseAllowRules(rules),
        ca: minio.certificate,
        resolve: async () => ['127.0.0.1'],
      },
    },
  );
  const store = (name: string, fields: object, allowedHosts: string[]): Promise<{ id: string }> =>
    demand(
      stage.vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
        name,
        type: 's3',
        fields: { accessKeyId: 'AKIAEXAMPLE', secretAccessKey: 'a-secret-key-of-s3', ...fields },
        policy: { delivery: ['broker'], allowedHosts },
      }),
      201,
    );
  const get = async (id: string, more: Record<string, unknown> = {}) => {
    const { ticket } = await stage.newTicket(more, id);
    return callBroker(stage.port, 'GET', `/-/${id}/bucket/key`, { 'x-api-key': ticket });
  };
  const at = `minio.corp.example:${minio.port}`;
  const { id } = await store('by host', {}, [at]);
  const answer = await get(id, { host: at });
  t.equal(answer.status, 200);
  t.match(answer.text, new RegExp(`^${at} AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/`));
  const endpoint = `http://plain.corp.example:${plain.port}`;
  const { id: byEndpoint } = await store('by endpoint', { endpoint }, []);
  t.match(await get(byEndpoint), {
    status: 200,
    text: `plain.corp.example:${plain.port} /bucket/key`,
  });
  const { id: unnamed } = await store('unnamed', { endpoint: 'http://plain.corp.example:9' }, []);
  t.equal((await get(unnamed)).status, 502, 'plain http only where a rule names the target');
  t.equal(cases.hosts.length, 2, 'the second is in broker-addresses.test.ts');
});
