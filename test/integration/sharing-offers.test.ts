// Offers: who makes, sees, takes and ends them, until when they are good, and that a writer to the
// database makes none.
import { sql } from 'kysely';
import t, { type Test as Tap } from 'tap';
import { verifyAll } from '../../src/integrity/verify.ts';
import { Retention } from '../../src/retention/service.ts';
import { AuditLog } from '../../src/audit/record.ts';
import { tampered } from '../helpers/intruder.ts';
import { demand, storeOpenai } from '../helpers/leases.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const dayMs = 86_400_000;

interface Stage {
  readonly vault: TestVault;
  readonly id: string;
  offer(as?: string, to?: string, headers?: Record<string, string>): Promise<Answer>;
}
async function setStage(t: Tap): Promise<Stage> {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('billing', ['bella']);
  await vault.team('third', ['theo']);
  await vault.member('payments', 'pete', 'editor');
  await vault.member('billing', 'eddie', 'editor', 'bella');
  const { id } = await storeOpenai(vault, 'payments', 'moving', 'sk-moving');
  return {
    vault,
    id,
    offer: (as = 'alice', to = 'billing', headers = {}) =>
      vault.call(as, 'POST', `/v1/credentials/${id}/transfers`, { team: to }, headers),
  };
}

t.test('who offers, what to whom, and who sees it', async (t) => {
  const { vault, id, offer } = await setStage(t);
  t.match(await offer('pete'), { status: 403 });
  t.match(await offer('bella'), { status: 404 });
  t.match(await offer('alice', 'payments'), {
    status: 400,
    json: { errors: [{ pointer: '/team', rule: 'ownTeam' }] },
  });
  t.match(await offer('alice', 'nowhere'), {
    status: 400,
    json: { errors: [{ pointer: '/team', rule: 'unknownTeam' }] },
  });
  const made = await offer();
  t.match(made, {
    status: 201,
    json: {
      credential: id,
      name: 'moving',
      type: 'openai',
      from: 'payments',
      to: 'billing',
      createdBy: 'alice',
    },
  });
  t.match(await offer(), { status: 409, json: { code: 'stateConflict' } }, 'one open offer');
  t.match(await offer('alice', 'third'), { status: 409 });
  const list = async (as: string, team: string): Promise<Answer> =>
    vault.call(as, 'GET', `/v1/teams/${team}/transfers`);
  for (const [as, team] of [
    ['alice', 'payments'],
    ['bella', 'billing'],
  ] as const)
    t.same((await list(as, team)).json, { items: [made.json], nextCursor: null }, as);
  t.same((await list('theo', 'third')).json.items, []);
  t.equal((await list('eddie', 'billing')).status, 403);
  t.equal(
    (await vault.call('bella', 'GET', `/v1/credentials/${id}`)).status,
    404,
    'an offer is no leave to look',
  );
  t.match(
    (await vault.call('alice', 'GET', `/v1/credentials/${id}`)).json,
    { team: 'payments', revision: 1 },
    'until it is accepted nothing changes',
  );
});

