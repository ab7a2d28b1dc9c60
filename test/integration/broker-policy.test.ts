// The edge of a policy of methods and paths, over the wire: nothing beside the path leads past it,
// whichever way a call is recorded, and what does not go out stands nowhere as having gone.
import type { IncomingHttpHeaders } from 'node:http';
import t from 'tap';
import { type BrokerAnswer, startBroker } from '../helpers/broker.ts';

interface Arrived {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  body: string;
  isWhole: boolean;
}

t.test('a policy of methods and paths', async (t) => {
  const arrived: Arrived[] = [];
  const stage = await startBroker(
    t,
    (request, response) => {
      const { method = '', url = '', headers } = request;
      const seen: Arrived = { method, url, headers, body: '', isWhole: false };
      arrived.push(seen);
      request
        .on('error', () => undefined)
        .on('data', (chunk: Buffer) => {
          seen.body += chunk.toString('latin1');
        })
        .on('end', () => {
          seen.isWhole = true;
          response.end('fine');
        });
    },
    { policy: { methods: ['GET', 'POST', 'PUT'], pathPrefixes: ['/reports'] } },
  );
  const events = async (): Promise<{ action: string; decision: string; reason: string | null }[]> =>
    stage.vault.db
      .selectFrom('audit_event')
      .select(['action', 'decision', 'reason'])
      .where('action', 'in', ['credential.use', 'credential.used'])
      .execute();
  const uses = async (): Promise<number> =>
    (await events()).filter(
      ({ action, decision }) => action === 'credential.use' && decision === 'allow',
    ).length;
  const refused = (answer: BrokerAnswer, rule: string, name: string): void => {
    t.match(answer, { status: 403, json: { code: 'brokerRefused', errors: [{ rule }] } }, name);
    t.equal(answer.headers['vault-error'], 'true');
  };

  await t.test('the first call and those after it, which are recorded another way', async (t) => {
    for (let turn = 0; turn < 2; turn += 1) {
      const before = [arrived.length, await uses()] as const;
      for (const [header, value] of [
        ['x-amz-copy-source', '/payroll/2026.csv'],
        ['X_Amz_Copy_Source', 'payroll/2026.csv'],
        ['x-ms-copy-source', 'https://elsewhere.example/reports/x'],
        ['x-goog-copy-source', 'payroll/x'],
        ['Destination', '/payroll/x'],
        ['If', '</payroll/x> (<urn:uuid:1>)'],
      ] as const)
        refused(
          await stage.call('PUT', '/reports/new', { headers: { [header]: value } }),
          'pathNotAllowed',
          header,
        );
      refused(await stage.call('POST', '/reports/1?_method=DELETE'), 'methodNotAllowed', 'query');
      refused(
        await stage.call('GET', '/reports/1?rest_route=/wp/v2/users'),
        'pathNotAllowed',
        'query',
      );
      t.match(
        await stage.call('GET', '/reports/%EF%BC%8E%EF%BC%8E/payroll'),
        { status: 400, json: { code: 'invalidUrl' } },
        'dots of full width',
      );
      t.equal(
        (await stage.call('GET', '/reports/1', { headers: { range: 'bytes=0-9' } })).status,
        416,
      );
      t.same([arrived.length, await uses()], before, 'nothing went out, and nothing says so');
      t.match(
        await stage.call('PUT', '/reports/new', {
          headers: { 'x-amz-copy-source': '/reports/2026.csv', destination: '/reports/b' },
        }),
        { status: 200 },
      );
      t.match(arrived.at(-1)?.headers, {
        'x-amz-copy-source': '/reports/2026.csv',
        destination: '/reports/b',
      });
    }
  });

  await t.test('what overrides method, path or address does not arrive', async (t) => {
    const names = [
      'X-HTTP-Method-Override',
      'X-Original-URI',
      'X-Rewrite-Url',
      'X-Forwarded-For',
      'X-Real-IP',
      'X_Forwarded_Host',
      'CF-Connecting-IP',
      'True-Client-IP',
      'Forwarded',
      'X-Envoy-Original-Path',
    ];
    const answer = await stage.call('POST', '/reports/1', {
      headers: { ...Object.fromEntries(names.map((name) => [name, '/payroll'])), 'x-kept': 'yes' },
      body: 'a=b',
    });
    t.equal(answer.status, 200);
    t.notMatch(JSON.stringify(arrived.at(-1)), 'payroll');
    t.equal(arrived.at(-1)?.headers['x-kept'], 'yes');
  });

  await t.test(
    'a form that overrides the method arrives at most in part, without it',
    async (t) => {
      const multipart =
        '--X\r\nContent-Disposition: form-data; name="_method"\r\n\r\nDELETE\r\n--X--\r\n';
      for (const [type, body] of [
        ['application/x-www-form-urlencoded', 'a=1&_method=DELETE&b=2'],
        ['multipart/form-data; boundary=X', multipart],
      ] as const) {
        const before = arrived.length;
        refused(
          await stage.call('POST', '/reports/1', { headers: { 'content-type': type }, body }),
          'methodNotAllowed',
          type,
        );
        for (const { body: got, isWhole } of arrived.slice(before)) {
          t.notMatch(got, 'DELETE');
          t.notOk(isWhole, 'and is no request for the upstream');
        }
      }
      const put = 'a=1&_method=PUT&b=2';
      const type = { 'content-type': 'application/x-www-form-urlencoded' };
      t.equal((await stage.call('POST', '/reports/1', { headers: type, body: put })).status, 200);
      t.equal(arrived.at(-1)?.body, put);
      const json = '{"_method":"DELETE"}';
      const jsonType = { 'content-type': 'application/json' };
      t.equal(
        (await stage.call('POST', '/reports/1', { headers: jsonType, body: json })).status,
        200,
      );
      t.equal(arrived.at(-1)?.body, json, 'what other bodies name is for the upstream to judge');
    },
  );

  await t.test('without such a policy they go on as they are', async (t) => {
    const ticket = await stage.newTicket({}, (await stage.store('open')).id);
    const answer = await stage.call('PUT', '/x?_method=DELETE', {
      ticket,
      headers: {
        'x-amz-copy-source': '/payroll/x',
        'content-type': 'application/x-www-form-urlencoded',
      },
      body: '_method=DELETE',
    });
    t.equal(answer.status, 200);
    t.match(arrived.at(-1), {
      url: '/x?_method=DELETE',
      headers: { 'x-amz-copy-source': '/payroll/x' },
      body: '_method=DELETE',
    });
  });
});
