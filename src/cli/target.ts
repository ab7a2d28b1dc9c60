// Which vault a command works on: the one of `--url` with the token in a file, or the local one
// that runs on the data folder.
import { parseArgs } from 'node:util';
import { join, resolve } from 'node:path';
import { type Environment, readConfig } from '../config/index.ts';
import { localToken } from '../dev/index.ts';
import { ShownError } from '../shared/shown-error.ts';
import { idLikeForm } from '../shared/patterns.ts';

/** What a command takes from the process. */
export interface OperateContext {
  readonly args: readonly string[];
  readonly environment: Environment;
  readonly readFile: (path: string) => string;
  readonly write: (text: string) => void;
  /** For what is said beside the output. */
  readonly note?: (text: string) => void;
  readonly isTerminal: boolean;
  readonly stop: AbortSignal;
  readonly now: () => number;
}

/** What a command that calls a vault is told, besides its own options. */
export const targetOptions = {
  url: { type: 'string' },
  'token-file': { type: 'string' },
  as: { type: 'string' },
  json: { type: 'boolean' },
} as const;

/** The command was told something that it cannot use. */
export class OptionsUnfit extends Error {
  override name = 'OptionsUnfit';
}

export interface TargetInput {
  readonly url?: string | undefined;
  readonly 'token-file'?: string | undefined;
  readonly as?: string | undefined;
}

/** An answer of a vault. */
export interface VaultAnswer {
  readonly status: number;
  readonly body: Record<string, unknown>;
}
export type VaultCall = (method: string, path: string, body?: unknown) => Promise<VaultAnswer>;

/**
 * The vault refused, or does not answer (status 0). The message holds its code, and the id of what
 * is in the way.
 */
export class VaultRefused extends ShownError {
  override name = 'VaultRefused';
  readonly status: number;
  readonly code: string;
  constructor(status: number, code: string) {
    super(
      status === 0 ? `the vault does not answer (${code})` : `the vault refused: ${status} ${code}`,
    );
    this.status = status;
    this.code = code;
  }
}

/** The exit status of a command that was stopped by a signal, as shells have it. */
export const stoppedExitCode = 130;
const answerMsMax = 30_000;

/** Options of a command; throws OptionsUnfit for one that it does not know. */
export function readOptions<O extends NonNullable<Parameters<typeof parseArgs>[0]>['options']>(
  args: readonly string[],
  options: O,
): ReturnType<typeof parseArgs<{ options: O & {} }>>['values'] {
  try {
    return parseArgs({
      args: [...args],
      options: options as O & {},
      strict: true,
      allowPositionals: false,
    }).values as never;
  } catch (error) {
    // SECURITY: a token that was given as an argument by mistake must not be said back.
    const { code } = error as NodeJS.ErrnoException;
    throw new OptionsUnfit(
      `an option is unknown or lacks its value${code === undefined ? '' : ` (${code})`}; the options are: ${Object.keys(
        options ?? {},
      )
        .map((name) => `--${name}`)
        .join(', ')}`,
    );
  }
}

/**
 * Calls one vault as one subject. A token never stands in an argument: other processes could read
 * it. It is read anew for every call, so that one that is replaced in its file goes on serving a
 * long watch.
 */
