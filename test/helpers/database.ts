// A database of its own for each test that asks: copied from the migrated template of the run,
// dropped at the end.
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { type Db, openDatabase } from '../../src/db/client.ts';
import { migrate } from '../../src/db/migrate.ts';
import { startLocalPostgres } from '../../src/dev/postgres.ts';

/** The database that `test/run.ts` migrates once and every test copies. */
export const templateName = 'vault_template';

export interface TestDatabase {
  readonly url: string;
  readonly db: Db;
}
interface Teardown {
  teardown(action: () => unknown): unknown;
}

/**
 * With `empty`, a database without a schema. Works under `npm test` and for a lone `node
 * test/….test.ts`, which gets a server of its own.
 */
export async function testDatabase(
  t: Teardown,
  { empty = false }: { empty?: boolean } = {},
): Promise<TestDatabase> {
  const server = process.env['TEST_DATABASE_URL'] ?? (await (lonely ??= startPrivateServer()));
  const name = `test_${randomBytes(6).toString('hex')}`;
  // Copying files takes a third of the time that logging each page does.
  const copied = empty ? '' : ` template ${templateName} strategy file_copy`;
  await command(server, `create database ${name}${copied}`);
  const url = withDatabase(server, name);
  const { db, close } = openDatabase({ url, poolMax: 8, onError: () => undefined });
  t.teardown(async () => {
    await close();
    await command(server, `drop database ${name} with (force)`);
  });
  return { url, db };
}

// One for the process, however many databases it asks for.
let lonely: Promise<string> | undefined;

async function startPrivateServer(): Promise<string> {
  const { default: tap } = await import('tap'); // only here: importing it makes a process a test, and the runner imports this file too
  const folder = mkdtempSync(join(tmpdir(), 'vault-test-'));
  const server = await startLocalPostgres({ folder: join(folder, 'postgres'), isDurable: false });
  tap.teardown(async () => {
    await server.stop();
    rmSync(folder, { recursive: true, force: true });
  });
  await makeTemplate(server.url);
  return server.url;
}

/** Makes the template afresh on the server and migrates it. */
export async function makeTemplate(server: string): Promise<void> {
  await command(server, `drop database if exists ${templateName} with (force)`);
  await command(server, `create database ${templateName}`);
  await migrate(withDatabase(server, templateName));
}

/** Runs one statement as the owner, in a database of the run's server. */
export async function asOwner(database: string, text: string): Promise<void> {
  const server = process.env['TEST_DATABASE_URL'] ?? (await lonely);
  if (server === undefined) throw new Error('no server was started');
  await command(withDatabase(server, database), text);
}

/** The same server, another database. */
export function withDatabase(url: string, name: string): string {
  return url.replace(/^([^:]+:\/\/[^/]+)\/[^?]*/, `$1/${name}`);
}

/** Runs one statement on a connection of its own. */
export async function command(url: string, text: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(text);
  } finally {
    await client.end();
  }
}
