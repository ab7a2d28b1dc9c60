// `serve` as production runs it: a process of its own, configured by its environment alone, secrets
// in files.
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generateRootKey } from '../../src/crypto/index.ts';
import { forge, goodClaims, issuer, audience, sharedSecret } from './identity.ts';
import { until } from './processes.ts';

interface Teardown {
  teardown(action: () => unknown): unknown;
}

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly json: any;
}

export interface Serving {
  readonly child: ChildProcess;
  readonly url: string;
  readonly port: number;
  /** Everything logged so far. */
  output(): string;
  errors(): string;
  /** Resolves with the exit code, or with the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>;
  /** Calls over HTTP as a subject. */
  call(
    as: string | null,
    method: string,
    path: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<Answer>;
}

/** What several starts on one database have in common: keys, secrets, the files that hold them. */
export interface Deployment {
  readonly environment: Readonly<Record<string, string>>;
  token(sub: string): string;
  /**
   * Starts a process; with `isReady: false` it does not wait until it listens. Killed at teardown.
   */
  start(
    environment?: Record<string, string | undefined>,
    options?: { isReady?: boolean },
  ): Promise<Serving>;
}

/** A deployment over this database; the subject `operator` is its operator. */
export function deploy(
  t: Teardown,
  databaseUrl: string,
  rootKey: string = generateRootKey(),
): Deployment {
  const folder = mkdtempSync(join(tmpdir(), 'vault-serve-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const file = (name: string, text: string): string => {
    writeFileSync(join(folder, name), `${text}\n`, { mode: 0o600 });
    return join(folder, name);
  };
  const secret = sharedSecret(randomBytes(48).toString('base64url'));
  const environment = {
    DATABASE_URL_FILE: file('database-url', databaseUrl),
    CREDVAULT_ROOT_KEYS_FILE: file('root-keys', rootKey),
    CREDVAULT_JWT_SECRET_FILE: file('jwt-secret', secret.verifier),
    CREDVAULT_JWT_ISSUER: issuer,
    CREDVAULT_JWT_AUDIENCE: audience,
    CREDVAULT_OPERATORS: 'operator',
    PORT: '0',
    LOG_LEVEL: 'info',
  };
  const token = (sub: string): string => forge(secret, { alg: 'HS256' }, { ...goodClaims(), sub });
  return {
    environment,
    token,
    start: async (more = {}, { isReady = true } = {}) => {
      const program = startProgram(t, ['serve'], { ...environment, ...more });
      let url = 'http://127.0.0.1:0';
      if (isReady) url = await program.printed(/"event":"listening","url":"([^"]+)"/);
      return {
        ...program,
        url,
        port: Number(new URL(url).port),
        call: async (as, method, path, body, headers = {}) => {
          const answer = await fetch(`${url}${path}`, {
            method,
            headers: {
              ...(as === null ? {} : { authorization: `Bearer ${token(as)}` }),
              ...(body === undefined ? {} : { 'content-type': 'application/json' }),
              ...headers,
            },
            ...(body === undefined ? {} : { body: JSON.stringify(body) }),
          });
          const text = await answer.text();
          return {
            status: answer.status,
            headers: answer.headers,
            json: text === '' ? undefined : JSON.parse(text),
          };
        },
      };
    },
  };
}

/** Runs a command of the vault with this environment and no other. */
export function startProgram(
  t: Teardown,
  args: readonly string[],
  environment: Record<string, string | undefined>,
): Omit<Serving, 'url' | 'port' | 'call'> & { printed(pattern: RegExp): Promise<string> } {
  const child = spawn(
    process.execPath,
    ['--disable-sigusr1', join(import.meta.dirname, '../../src/main.ts'), ...args],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { PATH: process.env['PATH'], ...environment },
    },
  );
  let output = '';
  let errors = '';
  let isEnded = false;
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  child.stderr.on('data', (chunk: Buffer) => {
    errors += chunk.toString();
  });
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
    errors: () => errors,
    printed: (pattern) =>
      until(() => {
        const match = pattern.exec(output);
        if (match === null && isEnded)
          throw new Error(`the program ended without printing ${pattern}: ${errors}`);
        return match?.[1] ?? match?.[0];
      }),
  };
}
