// Rows of rights that somebody wrote past the service: an admin's next word replaces them and
// continues nothing of them; what they said goes into nobody's log; what hangs on them is refused.
import { sql } from 'kysely';
import t from 'tap';
import { generateEngineKey } from '../../src/client/index.ts';
import { intrude } from '../helpers/intruder.ts';
import { askLease, demand, openAnswer, registerEngine, storeOpenai } from '../helpers/leases.ts';
import { moveStage, offer, scan } from '../helpers/moves.ts';
import { startReceiver, storeWebhook } from '../helpers/webhooks.ts';
import { egressTo } from '../helpers/egress.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const idOf = async ({ db }: TestVault, sub: string): Promise<string> =>
  (await sql<{ id: string }>`select id from subject where sub = ${sub}`.execute(db)).rows[0]!.id;
const lastEvent = async ({ db }: TestVault, action: string): Promise<any> =>
  (
    await sql<any>`select details, team_id from audit_event where action = ${action} order by at desc, id desc limit 1`.execute(
      db,
    )
  ).rows[0];
const revisionOf = ({ headers }: { headers: Record<string, unknown> }): number =>
  Number(String(headers['etag']).slice(1, -1));

t.test('a member whose row was changed is replaced', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.member('payments', 'vera', 'viewer');
  const vera = await idOf(vault, 'vera');
  const url = '/v1/teams/payments/members/vera';
  const put = (body: object) => vault.call('alice', 'PUT', url, body, any);
  for (const assignment of [
    "role = 'admin'",
    'revision = 2147483647',
    'revision = -1',
    "created_at = 'infinity'",
    "updated_at = '-infinity'",
    "role = 'engine', acts_for_itself = true",
    "seal = '\\x'",
  ]) {
    await sql`delete from audit_event`.execute(vault.db).catch(() => undefined);
    await intrude(
      vault.db,
      'alter table membership drop constraint if exists membership_revision_positive',
      `update membership set ${assignment} where subject_id = '${vera}'`,
    );
    const answer = await put({ role: 'editor' });
    t.match(answer, { status: 200, json: { role: 'editor', actsForItself: false } }, assignment);
    t.ok(
      revisionOf(answer) > 1_000_000 && revisionOf(answer) < 2 ** 31 - 1_000_000,
      'a revision that no earlier row can have had',
    );
    t.match((await lastEvent(vault, 'member.change')).details, {
      role: 'editor',
      wasTampered: true,
    });
    t.same(await scan(vault), [], assignment);
    t.equal((await vault.call('vera', 'GET', '/v1/teams/payments')).status, 200);
    await demand(put({ role: 'viewer' }), 200);
    t.notOk((await lastEvent(vault, 'member.change')).details.wasTampered);
  }
  // The row from before, put back whole, does not count beside a newer revision of its own.
  const {
    rows: [old],
  } =
    await sql<any>`select role, revision, seal from membership where subject_id = ${vera}`.execute(
      vault.db,
    );
  await intrude(vault.db, `update membership set role = 'admin' where subject_id = '${vera}'`);
  await demand(put({ role: 'auditor' }), 200);
  const {
    rows: [fresh],
  } = await sql<any>`select revision from membership where subject_id = ${vera}`.execute(vault.db);
  t.not(fresh.revision, old.revision + 1);
});

t.test('a grant whose row was changed is replaced', async (t) => {
  const { vault, id, bot } = await moveStage(t);
  const url = `/v1/credentials/${id}/grants/teams/billing`;
  await vault.team('elsewhere', ['mallory']);
  const put = (access = 'read') => vault.call('alice', 'PUT', url, { access }, any);
  await demand(put(), 200);
  const {
    rows: [{ elsewhere }],
  } = (await sql<{
    elsewhere: string;
  }>`select id as elsewhere from team where slug = 'elsewhere'`.execute(vault.db)) as any;
  for (const assignment of [
    "access = 'use'",
    'revision = 2147483647',
    `team_id = '${elsewhere}'`,
    "created_at = 'infinity'",
    "created_by = '00000000-0000-0000-0000-000000000000', seal = '\\x'",
    "grantee_kind = 'subject'",
  ]) {
    await intrude(
      vault.db,
      'alter table credential_grant drop constraint if exists credential_grant_to_one',
      `update credential_grant set ${assignment}`,
    );
    t.equal(
      (await askLease(vault, bot.sub, [{ id }], { onBehalfOf: 'bella' })).status === 201,
      false,
      `${assignment}: nothing gained`,
    );
    t.match(await put(), { status: 200, json: { access: 'read' } }, assignment);
    t.match((await lastEvent(vault, 'grant.change')).details, {
      wasTampered: true,
      access: 'read',
    });
    t.same(await scan(vault), [], assignment);
    t.equal((await sql`select 1 from credential_grant`.execute(vault.db)).rows.length, 1);
  }
  await intrude(vault.db, "update credential_grant set access = 'use'");
  await demand(vault.call('alice', 'DELETE', url, undefined, any), 204);
  t.equal(
    (
      await sql`select 1 from audit_event join team on team.id = team_id where slug = 'billing' and action = 'grant.remove'`.execute(
        vault.db,
      )
    ).rows.length,
    0,
    "in another team's log stands nothing of a tampered row",
  );
});

