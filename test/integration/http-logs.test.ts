// The log: an allow-list. One line for each answer, with the route's template and never what was in
// it.
import { randomBytes } from 'node:crypto';
import { connect } from 'node:net';
import { once } from 'node:events';
import pg from 'pg';
import { pino } from 'pino';
import t from 'tap';
import { logBackgroundFailure } from '../../src/http/logging.ts';
import { hooked } from '../helpers/hooked.ts';
import { until } from '../helpers/processes.ts';
import { startVault } from '../helpers/vault.ts';

const marker = `marker${randomBytes(8).toString('hex')}`;
const everyLine = ['level', 'time', 'pid', 'hostname', 'msg', 'requestId'];
const allowed: Readonly<Record<string, readonly string[]>> = {
  request: ['event', 'method', 'route', 'status', 'durationMs', 'subject', 'isCut'],
  requestFailed: ['event', 'code', 'causes'],
  tokenRefused: ['event', 'reason', 'count', 'action'],
};

t.test('each answer leaves one line, and no line has more than is listed', async (test) => {
  const vault = await startVault(test);
  await vault.team('payments');
  vault.logs.length = 0;
  vault.answers.length = 0;
  const headers = {
    'user-agent': marker,
    referer: `https://${marker}.test`,
    cookie: `a=${marker}`,
    'x-anything': marker,
    'idempotency-key': marker,
    'if-match': `"${marker}"`,
  };
  const secret = {
    name: marker,
    type: 'openai',
    fields: { apiKey: marker },
    description: marker,
    labels: { env: marker },
  };
  const created = await vault.call(
    'alice',
    'POST',
    '/v1/teams/payments/credentials',
    secret,
    headers,
  );
  test.equal(created.status, 201);
  const { id } = created.json;
  for (const [as, method, url, body] of [
    ['alice', 'GET', `/v1/credentials/${id}`],
    ['alice', 'GET', `/v1/teams/payments/credentials?namePrefix=${marker}&label=env:${marker}`],
    ['alice', 'GET', '/v1/teams/payments/audit-events'],
    ['alice', 'PATCH', `/v1/credentials/${id}`, secret],
    ['alice', 'POST', '/v1/teams/payments/credentials', secret],
    ['alice', 'POST', '/v1/teams/payments/credentials', `{"${marker}`],
    ['alice', 'PUT', `/v1/teams/payments/members/${marker}`, { role: 'viewer' }],
    ['alice', 'DELETE', `/v1/teams/payments/members/${marker}`],
    ['mallory', 'GET', `/v1/teams/${marker}`],
    ['mallory', 'GET', `/v1/credentials/${id}?x=${marker}`],
    [null, 'GET', `/v1/whoami?access_token=${marker}`],
    [null, 'GET', `/${marker}`],
    [null, 'OPTIONS', `/v1/${marker}`],
    ['alice', 'GET', `/v1/teams/%${marker}`],
    ['alice', 'GET', `/v1/teams/${marker.repeat(100)}`],
    [null, 'GET', '/healthz'],
    [null, 'GET', '/docs'],
  ] as [string | null, string, string, unknown?][])
    await vault.call(as, method, url, body, headers);
  const forged = await vault.call(null, 'GET', '/v1/whoami', undefined, {
    authorization: `Bearer ${marker}.${marker}.${marker}`,
  });
  test.equal(forged.status, 401);

  const lines = vault.logs.map((line) => JSON.parse(line) as Record<string, unknown>);
  for (const line of lines) {
    const known = [...everyLine, ...(allowed[String(line['event'])] ?? [])];
    test.same(
      Object.keys(line).filter((member) => !known.includes(member)),
      [],
      JSON.stringify(line['event']),
    );
    test.equal(
      lines.filter(
        ({ event, requestId }) => event === line['event'] && requestId === line['requestId'],
      ).length,
      1,
      'and one only',
    );
  }
  const requests = lines.filter((line) => line['event'] === 'request');
  test.same(
    requests.map((line) => line['requestId']),
    vault.answers.map((answer) => /"x-request-id":"([^"]+)"/.exec(answer)?.[1]),
    'in the order of the answers',
  );
  test.same(
    requests.map((line) => line['status']),
    vault.answers.map((answer) => Number(answer.slice(0, 3))),
  );
  test.match(
    requests.slice(0, 3).map(({ method, route, subject }) => [method, route, subject]),
    [
      ['POST', '/v1/teams/:team/credentials', 'alice'],
      ['GET', '/v1/credentials/:id', 'alice'],
      ['GET', '/v1/teams/:team/credentials', 'alice'],
    ],
    'the template, not the path',
  );
  test.notOk(vault.logs.join('').includes(marker), 'nothing that was sent');
});

t.test('what the framework says of an error by itself has no text of it either', async (test) => {
  const vault = await hooked(
    (app) => {
      app.get('/late', { config: { access: 'public' } as object }, async (_request, reply) => {
        reply.hijack();
        reply.raw.end('sent');
        throw new Error(`${marker}\n    at ${marker} (file:///${marker}:1:1)`);
      });
    },
    () => startVault(test),
  );
  vault.logs.length = 0;
  test.equal((await vault.app.inject('/late')).body, 'sent');
  const lines = await until(() => vault.logs.find((line) => line.includes('"err"')));
  test.match(JSON.parse(lines), { err: { name: 'Error', at: [/http-logs\.test\.ts:\d+/] } });
  test.notOk(vault.logs.join('').includes(marker));
});

t.test('whoever is named in the log is a subject that was verified', async (test) => {
  const vault = await startVault(test);
  await vault.call('alice', 'GET', '/v1/whoami');
  await vault.call(null, 'GET', '/v1/whoami', undefined, {
    authorization: 'Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhZG1pbiJ9.AAAA',
  });
  test.same(
    vault.logs
      .map((line) => JSON.parse(line) as { event: string; subject: unknown })
      .filter(({ event }) => event === 'request')
      .map(({ subject }) => subject),
    ['alice', null],
  );
});

t.test('a line break in what is sent breaks no line of the log', async (test) => {
  const vault = await startVault(test);
  const { port } = new URL(await vault.app.listen({ host: '127.0.0.1', port: 0 }));
  vault.logs.length = 0;
  for (const bytes of [
    'GET /x%0a{"event":"forged"} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n',
    'GET / HTTP/1.1\nHost: x\n{"event":"forged"}\n\n',
  ]) {
    const socket = connect(Number(port), '127.0.0.1').resume();
    socket.write(bytes);
    await once(socket, 'close');
  }
  test.equal(vault.logs.length, 2);
  test.same(
    vault.logs.map((line) => (JSON.parse(line) as { event: string }).event),
    ['request', 'request'],
  );
});

t.test(
  "of what fails in the background the log has our own words, and of others' errors a name and a code",
  async (test) => {
    const lines: string[] = [];
    const logger = pino(
      { base: null },
      {
        write: (line: string) => {
          lines.push(line);
        },
      },
    );
    const ofDatabase = Object.assign(new pg.DatabaseError(`invalid input ${marker}`, 0, 'error'), {
      code: '22P02',
      detail: marker,
    });
    logBackgroundFailure(logger, new Error('use counts are waiting (7)', { cause: ofDatabase }));
    logBackgroundFailure(logger, ofDatabase);
    test.match(
      lines.map((line) => JSON.parse(line) as object),
      [
        { event: 'background', msg: 'use counts are waiting (7)', causeCode: '22P02' },
        { event: 'background', msg: 'work in the background failed', code: '22P02' },
      ],
    );
    test.notOk(lines.join('').includes(marker));
  },
);
