// `serve` as a process: how it starts, refuses to start, stops, and what a kill leaves.
import { once } from 'node:events';
import { connect } from 'node:net';
import { sql } from 'kysely';
import pg from 'pg';
import t from 'tap';
import { generateRootKey } from '../../src/crypto/index.ts';
import { testDatabase } from '../helpers/database.ts';
import { until } from '../helpers/processes.ts';
import { deploy, type Serving, startProgram } from '../helpers/serve.ts';

t.setTimeout(90_000);

const credential = (name: string): object => ({
  name,
  type: 'openai',
  fields: { apiKey: `sk-${name}` },
});
const makeTeam = (serving: Serving): ReturnType<Serving['call']> =>
  serving.call('operator', 'POST', '/v1/teams', {
    slug: 'payments',
    name: 'Payments',
    admins: ['alice'],
  });

t.test(
  'asked to stop, it finishes what it has begun, takes nothing new, and leaves with 0',
  async (test) => {
    for (const [signal, late, said] of [
      ['SIGTERM', '/readyz', 'Not ready: stopping.'],
      ['SIGINT', '/v1/whoami', 'The vault is stopping.'],
    ] as const) {
      const database = await testDatabase(test);
      const deployment = deploy(test, database.url);
      const serving = await deployment.start();
      test.equal((await serving.call(null, 'GET', '/readyz')).status, 200);
      test.equal((await makeTeam(serving)).status, 201);
      const {
        json: { id },
      } = await serving.call(
        'alice',
        'POST',
        '/v1/teams/payments/credentials',
        credential('openai'),
      );

      // Somebody holds the table: the request below is begun and cannot be answered yet.
      const holder = new pg.Client({ connectionString: database.url });
      await holder.connect();
      await holder.query('begin; lock table credential in access exclusive mode');
      const socket = connect(serving.port, '127.0.0.1');
      let received = '';
      socket.on('data', (chunk: Buffer) => {
        received += chunk.toString();
      });
      socket.write(
        `GET /v1/credentials/${id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${deployment.token('alice')}\r\n\r\n`,
      );
      await until(
        async () =>
          (
            await sql<{ waits: boolean }>`
      select exists (select 1 from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())) as waits`.execute(
              database.db,
            )
          ).rows[0]?.waits,
      );

      serving.child.kill(signal);
      await until(
        () =>
          new Promise<boolean>((resolve) => {
            const probe = connect(serving.port, '127.0.0.1', () => {
              probe.destroy();
              resolve(false);
            });
            probe.once('error', () => {
              resolve(true);
            });
          }),
      );
      test.equal(serving.child.exitCode, null, 'it still runs');
      socket.write(`GET ${late} HTTP/1.1\r\nHost: x\r\n\r\n`);
      test.equal(received, '');
      const closed = once(socket, 'close');
      await holder.query('rollback');
      await holder.end();
      await closed;

      const [first = '', ...more] = received.split(/(?=HTTP\/1\.1 )/);
      test.match(
        first,
        /^HTTP\/1.1 200[^]*"name":"openai"/,
        'the request that was begun is answered',
      );
      test.equal(more.length, 1);
      test.match(
        more[0],
        new RegExp(`^HTTP/1.1 503[^]*problem\\+json[^]*"code":"notReady","detail":"${said}"`, 'i'),
        'one that comes later on the same connection is not',
      );
      test.equal(await serving.ended, 0);
      test.match(serving.output(), /"event":"stopped"/);
      test.equal(serving.errors(), '', 'no warning, no trace');
      const records = await database.db
        .selectFrom('access_record')
        .select('status')
        .where('action', '=', 'credential.read')
        .execute();
      test.same(records, [{ status: 200 }], 'what was pending was written');
    }
  },
);

t.test('connections on which nothing is asked do not hold it up', async (test) => {
  const database = await testDatabase(test);
  const deployment = deploy(test, database.url);
  const serving = await deployment.start();
  const half = `POST /v1/teams HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${deployment.token('operator')}\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{`;
  const bytes = [
    '',
    'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n',
    'GET /healthz HTTP/1.1\r\nHo',
    half,
  ];
  const sockets = bytes.map(() =>
    connect(serving.port, '127.0.0.1').on('error', () => {
      /* cut off, as it should be */
    }),
  );
  await Promise.all(sockets.map((socket) => once(socket, 'connect')));
  for (const [n, socket] of sockets.entries()) socket.write(bytes[n] ?? '');
  await once(sockets[1] ?? (sockets[0] as never), 'data');
  await until(() =>
    database.db.selectFrom('subject').select('id').where('sub', '=', 'operator').executeTakeFirst(),
  );
  const asked = Date.now();
  serving.child.kill('SIGTERM');
  test.equal(await serving.ended, 0);
  test.ok(
    Date.now() - asked < 15_000,
    'half a minute is what such a connection is given otherwise',
  );
  test.equal(serving.errors(), '');
});

