// What is not an event of its own: reads (batched, within a second, through an outage), and
// refusals beyond ten a minute (counted).
import t from 'tap';
import { sql } from 'kysely';
import { type CountedLogIn, FailedLogIns } from '../../src/audit/failed-log-ins.ts';
import { AuditLog } from '../../src/audit/record.ts';
import { newId, type SubjectId, type TeamId } from '../../src/shared/ids.ts';
import { until } from '../helpers/processes.ts';
import { startVault } from '../helpers/vault.ts';
import type { Denial } from '../../src/access/decide.ts';

t.test('access records', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments');
  const {
    json: { id },
  } = await call('alice', 'POST', '/v1/teams/payments/credentials', {
    name: 'one',
    type: 'bearer',
    fields: { token: 'x' },
  });
  interface Row {
    action: string;
    sub: string | null;
    slug: string | null;
    target_id: string | null;
    status: number;
    address: string | null;
    request_id: string;
  }
  const records = async (): Promise<Row[]> =>
    (
      await sql<Row>`select action, sub, slug, target_id, status, address, request_id from access_record
    left join subject on subject.id = subject_id left join team on team.id = team_id order by at, access_record.id`.execute(
        db,
      )
    ).rows;

  const read = await call('alice', 'GET', `/v1/credentials/${id}`);
  await call('alice', 'GET', '/v1/teams/payments/credentials');
  await call('alice', 'GET', '/v1/credentials');
  await call('alice', 'GET', '/v1/teams/payments/audit-events');
  await call('stranger', 'GET', `/v1/credentials/${id}`);
  await call(null, 'GET', `/v1/credentials/${id}`);
  await vault.app.inject({
    method: 'POST',
    url: '/v1/teams',
    headers: { authorization: 'Bearer no.token.here' },
  });
  const found = await until(async () => {
    const rows = await records();
    return rows.length >= 7 && rows;
  });
  const told = found.map(({ action, sub, slug, status }) => `${action} ${sub} ${slug} ${status}`);
  t.strictSame(told.sort(), [
    'audit.read alice payments 200',
    'credential.read alice null 200',
    'credential.read alice payments 200',
    'credential.read alice payments 200',
    'credential.read null null 401',
    'credential.read null null 404', // somebody whom nobody has given a right; that there is such a thing stands in the team's own audit log
    'team.create null null 401',
  ]);
  t.match(
    found.filter((record) => record.request_id === read.headers['x-request-id']),
    [
      {
        action: 'credential.read',
        sub: 'alice',
        slug: 'payments',
        target_id: id,
        status: 200,
        address: '127.0.0.1',
      },
    ],
  );
  t.strictSame(
    found.map(({ target_id }) => target_id).filter((target) => target !== null),
    [id],
    'only what was found is named',
  );
  t.equal(found.length, 7, 'a write leaves an event, not a record');
});

t.test('failed log-ins are counted above ten a minute of one origin and reason', async (t) => {
  const vault = await startVault(t);
  const { app, db } = vault;
  interface Row {
    address: string | null;
    reason: string | null;
    count: number;
  }
  const stored = async (): Promise<Row[]> =>
    (
      await sql<Row>`select address, reason, count from access_record where status = 401 order by at, id`.execute(
        db,
      )
    ).rows;
  const fail = async (remoteAddress: string, token: string | null = 'x'): Promise<void> => {
    const { statusCode } = await app.inject({
      url: '/v1/whoami',
      remoteAddress,
      headers: token === null ? {} : { authorization: `Bearer ${token}` },
    });
    t.equal(statusCode, 401);
  };
  const lines = (): Record<string, unknown>[] =>
    vault.logs.map((line) => JSON.parse(line)).filter(({ event }) => event === 'tokenRefused');

  for (let i = 0; i < 40; i += 1) await fail('192.0.2.7');
  for (let i = 0; i < 5; i += 1) await fail('::ffff:192.0.2.7');
  for (let i = 0; i < 12; i += 1) await fail('192.0.2.8');
  for (let i = 0; i < 40; i += 1) await fail(`2001:db8:1:2:${i.toString(16)}::${i}`);
  for (let i = 0; i < 3; i += 1) await fail('2001:db8:1:3::1');
  for (let i = 0; i < 20; i += 1) await fail('192.0.2.7', null);
  const expired = await vault.token('alice', { exp: 1 });
  for (let i = 0; i < 11; i += 1) await fail('192.0.2.7', expired);
  t.equal(lines().length, 10 + 10 + 10 + 3 + 10, 'the log keeps the same ceiling');
  await vault.stop();
  const rows = await stored();
  t.equal(
    rows.filter(({ count }) => count === 1).length,
    10 + 10 + 10 + 3 + 10 + 10 + 1,
    'ten of each are written one by one',
  );
  t.strictSame(
    rows
      .filter(({ count }) => count > 1)
      .map(({ reason, count }) => `${reason} ${count}`)
      .sort(),
    ['form 2', 'form 30', 'form 35', 'null 10'],
    'the others as counts, nobody forgotten',
  );
  t.equal(
    rows.reduce((sum, { count }) => sum + count, 0),
    40 + 5 + 12 + 40 + 3 + 20 + 11,
  );
});

