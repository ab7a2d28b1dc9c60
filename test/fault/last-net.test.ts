// What nobody has caught, thrown in the middle of a real process: it says name and place and no
// text, stops in order, and ends with a code that is not 0.
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import t from 'tap';
import { testDatabase } from '../helpers/database.ts';
import { until } from '../helpers/processes.ts';
import { rawConnect } from '../helpers/raw.ts';
import { deploy } from '../helpers/serve.ts';

t.setTimeout(120_000);
const marker = `marker${randomBytes(8).toString('hex')}`;

/** Code that is there before the program, and does this when the signal comes. */
const onSignal = (action: string): string =>
  `--import data:text/javascript,${encodeURIComponent(`let asked = false; process.on('SIGUSR2', () => { if (asked) return; asked = true; ${action}; });`)}`;
const text = `${marker}\\n    at ${marker} (file:///${marker}.ts:1:1)`;

const { url } = await testDatabase(t);
const deployment = deploy(t, url);

for (const [what, action, name] of [
  ['a throw', `setImmediate(() => { throw new TypeError('${text}') })`, 'TypeError'],
  ['a rejection', `void Promise.reject(new RangeError('${text}'))`, 'RangeError'],
  ['a rejection with a text', `void Promise.reject('${text}')`, 'UnhandledPromiseRejection'],
  ['a throw of a text', `setImmediate(() => { throw '${text}' })`, 'string'],
  [
    'an emitter without a listener',
    `import('node:events').then(({ EventEmitter }) => new EventEmitter().emit('error', Object.assign(new Error('${text}'), { code: 'ECONNRESET' })))`,
    'Error',
  ],
  [
    'a name and a code that were made up',
    `setImmediate(() => { throw Object.assign(new Error('x'), { name: '${text}', code: '${text}' }) })`,
    'unnamed',
  ],
  [
    'several',
    `for (let n = 0; n < 3; n += 1) setImmediate(() => { throw new Error('${text}') })`,
    'Error',
  ],
] as const) {
  t.test(what, async (test) => {
    const serving = await deployment.start({ NODE_OPTIONS: onSignal(action) });
    test.equal((await serving.call('alice', 'GET', '/v1/whoami')).status, 200);
    serving.child.kill('SIGUSR2');
    test.equal(await serving.ended, 1, 'it ends, and not with 0');
    const lines = serving
      .output()
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Record<string, unknown>);
    const nets = lines.filter(({ event }) => event === 'uncaught');
    test.equal(nets.length, what === 'several' ? 3 : 1);
    test.match(nets[0], { level: 60, event: 'uncaught', name }, 'its name');
    test.same(
      Object.keys(nets[0] ?? {}).filter(
        (member) =>
          !['level', 'time', 'pid', 'event', 'name', 'code', 'at', 'msg'].includes(member),
      ),
      [],
    );
    test.ok(
      lines.some(({ event }) => event === 'stopped'),
      'it has stopped in order',
    );
    test.notOk((serving.output() + serving.errors()).includes(marker), 'and no text of it');
  });
}

t.test('the place of what was thrown is said', async (test) => {
  const serving = await deployment.start({
    NODE_OPTIONS: onSignal(`setImmediate(() => JSON.parse('${marker}'))`),
  });
  serving.child.kill('SIGUSR2');
  test.equal(await serving.ended, 1);
  test.match(serving.output(), /"name":"SyntaxError","at":\["at [^"]*:\d+:\d+/);
  test.notOk((serving.output() + serving.errors()).includes(marker));
});

t.test('what goes wrong before there is a log is said as the log would say it', async (test) => {
  const serving = await deployment.start(
    {
      NODE_OPTIONS: `--import data:text/javascript,${encodeURIComponent(`setImmediate(() => { throw new TypeError('${text}') })`)}`,
    },
    { isReady: false },
  );
  test.equal(await serving.ended, 1);
  test.match(JSON.parse(serving.output().split('\n', 1)[0]!), {
    level: 60,
    event: 'uncaught',
    name: 'TypeError',
  });
  test.equal(serving.errors(), '');
  test.notOk((serving.output() + serving.errors()).includes(marker));
});

t.test('CONNECT and a reset at the broker, and no token, end nothing', async (test) => {
  const serving = await deployment.start({ CREDVAULT_BROKER_PORT: '0' });
  const port = Number(
    await until(() => /"brokerUrl":"http:\/\/[^":]+:(\d+)"/.exec(serving.output())?.[1]),
  );
  for (let times = 0; times < 50; times += 1) {
    const socket = await rawConnect({ port });
    socket.write('CONNECT a:1 HTTP/1.1\r\nHost: x\r\n\r\n');
    if (times % 2 === 0) await once(socket, 'data');
    socket.resetAndDestroy();
  }
  test.equal((await serving.call('alice', 'GET', '/v1/whoami')).status, 200);
  serving.child.kill('SIGTERM');
  test.equal(await serving.ended, 0);
  test.notMatch(serving.output(), /"event":"uncaught"/);
});

t.test('a log that cannot be written costs lines, and not the vault', async (test) => {
  const free = createServer().listen(0, '127.0.0.1');
  await once(free, 'listening');
  const { port } = free.address() as AddressInfo;
  free.close();
  await once(free, 'close');
  const full = openSync('/dev/full', 'w');
  const child = spawn(process.execPath, [join(import.meta.dirname, '../../src/main.ts'), 'serve'], {
    stdio: ['ignore', full, 'pipe'],
    env: { PATH: process.env['PATH'], ...deployment.environment, PORT: String(port) },
  });
  closeSync(full);
  let errors = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
  const ended = once(child, 'close');
  test.teardown(() => child.kill('SIGKILL'));
  const status = (): Promise<number> =>
    fetch(`http://127.0.0.1:${port}/healthz`).then(
      (answer) => answer.status,
      () => 0,
    );
  await until(async () => (await status()) === 200);
  const seen = new Set<number>();
  for (let times = 0; times < 200; times += 1) seen.add(await status());
  test.same([...seen], [200], errors);
  child.kill('SIGTERM');
  await ended;
  test.equal(child.signalCode, null, 'it ends by itself');
});
