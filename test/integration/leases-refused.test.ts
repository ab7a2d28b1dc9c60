// Every refusal of a lease: which one, why, as far as the caller may know, and nothing delivered
// beside it.
import { randomBytes } from 'node:crypto';
import { test } from 'tap';
import { sql } from 'kysely';
import {
  askLease,
  demand,
  openAnswer,
  registerEngine,
  rulesOf,
  storeOpenai,
} from '../helpers/leases.ts';
import { startVault } from '../helpers/vault.ts';

const someId = '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d';

test('refusals', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('secretive', ['mallory']);
  for (const [sub, role] of [
    ['ed', 'editor'],
    ['vera', 'viewer'],
    ['otto', 'auditor'],
  ] as const)
    await vault.member('payments', sub, role);
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const canary = `sk-${randomBytes(24).toString('hex')}`;
  const good = await storeOpenai(vault, 'payments', 'good', canary);
  const foreign = await storeOpenai(vault, 'secretive', 'good', canary, {}, 'mallory');
  const denials = async (): Promise<
    { reason: string | null; target_id: string; slug: string | null }[]
  > =>
    vault.db
      .selectFrom('audit_event')
      .leftJoin('team', 'team.id', 'audit_event.team_id')
      .select(['reason', 'target_id', 'slug'])
      .where('action', '=', 'credential.lease')
      .where('decision', '=', 'deny')
      .orderBy('audit_event.id')
      .execute();
  /** The ceiling on events of refusals counts by the minute. */
  const aMinuteLater = (): void => {
    vault.clock.ms += 61_000;
  };

  await t.test('401: without a token', async (t) => {
    t.equal(
      (
        await vault.call(null, 'POST', '/v1/leases', {
          credentials: [{ id: good.id }],
          purpose: 'x',
        })
      ).status,
      401,
    );
  });

  await t.test(
    '403: people do not lease, nor operators, nor strangers, whatever exists',
    async (t) => {
      for (const sub of ['alice', 'ed', 'vera', 'otto', 'operator', 'stranger']) {
        aMinuteLater();
        for (const reference of [{ id: good.id }, { id: someId }])
          t.equal((await askLease(vault, sub, [reference])).status, 403, sub);
      }
      t.match((await denials()).at(-1), { reason: 'notAnEngine', slug: null });
    },
  );

  await t.test('403: a disabled engine, until it is enabled', async (t) => {
    aMinuteLater();
    await demand(
      vault.call(
        'operator',
        'PATCH',
        `/v1/engines/${engine.id}`,
        { state: 'disabled' },
        { 'if-match': '*' },
      ),
      200,
    );
    t.equal((await askLease(vault, 'n8n', [{ id: good.id }])).status, 403);
    t.match((await denials()).at(-1), { reason: 'engineDisabled', target_id: engine.id });
    await demand(
      vault.call(
        'operator',
        'PATCH',
        `/v1/engines/${engine.id}`,
        { state: 'enabled' },
        { 'if-match': '*' },
      ),
      200,
    );
    t.equal((await askLease(vault, 'n8n', [{ id: good.id }])).status, 201);
  });

  await t.test('422: what does not exist and what is foreign get the same answer', async (t) => {
    aMinuteLater();
    const same = ({ status, json }: Awaited<ReturnType<typeof askLease>>): object => ({
      status,
      ...json,
      requestId: '',
    });
    const answers = [];
    for (const reference of [
      { id: someId },
      { id: foreign.id },
      { team: 'secretive', name: 'good' },
      { team: 'nowhere', name: 'good' },
      { team: 'payments', name: 'nothing' },
    ]) {
      for (const onBehalfOf of ['alice', 'mallory', null])
        answers.push(await askLease(vault, 'n8n', [reference], { onBehalfOf }));
    }
    for (const answer of answers) t.strictSame(same(answer), same(answers[0] as never));
    t.match(answers[0], {
      status: 422,
      json: { code: 'leaseRefused', errors: [{ pointer: '/credentials/0', rule: 'notFound' }] },
    });
    const seen = await denials();
    t.ok(
      seen.some(
        ({ slug, reason, target_id }) =>
          slug === 'secretive' && reason === 'notMember' && target_id === foreign.id,
      ),
      'the owner sees the attempt in their audit log',
    );
    t.ok(
      seen.some(
        ({ reason, slug, target_id }) =>
          reason === 'noSuchThing' && slug === null && target_id === 'unknown',
      ),
    );
  });

  await t.test('422: each with its rule; all or nothing', async (t) => {
    const make = (name: string, more: object = {}): Promise<any> =>
      storeOpenai(vault, 'payments', name, canary, more);
    const [deleted, disabled, expired, brokerOnly, tampered] = [
      await make('deleted'),
      await make('disabled'),
      await make('expired', {
        expiresAt: new Date(Date.now() + vault.clock.ms + 30_000).toISOString(),
      }),
      await make('broker-only', { policy: { delivery: ['broker'], allowedHosts: [] } }),
      await make('bent'),
    ];
    await demand(
      vault.call('alice', 'DELETE', `/v1/credentials/${deleted.id}`, undefined, {
        'if-match': '*',
      }),
      204,
    );
    await demand(vault.call('alice', 'POST', `/v1/credentials/${disabled.id}/disable`), 200);
    await sql`update credential_version set token = (select token from credential_version where credential_id = ${good.id}) where credential_id = ${tampered.id}`.execute(
      vault.db,
    );
    aMinuteLater();
    const before = await countAllowed(vault);
    const answer = await askLease(vault, 'n8n', [
      { id: good.id },
      { id: deleted.id },
      { team: 'payments', name: 'deleted' },
      { id: disabled.id },
      { id: expired.id },
      { id: brokerOnly.id },
      { id: tampered.id },
      { team: 'payments', name: 'good' },
      { id: foreign.id },
    ]);
    t.equal(answer.status, 422);
    t.strictSame(rulesOf(answer), [
      '/credentials/1 deleted',
      '/credentials/2 notFound',
      '/credentials/3 disabled',
      '/credentials/4 expired',
      '/credentials/5 deliveryNotAllowed',
      '/credentials/6 undecryptable',
      '/credentials/7 duplicate',
      '/credentials/8 notFound',
    ]);
    t.notOk('sealed' in answer.json);
    t.equal(await countAllowed(vault), before, 'nothing stands as leased');

    await t.test(
      'a disabled one is leased again when enabled, an expired one when its expiry is moved',
      async (t) => {
        await demand(vault.call('alice', 'POST', `/v1/credentials/${disabled.id}/enable`), 200);
        await demand(
          vault.call(
            'alice',
            'PATCH',
            `/v1/credentials/${expired.id}`,
            { expiresAt: null },
            { 'if-match': '*' },
          ),
          200,
        );
        t.equal(
          (await askLease(vault, 'n8n', [{ id: disabled.id }, { id: expired.id }])).status,
          201,
        );
      },
    );
    await t.test(
      'what does not open is marked once, named in the audit log with its key, and heals when it opens again',
      async (t) => {
        t.match((await vault.call('alice', 'GET', `/v1/credentials/${tampered.id}`)).json, {
          health: 'undecryptable',
          problems: ['undecryptable'],
        });
        aMinuteLater();
        t.strictSame(rulesOf(await askLease(vault, 'n8n', [{ id: tampered.id }])), [
          '/credentials/0 undecryptable',
        ]);
        const events = await vault.db
          .selectFrom('audit_event')
          .select(['key_id', 'credential_version'])
          .where('target_id', '=', tampered.id)
          .where('reason', '=', 'undecryptable')
          .execute();
        t.equal(events.length, 2);
        t.match(events, [{ credential_version: 1 }, {}]);
        t.type(events[0]?.key_id, 'string');
        const healthy = await make('healthy');
        const { token } = await vault.db
          .selectFrom('credential_version')
          .select('token')
          .where('credential_id', '=', healthy.id)
          .executeTakeFirstOrThrow();
        const swap = (value: string) =>
          sql`update credential_version set token = ${value} where credential_id = ${healthy.id}`.execute(
            vault.db,
          );
        await swap(`${token.slice(0, -6)}AAAA${token.slice(-2)}`);
        t.strictSame(rulesOf(await askLease(vault, 'n8n', [{ id: healthy.id }])), [
          '/credentials/0 undecryptable',
        ]);
        await swap(token);
        t.equal(
          (await vault.call('alice', 'GET', `/v1/credentials/${healthy.id}`)).json.health,
          'undecryptable',
        );
        t.equal((await askLease(vault, 'n8n', [{ id: healthy.id }])).status, 201);
        t.equal(
          (await vault.call('alice', 'GET', `/v1/credentials/${healthy.id}`)).json.health,
          'ok',
        );
      },
    );
    await t.test('a team that was deleted has nothing to lease', async (t) => {
      await vault.team('shortlived');
      await vault.member('shortlived', 'n8n', 'engine');
      const { id } = await storeOpenai(vault, 'shortlived', 'one', canary);
      t.equal((await askLease(vault, 'n8n', [{ id }])).status, 201);
      await sql`update team set deleted_at = now() where slug = 'shortlived'`.execute(vault.db);
      t.strictSame(
        rulesOf(await askLease(vault, 'n8n', [{ id }, { team: 'shortlived', name: 'one' }])),
        ['/credentials/0 notFound', '/credentials/1 notFound'],
      );
    });
  });

  await t.test('422: on whose behalf', async (t) => {
    aMinuteLater();
    const ask = async (onBehalfOf: string | null): Promise<string[] | number> => {
      const answer = await askLease(vault, 'n8n', [{ id: good.id }], { onBehalfOf });
      return answer.status === 201 ? 201 : rulesOf(answer);
    };
    for (const sub of ['alice', 'ed']) t.equal(await ask(sub), 201, sub);
    for (const sub of ['vera', 'otto', 'mallory', 'n8n', 'nobody-ever-seen', 'operator'])
      t.strictSame(await ask(sub), ['/credentials/0 onBehalfOfRefused'], sub);
    t.strictSame(await ask(null), ['/credentials/0 onBehalfOfRequired']);
    await vault.member('payments', 'n8n', 'engine', 'alice', { actsForItself: true });
    t.equal(await ask(null), 201, 'an engine that acts for itself need not say for whom');
    t.strictSame(
      await ask('vera'),
      ['/credentials/0 onBehalfOfRefused'],
      'and is held to it when it does',
    );
    await vault.member('payments', 'n8n', 'engine', 'alice', { actsForItself: false });
    t.strictSame(await ask(null), ['/credentials/0 onBehalfOfRequired']);
    await vault.member('payments', 'ed', 'viewer');
    t.strictSame(
      await ask('ed'),
      ['/credentials/0 onBehalfOfRefused'],
      'a changed role counts at once',
    );
    const { details } = await vault.db
      .selectFrom('audit_event')
      .select('details')
      .where('action', '=', 'credential.lease')
      .where('decision', '=', 'allow')
      .orderBy('id', 'desc')
      .limit(1)
      .executeTakeFirstOrThrow();
    t.notOk('onBehalfOf' in details);
  });

  await t.test("the right of the person is asked in each owner's team", async (t) => {
    await vault.team('shipping', ['alice', 'zoe']);
    await vault.member('shipping', 'n8n', 'engine');
    const there = await storeOpenai(vault, 'shipping', 'good', canary);
    t.strictSame(
      rulesOf(
        await askLease(vault, 'n8n', [{ id: there.id }, { id: good.id }], { onBehalfOf: 'zoe' }),
      ),
      ['/credentials/1 onBehalfOfRefused'],
    );
    t.equal((await askLease(vault, 'n8n', [{ id: there.id }], { onBehalfOf: 'zoe' })).status, 201);
  });

  await t.test("a person's own token is proof", async (t) => {
    const ask = async (
      sub: string | undefined,
      more: object = {},
    ): Promise<Awaited<ReturnType<typeof askLease>>> =>
      askLease(vault, 'n8n', [{ id: good.id }], {
        onBehalfOf: null,
        ...(sub === undefined ? {} : { subjectToken: await vault.token(sub) }),
        ...more,
      });
    t.equal((await ask('alice')).status, 201, 'it stands for onBehalfOf');
    const { details } = await vault.db
      .selectFrom('audit_event')
      .select('details')
      .where('action', '=', 'credential.lease')
      .where('decision', '=', 'allow')
      .orderBy('id', 'desc')
      .limit(1)
      .executeTakeFirstOrThrow();
    t.match(details, { isProven: true });
    t.equal((await ask('alice', { onBehalfOf: 'alice' })).status, 201);
    t.match(await ask('vera', { onBehalfOf: 'alice' }), {
      status: 400,
      json: {
        code: 'subjectTokenInvalid',
        errors: [{ pointer: '/subjectToken', rule: 'subject' }],
      },
    });
    t.strictSame(rulesOf(await ask('vera')), ['/credentials/0 onBehalfOfRefused']);
    const past = Math.floor((Date.now() + vault.clock.ms) / 1000) - 1000;
    for (const claims of [
      { iat: past, exp: past + 60 },
      { aud: 'someone else' },
      { iss: 'https://elsewhere.test' },
    ]) {
      const answer = await ask(undefined, { subjectToken: await vault.token('alice', claims) });
      t.match(answer, {
        status: 400,
        json: {
          code: 'subjectTokenInvalid',
          errors: [{ pointer: '/subjectToken', rule: 'token' }],
        },
      });
    }
    t.equal((await ask(undefined, { subjectToken: 'not a token' })).status, 400);
    const token = await vault.token('vera');
    const echoed = await ask(undefined, { subjectToken: token, onBehalfOf: 'alice' });
    t.notOk(echoed.text.includes(token) || vault.logs.some((line) => line.includes(token)));
  });

  await t.test('400: bad input is named by place and rule', async (t) => {
    const ask = (body: object): Promise<Awaited<ReturnType<typeof askLease>>> =>
      vault.call('n8n', 'POST', '/v1/leases', body);
    const one = [{ id: good.id }];
    for (const [body, pointer] of [
      [{ purpose: 'x' }, '/credentials'],
      [{ credentials: [], purpose: 'x' }, '/credentials'],
      [{ credentials: one }, '/purpose'],
      [{ credentials: one, purpose: '' }, '/purpose'],
      [{ credentials: one, purpose: 'x'.repeat(201) }, '/purpose'],
      [{ credentials: one, purpose: 'a\u0000b' }, '/purpose'],
      [{ credentials: one, purpose: 'x', ttlSeconds: 301 }, '/ttlSeconds'],
      [{ credentials: one, purpose: 'x', ttlSeconds: 0 }, '/ttlSeconds'],
      [{ credentials: one, purpose: 'x', onBehalfOf: 'a ' }, '/onBehalfOf'],
      [{ credentials: one, purpose: 'x', keyId: 'k' }, '/keyId'],
      [{ credentials: [{ id: 'x' }], purpose: 'x' }, '/credentials/0'],
      [{ credentials: [{ name: 'good' }], purpose: 'x' }, '/credentials/0'],
      [
        { credentials: [{ id: good.id, team: 'payments', name: 'good' }], purpose: 'x' },
        '/credentials/0',
      ],
      [{ credentials: one, purpose: 'x', includeSecrets: true }, '/includeSecrets'],
    ] as const) {
      const answer = await ask(body);
      t.equal(answer.status, 400, pointer);
      t.ok(
        answer.json.errors.some((fault: { pointer: string }) => fault.pointer.startsWith(pointer)),
        `${pointer} in ${answer.text}`,
      );
    }
  });

  await t.test('503: a root key that is not configured marks nothing', async (t) => {
    const { id } = await storeOpenai(vault, 'payments', 'wrapped-elsewhere', canary);
    await sql`insert into root_key (fingerprint, canary) values ('0123456789abcdef', '\\x00')`.execute(
      vault.db,
    );
    const { root_fingerprint: fingerprint } = await vault.db
      .selectFrom('data_key')
      .innerJoin('team', 'team.id', 'data_key.team_id')
      .select('root_fingerprint')
      .where('slug', '=', 'payments')
      .executeTakeFirstOrThrow();
    const point = (to: string) =>
      sql`update data_key set root_fingerprint = ${to} where team_id = (select id from team where slug = 'payments')`.execute(
        vault.db,
      );
    await point('0123456789abcdef');
    const before = await countAllowed(vault);
    t.match(await askLease(vault, 'n8n', [{ id }]), {
      status: 503,
      json: { code: 'keyUnavailable' },
    });
    await point(fingerprint);
    t.equal(await countAllowed(vault), before);
    t.equal((await vault.call('alice', 'GET', `/v1/credentials/${id}`)).json.health, 'ok');
    t.equal((await askLease(vault, 'n8n', [{ id }])).status, 201);
  });

  await t.test(
    'refusals that repeat fill no audit log, whether there is something or not',
    async (t) => {
      for (const [sub, reference] of [
        ['noisy', { id: someId }],
        ['nosy', { id: foreign.id }],
      ] as const) {
        await registerEngine(vault, sub);
        for (let i = 0; i < 30; i += 1)
          t.strictSame(rulesOf(await askLease(vault, sub, [reference])), [
            '/credentials/0 notFound',
          ]);
        const events = await vault.db
          .selectFrom('audit_event')
          .innerJoin('subject', 'subject.id', 'actor_id')
          .select('audit_event.id')
          .where('sub', '=', sub)
          .execute();
        t.equal(events.length, 10, sub);
      }
      // Both at once: what exists must not be told from what does not by how many events were
      // written.
      await registerEngine(vault, 'mixed');
      for (let i = 0; i < 30; i += 1)
        await askLease(vault, 'mixed', [{ id: i % 2 === 0 ? someId : foreign.id }]);
      const events = await vault.db
        .selectFrom('audit_event')
        .innerJoin('subject', 'subject.id', 'actor_id')
        .select('audit_event.id')
        .where('sub', '=', 'mixed')
        .execute();
      t.equal(events.length, 10);
    },
  );

  t.notOk(
    vault.answers.some((answer) => answer.includes(canary)),
    'no answer shows the secret',
  );
  t.notOk(
    vault.logs.some((line) => line.includes(canary)),
    'nor any log line',
  );
  t.match(
    (await openAnswer(vault, engine, await askLease(vault, 'n8n', [{ id: good.id }]))).credentials,
    [{ fields: { apiKey: canary } }],
  );
});

async function countAllowed({
  db,
}: {
  db: Awaited<ReturnType<typeof startVault>>['db'];
}): Promise<number> {
  return (
    await db
      .selectFrom('audit_event')
      .select('id')
      .where('action', '=', 'credential.lease')
      .where('decision', '=', 'allow')
      .execute()
  ).length;
}
