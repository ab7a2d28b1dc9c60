// What may have written, by its text: nothing that writes passes for a read, however it is spelled.
import t from 'tap';
import { mayWrite, writesWhereItFinds } from '../../src/db/writing.ts';

const reads = [
  'select 1',
  '  SELECT 1',
  '(select 1) union (select 2)',
  'values (1)',
  'table team',
  'show server_version',
  'select count(*), max(at) from audit_event where at > now()',
  'with open as materialized (select id from team where id in (select 1)) select coalesce(sum(1), 0) from open',
  'select * from unnest($1::uuid[], $2::int[]) with ordinality as held (id, count)',
  'select id from team for update',
  'select id from team for no key update skip locked',
  'select id from team for key share',
  'select id from credential where updated_at is null and is_deleted and set_at > $1',
  `select 'insert into team' as word`,
  `select 'it''s; delete from team'`,
  `select E'\\'; delete from team --'`,
  'select "update" from "delete"',
  'select $$ insert into team $$',
  'select $a$ drop table team $$ $a$',
  'select 1 -- ; delete from team',
  'select /* update team */ 1;',
  'begin',
  'start transaction isolation level read committed',
  'rollback',
  'savepoint outbox',
];
const writes = [
  'insert into team values (1)',
  'INSERT INTO team values (1)',
  '/* a read */ delete from team',
  '-- a read\nupdate team set name = $1',
  'with made as (insert into team values (1) returning id) select id from made',
  'with gone as (delete from team returning id) select count(*) from gone',
  'merge into team using x on true when matched then do nothing',
  'select id into kept from team',
  'select audit_make_months(3)',
  'select pg_current_xact_id()',
  `select nextval('s')`,
  `select pg_catalog.set_config('a', 'b', false)`,
  `select "audit_make_months"(3)`,
  'select public.audit_drop_months (1)',
  `select pg_logical_emit_message(true, 'x', '')`,
  'select lo_unlink(1)',
  'do $$ begin perform 1; end $$',
  'call something()',
  'commit',
  'truncate team',
  'create table x (n int)',
  'copy team from stdin',
  'explain analyze delete from team',
  'notify x',
  'select 1; delete from team',
  `select 1; select 'x'`,
  `select 'open`,
  'select /* /* nested */ delete from team */ 1',
  '',
  ';',
  'unheard of',
];

t.test('a read is a read', async (t) => {
  for (const text of reads) t.equal(mayWrite(text), false, text);
});

t.test('everything else may have written', async (t) => {
  for (const text of writes) t.equal(mayWrite(text), true, text);
});

t.test(
  'what takes part in the log where it finds rows: changes and locks, by no literal',
  async (t) => {
    for (const text of [
      'insert into team values (1)',
      'with made as (insert into team values (1) returning id) select id from made',
      'select id from team for update',
      'select id from team for key share',
    ])
      t.equal(writesWhereItFinds(text), true, text);
    for (const text of [
      'select 1',
      `select 'update'`,
      'select "insert" from team',
      'select audit_make_months(3)',
    ])
      t.equal(writesWhereItFinds(text), false, text);
  },
);
