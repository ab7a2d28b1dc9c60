// A statement that is composed once: its parameters, in whatever order and however often they stand
// in it.
import { sql } from 'kysely';
import t from 'tap';
import { orders, sortNames } from '../../src/credentials/lists/sorts.ts';
import { openDatabase } from '../../src/db/client.ts';
import { statement } from '../../src/db/statement.ts';
import { StatementNames } from '../../src/db/statement-names.ts';
import { testDatabase } from '../helpers/database.ts';
import { startVault } from '../helpers/vault.ts';

t.test('each parameter is the one of this run, wherever it stands', async (t) => {
  const { db } = await testDatabase(t);
  let times = 0;
  const run = statement<{ a: number; b: string }, { both: string; b: string; a: number }>(
    (parameter) => {
      times += 1;
      return sql`select ${parameter('b')} || '-' || ${parameter('a')}::int as both, ${parameter('b')}::text as b, ${parameter('a')}::int as a`;
    },
  );
  t.same(await run(db, { a: 1, b: 'x' }), [{ both: 'x-1', b: 'x', a: 1 }]);
  t.same(await run(db, { a: 2, b: "'; --" }), [{ both: "'; ---2", b: "'; --", a: 2 }]);
  t.same(
    await db.transaction().execute((trx) => run(trx, { a: 3, b: 'y' })),
    [{ both: 'y-3', b: 'y', a: 3 }],
    'in a transaction too',
  );
  t.equal(times, 1);
});

t.test('a value that would stay that of the first run is refused', async (t) => {
  const { db } = await testDatabase(t);
  const run = statement<{ a: number }, { a: number }>(
    (parameter) => sql`select ${parameter('a')}::int + ${1} as a`,
  );
  await t.rejects(run(db, { a: 1 }), { name: 'TypeError' });
});

t.test('only what is composed once is prepared, under a name that its text makes', async (t) => {
  const { url } = await testDatabase(t);
  const compose = (): ReturnType<typeof statement<{ a: number }, { a: number }>> =>
    statement((parameter) => sql`select ${parameter('a')}::int as a`);
  const preparedBy = async (
    run: ReturnType<typeof compose>,
    namedStatements: boolean,
  ): Promise<unknown[]> => {
    const { db, close } = openDatabase({ url, poolMax: 1, namedStatements, onError: raise });
    await run(db, { a: 1 });
    await db.transaction().execute((trx) => run(trx, { a: 2 }));
    await sql`select ${1}::int as b`.execute(db);
    const { rows } =
      await sql`select name, statement from pg_prepared_statements order by name`.execute(db);
    await close();
    return rows;
  };
  const first = await preparedBy(compose(), true);
  t.match(first, [{ name: /^cv_[\w-]{24}$/, statement: 'select $1::int as a' }]);
  t.equal(first.length, 1);
  t.same(await preparedBy(compose(), true), first, 'the same for whoever composes the same');
  t.same(
    await preparedBy(compose(), false),
    [],
    'and nothing behind a proxy that mixes connections',
  );
});

t.test('names have a bound', (t) => {
  const names = new StatementNames(2);
  for (const text of ['a', 'b', 'c']) names.add(text);
  t.ok(names.of('a'));
  t.ok(names.of('b'));
  t.equal(names.of('c'), undefined);
  t.not(names.of('a'), names.of('b'));
  t.end();
});

t.test('lists of every form leave little in the memory of a server process', async (t) => {
  const { url } = await testDatabase(t);
  const { db, close } = openDatabase({ url, poolMax: 1, onError: raise });
  t.teardown(close);
  const vault = await startVault(t, { database: { url, db } });
  await vault.team('payments');
  await vault.team('sales');
  const filters = [
    '',
    '&label=a:b',
    '&type=openai',
    '&namePrefix=c',
    '&problem=exposed',
    '&problem=expired',
    '&label=a:b&label=c:d',
    '&problem=disabled',
    '&label=a:b&type=openai',
    '&deleted=true',
    '&view=names',
    '&view=names&type=openai',
  ];
  let asked = 0;
  for (const sort of sortNames)
    for (const order of orders)
      for (const filter of filters)
        for (const url of ['/v1/teams/payments/credentials', '/v1/credentials']) {
          // From the sixth time on a plan is kept that is good for every value.
          for (let times = 0; times < 6; times += 1) {
            const query = `?sort=${sort}&order=${order}${filter}`;
            const { status } = await vault.call('alice', 'GET', `${url}${query}`);
            if (status === 200 && times === 0) asked += 1;
          }
        }
  t.ok(asked > 150, `${asked} forms`);
  const { rows } = await sql<{ prepared: number; bytes: number }>`
    select (select count(*) from pg_prepared_statements) as prepared,
      (select sum(total_bytes) from pg_backend_memory_contexts)::bigint as bytes`.execute(db);
  const [{ prepared, bytes } = { prepared: 0, bytes: 0 }] = rows;
  t.ok(prepared > 3, 'the usual ones are prepared');
  t.ok(prepared < 20, `${prepared} statements`);
  t.ok(bytes < 30 * 1024 * 1024, `${bytes} bytes`);
});

function raise(error: Error): never {
  throw error;
}
