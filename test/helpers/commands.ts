// The commands as processes of their own, and a vault that `serve`s as one: what a person at a
// terminal has.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { resolve } from 'node:path';
import { SignJWT } from 'jose';
import { until } from './processes.ts';

interface Teardown {
  teardown(action: () => unknown): unknown;
}

const main = resolve(import.meta.dirname, '../../src/main.ts');
const bare = Object.fromEntries(
  Object.entries(process.env).filter(
    ([name]) => !/^(CREDVAULT_|DATABASE_URL|HOST$|PORT$|LOG_LEVEL$|TAP)/.test(name),
  ),
);

export interface RunningCommand {
  readonly child: ChildProcess;
  output(): string;
  errors(): string;
  /** The exit code, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>;
  printed(pattern: RegExp): Promise<RegExpExecArray>;
}

/**
 * Runs a command in an environment without any of the vault's names but those given. Killed at
 * teardown.
 */
export function runCommand(
  t: Teardown,
  args: readonly string[],
  {
    environment = {},
    folder,
  }: { environment?: Readonly<Record<string, string>>; folder?: string } = {},
): RunningCommand {
  const child = spawn(process.execPath, ['--disable-sigusr1', main, ...args], {
    env: { ...bare, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
    ...(folder === undefined ? {} : { cwd: folder }),
  });
  let [output, errors, isEnded] = ['', '', false];
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
  const ended = new Promise<number | NodeJS.Signals>((done, fail) => {
    child.once('error', fail);
    child.once('close', (code, signal) => {
      isEnded = true;
      done(code ?? signal ?? 0);
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
    errors: () => errors,
    printed: (pattern) =>
      until(() => {
        const match = pattern.exec(output);
        if (match === null && isEnded)
          throw new Error(`the command ended without printing ${pattern}: ${errors}`);
        return match ?? undefined;
      }),
  };
}

/** Runs a command to its end. */
export async function runToEnd(
  t: Teardown,
  args: readonly string[],
  options: Parameters<typeof runCommand>[2] = {},
): Promise<{ code: number | NodeJS.Signals; output: string; errors: string }> {
  const command = runCommand(t, args, options);
  const code = await command.ended;
  return { code, output: command.output(), errors: command.errors() };
}

export interface ServedVault {
  readonly url: string;
  readonly port: number;
  readonly command: RunningCommand;
  /** SIGTERM, and the exit code. */
  stop(): Promise<number | NodeJS.Signals>;
}
/**
 * A vault that can be started again: what stays the same is its database and who signs its tokens.
 */
export interface Deployment {
  readonly environment: Readonly<Record<string, string>>;
  token(sub: string): Promise<string>;
  /** Calls the vault; the body is parsed. */
  call(
    vault: ServedVault,
    as: string,
    method: string,
    path: string,
    body?: unknown,
  ): Promise<{ status: number; json: any }>;
  /** Starts `serve` and waits until it listens; on a free port unless one is named. */
  serve(rootKeys: string, options?: { port?: number; databaseUrl?: string }): Promise<ServedVault>;
}

/** A deployment of `serve` on a migrated database. The subject `operator` is its operator. */
export function deploy(t: Teardown, databaseUrl: string): Deployment {
  const secret = randomBytes(48).toString('base64url');
  const environment = {
    CREDVAULT_JWT_ISSUER: 'https://issuer.test',
    CREDVAULT_JWT_AUDIENCE: 'credential-vault',
    CREDVAULT_JWT_SECRET: secret,
    CREDVAULT_OPERATORS: 'operator',
    CREDVAULT_PUBLIC_URL: 'https://vault.test',
    CREDVAULT_RATE_LIMIT_ADDRESS: '0',
    CREDVAULT_RATE_LIMIT_SUBJECT: '0',
    CREDVAULT_POOL_SIZE: '6',
  };
  const token = (sub: string): Promise<string> => {
    const at = Math.floor(Date.now() / 1000);
    return new SignJWT({
      iss: 'https://issuer.test',
      aud: 'credential-vault',
      iat: at,
      exp: at + 3600,
      sub,
    })
      .setProtectedHeader({ alg: 'HS256' })
      .sign(new TextEncoder().encode(secret));
  };
  return {
    environment,
    token,
    async call({ url }, as, method, path, body) {
      const answer = await fetch(new URL(path, url), {
        method,
        headers: {
          authorization: `Bearer ${await token(as)}`,
          'if-match': '*',
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await answer.text();
      return { status: answer.status, json: text === '' ? undefined : JSON.parse(text) };
    },
    async serve(rootKeys, { port = 0, databaseUrl: other = databaseUrl } = {}) {
      const command = runCommand(t, ['serve'], {
        environment: {
          ...environment,
          DATABASE_URL: other,
          CREDVAULT_ROOT_KEYS: rootKeys,
          PORT: String(port),
        },
      });
      const [, line] = await command.printed(/^(\{.*"event":"listening".*\})$/m);
      const { url } = JSON.parse(line ?? '{}') as { url: string };
      return {
        url,
        port: Number(new URL(url).port),
        command,
        stop: () => {
          command.child.kill('SIGTERM');
          return command.ended;
        },
      };
    },
  };
}
