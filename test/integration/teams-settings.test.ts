// A team's settings decide what engines get. Changed past the service they count for nothing: what
// is asked for by them is refused, nothing of them is protected anew, and an admin puts them right
// by saying all of them.
import { sql } from 'kysely';
import t from 'tap';
import { intrude } from '../helpers/intruder.ts';
import { jobsOf } from '../helpers/jobs.ts';
import { egressTo } from '../helpers/egress.ts';
import { askLease, demand, registerEngine, rulesOf, storeOpenai } from '../helpers/leases.ts';
import { scan } from '../helpers/moves.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const settings = {
  tokenFormat: 'fernet',
  rotateEveryDays: 30,
  refuseExposedLeases: true,
  defaultDelivery: ['broker'],
  versionsKept: 3,
};
const teamOf = (vault: TestVault): Promise<any> =>
  demand(vault.call('alice', 'GET', '/v1/teams/payments'), 200);
const patch = (vault: TestVault, body: object) =>
  vault.call('alice', 'PATCH', '/v1/teams/payments', body, any);
const set = (vault: TestVault, assignment: string): Promise<void> =>
  intrude(vault.db, `update team set ${assignment} where slug = 'payments'`);
const alarms = ({ logs }: TestVault): any[] =>
  logs
    .filter((line) => line.includes('"event":"sealBroken"'))
    .map((line) => JSON.parse(line) as unknown);

async function stageOf(t: Parameters<typeof startVault>[0]): Promise<TestVault> {
  const vault = await startVault(t);
  await vault.team('payments');
  await demand(patch(vault, settings), 200);
  await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  return vault;
}

t.test('every protected column', async (t) => {
  const vault = await stageOf(t);
  const { rows } = await sql<{ kept: string }>`select row_mac::text as kept from team`.execute(
    vault.db,
  );
  t.equal((await teamOf(vault)).intact, true);
  await vault.team('other');
  await demand(
    vault.call('alice', 'PATCH', '/v1/teams/other', { ...settings, versionsKept: 9 }, any),
    200,
  );
  for (const assignment of [
    "token_format = 'fernet-256'",
    'rotate_every_days = 31',
    'rotate_every_days = null',
    'refuse_exposed_leases = false',
    "default_delivery = '{lease,broker}'",
    "default_delivery = '{}'",
    'versions_kept = 1',
    'revision = revision + 1',
    "row_mac = '\\x', row_mac_version = 1",
    "row_mac = decode(repeat('00', 34), 'hex')",
    'row_mac = set_bit(row_mac, 271, 1 - get_bit(row_mac, 271))',
    'row_mac = null, row_mac_version = 0',
    "row_mac = null, row_mac_version = 0, default_delivery = '{lease}'",
    'row_mac_version = 2',
    "row_mac = (select row_mac from team other where other.slug = 'other')",
    "(row_mac, versions_kept, revision) = (select row_mac, versions_kept, revision from team other where other.slug = 'other')",
  ]) {
    await sql.raw('create table kept as table team').execute(vault.db);
    await intrude(
      vault.db,
      'alter table team drop constraint if exists team_row_mac_version_known',
      'alter table team drop constraint if exists team_row_mac_with_version',
    );
    await set(vault, assignment);
    const before = alarms(vault).length;
    t.equal((await teamOf(vault)).intact, false, assignment);
    t.match(
      alarms(vault).slice(before),
      [{ target: { type: 'team' } }],
      `${assignment}: the alarm`,
    );
    t.match(
      (await demand(vault.call('alice', 'GET', '/v1/teams'), 200)).items,
      [
        { slug: 'other', intact: true },
        { slug: 'payments', intact: false },
      ],
      `${assignment}: listed, and the other is whole`,
    );
    t.match(await scan(vault), [{ table: 'team', fault: 'sealBroken' }], `${assignment}: verify`);
    t.match(
      await vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
        name: 'x',
        type: 'openai',
        fields: { apiKey: 'sk-x' },
      }),
      { status: 409, json: { code: 'stateConflict' } },
      `${assignment}: no policy is taken from it`,
    );
    t.match(
      await patch(vault, { name: 'Another' }),
      { status: 409, json: { code: 'stateConflict' } },
      `${assignment}: nothing is protected anew that was not said`,
    );
    for (const name of Object.keys(settings) as (keyof typeof settings)[]) {
      const { [name]: _, ...rest } = settings;
      t.equal((await patch(vault, rest)).status, 409, `${assignment}: all but ${name}`);
    }
    t.match(await scan(vault), [{ table: 'team' }], `${assignment}: still tampered`);
    t.match(
      await patch(vault, settings),
      { status: 200, json: { ...settings, intact: true } },
      `${assignment}: put right`,
    );
    t.same(await scan(vault), []);
    const {
      rows: [last],
    } = await sql<{
      details: any;
    }>`select details from audit_event where action = 'team.update' order by at desc, id desc limit 1`.execute(
      vault.db,
    );
    t.equal(last?.details.wasTampered, true);
    await intrude(
      vault.db,
      'delete from team',
      'insert into team select * from kept',
      'drop table kept',
    );
  }
  t.equal(
    (
      await sql<{
        kept: string;
      }>`select row_mac::text as kept from team where slug = 'payments'`.execute(vault.db)
    ).rows[0]?.kept,
    rows[0]?.kept,
  );
});

