// What one team can do to another by sharing and giving away: no more than a bounded part of its
// lists, and nothing that stays behind.
import { sql } from 'kysely';
import t from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { CredentialsService } from '../../src/credentials/service.ts';
import { Subjects } from '../../src/db/subjects.ts';
import type { AppError } from '../../src/shared/errors.ts';
import type { SubjectId, TeamId } from '../../src/shared/ids.ts';
import { SharingService } from '../../src/sharing/service.ts';
import { unbounded } from '../../src/access/issuers.ts';
import { demand, storeOpenai } from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { startVault } from '../helpers/vault.ts';
import { newSecret, storeWebhook } from '../helpers/webhooks.ts';
import type { Caller } from '../../src/access/caller.ts';

t.test('a team grants a bounded number of its credentials to one grantee', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('billing');
  await vault.team('sales', ['bella']);
  const { db, keyring } = vault;
  const now = (): number => Date.now();
  const audit = new AuditLog({
    db,
    keyring,
    now,
    onError: (error) => {
      throw error;
    },
    onAlarm: () => undefined,
  });
  const credentials = new CredentialsService({
    subjectBounds: unbounded,
    db,
    keyring,
    audit,
    now,
    canShow: () => true,
  });
  const sharing = new SharingService({
    subjectBounds: unbounded,
    canShow: () => true,
    db,
    keyring,
    audit,
    subjects: new Subjects(),
    now,
    isEngine: async () => false,
    betweenMax: 2,
  });
  const teamOf = async (slug: string): Promise<{ id: TeamId; slug: string }> =>
    db.selectFrom('team').select(['id', 'slug']).where('slug', '=', slug).executeTakeFirstOrThrow();
  const alice: Caller = {
    sub: 'alice',
    subject: (
      await db
        .selectFrom('subject')
        .select('id')
        .where('sub', '=', 'alice')
        .executeTakeFirstOrThrow()
    ).id as SubjectId,
    isOperator: false,
    requestId: 'a-request',
    address: null,
  };
  const share = async (
    owner: string,
    name: string,
    kind: 'team' | 'subject',
    to: string,
  ): Promise<string> => {
    const team = await teamOf(owner);
    const { id } = await db
      .selectFrom('credential')
      .select('id')
      .where('team_id', '=', team.id)
      .where('name', '=', name)
      .executeTakeFirstOrThrow();
    return sharing
      .putGrant(alice, await credentials.getCredential(team, id), { kind, name: to }, 'read', 'any')
      .then(
        () => 'granted',
        ({ code }: AppError) => code,
      );
  };
  for (const name of ['one', 'two', 'three'])
    await storeOpenai(vault, 'payments', name, 'sk-test-00000000');
  await storeOpenai(vault, 'billing', 'one', 'sk-test-00000000');

  for (const [kind, to] of [
    ['team', 'sales'],
    ['subject', 'nora'],
  ] as const) {
    t.same(
      [await share('payments', 'one', kind, to), await share('payments', 'two', kind, to)],
      ['granted', 'granted'],
      `${kind}: up to the bound`,
    );
    t.equal(await share('payments', 'three', kind, to), 'limitReached', `${kind}: and no further`);
    t.equal(
      await share('payments', 'two', kind, to),
      'granted',
      `${kind}: what is there can be changed`,
    );
    t.equal(
      await share('billing', 'one', kind, to),
      'granted',
      `${kind}: another team has its own`,
    );
  }
  t.equal(
    await share('payments', 'three', 'team', 'billing'),
    'granted',
    'and so has another grantee',
  );
  // Nobody can add a grant until all three have counted, or wait for one who has.
  t.equal(await share('billing', 'one', 'subject', 'nick'), 'granted');
  const granted: Promise<string>[] = [];
  await db.transaction().execute(async (trx) => {
    await sql`lock table credential_grant in share mode`.execute(trx);
    for (const name of ['one', 'two', 'three'])
      granted.push(share('payments', name, 'subject', 'nick'));
    await until(async () => {
      const { rows } = await sql<{ waiting: number }>`
        select count(*)::int as waiting from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'`.execute(vault.db);
      return rows[0]?.waiting === 3;
    });
  });
  t.same(
    (await Promise.all(granted)).sort(),
    ['granted', 'granted', 'limitReached'],
    'nor by granting at once',
  );
});

t.test("what is given away while it is made a webhook is nobody's", async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('sales', ['bella']);
  const id = await storeWebhook(vault, { url: 'https://hooks.test', secret: newSecret() });
  const offer = await demand(
    vault.call('alice', 'POST', `/v1/credentials/${id}/transfers`, { team: 'sales' }),
    201,
  );
  const waiting = async (count: number): Promise<void> => {
    await until(
      async () =>
        (
          await sql<{
            n: number;
          }>`select count(*)::int as n from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`.execute(
            vault.db,
          )
        ).rows[0]!.n >= count,
    );
  };
  const events = { events: ['key.overdue'] };
  const [accepted, put] = await vault.db
    .transaction()
    .execute(async (trx) => {
      await sql`select 1 from team where slug = 'sales' for update`.execute(trx);
      const accepting = vault.call('bella', 'POST', `/v1/transfers/${offer.id}/accept`);
      await waiting(1);
      const putting = vault.call('alice', 'PUT', `/v1/teams/payments/webhooks/${id}`, events);
      await waiting(2);
      return [accepting, putting] as const;
    })
    .then((both) => Promise.all(both));
  t.same([accepted.status, put.status], [200, 404]);
  t.equal(
    (await sql`select 1 from webhook`.execute(vault.db)).rows.length,
    0,
    'nothing of the former team stays behind',
  );
  t.equal(
    (await sql`select 1 from audit_event where action = 'webhook.add'`.execute(vault.db)).rows
      .length,
    0,
  );
  await demand(vault.call('bella', 'PUT', `/v1/teams/sales/webhooks/${id}`, events), 200);
});

t.test("tests of a shared credential use up the caller's own tests, not the owner's", async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('sales', ['bella']);
  const { id } = await storeOpenai(vault, 'payments', 'shared', 'sk-test-00000000');
  for (const to of ['teams/sales', 'subjects/nora'])
    await demand(
      vault.call('alice', 'PUT', `/v1/credentials/${id}/grants/${to}`, { access: 'use' }),
      200,
    );
  const test = async (as: string): Promise<number> =>
    (await vault.call(as, 'POST', `/v1/credentials/${id}/test`)).status;
  for (const as of ['bella', 'nora']) {
    for (let n = 0; n < 10; n += 1) t.equal(await test(as), 200);
    t.equal(await test(as), 429, as);
  }
  t.equal(await test('alice'), 200);
});

t.test('a row of use that was put under another team shows that team nothing', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('sales', ['bella']);
  const { id } = await storeOpenai(vault, 'payments', 'foreign', 'sk-test-00000000');
  await storeOpenai(vault, 'sales', 'own', 'sk-test-00000000', {}, 'bella');
  await sql`update credential_usage set team_id = (select id from team where slug = 'sales') where credential_id = ${id}`.execute(
    vault.db,
  );
  for (const path of ['/v1/teams/sales/credentials', '/v1/credentials']) {
    const { items } = (await demand(
      vault.call('bella', 'GET', `${path}?sort=lastUsedAt`),
      200,
    )) as { items: { name: string }[] };
    t.same(
      items.map(({ name }) => name),
      ['own'],
      path,
    );
  }
});
