// What changes between the reading and the recording of a lease: the lease starts again and rests
// on what is true then.
import { randomBytes } from 'node:crypto';
import { type KyselyPlugin, sql } from 'kysely';
import { test } from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { generateEngineKey } from '../../src/client/index.ts';
import { type LeaseInput, LeasesService } from '../../src/leases/service.ts';
import type { AppError } from '../../src/shared/errors.ts';
import type { CredentialId, SubjectId } from '../../src/shared/ids.ts';
import { unbounded } from '../../src/access/issuers.ts';
import {
  askLease,
  demand,
  openAnswer,
  registerEngine,
  storeOpenai,
  vaultIssuer,
} from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { startVault } from '../helpers/vault.ts';
import type { Caller } from '../../src/access/caller.ts';

test('between reading and recording', async (t) => {
  const vault = await startVault(t);
  const { db, keyring } = vault;
  await vault.team('payments');
  const engine = await registerEngine(vault, 'n8n');
  const any = { 'if-match': '*' };
  const canary = `sk-${randomBytes(24).toString('hex')}`;
  const allowed = async (): Promise<number> =>
    (
      await db
        .selectFrom('audit_event')
        .select('id')
        .where('action', '=', 'credential.lease')
        .where('decision', '=', 'allow')
        .execute()
    ).length;
  const subject = (
    await db.selectFrom('subject').select('id').where('sub', '=', 'n8n').executeTakeFirstOrThrow()
  ).id as SubjectId;
  const caller: Caller = {
    sub: 'n8n',
    subject,
    isOperator: false,
    requestId: 'a-request',
    address: null,
  };
  let stored = await storeOpenai(vault, 'payments', 'changing', canary);
  await vault.member('payments', 'n8n', 'engine');
  await vault.member('payments', 'ed', 'editor');

  /**
   * Leases as `ed`'s engine with `act` done after the n-th reading, for every n that `act` takes.
   */
  const leaseWith = async (
    act: (reading: number) => Promise<void>,
  ): Promise<
    { version: number; readings: number } | { code: string; rules: string[]; readings: number }
  > => {
    let readings = 0;
    const plugin: KyselyPlugin = {
      transformQuery: ({ node }) => node,
      // Every statement of the service comes by here; only the reading has the column `position`.
      transformResult: async ({ result }) => {
        if (result.rows[0] !== undefined && 'position' in result.rows[0])
          await act((readings += 1));
        return result;
      },
    };
    const audit = new AuditLog({
      db,
      keyring,
      now: Date.now,
      onError: (error) => {
        throw error;
      },
      onAlarm: () => undefined,
    });
    const service = new LeasesService({
      subjectBounds: unbounded,
      db: db.withPlugin(plugin),
      keyring,
      audit,
      usage: { count: () => undefined },
      accessTokens: {
        accessTokenFor: () => {
          throw new Error('nothing here is held');
        },
      },
      now: Date.now,
      issuer: () => vaultIssuer,
    });
    const input: LeaseInput = {
      references: [{ id: stored.id as CredentialId }],
      purpose: 'a race',
      runId: undefined,
      onBehalfOf: { sub: 'ed', isProven: false },
      keyId: undefined,
      ttlSeconds: 60,
    };
    try {
      const lease = await service.createLease(caller, input);
      return { version: lease.credentials[0]?.row.currentVersion ?? 0, readings };
    } catch (error) {
      const { code, errors = [] } = error as AppError;
      return { code, rules: errors.map(({ rule }) => rule), readings };
    }
  };
  const once =
    (act: () => Promise<unknown>) =>
    async (reading: number): Promise<void> => {
      if (reading === 1) await act();
    };

  t.strictSame(await leaseWith(async () => undefined), { version: 1, readings: 1 });
  let recorded = await allowed();
  t.equal(recorded, 1);

  const credential = (path = ''): string => `/v1/credentials/${stored.id}${path}`;
  const cases: readonly (readonly [
    what: string,
    act: () => Promise<unknown>,
    undo: () => Promise<unknown>,
    expected: object,
  ])[] = [
    [
      'the engine leaves the team',
      () =>
        demand(
          vault.call('alice', 'DELETE', '/v1/teams/payments/members/n8n', undefined, any),
          204,
        ),
      () => vault.member('payments', 'n8n', 'engine'),
      { code: 'leaseRefused', rules: ['notFound'] },
    ],
    [
      'the person loses the right',
      () => vault.member('payments', 'ed', 'viewer'),
      () => vault.member('payments', 'ed', 'editor'),
      { code: 'leaseRefused', rules: ['onBehalfOfRefused'] },
    ],
    [
      'the person leaves the team',
      () =>
        demand(vault.call('alice', 'DELETE', '/v1/teams/payments/members/ed', undefined, any), 204),
      () => vault.member('payments', 'ed', 'editor'),
      { code: 'leaseRefused', rules: ['onBehalfOfRefused'] },
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
      { code: 'forbidden', rules: [] },
    ],
    [
      'the credential is disabled',
      () => demand(vault.call('alice', 'POST', credential('/disable')), 200),
      () => demand(vault.call('alice', 'POST', credential('/enable')), 200),
      { code: 'leaseRefused', rules: ['disabled'] },
    ],
    [
      'the credential is deleted',
      () => demand(vault.call('alice', 'DELETE', credential(), undefined, any), 204),
      async () => {
        stored = await storeOpenai(vault, 'payments', 'changing', canary);
      },
      { code: 'leaseRefused', rules: ['deleted'] },
    ],
  ];
  for (const [what, act, undo, expected] of cases) {
    await t.test(`${what}: refused, and nothing stands as leased`, async (t) => {
      vault.clock.ms += 61_000;
      t.strictSame(await leaseWith(once(act)), { ...expected, readings: 2 });
      t.equal(await allowed(), recorded);
      await undo();
      t.match(await leaseWith(async () => undefined), { version: 1, readings: 1 });
      recorded += 1;
    });
  }

  await t.test('a new value: the new version is leased and recorded', async (t) => {
    t.strictSame(
      await leaseWith(
        once(() =>
          demand(
            vault.call('alice', 'PATCH', credential(), { fields: { apiKey: `${canary}-2` } }, any),
            200,
          ),
        ),
      ),
      { version: 2, readings: 2 },
    );
    const event = await db
      .selectFrom('audit_event')
      .select('credential_version')
      .where('action', '=', 'credential.lease')
      .orderBy('id', 'desc')
      .executeTakeFirstOrThrow();
    t.equal(event.credential_version, 2);
  });

  await t.test('a key rotation: recorded under the key that the token has now', async (t) => {
    vault.start();
    t.strictSame(
      await leaseWith(
        once(async () => {
          await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);
          await until(
            async () =>
              (await demand(vault.call('alice', 'GET', '/v1/teams/payments/key-rotations'), 200))
                .items[0].state === 'completed',
          );
        }),
      ),
      { version: 2, readings: 2 },
    );
    const { key_id: key } = await db
      .selectFrom('audit_event')
      .select('key_id')
      .where('action', '=', 'credential.lease')
      .orderBy('id', 'desc')
      .executeTakeFirstOrThrow();
    t.equal(
      key,
      (
        await db
          .selectFrom('data_key')
          .select('id')
          .where('state', '=', 'active')
          .executeTakeFirstOrThrow()
      ).id,
    );
  });

  await t.test(
    'a key of the engine is removed: the lease goes to another, or nowhere',
    async (t) => {
      const { keys } = await demand(
        vault.call('operator', 'POST', `/v1/engines/${engine.id}/keys`, {
          key: generateEngineKey('P-256').publicJwk,
        }),
        201,
      );
      t.match(
        await leaseWith(
          once(() =>
            demand(
              vault.call(
                'operator',
                'DELETE',
                `/v1/engines/${engine.id}/keys/${keys[1].kid}`,
                undefined,
                any,
              ),
              204,
            ),
          ),
        ),
        { version: 2, readings: 2 },
      );
      const { details } = await db
        .selectFrom('audit_event')
        .select('details')
        .where('action', '=', 'credential.lease')
        .orderBy('id', 'desc')
        .executeTakeFirstOrThrow();
      t.equal(details['kid'], keys[0].kid);
    },
  );

  await t.test('a key of the engine that vanishes with nothing else changed', async (t) => {
    const { keys } = await demand(
      vault.call('operator', 'POST', `/v1/engines/${engine.id}/keys`, {
        key: generateEngineKey().publicJwk,
      }),
      201,
    );
    t.match(
      await leaseWith(
        once(() => sql`delete from engine_key where kid = ${keys[1].kid}`.execute(db)),
      ),
      { version: 2, readings: 2 },
    );
    const { details } = await db
      .selectFrom('audit_event')
      .select('details')
      .where('action', '=', 'credential.lease')
      .orderBy('id', 'desc')
      .executeTakeFirstOrThrow();
    t.equal(details['kid'], keys[0].kid);
  });

  await t.test('a token moved in by SQL, with nothing else changed', async (t) => {
    const other = await storeOpenai(vault, 'payments', 'other', canary);
    const { token } = await db
      .selectFrom('credential_version')
      .select('token')
      .where('credential_id', '=', stored.id)
      .where('version', '=', 2)
      .executeTakeFirstOrThrow();
    await sql`update credential_version set token = (select token from credential_version where credential_id = ${other.id}) where credential_id = ${stored.id} and version = 2`.execute(
      db,
    );
    t.match(await leaseWith(async () => undefined), {
      code: 'leaseRefused',
      rules: ['undecryptable'],
    });
    await sql`update credential_version set token = ${token} where credential_id = ${stored.id} and version = 2`.execute(
      db,
    );
  });

  await t.test(
    'what never stops changing: 409 after five attempts, and nothing stands as leased',
    async (t) => {
      const before = await allowed();
      let n = 0;
      const answer = await leaseWith(async () => {
        await demand(
          vault.call('alice', 'PATCH', credential(), { description: `change ${(n += 1)}` }, any),
          200,
        );
      });
      t.strictSame(answer, { code: 'stateConflict', rules: [], readings: 5 });
      t.equal(await allowed(), before);
    },
  );

  await t.test('many leases while members come and go: each answer has its record', async (t) => {
    const before = await allowed();
    let isOver = false;
    const flapping = (async () => {
      while (!isOver) {
        await vault.member('payments', 'ed', 'viewer');
        await vault.member('payments', 'ed', 'editor');
      }
    })();
    const answers = await Promise.all(
      Array.from({ length: 60 }, () =>
        askLease(vault, 'n8n', [{ id: stored.id }], { onBehalfOf: 'ed' }),
      ),
    );
    isOver = true;
    await flapping;
    const leased = answers.filter(({ status }) => status === 201);
    t.ok(answers.every(({ status }) => [201, 409, 422].includes(status)));
    t.equal((await allowed()) - before, leased.length);
    t.match(
      (
        await openAnswer(
          vault,
          engine,
          await askLease(vault, 'n8n', [{ id: stored.id }], { onBehalfOf: 'ed' }),
        )
      ).credentials,
      [{ fields: { apiKey: `${canary}-2` } }],
    );
  });
});