t.test('what came from another team by a grant of before does not count', async (t) => {
  const { vault, id } = await moveStage(t);
  await vault.team('third', ['tom']);
  await demand(
    vault.call('alice', 'PUT', `/v1/credentials/${id}/grants/teams/third`, { access: 'read' }, any),
    200,
  );
  await sql`create table kept as table credential_grant`.execute(vault.db);
  const { id: transfer } = await offer(vault, id);
  await demand(vault.call('bella', 'POST', `/v1/transfers/${transfer}/accept`), 200);
  await intrude(vault.db, 'insert into credential_grant select * from kept');
  const { items } = await demand(vault.call('bella', 'GET', `/v1/credentials/${id}/grants`), 200);
  t.match(items, [{ team: 'third', intact: false }], 'its MAC is whole, and it is of another team');
  t.equal((await vault.call('tom', 'GET', `/v1/credentials/${id}`)).status, 404);
  t.match(
    await vault.call(
      'bella',
      'PUT',
      `/v1/credentials/${id}/grants/teams/third`,
      { access: 'read' },
      any,
    ),
    { status: 200 },
  );
  t.match((await lastEvent(vault, 'grant.change')).details, { wasTampered: true });
  t.equal((await vault.call('tom', 'GET', `/v1/credentials/${id}`)).status, 200);
});

t.test('nothing is granted or offered to a team whose row was changed', async (t) => {
  const { vault, id } = await moveStage(t);
  await intrude(
    vault.db,
    "update team set default_delivery = '{lease,broker}' where slug = 'billing'",
  );
  for (const answer of [
    await vault.call(
      'alice',
      'PUT',
      `/v1/credentials/${id}/grants/teams/billing`,
      { access: 'use' },
      any,
    ),
    await vault.call('alice', 'POST', `/v1/credentials/${id}/transfers`, { team: 'billing' }),
  ])
    t.match(answer, { status: 409, json: { code: 'stateConflict' } });
});

t.test('an offer whose row was changed moves nothing', async (t) => {
  const { vault, id } = await moveStage(t);
  await vault.team('elsewhere', ['mallory']);
  const {
    rows: [{ elsewhere }],
  } = (await sql<{
    elsewhere: string;
  }>`select id as elsewhere from team where slug = 'elsewhere'`.execute(vault.db)) as any;
  for (const [assignment, who] of [
    [`to_team_id = '${elsewhere}'`, 'mallory'],
    ["expires_at = 'infinity'", 'bella'],
    ['revision = revision + 1', 'bella'],
    ["seal = '\\x'", 'bella'],
  ] as const) {
    const { id: transfer } = await offer(vault, id);
    await intrude(vault.db, `update credential_transfer set ${assignment}`);
    t.equal(
      (await vault.call(who, 'POST', `/v1/transfers/${transfer}/accept`)).status,
      404,
      assignment,
    );
    await sql`delete from credential_transfer`.execute(vault.db);
  }
  t.equal((await vault.call('alice', 'GET', `/v1/credentials/${id}`)).json.team, 'payments');
});

