// The README's session, line by line, as a reader types it: `npm start` in a folder of its own, then every command, in order. What
// the README says is answered is the lines of comment below a command; `…` stands for anything. Only the port is another one.
import { spawn, spawnSync } from 'node:child_process';
import { chmodSync, cpSync, existsSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import t, { type Test } from 'tap';
import { until } from '../helpers/processes.ts';

const root = resolve(import.meta.dirname, '../..');
const address = 'http://127.0.0.1:7300';
const marker = '@@ command ';
const environment = { ...process.env, npm_config_loglevel: 'error' };   // what npm thinks of this machine's own settings is not the session's

interface Step { readonly command: string; readonly expected: readonly string[] }

/** The commands of the section, each with the comment below it. A here-document is part of its command. */
function stepsOf(markdown: string): Step[] {
  const section = markdown.split('\n## One session\n')[1]!.split('\n## ')[0]!;
  const steps: { command: string; expected: string[] }[] = [];
  for (const [, block] of section.matchAll(/^```sh\n([\s\S]*?)^```$/gm)) {
    let end: string | undefined;
    for (const line of block!.trimEnd().split('\n')) {
      if (end !== undefined) {
        steps.at(-1)!.command += `\n${line}`;
        if (line === end) end = undefined;
      } else if (line.startsWith('# ')) steps.at(-1)!.expected.push(line.slice(2));
      else {
        steps.push({ command: line, expected: [] });
        end = /<<'(\w+)'/.exec(line)?.[1];
      }
    }
  }
  return steps;
}

/** Whether the line is what was said, with anything in place of each `…`. */
function isAsSaid(line: string, said: string): boolean {
  const pattern = said.split('…').map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`)).join('.*');
  return new RegExp(`^${pattern}$`).test(line);
}

/** A checkout whose `./data` is its own: everything else is the real one. */
function makeCheckout(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'vr-'));   // short: a socket's path has 107 bytes
  chmodSync(folder, 0o711);
  t.teardown(() => { rmSync(folder, { recursive: true, force: true }); });
  for (const name of ['src', 'migrations', 'node_modules']) symlinkSync(join(root, name), join(folder, name));
  for (const name of ['package.json', '.npmrc']) cpSync(join(root, name), join(folder, name));
  return folder;
}

/** `npm start` there, on a free port. */
async function start(t: Test, folder: string): Promise<{ url: string; output: () => string; stop: () => Promise<number | null> }> {
  const child = spawn('npm', ['start'], { cwd: folder, env: { ...environment, PORT: '0' }, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk: Buffer) => { output += chunk.toString(); });
  const ended = new Promise<number | null>((done, fail) => { child.once('error', fail); child.once('close', done); });
  const stop = (): Promise<number | null> => {
    try { process.kill(-child.pid!, 'SIGINT'); } catch { /* it has ended */ }
    return ended;
  };
  t.teardown(stop);
  const url = await until(() => {
    if (child.exitCode !== null) throw new Error(`npm start ended: ${output}`);
    return /The vault runs on (http:\S+)/.exec(output)?.[1];
  });
  return { url, output: () => output, stop };
}

t.test('every line of the session does what the README says', async (t) => {
  const steps = stepsOf(readFileSync(join(root, 'README.md'), 'utf8'));
  t.ok(steps.length > 20 && steps.filter(({ expected }) => expected.length > 0).length > 14, 'the session was found');
  const folder = makeCheckout(t);
  const vault = await start(t, folder);

  const script = steps.map(({ command }, index) => `echo '${marker}${index}'\n${command}\necho "${marker}ended $?"\n`).join('').replaceAll(address, vault.url);
  const { stdout, stderr, status } = spawnSync('bash', ['-c', script], { cwd: folder, env: environment, encoding: 'utf8', timeout: 80_000 });
  t.equal(status, 0, stderr);
  t.equal(stderr, '');
  const answers = stdout.split(new RegExp(`^${marker}\\d+\\n`, 'm')).slice(1);
  t.equal(answers.length, steps.length);
  for (const [index, { command, expected }] of steps.entries()) {
    const [answer = '', code] = answers[index]!.split(`${marker}ended `);
    t.equal(code?.trim(), '0', command);
    const lines = answer.split('\n').filter((line) => line !== '');
    // The lines that are told, in their order; the last one that is told is the last one that comes.
    let at = 0;
    for (const said of expected) {
      const found = lines.findIndex((line, position) => position >= at && isAsSaid(line, said));
      t.ok(found >= 0, `${command}\n  is answered with\n    ${said}\n  and was\n    ${lines.join('\n    ')}`);
      at = found + 1;
    }
    if (expected.length > 0) t.equal(at, lines.length, `nothing else is answered: ${command}`);
  }
  t.ok(stdout.includes('sk-my-own-key'), 'the lease was opened');
  t.equal(stdout.split('sk-my-own-key').length, 2, 'and nothing else told the secret');

  t.equal(statSync(join(folder, 'data/engine-private.json')).mode & 0o777, 0o600);
  t.equal(await vault.stop(), 0, 'Ctrl-C stops the vault');
  t.notOk(vault.output().includes('sk-my-own-key'), 'its log does not hold the secret');
  t.ok(existsSync(join(folder, 'data/root-keys')));
  const again = await start(t, folder);
  const read = `curl -sS -H "authorization: Bearer $(npm run -s vault -- token victor)" ${again.url}/v1/teams/payments/credentials`;
  const { stdout: after } = spawnSync('bash', ['-c', read], { cwd: folder, env: environment, encoding: 'utf8' });
  t.match(after, /"name":"openai-prod"/, 'the next start has everything');
});