t.test(
  'an offer ends by either side, by time, and is worth nothing without its credential',
  async (t) => {
    const { vault, id, offer } = await setStage(t);
    const accept = (of: Answer, as = 'bella'): Promise<Answer> =>
      vault.call(as, 'POST', `/v1/transfers/${of.json.id}/accept`);
    const end = (of: Answer, as: string): Promise<Answer> =>
      vault.call(as, 'DELETE', `/v1/transfers/${of.json.id}`);
    const declined = await offer();
    for (const [as, status] of [
      ['theo', 404],
      ['mallory', 404],
      ['operator', 404],
      ['pete', 403],
      ['eddie', 403],
    ] as const) {
      t.equal((await end(declined, as)).status, status, as);
      t.equal((await accept(declined, as)).status, status, as);
    }
    t.equal((await accept(declined, 'alice')).status, 403, 'nobody accepts their own offer');
    t.equal((await end(declined, 'bella')).status, 204);
    t.equal((await end(declined, 'bella')).status, 404);
    t.equal((await accept(declined)).status, 404);
    const withdrawn = await offer();
    t.equal((await end(withdrawn, 'alice')).status, 204);
    t.equal((await accept(withdrawn)).status, 404);
    const expired = await offer();
    vault.clock.ms += 7 * dayMs - 1_000;
    t.equal((await vault.call('bella', 'GET', '/v1/teams/billing/transfers')).json.items.length, 1);
    vault.clock.ms += 2_000;
    t.equal((await vault.call('bella', 'GET', '/v1/teams/billing/transfers')).json.items.length, 0);
    t.equal((await accept(expired)).status, 404);
    t.equal((await end(expired, 'bella')).status, 404);
    const again = await offer('alice', 'third');
    t.equal(again.status, 201, "one that has expired is in nobody's way");
    t.equal((await accept(expired)).status, 404);
    t.equal((await end(again, 'theo')).status, 204);

    const offered = await offer();
    await demand(vault.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any), 204);
    t.equal((await offer()).status, 404, 'what is deleted cannot be offered');
    t.equal((await accept(offered)).status, 404);
    t.equal((await vault.call('bella', 'GET', '/v1/teams/billing/transfers')).json.items.length, 0);
    await demand(vault.call('alice', 'POST', `/v1/credentials/${id}/restore`), 200);
    await demand(vault.call('bella', 'DELETE', '/v1/teams/billing', undefined, any), 204);
    t.equal((await accept(offered)).status, 404, 'the team is gone');
    t.equal((await offer('alice', 'third')).status, 201, 'and its offer with it');
    const auditLog = (
      await demand(
        vault.call('alice', 'GET', `/v1/teams/payments/audit-events?target=${id}&limit=200`),
        200,
      )
    ).items
      .map(({ action }: { action: string }) => action)
      .reverse();
    t.same(
      auditLog.filter((action: string) => action.startsWith('transfer.')),
      [
        'transfer.offer',
        'transfer.decline',
        'transfer.offer',
        'transfer.withdraw',
        'transfer.offer',
        'transfer.offer',
        'transfer.decline',
        'transfer.offer',
        'transfer.offer',
      ],
    );
    const others = (
      await demand(vault.call('theo', 'GET', '/v1/teams/third/audit-events?limit=200'), 200)
    ).items;
    t.match(
      others
        .map(({ action, details }: { action: string; details: object }) => ({ action, details }))
        .reverse()
        .slice(1),
      [
        { action: 'transfer.offer', details: { from: 'payments', to: 'third' } },
        { action: 'transfer.decline' },
        { action: 'transfer.offer' },
      ],
    );
  },
);

t.test(
  'offering and accepting again with the same idempotency key is the same offer, and the same credential',
  async (t) => {
    const { vault, id, offer } = await setStage(t);
    const key = { 'idempotency-key': 'one' };
    const [first, second] = [
      await offer('alice', 'billing', key),
      await offer('alice', 'billing', key),
    ];
    t.same(second.json, first.json);
    const accept = (as: string): Promise<Answer> =>
      vault.call(as, 'POST', `/v1/transfers/${first.json.id}/accept`, undefined, key);
    t.match(await accept('bella'), { status: 200, json: { credential: id, team: 'billing' } });
    t.match(await accept('bella'), { status: 200, json: { credential: id, team: 'billing' } });
    t.match(await accept('alice'), { status: 404 });
    await vault.member('billing', 'beth', 'admin', 'bella');
    await vault.member('billing', 'bella', 'viewer', 'beth');
    t.match(await accept('bella'), { status: 404 }, 'a repetition is authorised afresh');
  },
);

t.test('offers that nobody answered are purged', async (t) => {
  const { vault, offer } = await setStage(t);
  await offer();
  const now = (): number => Date.now() + vault.clock.ms;
  const audit = new AuditLog({
    db: vault.db,
    keyring: vault.keyring,
    now,
    onError: () => undefined,
    onAlarm: () => undefined,
  });
  const run = (): Promise<void> =>
    new Retention({
      db: vault.db,
      audit,
      clock: vault.databaseClock,
      onError: (error) => {
        throw error;
      },
    }).run();
  const count = async (): Promise<number> =>
    (await vault.db.selectFrom('credential_transfer').select('id').execute()).length;
  vault.clock.ms += 6 * dayMs;
  await run();
  t.equal(await count(), 1);
  vault.clock.ms += 2 * dayMs;
  await run();
  t.equal(await count(), 0);
});

