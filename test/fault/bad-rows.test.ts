// What is written in batches, with one row among it that does not fit: it loses itself and no
// other, is counted, and nothing waits behind it.
import { sql } from 'kysely';
import t, { type Test } from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { Outcomes } from '../../src/broker/outcomes.ts';
import { writeApart } from '../../src/db/batches.ts';
import { type Db, openDatabase } from '../../src/db/client.ts';
import { UsageCounter } from '../../src/leases/usage.ts';
import { Retention } from '../../src/retention/service.ts';
import type { EventInput } from '../../src/audit/event.ts';
import type { CredentialId } from '../../src/shared/ids.ts';
import { databaseProxy } from '../helpers/database-proxy.ts';
import { intrude } from '../helpers/intruder.ts';
import { until } from '../helpers/processes.ts';
import { demand, storeOpenai } from '../helpers/leases.ts';
import { addCredentials, makeTeam, tokenVault, type TokenVault } from '../helpers/tokens.ts';
import { startVault } from '../helpers/vault.ts';

const dayMs = 86_400_000;

function auditOf(
  { db, keyring }: Pick<TokenVault, 'db' | 'keyring'>,
  now: () => number = Date.now,
): { audit: AuditLog; told: string[]; causes: unknown[] } {
  const told: string[] = [];
  const causes: unknown[] = [];
  const audit = new AuditLog({
    db,
    keyring,
    now,
    onError: (error) => {
      told.push(error.message);
      causes.push(error.cause);
    },
    onAlarm: () => undefined,
  });
  return { audit, told, causes };
}

const read = (audit: AuditLog, target: string): void => {
  audit.access({
    subject: null,
    team: null,
    action: 'credential.read',
    target,
    status: 200,
    requestId: 'r',
    address: null,
  });
};
const countOf = async (db: Db, what: string): Promise<number> =>
  (await sql.raw<{ n: number }>(`select count(*) as n from ${what}`).execute(db)).rows[0]!.n;
const monthOf = (at: Date): string => at.toISOString().slice(0, 7).replace('-', '_');

t.test('access records: one without a month, or with a value that no column takes', async (t) => {
  const vault = await tokenVault(t);
  const clock = { ms: 0 };
  const { audit, told } = auditOf(vault, () => Date.now() + clock.ms);
  for (let n = 0; n < 700; n += 1) read(audit, `before ${n}`);
  clock.ms = 5 * 365 * dayMs;
  read(audit, 'years ahead');
  clock.ms = -5 * 365 * dayMs;
  read(audit, 'years behind');
  clock.ms = 0;
  read(audit, 'with \0 in it');
  for (let n = 0; n < 700; n += 1) read(audit, `after ${n}`);
  await audit.flush();
  t.equal(await countOf(vault.db, 'access_record'), 1_400, 'all the others, at the first attempt');
  t.equal(
    told
      .filter((line) => /access records do not fit/.test(line))
      .reduce((sum, line) => sum + Number.parseInt(line, 10), 0),
    3,
    told.join(),
  );
  read(audit, 'the next');
  await audit.flush();
  t.equal(await countOf(vault.db, 'access_record'), 1_401);
});

t.test('access records: a month that is missing is made', async (t) => {
  const vault = await tokenVault(t);
  const { audit, told } = auditOf(vault);
  const month = monthOf(new Date());
  for (const table of ['audit_event', 'audit_address', 'access_record'])
    await sql.raw(`drop table ${table}_${month}`).execute(vault.db);
  for (let n = 0; n < 10; n += 1) read(audit, `r${n}`);
  await audit.flush();
  t.equal(await countOf(vault.db, 'access_record'), 10);
  t.same(told, []);
  t.equal(await countOf(vault.db, `pg_class where relname = 'audit_event_${month}'`), 1);
});

t.test(
  'an operation whose event finds no month is refused, and the next one finds it',
  async (t) => {
    const vault = await startVault(t);
    await vault.team('payments');
    const month = monthOf(new Date());
    for (const [n, store] of [
      () => storeOpenai(vault, 'payments', 'one', 'sk-test'),
      () => demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202),
    ].entries()) {
      for (const table of ['audit_event', 'audit_address', 'access_record'])
        await sql.raw(`drop table ${table}_${month}`).execute(vault.db);
      await t.rejects(store(), /expected 20[12], got 503: .*databaseUnavailable/, `${n}`);
      await until(
        async () =>
          (await countOf(vault.db, `pg_class where relname = 'access_record_${month}'`)) === 1,
      );
      await store();
    }
  },
);

