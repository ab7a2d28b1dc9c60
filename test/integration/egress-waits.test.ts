// What the egress waits for, and how each wait ends: by the clock of whoever asks, by the end of the
// egress, never by luck. Other limits are an hour long where a test has to show what ends a wait.
import { createServer, type Socket } from 'node:net';
import t from 'tap';
import { NameCache } from '../../src/egress/resolve.ts';
import { egressTo, listening, plainUpstream } from '../helpers/egress.ts';
import { until } from '../helpers/processes.ts';

const hour = 3_600_000;
const ask = { method: 'GET', team: 'payments', responseBytesMax: 1_000 };
const failed = (step: string) => ({ name: 'EgressFailed', step });

t.test('a question for which there is no connection gives up with its own clock', async (t) => {
  let asked = 0;
  const upstream = await plainUpstream(t, 'slow.test', (request) => {
    if (request.url === '/hang') asked += 1;
    else t.fail('nothing is sent for somebody who has given up');
  });
  const egress = egressTo(t, [upstream], { headersMs: hour });
  const hanging = Array.from({ length: 64 }, () =>
    egress.request({ ...ask, url: `${upstream.url}/hang`, timeoutMs: hour }).catch(() => undefined),
  );
  await until(() => asked === 64);
  await t.rejects(
    egress.request({ ...ask, url: `${upstream.url}/late`, timeoutMs: 200 }),
    failed('timeout'),
  );
  await egress.close();
  await Promise.all(hanging);
});

t.test('an answer that is too long, or comes too late, is not left lying', async (t) => {
  let open = 0;
  const upstream = await plainUpstream(t, 'long.test', (request, response) => {
    open += 1;
    response.on('close', () => {
      open -= 1;
    });
    response.writeHead(200);
    response.write(request.url === '/long' ? 'x'.repeat(5_000) : 'a beginning');
  });
  const egress = egressTo(t, [upstream]);
  for (const [path, step] of [
    ['/long', 'response'],
    ['/slow', 'timeout'],
  ] as const)
    await t.rejects(
      egress.request({ ...ask, url: `${upstream.url}${path}`, timeoutMs: 500 }),
      failed(step),
    );
  await until(() => open === 0);
  t.pass('the other side sees its connections end');
});

t.test('the end of the egress ends what is being waited for', async (t) => {
  const sockets: Socket[] = [];
  const silent = createServer((socket) => {
    sockets.push(socket.on('error', () => undefined));
  });
  const port = await listening(t, silent);
  const targets = [
    { host: 'silent.test', port },
    { host: 'nameless.test', port },
  ];
  const egress = egressTo(t, targets, {
    connectMs: hour,
    resolve: async (name) =>
      name === 'silent.test' ? ['127.0.0.1'] : new Promise(() => undefined),
  });
  const waiting = [
    egress.connect('silent.test', port, { team: 'payments', tls: true, timeoutMs: hour }),
    egress.check({ protocol: 'https:', host: 'nameless.test', port }, 'payments'),
  ];
  const ended = Promise.allSettled(waiting);
  await until(() => sockets.length === 1);
  await egress.close();
  t.match(await ended, [
    { status: 'rejected', reason: { step: 'tls' } },
    { status: 'rejected', reason: { step: 'name' } },
  ]);
});

t.test('a socket that is handed over can say what it likes', async (t) => {
  const upstream = await plainUpstream(t, 'reset.test', () => undefined);
  const egress = egressTo(t, [upstream]);
  const socket = await egress.connect('reset.test', upstream.port, {
    team: 'payments',
    tls: false,
    timeoutMs: 5_000,
  });
  socket.destroy(new Error('nobody listens yet'));
  await new Promise((resolve) => {
    socket.once('close', resolve);
  });
  t.pass('and nobody is ended by it');
});

t.test('a name server that does not answer is asked once for all who wait', async (t) => {
  let asked = 0;
  const answer = Promise.withResolvers<string[]>();
  const names = new NameCache(
    () => {
      asked += 1;
      return answer.promise;
    },
    { limitMs: 20, keepMs: hour },
  );
  const find = () => names.find('slow.test', { isOperators: false });
  t.strictSame(await Promise.all([find(), find()]), [[], []]);
  t.strictSame(await find(), [], 'later ones wait for the same answer');
  t.equal(asked, 1);
  answer.resolve(['192.0.2.1']);
  t.strictSame(await find(), ['192.0.2.1']);
  t.equal(asked, 1);
  t.strictSame(await find(), ['192.0.2.1']);

  const many = new NameCache(() => new Promise(() => undefined), { limitMs: hour, keepMs: hour });
  const waiting = Array.from({ length: 1_000 }, (_, index) =>
    many.find(`host-${index}.test`, { isOperators: false }),
  );
  t.strictSame(
    await many.find('one-more.test', { isOperators: false }),
    [],
    'of too many names at once none has an address',
  );
  many.close();
  t.strictSame(new Set((await Promise.all(waiting)).map(({ length }) => length)), new Set([0]));
});
