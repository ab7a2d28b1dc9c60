// Several hosts in the URL: a real primary and a real standby of it, with deaths and a promotion.
import { spawnSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import pg from 'pg';
import t, { type Test } from 'tap';
import { type Database, openDatabase, type OpenDatabaseOptions } from '../../src/db/client.ts';
import { isDatabaseDown, isServerGone, NoPrimary } from '../../src/db/errors.ts';
import { migrate } from '../../src/db/migrate.ts';
import { type LocalPostgres, startLocalPostgres } from '../../src/dev/postgres.ts';
import { command } from '../helpers/database.ts';
import { until } from '../helpers/processes.ts';

const folderOf = (server: LocalPostgres): string => new URL(server.url).searchParams.get('host')!;
const across = (...servers: readonly LocalPostgres[]): string =>
  `postgresql://vault@/postgres?host=${servers.map(folderOf).join(',')}`;
const failure = async (action: Promise<unknown>): Promise<unknown> =>
  action.then(
    () => undefined,
    (error: unknown) => error,
  );
const put = (database: Database, n: number): Promise<unknown> =>
  sql`insert into kept values (${n}::int)`.execute(database.db);
const kept = async (database: Database): Promise<number[]> =>
  (await sql<{ n: number }>`select n from kept order by n`.execute(database.db)).rows.map(
    ({ n }) => n,
  );

function opened(t: Test, url: string, options: Partial<OpenDatabaseOptions> = {}): Database {
  const database = openDatabase({ url, onError: () => undefined, ...options });
  t.teardown(() => database.close());
  return database;
}

/** A primary, and a streaming standby made from a copy of its files. */
async function startPair(t: Test): Promise<{ primary: LocalPostgres; standby: LocalPostgres }> {
  const folder = mkdtempSync(join(tmpdir(), 'vault-hosts-'));
  chmodSync(folder, 0o711);
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const primary = await startLocalPostgres({ folder: join(folder, 'one'), isDurable: false });
  t.teardown(() => primary.stop());
  const client = new pg.Client({ connectionString: primary.url });
  await client.connect();
  await client.query(`select pg_backup_start('copy', true)`);
  mkdirSync(join(folder, 'two'), { mode: 0o700 });
  const copy = join(folder, 'two', 'data');
  const { status, stderr } = spawnSync('cp', ['-a', join(folder, 'one', 'data'), copy], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
  const {
    rows: [label],
  } = await client.query<{ labelfile: string }>('select labelfile from pg_backup_stop(false)');
  await client.end();
  rmSync(join(copy, 'postmaster.pid'));
  const files = {
    backup_label: label!.labelfile,
    'standby.signal': '',
    'postgresql.auto.conf': `primary_conninfo = 'host=${folderOf(primary)} user=vault'\n`,
  };
  for (const [name, text] of Object.entries(files)) {
    writeFileSync(join(copy, name), text);
    chmodSync(join(copy, name), 0o666); // written by this account, read and removed by the server's
  }
  const standby = await startLocalPostgres({ folder: join(folder, 'two'), isDurable: false });
  t.teardown(() => standby.stop());
  return { primary, standby };
}

t.test(
  'writes go to the primary wherever it stands in the list, and follow it when it dies and another is promoted',
  async (t) => {
    const { primary, standby } = await startPair(t);
    await command(primary.url, 'create table kept (n int)');
    const database = opened(t, across(standby, primary));
    await put(database, 1);
    t.equal(database.host.host, folderOf(primary));
    const later = opened(t, across(primary, standby));
    await put(later, 2);
    t.same(await kept(database), [1, 2]);

    const migrations = join(folderOf(primary), '..', 'migrations');
    mkdirSync(migrations);
    writeFileSync(join(migrations, '0001_create_a.sql'), 'create table a (n int)');
    t.same(
      await migrate(across(standby, primary), migrations),
      ['0001_create_a.sql'],
      'migrate looks for the primary too',
    );

    const look = opened(t, standby.url);
    t.match(
      await failure(kept(look)),
      { name: 'NoPrimary', message: /\(takes no writes\)$/ },
      'a standby alone is no database',
    );
    const replica = new pg.Client({ connectionString: standby.url });
    await replica.connect();
    t.teardown(() => replica.end());
    await until(
      async () =>
        (await replica.query(`select to_regclass('a') is not null as here`)).rows[0].here === true,
    );

    await primary.stop();
    const away = await failure(put(database, 3));
    t.ok(isDatabaseDown(away), 'while there is no primary');
    await replica.query('select pg_promote()');
    await until(async () => (await failure(put(database, 4))) === undefined);
    t.equal(database.host.host, folderOf(standby));
    t.same(await kept(later), [1, 2, 4], 'the other pool followed as well');

    await command(standby.url, 'alter system set default_transaction_read_only = on');
    await command(standby.url, 'select pg_reload_conf()');
    let refusal: unknown;
    // The setting reaches a connection a moment after it was made: until then a put would be let
    // in.
    const isReadOnly = async (): Promise<boolean> =>
      (
        await sql<{
          is: string;
        }>`select current_setting('default_transaction_read_only') as is`.execute(database.db)
      ).rows[0]?.is === 'on';
    await until(isReadOnly);
    await until(async () => (refusal = await failure(put(database, 5))) !== undefined);
    t.ok(isServerGone(refusal), 'a primary set read-only says so once');
    t.type(await failure(put(database, 5)), NoPrimary, 'and then is no primary');
    await replica.query('set default_transaction_read_only = off');
    await replica.query('alter system reset default_transaction_read_only');
    await replica.query('select pg_reload_conf()');
    await until(async () => (await failure(put(database, 6))) === undefined);
    t.same(await kept(database), [1, 2, 4, 6]);
  },
);

t.test('a host that is silent, closed or unknown costs its time-out and no more', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'vault-hosts-'));
  chmodSync(folder, 0o711);
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const server = await startLocalPostgres({ folder: join(folder, 'one'), isDurable: false });
  t.teardown(() => server.stop());
  const held = new Set<Socket>();
  const silent = createServer((socket) => held.add(socket));
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    for (const socket of held) socket.destroy();
    silent.close();
  });
  const { port } = silent.address() as AddressInfo;
  const hosts = `127.0.0.1,${folder}/absent,${folderOf(server)}`;
  const database = opened(t, `postgresql://vault@/postgres?host=${hosts}&port=${port},5432,5432`, {
    connectTimeoutMs: 150,
  });
  const start = Date.now();
  t.same((await sql`select 1 as n`.execute(database.db)).rows, [{ n: 1 }]);
  t.ok(Date.now() - start < 2_000);
  const tried = held.size;
  await Promise.all([1, 2, 3].map(() => sql`select 1`.execute(database.db)));
  t.equal(held.size, tried, 'the host that answered is asked first from then on');
  const error = await failure(
    sql`select 1`.execute(
      opened(t, `postgresql://vault@/postgres?host=127.0.0.1,${folder}/absent&port=${port},5432`, {
        connectTimeoutMs: 150,
      }).db,
    ),
  );
  t.type(error, NoPrimary);
  t.equal(
    ((error as NoPrimary).cause as AggregateError).errors.length,
    2,
    'with one reason per host',
  );
  t.match((error as NoPrimary).message, /\(no connection; ENOENT\)$/);
});

t.test(
  'callers who wait in the queue of a pool that is given up are served by the next one',
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'vault-hosts-'));
    chmodSync(folder, 0o711);
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const server = await startLocalPostgres({ folder: join(folder, 'one'), isDurable: false });
    t.teardown(() => server.stop());
    const database = opened(t, server.url, { poolMax: 1, connectTimeoutMs: 500 });
    const waiting: Promise<unknown>[] = [];
    const error = await failure(
      database.db.transaction().execute(async (trx) => {
        await sql`select 1`.execute(trx);
        waiting.push(sql`select 1`.execute(database.db), sql`select 1`.execute(database.db));
        await sql`select pg_terminate_backend(pg_backend_pid())`.execute(trx);
      }),
    );
    t.ok(isDatabaseDown(error));
    t.equal((await Promise.all(waiting)).length, 2);
  },
);
