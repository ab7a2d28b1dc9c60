// What a caller can make the broker do before it says no: about as much as they send. Counted in
// time of this process, which others on the machine do not lengthen.
import t from 'tap';
import { guardFor } from '../../src/broker/form-guard.ts';
import { checkRange } from '../../src/broker/ranges.ts';
import { BrokerRefusal } from '../../src/broker/refusal.ts';
import type { Target } from '../../src/broker/target.ts';
import type { Policy } from '../../src/credentials/policy.ts';

function workOf(run: () => void): number {
  const before = process.cpuUsage();
  run();
  return process.cpuUsage(before).user / 1_000;
}

t.test('SECURITY: a range of many characters is refused before it is read', async (t) => {
  const long = 15_000;
  const values = [
    `id ${'.'.repeat(long)}=`,
    `id ${'..;'.repeat(long / 3)}=`,
    `bytes=${' '.repeat(long)}x`,
    `bytes=1-${' '.repeat(long)}x`,
    `items${' '.repeat(long)}x`,
  ];
  const ms = workOf(() => {
    for (let time = 0; time < 5; time += 1)
      for (const value of values)
        t.throws(() => checkRange(['Range', value], 'GET'), BrokerRefusal, value.slice(0, 12));
  });
  t.ok(ms < 1_500, `${ms} ms`);
  for (const value of [
    'id ..; max=10',
    `id ${'a'.repeat(200)}..${'b'.repeat(200)}`,
    '0-9',
    'items=0-9',
  ])
    t.doesNotThrow(() => {
      checkRange(['Range', value], 'GET');
    }, value);
});

t.test('SECURITY: separators of a form cost no more than other bytes', async (t) => {
  const policy = { delivery: ['broker'], methods: ['POST'] } as unknown as Policy;
  const of = { target: { basePath: '' } as Target, path: '/' };
  const headers = ['Content-Type', 'application/x-www-form-urlencoded'];
  for (const text of ['&', ';', '&;']) {
    const guard = guardFor(policy, of, headers)!;
    const chunk = Buffer.alloc(64 * 1024, text);
    const passed: Buffer[] = [];
    const ms = workOf(() => {
      for (let count = 0; count < 64; count += 1) passed.push(guard.push(chunk));
      passed.push(guard.end());
    });
    t.ok(ms < 1_000, `${text}: ${ms} ms for four megabytes`);
    t.ok(Buffer.concat(passed).equals(Buffer.alloc(4 * 1024 * 1024, text)), 'and pass to the byte');
  }
  const guard = guardFor(policy, of, headers)!;
  t.throws(
    () => Buffer.concat([guard.push(Buffer.from('&&;;a=1;&&_method=DELETE&&')), guard.end()]),
    BrokerRefusal,
    'what stands behind them is read',
  );
});
