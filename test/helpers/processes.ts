// Programs of their own, for what only a real process can show: starting at once, being killed in
// the middle.
import { type ChildProcess, spawn } from 'node:child_process';
import { setTimeout as delay } from 'node:timers/promises';

export interface Program {
  readonly child: ChildProcess;
  /** Everything written to standard output so far. */
  output(): string;
  /** Resolves when the output matches; rejects when the program ends first. */
  printed(pattern: RegExp): Promise<RegExpExecArray>;
  /** Resolves with the exit code, or with the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>;
}

/** Runs a module given as text, with arguments from `process.argv[1]` on. Killed at teardown. */
export function runModule(
  t: { teardown(action: () => unknown): unknown },
  source: string,
  args: readonly string[] = [],
  options: { uid?: number; gid?: number } = {},
): Program {
  const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', source, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options,
  });
  let output = '';
  let errors = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
  let isEnded = false;
  const ended = new Promise<number | NodeJS.Signals>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      isEnded = true;
      resolve(code ?? signal ?? 0);
    });
  });
  t.teardown(async () => {
    if (!isEnded) child.kill('SIGKILL');
    await ended;
  });
  return {
    child,
    ended,
    output: () => output,
    printed: async (pattern) =>
      until(() => {
        const match = pattern.exec(output);
        if (match === null && isEnded)
          throw new Error(`the program ended without printing ${pattern}: ${errors}`);
        return match ?? undefined;
      }),
  };
}

/** Asks again until there is an answer other than undefined or false. */
export async function until<T>(
  question: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = 30_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const answer = await question();
    if (answer !== undefined && answer !== false) return answer;
    if (Date.now() > deadline) throw new Error('waited in vain');
    await delay(10);
  }
}
