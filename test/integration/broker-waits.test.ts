// Nothing that a call waits for lasts for ever, and who goes away frees their place: whatever the
// upstream, its name server or the caller does. Time limits are an hour where a test has to show
// that something else ends the wait.
import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { connect, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { lastOutcome, stageOf } from '../helpers/broker.ts';
import { until } from '../helpers/processes.ts';

const hour = 3_600_000;
const patient = { limits: { concurrency: 1_000, idleSeconds: 3_600 } };

t.test('more calls than a pool once had connections', async (t) => {
  const stage = await stageOf(t, {
    plain: true,
    policy: patient,
    vault: { brokerCallsMax: 600 },
  });
  const hanging: ServerResponse[] = [];
  let closed = 0;
  stage.on((request, response) => {
    if (!request.url?.startsWith('/hang')) {
      response.end('{}');
      return;
    }
    hanging.push(response);
    response.on('close', () => {
      closed += 1;
    });
  });
  const calls = Array.from({ length: 300 }, () => {
    const request = stage.begin('GET', '/hang');
    request.on('error', () => undefined).end();
    return request;
  });
  await until(() => hanging.length === 300);
  t.pass('each of them is with the upstream, none in a queue');

  t.match(
    await stage.call('GET', '/hang'),
    { status: 429, json: { code: 'rateLimited' }, headers: { 'retry-after': '1' } },
    'one more than a team may run is told so',
  );
  t.match(
    await stage.vault.call('eddie', 'POST', `/v1/credentials/${stage.credential}/test`),
    { status: 200, json: { ok: true } },
    'what the vault asks of the same upstream for the same team is answered',
  );

  for (const call of calls) call.destroy();
  await until(() => closed === 300);
  await until(async () => (await stage.call('GET', '/x')).status === 200);
  t.pass('the places are free');
  await until(async () => (await outcomes(stage, 'callerGone')) === 300);
  t.pass('each has its outcome');
});

t.test('who hangs up is let go at once, whatever is being waited for', async (t) => {
  /** A call that waits for something that never comes, and the end of it. */
  const hangUp = async (
    t: Test,
    egress: NonNullable<NonNullable<Parameters<typeof stageOf>[1]>['egress']>,
    makeHang: (stage: Stage) => () => boolean,
  ): Promise<void> => {
    const stage = await stageOf(t, {
      policy: { limits: { concurrency: 1, idleSeconds: 3_600 } },
      egress,
    });
    const isWaiting = makeHang(stage);
    const request = stage.begin('GET', '/x');
    request.on('error', () => undefined).end();
    await until(isWaiting);
    t.equal((await stage.call('GET', '/x')).status, 429, 'it has the one place');
    request.destroy();
    t.match(await lastOutcome(stage, ({ failure }) => failure === 'callerGone'), {
      sentBytes: 0,
      receivedBytes: 0,
    });
    const next = stage.begin('GET', '/x');
    next.on('error', () => undefined).end();
    await until(async () => (await stage.call('GET', '/x')).status === 429);
    t.pass('the next one has the place');
    next.destroy();
  };

  await t.test('for a name server', async (t) => {
    let isAsked = false;
    const resolve = (): Promise<never> => {
      isAsked = true;
      return new Promise(() => undefined);
    };
    await hangUp(t, { connectMs: hour, resolve }, () => () => isAsked);
  });

  await t.test('for a connection', async (t) => {
    await hangUp(t, { connectMs: hour }, ({ upstream }) => {
      const sockets: Socket[] = [];
      let isOver = false;
      upstream.server.removeAllListeners('connection').on('connection', (socket: Socket) => {
        sockets.push(socket.on('error', () => undefined));
        if (isOver) socket.destroy();
      });
      // One that comes later would hold up the end of the server, and nobody reads it.
      t.teardown(() => {
        isOver = true;
        for (const socket of sockets) socket.destroy();
      });
      return () => sockets.length > 0;
    });
  });

  await t.test('for an answer', async (t) => {
    await hangUp(t, {}, (stage) => {
      let isThere = false;
      stage.on(() => {
        isThere = true;
      });
      return () => isThere;
    });
  });
});

t.test('an answer that is not passed on ends with its connection', async (t) => {
  const stage = await stageOf(t, {
    policy: { limits: { responseBytes: 100_000, idleSeconds: 3_600 } },
  });
  const refused: readonly [what: string, head: Record<string, string | number>, piece: string][] = [
    [
      'in an encoding in which no secret can be looked for',
      { 'content-encoding': 'compress' },
      'x',
    ],
    ['that is not in its coding', { 'content-encoding': 'gzip' }, 'x'.repeat(20)],
    ['that says it is too large', { 'content-length': 200_000 }, 'x'],
    ['that is too large', {}, 'x'.repeat(150_000)],
  ];
  for (const [what, head, piece] of refused) {
    let isClosed = false;
    stage.on((_request, response) => {
      response.on('close', () => {
        isClosed = true;
      });
      response.writeHead(200, head).write(piece); // and never ends it
    });
    const status = await stage.call('GET', '/x').then(
      (answer) => answer.status,
      () => 'cut off',
    );
    t.ok(status === 502 || status === 'cut off', what);
    await until(() => isClosed);
  }
  const gone = stage.begin('GET', '/x');
  let isClosed = false;
  const isThere = new Promise<void>((resolve) => {
    stage.on((_request, response) => {
      response.on('close', () => {
        isClosed = true;
      });
      response.writeHead(200).write('a beginning');
      resolve();
    });
  });
  gone.on('error', () => undefined).end();
  await isThere;
  gone.destroy();
  await until(() => isClosed);
  t.pass('so does one whose caller has gone');
});

t.test('a caller who takes nothing of their answers is let go', async (t) => {
  const stage = await stageOf(t, {
    plain: true,
    policy: { limits: { concurrency: 1_000, idleSeconds: 1 } },
  });
  const body = 'x'.repeat(60_000);
  stage.on((_request, response) => {
    response.end(body);
  });
  // Small answers, each whole at once: what is not taken waits in this process and nowhere else.
  const socket = connect(stage.port, '127.0.0.1');
  socket.pause().on('error', () => undefined);
  const one = `GET /broker/${stage.ticket.id}/x HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer ${stage.ticket.ticket}\r\n\r\n`;
  let isClosed = false;
  socket.on('close', () => {
    isClosed = true;
  });
  // A client that never reads would not see the end of the connection: the server does.
  const { server } = stage.vault.broker;
  const connections = (): Promise<number> =>
    new Promise((resolve) => {
      server.getConnections((_error, count) => {
        resolve(count);
      });
    });
  socket.write(one.repeat(400));
  t.match(await lastOutcome(stage, ({ failure }) => failure === 'callerStalled'), { status: 200 });
  await until(async () => (await connections()) === 0);
  t.notOk(isClosed, 'it was the vault that ended it');
  socket.destroy();
  await until(async () => (await stage.call('GET', '/x')).status === 200);
});

t.test('bodies to be signed whole have room for so many, and no more', async (t) => {
  const stage = await stageOf(t, {
    policy: patient,
    egress: {
      resolve: async (name) => [name === 'upstream.test' ? '127.0.0.1' : '93.184.216.34'],
    },
  });
  const { id } = await stage.store(
    'aws',
    { ...patient, allowedHosts: ['sqs.eu-west-1.amazonaws.com'] },
    {
      type: 'aws',
      fields: { accessKeyId: 'AKIAEXAMPLE', secretAccessKey: 'a-secret-access-key' },
    },
  );
  const ticket = await stage.newTicket({ host: 'sqs.eu-west-1.amazonaws.com' }, id);
  const mebibyte = 1024 * 1024;
  const begin = (more = ''): Socket => {
    const socket = connect(stage.port, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.write(
      `POST /broker/${ticket.id}/ HTTP/1.1\r\nHost: b\r\nAuthorization: Bearer ${ticket.ticket}\r\nContent-Length: ${mebibyte}\r\n${more}\r\n`,
    );
    return socket;
  };
  const waiting = Array.from({ length: 32 }, () => begin());
  const refused = begin();
  const all = [...waiting, refused];
  const answered = await Promise.race(
    all.map(async (socket) => [String((await once(socket, 'data'))[0]), socket] as const),
  );
  t.match(answered[0], /^HTTP\/1\.1 429 [\s\S]*retry-after: 1/i, 'the 33rd of a team');
  for (const socket of all) if (socket !== answered[1]) socket.destroy();
  await until(async () => (await outcomes(stage, 'callerGone')) === 32);
  const next = begin('Expect: 100-continue\r\n');
  t.match(String((await once(next, 'data'))[0]), /^HTTP\/1\.1 100 /, 'and there is room again');
  next.destroy();
});

type Stage = Awaited<ReturnType<typeof stageOf>>;

/** How many calls ended so. */
async function outcomes({ vault }: Stage, failure: string): Promise<number> {
  const events = await vault.db
    .selectFrom('audit_event')
    .select('details')
    .where('action', '=', 'credential.used')
    .execute();
  return events.filter(({ details }) => details['failure'] === failure).length;
}
