// Peers that npm and pip install: pinned by lock files, kept under node_modules/.cache.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';

const here = import.meta.dirname;
const root = join(here, '../..');

export type Env = Readonly<Record<string, string>>;

/** Runs a program to its end. Throws with what it said where that was not 0. */
export function run(
  program: string,
  args: readonly string[],
  env: Env = {},
  { cwd = here } = {},
): void {
  const { status, error, stdout, stderr } = spawnSync(program, args, {
    cwd,
    encoding: 'utf8',
    maxBuffer: 1 << 26,
    env: {
      ...process.env,
      ...env,
      PATH: [dirname(process.execPath), process.env['PATH']].join(delimiter),
    },
  });
  if (status !== 0)
    throw new Error(
      `${[program, ...args].join(' ')}\n${error ?? ''}${stdout}${stderr}`.slice(-4_000),
    );
}

/** Made once for a lock file. */
function once(name: string, lock: string, make: (home: string) => void): string {
  const digest = createHash('sha256').update(readFileSync(lock)).digest('hex').slice(0, 12);
  const home = join(root, 'node_modules/.cache/vault-peers', `${name}-${digest}`);
  if (existsSync(join(home, 'done'))) return home;
  rmSync(home, { recursive: true, force: true });
  mkdirSync(home, { recursive: true });
  make(home);
  writeFileSync(join(home, 'done'), '');
  return home;
}

/** Everything of package-lock.json; the folder that holds its node_modules. */
export function npmPeers(): string {
  return once('npm', join(here, 'package-lock.json'), (home) => {
    for (const name of ['package.json', 'package-lock.json'])
      cpSync(join(here, name), join(home, name));
    run('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund'], {}, { cwd: home });
  });
}

/** An environment of Python's with what stands in the list, which has the hashes. */
export function pythonPeers(list: string): string {
  const lock = join(here, list);
  return once('python', lock, (home) => {
    const python = ['/usr/bin/python3', 'python3'].find(
      (each) => spawnSync(each, ['-c', 'import ensurepip, venv']).status === 0,
    );
    if (python === undefined)
      throw new Error('no Python that makes environments (Debian: python3-venv)');
    run(python, ['-m', 'venv', home]);
    run(join(home, 'bin/pip'), [
      'install',
      '--quiet',
      '--disable-pip-version-check',
      '--require-hashes',
      '-r',
      lock,
    ]);
  });
}
