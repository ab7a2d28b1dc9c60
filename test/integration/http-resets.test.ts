// Callers who hang up, at whatever moment: what they tried is recorded with where they came from,
// and nothing of the listener is left over.
import { once } from 'node:events';
import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { sql } from 'kysely';
import pg from 'pg';
import t from 'tap';
import { startBroker } from '../helpers/broker.ts';
import { until } from '../helpers/processes.ts';
import { answersIn, rawConnect, rawExchange, type RawTarget } from '../helpers/raw.ts';
import { testCertificate } from '../helpers/certificate.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

async function listening(
  test: { teardown(action: () => unknown): unknown },
  options: Parameters<typeof startVault>[1] = {},
): Promise<{ vault: TestVault; target: RawTarget }> {
  const vault = await startVault(test, options);
  const url = await vault.app.listen({ host: '127.0.0.1', port: 0 });
  return {
    vault,
    target: { port: Number(new URL(url).port), isTls: options.tls !== undefined },
  };
}

/** Resets a connection; over TLS there is no such thing but to leave without a word. */
function reset(socket: Socket): void {
  if ('encrypted' in socket) socket.destroy();
  else socket.resetAndDestroy();
}

const head = (method: string, url: string, token: string, more = ''): string =>
  `${method} ${url} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\n${more}\r\n`;

const connections = (server: Server): Promise<number> =>
  new Promise((resolve) => {
    server.getConnections((_error, count) => {
      resolve(count);
    });
  });

for (const isTls of [false, true]) {
  t.test(
    `a refusal is recorded with its address, whenever its caller hangs up${isTls ? ', over TLS too' : ''}`,
    async (test) => {
      const { certificate: cert, key } = testCertificate();
      const { vault, target } = await listening(test, {
        rateLimits: { address: 100_000, subject: 0 },
        ...(isTls ? { tls: { cert, key } } : {}),
      });
      await vault.team('payments');
      await vault.member('payments', 'vera', 'viewer');
      await vault.call('vera', 'GET', '/v1/whoami');
      vault.logs.length = 0;
      const { server } = vault.app;
      let arrived = 0;
      server.on('request', () => {
        arrived += 1;
      });
      const moments: ((socket: Socket) => void)[] = [
        // With the request: Node reads it from a connection that is not there any more.
        reset,
        (socket) => {
          server.once('request', () => {
            reset(socket);
          });
        },
        (socket) => {
          server.once('request', () => {
            setImmediate(reset, socket);
          });
        },
        (socket) => socket.end(),
      ];
      let sent = 0;
      for (let round = 0; round < 15; round += 1) {
        for (const moment of moments) {
          vault.clock.ms += 61_000; // so that none is above the ceiling of its kind
          const token = await vault.token('vera');
          sent += 1;
          const accepted = once(server, isTls ? 'secureConnection' : 'connection');
          const socket = await rawConnect({ ...target, from: `127.0.${isTls ? 5 : 4}.${sent}` });
          await accepted;
          socket.write(head('DELETE', '/v1/teams/payments', token, 'If-Match: *\r\n'));
          moment(socket);
          await until(async () => (await connections(server)) === 0);
        }
      }
      test.ok(arrived > sent / 2, 'most of them arrive');
      const { rows } = await until(async () => {
        const found = await sql<{ address: string; n: number }>`
          select address.address, count(*)::int as n from audit_event event
          left join audit_address address on address.event_id = event.id
          where event.decision = 'deny' group by 1`.execute(vault.db);
        return found.rows.reduce((sum, { n }) => sum + n, 0) === arrived ? found : undefined;
      });
      test.equal(rows.length, arrived, 'each with the address that it came from');
      test.notOk(rows.some(({ address }) => !/^127\.0\.[45]\.\d+$/.test(address ?? '')));
      test.notOk(
        vault.logs.some((line) => /requestFailed|"status":5/.test(line)),
        'and none is a failure',
      );
      test.equal(
        vault.logs.filter((line) => line.includes('"route":"/v1/teams/:team"')).length,
        arrived,
        'one line each',
      );
    },
  );
}

