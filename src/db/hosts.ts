// The several hosts of one database behind the shape of a pool: connections go to the host that is
// the primary.
import pg from 'pg';
import { isServerGone, NoPrimary, NotWritable, PoolExhausted } from './errors.ts';
import { Connection, type ConnectionSettings, timelineSql } from './connection.ts';
import type { DatabaseHost } from './url.ts';

export interface HostPoolsOptions {
  readonly hosts: readonly DatabaseHost[];
  /** Everything a connection needs but host and port. */
  readonly connection: pg.ClientConfig;
  readonly settings: Omit<ConnectionSettings, 'onServerGone' | 'onTimeline'>;
  readonly poolMax: number;
  readonly connectTimeoutMs: number;
  /** Loss of an idle connection; for the log. */
  readonly onError: (error: Error) => void;
}

const idleTimeoutMs = 60_000;
/** How many wait for a connection at once; each holds a request in memory meanwhile. */
const waitingMax = 1_000;

/**
 * Pools made when first needed, one per host. `connect` tries the host that answered last, then the
 * others in order; it never gives a connection to a standby.
 */
export class HostPools {
  /**
   * Demanded by kysely, which reads it only to cancel statements, a thing that the vault leaves to
   * time-outs.
   */
  readonly options = Object.freeze({});
  readonly #given: HostPoolsOptions;
  readonly #pools: (pg.Pool | undefined)[];
  #current = 0;
  #ending: Promise<unknown> | undefined;
  readonly #retired = new Map<pg.Pool, Promise<void> | undefined>();
  #exhausted = 0;
  readonly #verified = new WeakSet<pg.PoolClient>();
  #timeline: string | undefined;

  constructor(options: HostPoolsOptions) {
    this.#given = options;
    this.#pools = options.hosts.map(() => undefined);
  }

  /** The host to which connections go. */
  get host(): DatabaseHost {
    return this.#given.hosts[this.#current]!;
  }

  /** How many wait for a connection, how many may, and how often none became free in time. */
  get counts(): { readonly inUse: number; readonly max: number; readonly refused: number } {
    return {
      inUse: this.#pools[this.#current]?.waitingCount ?? 0,
      max: waitingMax,
      refused: this.#exhausted,
    };
  }

  /** The timeline of the primary that said it last; undefined before any did. */
  get timeline(): string | undefined {
    return this.#timeline;
  }

  /** Keeps what a statement learned. */
  noteTimeline(timeline: string): void {
    this.#timeline = timeline;
  }

  /** A verified connection. Throws NoPrimary or PoolExhausted within connectTimeoutMs per host. */
  async connect(): Promise<pg.PoolClient> {
    const errors: unknown[] = [];
    const first = this.#current;
    for (let step = 0; step < this.#pools.length; step += 1) {
      const index = (first + step) % this.#pools.length;
      try {
        const client = await this.#connectTo(index);
        this.#current = index;
        return client;
      } catch (error) {
        if (error instanceof PoolExhausted || this.#ending !== undefined) throw error;
        errors.push(error);
      }
    }
    throw new NoPrimary(errors);
  }

  /** Closes every connection; waits for those in use. */
  async end(): Promise<void> {
    this.#ending ??= Promise.all(this.#pools.map((pool) => pool?.end()));
    await Promise.all([this.#ending, ...this.#retired.values()]);
  }

  async #connectTo(index: number): Promise<pg.PoolClient> {
    const pool = (this.#pools[index] ??= this.#open(index));
    try {
      if (pool.waitingCount >= waitingMax) throw this.#exhaustion();
      const client = await pool.connect();
      const release = client.release.bind(client);
      // Kysely says `false`, and not nothing, of a connection that it knows nothing bad of.
      client.release = (error) =>
        release(error || (client as unknown as Connection).isSpent || this.#retired.has(pool));
      if (!this.#verified.has(client)) await this.#verify(client);
      return client;
    } catch (error) {
      throw isWaitingTimeout(error) ? this.#exhaustion() : error;
    } finally {
      this.#endIfUnused(pool);
    }
  }

  // Not by the pool's own hook: of who waits in its queue and gives up meanwhile it forgets that a
  // connection is being verified for them, and nobody would ever release it.
  async #verify(client: pg.PoolClient): Promise<void> {
    let isReleased = false;
    const end = (error: Error): void => {
      if (isReleased) return;
      isReleased = true;
      client.release(error);
    };
    const timer = setTimeout(() => {
      end(new Error('the server was not verified in time'));
    }, this.#given.connectTimeoutMs);
    try {
      await verifyPrimary(client);
      // The answer can come in the moment in which it is given up: then it is nobody's any more.
      if (isReleased) throw new Error('the server was not verified in time');
      this.#verified.add(client);
    } catch (error) {
      end(error as Error);
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  #exhaustion(): PoolExhausted {
    this.#exhausted += 1;
    return new PoolExhausted();
  }

  #open(index: number): pg.Pool {
    if (this.#ending !== undefined) throw new Error('the database was closed');
    const { connection, settings, hosts, poolMax, connectTimeoutMs, onError } = this.#given;
    const connectionSettings: ConnectionSettings = {
      ...settings,
      onServerGone: () => this.#retire(index, pool),
      onTimeline: (timeline) => {
        this.noteTimeline(timeline);
      },
    };
    const pool: pg.Pool = new pg.Pool({
      ...connection,
      ...hosts[index]!,
      max: poolMax,
      connectionTimeoutMillis: connectTimeoutMs,
      idleTimeoutMillis: idleTimeoutMs,
      keepAlive: true,
      keepAliveInitialDelayMillis: 10_000,
      Client: class extends Connection {
        constructor(config?: pg.ClientConfig) {
          super(config ?? {}, connectionSettings);
        }
      },
    });
    // Without a listener the loss of an idle connection ends the process. One told to go means that
    // its siblings are told too.
    pool.on('error', (error) => {
      if (isServerGone(error)) this.#retire(index, pool);
      onError(error);
    });
    return pool;
  }

  // Connections in use finish what they do and are closed when released; idle ones are closed now;
  // the next ones are verified afresh.
  #retire(index: number, pool: pg.Pool): void {
    // what is being closed already is not closed twice
    if (this.#pools[index] !== pool || this.#ending !== undefined) return;
    this.#pools[index] = undefined;
    this.#retired.set(pool, undefined);
    this.#endIfUnused(pool);
  }

  // A pool that ends forgets who waits in its queue: first they are served, with connections that
  // it opens for them.
  #endIfUnused(pool: pg.Pool): void {
    if (!this.#retired.has(pool) || this.#retired.get(pool) !== undefined || pool.waitingCount > 0)
      return;
    this.#retired.set(
      pool,
      pool.end().finally(() => this.#retired.delete(pool)),
    );
  }
}

/**
 * Throws unless the connected server takes writes: a standby does not, nor does a primary that was
 * set read-only.
 */
export async function verifyPrimary(client: pg.ClientBase): Promise<void> {
  const {
    rows: [row],
  } = await client.query<{ isWritable: boolean; timeline: string | null }>(
    `select not pg_is_in_recovery()
      and current_setting('transaction_read_only') = 'off' as "isWritable",
      ${timelineSql} as timeline`,
  );
  if (row?.isWritable !== true) throw new NotWritable();
  if (client instanceof Connection) client.noteTimeline(row.timeline);
}

// pg-pool gives this error no code; a host that does not answer has another message.
function isWaitingTimeout(error: unknown): boolean {
  return error instanceof Error && error.message === 'timeout exceeded when trying to connect';
}
