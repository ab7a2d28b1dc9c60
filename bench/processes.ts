// The servers that are measured: each a process of its own under the same Node, on a free port of
// loopback, silent.
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { get } from 'node:http';
import { createServer } from 'node:net';
import { devNull } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { audience, issuer, operator, type Setting } from './setting.ts';

export interface Server {
  readonly port: number;
  /** From the start of the process to its first good answer on the probe. */
  readonly readyMs: number;
  /** Seconds of processor time so far; undefined where the system does not tell. */
  cpuSeconds(): number | undefined;
  /** Memory that it holds at this moment; undefined where the system does not tell. */
  residentBytes(): number | undefined;
  stop(): Promise<void>;
}

const root = join(import.meta.dirname, '..');
const readyTimeoutMs = 30_000;
const pollMs = 5;
const ticksPerSecond = 100;

/**
 * Starts `node …args` with PORT set and waits until the probe is answered 200. Its standard output
 * goes nowhere, its errors are shown.
 */
export async function startServer(
  args: readonly string[],
  environment: Record<string, string>,
  probe: string,
): Promise<Server> {
  const port = await freePort();
  const nowhere = openSync(devNull, 'w');
  const begun = performance.now();
  const child = spawn(process.execPath, args, {
    cwd: root,
    stdio: ['ignore', nowhere, 'inherit'],
    env: { PATH: process.env['PATH'], ...environment, HOST: '127.0.0.1', PORT: String(port) },
  });
  closeSync(nowhere);
  const ended = new Promise<void>((resolve) => {
    child.once('exit', () => {
      resolve();
    });
  });
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM');
    await ended;
  };
  try {
    while (!(await answers(port, probe))) {
      if (child.exitCode !== null)
        throw new Error(`${args.join(' ')} ended with ${child.exitCode}`);
      if (performance.now() - begun > readyTimeoutMs)
        throw new Error(`${args.join(' ')} did not become ready`);
      await delay(pollMs);
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    port,
    readyMs: performance.now() - begun,
    cpuSeconds: () => cpuSecondsOf(child),
    residentBytes: () => residentBytesOf(child),
    stop,
  };
}

/**
 * A replica of the vault in production's way, without limits on how often; `more` is further
 * configuration.
 */
export function startVault(
  setting: Setting,
  more: Readonly<Record<string, string>> = {},
): Promise<Server> {
  return startServer(
    ['--disable-sigusr1', 'src/main.ts', 'serve'],
    {
      DATABASE_URL: setting.databaseUrl,
      CREDVAULT_ROOT_KEYS: setting.rootKeys,
      CREDVAULT_JWT_ISSUER: issuer,
      CREDVAULT_JWT_AUDIENCE: audience,
      CREDVAULT_JWT_SECRET: setting.jwtSecret,
      CREDVAULT_OPERATORS: operator,
      CREDVAULT_RATE_LIMIT_ADDRESS: '0',
      CREDVAULT_RATE_LIMIT_SUBJECT: '0',
      ...more,
    },
    '/readyz',
  );
}

function answers(port: number, path: string): Promise<boolean> {
  return new Promise((resolve) => {
    get({ port, host: '127.0.0.1', path, agent: false }, (answer) => {
      answer.resume();
      resolve(answer.statusCode === 200);
    }).once('error', () => {
      resolve(false);
    });
  });
}

/** A port that was free a moment ago. */
export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
      .once('error', reject)
      .listen(0, '127.0.0.1', () => {
        const { port } = server.address() as { port: number };
        server.close(() => {
          resolve(port);
        });
      });
  });
}

/** User and system time of a process, from Linux's proc(5). */
function cpuSecondsOf({ pid }: ChildProcess): number | undefined {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
      .replace(/^.*\) /s, '')
      .split(' ');
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  } catch {
    return undefined; // another system
  }
}

function residentBytesOf({ pid }: ChildProcess): number | undefined {
  try {
    return (
      Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024
    );
  } catch {
    return undefined;
  }
}
