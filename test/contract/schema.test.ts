import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { sql } from 'kysely';
import t from 'tap';
import { migrationsFolder } from '../../src/db/migrate.ts';
import { dumpSchema } from '../../src/db/schema-dump.ts';
import { testDatabase } from '../helpers/database.ts';

const committed = join(import.meta.dirname, '../../docs/schema.sql');

t.test('docs/schema.sql is what the migrations make, byte by byte', async (t) => {
  const { db } = await testDatabase(t);
  t.equal(
    await dumpSchema(db),
    readFileSync(committed, 'utf8'),
    'migrate a database, then run `npm run -s vault -- schema > docs/schema.sql` and read the difference',
  );
});

t.test('the dump shows every kind of change to a table', async (t) => {
  const { db } = await testDatabase(t);
  await sql`create table probe (id int)`.execute(db);
  let before = await dumpSchema(db);
  const changes = [
    'add column n int',
    'alter column n set not null',
    'alter column n set default 7',
    'add column m int generated always as identity',
    'add column g int generated always as (id + 1) stored',
    'add column c text collate "C"',
    'add constraint probe_check check (n > 0)',
    'add constraint probe_exclude exclude using btree (m with =)',
    'add constraint probe_unique unique (n)',
    'alter column n type bigint',
    'add constraint probe_fkey foreign key (n) references probe (n)',
  ];
  const others = [
    `comment on table probe is 'x'`,
    `comment on column probe.n is 'x'`,
    'create index probe_index on probe (id) where id > 0',
    'create function probe_function() returns trigger language plpgsql as $$ begin return new; end $$',
    'create trigger probe_trigger before insert on probe for each row execute function probe_function()',
    'create or replace function probe_function() returns trigger language plpgsql as $$ begin return null; end $$',
    'drop table probe cascade',
  ];
  for (const change of [...changes.map((change) => `alter table probe ${change}`), ...others]) {
    await sql.raw(change).execute(db);
    const after = await dumpSchema(db);
    t.not(after, before, change);
    before = after;
  }
});

t.test(
  'months come and go without a trace, and what the dump cannot show is an error',
  async (t) => {
    const { db } = await testDatabase(t);
    const before = await dumpSchema(db);
    await sql`create table audit_event_2001_01 partition of audit_event for values from ('2001-01-01') to ('2001-02-01')`.execute(
      db,
    );
    t.equal(await dumpSchema(db), before);
    const strangers = [
      ['create view odd as select 1 as n', 'drop view odd'],
      ['create sequence odd', 'drop sequence odd'],
      [`create type odd as enum ('a')`, 'drop type odd'],
      ['create domain odd as int', 'drop domain odd'],
      ['create table odd partition of audit_event default', 'drop table odd'],
      ['create materialized view odd as select 1 as n', 'drop materialized view odd'],
      ['create policy odd on team', 'drop policy odd on team'],
      ['create rule odd as on insert to team do instead nothing', 'drop rule odd on team'],
      ['create aggregate odd (int) (sfunc = int4pl, stype = int)', 'drop aggregate odd (int)'],
    ] as const;
    for (const [make, drop] of strangers) {
      await sql.raw(make).execute(db);
      await t.rejects(dumpSchema(db), /does not know how to show odd/, make);
      await sql.raw(drop).execute(db);
    }
    await sql`alter table team enable row level security`.execute(db);
    await t.rejects(dumpSchema(db), /team/);
  },
);

t.test('migrations are plain statements: none opens or ends a transaction', async (t) => {
  for (const name of readdirSync(migrationsFolder)) {
    const text = readFileSync(join(migrationsFolder, name), 'utf8')
      .replace(/\$\$[\s\S]*?\$\$/g, '')
      .replace(/--.*$/gm, '');
    t.notMatch(text, /\b(begin|commit|rollback|savepoint|concurrently)\b/i, name);
  }
});
