// The session of docs/quickstart.md, line by line, as a reader types it: `npm start` in a folder of
// its own, then every command in order, in bash and in zsh. Only the port is another one.
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import t, { type Test } from 'tap';
import { until } from '../helpers/processes.ts';
import { checkAnswers, scriptOf, stepsIn } from '../helpers/session.ts';

const root = resolve(import.meta.dirname, '../..');
const address = 'http://127.0.0.1:7300';
const environment = { ...process.env, npm_config_loglevel: 'error' }; // npm's warnings about this machine are not the session's

/** A checkout whose `./data` is its own: everything else is the real one. */
function makeCheckout(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'vr-')); // short: a socket's path has 107 bytes
  chmodSync(folder, 0o711);
  t.teardown(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  for (const name of ['src', 'migrations', 'node_modules'])
    symlinkSync(join(root, name), join(folder, name));
  for (const name of ['package.json', '.npmrc']) cpSync(join(root, name), join(folder, name));
  return folder;
}

/** `npm start` there, on a free port. */
async function start(
  t: Test,
  folder: string,
): Promise<{ url: string; output: () => string; stop: () => Promise<number | null> }> {
  const child = spawn('npm', ['start'], {
    cwd: folder,
    env: { ...environment, PORT: '0' },
    stdio: ['ignore', 'pipe', 'pipe'],
    detached: true,
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (chunk: Buffer) => {
      output += chunk.toString();
    });
  const ended = new Promise<number | null>((done, fail) => {
    child.once('error', fail);
    child.once('close', done);
  });
  const stop = (): Promise<number | null> => {
    try {
      process.kill(-child.pid!, 'SIGINT');
    } catch {
      /* it has ended */
    }
    return ended;
  };
  t.teardown(stop);
  const url = await until(() => {
    if (child.exitCode !== null) throw new Error(`npm start ended: ${output}`);
    return /The vault runs on (http:\S+)/.exec(output)?.[1];
  });
  return { url, output: () => output, stop };
}

const [first, ...steps] = stepsIn(readFileSync(join(root, 'docs/quickstart.md'), 'utf8'));
const isThere = (shell: string): boolean =>
  spawnSync(shell, ['-c', 'true'], { stdio: 'ignore' }).status === 0;

for (const shell of ['bash', 'zsh'])
  t.test(
    `every line of the session does what the page says, in ${shell}`,
    { skip: process.env['CI'] === undefined && !isThere(shell) && `without ${shell}` },
    (t) => play(t, shell),
  );

async function play(t: Test, shell: string): Promise<void> {
  t.equal(first?.command, 'npm ci && npm start');
  t.ok(
    steps.length > 20 && steps.filter(({ expected }) => expected.length > 0).length > 14,
    'the session was found',
  );
  const folder = makeCheckout(t);
  const vault = await start(t, folder);

  const { stdout, stderr, status } = spawnSync(
    shell,
    ['-c', scriptOf(steps).replaceAll(address, vault.url)],
    { cwd: folder, env: environment, encoding: 'utf8', timeout: 80_000 },
  );
  t.equal(status, 0, stderr);
  t.equal(stderr, '');
  checkAnswers(t, steps, stdout);
  t.ok(stdout.includes('sk-my-own-key'), 'the lease was opened');
  t.equal(stdout.split('sk-my-own-key').length, 2, 'and nothing else told the secret');

  t.equal(statSync(join(folder, 'data/engine-private.json')).mode & 0o777, 0o600);
  t.equal(await vault.stop(), 0, 'Ctrl-C stops the vault');
  t.notOk(vault.output().includes('sk-my-own-key'), 'its log does not hold the secret');
  t.ok(existsSync(join(folder, 'data/root-keys')));
  const again = await start(t, folder);
  const read = `curl -sS -H "authorization: Bearer $(npm run -s vault -- token victor)" ${again.url}/v1/teams/payments/credentials`;
  const { stdout: after } = spawnSync('bash', ['-c', read], {
    cwd: folder,
    env: environment,
    encoding: 'utf8',
  });
  t.match(after, /"name":"openai-prod"/, 'the next start has everything');
}
