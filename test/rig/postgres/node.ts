// One PostgreSQL server of the rig, from Debian's package: made, started, killed, frozen, promoted.
// It listens on a unix socket in its own folder and nowhere else.
import { spawn } from 'node:child_process';
import { appendFileSync, chownSync, existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import pg from 'pg';
import { until } from '../../helpers/processes.ts';
import { type Guarded, serverAccount, startGuarded } from '../children.ts';

const portNumber = 5432; // part of the socket's name only
const settings: Readonly<Record<string, string>> = {
  listen_addresses: '',
  port: String(portNumber),
  unix_socket_permissions: '0700',
  max_connections: '200',
  shared_buffers: '64MB',
  wal_level: 'replica',
  max_wal_senders: '8',
  hot_standby: 'on',
  wal_sender_timeout: '10s',
  wal_receiver_timeout: '10s',
  wal_retrieve_retry_interval: '500ms',
  // Processes are killed here and never the machine, so what was written is there without a flush.
  fsync: 'off',
  log_min_messages: 'log',
};

/** The folder of Debian's binaries; undefined where the package is not installed. */
export function debianBinaries(): string | undefined {
  const root = '/usr/lib/postgresql';
  const versions = existsSync(root) ? readdirSync(root).sort((a, b) => Number(b) - Number(a)) : [];
  return versions
    .map((version) => join(root, version, 'bin'))
    .find((bin) =>
      ['postgres', 'initdb', 'pg_basebackup'].every((name) => existsSync(join(bin, name))),
    );
}

/** A server, its folder and its process. */
export class PostgresNode {
  readonly name: string;
  readonly folder: string;
  readonly #bin: string;
  readonly #ids = serverAccount();
  readonly #log: string;
  #process: Guarded | undefined;

  constructor({ name, folder, bin }: { name: string; folder: string; bin: string }) {
    this.name = name;
    this.folder = folder;
    this.#bin = bin;
    this.#log = join(folder, 'server.log');
    mkdirSync(dirname(folder), { recursive: true, mode: 0o711 }); // the account goes through it
    mkdirSync(folder, { mode: 0o700 });
    if (this.#ids.uid !== undefined) chownSync(folder, this.#ids.uid, this.#ids.gid!);
  }

  get socket(): string {
    return join(this.folder, `.s.PGSQL.${portNumber}`);
  }

  get isAlive(): boolean {
    return this.#process?.isAlive === true;
  }

  /** For connections past every proxy. */
  url({ user = 'rig', database = 'postgres' } = {}): string {
    return `postgresql://${user}@localhost/${database}?host=${encodeURIComponent(this.folder)}`;
  }

  /** Makes an empty cluster; the superuser is `rig`. */
  async init(): Promise<void> {
    await this.#run('initdb', [
      ...['-D', this.#data, '-U', 'rig', '--auth=trust', '--encoding=UTF8', '--locale=C'],
      ...['--no-sync', '--no-instructions', '--wal-segsize=16'],
    ]);
  }

  /** Throws away what is there and copies the other server, which goes on meanwhile. */
  async copyFrom(primary: PostgresNode, primaryPort: number): Promise<void> {
    rmSync(this.#data, { recursive: true, force: true });
    await this.#run('pg_basebackup', [
      ...['-D', this.#data, '-d', primary.url(), '--checkpoint=fast', '--wal-method=stream'],
      '--no-sync',
    ]);
    this.#follow(primaryPort);
  }

  /** Starts it and waits until it takes connections. */
  async start(): Promise<void> {
    rmSync(join(this.#data, 'postmaster.pid'), { force: true }); // of one that was killed
    this.#process = await startGuarded({
      name: `postgres ${this.name}`,
      command: join(this.#bin, 'postgres'),
      args: [
        ...['-D', this.#data, '-c', `unix_socket_directories=${this.folder}`],
        ...Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`]),
      ],
      cwd: this.folder,
      ids: this.#ids,
      env: { LC_ALL: 'C', TZ: 'UTC' },
      onLine: (line) => appendFileSync(this.#log, `${line}\n`),
    });
    await until(async () => {
      if (!this.isAlive) throw new Error(`PostgreSQL ${this.name} ended: see ${this.#log}`);
      return this.query('select 1').then(
        () => true,
        () => false,
      );
    }, 60_000);
  }

  async kill(): Promise<void> {
    this.#process?.signalTree('SIGKILL');
    await this.#process?.ended;
  }

  /** Every session is cut, everything is on disk. */
  async stop(): Promise<void> {
    this.#process?.signal('SIGINT');
    await this.#process?.ended;
  }

  freeze(): void {
    this.#process?.signalTree('SIGSTOP');
  }

  thaw(): void {
    this.#process?.signalTree('SIGCONT');
  }

  /** From standby to primary; returns when it takes writes. */
  async promote(): Promise<void> {
    await this.query('select pg_promote(true, 60)');
    await until(async () => {
      const [row] = await this.query<{ is: boolean }>('select pg_is_in_recovery() as is');
      return row?.is === false;
    });
  }

  /** One statement as the superuser, on a connection of its own. */
  async query<T extends pg.QueryResultRow>(
    text: string,
    values: unknown[] = [],
    database = 'postgres',
  ): Promise<T[]> {
    const client = new pg.Client({
      connectionString: this.url({ database }),
      connectionTimeoutMillis: 2_000,
    });
    client.on('error', () => undefined); // the statement reports it
    await client.connect();
    try {
      return (await client.query<T>(text, values)).rows;
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  get #data(): string {
    return join(this.folder, 'data');
  }

  #follow(primaryPort: number): void {
    appendFileSync(
      join(this.#data, 'postgresql.auto.conf'),
      `primary_conninfo = 'host=127.0.0.1 port=${primaryPort} user=rig application_name=${this.name}'\n`,
    );
    appendFileSync(join(this.#data, 'standby.signal'), '');
    if (this.#ids.uid !== undefined)
      chownSync(join(this.#data, 'standby.signal'), this.#ids.uid, this.#ids.gid!);
  }

  async #run(program: string, args: readonly string[]): Promise<void> {
    const child = spawn(join(this.#bin, program), args, {
      ...this.#ids,
      cwd: this.folder,
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { PATH: process.env['PATH'], LC_ALL: 'C', TZ: 'UTC' },
    });
    let errors = '';
    child.stderr.on('data', (chunk: Buffer) => {
      errors += chunk.toString();
    });
    const status = await new Promise<number | null>((resolve, reject) => {
      child.once('error', reject).once('close', resolve);
    });
    if (status !== 0) throw new Error(`${program} of ${this.name} failed: ${errors}`);
  }
}
