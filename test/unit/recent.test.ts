// What is remembered: as much as the bound says and no more, and what was asked for last.
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import { Recent } from '../../src/shared/recent.ts';

const held = (recent: Recent<number, string>, upTo: number): number[] =>
  Array.from({ length: upTo }, (_, n) => n).filter((n) => recent.get(n) !== undefined);

t.test(
  'nothing is forgotten up to half of the bound, and never is there more than the bound',
  folded(async (t) => {
    for (const bound of [2, 3, 10, 11]) {
      for (let count = 1; count <= 40; count += 1) {
        // Asking moves things, so each is asked of a memory of its own.
        const known = Array.from({ length: count }, (_, n) => n).filter((n) => {
          const recent = new Recent<number, string>(bound);
          for (let each = 0; each < count; each += 1) recent.set(each, `value ${each}`);
          return recent.get(n) === `value ${n}`;
        });
        const sure = Math.min(count, Math.floor(bound / 2));
        t.ok(known.length <= bound, `${known.length} of ${bound}`);
        t.strictSame(
          known.slice(-sure),
          Array.from({ length: sure }, (_, i) => count - sure + i),
        );
      }
    }
  }),
);

t.test(
  'what is asked for again and again stays, whatever comes by',
  folded(async (t) => {
    const recent = new Recent<number, string>(10);
    recent.set(-1, 'asked for');
    recent.set(-2, 'not asked for');
    for (let n = 0; n < 1_000; n += 1) {
      recent.set(n, 'once');
      t.equal(recent.get(-1), 'asked for');
    }
    t.equal(recent.get(-2), undefined);
    t.ok(held(recent, 1_000).length <= 10);
  }),
);

t.test('an entry that is set again is the new one, and takes no more room', async (t) => {
  const recent = new Recent<number, string>(4);
  recent.set(1, 'first');
  for (let n = 0; n < 100; n += 1) recent.set(2, `value ${n}`);
  t.equal(recent.get(1), 'first');
  t.equal(recent.get(2), 'value 99');
});
