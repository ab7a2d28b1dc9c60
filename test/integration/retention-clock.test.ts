// What is kept how long, with a clock that travels: nothing goes a moment early, everything goes in
// its time, with its event.
import t from 'tap';
import { sql } from 'kysely';
import { AuditLog } from '../../src/audit/record.ts';
import { Retention } from '../../src/retention/service.ts';
import { startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const dayMs = 86_400_000;

t.test('retention', async (t) => {
  const vault = await startVault(t);
  const { call, db, keyring } = vault;
  // The audit log's months go by the server's own clock, which does not travel: so its events stay
  // in this month.
  const { clock, databaseClock } = vault;
  const audit = new AuditLog({
    db,
    keyring,
    now: Date.now,
    onError: (error) => {
      throw error;
    },
    onAlarm: () => undefined,
  });
  const errors: Error[] = [];
  const retention = new Retention({
    db,
    audit,
    clock: databaseClock,
    onError: (error) => {
      errors.push(error);
    },
    batchRows: 5,
  });
  const count = async (text: string): Promise<number> =>
    (await sql.raw<{ n: number }>(`select count(*) as n from ${text}`).execute(db)).rows[0]?.n ?? 0;
  await vault.team('payments');
  const store = async (name: string, team = 'payments'): Promise<string> =>
    (
      await call(
        'alice',
        'POST',
        `/v1/teams/${team}/credentials`,
        { name, type: 'bearer', fields: { token: 'x' } },
        { 'idempotency-key': `${team}-${name}` },
      )
    ).json.id;
  const remove = async (id: string): Promise<unknown> =>
    call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any);

  t.test(
    'a deleted credential goes after 30 days, with its versions, its counts and an event; living ones stay',
    async (t) => {
      const [gone, stays] = [await store('gone'), await store('stays')];
      await call('alice', 'PATCH', `/v1/credentials/${gone}`, { fields: { token: 'y' } }, any);
      await sql`update credential_usage set use_count = 3, last_used_at = now() where credential_id = ${gone}`.execute(
        db,
      );
      await remove(gone);
      clock.ms = 30 * dayMs - 60_000;
      await retention.run();
      t.equal(
        await count(`credential_version where credential_id = '${gone}'`),
        2,
        'not a minute before',
      );
      t.equal(await count(`audit_event where action = 'credential.purge'`), 0);
      clock.ms = 30 * dayMs + 60_000;
      await retention.run();
      t.strictSame(
        await Promise.all([
          count(`credential where id = '${gone}'`),
          count(`credential_version where credential_id = '${gone}'`),
          count(`credential_usage where credential_id = '${gone}'`),
          count(`credential where id = '${stays}'`),
        ]),
        [0, 0, 0, 1],
      );
      t.match(
        (await call('alice', 'GET', `/v1/teams/payments/audit-events?target=${gone}&limit=1`)).json
          .items,
        [
          {
            action: 'credential.purge',
            actor: null,
            reason: 'retention',
            decision: 'allow',
            intact: true,
          },
        ],
      );
      await retention.run();
      t.equal(await count(`audit_event where action = 'credential.purge'`), 1, 'once');
      clock.ms = 0;
    },
  );

  t.test(
    'a deleted team is destroyed after 7 days, its wrapped keys included; its slug is never given again',
    async (t) => {
      await vault.team('doomed', ['alice', 'bob']);
      const ids = await Promise.all(Array.from({ length: 12 }, (_, i) => store(`c${i}`, 'doomed')));
      await call('alice', 'POST', '/v1/teams/doomed/key-rotations');
      for (const id of ids) await remove(id);
      const {
        rows: [team],
      } = await sql<{ id: string }>`select id from team where slug = 'doomed'`.execute(db);
      t.equal((await call('alice', 'DELETE', '/v1/teams/doomed', undefined, any)).status, 204);
      // Of keys the tombstones stay.
      const held = (): Promise<number[]> =>
        Promise.all(
          [
            'data_key where wrapped is not null and',
            'credential where',
            'credential_version where',
            'membership where',
            'key_rotation where',
          ].map((rows) => count(`${rows} team_id = '${team?.id}'`)),
        );
      clock.ms = 7 * dayMs - 60_000;
      await retention.run();
      t.strictSame(await held(), [2, 12, 12, 2, 1], 'not a minute before');
      clock.ms = 7 * dayMs + 60_000;
      await Promise.all([
        retention.run(),
        new Retention({
          db,
          audit,
          clock: databaseClock,
          onError: () => undefined,
        }).run(),
      ]);
      t.strictSame(await held(), [0, 0, 0, 0, 0], 'two replicas do it once');
      t.equal(
        await count(`audit_event where team_id = '${team?.id}' and action = 'team.purge'`),
        1,
      );
      t.ok(
        (await count(
          `audit_event where team_id = '${team?.id}' and action = 'credential.create'`,
        )) > 0,
        'its audit log stays',
      );
      t.equal(
        (await call('operator', 'POST', '/v1/teams', { slug: 'doomed', name: 'x', admins: ['x'] }))
          .json.code,
        'slugTaken',
      );
      t.ok(
        (await count(`data_key where team_id = (select id from team where slug = 'payments')`)) > 0,
        'others keep their keys',
      );
      clock.ms = 0;
    },
  );

  t.test(
    'a batch is a batch: what is left of a large team waits for the next one, and the keys go last',
    async (t) => {
      await vault.team('large');
      for (const id of await Promise.all(
        Array.from({ length: 7 }, (_, i) => store(`c${i}`, 'large')),
      ))
        await remove(id);
      await call('alice', 'DELETE', '/v1/teams/large', undefined, any);
      await sql
        .raw(`create function few() returns trigger language plpgsql as $$ begin
      if (select count(*) from gone) > 5 then raise exception 'too many at once'; end if; return null; end $$;
      create trigger few after delete on credential referencing old table as gone for each statement execute function few()`)
        .execute(db);
      clock.ms = 7 * dayMs + 60_000;
      await retention.run();
      t.strictSame(
        [
          await count(`credential join team on team.id = team_id where slug = 'large'`),
          await count(
            `data_key join team on team.id = team_id where slug = 'large' and wrapped is not null`,
          ),
        ],
        [0, 0],
      );
      await sql`drop trigger few on credential`.execute(db);
      clock.ms = 0;
    },
  );

  t.test('idempotency records go after 24 hours', async (t) => {
    await store('once');
    const n = await count('idempotency_record');
    t.ok(n > 0);
    clock.ms = dayMs - 60_000;
    await retention.run();
    t.equal(await count('idempotency_record'), n);
    clock.ms = dayMs + 60_000;
    await retention.run();
    t.equal(await count('idempotency_record'), 0);
    clock.ms = 0;
  });

  t.test(
    'months of the audit log older than twelve are dropped, younger ones stay, coming ones are made',
    async (t) => {
      const monthsAgo = async (n: number): Promise<string> =>
        (
          await sql<{
            m: string;
          }>`select to_char(date_trunc('month', now() at time zone 'UTC') - make_interval(months => ${n}), 'YYYY_MM') as m`.execute(
            db,
          )
        ).rows[0]?.m ?? '';
      const exists = (table: string, month: string): Promise<number> =>
        count(`pg_class where relname = '${table}_${month}'`);
      const [old, kept] = [await monthsAgo(13), await monthsAgo(12)];
      for (const table of ['audit_event', 'audit_address', 'access_record']) {
        for (const month of [old, kept])
          await sql
            .raw(
              `create table ${table}_${month} partition of ${table} for values from ('${month.replace('_', '-')}-01 00:00Z') to ('${month.replace('_', '-')}-02 00:00Z')`,
            )
            .execute(db);
      }
      const ahead = await monthsAgo(-3);
      await sql.raw(`drop table audit_event_${ahead}`).execute(db);
      await retention.run();
      for (const table of ['audit_event', 'audit_address', 'access_record']) {
        t.equal(await exists(table, old), 0, `${table} ${old}`);
        t.equal(await exists(table, kept), 1, `${table} ${kept}`);
      }
      t.equal(await exists('audit_event', ahead), 1);
      await t.rejects(sql`select audit_drop_months(0)`.execute(db), /at least one month/);
      await t.rejects(sql`select audit_make_months(25)`.execute(db), /0 to 24/);
    },
  );

  t.test('one step that fails stops no other, and is told', async (t) => {
    const id = await store('late');
    await remove(id);
    clock.ms = 30 * dayMs + 60_000;
    await sql`alter function audit_drop_months rename to audit_drop_months_away`.execute(db);
    await t.rejects(retention.run(), /housekeeping failed/);
    t.equal(await count(`credential where id = '${id}'`), 0, 'the purge went on');
    retention.start();
    await retention.stop();
    t.match(
      errors.map(({ message }) => message),
      [/tried again in an hour/],
    );
    await sql`alter function audit_drop_months_away rename to audit_drop_months`.execute(db);
    await retention.run();
    clock.ms = 0;
  });

  t.test('a purge whose event cannot be written does not happen', async (t) => {
    const id = await store('held');
    await remove(id);
    clock.ms = 30 * dayMs + 60_000;
    const month =
      (
        await sql<{
          name: string;
        }>`select 'audit_event_' || to_char(now() at time zone 'UTC', 'YYYY_MM') as name`.execute(
          db,
        )
      ).rows[0]?.name ?? '';
    await sql
      .raw(`create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no events today'; end $$;
      create trigger refuse before insert on ${month} for each row execute function refuse()`)
      .execute(db);
    const fresh = new Retention({
      db,
      audit,
      clock: databaseClock,
      onError: () => undefined,
    });
    await t.rejects(fresh.run());
    t.equal(await count(`credential where id = '${id}'`), 1);
    await sql.raw(`drop trigger refuse on ${month}`).execute(db);
    await fresh.run();
    t.equal(await count(`credential where id = '${id}'`), 0);
  });
});
