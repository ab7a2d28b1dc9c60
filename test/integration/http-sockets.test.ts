// What no client library sends: raw bytes on a socket. The answers are problem documents too, and
// nothing of the bytes is in them.
import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { sql } from 'kysely';
import pg from 'pg';
import t from 'tap';
import { testCertificate } from '../helpers/certificate.ts';
import { until } from '../helpers/processes.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const marker = `marker${randomBytes(8).toString('hex')}`;

async function listening(
  test: { teardown(action: () => unknown): unknown },
  options: Parameters<typeof startVault>[1] = {},
): Promise<{ vault: TestVault; port: number }> {
  const vault = await startVault(test, options);
  return {
    vault,
    port: Number(new URL(await vault.app.listen({ host: '127.0.0.1', port: 0 })).port),
  };
}

/** A socket and what has come through it. */
function open(port: number): { socket: Socket; received: () => string; ended: Promise<string> } {
  const socket = connect(port, '127.0.0.1');
  let text = '';
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
  });
  socket.on('error', () => {
    /* what has come is looked at */
  });
  const ended = new Promise<string>((resolve) => {
    socket.once('close', () => {
      resolve(text);
    });
  });
  return { socket, received: () => text, ended };
}

/** Sends the bytes and returns what came until the vault closed the connection. */
async function exchange(port: number, bytes: string): Promise<string> {
  const { socket, ended } = open(port);
  socket.write(bytes, 'latin1');
  return ended;
}

