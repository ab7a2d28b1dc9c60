// Many rows as one result: what fails is named, and a table without rows is no success.
import t, { type Test } from 'tap';
import { folded, type Rows } from '../helpers/folded.ts';

/** What a folded test says of these rows: each of its results, with what went wrong. */
async function verdict(check: (rows: Rows) => Promise<void> | void): Promise<string> {
  const lines: string[] = [];
  await folded(check)({
    ok: (found: unknown, name: string) => lines.push(`${found ? 'ok' : 'not ok'} - ${name}`),
    same: (found: unknown[], _: unknown, name: string) =>
      lines.push(found.length === 0 ? 'ok' : `not ok - ${name} ${JSON.stringify(found)}`),
    teardown: () => undefined,
  } as unknown as Test);
  return lines.join('\n');
}

t.test('rows that hold are two results, however many they are', async (t) => {
  const output = await verdict((rows) => {
    for (let n = 0; n < 100; n += 1) rows.equal(n, n, `row ${n}`);
  });
  t.notMatch(output, /not ok/);
  t.equal(output.match(/^ok/gm)?.length, 2);
});

t.test('each kind of assertion sees what is wrong, and the row is named', async (t) => {
  const wrong: Record<string, (rows: Rows) => void> = {
    ok: (rows) => rows.ok(0, 'the row'),
    notOk: (rows) => rows.notOk('x', 'the row'),
    equal: (rows) => rows.equal('1', 1, 'the row'),
    not: (rows) => rows.not(1, 1, 'the row'),
    same: (rows) => rows.same({ a: [1] }, { a: [2] }, 'the row'),
    strictSame: (rows) => rows.strictSame({ a: '1' }, { a: 1 }, 'the row'),
    match: (rows) => rows.match('abc', /d/, 'the row'),
    'match of text': (rows) => rows.match('abc', 'd', 'the row'),
    'match of members': (rows) => rows.match({ a: { b: 'c' } }, { a: { b: /d/ } }, 'the row'),
    'match of lists': (rows) => rows.match(['a', 'b'], ['a'], 'the row'),
    notMatch: (rows) => rows.notMatch('abc', /b/, 'the row'),
    throws: (rows) => rows.throws(() => undefined, Error, 'the row'),
    'throws another': (rows) =>
      rows.throws(
        () => {
          throw new Error('x');
        },
        TypeError,
        'the row',
      ),
    fail: (rows) => rows.fail('the row'),
  };
  for (const [name, check] of Object.entries(wrong)) {
    const output = await verdict(async (rows) => {
      rows.ok(true);
      await Promise.resolve();
      check(rows);
    });
    t.match(output, /not ok - 1 of 2 rows failed/, name);
    t.match(output, /the row/, name);
  }
});

t.test('no rows are a failure', async (t) => {
  t.match(await verdict(() => undefined), /not ok - there are rows/);
});
