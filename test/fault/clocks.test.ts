// A replica whose clock is wrong, and a database whose clock is: nothing goes before its time, by
// nobody's word, and what the replica says of the time is the database's.
import type { FastifyRequest } from 'fastify';
import { sql } from 'kysely';
import t, { type Test } from 'tap';
import { Retention } from '../../src/retention/service.ts';
import { Subjects } from '../../src/db/subjects.ts';
import { Idempotency } from '../../src/http/idempotency.ts';
import { DatabaseClock } from '../../src/db/clock.ts';
import { ClockWatch } from '../../src/db/clock-watch.ts';
import { insertNextSystemKeys, openKeyring } from '../../src/keys/system-keys.ts';
import { SystemKeyKeeper } from '../../src/keys/system-key-keeper.ts';
import { parseRootKeys } from '../../src/crypto/index.ts';
import { clockOf, type MovedTime, timeOf } from '../helpers/clock.ts';
import { testDatabase } from '../helpers/database.ts';
import { demand, storeOpenai } from '../helpers/leases.ts';
import { replicaOf } from '../helpers/replicas.ts';
import { activeKey, ended, makeTeam, noClaim, tokenVault } from '../helpers/tokens.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';
import type { Caller } from '../../src/access/caller.ts';

const dayMs = 86_400_000;
const url = '/v1/teams/payments/credentials';
const any = { 'if-match': '*' };
const raise = (error: Error): never => {
  throw error;
};

t.test('a replica that is days ahead destroys no key that still waits', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  const { id } = await activeKey(vault.db, of.team.id);
  const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
  vault.worker().start();
  await ended(vault, of.team, rotation.id);
  await vault.life.retireKey(of.admin, of.team, id);
  const state = async (): Promise<string> => (await vault.keys.getKey(of.team, id)).state;

  const ahead = await replicaOf(t, vault, { skew: { ms: 8 * dayMs } });
  await ahead.life.scheduleDestroy(of.admin, of.team, id, 7);
  const { rows } = await sql<{ waits: boolean }>`
    select destroy_at between now() + interval '6 days 23 hours' and now() + interval '7 days 1 hour' as waits from data_key where id = ${id}`.execute(
    vault.db,
  );
  t.ok(rows[0]?.waits, 'its seven days are those of the database');
  t.same(await ahead.scheduler.run(), { rotations: 0, destroyed: 0 });
  t.equal(await state(), 'destroyPending');
  t.equal(
    await refusal(
      vault.db,
      `update data_key set state = 'destroyed', wrapped = null, destroyed_at = now() + interval '8 days' where id = '${id}'`,
    ),
    'data_key_destroy_waits',
    'what a writer says of the time moves no trigger',
  );

  vault.time.ms = 7 * dayMs + 60_000;
  for (const ms of [5_000, -5_000, 8 * dayMs, -8 * dayMs]) {
    const wrong = await replicaOf(t, vault, { skew: { ms } });
    await t.rejects(wrong.life.destroyDue(), { name: 'ClockDiffers' }, `${ms} ms off`);
    t.equal(await state(), 'destroyPending', `${ms} ms off: it stays`);
  }
  const near = await replicaOf(t, vault, { skew: { ms: 1_000 } });
  t.equal(await near.life.destroyDue(), 1, 'a second off is right enough');
  t.equal(await state(), 'destroyed');
});

t.test('a writer that is days ahead shortens no waiting time', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  const { db } = vault;
  const { id } = await activeKey(db, of.team.id);
  const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
  vault.worker().start();
  await ended(vault, of.team, rotation.id);
  await vault.life.retireKey(of.admin, of.team, id);
  // As the release before sends it: times of its own.
  await sql`update data_key set state = 'destroyPending', destroy_scheduled_at = now() + interval '9 days', destroy_at = now() + interval '17 days' where id = ${id}`.execute(
    db,
  );
  const { rows } = await sql<{ days: number; isNow: boolean }>`
    select (extract(epoch from destroy_at - destroy_scheduled_at) / 86400)::int as days,
      abs(extract(epoch from destroy_scheduled_at - now())) < 60 as "isNow" from data_key where id = ${id}`.execute(
    db,
  );
  t.same(rows, [{ days: 8, isNow: true }]);

  await sql`update team set deleted_at = now() - interval '30 days' where id = ${of.team.id}`.execute(
    db,
  );
  const deleted = await sql<{ isNow: boolean }>`
    select abs(extract(epoch from deleted_at - now())) < 60 as "isNow" from team where id = ${of.team.id}`.execute(
    db,
  );
  t.same(deleted.rows, [{ isNow: true }], 'a team is deleted when it is deleted');
  await sql`update team set deleted_at = now() - interval '30 days' where id = ${of.team.id}`.execute(
    db,
  );
  t.equal(
    await refusal(
      db,
      `update data_key set state = 'destroyed', wrapped = null, destroyed_at = now()`,
    ),
    'data_key_state_machine',
    'and waits, whatever is written over it',
  );
});

