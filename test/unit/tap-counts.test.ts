import t from 'tap';
import { countsOf, summaryOf } from '../helpers/tap-counts.ts';

t.test('the counts are those of the last summary, assertions and not files', async (t) => {
  t.same(
    countsOf(
      '# Subtest: a\n    # { total: 2, pass: 2 }\nok 1 - a\n\n# No coverage\n# { total: 9, pass: 4, fail: 2, todo: 1, skip: 2 }\n# time=3ms\n',
    ),
    { passed: 4, failed: 2, skipped: 3 },
  );
  t.same(countsOf('# { total: 3, pass: 3 }\n'), { passed: 3, failed: 0, skipped: 0 });
});

t.test('a run that was cut short is not an empty one', async (t) => {
  t.throws(() => countsOf('TAP version 14\nok 1 - a\n'));
  t.throws(
    () => countsOf('    # { total: 2, pass: 2 }\n'),
    'the summary of one file is not that of the run',
  );
});

t.test('the line names what was skipped only where something was', async (t) => {
  t.equal(summaryOf({ passed: 12, failed: 0, skipped: 0 }), '12 passed, 0 failed');
  t.equal(summaryOf({ passed: 12, failed: 1, skipped: 2 }), '12 passed, 1 failed, 2 skipped');
});
