// The form of the guards that an operation declares, whatever its handler does with them.
import t from 'tap';
import { checkGuards } from '../../src/http/preconditions.ts';
import { AppError } from '../../src/shared/errors.ts';

const refusal = (
  headers: Record<string, string>,
  guards: Parameters<typeof checkGuards>[1],
): unknown => {
  try {
    checkGuards({ headers }, guards);
    return undefined;
  } catch (error) {
    if (!(error instanceof AppError)) throw error;
    return error.errors?.map(({ pointer, rule }) => `${pointer} ${rule}`).join();
  }
};

t.test('If-Match, where it is declared', async (test) => {
  for (const guards of [{ ifMatch: true }, { ifMatch: 'existing' }] as const) {
    for (const good of ['*', ' * ', '"1"', '"1", "2"', 'W/"x"', '""'])
      test.equal(refusal({ 'if-match': good }, guards), undefined, good);
    for (const bad of ['', ' ', ',', '1', '"1', '"1" "2"', '*, "1"', "'1'"])
      test.equal(refusal({ 'if-match': bad }, guards), '/headers/If-Match etag', bad);
    test.equal(refusal({}, guards), undefined, "its absence is the operation's to judge");
    test.equal(refusal({ 'idempotency-key': '' }, guards), undefined, 'the other is not declared');
  }
  test.equal(refusal({ 'if-match': '' }, undefined), undefined);
});

t.test('Idempotency-Key, where it is declared', async (test) => {
  const guards = { idempotencyKey: true } as const;
  for (const good of ['a', '~', 'x'.repeat(128)])
    test.equal(refusal({ 'idempotency-key': good }, guards), undefined, good);
  for (const bad of ['', ' ', 'a b', 'a, b', 'ä', '\t', 'x'.repeat(129)])
    test.equal(
      refusal({ 'idempotency-key': bad }, guards),
      '/headers/Idempotency-Key pattern',
      bad,
    );
  test.equal(refusal({ 'if-match': '' }, guards), undefined, 'the other is not declared');
});
