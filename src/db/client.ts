// Opens the database: kysely over pg, one or several hosts, with time limits everywhere. Opening
// connects to nothing yet.
import { readFileSync } from 'node:fs';
import { Kysely, PostgresDialect, type Transaction } from 'kysely';
import pg from 'pg';
import { isTime } from '../shared/times.ts';
import { HostPools } from './hosts.ts';
import { composedNames } from './statement-names.ts';
import type { Tables } from './tables.ts';
import { type DatabaseHost, type DatabaseUrl, parseDatabaseUrl } from './url.ts';

export type Db = Kysely<Tables>;
export type Trx = Transaction<Tables>;
/** What repositories take first: the database, or the transaction that the service opened. */
export type Executor = Db | Trx;

export interface OpenDatabaseOptions {
  readonly url: string;
  readonly poolMax?: number;
  /** False behind a proxy that mixes connections and does not track prepared statements. */
  readonly namedStatements?: boolean;
  /** The longest that one statement may take, waiting for locks included. */
  readonly statementTimeoutMs?: number;
  /** The longest wait for a connection, per host. */
  readonly connectTimeoutMs?: number;
  readonly applicationName?: string;
  /** Told of the loss of idle connections. The error may name the host, never the password. */
  readonly onError: (error: Error) => void;
}

export interface Database {
  readonly db: Db;
  /** The host to which connections go at this moment. */
  readonly host: DatabaseHost;
  /** Waits for the statements that run, then closes every connection. */
  close(): Promise<void>;
}

/**
 * The connections behind a database, for statements that need nothing of kysely: its way to them
 * takes as long as the sending.
 */
export const connectionsOf = new WeakMap<
  Executor,
  Pick<HostPools, 'connect' | 'counts' | 'timeline' | 'noteTimeline'>
>();

/** Who waits for a connection at this moment. */
export const waitingConnections = (db: Db): HostPools['counts'] =>
  connectionsOf.get(db)?.counts ?? { inUse: 0, max: 0, refused: 0 };

/** Throws DatabaseUrlInvalid; connection failures show at the first statement, as NoPrimary. */
export function openDatabase(options: OpenDatabaseOptions): Database {
  const url = parseDatabaseUrl(options.url);
  const pools = new HostPools({
    hosts: url.hosts,
    connection: connectionConfig(url, options.applicationName ?? 'credential-vault'),
    settings: {
      statementTimeoutMs: options.statementTimeoutMs ?? 15_000,
      names: options.namedStatements === false ? undefined : composedNames,
    },
    poolMax: options.poolMax ?? 16,
    connectTimeoutMs: options.connectTimeoutMs ?? 3_000,
    onError: options.onError,
  });
  const db: Db = new Kysely<Tables>({ dialect: new PostgresDialect({ pool: pools }) });
  connectionsOf.set(db, pools);
  return {
    db,
    get host() {
      return pools.host;
    },
    async close() {
      await db.destroy();
      await pools.end(); // kysely ends the pool only if it was ever used
    },
  };
}

/** What pg needs to connect, but host and port. */
export function connectionConfig(url: DatabaseUrl, applicationName: string): pg.ClientConfig {
  return {
    user: url.user,
    password: url.password ?? '', // never undefined: pg would look into the environment and into ~/.pgpass
    database: url.database,
    application_name: applicationName,
    // Stated even where false: pg would otherwise read PGSSLMODE. rejectUnauthorized and the host
    // name are checked by default.
    ssl: url.isTls
      ? {
          rejectUnauthorized: true,
          ...(url.caPath === undefined ? {} : { ca: readFileSync(url.caPath, 'utf8') }),
        }
      : false,
    types: { getTypeParser: typeParser },
  };
}

// int8 (counts, sequence numbers) as a number, refused where a number would round; date as its
// text, because a Date would take on a time zone; a time always as a Date.
const typeParser = ((oid: number, format?: 'text' | 'binary') => {
  if (format !== 'binary' && oid === pg.types.builtins.INT8) return readInt8;
  if (format !== 'binary' && oid === pg.types.builtins.TIMESTAMPTZ) return readTime;
  if (format !== 'binary' && oid === pg.types.builtins.DATE) return (text: string) => text;
  return pg.types.getTypeParser(oid, format as 'text');
}) as typeof pg.types.getTypeParser;

const timeOf: (text: string) => unknown = pg.types.getTypeParser(pg.types.builtins.TIMESTAMPTZ);

/**
 * An invalid Date for what RFC 3339 cannot say: infinity, and years of more or less than four
 * digits.
 */
function readTime(text: string): Date {
  const time = timeOf(text);
  return isTime(time) ? time : new Date(Number.NaN);
}

function readInt8(text: string): number {
  const number = Number(text);
  if (!Number.isSafeInteger(number))
    throw new RangeError('an int8 beyond 2^53 does not fit a number');
  return number;
}
