// Testing log-ins to mail servers, Redis and Qdrant, over real sockets against peers that speak
// just that.
import { randomBytes } from 'node:crypto';
import { connect, createServer, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import t, { type Test as Tap } from 'tap';
import { Lines } from '../../src/connection-tests/lines.ts';
import type { CheckedOrigin, Origin } from '../../src/egress/index.ts';
import { Egress } from '../../src/egress/index.ts';
import { parseAllowRules } from '../../src/egress/allow.ts';
import { testCertificate } from '../helpers/certificate.ts';
import { listening, plainUpstream } from '../helpers/egress.ts';
import { demand } from '../helpers/leases.ts';
import { type Heard, imapPeer, redisPeer, smtpPeer } from '../helpers/peers.ts';
import { startVault } from '../helpers/vault.ts';

t.setTimeout(120_000);

const host = 'peer.test';
const certificate = testCertificate([host]);
const password = `pw "\\ ${randomBytes(18).toString('base64url')}`;
const okay = (...steps: string[]): object[] => steps.map((step) => ({ step, outcome: 'ok' }));
const good = (...steps: string[]): object => ({ ok: true, steps: okay(...steps) });
const bad = (outcome: string, ...steps: string[]): object => ({
  ok: false,
  steps: [...okay(...steps.slice(0, -1)), { step: steps.at(-1), outcome }],
});

/** The same sockets, as if no rule named the target: what holds for public hosts. */
class AsPublic extends Egress {
  override async check(origin: Origin, team: string): Promise<CheckedOrigin> {
    return { ...(await super.check(origin, team)), isAllowedPlain: false };
  }
}

/** A vault that reaches the ports on loopback; answers what a test of a credential says. */
async function setStage(
  t: Tap,
  ports: readonly number[],
  { isPublic = false, ca = certificate.certificate }: { isPublic?: boolean; ca?: string } = {},
): Promise<(type: string, fields: object) => Promise<object>> {
  const allow = parseAllowRules(ports.map((port) => `${host}:${port}=127.0.0.1`).join(','));
  const egress = new (isPublic ? AsPublic : Egress)({
    allow,
    own: () => [],
    ca,
    resolve: async () => ['127.0.0.1'],
  });
  const vault = await startVault(t, { egress });
  await vault.team('payments');
  return async (type, fields) => {
    vault.clock.ms += 60_000;
    const { id } = (await demand(
      vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
        name: randomBytes(6).toString('hex'),
        type,
        fields: type === 'kafka' ? fields : { host, ...fields },
      }),
      201,
    )) as { id: string };
    const report = (await vault.call('alice', 'POST', `/v1/credentials/${id}/test`)).json as object;
    if ([...vault.answers, ...vault.logs].some((text) => text.includes(password.slice(-20))))
      throw new Error('the password is in an answer or a log line');
    return report;
  };
}

const login = { username: 'vault@mail.test', password };
const secretsIn = ({ lines }: Heard, isTls: boolean): boolean =>
  lines.some(
    (line) =>
      line.isTls === isTls &&
      (line.text.includes(password.slice(-10)) ||
        /^(AUTH|a\d LOGIN|a2 AUTHENTICATE)/.test(line.text)),
  );

t.test('SMTP: STARTTLS comes before the log-in', async (t) => {
  const { server, heard } = smtpPeer({ login, certificate, tls: 'later' });
  const port = await listening(t, server);
  const test = await setStage(t, [port], { isPublic: true });
  t.same(await test('smtp', { port, ...login }), good('name', 'connect', 'tls', 'login'));
  t.ok(secretsIn(heard, true));
  t.same(
    await test('smtp', { port, ...login, password: 'wrong' }),
    bad('refused', 'name', 'connect', 'tls', 'login'),
  );
  t.notOk(secretsIn(heard, false), 'and nothing of it goes in plain text');
  t.notMatch(
    heard.lines.map(({ text }) => text).join('\n'),
    /MAIL FROM|EHLO (?!\[127\.0\.0\.1\])/,
    'no mail is sent, no name of this machine said',
  );
});