t.test(
  'access records: where months cannot be made, the one without a month is still lost alone',
  async (t) => {
    const vault = await tokenVault(t);
    const clock = { ms: 0 };
    const { audit, told } = auditOf(vault, () => Date.now() + clock.ms);
    await sql`alter function audit_make_months rename to audit_make_months_away`.execute(vault.db);
    read(audit, 'before');
    clock.ms = 5 * 365 * dayMs;
    read(audit, 'years ahead');
    clock.ms = 0;
    read(audit, 'after');
    await audit.flush();
    t.equal(await countOf(vault.db, 'access_record'), 2);
    t.match(told, [
      /cannot make the coming months of the audit log/,
      /^1 access records do not fit/,
    ]);
  },
);

t.test(
  "access records: a failure that is nobody's keeps all of them, and is told again",
  async (t) => {
    const vault = await tokenVault(t);
    const { audit, told } = auditOf(vault);
    await sql`create function full_up() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = '53100'; end $$`.execute(
      vault.db,
    );
    await sql`create trigger full_up before insert on access_record for each row execute function full_up()`.execute(
      vault.db,
    );
    for (let n = 0; n < 5; n += 1) read(audit, `r${n}`);
    await audit.flush();
    t.equal(await countOf(vault.db, 'access_record'), 0);
    t.match(told, [/cannot be written; they wait/]);
    await sql`drop trigger full_up on access_record`.execute(vault.db);
    await audit.flush();
    t.equal(await countOf(vault.db, 'access_record'), 5);
  },
);

t.test('outcomes: one that cannot be made, one that does not fit', async (t) => {
  const vault = await tokenVault(t);
  const { team } = await makeTeam(vault, 'payments');
  const { audit } = auditOf(vault);
  const told: string[] = [];
  const outcomes = new Outcomes({
    db: vault.db,
    audit,
    onError: (error) => told.push(error.message),
  });
  const outcome = (requestId: string, caller: object = {}): EventInput => ({
    caller: { subject: null, requestId, address: '10.0.0.1', ...caller },
    team,
    action: 'credential.used',
    target: { type: 'credential', id: 'x' },
  });
  for (let n = 0; n < 20; n += 1) outcomes.add(outcome(`before ${n}`));
  outcomes.add(outcome('an address that cannot be hashed', { address: 7 }));
  outcomes.add(outcome('with \0 in it'));
  outcomes.add(outcome('a subject that is no id', { subject: 'nobody' }));
  for (let n = 0; n < 20; n += 1) outcomes.add(outcome(`after ${n}`));
  await outcomes.flush();
  t.equal(await countOf(vault.db, `audit_event where action = 'credential.used'`), 40);
  t.match(told, [/does not fit the audit log and was lost/, /^2 outcomes of calls do not fit/]);
});

t.test('outcomes: one whose answer was lost is written once', async (t) => {
  const vault = await tokenVault(t);
  const { team } = await makeTeam(vault, 'payments');
  const proxy = await databaseProxy(t, vault.url);
  const database = openDatabase({
    url: `postgresql://vault@127.0.0.1:${proxy.port}/${new URL(vault.url).pathname.slice(1)}`,
    onError: () => undefined,
  });
  t.teardown(() => database.close());
  const { audit } = auditOf({ db: database.db, keyring: vault.keyring });
  const told: string[] = [];
  const outcomes = new Outcomes({
    db: database.db,
    audit,
    onError: (error) => told.push(error.message),
  });
  for (let n = 0; n < 3; n += 1)
    outcomes.add({
      caller: { subject: null, requestId: `r${n}`, address: '10.0.0.1' },
      team,
      action: 'credential.used',
      target: { type: 'credential', id: 'x' },
    });
  proxy.cutAnswerTo('audit_event');
  await outcomes.flush();
  t.match(told, [/they wait \(3\)/]);
  await outcomes.flush();
  t.equal(await countOf(vault.db, `audit_event where action = 'credential.used'`), 3);
  t.equal(await countOf(vault.db, 'audit_address'), 3);
  t.equal(told.length, 1, 'and none is taken for lost');
});

t.test('use counts: one that overflows', async (t) => {
  const vault = await tokenVault(t);
  const ids = await addCredentials(vault, await makeTeam(vault, 'payments'), 20);
  const told: string[] = [];
  const counter = new UsageCounter({
    db: vault.db,
    now: Date.now,
    onError: (error) => told.push(error.message),
  });
  await sql`insert into credential_usage (credential_id, team_id, made_at, use_count) select id, team_id, created_at, 0 from credential on conflict do nothing`.execute(
    vault.db,
  );
  await intrude(
    vault.db,
    `update credential_usage set use_count = 9223372036854775807 where credential_id = '${ids[7]}'`,
  );
  for (const id of ids) counter.count(id);
  await counter.flush();
  t.equal(await countOf(vault.db, 'credential_usage where use_count = 1'), 19);
  t.match(told, [/^use counts of 1 credentials do not fit/]);
  counter.count(ids[3] as CredentialId);
  await counter.flush();
  t.equal(
    await countOf(vault.db, 'credential_usage where use_count = 2'),
    1,
    'nothing waits behind it',
  );
});