t.test('an engine whose row was changed is changed by nobody, and may go', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  await storeOpenai(vault, 'payments', 'one', 'sk-1');
  const url = `/v1/engines/${engine.id}`;
  const { publicJwk } = generateEngineKey('X25519');
  for (const assignment of ["state = 'disabled'", 'revision = revision + 1', "seal = '\\x'"]) {
    await sql`create table kept as table engine`.execute(vault.db);
    await intrude(vault.db, `update engine set ${assignment}`);
    for (const [method, path, body] of [
      ['PATCH', url, { name: 'another' }],
      ['PATCH', url, { state: 'enabled' }],
      ['POST', `${url}/keys`, { key: publicJwk }],
    ] as const)
      t.ok(
        [404, 409].includes(
          (await vault.call('operator', method, path, body, method === 'PATCH' ? any : {})).status,
        ),
        `${assignment}: ${method} ${path}`,
      );
    t.match(await scan(vault), [{ table: 'engine' }], assignment);
    t.match((await demand(vault.call('operator', 'GET', '/v1/engines'), 200)).items, [
      { intact: false },
    ]);
    await intrude(
      vault.db,
      'delete from engine',
      'insert into engine select * from kept',
      'drop table kept',
    );
  }
  t.same(await scan(vault), []);
  await intrude(vault.db, "update engine set state = 'disabled'");
  await demand(vault.call('operator', 'DELETE', url, undefined, any), 204);
  t.match((await lastEvent(vault, 'engine.delete')).details, { wasTampered: true });
});

t.test('a key that somebody planted is none of the engine', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const { id } = await storeOpenai(vault, 'payments', 'one', 'sk-1', {
    policy: { delivery: ['lease'], allowedHosts: [] },
  });
  const planted = generateEngineKey('X25519').publicJwk;
  const [{ kid: own }] = (
    await demand(vault.call('operator', 'GET', `/v1/engines/${engine.id}`), 200)
  ).keys;
  const plant = (jwk: string): Promise<void> =>
    intrude(
      vault.db,
      `insert into engine_key (engine_id, kid, jwk, revision, seal, created_at, created_by) select engine_id, reverse(kid), '${jwk}', revision, seal, 'infinity', created_by from engine_key`,
    );
  for (const jwk of [
    JSON.stringify(planted),
    '{"kty":"oct","k":"AAAA"}',
    '[]',
    'null',
    '"x"',
    '{"crv":1e400}',
  ]) {
    await plant(jwk);
    const shown = await demand(vault.call('operator', 'GET', `/v1/engines/${engine.id}`), 200);
    t.equal(shown.keys.length, 1, jwk);
    t.ok(
      vault.logs.some((line) => line.includes('"event":"sealBroken"') && line.includes(engine.id)),
      'with an alarm',
    );
    const opened = await openAnswer(
      vault,
      engine,
      await askLease(vault, 'n8n', [{ id }], { keyId: own }),
    );
    t.equal(opened.credentials.length, 1, 'a lease is for a key that the vault knows');
    t.equal((await askLease(vault, 'n8n', [{ id }])).status, 422, 'and for no other');
    await demand(
      vault.call(
        'operator',
        'PATCH',
        `/v1/engines/${engine.id}`,
        { name: `renamed ${jwk.length}` },
        any,
      ),
      200,
    );
    t.match(await scan(vault), [{ table: 'engine_key' }], 'which makes nothing of the planted one');
    const {
      rows: [{ kid }],
    } = (await sql`select kid from engine_key where created_at = 'infinity'`.execute(
      vault.db,
    )) as any;
    await demand(
      vault.call('operator', 'DELETE', `/v1/engines/${engine.id}/keys/${kid}`, undefined, any),
      204,
    );
    t.same(await scan(vault), []);
  }
});

t.test(
  'a webhook whose row was changed is replaced, and nothing is made of a credential that was',
  async (t) => {
    const receiver = await startReceiver(t);
    const vault = await startVault(t, { egress: egressTo(t, [receiver]) });
    await vault.team('payments');
    const id = await storeWebhook(vault, receiver);
    const url = `/v1/teams/payments/webhooks/${id}`;
    const put = () => vault.call('alice', 'PUT', url, { events: ['key.overdue'] }, any);
    await demand(put(), 200);
    for (const assignment of [
      "events = '{credential.exposed}'",
      'revision = 2147483647',
      "created_at = 'infinity'",
      "seal = '\\x'",
    ]) {
      await intrude(vault.db, `update webhook set ${assignment}`);
      t.match(await put(), { status: 200, json: { events: ['key.overdue'] } }, assignment);
      t.match((await lastEvent(vault, 'webhook.change')).details, { wasTampered: true });
      t.same(await scan(vault), [], assignment);
    }
    await intrude(vault.db, `update credential set name = 'somebody else' where id = '${id}'`);
    for (const [method, path] of [
      ['PUT', url],
      ['POST', `${url}/test`],
    ] as const)
      t.equal(
        (
          await vault.call(
            'alice',
            method,
            path,
            method === 'PUT' ? { events: ['key.overdue'] } : undefined,
            method === 'PUT' ? any : {},
          )
        ).status,
        404,
      );
    t.equal((await sql`select 1 from notification`.execute(vault.db)).rows.length, 0);
  },
);