t.test('failed log-ins from everywhere have a ceiling too', (t) => {
  const clock = { now: 1_000_000 };
  const written: CountedLogIn[] = [];
  const failed = new FailedLogIns({
    now: () => clock.now,
    write: (each) => {
      written.push(each);
    },
  });
  const take = (n: number): void =>
    failed.take({
      action: 'authenticated',
      requestId: `r${n}`,
      address: `2001:db8:${(n >> 8).toString(16)}:${(n & 255).toString(16)}::1`,
      reason: 'form',
    });
  for (let n = 0; n < 50_000; n += 1) take(n);
  t.equal(written.length, 600, 'no more than so many in a minute');
  t.ok(written.every(({ count }) => count === 1));
  failed.stop();
  const counted = written.slice(600);
  t.ok(counted.length <= 251, 'and some hundred counts');
  t.equal(
    written.reduce((sum, { count }) => sum + count, 0),
    50_000,
    'which say all that was left out',
  );
  t.match(
    counted.find(({ address }) => address === null),
    { reason: null },
    'most of them of nobody by name',
  );
  clock.now += 60_000;
  take(60_000);
  t.equal(written.at(-1)?.count, 1, 'after a minute there is room again');
  t.end();
});

t.test('batches', async (t) => {
  const vault = await startVault(t);
  const { db, keyring } = vault;
  const errors: Error[] = [];
  const audit = new AuditLog({
    db,
    keyring,
    now: Date.now,
    onError: (error) => {
      errors.push(error);
    },
    onAlarm: () => undefined,
  });
  const read = (target: string): void => {
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
  const stored = async (): Promise<number> =>
    (await sql<{ n: number }>`select count(*) as n from access_record`.execute(db)).rows[0]?.n ?? 0;

  t.test('wait for the database through an outage, and are told of once', async (t) => {
    await sql`alter table access_record rename to access_record_away`.execute(db);
    for (let i = 0; i < 2_500; i += 1) read(`r${i}`);
    await audit.flush();
    await audit.flush();
    t.match(
      errors.map(({ message }) => message),
      [/cannot be written/],
    );
    await sql`alter table access_record_away rename to access_record`.execute(db);
    await until(async () => (await stored()) === 2_500);
    t.equal(
      (
        await sql<{ n: number }>`select count(distinct target_id) as n from access_record`.execute(
          db,
        )
      ).rows[0]?.n,
      2_500,
    );
  });

  t.test('are bounded: what is beyond is counted and told', async (_t) => {
    errors.length = 0;
    await sql`alter table access_record rename to access_record_away`.execute(db);
    for (let i = 0; i < 20_300; i += 1) read(`o${i}`);
    await audit.flush();
    await sql`alter table access_record_away rename to access_record`.execute(db);
    await until(async () => (await stored()) === 22_500);
    await until(() =>
      errors.some(({ message }) => message.startsWith('300 access records were lost')),
    );
  });

  t.test('that were sent already are not stored twice', async (t) => {
    // As after an insert that committed and whose answer was lost: the row is there when it comes
    // again.
    await sql
      .raw(`create function twin() returns trigger language plpgsql as $$ begin insert into access_record select new.*; return new; end $$;
      create trigger twin before insert on access_record for each row when (pg_trigger_depth() = 0) execute function twin()`)
      .execute(db);
    const before = await stored();
    read('twice');
    read('and another');
    await audit.flush();
    t.equal(await stored(), before + 2);
    await sql`drop trigger twin on access_record`.execute(db);
  });

  t.test('stop writes what waits', async (t) => {
    const before = await stored();
    read('last');
    await audit.stop();
    t.equal(await stored(), before + 1);
  });
});

t.test('refusals', async (t) => {
  const vault = await startVault(t);
  const { db, keyring } = vault;
  const clock = { now: Date.now() };
  const audit = new AuditLog({
    db,
    keyring,
    now: () => clock.now,
    onError: (error) => {
      throw error;
    },
    onAlarm: () => undefined,
  });
  const subject = newId<SubjectId>();
  const team = { id: newId<TeamId>(), slug: 'payments' };
  const denial = (more: Partial<Denial> = {}): Denial => ({
    caller: { sub: 'eve', subject, isOperator: false, requestId: 'r', address: '203.0.113.7' },
    team,
    action: 'credential.write',
    target: { type: 'team', id: 'payments' },
    reason: 'role',
    ...more,
  });
  const events = async (): Promise<{ reason: string; count: number | null; team_id: string }[]> =>
    (
      await sql<{
        reason: string;
        count: number | null;
        team_id: string;
      }>`select reason, (details ->> 'count')::int as count, team_id from audit_event where actor_id = ${subject} order by at, id`.execute(
        db,
      )
    ).rows;

  for (let i = 0; i < 25; i += 1) await audit.denial(denial());
  t.strictSame(
    (await events()).map(({ count }) => count),
    Array<null>(10).fill(null),
    'ten are told, the others counted',
  );
  await audit.denial(denial({ reason: 'sealBroken' }));
  const other = { id: newId<TeamId>(), slug: 'other' };
  await audit.denial(denial({ team: other }));
  await audit.denial(denial({ action: 'team.manage' }));
  t.equal(
    (await events()).length,
    13,
    'another reason, team or action is not drowned by the noise',
  );
  await audit.stop();
  t.match(
    (await events()).filter(({ count }) => count !== null),
    [{ reason: 'role', count: 15, team_id: team.id }],
    'and the count is written, whether more come or not',
  );
  clock.now += 30_000;
  for (let i = 0; i < 5; i += 1) await audit.denial(denial());
  t.equal((await events()).length, 14, 'one a minute');
  await audit.stop();
  t.match((await events()).at(-1), { count: 5 });
  clock.now += 60_001;
  for (let i = 0; i < 12; i += 1) await audit.denial(denial());
  t.equal((await events()).length, 25, 'after a quiet minute ten are told again');
});

t.test('a record has the address that was found, and nothing else that was sent', async (t) => {
  const vault = await startVault(t, { trustedProxies: ['127.0.0.1'] });
  await vault.team('payments');
  const said = [
    ['203.0.113.9', '203.0.113.9'],
    ['203.0.113.8:4711', '203.0.113.8'],
    ['unknown', '127.0.0.1'],
    ['_hidden', '127.0.0.1'],
    ["x'); drop table audit_event; --", '127.0.0.1'],
    ['198.51.100.1, fe80::1%<script>', '127.0.0.1'],
    [`${'198.51.100.1, '.repeat(500)}[2001:DB8::1]:1`, '2001:db8::1'],
  ] as const;
  for (const [forwarded] of said) {
    const headers = { 'x-forwarded-for': forwarded };
    vault.clock.ms += 61_000;
    await vault.call('mallory', 'GET', '/v1/teams/payments', undefined, headers);
    await vault.call(null, 'GET', '/v1/whoami', undefined, headers);
    await vault.call('alice', 'GET', '/v1/whoami', undefined, headers);
  }
  const addresses = said.map(([, address]) => address);
  const events = await sql<{ address: string }>`
    select address from audit_address join audit_event event on event.id = event_id
    where decision = 'deny' order by event.id`.execute(vault.db);
  t.same(
    events.rows.map(({ address }) => address),
    addresses,
  );
  const records = await until(async () => {
    const { rows } = await sql<{ address: string; status: number }>`
      select address, status from access_record where action = 'authenticated' order by at, id`.execute(
      vault.db,
    );
    return rows.length === 2 * said.length ? rows : undefined;
  });
  for (const status of [401, 200])
    t.same(
      records.filter((record) => record.status === status).map(({ address }) => address),
      addresses,
      String(status),
    );
});