t.test('refusals that were only counted: one that does not fit', async (t) => {
  const vault = await tokenVault(t);
  const { team, admin } = await makeTeam(vault, 'payments');
  const { audit, told } = auditOf(vault);
  const refuse = async (action: string, target: string): Promise<void> => {
    for (let n = 0; n < 12; n += 1)
      await audit
        .denial({ caller: admin, team, action, target: { type: 'x', id: target }, reason: 'role' })
        .catch(() => undefined);
  };
  await refuse('a.bad', 'with \0 in it');
  await refuse('a.good', 'fine');
  await audit.stop();
  t.equal(
    await countOf(vault.db, `audit_event where action = 'a.good' and details->>'count' = '2'`),
    1,
  );
  t.match(told, [/^2 refusals do not fit/]);
});

interface Housekeeping {
  readonly vault: Awaited<ReturnType<typeof startVault>>;
  run(): Promise<void>;
}

async function housekeeping(t: Test): Promise<Housekeeping> {
  const vault = await startVault(t);
  const { audit } = auditOf(vault);
  return {
    vault,
    run: () =>
      new Retention({
        db: vault.db,
        audit,
        clock: vault.databaseClock,
        onError: () => undefined,
        batchRows: 4,
      }).run(),
  };
}

t.test('housekeeping: a credential that cannot be destroyed, among those that can', async (t) => {
  const { vault, run } = await housekeeping(t);
  await vault.team('payments');
  const ids: string[] = [];
  for (let n = 0; n < 11; n += 1) {
    const { id } = await storeOpenai(vault, 'payments', `c${n}`, 'sk-test');
    await demand(
      vault.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, { 'if-match': '*' }),
      204,
    );
    ids.push(id);
  }
  const stuck = [ids[0]!, ids[5]!];
  await sql`create function stuck() returns trigger language plpgsql as $$ begin raise exception 'stuck'; end $$`.execute(
    vault.db,
  );
  await sql
    .raw(
      `create trigger stuck before delete on credential for each row when (old.id in ('${stuck.join("','")}')) execute function stuck()`,
    )
    .execute(vault.db);
  vault.clock.ms = 31 * dayMs;
  await t.rejects(run(), { errors: [{ message: '2 deleted credentials cannot be destroyed' }] });
  const { rows } = await sql<{ id: string }>`select id from credential order by id`.execute(
    vault.db,
  );
  t.same(
    rows.map(({ id }) => id),
    [...stuck].sort(),
  );
  t.equal(await countOf(vault.db, `audit_event where action = 'credential.purge'`), 9);
});

t.test('housekeeping: a team that cannot be destroyed holds up no other', async (t) => {
  const { vault, run } = await housekeeping(t);
  for (const slug of ['team-a', 'team-b', 'team-c']) {
    await vault.team(slug);
    await demand(
      vault.call('alice', 'DELETE', `/v1/teams/${slug}`, undefined, { 'if-match': '*' }),
      204,
    );
  }
  await sql`create function stuck() returns trigger language plpgsql as $$ begin raise exception 'stuck'; end $$`.execute(
    vault.db,
  );
  const {
    rows: [first],
  } = await sql<{ id: string }>`select id from team where slug = 'team-a'`.execute(vault.db);
  await sql
    .raw(
      `create trigger stuck before update on data_key for each row when (new.team_id = '${first!.id}' and new.state = 'destroyed') execute function stuck()`,
    )
    .execute(vault.db);
  vault.clock.ms = 8 * dayMs;
  await t.rejects(run(), { errors: [{ message: /team-a cannot be destroyed/ }] });
  t.equal(await countOf(vault.db, 'data_key where wrapped is not null'), 1);
});

t.test('writing apart: what is lost, what is left, and how often is asked', async (t) => {
  const rows = Array.from({ length: 1_000 }, (_, n) => n);
  const bad = Object.assign(new Error('a value'), { code: '22003' });
  const down = Object.assign(new Error('gone'), { code: '57P01' });
  const written: number[] = [];
  let asked = 0;
  const one = await writeApart(rows, async (some) => {
    asked += 1;
    if (some.includes(421)) throw bad;
    written.push(...some);
  });
  t.same([one.lost, one.left, written.length], [[421], [], 999]);
  t.ok(asked <= 22, `${asked} statements for one bad row among a thousand`);
  written.length = 0;
  const broken = await writeApart(rows, async (some) => {
    if (some.includes(3)) throw bad;
    if (some.includes(700)) throw down;
    written.push(...some);
  });
  t.same(broken.lost, [3]);
  t.same(
    [...written, ...broken.lost, ...broken.left].sort((a, b) => a - b),
    rows,
    'nothing else is lost, nothing twice',
  );
  t.ok(broken.left.includes(700) && broken.left.includes(999));
  t.equal((await writeApart([], async () => undefined)).left.length, 0);
});
