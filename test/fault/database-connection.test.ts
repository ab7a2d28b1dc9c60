// One connection under what a network and a server do to it: silence, cuts at the worst moment,
// kills, notices that unsay a commit.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type RawBuilder, sql } from 'kysely';
import pg from 'pg';
import t, { type Test } from 'tap';
import {
  type Database,
  openDatabase,
  type OpenDatabaseOptions,
  waitingConnections,
} from '../../src/db/client.ts';
import {
  CommitUnknown,
  isDatabaseDown,
  NoPrimary,
  PoolExhausted,
  sqlState,
  StatementTimeout,
} from '../../src/db/errors.ts';
import { composedNames } from '../../src/db/statement-names.ts';
import { startLocalPostgres } from '../../src/dev/postgres.ts';
import { testCertificate } from '../helpers/certificate.ts';
import { command, testDatabase, withDatabase } from '../helpers/database.ts';
import { databaseProxy } from '../helpers/database-proxy.ts';
import { until } from '../helpers/processes.ts';

function opened(
  t: Test,
  url: string,
  options: Partial<OpenDatabaseOptions> = {},
): Database & { readonly losses: Error[] } {
  const losses: Error[] = [];
  const database = openDatabase({ url, onError: (error) => losses.push(error), ...options });
  t.teardown(() => database.close());
  return Object.assign(database, { losses });
}

/** A connection beside the pool, for looking at the server and for harming it. */
async function aside(t: Test, url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => undefined);
  await client.connect();
  t.teardown(() => client.end());
  return client;
}

const through = (url: string, port: number, parameters = ''): string =>
  `postgresql://vault@127.0.0.1:${port}/${new URL(url).pathname.slice(1)}${parameters}`;
const failure = async (action: Promise<unknown>): Promise<unknown> =>
  action.then(
    () => undefined,
    (error: unknown) => error,
  );
const one = sql<{ n: number }>`select 1 as n`;

t.test(
  'in a transaction the server ends a slow statement, and the connection stays good',
  async (t) => {
    const { url } = await testDatabase(t, { empty: true });
    const { db } = opened(t, url, { statementTimeoutMs: 50, poolMax: 1 });
    const error = await failure(
      db.transaction().execute((trx) => sql`select pg_sleep(60)`.execute(trx)),
    );
    t.equal(sqlState(error), '57014');
    t.ok(isDatabaseDown(error));
    t.same((await one.execute(db)).rows, [{ n: 1 }]);
  },
);

t.test(
  'outside a transaction the vault gives up on a slow statement and has the server cancel it',
  async (t) => {
    const { url } = await testDatabase(t, { empty: true });
    const look = await aside(t, url);
    const { db } = opened(t, url, { statementTimeoutMs: 50 });
    t.type(await failure(sql`select pg_sleep(60)`.execute(db)), StatementTimeout);
    await until(
      async () =>
        (
          await look.query(
            `select 1 from pg_stat_activity where query like '%pg_sleep(60)%' and state = 'active' and pid <> pg_backend_pid()`,
          )
        ).rows.length === 0,
    );
    t.same((await one.execute(db)).rows, [{ n: 1 }]);
  },
);

t.test(
  'a server that falls silent in a transaction is given up, and the reason is not hidden by the rollback',
  async (t) => {
    const { url } = await testDatabase(t, { empty: true });
    const proxy = await databaseProxy(t, url);
    const { db } = opened(t, through(url, proxy.port), { statementTimeoutMs: 50 });
    proxy.swallow('silence');
    t.type(
      await failure(db.transaction().execute((trx) => sql`select 'silence'`.execute(trx))),
      StatementTimeout,
    );
    t.same((await one.execute(db)).rows, [{ n: 1 }]);
  },
);

t.test('a line cut after COMMIT says that the outcome is unknown; the row is there', async (t) => {
  const { url, db: direct } = await testDatabase(t, { empty: true });
  await sql`create table kept (n int)`.execute(direct);
  const proxy = await databaseProxy(t, url);
  const { db } = opened(t, through(url, proxy.port));
  const error = await failure(
    db.transaction().execute(async (trx) => {
      await sql`insert into kept values (${1}::int)`.execute(trx);
      proxy.cutAnswerTo('commit');
    }),
  );
  t.type(error, CommitUnknown);
  t.ok(isDatabaseDown(error));
  await until(async () => (await sql`select n from kept`.execute(direct)).rows.length === 1);
});