t.test(
  'SMTP: without TLS, with a certificate of another name or an untrusted one, the password stays',
  async (t) => {
    const none = smtpPeer({ login });
    const wrong = smtpPeer({ login, certificate: testCertificate(['other.test']), tls: 'later' });
    const [plainPort, wrongPort] = [
      await listening(t, none.server),
      await listening(t, wrong.server),
    ];
    const test = await setStage(t, [plainPort, wrongPort], { isPublic: true });
    t.same(
      await test('smtp', { port: plainPort, ...login }),
      bad('failed', 'name', 'connect', 'tls'),
    );
    t.same(
      await test('smtp', { port: wrongPort, ...login }),
      bad('failed', 'name', 'connect', 'tls'),
    );
    t.notOk([none, wrong].some(({ heard }) => secretsIn(heard, false) || secretsIn(heard, true)));
    const named = await setStage(t, [plainPort]);
    t.same(
      await named('smtp', { port: plainPort, ...login }),
      good('name', 'connect', 'login'),
      'where the operator names the target it may go without',
    );
  },
);

t.test('SMTP on port 465 has TLS from the start', async (t) => {
  const { server, heard } = smtpPeer({ login, certificate, tls: 'atOnce' });
  let port: number;
  try {
    port = await listening(t, server, '127.0.0.1', 465);
  } catch {
    t.comment('skipped: the port is not free for this user');
    return;
  }
  const test = await setStage(t, [port], { isPublic: true });
  t.same(await test('smtp', { port, ...login }), good('name', 'connect', 'tls', 'login'));
  t.notOk(secretsIn(heard, false));
});

t.test('IMAP: LOGIN under TLS, by quotes or, where these do not do, by base64', async (t) => {
  const { server, heard } = imapPeer({ login, certificate, tls: 'atOnce' });
  const port = await listening(t, server);
  const test = await setStage(t, [port], { isPublic: true });
  t.same(await test('imap', { port, ...login }), good('name', 'connect', 'tls', 'login'));
  t.same(
    await test('imap', { port, ...login, password: 'wrong' }),
    bad('refused', 'name', 'connect', 'tls', 'login'),
  );
  t.ok(heard.lines.some(({ text }) => text === 'a3 LOGOUT'));
  const exotic = { username: 'vault', password: `ü\r\na4 DELETE INBOX ${password}` };
  const other = imapPeer({ login: exotic, certificate, tls: 'atOnce' });
  const otherPort = await listening(t, other.server);
  t.same(
    await (await setStage(t, [otherPort], { isPublic: true }))('imap', {
      port: otherPort,
      ...exotic,
    }),
    good('name', 'connect', 'tls', 'login'),
  );
  t.notMatch(
    other.heard.lines.map(({ text }) => text).join('\n'),
    'DELETE',
    'a password cannot become a command',
  );
});

t.test(
  'IMAP without TLS at the start asks for it, and stays silent when refused or when somebody speaks too early',
  async (t) => {
    const asks = imapPeer({ login, certificate, tls: 'later' });
    const none = imapPeer({ login });
    const early = createServer((socket) => {
      socket.on('error', () => undefined).write('* OK ready\r\n');
      socket.once('data', () => {
        socket.write('a1 OK begin\r\na2 OK in\r\n');
      });
    });
    const wrong = imapPeer({ login, certificate: testCertificate(['other.test']), tls: 'later' });
    const [port, nonePort, earlyPort, wrongPort] = [
      await listening(t, asks.server),
      await listening(t, none.server),
      await listening(t, early),
      await listening(t, wrong.server),
    ];
    const test = await setStage(t, [port, nonePort, earlyPort, wrongPort], { isPublic: true });
    t.same(
      await test('imap', { port: wrongPort, ...login, useSsl: false }),
      bad('failed', 'name', 'connect', 'tls'),
      'a certificate of somebody else',
    );
    t.notOk(secretsIn(wrong.heard, true) || secretsIn(wrong.heard, false));
    t.same(
      await test('imap', { port, ...login, useSsl: false }),
      good('name', 'connect', 'tls', 'login'),
    );
    t.notOk(secretsIn(asks.heard, false));
    t.same(
      await test('imap', { port: nonePort, ...login, useSsl: false }),
      bad('failed', 'name', 'connect', 'tls'),
    );
    t.notOk(secretsIn(none.heard, false));
    t.same(
      await test('imap', { port: earlyPort, ...login, useSsl: false }),
      bad('failed', 'name', 'connect', 'tls'),
    );
    t.same(
      await (await setStage(t, [nonePort]))('imap', { port: nonePort, ...login, useSsl: false }),
      good('name', 'connect', 'login'),
      'named by the operator it may go without',
    );
  },
);

