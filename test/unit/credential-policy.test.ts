import t from 'tap';
import { isUnder, isWiderPolicy, type Policy } from '../../src/credentials/policy.ts';

t.test('isUnder: on the border of a segment', async (t) => {
  for (const [path, prefix, expected] of [
    ['/v1', '/v1', true],
    ['/v1/', '/v1', true],
    ['/v1/chat', '/v1', true],
    ['/v1x', '/v1', false],
    ['/v', '/v1', false],
    ['/', '/v1', false],
    ['/v1/chat', '/v1/', true],
    ['/v1', '/v1/', false],
    ['/v1/', '/v1/', true],
    ['/anything', '/', true],
    ['/', '/', true],
    ['/V1', '/v1', false],
  ] as const)
    t.equal(isUnder(path, prefix), expected, `${path} under ${prefix}`);
});

t.test('isWiderPolicy: a bound beyond the default is wider than none', async (t) => {
  const policy: Policy = { delivery: [], allowedHosts: [] };
  t.ok(isWiderPolicy(policy, { ...policy, limits: { concurrency: 1_000 } }));
  t.notOk(isWiderPolicy(policy, { ...policy, limits: { concurrency: 1 } }));
  t.ok(isWiderPolicy({ ...policy, limits: { concurrency: 1 } }, policy));
});
