// The second lease of the same is one round trip: recorded by the statement that reads, over what
// is expected. Whatever has changed since, it is decided, delivered and recorded as it is now.
import { randomBytes } from 'node:crypto';
import { type KyselyPlugin, sql } from 'kysely';
import { test } from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { generateEngineKey } from '../../src/client/index.ts';
import { LeasesService } from '../../src/leases/service.ts';
import type { AppError } from '../../src/shared/errors.ts';
import type { CredentialId, SubjectId } from '../../src/shared/ids.ts';
import { unbounded } from '../../src/access/issuers.ts';
import { demand, openAnswer, registerEngine, storeOpenai, vaultIssuer } from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { startVault } from '../helpers/vault.ts';
import type { Caller } from '../../src/access/caller.ts';

test('what was leased before', async (t) => {
  const vault = await startVault(t);
  const { db, keyring } = vault;
  await vault.team('payments');
  const engine = await registerEngine(vault, 'n8n');
  const any = { 'if-match': '*' };
  const canary = `sk-${randomBytes(24).toString('hex')}`;
  await vault.member('payments', 'n8n', 'engine');
  await vault.member('payments', 'ed', 'editor');
  const [one, two] = [
    await storeOpenai(vault, 'payments', 'one', canary),
    await storeOpenai(vault, 'payments', 'two', canary),
  ];
  const subject = (
    await db.selectFrom('subject').select('id').where('sub', '=', 'n8n').executeTakeFirstOrThrow()
  ).id as SubjectId;
  const caller: Caller = {
    sub: 'n8n',
    subject,
    isOperator: false,
    requestId: 'a-request',
    address: '192.0.2.7',
  };
  let statements = 0;
  const now = (): number => Date.now() + vault.clock.ms;
  const counting: KyselyPlugin = {
    transformQuery: ({ node }) => node,
    transformResult: async ({ result }) => {
      statements += 1;
      return result;
    },
  };
  const audit = new AuditLog({
    db,
    keyring,
    now,
    onError: (error) => {
      throw error;
    },
    onAlarm: () => undefined,
  });
  const newService = (): LeasesService =>
    new LeasesService({
      subjectBounds: unbounded,
      db: db.withPlugin(counting),
      keyring,
      audit,
      usage: { count: () => undefined },
      accessTokens: {
        accessTokenFor: () => {
          throw new Error('nothing here is held');
        },
      },
      now,
      issuer: () => vaultIssuer,
    });
  const service = newService();

  const events = (action: string) =>
    db
      .selectFrom('audit_event')
      .select(['target_id', 'credential_version', 'key_id', 'details', 'decision'])
      .where('action', '=', action)
      .orderBy('at')
      .orderBy('id')
      .execute();
  /**
   * What a lease of both comes to: statements, versions or rules, and what the audit log says of
   * it.
   */
  const lease = async (by: LeasesService = service) => {
    statements = 0;
    const before = [
      (await events('credential.lease')).filter(({ decision }) => decision === 'allow').length,
      (await events('lease.failed')).length,
    ] as const;
    const result = await by
      .createLease(caller, {
        references: [
          { id: one.id as CredentialId },
          { team: 'payments', name: 'two', knownVersion: 1 },
        ],
        purpose: 'a run',
        runId: undefined,
        onBehalfOf: { sub: 'ed', isProven: false },
        keyId: undefined,
        ttlSeconds: 60,
      })
      .then(
        ({ id, sealed, credentials }) => ({
          id,
          sealed,
          got: credentials.map(({ row }) => row.currentVersion),
        }),
        ({ code, errors = [] }: AppError) => ({
          id: '',
          sealed: '',
          got: [code, ...errors.map(({ rule }) => rule)],
        }),
      );
    // Events of one millisecond stand in no order among themselves: that of the request.
    const ordered = (made: Awaited<ReturnType<typeof events>>) =>
      made.toSorted((a, b) => Number(a.target_id === two.id) - Number(b.target_id === two.id));
    const allowed = (await events('credential.lease'))
      .filter(({ decision }) => decision === 'allow')
      .slice(before[0]);
    return {
      ...result,
      statements,
      allowed: ordered(allowed),
      failed: ordered((await events('lease.failed')).slice(before[1])),
    };
  };
  const activeKey = async (): Promise<string> =>
    (
      await db
        .selectFrom('data_key')
        .select('id')
        .where('state', '=', 'active')
        .executeTakeFirstOrThrow()
    ).id;

  await t.test('takes one statement, and stands in the audit log with what is in it', async (t) => {
    t.match(await lease(), { statements: 2, got: [1, 1] }, 'the first time two');
    const again = await lease();
    t.match(again, { statements: 1, got: [1, 1], failed: { length: 0 } });
    t.equal(again.allowed.length, 2);
    const opened = await openAnswer(vault, engine, {
      status: 201,
      headers: {},
      text: '',
      json: { sealed: again.sealed },
    });
    t.match(opened.credentials, [
      { id: one.id, fields: { apiKey: canary } },
      { id: two.id, notModified: true },
    ]);
    for (const [event, { id }, isNotModified] of [
      [again.allowed[0]!, one, false],
      [again.allowed[1]!, two, true],
    ] as const) {
      t.match(event, {
        target_id: id,
        credential_version: 1,
        key_id: await activeKey(),
        details: {
          lease: again.id,
          engine: engine.id,
          purpose: 'a run',
          isNotModified,
          isProven: false,
        },
      });
    }
    const { json } = await vault.call(
      'alice',
      'GET',
      '/v1/teams/payments/audit-events?action=credential.lease',
    );
    t.ok(
      json.items.length === 4 &&
        json.items.every(
          (each: { intact: boolean; address: string }) =>
            each.intact && each.address === '192.0.2.7',
        ),
    );
  });

  const credential = (path = ''): string => `/v1/credentials/${one.id}${path}`;
  const refused: readonly (readonly [
    what: string,
    act: () => Promise<unknown>,
    undo: () => Promise<unknown>,
    got: readonly string[],
  ])[] = [
    [
      'the engine has left the team',
      () =>
        demand(
          vault.call('alice', 'DELETE', '/v1/teams/payments/members/n8n', undefined, any),
          204,
        ),
      () => vault.member('payments', 'n8n', 'engine'),
      ['leaseRefused', 'notFound', 'notFound'],
    ],
    [
      'the person has lost the right',
      () => vault.member('payments', 'ed', 'viewer'),
      () => vault.member('payments', 'ed', 'editor'),
      ['leaseRefused', 'onBehalfOfRefused', 'onBehalfOfRefused'],
    ],
    [
      'the engine is disabled',
      () =>
        demand(
          vault.call('operator', 'PATCH', `/v1/engines/${engine.id}`, { state: 'disabled' }, any),
          200,
        ),
      () =>
        demand(
          vault.call('operator', 'PATCH', `/v1/engines/${engine.id}`, { state: 'enabled' }, any),
          200,
        ),
      ['forbidden'],
    ],
    [
      'the credential is disabled',
      () => demand(vault.call('alice', 'POST', credential('/disable')), 200),
      () => demand(vault.call('alice', 'POST', credential('/enable')), 200),
      ['leaseRefused', 'disabled'],
    ],
    [
      'the credential has been deleted past the service',
      () =>
        sql`update credential set state = 'deleted', deleted_at = now() where id = ${one.id}`.execute(
          db,
        ),
      () =>
        sql`update credential set state = 'enabled', deleted_at = null where id = ${one.id}`.execute(
          db,
        ),
      ['leaseRefused', 'notFound'],
    ],
    [
      'its delivery was taken away',
      () =>
        demand(
          vault.call(
            'alice',
            'PATCH',
            credential(),
            { policy: { delivery: [], allowedHosts: [] } },
            any,
          ),
          200,
        ),
      () =>
        demand(
          vault.call(
            'alice',
            'PATCH',
            credential(),
            { fields: { apiKey: canary }, policy: { delivery: ['lease'], allowedHosts: [] } },
            any,
          ),
          200,
        ),
      ['leaseRefused', 'deliveryNotAllowed'],
    ],
    [
      'the team has been deleted past the service',
      () => sql`update team set deleted_at = now() where slug = 'payments'`.execute(db),
      () => sql`update team set deleted_at = null where slug = 'payments'`.execute(db),
      ['leaseRefused', 'notFound', 'notFound'],
    ],
    [
      'its key is no longer one that opens',
      () => tampered('data_key', "state = 'retired', retired_at = now()"),
      () => tampered('data_key', "state = 'active', retired_at = null"),
      ['leaseRefused', 'undecryptable', 'undecryptable'],
    ],
    [
      'it is exposed, and the team refuses that',
      () =>
        tampered('data_key', "compromised_at = now(), compromise_reason = 'x'").then(() =>
          sql`update team set refuse_exposed_leases = true`.execute(db),
        ),
      () => tampered('data_key', 'compromised_at = null, compromise_reason = null'),
      ['leaseRefused', 'exposed', 'exposed'],
    ],
  ];
  async function tampered(table: string, change: string): Promise<void> {
    await db.connection().execute(async (connection) => {
      await sql`set session_replication_role = replica`.execute(connection);
      await sql.raw(`update ${table} set ${change}`).execute(connection);
      await sql`set session_replication_role = origin`.execute(connection);
    });
  }
  for (const [what, act, undo, got] of refused) {
    await t.test(`${what}: refused, and nothing stands as leased`, async (t) => {
      t.equal((await lease()).got[0] === 'leaseRefused', false, 'good before');
      t.match(await lease(), { statements: 1 }, 'and expected');
      await act();
      const after = await lease();
      t.strictSame(after.got, got);
      t.strictSame(after.allowed, []);
      await undo();
      vault.clock.ms += 61_000; // refusals have a ceiling a minute
    });
  }

  await t.test('it expires between two leases', async (t) => {
    await demand(
      vault.call(
        'alice',
        'PATCH',
        credential(),
        { expiresAt: new Date(now() + 3_600_000).toISOString() },
        any,
      ),
      200,
    );
    await lease();
    t.match(await lease(), { statements: 1 });
    vault.clock.ms += 3_700_000;
    t.match(await lease(), { got: ['leaseRefused', 'expired'], allowed: { length: 0 } });
    await demand(vault.call('alice', 'PATCH', credential(), { expiresAt: null }, any), 200);
  });

  await t.test(
    'a new value, a new key of the team, a new key of the engine: each is delivered and recorded as it is now',
    async (t) => {
      vault.start();
      const changes: readonly (() => Promise<unknown>)[] = [
        () =>
          demand(
            vault.call(
              'alice',
              'PATCH',
              credential(),
              { fields: { apiKey: `${canary}-new` } },
              any,
            ),
            200,
          ),
        async () => {
          await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);
          await until(
            async () =>
              (await demand(vault.call('alice', 'GET', '/v1/teams/payments/key-rotations'), 200))
                .items[0].state === 'completed',
          );
        },
        async () => {
          const { publicJwk, privateJwk } = generateEngineKey('P-256');
          await demand(
            vault.call('operator', 'POST', `/v1/engines/${engine.id}/keys`, { key: publicJwk }),
            201,
          );
          engine.privateKeys.push(privateJwk);
        },
      ];
      for (const change of changes) {
        await lease();
        t.match(await lease(), { statements: 1 });
        await change();
        const after = await lease();
        t.equal(after.statements, 2);
        t.equal(after.allowed.length, 2);
        const { current_version: version } = await db
          .selectFrom('credential')
          .select('current_version')
          .where('id', '=', one.id)
          .executeTakeFirstOrThrow();
        t.match(after.allowed[0], {
          credential_version: version,
          key_id: await activeKey(),
          details: { lease: after.id },
        });
        const opened = await openAnswer(vault, engine, {
          status: 201,
          headers: {},
          text: '',
          json: { sealed: after.sealed },
        });
        t.match(opened.credentials, [{ version, fields: { apiKey: `${canary}-new` } }, {}]);
        const { keys } = await demand(
          vault.call('operator', 'GET', `/v1/engines/${engine.id}`),
          200,
        );
        t.equal(after.allowed[0]?.details['kid'], keys.at(-1).kid);
      }
    },
  );

  await t.test('what is recorded and then does not leave stands as failed', async (t) => {
    await lease();
    const { token, version } = await db
      .selectFrom('credential_version')
      .select(['token', 'version'])
      .where('credential_id', '=', one.id)
      .orderBy('version', 'desc')
      .executeTakeFirstOrThrow();
    const setToken = (value: string): Promise<unknown> =>
      sql`update credential_version set token = ${value} where credential_id = ${one.id} and version = ${version}`.execute(
        db,
      );
    await setToken(
      (
        await db
          .selectFrom('credential_version')
          .select('token')
          .where('credential_id', '=', two.id)
          .executeTakeFirstOrThrow()
      ).token,
    );
    const bad = await lease();
    t.strictSame(bad.got, ['leaseRefused', 'undecryptable']);
    t.equal(bad.allowed.length, 2);
    t.match(bad.failed, [
      { target_id: one.id, decision: 'deny' },
      { target_id: two.id, decision: 'deny' },
    ]);
    t.equal(bad.failed[0]?.details['lease'], bad.allowed[0]?.details['lease']);
    await setToken(token);
    t.match(await lease(), { statements: 2, got: [version, 1] }, 'and heals');
  });
});
