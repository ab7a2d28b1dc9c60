// Processes of the rig: none outlives it, however it ends. A shell stands between: when the rig is
// gone, be it by SIGKILL, the shell's standard input ends, and it kills what it started.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { isRoot } from '../../src/dev/account.ts';

/** A process of the rig, which can be killed, stopped and continued with all of its children. */
export interface Guarded {
  readonly name: string;
  /** The process itself, not the shell. */
  readonly pid: number;
  readonly isAlive: boolean;
  /** Resolves with how it ended: a number is an exit code, a name the signal. */
  readonly ended: Promise<number | NodeJS.Signals>;
  /** To the process alone. */
  signal(signal: NodeJS.Signals): void;
  /** To the process and all that it has started. */
  signalTree(signal: NodeJS.Signals): void;
}

export interface GuardedOptions {
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly ids?: { uid?: number; gid?: number };
  /** Each line that it writes, to either output. */
  readonly onLine?: (line: string) => void;
}

// The child's group is its own, so that a signal to the rig's terminal does not reach it by itself.
// Its children are killed first: those of a frozen PostgreSQL would not notice that it is gone.
const guard = `
  exec 4<&0
  setsid "$@" </dev/null 3>&- 4<&- & c=$!
  echo $c >&3
  exec 3>&- 2>/dev/null
  ( trap "" INT TERM HUP
    cat <&4 >/dev/null
    for p in $(cat /proc/$c/task/$c/children) $c; do kill -KILL $p; done ) 2>/dev/null &
  trap "" INT TERM HUP
  exec 4<&-
  wait $c`;

const signalNumbers: Readonly<Record<number, NodeJS.Signals>> = {
  1: 'SIGHUP',
  2: 'SIGINT',
  6: 'SIGABRT',
  9: 'SIGKILL',
  11: 'SIGSEGV',
  15: 'SIGTERM',
};

/** Starts it; resolves once the process exists. */
export async function startGuarded(options: GuardedOptions): Promise<Guarded> {
  const { name, command, args, cwd, env, ids = {}, onLine } = options;
  const shell = spawn('/bin/sh', ['-c', guard, 'sh', command, ...args], {
    ...ids,
    ...(cwd === undefined ? {} : { cwd }),
    env: { PATH: process.env['PATH'], ...env },
    stdio: ['pipe', 'pipe', 'pipe', 'pipe'],
    detached: true,
  });
  shell.stdin?.on('error', () => undefined); // the shell may be gone before its input is closed
  readLines(shell, onLine ?? (() => undefined));
  let isAlive = true;
  const ended = new Promise<number | NodeJS.Signals>((resolve, reject) => {
    shell.once('error', reject);
    shell.once('exit', (code, signal) => {
      isAlive = false;
      shell.stdin?.destroy();
      resolve(code === null ? (signal ?? 0) : (signalNumbers[code - 128] ?? code));
    });
  });
  ended.catch(() => undefined);
  const pid = await Promise.race([
    new Promise<number>((resolve) => {
      shell.stdio[3]?.once('data', (chunk: Buffer) => resolve(Number(chunk.toString())));
    }),
    ended.then((how) => {
      throw new Error(`${name} did not start: ${how}`);
    }),
  ]);
  const send = (to: number, signal: NodeJS.Signals): void => {
    try {
      process.kill(to, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  };
  return {
    name,
    pid,
    ended,
    get isAlive() {
      return isAlive;
    },
    signal: (signal) => {
      if (isAlive) send(pid, signal);
    },
    signalTree: (signal) => {
      if (!isAlive) return;
      for (const each of [pid, ...descendantsOf(pid)]) send(each, signal);
    },
  };
}

function readLines(shell: ChildProcess, onLine: (line: string) => void): void {
  for (const stream of [shell.stdout, shell.stderr]) {
    let pending = '';
    stream?.on('data', (chunk: Buffer) => {
      pending += chunk.toString();
      const lines = pending.split('\n');
      pending = lines.pop() ?? '';
      for (const line of lines) onLine(line);
    });
  }
}

function descendantsOf(pid: number): number[] {
  let text: string;
  try {
    text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
  } catch {
    return []; // it has ended meanwhile
  }
  const children = text
    .split(' ')
    .filter((each) => each !== '')
    .map(Number);
  return children.flatMap((child) => [child, ...descendantsOf(child)]);
}

/**
 * Who runs the servers that refuse to run as root: nobody where the rig is root, else whoever runs
 * the rig.
 */
export function serverAccount(): { uid?: number; gid?: number } {
  if (!isRoot()) return {};
  const [uid, gid] = ['-u', '-g'].map((flag) =>
    Number(spawnSync('id', [flag, 'nobody'], { encoding: 'utf8' }).stdout.trim()),
  );
  return { uid: uid!, gid: gid! };
}