interface Stage {
  readonly vault: TestVault;
  readonly skew: MovedTime;
  left(): Promise<number[]>;
  clean(): Promise<void>;
}

/** Everything that goes by time, and its time is over. */
async function overdueStage(t: Test): Promise<Stage> {
  const skew = { ms: 0 };
  const vault = await startVault(t, { skew, oauthRedirectUri: 'https://platform.test/callback' });
  const { db, call } = vault;
  await vault.team('payments');
  await vault.team('doomed');
  await vault.team('sales', ['sam']);
  const { id } = await storeOpenai(vault, 'payments', 'gone', 'sk-gone');
  await demand(call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any), 204);
  const offered = await storeOpenai(vault, 'payments', 'offered', 'sk-offered');
  await demand(
    call('alice', 'POST', `/v1/credentials/${offered.id}/transfers`, { team: 'sales' }),
    201,
  );
  await demand(
    call(
      'alice',
      'POST',
      url,
      { name: 'keyed', type: 'openai', fields: { apiKey: 'sk-keyed' } },
      { 'idempotency-key': 'the-key' },
    ),
    201,
  );
  await demand(call('alice', 'DELETE', '/v1/teams/doomed', undefined, any), 204);
  const month = (
    await sql<{
      month: string;
    }>`select to_char(now() - interval '14 months', 'YYYY_MM') as month`.execute(db)
  ).rows[0]!.month;
  await sql
    .raw(
      `create table access_record_${month} partition of access_record for values from ('${month.replace('_', '-')}-01') to ('${month.replace('_', '-')}-02')`,
    )
    .execute(db);
  const { databaseClock } = vault;
  const left = async (): Promise<number[]> => {
    const { rows } = await sql<{ n: number[] }>`select array[
      (select count(*) from credential where id = ${id}), (select count(*) from credential_transfer), (select count(*) from idempotency_record),
      (select count(*) from data_key join team on team.id = team_id where slug = 'doomed' and wrapped is not null),
      (select count(*) from pg_class where relname = ${`access_record_${month}`})]::int[] as n`.execute(
      db,
    );
    return rows[0]!.n;
  };
  const { AuditLog } = await import('../../src/audit/record.ts');
  const audit = new AuditLog({
    db,
    keyring: vault.keyring,
    now: Date.now,
    onError: raise,
    onAlarm: () => undefined,
  });
  const clean = (): Promise<void> =>
    new Retention({ db, audit, clock: databaseClock, onError: raise }).run();
  return { vault, skew, left, clean };
}

t.test(
  'housekeeping takes nothing away while the clocks differ, whichever of them is wrong',
  async (t) => {
    const { vault, skew, left, clean } = await overdueStage(t);
    for (const ms of [60 * dayMs, 5_000]) {
      skew.ms = ms;
      await t.rejects(clean(), { errors: [{ name: 'ClockDiffers' }] }, `${ms} ms ahead`);
      t.same(await left(), [1, 1, 1, 1, 1], `${ms} ms ahead`);
    }
    // The database's clock leaps, as where another host takes over, and the replica's does not.
    vault.clock.ms = 60 * dayMs;
    for (const ms of [-60 * dayMs, -5_000]) {
      skew.ms = ms;
      await t.rejects(clean(), { errors: [{ name: 'ClockDiffers' }] }, `${-ms} ms behind`);
      t.same(await left(), [1, 1, 1, 1, 1], `${-ms} ms behind`);
    }
    skew.ms = -1_000;
    await clean();
    t.same(await left(), [0, 0, 0, 0, 0], 'and takes all of it when they agree');
  },
);

