// A statement that is composed once: its parameters, in whatever order and however often they stand
// in it.
import { sql } from 'kysely';
import t from 'tap';
import { statement } from '../../src/db/statement.ts';
import { testDatabase } from '../helpers/database.ts';

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