t.test(
  'a configuration that is not whole is refused, with every fault by its name and no value',
  async (test) => {
    const program = startProgram(test, ['serve'], {
      HOST: '0.0.0.0',
      PORT: 'seven',
      CREDVAULT_ROOT_KEYS: 'not-a-root-key',
      CREDVAULT_JWT_ISSUER: 'https://issuer.test',
      CREDVAULT_JWT_SECRET: 'short-secret',
      CREDVAULT_ODD: 'odd-value',
      DATABASE_URL_FILE: '/nonexistent-folder/url',
    });
    test.equal(await program.ended, 1);
    for (const name of [
      'HOST',
      'PORT',
      'CREDVAULT_ROOT_KEYS',
      'CREDVAULT_JWT_AUDIENCE',
      'CREDVAULT_JWT_SECRET',
      'CREDVAULT_ODD',
      'DATABASE_URL_FILE',
    ])
      test.match(program.output(), new RegExp(name));
    for (const value of ['not-a-root-key', 'short-secret', 'odd-value', 'seven'])
      test.notOk(program.output().includes(value), value);
    lastWords(test, program);
  },
);

/** The line that says why it ended: of a log, the only one of its kind, and nothing beside it. */
function lastWords(
  test: {
    equal(a: unknown, b: unknown): unknown;
    same(a: unknown, b: unknown, what: string): unknown;
  },
  of: { output(): string; errors(): string },
): Record<string, unknown> {
  test.equal(of.errors(), '');
  const lines = of
    .output()
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>);
  const [line, ...more] = lines.filter(({ event }) => event === 'serviceFailed');
  test.same(more, [], 'it is said once');
  return line ?? {};
}

t.test('what it cannot run on is refused in one line', async (test) => {
  const database = await testDatabase(test);
  const empty = await testDatabase(test, { empty: true });
  const deployment = deploy(test, database.url);
  const first = await deployment.start();
  first.child.kill('SIGTERM');
  test.equal(await first.ended, 0);
  for (const [what, environment, message] of [
    [
      'another root key',
      { CREDVAULT_ROOT_KEYS_FILE: undefined, CREDVAULT_ROOT_KEYS: generateRootKey() },
      /wrapped by root keys that are not configured: [0-9a-f]{16}/,
    ],
    [
      'an empty database',
      { DATABASE_URL_FILE: undefined, DATABASE_URL: empty.url },
      /the schema is behind this version: run `npm run -s vault -- migrate`/,
    ],
    [
      'no database',
      {
        DATABASE_URL_FILE: undefined,
        DATABASE_URL: 'postgresql://nobody:hidden-password@127.0.0.1:1/nothing',
      },
      /no configured database host accepts connections as a primary/,
    ],
    [
      'a port that is taken',
      { PORT: String(await takenPort(test)) },
      /cannot listen at 127\.0\.0\.1:\d+ \(EADDRINUSE\): another process listens there/,
    ],
    [
      "a port of the broker's that is taken",
      { CREDVAULT_BROKER_PORT: String(await takenPort(test)) },
      /cannot listen at 127\.0\.0\.1:\d+ \(EADDRINUSE\): another process listens there/,
    ],
  ] as const) {
    const refused = await deployment.start(environment, { isReady: false });
    test.equal(await refused.ended, 1, what);
    const { event, command, level, msg } = lastWords(test, refused);
    test.match(msg, message, what);
    test.match({ event, command, level }, { event: 'serviceFailed', command: 'serve', level: 60 });
    test.notOk(refused.output().includes('hidden-password'), what);
    test.notMatch(refused.output(), /"event":"listening"/, what);
  }
});

t.test('what was acknowledged outlives kill -9', async (test) => {
  const database = await testDatabase(test);
  const deployment = deploy(test, database.url);
  const acknowledged: string[] = [];
  for (let round = 0; round < 3; round += 1) {
    const serving = await deployment.start();
    if (round === 0) test.equal((await makeTeam(serving)).status, 201);
    const writers = Array.from({ length: 4 }, async (_, writer) => {
      for (let n = 0; ; n += 1) {
        const name = `key-${round}-${writer}-${n}`;
        const answer = await serving
          .call('alice', 'POST', '/v1/teams/payments/credentials', credential(name))
          .catch(() => undefined);
        if (answer === undefined) return;
        if (answer.status === 201) acknowledged.push(answer.json.id);
      }
    });
    const before = acknowledged.length;
    await until(() => acknowledged.length > before + 5 + round);
    serving.child.kill('SIGKILL');
    test.equal(await serving.ended, 'SIGKILL');
    await Promise.all(writers);
    const kept = new Set(
      (await database.db.selectFrom('credential').select('id').execute()).map(({ id }) =>
        String(id),
      ),
    );
    const auditLog = new Set(
      (
        await database.db
          .selectFrom('audit_event')
          .select('target_id')
          .where('action', '=', 'credential.create')
          .execute()
      ).map((event) => event.target_id),
    );
    test.same(
      acknowledged.filter((id) => !kept.has(id)),
      [],
      'every credential is there',
    );
    test.same(
      [...kept].filter((id) => !auditLog.has(id)),
      [],
      'and each of them has its event',
    );
    test.equal(kept.size, auditLog.size, 'and no event is without its credential');
  }
  const serving = await deployment.start();
  test.equal(
    (await serving.call('alice', 'GET', `/v1/credentials/${acknowledged.at(-1) ?? ''}`)).json
      .health,
    'ok',
  );
});

async function takenPort(test: { teardown(action: () => unknown): unknown }): Promise<number> {
  const { createServer } = await import('node:net');
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  test.teardown(() => server.close());
  return (server.address() as { port: number }).port;
}