/** What pgbouncer tells its client when the server's connection dies under a statement. */
function poolersWord(): Buffer {
  const fields = ['SFATAL', 'C08P01', 'Mserver conn crashed?', '', ''].join('\0');
  const head = Buffer.from('E\0\0\0\0', 'latin1');
  head.writeInt32BE(4 + Buffer.byteLength(fields), 1);
  return Buffer.concat([head, Buffer.from(fields)]);
}

t.test('a pooler that loses the server says so, and that is no refusal', async (t) => {
  const { url, db: direct } = await testDatabase(t, { empty: true });
  await sql`create table kept (n int)`.execute(direct);
  const proxy = await databaseProxy(t, url);
  const { db } = opened(t, through(url, proxy.port));
  const inTransaction = (word: string, n: number): Promise<unknown> =>
    failure(
      db.transaction().execute(async (trx) => {
        proxy.cutAnswerTo(word, poolersWord());
        await sql`insert into kept values (${n}::int)`.execute(trx);
      }),
    );
  t.match(await inTransaction('commit', 1), { name: 'CommitUnknown', cause: { code: '08P01' } });
  t.match(await inTransaction('insert into', 2), { name: 'error', code: '08P01' });
  proxy.cutAnswerTo('insert into', poolersWord());
  t.match(await failure(sql`insert into kept values (${3}::int)`.execute(db)), {
    name: 'CommitUnknown',
    cause: { code: '08P01' },
  });
  t.same(
    (await sql<{ n: number }>`select n from kept order by n`.execute(direct)).rows.map(
      ({ n }) => n,
    ),
    [1, 3],
  );
});

t.test('a line cut before COMMIT is a plain failure', async (t) => {
  const { url, db: direct } = await testDatabase(t, { empty: true });
  await sql`create table kept (n int)`.execute(direct);
  const proxy = await databaseProxy(t, url);
  const { db } = opened(t, through(url, proxy.port));
  const error = await failure(
    db.transaction().execute(async (trx) => {
      proxy.cutAnswerTo('insert into');
      await sql`insert into kept values (${1}::int)`.execute(trx);
    }),
  );
  t.notOk(error instanceof CommitUnknown);
  t.ok(isDatabaseDown(error));
  t.same((await sql`select n from kept`.execute(direct)).rows, []);
});

t.test(
  'a statement of its own that may have written is unknown when its line is cut, a read is not',
  async (t) => {
    const { url, db: direct } = await testDatabase(t, { empty: true });
    await sql`create table kept (n int)`.execute(direct);
    await sql`create function keep(n int) returns int language sql as $$ insert into kept values (n) returning n $$`.execute(
      direct,
    );
    const proxy = await databaseProxy(t, url);
    const { db } = opened(t, through(url, proxy.port));
    const lost: readonly (readonly [string, RawBuilder<unknown>, boolean])[] = [
      ['insert into', sql`insert into kept values (${1}::int)`, true],
      [
        'cte',
        sql`with made as (insert into kept values (2) returning n) select n as cte from made`,
        true,
      ],
      ['keep', sql`select keep(3)`, true],
      ['update', sql`/* n = 3 */ update kept set n = 4 where n = 3`, true],
      ['do $$', sql`do $$ begin perform keep(5); end $$`, true],
      ['count(', sql`select count(*) as "update" from kept where n > ${0}::int`, false],
      ['for update', sql`select n from kept where n = 1 for update`, false],
      ["'insert'", sql`select 'insert' as word`, false],
    ];
    for (const [word, statement, isWrite] of lost) {
      await one.execute(db);
      proxy.cutAnswerTo(word);
      const error = await failure(statement.execute(db));
      t.equal(error instanceof CommitUnknown, isWrite, word);
      t.ok(isDatabaseDown(error), word);
    }
    await until(async () => (await sql`select n from kept`.execute(direct)).rows.length === 4);
    t.same(
      (await sql<{ n: number }>`select n from kept order by n`.execute(direct)).rows.map(
        ({ n }) => n,
      ),
      [1, 2, 4, 5],
      'what was called unknown had happened',
    );
  },
);

