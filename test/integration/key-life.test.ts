// The life of a key over the whole app: every arrow, every refusal, compromise and what it exposes,
// policy, forecast.
import t from 'tap';
import { startVault, type TestVault } from '../helpers/vault.ts';
import { until } from '../helpers/processes.ts';

interface Key {
  id: string;
  version: number;
  state: string;
  rows: number;
  format: string;
  compromised: boolean;
  overdue: boolean;
  destroyAt: string | null;
  rotateAt: string | null;
}

const keysOf = async (vault: TestVault): Promise<Key[]> =>
  (await vault.call('alice', 'GET', '/v1/teams/payments/keys')).json.items;
const store = async (vault: TestVault, name: string): Promise<string> => {
  const made = await vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
    name,
    type: 'openai',
    fields: { apiKey: `key of ${name}` },
  });
  return made.json.id;
};
const change = (
  vault: TestVault,
  key: string,
  verb: string,
  body?: unknown,
  as = 'alice',
): ReturnType<TestVault['call']> =>
  vault.call(as, 'POST', `/v1/teams/payments/keys/${key}/${verb}`, body);
const rotate = async (vault: TestVault): Promise<void> => {
  const { json } = await vault.call('alice', 'POST', '/v1/teams/payments/key-rotations');
  await until(
    async () =>
      (await vault.call('alice', 'GET', `/v1/teams/payments/key-rotations/${json.id}`)).json
        .state !== 'running',
  );
};
const startWithTeam = async (t: Parameters<typeof startVault>[0]): Promise<TestVault> => {
  const vault = await startVault(t);
  await vault.team('payments');
  vault.start();
  return vault;
};

t.test(
  'a key goes along every arrow and no other, each with its event, actor and reason',
  async (t) => {
    const vault = await startWithTeam(t);
    await store(vault, 'one');
    const [first] = await keysOf(vault);
    const id = first?.id ?? '';
    for (const [verb, body] of [
      ['retire'],
      ['restore'],
      ['schedule-destroy', { days: 7 }],
      ['cancel-destroy'],
    ] as const) {
      t.match(
        await change(vault, id, verb, body),
        { status: 409, json: { code: 'keyStateConflict' } },
        `an active key refuses ${verb}`,
      );
    }
    await rotate(vault);
    t.match(await change(vault, id, 'restore'), {
      status: 409,
      json: { code: 'keyStateConflict' },
    });
    t.match(await change(vault, id, 'retire', { reason: 'routine' }), {
      status: 200,
      json: { state: 'retired', rows: 0 },
    });
    t.match(await change(vault, id, 'restore'), {
      status: 200,
      json: { state: 'decryptOnly', retiredAt: null },
    });
    t.equal((await change(vault, id, 'retire')).status, 200);
    t.match(await change(vault, id, 'schedule-destroy', { days: 6 }), {
      status: 400,
      json: { errors: [{ pointer: '/days', rule: 'min', min: 7 }] },
    });
    t.match(
      await change(vault, id, 'schedule-destroy', { days: 7, reason: 'no backup needs it' }),
      { status: 200, json: { state: 'destroyPending' } },
    );
    t.match(await change(vault, id, 'cancel-destroy'), {
      status: 200,
      json: { state: 'retired', destroyAt: null },
    });
    t.equal((await change(vault, id, 'schedule-destroy', { days: 7 })).status, 200);
    const {
      json: { items },
    } = await vault.call('alice', 'GET', `/v1/teams/payments/audit-events?target=${id}`);
    t.strictSame(items.map((event: { action: string }) => event.action).reverse(), [
      'key.retire',
      'key.restore',
      'key.retire',
      'key.scheduleDestroy',
      'key.cancelDestroy',
      'key.scheduleDestroy',
    ]);
    t.match(items.at(-1), { actor: 'alice', details: { reason: 'routine' } });
  },
);

t.test('only admins change the life of a key, and strangers know of none', async (t) => {
  const vault = await startWithTeam(t);
  await vault.member('payments', 'audrey', 'auditor');
  await vault.member('payments', 'eddie', 'editor');
  const [key] = await keysOf(vault);
  for (const [verb, body] of [
    ['retire'],
    ['restore'],
    ['schedule-destroy', { days: 7 }],
    ['cancel-destroy'],
    ['mark-compromised', { reason: 'x' }],
  ] as const) {
    t.equal((await change(vault, key?.id ?? '', verb, body, 'audrey')).status, 403);
    t.equal((await change(vault, key?.id ?? '', verb, body, 'eddie')).status, 403);
    t.equal((await change(vault, key?.id ?? '', verb, body, 'stranger')).status, 404);
    t.equal(
      (await vault.call(null, 'POST', `/v1/teams/payments/keys/${key?.id ?? ''}/${verb}`, body))
        .status,
      401,
    );
  }
});