t.test('what has begun to leave is recorded, though nobody stays to its end', async (test) => {
  const { vault, target } = await listening(test);
  await vault.team('payments');
  const made = 60;
  for (let n = 0; n < made; n += 1)
    await vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: `n${n}`,
      type: 'openai',
      fields: { apiKey: 'sk-a' },
      description: 'x'.repeat(1_000),
    });
  const token = await vault.token('alice');
  vault.logs.length = 0;
  const socket = await rawConnect(target);
  // So much of it that it does not fit what the system takes, and nobody reads it.
  for (let n = 0; n < 100; n += 1)
    socket.write(head('GET', '/v1/teams/payments/credentials?limit=200', token));
  await until(() => vault.logs.length > 3);
  socket.resetAndDestroy();
  await until(async () => (await connections(vault.app.server)) === 0);
  // The one whose answer had begun; those behind it had none.
  const cut = await until(() =>
    vault.logs.find((line) => line.includes('"status":200,"isCut":true')),
  );
  const { requestId } = JSON.parse(cut) as { requestId: string };
  await until(
    async () =>
      (
        await vault.db
          .selectFrom('access_record')
          .select('address')
          .where('request_id', '=', requestId)
          .where('status', '=', 200)
          .execute()
      ).length === 1,
  );
});

t.test('a stream whose reader has left before it begins is no failure', async (test) => {
  const { vault, target } = await listening(test);
  await vault.team('payments');
  const holder = new pg.Client({ connectionString: vault.databaseUrl });
  await holder.connect();
  test.teardown(() => holder.end());
  const locked = async (): Promise<boolean> =>
    (
      await sql`select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`.execute(
        vault.db,
      )
    ).rows.length > 0;
  for (const table of ['team', 'audit_event', 'credential']) {
    vault.logs.length = 0;
    const token = await vault.token('alice');
    await holder.query(`begin; lock table ${table} in access exclusive mode`);
    const socket = await rawConnect(target);
    socket.write(head('GET', '/v1/teams/payments/export', token));
    await until(locked);
    socket.resetAndDestroy();
    await until(async () => (await connections(vault.app.server)) === 0);
    await holder.query('rollback');
    await until(() => vault.logs.find((line) => line.includes('"isCut":true')));
    await until(async () => !(await locked()));
    // The next one is let in, so the one before has let go of its place.
    await until(async () => {
      const answer = await vault.call('alice', 'GET', '/v1/teams/payments/export');
      return answer.status === 200;
    });
    test.notOk(
      vault.logs.some((line) => /requestFailed|"level":50/.test(line)),
      table,
    );
  }
});

t.test('requests that wait behind others end with their connection', async (test) => {
  const stage = await startBroker(test, (_request, response) => {
    response.writeHead(200).write('a beginning'); // and never an end
  });
  const { vault, port, ticket } = stage;
  const call = head('GET', `/broker/${ticket.id}/v1/x`, ticket.ticket);
  let gone: boolean[] = [];
  vault.broker.server.on('request', (request, response) => {
    response.once('close', () => {
      gone.push(request.destroyed);
    });
  });
  for (const [what, last] of [
    ['plain', ''],
    ['with CONNECT behind them', 'CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n'],
  ] as const) {
    vault.logs.length = 0;
    const socket = await rawConnect({ port });
    socket.write(call + call + call + last);
    await once(socket, 'data');
    // The second and the third have asked and are answered by the upstream; nobody has told them
    // that they may write.
    await until(async () => {
      const { rows } = await sql<{ n: number }>`
        select count(*)::int as n from audit_event where action = 'credential.use'`.execute(
        vault.db,
      );
      return (rows[0]?.n ?? 0) % 3 === 0 && (rows[0]?.n ?? 0) > 0;
    });
    socket.resetAndDestroy();
    const ended = await until(() => {
      const lines = vault.logs.filter((line) => line.includes('"route":"/*"'));
      return lines.length >= 3 ? lines : undefined;
    });
    test.equal(ended.length, 3, `${what}: each has ended once`);
    test.same(gone, [true, true, true], `${what}: whoever hears of the end finds the caller gone`);
    gone = [];
    await until(async () => (await connections(vault.broker.server)) === 0);
  }
});

t.test('CONNECT and a reset, at both listeners, with and without TLS', async (test) => {
  const { certificate: cert, key } = testCertificate();
  for (const tls of [undefined, { cert, key }]) {
    const { vault, target } = await listening(test, tls === undefined ? {} : { tls });
    const url = await vault.broker.listen({ host: '127.0.0.1', port: 0 });
    for (const port of [target.port, Number(new URL(url).port)]) {
      for (const bytes of [
        'CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n',
        'CONNECT a:1 HTTP/1.1\r\n\r\n',
        'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nCONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n',
        `CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n${'x'.repeat(100_000)}`,
      ]) {
        for (let times = 0; times < 25; times += 1) {
          const socket = await rawConnect({ ...target, port });
          socket.write(bytes);
          if (times % 2 === 0) reset(socket);
          else setImmediate(reset, socket);
        }
      }
    }
    for (const server of [vault.app.server, vault.broker.server])
      await until(async () => (await connections(server)) === 0);
    test.match(
      answersIn(
        await rawExchange(target, 'GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
      ),
      [{ status: 200 }],
      'the process goes on',
    );
  }
});