t.test(
  'a server that goes, or says nothing, under a writing statement leaves it unknown; what it refuses it has undone',
  async (t) => {
    const { url, db: direct } = await testDatabase(t, { empty: true });
    await sql`create table kept (n int primary key)`.execute(direct);
    const look = await aside(t, url);
    const holder = await aside(t, url);
    const { db } = opened(t, url);
    const write = sql`insert into kept values (1)`;
    const waiting = async (): Promise<number> =>
      (
        await until(async () => {
          const { rows } = await look.query<{ pid: number }>(
            `select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`,
          );
          return rows.length > 0 && rows;
        })
      )[0]!.pid;
    await holder.query('begin; lock table kept in access exclusive mode');
    const killed = failure(write.execute(db));
    await look.query('select pg_terminate_backend($1)', [await waiting()]);
    t.match(await killed, { name: 'CommitUnknown', cause: { code: '57P01' } });
    const inTransaction = failure(db.transaction().execute((trx) => write.execute(trx)));
    await look.query('select pg_terminate_backend($1)', [await waiting()]);
    t.match(await inTransaction, { code: '57P01' }, 'its transaction is gone with it');
    const cancelled = failure(write.execute(db));
    await look.query('select pg_cancel_backend($1)', [await waiting()]);
    t.match(await cancelled, { code: '57014' }, 'refused, and so undone');
    const { db: impatient } = opened(t, url, { statementTimeoutMs: 50 });
    t.match(
      // Of another row: whether the server hears of it before the lock is free, nobody knows.
      await failure(sql`insert into kept values (2)`.execute(impatient)),
      { name: 'CommitUnknown', cause: { name: 'StatementTimeout' } },
      'given up by this process',
    );
    await holder.query('rollback');
    await write.execute(db);
    t.match(await failure(write.execute(db)), { code: '23505' });
    const { db: readOnly } = opened(t, url, { poolMax: 1 });
    await sql`set session characteristics as transaction read only`.execute(readOnly);
    t.match(await failure(write.execute(readOnly)), { code: '25006' });
  },
);

t.test('a COMMIT that is given to a line that is dead already has reached nobody', async (t) => {
  const { url, db: direct } = await testDatabase(t, { empty: true });
  await sql`create table kept (n int)`.execute(direct);
  const proxy = await databaseProxy(t, url);
  const { db } = opened(t, through(url, proxy.port));
  const error = await failure(
    db.transaction().execute(async (trx) => {
      await sql`insert into kept values (${1}::int)`.execute(trx);
      proxy.cutAnswerTo('look');
      await failure(sql`select 'look'`.execute(trx));
    }),
  );
  t.ok(isDatabaseDown(error));
  t.notOk(error instanceof CommitUnknown);
  t.same((await sql`select n from kept`.execute(direct)).rows, []);
});

t.test(
  'a COMMIT that was not awaited on the synchronous standby is unknown, in a transaction and for a statement alone',
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'vault-sync-'));
    const server = await startLocalPostgres({ folder: join(folder, 'postgres'), isDurable: false });
    t.teardown(async () => {
      await server.stop();
      rmSync(folder, { recursive: true, force: true });
    });
    await command(server.url, 'create database vault');
    await command(server.url, 'alter database vault set synchronous_commit = on');
    const url = withDatabase(server.url, 'vault');
    await command(url, 'create table kept (n int)');
    await command(server.url, `alter system set synchronous_standby_names = 'absent'`);
    await command(server.url, 'select pg_reload_conf()');
    const look = await aside(t, server.url);
    const { db } = opened(t, url);
    const cancelTheWait = async (): Promise<void> =>
      void (await until(async () => {
        const { rows } = await look.query(
          `select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'SyncRep'`,
        );
        return rows.length > 0;
      }));
    await until(
      async () =>
        (await look.query('show synchronous_standby_names')).rows[0].synchronous_standby_names ===
        'absent',
    );
    const inTransaction = failure(
      db.transaction().execute((trx) => sql`insert into kept values (1)`.execute(trx)),
    );
    await cancelTheWait();
    t.type(await inTransaction, CommitUnknown);
    const alone = failure(sql`insert into kept values (${2}::int)`.execute(db));
    await cancelTheWait();
    t.type(await alone, CommitUnknown);
    t.same(
      (await sql`select n from kept`.execute(db)).rows,
      [{ n: 1 }, { n: 2 }],
      'both are there',
    );
  },
);

