// Refusals: each is in the audit log, none says more to the refused than the next, and a loop of
// them does not fill the disk.
import { randomUUIDv7 } from 'node:crypto';
import { sql } from 'kysely';
import t from 'tap';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

async function setUp(test: {
  teardown(action: () => unknown): unknown;
}): Promise<{ vault: TestVault; id: string }> {
  const vault = await startVault(test);
  await vault.team('payments');
  await vault.team('sales', ['sam']);
  await vault.member('payments', 'vera', 'viewer');
  const { json } = await vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
    name: 'openai',
    type: 'openai',
    fields: { apiKey: 'sk' },
  });
  return { vault, id: json.id };
}

const denials = async ({ db }: TestVault): Promise<Record<string, unknown>[]> =>
  (
    await sql<Record<string, unknown>>`
  select subject.sub, event.action, event.target_type as type, event.target_id as target, event.reason, team.slug, event.details, event.request_id as request
  from audit_event event join subject on subject.id = event.actor_id left join team on team.id = event.team_id
  where event.decision = 'deny' order by event.id`.execute(db)
  ).rows;

t.test('every refusal is in the audit log, where the team can read it', async (test) => {
  const { vault, id } = await setUp(test);
  const asked: [string, string, string, object, number, object][] = [
    [
      'vera',
      'PATCH',
      `/v1/credentials/${id}`,
      { name: 'x' },
      403,
      {
        action: 'credential.write',
        type: 'credential',
        target: id,
        reason: 'role',
        slug: 'payments',
      },
    ],
    [
      'vera',
      'DELETE',
      '/v1/teams/payments',
      {},
      403,
      { action: 'team.manage', type: 'team', target: 'payments', reason: 'role', slug: 'payments' },
    ],
    [
      'sam',
      'DELETE',
      `/v1/credentials/${id}`,
      {},
      404,
      {
        action: 'credential.write',
        type: 'credential',
        target: id,
        reason: 'notMember',
        slug: 'payments',
      },
    ],
    [
      'sam',
      'POST',
      '/v1/teams/payments/credentials',
      { name: 'x' },
      404,
      {
        action: 'credential.write',
        type: 'team',
        target: 'payments',
        reason: 'notMember',
        slug: 'payments',
      },
    ],
    [
      'sam',
      'GET',
      '/v1/teams/nothing',
      {},
      404,
      { action: 'team.read', type: 'team', target: 'unknown', reason: 'noSuchThing', slug: null },
    ],
    [
      'sam',
      'GET',
      `/v1/credentials/${randomUUIDv7()}`,
      {},
      404,
      {
        action: 'credential.read',
        type: 'credential',
        target: 'unknown',
        reason: 'noSuchThing',
        slug: null,
      },
    ],
    [
      'sam',
      'GET',
      '/v1/credentials/not-an-id%00',
      {},
      404,
      {
        action: 'credential.read',
        type: 'credential',
        target: 'unknown',
        reason: 'noSuchThing',
        slug: null,
      },
    ],
    [
      'alice',
      'POST',
      '/v1/teams',
      { slug: 'more' },
      403,
      {
        action: 'team.create',
        type: 'vault',
        target: 'vault',
        reason: 'notAnOperator',
        slug: null,
      },
    ],
  ];
  for (const [as, method, url, body, status, event] of asked) {
    const answer = await vault.call(
      as,
      method,
      url,
      method === 'POST' || method === 'PATCH' ? body : undefined,
      { 'if-match': '*' },
    );
    test.equal(answer.status, status, `${as} ${method} ${url}`);
    const found = (await denials(vault)).find(({ request }) => request === answer.json.requestId);
    test.match(found, { sub: as, ...event }, `${as} ${method} ${url}`);
  }
  const shown = await vault.call('alice', 'GET', '/v1/teams/payments/audit-events?decision=deny');
  test.equal(shown.json.items.length, 4, 'an admin sees those of their team');
});

t.test(
  'what exists and what does not are refused alike: the same answer and the same writes',
  async (test) => {
    const { vault, id } = await setUp(test);
    await vault.call('sam', 'GET', '/v1/whoami');
    const written = async (): Promise<unknown> =>
      Promise.all(
        (['audit_event', 'audit_address', 'subject', 'idempotency_record'] as const).map(
          async (table) =>
            (
              await vault.db
                .selectFrom(table)
                .select((select) => select.fn.countAll<number>().as('n'))
                .executeTakeFirstOrThrow()
            ).n,
        ),
      );
    // More than the ceiling lets through, the kinds taking turns: none of them may have a ceiling
    // of its own.
    for (const pair of [
      ['/v1/teams/payments', '/v1/teams/nothing'],
      [`/v1/credentials/${id}`, `/v1/credentials/${randomUUIDv7()}`],
    ] as const) {
      const seen: string[] = [];
      for (const url of [
        ...Array.from({ length: 9 }, () => pair[1]),
        pair[0],
        pair[1],
        pair[0],
        pair[0],
        pair[1],
      ]) {
        const before = (await written()) as number[];
        const { status, json, headers } = await vault.call('sam', 'GET', url);
        const after = (await written()) as number[];
        const { requestId: _, ...said } = json;
        seen.push(
          JSON.stringify([
            status,
            said,
            Object.keys(headers),
            after.map((n, index) => n - (before[index] ?? 0)),
          ]),
        );
      }
      test.equal(new Set(seen.slice(0, 10)).size, 1, `${pair[0]}: below the ceiling`);
      test.equal(new Set(seen.slice(10)).size, 1, `${pair[0]}: above it`);
      test.not(seen[0], seen[10]);
    }
  },
);

t.test('above ten a minute they become one event with their count', async (test) => {
  const { vault, id } = await setUp(test);
  const refuse = async (times: number): Promise<Answer[]> =>
    Promise.all(
      Array.from({ length: times }, () =>
        vault.call('vera', 'DELETE', `/v1/credentials/${id}`, undefined, { 'if-match': '*' }),
      ),
    );
  const answers = await refuse(60);
  test.ok(
    answers.every(({ status }) => status === 403),
    'the answer stays the same',
  );
  test.equal((await denials(vault)).length, 10);
  test.equal(
    (await vault.call('vera', 'DELETE', '/v1/teams/payments', undefined, { 'if-match': '*' }))
      .status,
    403,
  );
  test.equal((await denials(vault)).length, 11, 'another action has a ceiling of its own');
  await vault.stop();
  const all = await denials(vault);
  test.equal(all.length, 12, 'what was only counted is written at the stop at the latest');
  test.match(all.at(-1), {
    sub: 'vera',
    action: 'credential.write',
    target: id,
    details: { count: 50 },
  });
});