export function callerOf(
  input: TargetInput,
  { environment, readFile, now, stop }: OperateContext,
): VaultCall {
  const isRemote = input.url !== undefined;
  if (isRemote === (input['token-file'] === undefined))
    throw new OptionsUnfit(
      '--url and --token-file go together; without them it is the local vault',
    );
  if (isRemote === (input.as !== undefined))
    throw new OptionsUnfit(
      isRemote ? '--as is for the local vault' : 'say --as SUBJECT for the local vault',
    );
  const dataFolder = isRemote ? undefined : dataFolderOf(environment, readFile);
  const base =
    input.url === undefined ? runningVault(dataFolder ?? '', readFile).url : remoteBase(input.url);
  const tokenFile = input['token-file'];
  const token = async (): Promise<string> =>
    tokenFile === undefined
      ? localToken(dataFolder ?? '', input.as ?? '', now())
      : readToken(tokenFile, readFile);
  return async (method, path, body) => {
    const headers = {
      authorization: `Bearer ${await token()}`,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    };
    let answer: Response;
    let json: Record<string, unknown>;
    try {
      answer = await fetch(new URL(path, base), {
        method,
        headers,
        redirect: 'error',
        signal: AbortSignal.any([stop, AbortSignal.timeout(answerMsMax)]),
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      json = await readJson(answer);
    } catch (error) {
      const cause = (error as { cause?: { code?: string } }).cause;
      throw new VaultRefused(0, cause?.code ?? (error as Error).name);
    }
    if (!answer.ok) throw new VaultRefused(answer.status, codeOf(json));
    return { status: answer.status, body: json };
  };
}

/** The folder of the local vault. */
export function dataFolderOf(environment: Environment, readFile: (path: string) => string): string {
  return resolve(readConfig(environment, 'local', readFile).config.dataFolder);
}

/** The local vault that runs on the folder. Throws OptionsUnfit when none does. */
export function runningVault(
  dataFolder: string,
  readFile: (path: string) => string,
): { readonly url: string; readonly databaseUrl: string } {
  try {
    return JSON.parse(readFile(join(dataFolder, 'run.json'))) as {
      url: string;
      databaseUrl: string;
    };
  } catch {
    throw new OptionsUnfit('no local vault runs: start it with `npm start`');
  }
}

/**
 * Where an offline command works, with the root keys in hand: the configured database, or that of
 * the local vault that runs.
 */
export function offlineSecrets({
  environment,
  readFile,
}: Pick<OperateContext, 'environment' | 'readFile'>): {
  readonly databaseUrl: string;
  readonly rootKeys: string;
} {
  const isLocal =
    environment['DATABASE_URL'] === undefined && environment['DATABASE_URL_FILE'] === undefined;
  if (!isLocal) return readConfig(environment, 'verify', readFile).secrets;
  const dataFolder = dataFolderOf(environment, readFile);
  const { databaseUrl } = runningVault(dataFolder, readFile);
  try {
    return { databaseUrl, rootKeys: readFile(join(dataFolder, 'root-keys')).trim() };
  } catch {
    throw new OptionsUnfit('the root key of the local vault cannot be read');
  }
}

function remoteBase(text: string): string {
  const url = URL.parse(text);
  // SECURITY: an admin's token crosses this connection. Loopback is what runs beside it, or a
  // tunnel.
  const isFit =
    url !== null &&
    url.username === '' &&
    url.password === '' &&
    (url.protocol === 'https:' ||
      (url.protocol === 'http:' && /^(127\.\d+\.\d+\.\d+|localhost|\[::1\])$/.test(url.hostname)));
  if (!isFit)
    throw new OptionsUnfit('--url takes https://HOST, or http:// of this machine, and no password');
  return url.href;
}

function readToken(path: string, readFile: (path: string) => string): string {
  let token: string;
  try {
    token = readFile(path).trim();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    throw new OptionsUnfit(
      `--token-file names a file that cannot be read${code === undefined ? '' : ` (${code})`}`,
    );
  }
  if (!/^[\x21-\x7e]{1,16000}$/.test(token))
    throw new OptionsUnfit('--token-file names a file that does not hold a token');
  return token;
}

async function readJson(answer: Response): Promise<Record<string, unknown>> {
  const text = await answer.text();
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return {};
  }
}

function codeOf(problem: Record<string, unknown>): string {
  const { code, rotationId } = problem;
  const known = typeof code === 'string' && /^[a-zA-Z]{1,40}$/.test(code) ? code : 'unknown';
  return typeof rotationId === 'string' && idLikeForm.test(rotationId)
    ? `${known} (rotation ${rotationId})`
    : known;
}