t.test('an ordinary warning is no doubt about the commit', async (t) => {
  const { url } = await testDatabase(t, { empty: true });
  const { db } = opened(t, url);
  await sql`do $$ begin raise warning 'hm'; end $$`.execute(db);
  await db.transaction().execute((trx) => sql`do $$ begin raise warning 'hm'; end $$`.execute(trx));
  t.same((await one.execute(db)).rows, [{ n: 1 }]);
});

t.test('killed connections, idle and in use, cost their statement and nothing else', async (t) => {
  const { url } = await testDatabase(t, { empty: true });
  const look = await aside(t, url);
  const { db, losses } = opened(t, url);
  const kill = async (): Promise<unknown> =>
    look.query(
      'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
    );
  await Promise.all([1, 2, 3].map(() => one.execute(db)));
  await kill();
  await until(() => losses.length > 0);
  t.ok(losses.every(isDatabaseDown));
  t.same((await one.execute(db)).rows, [{ n: 1 }]);
  const running = failure(sql`select pg_sleep(60)`.execute(db));
  await until(
    async () =>
      (
        await look.query(
          `select 1 from pg_stat_activity where query like '%pg_sleep(60)%' and state = 'active' and pid <> pg_backend_pid()`,
        )
      ).rows.length === 1,
  );
  await kill();
  t.ok(isDatabaseDown(await running));
  const betweenStatements = await failure(
    db.transaction().execute(async (trx) => {
      await one.execute(trx);
      await kill();
      await one.execute(trx);
    }),
  );
  t.ok(isDatabaseDown(betweenStatements));
  t.same((await one.execute(db)).rows, [{ n: 1 }]);
});

t.test('a full pool is an overload: one waits for the time given, and no longer', async (t) => {
  const { url } = await testDatabase(t, { empty: true });
  const { db } = opened(t, url, { poolMax: 1, connectTimeoutMs: 1_500 });
  await db.transaction().execute(async (trx) => {
    await one.execute(trx);
    const error = await failure(one.execute(db));
    t.type(error, PoolExhausted);
    t.ok(isDatabaseDown(error));
  });
  t.same((await one.execute(db)).rows, [{ n: 1 }]);
});

t.test('whoever finds a thousand waiting before them does not wait', async (t) => {
  const { url } = await testDatabase(t, { empty: true });
  const { db } = opened(t, url, { poolMax: 1, connectTimeoutMs: 60_000 });
  const held = Promise.withResolvers<void>();
  const begun = Promise.withResolvers<void>();
  const holding = db.transaction().execute(async (trx) => {
    await one.execute(trx);
    begun.resolve();
    await held.promise;
  });
  await begun.promise;
  const waiting = Array.from({ length: 1_000 }, () => one.execute(db));
  await until(() => waitingConnections(db).inUse === 1_000);
  t.type(await failure(one.execute(db)), PoolExhausted, 'one more is told at once');
  t.match(waitingConnections(db), { inUse: 1_000, max: 1_000, refused: 1 });
  held.resolve();
  await holding;
  for (const { rows } of await Promise.all(waiting)) if (rows[0]?.n !== 1) t.fail('not answered');
  t.equal(waitingConnections(db).inUse, 0);
});

t.test(
  'who gives up while a server is being verified for them leaves no connection behind',
  async (t) => {
    const { url } = await testDatabase(t, { empty: true });
    const proxy = await databaseProxy(t, url);
    const { db } = opened(t, through(url, proxy.port), { poolMax: 1, connectTimeoutMs: 3_000 });
    const beside = await aside(t, url);
    const begun = Promise.withResolvers<number>();
    const end = Promise.withResolvers<void>();
    const holding = db.connection().execute(async (connection) => {
      const { rows } = await sql<{ pid: number }>`select pg_backend_pid() as pid`.execute(
        connection,
      );
      begun.resolve(rows[0]!.pid);
      await end.promise;
      await failure(one.execute(connection));
    });
    const pid = await begun.promise;
    const letGo = proxy.holdAnswerTo('pg_is_in_recovery');
    const waiting = failure(one.execute(db));
    await until(() => waitingConnections(db).inUse === 1);
    // The only connection is lost: the next one, which is to be verified, is for the one who waits.
    await beside.query('select pg_terminate_backend($1)', [pid]);
    end.resolve();
    await holding;
    const isVerification = (text: string): boolean => text.includes('pg_is_in_recovery');
    await until(() => proxy.statements().filter(isVerification).length === 2);
    t.ok(isDatabaseDown(await waiting));
    letGo();
    t.same((await one.execute(db)).rows, [{ n: 1 }], 'the place in the pool is free');
  },
);

