import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import pg from 'pg';
import t, { type Test } from 'tap';
import type { Db } from '../../src/db/client.ts';
import { migrate, SchemaUnknown, schemaState } from '../../src/db/migrate.ts';
import { testDatabase } from '../helpers/database.ts';
import { runModule, until } from '../helpers/processes.ts';

const runner = `
  import { migrate } from ${JSON.stringify(join(import.meta.dirname, '../../src/db/migrate.ts'))};
  const [url, folder] = process.argv.slice(1);
  console.log('applied ' + JSON.stringify(await migrate(url, folder)));`;

function migrations(t: Test, files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'vault-migrations-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}

async function tablesOf(db: Db): Promise<string[]> {
  const { rows } = await sql<{
    name: string;
  }>`select relname as name from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace order by 1`.execute(
    db,
  );
  return rows.map(({ name }) => name);
}

const two = {
  '0001_create_a.sql': 'create table a (n int);',
  '0002_create_b.sql': 'create table b (n int); insert into b values (1);',
};

// A migration that stops in the middle until the test lets it go.
const waitHere = { '0003_wait_here.sql': 'select pg_advisory_xact_lock(42);' };

async function holdUp(
  t: Test,
  url: string,
): Promise<{ waiting(): Promise<number>; release(): Promise<unknown> }> {
  const holder = new pg.Client({ connectionString: url });
  await holder.connect();
  t.teardown(() => holder.end());
  await holder.query('select pg_advisory_lock(42)');
  return {
    waiting: async () =>
      (
        await holder.query(
          "select 1 from pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())",
        )
      ).rows.length,
    release: () => holder.query('select pg_advisory_unlock(42)'),
  };
}

t.test('pending files are applied once, in order, and their checksums kept', async (t) => {
  const { url, db } = await testDatabase(t, { empty: true });
  const folder = migrations(t, { '0001_create_a.sql': two['0001_create_a.sql'] });
  t.equal(await schemaState(db, folder), 'behind');
  t.same(await migrate(url, folder), ['0001_create_a.sql']);
  t.equal(await schemaState(db, folder), 'current');
  writeFileSync(join(folder, '0002_create_b.sql'), two['0002_create_b.sql']);
  t.equal(await schemaState(db, folder), 'behind');
  t.same(await migrate(url, folder), ['0002_create_b.sql']);
  t.same(await migrate(url, folder), []);
  t.equal(await schemaState(db, folder), 'current');
  t.same(await tablesOf(db), ['a', 'b', 'schema_migration']);
  const { rows } = await sql<{
    bytes: number;
  }>`select distinct octet_length(checksum) as bytes from schema_migration`.execute(db);
  t.same(rows, [{ bytes: 32 }]);
});

t.test(
  'the migrations of this release bring an empty database up to date, and then have nothing to do',
  async (t) => {
    const { url, db } = await testDatabase(t, { empty: true });
    t.ok((await migrate(url)).length > 0);
    t.equal(await schemaState(db), 'current');
    t.same(await migrate(url), []);
  },
);

t.test(
  'a file that fails leaves the database as it was, the earlier pending files included',
  async (t) => {
    const { url, db } = await testDatabase(t, { empty: true });
    const folder = migrations(t, {
      ...two,
      '0003_break_things.sql': 'create table c (n int); select 1/0;',
    });
    await t.rejects(migrate(url, folder), {
      message: /0003_break_things\.sql failed \(22012\); nothing was changed/,
      cause: { code: '22012' },
    });
    t.same(await tablesOf(db), []);
  },
);

t.test('an applied file that was edited afterwards is refused', async (t) => {
  const { url, db } = await testDatabase(t, { empty: true });
  const folder = migrations(t, two);
  await migrate(url, folder);
  writeFileSync(join(folder, '0001_create_a.sql'), `${two['0001_create_a.sql']} `);
  writeFileSync(join(folder, '0003_create_c.sql'), 'create table c (n int);');
  await t.rejects(migrate(url, folder), SchemaUnknown);
  await t.rejects(migrate(url, folder), /migration 1 was applied with other content/);
  t.equal(await schemaState(db, folder), 'unknown');
  t.notOk((await tablesOf(db)).includes('c'));
});

t.test('a database that a later release migrated is refused', async (t) => {
  const { url, db } = await testDatabase(t, { empty: true });
  await migrate(url, migrations(t, two));
  const older = migrations(t, { '0001_create_a.sql': two['0001_create_a.sql'] });
  await t.rejects(migrate(url, older), /it holds migration 2/);
  t.equal(await schemaState(db, older), 'unknown');
});

t.test('a renamed file, a gap in the numbers and a bad name are refused', async (t) => {
  const { url } = await testDatabase(t, { empty: true });
  await migrate(url, migrations(t, two));
  await t.rejects(migrate(url, migrations(t, { ...two, '0003_b.sql': '' })), /0003_b\.sql is not/);
  await t.rejects(migrate(url, migrations(t, { ...two, '0004_create_d.sql': '' })), /without gaps/);
  await t.rejects(
    migrate(
      url,
      migrations(t, {
        '0001_create_a.sql': two['0001_create_a.sql'],
        '0002_create_z.sql': two['0002_create_b.sql'],
      }),
    ),
    SchemaUnknown,
  );
});

t.test('a file that ends its own transaction is refused', async (t) => {
  const { url } = await testDatabase(t, { empty: true });
  await t.rejects(
    migrate(url, migrations(t, { '0001_commit_early.sql': 'create table a (n int); commit;' })),
    /ended the transaction/,
  );
});

t.test(
  'of several that start at once one migrates, the others wait and find nothing to do',
  async (t) => {
    const { url, db } = await testDatabase(t, { empty: true });
    const folder = migrations(t, { ...two, ...waitHere });
    const { waiting, release } = await holdUp(t, url);
    const programs = Array.from({ length: 5 }, () => runModule(t, runner, [url, folder]));
    await until(async () => (await waiting()) === 5);
    await release();
    t.same(await Promise.all(programs.map(({ ended }) => ended)), [0, 0, 0, 0, 0]);
    const applied = programs.map(({ output }) => output().trim()).sort();
    t.same(applied, [
      'applied ["0001_create_a.sql","0002_create_b.sql","0003_wait_here.sql"]',
      ...Array.from({ length: 4 }, () => 'applied []'),
    ]);
    t.same((await sql`select n from b`.execute(db)).rows, [{ n: 1 }]);
  },
);

t.test(
  'one that is killed in the middle leaves nothing behind, and the next one completes',
  async (t) => {
    const { url, db } = await testDatabase(t, { empty: true });
    const folder = migrations(t, { ...two, ...waitHere });
    const { waiting, release } = await holdUp(t, url);
    const { child, ended } = runModule(t, runner, [url, folder]);
    await until(async () => (await waiting()) === 1);
    child.kill('SIGKILL');
    t.equal(await ended, 'SIGKILL');
    t.same(await tablesOf(db), [], 'what it had done is not visible');
    await release();
    t.same(await migrate(url, folder), [
      '0001_create_a.sql',
      '0002_create_b.sql',
      '0003_wait_here.sql',
    ]);
    t.equal(await schemaState(db, folder), 'current');
  },
);