t.test(
  'a compromised key is left at once; what was ever under it is exposed until its value is replaced',
  async (t) => {
    const vault = await startWithTeam(t);
    const kept = await store(vault, 'kept');
    const merged = await vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: 'merged',
      type: 'custom',
      fields: { a: 'first', b: 'second' },
    });
    const replaced = await store(vault, 'replaced');
    const [first] = await keysOf(vault);
    await rotate(vault);
    const later = await store(vault, 'later');
    t.equal(
      (await change(vault, first?.id ?? '', 'mark-compromised', { reason: 'a backup was lost' }))
        .status,
      200,
    );
    const problems = async (id: string): Promise<string[]> =>
      (await vault.call('alice', 'GET', `/v1/credentials/${id}`)).json.problems;
    t.strictSame(await problems(kept), ['exposed'], 're-encrypting does not un-leak');
    t.strictSame(await problems(later), [], 'what came after it was never under it');
    const patch = (id: string, fields: object): ReturnType<TestVault['call']> =>
      vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { fields }, { 'if-match': '*' });
    t.equal((await patch(replaced, { apiKey: 'a new one' })).status, 200);
    t.strictSame(await problems(replaced), []);
    t.equal((await patch(merged.json.id, { a: 'a new one' })).status, 200);
    t.strictSame(await problems(merged.json.id), ['exposed'], 'the other value is the old one');
    const { json: list } = await vault.call(
      'alice',
      'GET',
      '/v1/teams/payments/credentials?problem=exposed',
    );
    t.strictSame(
      list.items.map((each: { name: string }) => each.name),
      ['kept', 'merged'],
    );
    t.match(await change(vault, first?.id ?? '', 'mark-compromised', { reason: 'again' }), {
      status: 409,
      json: { code: 'keyStateConflict' },
    });
    const [active] = await keysOf(vault);
    t.match(await change(vault, active?.id ?? '', 'mark-compromised', { reason: 'that one too' }), {
      status: 200,
      json: { state: 'decryptOnly', compromised: true },
    });
    await until(async () =>
      (await keysOf(vault)).every((key) => key.state === 'active' || key.rows === 0),
    );
    t.strictSame(await problems(later), ['exposed']);
  },
);

t.test('leases of exposed credentials are refused where the team says so', async (t) => {
  const vault = await startWithTeam(t);
  const { json: team, headers } = await vault.call('alice', 'GET', '/v1/teams/payments');
  t.match(team, { rotateEveryDays: null, refuseExposedLeases: false });
  t.match(
    await vault.call(
      'alice',
      'PATCH',
      '/v1/teams/payments',
      { refuseExposedLeases: true },
      { 'if-match': String(headers['etag']) },
    ),
    { status: 200, json: { refuseExposedLeases: true, revision: 2 } },
  );
});

t.test(
  'a policy rotates once, whichever replica looks first, and is overdue until then',
  async (t) => {
    const vault = await startVault(t);
    await vault.team('payments');
    t.equal(
      (
        await vault.call(
          'alice',
          'PATCH',
          '/v1/teams/payments',
          { rotateEveryDays: 30 },
          { 'if-match': '*' },
        )
      ).status,
      200,
    );
    t.match(await keysOf(vault), [{ overdue: false, rotateAt: String }]);
    vault.clock.ms += 31 * 86_400_000;
    t.match(await keysOf(vault), [{ overdue: true }]);
    t.match(await vault.call('operator', 'GET', '/v1/status'), {
      status: 200,
      json: { keysOverdue: 1, teams: 1 },
    });
    vault.start();
    await until(async () => (await keysOf(vault)).length === 2);
    t.match((await vault.call('alice', 'GET', '/v1/teams/payments/key-rotations')).json.items, [
      { cause: 'policy', createdBy: null },
    ]);
    t.match(await vault.call('operator', 'GET', '/v1/status'), {
      status: 200,
      json: { keysOverdue: 0 },
    });
  },
);

t.test('a rehearsal says how much and starts nothing', async (t) => {
  const vault = await startWithTeam(t);
  await store(vault, 'one');
  t.match(await vault.call('alice', 'POST', '/v1/teams/payments/key-rotations?dryRun=true'), {
    status: 200,
    json: { rows: 1, estimatedSeconds: 1, isMeasured: false },
  });
  t.equal((await keysOf(vault)).length, 1);
});

t.test('a team goes to AES-256 and back by rotating; both open all along', async (t) => {
  const vault = await startWithTeam(t);
  const id = await store(vault, 'one');
  for (const format of ['fernet-256', 'fernet'] as const) {
    t.equal(
      (
        await vault.call(
          'alice',
          'PATCH',
          '/v1/teams/payments',
          { tokenFormat: format },
          { 'if-match': '*' },
        )
      ).status,
      200,
    );
    await rotate(vault);
    const { token } = await vault.db
      .selectFrom('credential_version')
      .select('token')
      .where('credential_id', '=', id as never)
      .executeTakeFirstOrThrow();
    t.match(token, format === 'fernet' ? /^gAAAA/ : /^QQAAA/);
    t.match((await keysOf(vault))[0], { format, state: 'active', rows: 1 });
  }
});