t.test(
  'a host that takes over with a wrong clock while housekeeping runs takes nothing away either',
  async (t) => {
    const { vault, skew, left } = await overdueStage(t);
    const { AuditLog } = await import('../../src/audit/record.ts');
    const audit = new AuditLog({
      db: vault.db,
      keyring: vault.keyring,
      now: Date.now,
      onError: raise,
      onAlarm: () => undefined,
    });
    let looks = 0;
    const { databaseClock } = vault;
    const retention = new Retention({
      db: vault.db,
      audit,
      onError: raise,
      clock: {
        demandAgreement: async (executor) => {
          await databaseClock.demandAgreement(executor);
          looks += 1;
          // The next look is at another host.
          vault.clock.ms = 60 * dayMs;
          skew.ms = -60 * dayMs;
        },
      },
    });
    await t.rejects(retention.run(), { errors: [{ name: 'ClockDiffers' }] });
    t.equal(looks, 1);
    t.same(await left(), [1, 1, 1, 1, 1]);
  },
);

t.test(
  'an idempotency key is remembered for its day by both clocks, and for longer where they differ',
  async (t) => {
    const skew = { ms: 0 };
    const vault = await startVault(t, { skew });
    await vault.team('payments');
    const store = async (key: string): Promise<string> =>
      (
        await demand(
          vault.call(
            'alice',
            'POST',
            url,
            { name: key, type: 'openai', fields: { apiKey: 'sk' } },
            { 'idempotency-key': key },
          ),
          201,
        )
      ).id;
    const first = await store('a');
    skew.ms = 25 * 3_600_000;
    t.equal(await store('a'), first, 'a replica that is a day ahead has not forgotten it');
    await vault.databaseClock.measure();
    t.equal(await store('a'), first);
    skew.ms = 0;
    await vault.databaseClock.measure();
    await sql`update idempotency_record set created_at = created_at - interval '25 hours'`.execute(
      vault.db,
    );
    skew.ms = 5_000;
    await vault.databaseClock.measure();
    t.equal(await store('a'), first, 'over, and kept by who is five seconds off');
    skew.ms = -2 * dayMs;
    t.equal(await store('a'), first, 'nor does one forget it that has just been set back');
    skew.ms = 0;
    await vault.databaseClock.measure();
    const again = await vault.call(
      'alice',
      'POST',
      url,
      { name: 'a', type: 'openai', fields: { apiKey: 'sk' } },
      { 'idempotency-key': 'a' },
    );
    t.match(again, { status: 409, json: { code: 'nameTaken' } }, 'but over it is, once they agree');
  },
);

t.test('a host that takes over days ahead makes nobody forget an idempotency key', async (t) => {
  const vault = await startVault(t);
  const caller = await new Subjects().ensure(vault.db, 'alice');
  const idempotency = new Idempotency({
    db: vault.db,
    keyring: vault.keyring,
    // What was so at the last look; the other host has not been looked at yet.
    clock: { isAgreed: true, own: Date.now },
  });
  const request = {
    headers: { 'idempotency-key': 'x' },
    method: 'POST',
    routeOptions: { url: '/x' },
    params: {},
    body: {},
  } as unknown as FastifyRequest;
  const run = (id: string): Promise<string> =>
    idempotency.run({
      request,
      caller: { subject: caller } as Caller,
      execute: async (claim) => {
        await claim(vault.db, id);
        return id;
      },
      load: async (target) => target,
    });
  t.equal(await run('first'), 'first');
  vault.clock.ms = 8 * dayMs;
  t.equal(await run('second'), 'first');
});

t.test('what a replica with a wrong clock writes and lets in goes by the database', async (t) => {
  for (const ms of [8 * dayMs, -8 * dayMs]) {
    const vault = await startVault(t, { skew: { ms } });
    const at = Date.now();
    await vault.team('payments');
    const { createdAt } = await storeOpenai(vault, 'payments', 'one', 'sk-one');
    t.ok(Math.abs(Date.parse(createdAt) - at) < 60_000, `${ms} ms off: ${createdAt}`);
    const { items } = await demand(
      vault.call('alice', 'GET', '/v1/teams/payments/audit-events'),
      200,
    );
    t.ok(items.every((event: { at: string }) => Math.abs(Date.parse(event.at) - at) < 60_000));
  }
});

t.test(
  'a token that is over lets nobody in at a replica that is behind, and a fresh one does',
  async (t) => {
    const vault = await startVault(t, { skew: { ms: -3_600_000 } });
    const at = Math.floor(Date.now() / 1000);
    const as = async (claims: Record<string, number>): Promise<number> =>
      (
        await vault.call(null, 'GET', '/v1/whoami', undefined, {
          authorization: `Bearer ${await vault.token('alice', claims)}`,
        })
      ).status;
    t.equal(await as({ iat: at - 1_800, exp: at - 60 }), 401);
    t.equal(await as({ iat: at, exp: at + 600 }), 200);
  },
);