t.test('the name is not in it, and does not keep the settings from being seen', async (t) => {
  const vault = await stageOf(t);
  await set(vault, "name = 'Renamed past the service'");
  t.match(await teamOf(vault), { name: 'Renamed past the service', intact: true });
});

t.test('what follows from settings', async (t) => {
  const vault = await stageOf(t);
  const jobs = jobsOf(vault, egressTo(t, []));
  t.teardown(() => jobs.stop());
  const { id } = await storeOpenai(vault, 'payments', 'one', 'sk-1', {
    policy: { delivery: ['lease'], allowedHosts: [] },
  });
  const [key] = (await sql<{ id: string }>`select data_key.id from data_key`.execute(vault.db))
    .rows;
  const leased = async (): Promise<unknown> => {
    const answer = await askLease(vault, 'n8n', [{ id }]);
    return answer.status === 201 ? 'leased' : rulesOf(answer);
  };

  t.test('versions are kept by a number that somebody has set, or all of them', async (t) => {
    await set(vault, 'versions_kept = 1');
    for (let n = 2; n <= 5; n += 1)
      await demand(
        vault.call(
          'alice',
          'PATCH',
          `/v1/credentials/${id}`,
          { fields: { apiKey: `sk-${n}` } },
          any,
        ),
        200,
      );
    const { rows } = await sql`select 1 from credential_version`.execute(vault.db);
    t.equal(rows.length, 5);
    await set(vault, 'versions_kept = 3');
    await demand(
      vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { fields: { apiKey: 'sk-6' } }, any),
      200,
    );
    t.equal((await sql`select 1 from credential_version`.execute(vault.db)).rows.length, 3);
  });

  t.test('no rotation begins by a policy that nobody has set', async (t) => {
    await intrude(vault.db, "update data_key set created_at = now() - interval '2 days'");
    await set(vault, 'rotate_every_days = 1');
    await jobs.schedule();
    t.equal((await sql`select 1 from key_rotation`.execute(vault.db)).rows.length, 0);
    t.match(jobs.alarms, [{ target: { type: 'team' }, reason: 'sealBroken' }]);
    await set(vault, 'rotate_every_days = 30');
  });

  t.test('what is exposed is not leased because a column says so', async (t) => {
    await demand(
      vault.call('alice', 'POST', `/v1/teams/payments/keys/${key!.id}/mark-compromised`, {
        reason: 'x',
      }),
      200,
    );
    await jobs.move();
    t.same(await leased(), ['/credentials/0 exposed']);
    for (const assignment of [
      'refuse_exposed_leases = false',
      'refuse_exposed_leases = false, row_mac = null, row_mac_version = 0',
    ]) {
      await sql.raw('create table kept as table team').execute(vault.db);
      await set(vault, assignment);
      t.not(await leased(), 'leased', assignment);
      const ticket = await vault.call('n8n', 'POST', '/v1/broker-tickets', {
        credential: { id },
        purpose: 'x',
        onBehalfOf: 'alice',
      });
      t.not(ticket.status, 201);
      await intrude(
        vault.db,
        'delete from team',
        'insert into team select * from kept',
        'drop table kept',
      );
    }
    await demand(patch(vault, { refuseExposedLeases: false }), 200);
    t.equal(await leased(), 'leased', 'because an admin says so');
    await set(vault, 'versions_kept = versions_kept + 1');
    t.not(await leased(), 'leased', 'what an admin said before something was changed says nothing');
  });
});

t.test('a key is made in the format of the active one, if the settings say another', async (t) => {
  const vault = await stageOf(t);
  const jobs = jobsOf(vault, egressTo(t, []));
  t.teardown(() => jobs.stop());
  await set(vault, "token_format = 'fernet-256'");
  await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);
  const formats = async (): Promise<string[]> =>
    (
      await sql<{
        format: string;
      }>`select format from data_key where team_id = (select id from team where slug = 'payments') order by version`.execute(
        vault.db,
      )
    ).rows.map(({ format }) => format);
  t.same(await formats(), ['fernet', 'fernet']);
  await jobs.move();
  await demand(patch(vault, { ...settings, tokenFormat: 'fernet-256' }), 200);
  await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);
  await jobs.move();
  await set(vault, "token_format = 'fernet'");
  await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202);
  t.same(await formats(), ['fernet', 'fernet', 'fernet-256', 'fernet-256'], 'never a weaker one');
});
