// pgbouncer in transaction mode, between one replica and one server.
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { until } from '../helpers/processes.ts';
import { type Guarded, serverAccount, startGuarded } from './children.ts';
import { createConnection, createServer } from 'node:net';
import { spawnSync } from 'node:child_process';

/** Whether pgbouncer is installed. */
export const hasBouncer = (): boolean => spawnSync('pgbouncer', ['--version']).status === 0;

/** One pgbouncer. */
export class Bouncer {
  readonly name: string;
  readonly port: number;
  readonly #file: string;
  #process: Guarded | undefined;

  private constructor(name: string, port: number, file: string) {
    this.name = name;
    this.port = port;
    this.#file = file;
  }

  /** Connects every database to the same port of 127.0.0.1. */
  static async start(folder: string, name: string, upstreamPort: number): Promise<Bouncer> {
    mkdirSync(folder, { recursive: true });
    chmodSync(folder, 0o755);
    const port = await freePort();
    const [file, users] = [join(folder, `${name}.ini`), join(folder, `${name}.users`)];
    writeFileSync(users, '"credvault_app" ""\n');
    writeFileSync(
      file,
      [
        '[databases]',
        `* = host=127.0.0.1 port=${upstreamPort}`,
        '[pgbouncer]',
        'listen_addr = 127.0.0.1',
        `listen_port = ${port}`,
        'unix_socket_dir =',
        'auth_type = trust',
        `auth_file = ${users}`,
        'pool_mode = transaction',
        'max_client_conn = 500',
        'default_pool_size = 20',
        'server_connect_timeout = 3',
        'server_login_retry = 1',
        'server_check_delay = 1',
        'query_wait_timeout = 10',
        '',
      ].join('\n'),
    );
    const bouncer = new Bouncer(name, port, file);
    await bouncer.restart();
    return bouncer;
  }

  /** Kills it where it runs, and starts it. */
  async restart(): Promise<void> {
    await this.kill();
    this.#process = await startGuarded({
      name: this.name,
      command: 'pgbouncer',
      args: ['-q', this.#file],
      ids: serverAccount(),
    });
    await until(() => accepts(this.port));
  }

  async kill(): Promise<void> {
    this.#process?.signal('SIGKILL');
    await this.#process?.ended;
  }
}

// pgbouncer takes no port 0 and does not say which one it took.
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => {
    server.close(resolve);
  });
  return port;
}

const accepts = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = createConnection(port, '127.0.0.1');
    socket.once('error', () => resolve(false));
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
  });
