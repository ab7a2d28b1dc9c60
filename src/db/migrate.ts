// Applies migrations/NNNN_verb_noun.sql in order, forward only. All pending files are one
// transaction under one lock: several starters and a kill -9 are harmless.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { sql } from 'kysely';
import pg from 'pg';
import { connectionConfig, type Executor } from './client.ts';
import { NoPrimary, sqlState } from './errors.ts';
import { verifyPrimary } from './hosts.ts';
import { parseDatabaseUrl } from './url.ts';
import { ShownError } from '../shared/shown-error.ts';

/** The migrations that this release knows. */
export const migrationsFolder = resolve(import.meta.dirname, '../../migrations');

/**
 * What the database is to this release: equal, older (`migrate` helps), or touched by another
 * release or hand.
 */
export type SchemaState = 'current' | 'behind' | 'unknown';

/** The database holds a migration that this release does not know, or knows with other content. */
export class SchemaUnknown extends ShownError {
  constructor(reason: string) {
    super(`the schema of the database is not one that this release knows: ${reason}`);
    this.name = 'SchemaUnknown';
  }
}

/**
 * A file could not be applied; the database is as it was. The message names the file and the
 * server's code, the cause has the rest.
 */
export class MigrationFailed extends ShownError {
  constructor(name: string, reason: string, options?: ErrorOptions) {
    super(`migration ${name} ${reason}`, options);
    this.name = 'MigrationFailed';
  }
}

interface Migration {
  readonly version: number;
  readonly name: string;
  readonly sql: string;
  readonly checksum: Buffer;
}
interface Applied {
  readonly version: number;
  readonly name: string;
  readonly checksum: Buffer;
}

// One number in the whole database, taken for the length of a transaction. Arbitrary; never to be
// changed.
const lockKey = '7300415041';
// A change of a table that waits for a lock makes everybody after it wait too: rather give up and
// be run again.
const lockTimeoutMs = 30_000;
const applicationName = 'credential-vault migrate';

/**
 * Brings the schema up to date over a direct connection and returns the names of the files it
 * applied. Waits while another one migrates. Throws SchemaUnknown, MigrationFailed.
 */
export async function migrate(url: string, folder: string = migrationsFolder): Promise<string[]> {
  const migrations = readMigrations(folder);
  const client = await connectToPrimary(url);
  try {
    await client.query('begin');
    await client.query('set local statement_timeout = 0');
    await client.query('select pg_advisory_xact_lock($1)', [lockKey]);
    await client.query(`set local lock_timeout = ${lockTimeoutMs}`);
    await client.query(`
      create table if not exists schema_migration (
        version int primary key,
        name text not null,
        checksum bytea not null,
        applied_at timestamptz not null default now()
      );
      comment on table schema_migration is 'operational: what migrate has applied, with the checksum of each file'`);
    const { rows } = await client.query<Applied>(
      'select version, name, checksum from schema_migration order by version',
    );
    const fault = compare(migrations, rows);
    if (fault !== undefined) throw new SchemaUnknown(fault);
    const pending = migrations.slice(rows.length);
    for (const migration of pending) await apply(client, migration);
    await client.query('commit');
    return pending.map(({ name }) => name);
  } finally {
    await client.end(); // ends an open transaction too
  }
}

/** Compares what was applied with the files of this release; changes nothing. */
export async function schemaState(
  db: Executor,
  folder: string = migrationsFolder,
): Promise<SchemaState> {
  const migrations = readMigrations(folder);
  let applied: readonly Applied[];
  try {
    applied = (
      await sql<Applied>`select version, name, checksum from schema_migration
        order by version`.execute(db)
    ).rows;
  } catch (error) {
    if (sqlState(error) === '42P01') return 'behind'; // no such table: an empty database
    throw error;
  }
  if (compare(migrations, applied) !== undefined) return 'unknown';
  return applied.length === migrations.length ? 'current' : 'behind';
}

async function apply(
  client: pg.Client,
  { version, name, sql: text, checksum }: Migration,
): Promise<void> {
  try {
    await client.query(text);
  } catch (cause) {
    throw new MigrationFailed(
      name,
      `failed (${sqlState(cause) ?? 'no answer'}); nothing was changed`,
      { cause },
    );
  }
  if (client.getTransactionStatus() !== 'T')
    throw new MigrationFailed(name, 'ended the transaction it was given');
  await client.query('insert into schema_migration (version, name, checksum) values ($1, $2, $3)', [
    version,
    name,
    checksum,
  ]);
}

function compare(
  migrations: readonly Migration[],
  applied: readonly Applied[],
): string | undefined {
  for (const [index, { version, name, checksum }] of applied.entries()) {
    const known = migrations[index];
    if (known === undefined || known.version !== version)
      return `it holds migration ${version} (${name})`;
    if (known.name !== name || !known.checksum.equals(checksum))
      return `migration ${version} was applied with other content`;
  }
  return undefined;
}

function readMigrations(folder: string): readonly Migration[] {
  const names = readdirSync(folder)
    .filter((name) => name.endsWith('.sql'))
    .sort();
  return names.map((name, index) => {
    const version = Number(/^(\d{4})_[a-z0-9]+(?:_[a-z0-9]+)+\.sql$/.exec(name)?.[1]);
    if (version !== index + 1)
      throw new Error(
        `migrations are numbered from 0001 without gaps and named NNNN_verb_noun.sql: ${name} ` +
          `is not`,
      );
    const text = readFileSync(join(folder, name), 'utf8');
    return { version, name, sql: text, checksum: createHash('sha256').update(text).digest() };
  });
}

// A connection of its own, without time-outs and without the pool: a migration may take long, and a
// proxy must not stand in between.
async function connectToPrimary(url: string): Promise<pg.Client> {
  const parsed = parseDatabaseUrl(url);
  const errors: unknown[] = [];
  for (const host of parsed.hosts) {
    const client = new pg.Client({
      ...connectionConfig(parsed, applicationName),
      ...host,
      connectionTimeoutMillis: 5_000,
      keepAlive: true,
    });
    client.on('error', () => undefined); // the statement that runs reports it
    try {
      await client.connect();
      await verifyPrimary(client);
      return client;
    } catch (error) {
      errors.push(error);
      await client.end();
    }
  }
  throw new NoPrimary(errors);
}