t.test('bytes that are no request', async (test) => {
  const { vault, port } = await listening(test);
  const host = 'Host: vault.test\r\n';
  for (const [what, bytes, status, code] of [
    ['no HTTP', `${marker}\r\n\r\n`, 400, 'malformedHttp'],
    ['TLS', '\x16\x03\x01\x02\x00\x01\x00\x01', 400, 'malformedHttp'],
    ['HTTP/2', 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 400, 'malformedHttp'],
    [
      'an unknown method',
      `${marker.toUpperCase()} / HTTP/1.1\r\n${host}\r\n`,
      400,
      'malformedHttp',
    ],
    ['an unknown version', `GET / HTTP/9.9\r\n${host}\r\n`, 400, 'malformedHttp'],
    [
      'a header without a colon',
      `GET / HTTP/1.1\r\n${host}${marker}\r\n\r\n`,
      400,
      'malformedHttp',
    ],
    [
      'a header with a NUL',
      `GET / HTTP/1.1\r\n${host}X: a\0${marker}\r\n\r\n`,
      400,
      'malformedHttp',
    ],
    [
      'a header that is folded',
      `GET / HTTP/1.1\r\n${host}X: a\r\n ${marker}\r\n\r\n`,
      400,
      'malformedHttp',
    ],
    [
      'two lengths',
      `POST /v1/teams HTTP/1.1\r\n${host}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc`,
      400,
      'malformedHttp',
    ],
    [
      'a length and chunks',
      `POST /v1/teams HTTP/1.1\r\n${host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      400,
      'malformedHttp',
    ],
    [
      'a length that is none',
      `POST /v1/teams HTTP/1.1\r\n${host}Content-Length: ${marker}\r\n\r\n`,
      400,
      'malformedHttp',
    ],
    [
      'headers of 17 KiB',
      `GET / HTTP/1.1\r\n${host}X: ${marker}${'x'.repeat(17 * 1024)}\r\n\r\n`,
      431,
      'headersTooLarge',
    ],
    [
      'a URL of 17 KiB',
      `GET /${marker}${'x'.repeat(17 * 1024)} HTTP/1.1\r\n${host}\r\n`,
      431,
      'headersTooLarge',
    ],
    [
      'a token of 17 KiB',
      `GET /v1/whoami HTTP/1.1\r\n${host}Authorization: Bearer ${marker}${'x'.repeat(17 * 1024)}\r\n\r\n`,
      431,
      'headersTooLarge',
    ],
  ] as const) {
    const answer = await exchange(port, bytes);
    const [head = '', body = ''] = answer.split('\r\n\r\n');
    test.match(head, new RegExp(`^HTTP/1\\.1 ${status} [A-Z]`), what);
    for (const header of [
      'Content-Type: application/problem+json',
      'Connection: close',
      'Cache-Control: no-store',
      `Content-Length: ${body.length}`,
    ])
      test.ok(head.includes(header), `${what}: ${header}`);
    test.match(
      JSON.parse(body),
      { status, code, type: `urn:credential-vault:problem:${code}`, requestId: /^[0-9a-f-]{36}$/ },
      what,
    );
    test.notOk(answer.includes(marker), `${what}: nothing of it comes back`);
    test.ok(
      vault.logs.some((line) =>
        line.includes((JSON.parse(body) as { requestId: string }).requestId),
      ),
      `${what}: one line in the log`,
    );
  }
  test.notOk(vault.logs.join('').includes(marker), 'and nothing of it there');
});

t.test('two Authorization headers are none', async (test) => {
  const { vault, port } = await listening(test);
  const token = await vault.token('alice');
  const ask = (...values: string[]): Promise<string> =>
    exchange(
      port,
      `GET /v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${values.map((value) => `Authorization: ${value}\r\n`).join('')}\r\n`,
    );
  test.match(await ask(`Bearer ${token}`), /^HTTP\/1.1 200/);
  test.match(
    await ask(`Bearer ${token}`, 'Bearer a.b.c'),
    /^HTTP\/1.1 401/,
    'whichever comes first',
  );
  test.match(await ask('Bearer a.b.c', `Bearer ${token}`), /^HTTP\/1.1 401/);
  test.match(await ask(`Bearer ${token}`, `Bearer ${token}`), /^HTTP\/1.1 401/);
});

t.test('bytes behind an answered request do not become a part of the answer', async (test) => {
  const { port } = await listening(test);
  const answer = await exchange(port, `GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n${marker}\r\n\r\n`);
  test.match(answer, /^HTTP\/1.1 (?:200|400) /);
  for (const each of answer.split(/(?=HTTP\/1\.1 )/)) {
    const [head = '', body = ''] = each.split('\r\n\r\n');
    test.match(
      head.toLowerCase(),
      new RegExp(`content-length: ${body.length}(?:\r|$)`),
      'each answer is whole',
    );
  }
});

t.test('a request that does not arrive', async (test) => {
  const { vault, port } = await listening(test);
  test.equal(vault.app.server.requestTimeout, 30_000);
  test.equal(vault.app.server.timeout, 60_000);
  test.ok(vault.app.server.headersTimeout <= 60_000);
  vault.app.server.requestTimeout = 200;
  vault.app.server.headersTimeout = 200;
  const token = await vault.token('alice');
  for (const bytes of [
    'GET /healthz HTTP/1.1\r\nHost: x\r\n',
    `POST /v1/teams HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"slug":`,
  ]) {
    const answer = await exchange(port, bytes);
    test.match(answer, /^HTTP\/1.1 (?:408|403)/, 'is cut off');
  }
  test.notOk(vault.logs.some((line) => line.includes('requestFailed')));
});

t.test(
  'a sender that hangs up in the middle of a body is no failure of the database',
  async (test) => {
    const { vault, port } = await listening(test);
    const token = await vault.token('operator');
    let isRead = 0;
    vault.app.server.on('request', (request) => {
      request.on('data', () => {
        isRead += 1;
      });
    });
    for (const [n, hangUp] of (['resetAndDestroy', 'destroy', 'end'] as const).entries()) {
      const { socket, ended } = open(port);
      socket.write(
        `POST /v1/teams HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"slug":`,
      );
      await until(() => isRead > n);
      socket[hangUp]();
      await ended;
      await until(
        () =>
          new Promise<boolean>((resolve) => {
            vault.app.server.getConnections((_error, count) => {
              resolve(count === 0);
            });
          }),
      );
    }
    test.notOk(vault.logs.some((each) => /requestFailed|"status":5/.test(each)));
    test.match(
      await exchange(port, 'GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'),
      /^HTTP\/1.1 200/,
      'and the vault goes on',
    );
  },
);

t.test('a connection that is upgraded to nothing is answered as what it is', async (test) => {
  const { port } = await listening(test);
  test.match(
    await exchange(
      port,
      'GET /v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: close, Upgrade\r\nUpgrade: h2c\r\n\r\n',
    ),
    /^HTTP\/1.1 401/,
  );
});

t.test('at the stop nobody is waited for longer than the grace', async (test) => {
  const { vault, port } = await listening(test);
  const holder = new pg.Client({ connectionString: vault.databaseUrl });
  await holder.connect();
  await holder.query('begin; lock table team in access exclusive mode');
  const { socket, ended } = open(port);
  socket.write(
    `GET /v1/teams/payments HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${await vault.token('alice')}\r\n\r\n`,
  );
  await until(
    async () =>
      (
        await sql`select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`.execute(
          vault.db,
        )
      ).rows.length > 0,
  );
  await vault.app.closeGently(50);
  test.equal(await ended, '', 'it is cut off');
  await holder.end();
});

t.test('over TLS: version 1.2 at least, and strict transport from then on', async (test) => {
  const { certificate: cert, key } = testCertificate();
  const { port } = await listening(test, { tls: { cert, key } });
  const ask = (maxVersion: 'TLSv1.1' | 'TLSv1.3'): Promise<string> =>
    new Promise((resolve) => {
      let text = '';
      const socket = connectTls(
        {
          port,
          host: '127.0.0.1',
          ca: cert,
          checkServerIdentity: () => undefined,
          minVersion: 'TLSv1.1',
          maxVersion,
          ciphers: 'DEFAULT@SECLEVEL=0',
        },
        () => {
          socket.write('GET /v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
        },
      );
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString();
      });
      socket.on('error', () => {
        /* the text is empty then */
      });
      socket.on('close', () => {
        resolve(text);
      });
    });
  test.match(
    await ask('TLSv1.3'),
    /^HTTP\/1.1 401[^]*strict-transport-security: max-age=31536000/i,
  );
  test.equal(await ask('TLSv1.1'), '');
  test.match(
    await exchange(port, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
    /^(?:HTTP\/1.1 400|$)/,
    'plain HTTP is not served there',
  );
});