t.test('a writer to the database offers themselves nothing', async (t) => {
  const { vault, id, offer } = await setStage(t);
  const { db } = vault;
  const other = await storeOpenai(vault, 'payments', 'other', 'sk-other');
  const made = (await offer()).json;
  const teamId = async (slug: string): Promise<string> =>
    (await sql<{ id: string }>`select id from team where slug = ${slug}`.execute(db)).rows[0]!.id;
  const third = await teamId('third');
  const alarms = (): number => vault.logs.filter((line) => line.includes('"sealBroken"')).length;
  const row = `where id = '${made.id}'`;
  const cases: readonly (readonly [what: string, statement: string, as: string, table?: string])[] =
    [
      ['another team', `update credential_transfer set to_team_id = '${third}' ${row}`, 'theo'],
      [
        'another credential',
        `update credential_transfer set credential_id = '${other.id}' ${row}`,
        'bella',
      ],
      [
        'a later end',
        `update credential_transfer set expires_at = expires_at + interval '1 day' ${row}`,
        'bella',
      ],
      ['another revision', `update credential_transfer set revision = 2 ${row}`, 'bella'],
      ['no row MAC', `update credential_transfer set seal = '\\x' ${row}`, 'bella'],
      [
        'the credential beside it',
        `update credential set name = 'better' where id = '${id}'`,
        'bella',
        'credential',
      ],
    ];
  for (const [what, statement, as, table = 'credential_transfer'] of cases) {
    await t.test(what, async (t) => {
      vault.clock.ms += 61_000;
      const before = alarms();
      await tampered(db, { table, statement }, async () => {
        t.equal((await vault.call(as, 'POST', `/v1/transfers/${made.id}/accept`)).status, 404);
        t.equal((await vault.call(as, 'DELETE', `/v1/transfers/${made.id}`)).status, 404);
        t.same(
          (
            await vault.call(
              as,
              'GET',
              `/v1/teams/${as === 'theo' ? 'third' : 'billing'}/transfers`,
            )
          ).json.items,
          [],
        );
        if (table === 'credential_transfer') {
          const found: object[] = [];
          await verifyAll(vault, {
            onFinding: (finding) => {
              found.push(finding);
            },
            isStopping: () => false,
          });
          t.match(found, [{ table: 'credential_transfer', row: made.id, fault: 'sealBroken' }]);
        }
      });
      t.ok(alarms() > before, 'an alarm');
    });
  }
  await t.test("a tampered one is in nobody's way", async (t) => {
    await sql`update credential_transfer set revision = 2 where id = ${made.id}`.execute(db);
    t.equal((await offer('alice', 'third')).status, 201);
  });
  await t.test(
    'the database itself moves nothing without an offer, nothing half, nothing in clear',
    async (t) => {
      const billing = await teamId('billing');
      const refuse = (constraint: string, text: string): Promise<unknown> =>
        t.rejects(
          db.transaction().execute(async (trx) => {
            await sql.raw('set constraints all deferred').execute(trx);
            for (const statement of text.split(';')) await sql.raw(statement).execute(trx);
          }),
          { constraint } as Error & { constraint: string },
          text,
        );
      const credentialTo = (team: string, of = id): string =>
        `update credential set team_id = '${team}' where id = '${of}'`;
      const versionsTo = (
        team: string,
        { of = id, token = "token || 'A'", key = team, more = '' } = {},
      ): string =>
        `update credential_version set team_id = '${team}', token = ${token}, data_key_id = (select id from data_key where team_id = '${key}') ${more} where credential_id = '${of}'`;
      await refuse('credential_moves_by_offer', `${credentialTo(billing)}; ${versionsTo(billing)}`);
      await refuse(
        'credential_moves_by_offer',
        `${credentialTo(third, other.id)}; ${versionsTo(third, { of: other.id })}`,
      );
      await refuse(
        'credential_moves_by_offer',
        `update credential set state = 'deleted', deleted_at = now(), team_id = '${third}' where id = '${id}'`,
      );
      await refuse('credential_version_credential_fkey', credentialTo(third)); // there is an offer, but its versions stay
      await refuse('credential_current_version_fkey', versionsTo(third)); // and it stays behind without its current one
      await refuse(
        'credential_version_is_immutable',
        `${credentialTo(third)}; ${versionsTo(third, { token: 'token' })}`,
      );
      await refuse(
        'credential_version_is_immutable',
        `${credentialTo(third)}; ${versionsTo(third, { more: ", policy = '{}'" })}`,
      );
      await refuse(
        'token_needs_active_key',
        `${credentialTo(third)}; ${versionsTo(third, { key: billing })}`,
      );
      await refuse(
        'credential_version_key_history',
        `${credentialTo(third)}; ${versionsTo(third, { more: ", key_history = '{}'" })}`,
      );
    },
  );
});