t.test(
  'Redis: AUTH, SELECT, PING; in plain text only where the operator names the target',
  async (t) => {
    const plain = redisPeer({ login: { password } });
    const open = redisPeer({ login: { password: '' } });
    const [port, openPort] = [await listening(t, plain.server), await listening(t, open.server)];
    const test = await setStage(t, [port, openPort]);
    t.same(await test('redis', { port, password, db: 3 }), good('name', 'connect', 'login'));
    t.match(
      plain.heard.lines.map(({ text }) => text),
      ['*2', '$4', 'AUTH'],
      'in lengths, so that no value can end its place',
    );
    t.same(
      await test('redis', { port, password: `${password}\r\n*1\r\n$4\r\nQUIT` }),
      bad('refused', 'name', 'connect', 'login'),
    );
    t.same(
      await test('redis', { port }),
      bad('refused', 'name', 'connect', 'login'),
      'without the password',
    );
    t.same(
      await test('redis', { port: openPort }),
      good('name', 'connect', 'login'),
      'a server that asks for none',
    );
    t.same(
      await test('redis', { port: openPort, db: 99 }),
      bad('refused', 'name', 'connect', 'login'),
    );

    const secured = redisPeer({ login: { password }, certificate, tls: 'atOnce' });
    const silent = redisPeer({ login: { password } });
    const [securedPort, silentPort] = [
      await listening(t, secured.server),
      await listening(t, silent.server),
    ];
    const outside = await setStage(t, [securedPort, silentPort], { isPublic: true });
    t.same(
      await outside('redis', { port: securedPort, password }),
      good('name', 'connect', 'tls', 'login'),
    );
    t.match(await outside('redis', { port: silentPort, password }), {
      ok: false,
      steps: [...okay('name', 'connect'), { step: 'tls' }],
    });
    t.notOk(JSON.stringify(silent.heard).includes('AUTH'));
  },
);

t.test('Redis: a user beside the password, and TLS as the credential says', async (t) => {
  const heard: string[] = [];
  const { server } = redisPeer({ login: { password }, certificate, tls: 'atOnce' });
  const plain = createServer((socket) => {
    socket
      .on('error', () => undefined)
      .on('data', (chunk: Buffer) => {
        heard.push(chunk.toString());
        socket.write(chunk.includes('PING') ? '+PONG\r\n' : '+OK\r\n');
      });
  });
  const [port, plainPort] = [await listening(t, server), await listening(t, plain)];
  const named = await setStage(t, [port, plainPort]);
  t.same(
    await named('redis', { port, password, tls: true }),
    good('name', 'connect', 'tls', 'login'),
    'TLS where it is said, though the operator names the target',
  );
  t.same(
    await named('redis', { port: plainPort, username: 'ada', password, tls: false }),
    good('name', 'connect', 'login'),
  );
  t.equal(
    heard[0],
    `*3\r\n$4\r\nAUTH\r\n$3\r\nada\r\n$${Buffer.byteLength(password)}\r\n${password}\r\n`,
  );
  heard.length = 0;
  const outside = await setStage(t, [plainPort], { isPublic: true });
  t.same(
    await outside('redis', { port: plainPort, password, tls: false }),
    bad('failed', 'name', 'connect', 'tls'),
    'without TLS only where the operator names the target',
  );
  t.same(heard, []);
});

t.test('SMTP: TLS as the credential says', async (t) => {
  const later = smtpPeer({ login, certificate, tls: 'later' });
  const atOnce = smtpPeer({ login, certificate, tls: 'atOnce' });
  const none = smtpPeer({ login });
  const [laterPort, oncePort, nonePort] = [
    await listening(t, later.server),
    await listening(t, atOnce.server),
    await listening(t, none.server),
  ];
  const named = await setStage(t, [laterPort, oncePort, nonePort]);
  t.same(
    await named('smtp', { port: oncePort, ...login, tls: 'implicit' }),
    good('name', 'connect', 'tls', 'login'),
  );
  t.same(
    await named('smtp', { port: laterPort, ...login, tls: 'startTls' }),
    good('name', 'connect', 'tls', 'login'),
  );
  t.same(
    await named('smtp', { port: nonePort, ...login, tls: 'startTls' }),
    bad('failed', 'name', 'connect', 'tls'),
    'and not without it',
  );
  t.same(
    await named('smtp', { port: nonePort, ...login, tls: 'none' }),
    good('name', 'connect', 'login'),
  );
  none.heard.lines.length = 0;
  const outside = await setStage(t, [nonePort], { isPublic: true });
  t.same(
    await outside('smtp', { port: nonePort, ...login, tls: 'none' }),
    bad('failed', 'name', 'connect', 'tls'),
  );
  t.notOk(secretsIn(none.heard, false));
});