t.test("the turn of a system key, and its end, are the database's to say", async (t) => {
  const vault = await tokenVault(t);
  const { db } = vault;
  const nextFrom = (at: Date): Promise<void> =>
    db
      .transaction()
      .execute((trx) => insertNextSystemKeys(trx, vault.keyring, { leaseSigning: at, others: at }));
  await nextFrom(new Date(Date.now() + dayMs));
  const ahead = await clockOf(db, { skew: { ms: 8 * dayMs } });
  const version = async (): Promise<number> =>
    (
      await openKeyring({ db, roots: parseRootKeys(vault.rootKeys), now: ahead.clock.now })
    ).rowMacVersion();
  t.equal(await version(), 1, 'a replica that is days ahead waits for it');
  vault.time.ms = dayMs + 60_000;
  t.equal(await version(), 2);
  vault.time.ms = 2 * dayMs + 60_000;
  const keeping = {
    keyring: { loadSystemKeys: () => [], isTakenOver: true, hasUnclosedKeys: false } as never,
    audit: undefined as never,
    onError: raise,
    reseal: async () => 0,
    takeOver: async () => 0,
  };
  const keeper = new SystemKeyKeeper({
    db,
    ...keeping,
    clock: ahead.clock,
  });
  await t.rejects(keeper.run(), { name: 'ClockDiffers' });
  const retired = async (): Promise<number> =>
    (
      await sql<{
        n: number;
      }>`select count(*) as n from system_key where retired_at is not null`.execute(db)
    ).rows[0]!.n;
  t.equal(await retired(), 0);
  const right = await clockOf(db);
  await new SystemKeyKeeper({
    db,
    ...keeping,
    clock: right.clock,
  }).run();
  t.equal(await retired(), 1);
});

t.test('a slow database does not pass for a wrong clock, nor for a right one', async (t) => {
  const { db } = await testDatabase(t);
  let steadyMs = 0;
  const slow = new DatabaseClock({ db, steadyMs: () => (steadyMs += 40_000) });
  const difference = await slow.measure();
  t.ok(
    difference.atMostMs - difference.atLeastMs >= 40_000,
    'it is known no better than the round trip took',
  );
  t.ok(await slow.isNearEnough(), 'the replica stays ready');
  t.notOk(slow.isAgreed);
  await t.rejects(
    slow.demandAgreement(),
    { name: 'ClockUncertain' },
    'and destroys nothing meanwhile',
  );
  const far = new DatabaseClock({
    db,
    wallMs: () => Date.now() + 90_000,
    steadyMs: () => (steadyMs += 40_000),
  });
  t.notOk(
    await far.isNearEnough(),
    'what is further off than the answer was slow shows all the same',
  );
});

t.test("the clock is the database's, and stays it when the replica's own is set", async (t) => {
  const { db } = await testDatabase(t);
  const skew = { ms: 0 };
  const { clock } = await clockOf(db, { skew });
  const isRight = (): boolean => Math.abs(clock.now() - Date.now()) < 30_000;
  skew.ms = 8 * dayMs;
  t.ok(isRight(), 'without a look');
  await clock.measure();
  t.ok(isRight());
  const time = await timeOf(db);
  time.ms = 3 * dayMs;
  await clock.measure();
  t.ok(Math.abs(clock.now() - Date.now() - 3 * dayMs) < 30_000, "the database's is followed");
});

t.test('parting clocks are told of once a minute, and when they agree again', async (t) => {
  const { db } = await testDatabase(t);
  const skew = { ms: 0 };
  const { clock } = await clockOf(db, { skew });
  const told: string[] = [];
  const watch = new ClockWatch({
    clock,
    onDifference: (aheadMs) => told.push(`ahead ${Math.round(aheadMs / 1_000)}`),
    onAgreement: () => told.push('agreed'),
  });
  await watch.run();
  skew.ms = 5_000;
  await watch.run();
  await watch.run();
  skew.ms = 0;
  await watch.run();
  await watch.run();
  t.same(told, ['ahead 5', 'agreed']);
});

async function refusal(db: TestVault['db'], statement: string): Promise<string | undefined> {
  return sql
    .raw(statement)
    .execute(db)
    .then(
      () => undefined,
      (error: { constraint?: string }) => error.constraint,
    );
}
