// Limits on how often: per address before anybody is known, per subject and team afterwards;
// refusals count too; probes never do.
import t from 'tap';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

const times = async (n: number, call: () => Promise<Answer>): Promise<number[]> => {
  const seen: number[] = [];
  for (let i = 0; i < n; i += 1) seen.push((await call()).status);
  return seen;
};
const repeat = (n: number, status: number): number[] => Array.from({ length: n }, () => status);

/** A call from an address, as a trusted proxy says it. */
const from = (
  vault: TestVault,
  address: string,
  url = '/v1/whoami',
  as: string | null = null,
): Promise<Answer> => vault.call(as, 'GET', url, undefined, { 'x-forwarded-for': address });

t.test('per address, whoever they say that they are', async (test) => {
  const vault = await startVault(test, {
    rateLimits: { address: 5, subject: 0 },
    trustedProxies: ['127.0.0.1'],
  });
  test.same(
    await times(7, () => from(vault, '203.0.113.1')),
    [...repeat(5, 401), 429, 429],
    'bad tokens',
  );
  const refused = await from(vault, '203.0.113.1', '/v1/whoami', 'alice');
  test.match(
    refused,
    {
      status: 429,
      headers: { 'content-type': 'application/problem+json', 'retry-after': /^[1-9]\d?$/ },
      json: { code: 'rateLimited' },
    },
    'a good one too',
  );
  test.equal((await from(vault, '203.0.113.1', '/nothing')).status, 429, 'what is no route counts');
  test.equal((await from(vault, '203.0.113.1', '/docs')).status, 429, 'what is public counts');
  test.same(
    await times(20, () => from(vault, '203.0.113.1', '/healthz')),
    repeat(20, 200),
    'probes do not',
  );
  test.equal((await from(vault, '203.0.113.2')).status, 401, 'another address has its own count');
  let host = 0;
  test.same(
    await times(6, () => from(vault, `2001:db8:1:2:${(host += 1)}::1`)),
    [...repeat(5, 401), 429],
    'the addresses of one IPv6 network count as one',
  );
  test.equal((await from(vault, '2001:db8:1:3::1')).status, 401);
  test.equal(
    (await from(vault, '::ffff:203.0.113.1')).status,
    429,
    'another spelling is the same address',
  );
});

t.test('without a trusted proxy nobody chooses their address', async (test) => {
  const vault = await startVault(test, { rateLimits: { address: 3, subject: 0 } });
  const seen = [];
  for (let n = 1; n <= 5; n += 1) seen.push((await from(vault, `203.0.113.${n}`)).status);
  test.same(seen, [401, 401, 401, 429, 429]);
});

t.test('per subject and team', async (test) => {
  const vault = await startVault(test, { rateLimits: { address: 0, subject: 6 } });
  await vault.team('payments', ['alice', 'adam']);
  await vault.team('sales', ['alice']);
  const get = (as: string, url: string) => (): Promise<Answer> => vault.call(as, 'GET', url);
  test.same(await times(7, get('alice', '/v1/teams/payments')), [...repeat(6, 200), 429]);
  const refused = await vault.call('alice', 'GET', '/v1/teams/payments/members');
  test.match(
    refused,
    { status: 429, headers: { 'retry-after': /^[1-9]\d?$/ }, json: { code: 'rateLimited' } },
    'of all that is asked of the team',
  );
  test.same(
    await times(7, get('alice', '/v1/teams/sales')),
    [...repeat(6, 200), 429],
    'another team has its own count',
  );
  test.same(await times(1, get('adam', '/v1/teams/payments')), [200], 'so has another subject');
  test.same(
    await times(7, get('alice', '/v1/whoami')),
    [...repeat(6, 200), 429],
    "and so has what is no team's",
  );
});

t.test('refusals count, and say by no count of their own that a team exists', async (test) => {
  const vault = await startVault(test, { rateLimits: { address: 0, subject: 6 } });
  await vault.team('payments');
  await vault.team('sales');
  const urls = [
    '/v1/teams/payments',
    '/v1/teams/nothing',
    '/v1/teams/sales',
    '/v1/teams/nowhere',
    '/v1/credentials/x',
    '/v1/teams/payments/keys',
  ];
  const seen = [];
  for (const url of [...urls, ...urls]) seen.push((await vault.call('mallory', 'GET', url)).status);
  test.same(seen, [...repeat(6, 404), ...repeat(6, 429)]);
  const events = await vault.db
    .selectFrom('audit_event')
    .select('id')
    .where('decision', '=', 'deny')
    .execute();
  test.ok(events.length <= 6, 'what is refused for its number is no event');
});