/** Speaks AMQP 0-9-1 as far as the log-in. */
function amqpPeer(heard: string[], isTls: boolean): ReturnType<typeof createServer> {
  const frame = (method: number): Buffer => {
    const bytes = Buffer.alloc(12);
    bytes[0] = 1;
    bytes.writeUInt32BE(4, 3);
    bytes.writeUInt16BE(10, 7);
    bytes.writeUInt16BE(method, 9);
    bytes[11] = 0xce;
    return bytes;
  };
  const handle = (socket: Socket): void => {
    socket
      .on('error', () => undefined)
      .on('data', (chunk: Buffer) => {
        heard.push(chunk.toString('latin1'));
        if (chunk.subarray(0, 4).equals(Buffer.from('AMQP'))) socket.write(frame(10));
        else socket.write(frame(chunk.includes(`\0ada\0${password}`) ? 30 : 50));
      });
  };
  return isTls
    ? createTlsServer({ cert: certificate.certificate, key: certificate.key }, handle)
    : createServer(handle);
}

t.test('RabbitMQ: the log-in, over TLS or where the operator names the target', async (t) => {
  const heard: string[] = [];
  const [plainPort, tlsPort] = [
    await listening(t, amqpPeer(heard, false)),
    await listening(t, amqpPeer([], true)),
  ];
  const silentPort = await listening(
    t,
    createServer((socket) => {
      socket.on('error', () => undefined).end('HTTP/1.1 400 Bad Request\r\n\r\n');
    }),
  );
  const named = await setStage(t, [plainPort, tlsPort, silentPort]);
  const ada = { username: 'ada', password };
  t.same(await named('rabbitmq', { port: plainPort, ...ada }), good('name', 'connect', 'login'));
  t.same(
    await named('rabbitmq', { port: tlsPort, ...ada, tls: true }),
    good('name', 'connect', 'tls', 'login'),
  );
  t.same(
    await named('rabbitmq', { port: plainPort, ...ada, username: 'eve' }),
    bad('refused', 'name', 'connect', 'login'),
  );
  t.same(
    await named('rabbitmq', { port: silentPort, ...ada }),
    bad('unexpected', 'name', 'connect', 'login'),
  );
  heard.length = 0;
  const outside = await setStage(t, [plainPort, tlsPort], { isPublic: true });
  t.same(
    await outside('rabbitmq', { port: plainPort, ...ada, tls: false }),
    bad('failed', 'name', 'connect', 'tls'),
  );
  t.same(heard, []);
  t.same(
    await outside('rabbitmq', { port: tlsPort, ...ada }),
    good('name', 'connect', 'tls', 'login'),
  );
});

t.test('Kafka: the first broker that answers as one; nothing secret goes', async (t) => {
  const heard: Buffer[] = [];
  const answer = (error: number): Buffer => {
    const bytes = Buffer.alloc(14);
    bytes.writeInt32BE(10, 0);
    bytes.writeInt32BE(0x76617531, 4);
    bytes.writeInt16BE(error, 8);
    return bytes;
  };
  const brokerOf = (error: number) => (socket: Socket) => {
    socket
      .on('error', () => undefined)
      .on('data', (chunk: Buffer) => {
        heard.push(chunk);
        socket.write(answer(error));
      });
  };
  const keys = { cert: certificate.certificate, key: certificate.key };
  const [plain, secured, odd] = [
    await listening(t, createServer(brokerOf(0))),
    await listening(t, createTlsServer(keys, brokerOf(0))),
    await listening(t, createServer(brokerOf(35))),
  ];
  const test = await setStage(t, [plain, secured, odd, 1]);
  const kafka = (brokers: string, more: object): Promise<object> =>
    test('kafka', { brokers, username: 'ada', password, ...more });
  t.same(await kafka(`${host}:${plain}`, { tls: false }), good('name', 'connect', 'login'));
  t.same(
    await kafka(`${host}:1,${host}:${secured}`, {}),
    good('name', 'connect', 'tls', 'login'),
    'the second one where the first is away',
  );
  t.same(
    await kafka(`${host}:${odd}`, { tls: false }),
    bad('unexpected', 'name', 'connect', 'login'),
  );
  t.same(await kafka(`${host}:1`, {}), bad('failed', 'name', 'connect'));
  t.notOk(Buffer.concat(heard).includes(password));
});

