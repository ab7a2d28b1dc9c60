// `npm run demo` as a stranger runs it: a process of its own, from the command line, in a temporary
// folder that must be empty afterwards.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import t, { type Test } from 'tap';
import { until } from '../helpers/processes.ts';

const root = resolve(import.meta.dirname, '../..');

interface Demo {
  readonly child: ChildProcess;
  readonly folder: string;
  readonly output: () => string;
  readonly errors: () => string;
  readonly ended: Promise<number | null>;
}

/** Starts the demo with a folder of its own for everything temporary. */
function startDemo(t: Test): Demo {
  const folder = mkdtempSync(join(tmpdir(), 'vd-')); // short: a socket's path has 107 bytes
  chmodSync(folder, 0o711);
  const child = spawn('npm', ['run', '-s', 'demo'], {
    cwd: root,
    env: { ...process.env, TMPDIR: folder, NODE_DISABLE_COMPILE_CACHE: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  let output = '';
  let errors = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
  const ended = new Promise<number | null>((done, fail) => {
    child.once('error', fail);
    child.once('close', done);
  });
  t.teardown(async () => {
    child.kill();
    await ended;
    rmSync(folder, { recursive: true, force: true });
  });
  return { child, folder, output: () => output, errors: () => errors, ended };
}

const processesOf = (folder: string): string[] =>
  spawnSync('ps', ['-eo', 'pid=,args='], { encoding: 'utf8' })
    .stdout.split('\n')
    .filter((line) => line.includes(folder));

t.test('the demo runs through and leaves nothing behind', async (t) => {
  const demo = startDemo(t);
  // the search for processes finds what is there
  await until(() => processesOf(demo.folder).length > 0);
  t.equal(await demo.ended, 0, demo.errors());
  t.same(readdirSync(demo.folder), []);
  t.same(processesOf(demo.folder), []);

  const output = demo.output();
  for (const told of [
    'POST /v1/teams',
    'PUT /v1/teams/payments/members/victor',
    '"type":"openai"',
    '"type":"smtp"',
    '→ 403     {"code":"forbidden"}',
    '→ 404     {"code":"notFound"}',
    '→ 422     {"code":"secretRequired"',
    'POST /v1/engines',
    'POST /v1/leases',
    '602 of 602',
    '"rule":"undecryptable"',
    'token = gAAAAA',
    'credential.lease',
    'POST /v1/broker-tickets',
    '"answer":42',
    '→ 401     {"code":"ticketInvalid"}',
    '"rule":"methodNotAllowed"',
    'the API key and the SMTP password are in none of them',
    'Everything was as told.',
  ])
    t.ok(output.includes(told), told);
  t.ok((output.match(/^ {2}\[[█░]{40}\] .* of 602/gmu) ?? []).length >= 2, 'the bar moved');
  t.ok(output.includes('"apiKey":"«…»"'));
  t.notOk(
    /demo-secret-./.test(output + demo.errors()),
    'no secret that the demo made is in its output',
  );
  t.notOk(/eyJ[\w-]*\.[\w-]*\./.test(output), 'nor a token of a person');
});

t.test('a demo that is stopped by Ctrl-C cleans up too', async (t) => {
  const demo = startDemo(t);
  await until(() => demo.output().includes('POST /v1/engines'));
  process.kill(-demo.child.pid!, 'SIGINT'); // to the whole group, as a terminal does: npm passes it on a second time
  t.equal(await demo.ended, 1);
  t.match(demo.output(), /Stopped\.\n$/);
  t.same(readdirSync(demo.folder), []);
  await until(() => processesOf(demo.folder).length === 0);
});
