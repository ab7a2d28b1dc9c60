// What bounds waiting and memory: places that are refused at once, turns that come or don't, and
// work in pieces.
import t from 'tap';
import { Budget } from '../../src/shared/budget.ts';
import { Gate } from '../../src/shared/gate.ts';
import { inLanes } from '../../src/shared/lanes.ts';
import { inTurns } from '../../src/shared/pace.ts';

t.test('a budget has room for so much of one and so much of all', async (t) => {
  const budget = new Budget<string>({ what: 'tested', keyMax: 10, max: 15 });
  const refusal = { code: 'rateLimited', retryAfterSeconds: 1 };
  const first = budget.enter('a', 6);
  t.throws(() => budget.enter('a', 5), refusal, 'more than one may have');
  const second = budget.enter('b', 9);
  t.throws(() => budget.enter('c', 1), refusal, 'more than all may have');
  t.strictSame(budget.counts, { inUse: 15, max: 15, refused: 2 });
  t.throws(() => {
    first.resize(7);
  }, refusal);
  t.equal(budget.counts.inUse, 15, 'a place that cannot grow stays as it was');
  second.resize(2);
  first.resize(10);
  first.leave();
  first.leave();
  t.equal(budget.counts.inUse, 2, 'and is given back once');
  second.leave();
  t.equal(budget.counts.inUse, 0);
  t.throws(() => {
    second.resize(1);
  }, TypeError);
});

t.test('a gate lets so many of a key in, the others in their order', async (t) => {
  const gate = new Gate<string>({ atOnce: 2, waitingMax: 2, waitMs: 60_000 });
  const order: number[] = [];
  const enter = (name: number) =>
    gate.enter('a').then((leave) => {
      order.push(name);
      return leave;
    });
  const [first, second] = [await enter(1), await enter(2)];
  const [third, fourth] = [enter(3), enter(4)];
  t.type(await gate.enter('b'), 'function', 'another key is not concerned');
  t.equal(await gate.enter('a'), undefined, 'there is an end to the line');
  t.strictSame(gate.counts, { inUse: 2, max: 2, refused: 1 });
  t.strictSame(order, [1, 2]);
  second!();
  second!();
  (await third)!();
  t.strictSame(order, [1, 2, 3], 'a place is handed on once');
  (await fourth)!();
  first!();
  t.strictSame(order, [1, 2, 3, 4]);
  t.strictSame(gate.counts, { inUse: 0, max: 2, refused: 1 });
  t.type(await enter(5), 'function');
});

t.test('whose turn does not come in time is sent away, and keeps nobody else', async (t) => {
  const gate = new Gate<string>({ atOnce: 1, waitingMax: 10, waitMs: 1 });
  const leave = await gate.enter('a');
  t.equal(await gate.enter('a'), undefined);
  leave!();
  t.type(await gate.enter('a'), 'function', 'the place does not go to whoever left');
});

t.test(
  'lanes: so many at a time, results in their order, nothing begun after a failure',
  async (t) => {
    let running = 0;
    let most = 0;
    const slow = async (item: number): Promise<number> => {
      running += 1;
      most = Math.max(most, running);
      await new Promise(setImmediate);
      running -= 1;
      return item * 2;
    };
    t.strictSame(await inLanes([1, 2, 3, 4, 5, 6, 7], 3, slow), [2, 4, 6, 8, 10, 12, 14]);
    t.equal(most, 3);
    t.strictSame(await inLanes([], 3, slow), []);
    const begun: number[] = [];
    await t.rejects(
      inLanes([1, 2, 3, 4, 5, 6], 2, async (item) => {
        begun.push(item);
        await new Promise(setImmediate);
        if (item === 1) throw new Error('the first');
      }),
      { message: 'the first' },
    );
    t.strictSame(begun, [1, 2]);
  },
);

t.test('turns: others come in between, by the size of what is done', async (t) => {
  let turn = 0;
  let isOver = false;
  const count = (): void => {
    turn += 1;
    if (!isOver) setImmediate(count);
  };
  setImmediate(count);
  const turns = await inTurns([60, 60, 10, 10, 10, 200, 10], () => turn, {
    bytesOf: (size) => size,
    bytesPerTurn: 100,
  });
  isOver = true;
  t.equal(new Set(turns.slice(0, 2)).size, 1, 'what is small goes together');
  t.ok(turns[2]! > turns[1]!, 'and then others have their turn');
  t.equal(new Set(turns.slice(2, 6)).size, 1);
  t.ok(turns[6]! > turns[5]!);
});