t.test('Qdrant: the list of collections', async (t) => {
  const keys: unknown[] = [];
  const upstream = await plainUpstream(t, host, (request, response) => {
    keys.push([request.url, request.headers['api-key']]);
    response
      .writeHead(request.headers['api-key'] === password.slice(-20) ? 200 : 403)
      .end('{"result":{}}');
  });
  const test = await setStage(t, [upstream.port]);
  t.same(
    await test('qdrant', {
      port: upstream.port,
      apiKey: password.slice(-20),
      embeddingApiKey: 'sk-other',
    }),
    good('name', 'connect', 'login'),
  );
  t.same(
    await test('qdrant', {
      port: upstream.port,
      apiKey: 'another-one',
      embeddingApiKey: 'sk-other',
    }),
    bad('refused', 'name', 'connect', 'login'),
  );
  t.same(
    await test('qdrant', { port: upstream.port, embeddingApiKey: 'sk-other' }),
    bad('refused', 'name', 'connect', 'login'),
  );
  t.same(keys, [
    ['/collections', password.slice(-20)],
    ['/collections', 'another-one'],
    ['/collections', undefined],
  ]);
});

t.test(
  'a peer that says nothing, or a little now and then, is not waited for without end',
  async (t) => {
    const silent = createServer((socket) => {
      socket.on('error', () => undefined);
    });
    const slow = createServer((socket) => {
      const timer = setInterval(() => {
        socket.write('.');
      }, 20);
      socket
        .on('error', () => undefined)
        .once('close', () => {
          clearInterval(timer);
        });
    });
    for (const server of [silent, slow]) {
      const socket = connect(await listening(t, server), '127.0.0.1');
      const lines = new Lines(socket, { timeoutMs: 200 });
      await t.rejects(lines.line(), { name: 'EgressFailed', step: 'timeout', during: 'response' });
      lines.close();
    }
  },
);

t.test('what is no such server, talks without end, or not at all', async (t) => {
  const endless = createServer((socket) => {
    const more = (): void => {
      if (!socket.destroyed && socket.write('x'.repeat(16_384))) setImmediate(more);
      else socket.once('drain', more);
    };
    socket.on('error', () => undefined).on('data', () => undefined);
    more();
  });
  const chatty = createServer((socket) => {
    socket.on('error', () => undefined).write('* OK ready\r\n');
    const more = (): void => {
      if (!socket.destroyed && socket.write('* still here\r\n'.repeat(500))) setImmediate(more);
      else socket.once('drain', more);
    };
    socket.once('data', more);
  });
  const http = createServer((socket) => {
    socket.on('error', () => undefined).end('HTTP/1.1 400 Bad Request\r\n\r\n');
  });
  const closing = createServer((socket) => {
    socket.on('error', () => undefined).destroy();
  });
  const [endlessPort, chattyPort, httpPort, closingPort] = [
    await listening(t, endless),
    await listening(t, chatty),
    await listening(t, http),
    await listening(t, closing),
  ];
  const test = await setStage(t, [endlessPort, chattyPort, httpPort, closingPort]);
  for (const [type, fields] of [
    ['smtp', login],
    ['imap', { ...login, useSsl: false }],
    ['redis', { password }],
  ] as const) {
    for (const port of [endlessPort, httpPort, closingPort])
      t.same(
        await test(type, { port, ...fields }),
        bad('unexpected', 'name', 'connect', 'login'),
        `${type} ${port === endlessPort ? 'endless' : 'other'}`,
      );
  }
  t.same(
    await test('imap', { port: chattyPort, ...login, useSsl: false }),
    bad('unexpected', 'name', 'connect', 'login'),
    'untagged lines without end',
  );
  t.same(await test('redis', { port: 1, password }), bad('failed', 'name'), 'no rule for the port');
});
