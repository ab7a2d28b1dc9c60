// Refusals that are only counted, and a clock that is set back: none of them waits for as long as it
// was set.
import t from 'tap';
import { DenialCeiling } from '../../src/audit/denial-ceiling.ts';

t.test('a clock that was set back ends a window', async (t) => {
  let now = Date.parse('2026-12-01T12:00:00Z');
  const ceiling = new DenialCeiling<string>(() => now);
  for (let n = 1; n <= 12; n += 1) t.equal(ceiling.admit('alice', `refusal ${n}`), n <= 10);
  t.same(ceiling.overdue({ all: false }), [], 'the window is not over');
  now -= 3_600_000;
  const [suppressed, ...more] = ceiling.overdue({ all: false });
  t.same(suppressed, { key: 'alice', last: 'refusal 12', count: 2 });
  t.same(more, []);
  ceiling.settle(suppressed!);
  now -= 3_600_000;
  t.ok(ceiling.admit('alice', 'refusal 13'), 'and the next one has a window of its own');
});
