import t from 'tap';
import { isId, newId } from '../../src/shared/ids.ts';

t.test(
  'ids of one process sort in the order in which they were made, and none comes twice',
  async (t) => {
    const before = Date.now();
    // far more a millisecond than the count has room for
    const ids = Array.from({ length: 100_000 }, () => newId<never>() as string);
    t.strictSame(ids, ids.toSorted());
    t.equal(new Set(ids).size, ids.length);
    t.ok(ids.every((id) => isId(id)));
    const timeOf = (id: string): number => Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16);
    t.ok(
      timeOf(ids[0]!) >= before - 1_000 && timeOf(ids.at(-1)!) <= Date.now() + 1_000,
      'and their time is the time',
    );
    t.equal(new Set(ids.map((id) => id.slice(19))).size, ids.length, 'what is random stays random');
  },
);
