// Work that comes back: at once and again, one run at a time, once more when it is woken meanwhile;
// what fails is told and tried again.
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { Periodic } from '../../src/shared/periodic.ts';
import { until } from '../helpers/processes.ts';

t.test(
  'it runs at the start and every interval; told to wait, only from the first interval on',
  async (t) => {
    let runs = 0;
    const periodic = new Periodic({
      run: async () => {
        runs += 1;
      },
      everyMs: 5,
      onFailure: () => undefined,
    });
    periodic.start();
    t.equal(runs, 1);
    await until(() => runs > 3);
    await periodic.stop();
    const done = runs;
    await delay(30);
    t.equal(runs, done, 'stopped');
    let later = 0;
    const waiting = new Periodic({
      run: async () => {
        later += 1;
      },
      everyMs: 5,
      isDueAtStart: false,
      onFailure: () => undefined,
    });
    waiting.start();
    t.equal(later, 0);
    await until(() => later > 0);
    await waiting.stop();
  },
);

t.test('one run at a time; woken during one it runs once more, however often', async (t) => {
  const ends: (() => void)[] = [];
  const periodic = new Periodic({
    run: () =>
      new Promise<void>((resolve) => {
        ends.push(resolve);
      }),
    everyMs: 3_600_000,
    onFailure: () => undefined,
  });
  periodic.start();
  for (let i = 0; i < 5; i += 1) periodic.wake();
  await delay(10);
  t.equal(ends.length, 1);
  ends[0]!();
  await until(() => ends.length === 2);
  ends[1]!();
  await delay(10);
  t.equal(ends.length, 2);
  periodic.wake();
  t.equal(ends.length, 3);
  periodic.wake();
  let isStopped = false;
  const stopped = periodic.stop().then(() => {
    isStopped = true;
  });
  t.equal(periodic.isStopping, true);
  await delay(10);
  t.equal(isStopped, false, 'it waits for the run');
  ends[2]!();
  await stopped;
  t.equal(ends.length, 3, 'and begins no other');
});

t.test('who is told and fails at it ends one run and not the loop', async (t) => {
  let runs = 0;
  const unhandled: unknown[] = [];
  const note = (error: unknown): void => {
    unhandled.push(error);
  };
  process.on('unhandledRejection', note);
  t.teardown(() => process.off('unhandledRejection', note));
  const periodic = new Periodic({
    run: () => {
      runs += 1;
      return Promise.reject(new Error('the work'));
    },
    everyMs: 3_600_000,
    onFailure: () => {
      throw new Error('the telling');
    },
  });
  periodic.start();
  await until(() => unhandled.length === 1);
  periodic.wake();
  await until(() => runs === 2 && unhandled.length === 2);
  await periodic.stop();
});

t.test('everything that failed is told, and the next run comes all the same', async (t) => {
  const told: unknown[] = [];
  let runs = 0;
  const periodic = new Periodic({
    run: () => {
      runs += 1;
      return Promise.reject(runs === 1 ? new AggregateError(['a', 'b']) : new Error('c'));
    },
    everyMs: 5,
    onFailure: (cause) => {
      told.push(cause);
    },
  });
  periodic.start();
  await until(() => told.length >= 3);
  await periodic.stop();
  t.match(told.slice(0, 3), ['a', 'b', { message: 'c' }]);
});