t.test(
  'only what was composed once is prepared under a name, and nothing where names are switched off',
  async (t) => {
    const { url } = await testDatabase(t, { empty: true });
    const names = sql<{ name: string }>`select name from pg_prepared_statements order by 1`;
    const { db } = opened(t, url, { poolMax: 1 });
    for (let round = 0; round < 3; round += 1)
      t.same((await sql`select ${round}::int as n`.execute(db)).rows, [{ n: round }]);
    t.same((await names.execute(db)).rows, [], 'what nobody composed once');
    const composed = sql`select ${1}::int as composed`;
    composedNames.add(composed.compile(db).sql);
    await composed.execute(db);
    t.equal((await names.execute(db)).rows.length, 1);
    const unnamed = opened(t, url, { poolMax: 1, namedStatements: false });
    await composed.execute(unnamed.db);
    t.same((await names.execute(unnamed.db)).rows, []);
  },
);

t.test('nothing is asked for at start-up that a pooling proxy refuses', async (t) => {
  const { url } = await testDatabase(t, { empty: true });
  const proxy = await databaseProxy(t, url);
  const { db } = opened(t, through(url, proxy.port));
  await one.execute(db);
  const startup = proxy.sent().slice(8, proxy.sent().indexOf('\0\0', 8)).split('\0');
  t.same(startup.filter((_, index) => index % 2 === 0).sort(), [
    'application_name',
    'client_encoding',
    'database',
    'user',
  ]);
});

t.test('TLS holds only with a known authority and the right name', async (t) => {
  const { url } = await testDatabase(t, { empty: true });
  const folder = mkdtempSync(join(tmpdir(), 'vault-tls-'));
  t.teardown(() => rmSync(folder, { recursive: true, force: true }));
  const certificate = testCertificate(['127.0.0.1']);
  const otherName = testCertificate(['db.example.com']);
  writeFileSync(join(folder, 'ca.pem'), certificate.certificate);
  writeFileSync(join(folder, 'other.pem'), otherName.certificate);
  const good = await databaseProxy(t, url, { tls: certificate });
  t.same(
    (
      await one.execute(
        opened(t, through(url, good.port, `?sslmode=verify-full&sslrootcert=${folder}/ca.pem`)).db,
      )
    ).rows,
    [{ n: 1 }],
  );
  const refused: readonly (readonly [string, number, string])[] = [
    ['an unknown authority', good.port, '?sslmode=verify-full'],
    ['an unknown authority, even for `require`', good.port, '?sslmode=require'],
    [
      'another name',
      (await databaseProxy(t, url, { tls: otherName })).port,
      `?sslmode=verify-full&sslrootcert=${folder}/other.pem`,
    ],
    [
      'a server without TLS',
      (await databaseProxy(t, url, { isTlsRefused: true })).port,
      '?sslmode=require',
    ],
  ];
  for (const [what, port, parameters] of refused)
    t.type(
      await failure(one.execute(opened(t, through(url, port, parameters)).db)),
      NoPrimary,
      what,
    );
});

t.test('numbers and days come as they are', async (t) => {
  const { url } = await testDatabase(t, { empty: true });
  const { db } = opened(t, url);
  t.same(
    (
      await sql`select 9007199254740991::int8 as big, date '2026-11-22' as day, '\\x00ff'::bytea as bytes`.execute(
        db,
      )
    ).rows,
    [{ big: Number.MAX_SAFE_INTEGER, day: '2026-11-22', bytes: Buffer.from([0, 255]) }],
  );
  await t.rejects(sql`select 9007199254740993::int8 as n`.execute(db), RangeError);
  t.same((await one.execute(db)).rows, [{ n: 1 }]);
});
