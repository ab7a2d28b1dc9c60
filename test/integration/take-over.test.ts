// Settings from before they had a MAC: the vault takes them over once, says what it found, and
// closes the door behind it. Who writes to the database cannot open it again.
import { sql } from 'kysely';
import t from 'tap';
import { generateRootKey, parseRootKeys } from '../../src/crypto/index.ts';
import { KeyringRefused, openKeyring, reloadSystemKeys } from '../../src/keys/system-keys.ts';
import { takeOverOpenMs } from '../../src/keys/system-key-keeper.ts';
import { takeOverTeams } from '../../src/teams/take-over.ts';
import { AuditLog } from '../../src/audit/record.ts';
import {
  asBefore,
  listSystemKeys,
  putSystemKeys,
  saysTakenOver,
  wrapAsBefore,
} from '../helpers/before.ts';
import { type TestDatabase, testDatabase } from '../helpers/database.ts';
import { egressTo } from '../helpers/egress.ts';
import { intrude } from '../helpers/intruder.ts';
import { type Jobs, jobsOf } from '../helpers/jobs.ts';
import { demand } from '../helpers/leases.ts';
import { scan } from '../helpers/moves.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const found = {
  tokenFormat: 'fernet',
  rotateEveryDays: 90,
  refuseExposedLeases: true,
  defaultDelivery: ['broker'],
  versionsKept: 4,
};

interface Stage {
  readonly database: TestDatabase;
  readonly rootKey: string;
  readonly vault: TestVault;
  readonly jobs: Jobs;
}

/** A vault of this release on a database of the one before, with the teams payments and support. */
async function stageOf(t: Parameters<typeof startVault>[0]): Promise<Stage> {
  const database = await testDatabase(t);
  const rootKey = generateRootKey();
  const before = await startVault(t, { database, rootKey });
  await before.team('payments');
  await before.team('support', ['sam']);
  await demand(before.call('alice', 'PATCH', '/v1/teams/payments', found, any), 200);
  await before.stop();
  await asBefore(database.db, rootKey);
  const vault = await startVault(t, { database, rootKey });
  const jobs = jobsOf(vault, egressTo(t, []));
  t.teardown(() => jobs.stop());
  return { database, rootKey, vault, jobs };
}

const macs = async ({ vault: { db } }: Stage): Promise<string[]> =>
  (
    await sql<{
      slug: string;
    }>`select slug from team where row_mac is not null and row_mac_version = 1 order by slug`.execute(
      db,
    )
  ).rows.map(({ slug }) => slug);
const events = async ({ vault: { db } }: Stage, action: string): Promise<any[]> =>
  (
    await sql<any>`select target_id, team.slug, details from audit_event left join team on team.id = team_id where action = ${action} order by at, audit_event.id`.execute(
      db,
    )
  ).rows;
const intact = async ({ vault }: Stage, slug = 'payments', as = 'alice'): Promise<boolean> =>
  (await demand(vault.call(as, 'GET', `/v1/teams/${slug}`), 200)).intact;
const areClosed = async ({ vault, rootKey }: Stage): Promise<boolean[]> =>
  (await listSystemKeys(vault.db)).map((row) => saysTakenOver(rootKey, row));
/** As the release before writes it, which knows nothing of a MAC. */
const changeAsBefore = ({ vault: { db } }: Stage, versionsKept: number): Promise<unknown> =>
  sql`update team set versions_kept = ${versionsKept}, revision = revision + 1, updated_at = now() where slug = 'payments'`.execute(
    db,
  );
/** As the release before makes it: the columns that it knows. */
const makeAsBefore = ({ vault: { db } }: Stage, slug: string): Promise<unknown> =>
  sql`insert into team (id, slug, name, token_format, rotate_every_days, refuse_exposed_leases, revision, created_at, created_by, updated_at, updated_by, default_delivery, versions_kept)
    select gen_random_uuid(), ${slug}, ${slug}, token_format, rotate_every_days, refuse_exposed_leases, 1, now(), created_by, now(), updated_by, default_delivery, versions_kept from team where slug = 'payments'`.execute(
    db,
  );
const close = async ({ vault, jobs }: Stage): Promise<void> => {
  await jobs.keep();
  vault.clock.ms += takeOverOpenMs;
  await jobs.keep();
};

t.test('rows of before are taken over once, and the audit log lists what was found', async (t) => {
  const stage = await stageOf(t);
  const { vault, jobs } = stage;
  t.same(await macs(stage), []);
  t.equal(await intact(stage), true, 'they count until they are taken over');
  t.match(
    await vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: 'x',
      type: 'openai',
      fields: { apiKey: 'sk-1234567890' },
    }),
    { status: 201, json: { policy: { delivery: ['broker'] } } },
  );
  t.same(await scan(vault), []);
  await jobs.keep();
  t.same(await macs(stage), ['payments', 'support']);
  t.match(await events(stage, 'team.takeOver'), [
    { slug: 'payments', details: found },
    {
      slug: 'support',
      details: { rotateEveryDays: 'none', defaultDelivery: ['lease'], versionsKept: 10 },
    },
  ]);
  t.match(
    (
      await demand(
        vault.call('alice', 'GET', '/v1/teams/payments/audit-events?action=team.takeOver'),
        200,
      )
    ).items,
    [{ actor: null, details: found, intact: true }],
    'the team sees it',
  );
  t.equal(await intact(stage), true);
  await jobs.keep();
  t.equal((await events(stage, 'team.takeOver')).length, 2, 'once');
});

t.test('the release before goes on beside this one while its replicas are replaced', async (t) => {
  const stage = await stageOf(t);
  const { vault, jobs } = stage;
  await jobs.keep();
  t.same(
    new Set(await areClosed(stage)),
    new Set([false]),
    'which it could not start with otherwise',
  );
  await changeAsBefore(stage, 7);
  t.same(await macs(stage), ['support'], 'the MAC says nothing any more');
  t.equal(await intact(stage), true);
  await makeAsBefore(stage, 'made');
  await jobs.keep();
  t.same(await macs(stage), ['made', 'payments', 'support']);
  t.match((await events(stage, 'team.takeOver')).slice(2), [
    { slug: 'payments', details: { ...found, versionsKept: 7 } },
    { slug: 'made' },
  ]);
  await sql`update team set name = 'Renamed', updated_at = now() where slug = 'payments'`.execute(
    vault.db,
  );
  t.same(await macs(stage), ['made', 'payments', 'support'], 'a name is not in it');
  await changeAsBefore(stage, 8);
  t.match(await vault.call('alice', 'PATCH', '/v1/teams/payments', { versionsKept: 9 }, any), {
    status: 200,
    json: { versionsKept: 9, intact: true },
  });
  t.match(
    (await events(stage, 'team.takeOver')).at(-1),
    { slug: 'payments', details: { versionsKept: 8 } },
    'what a change starts from is said, too',
  );
});

t.test('from then on a row without a MAC is tampered', async (t) => {
  const stage = await stageOf(t);
  const { vault, jobs, rootKey, database } = stage;
  await close(stage);
  t.same(new Set(await areClosed(stage)), new Set([true]));
  t.match(await events(stage, 'team.takeOverEnd'), [{ target_id: 'vault' }]);
  t.same(await scan(vault), []);
  await jobs.keep();
  t.equal((await events(stage, 'team.takeOverEnd')).length, 1);
  for (const tamper of [
    () =>
      intrude(
        vault.db,
        `update team set row_mac = null, row_mac_version = 0 where slug = 'payments'`,
      ),
    () => changeAsBefore(stage, 9),
  ]) {
    await sql.raw('create table kept as table team').execute(vault.db);
    await tamper();
    t.equal(await intact(stage), false);
    await jobs.keep();
    t.equal(await intact(stage), false, 'it is not taken over again');
    t.match(await scan(vault), [{ table: 'team', fault: 'sealBroken' }]);
    const restarted = await startVault(t, { database, rootKey });
    const later = jobsOf(restarted, egressTo(t, []));
    await later.keep();
    t.equal(
      (await demand(restarted.call('alice', 'GET', '/v1/teams/payments'), 200)).intact,
      false,
      'by another process neither',
    );
    await later.stop();
    await intrude(
      vault.db,
      'delete from team',
      'insert into team select * from kept',
      'drop table kept',
    );
    t.equal(await intact(stage), true);
  }
  t.equal((await events(stage, 'team.takeOver')).length, 2);
});

t.test('the door stays open for a day, and for an hour of every replica', async (t) => {
  const hour = 3_600_000;
  const stage = await stageOf(t);
  const { vault, jobs } = stage;
  const isOpenAfter = async (ms: number): Promise<boolean> => {
    vault.clock.ms += ms;
    await jobs.keep();
    return (await areClosed(stage)).every((is) => !is);
  };
  t.ok(await isOpenAfter(0));
  t.ok(await isOpenAfter(23 * hour), 'whoever goes back to the release before can do so');
  await changeAsBefore(stage, 8);
  t.ok(await isOpenAfter(hour), 'with a row that is still to be taken over');
  t.same(await macs(stage), ['payments', 'support']);
  await sql`delete from schema_migration where name like '%protect_settings%'`.execute(vault.db);
  t.notOk(await isOpenAfter(0), 'whatever is said of the migration');

  const other = await stageOf(t);
  await sql`update schema_migration set applied_at = now() - interval '2 days' where name like '%protect_settings%'`.execute(
    other.vault.db,
  );
  await other.jobs.keep();
  other.vault.clock.ms += hour - 60_000;
  await other.jobs.keep();
  t.same(
    new Set(await areClosed(other)),
    new Set([false]),
    'a schema that was migrated long before',
  );
  other.vault.clock.ms += 60_000;
  await other.jobs.keep();
  t.same(new Set(await areClosed(other)), new Set([true]));
});

t.test('a row that has not the form of settings is not taken over', async (t) => {
  const stage = await stageOf(t);
  const { vault } = stage;
  const { rows } = await sql<{ name: string }>`
    select conname as name from pg_constraint where conrelid = 'team'::regclass and contype = 'c' and pg_get_constraintdef(oid) like '%default_delivery%'`.execute(
    vault.db,
  );
  await intrude(
    vault.db,
    ...rows.map(({ name }) => `alter table team drop constraint ${name}`),
    `update team set default_delivery = '{lease,evil}' where slug = 'payments'`,
  );
  await close(stage);
  t.same(await macs(stage), ['support']);
  t.match(await scan(vault), [{ table: 'team', fault: 'sealBroken' }]);
});

t.test('who deletes or puts back what says so does not open the door', async (t) => {
  const stage = await stageOf(t);
  const { vault, jobs, rootKey } = stage;
  await jobs.keep();
  const before = await listSystemKeys(vault.db);
  vault.clock.ms += takeOverOpenMs;
  await jobs.keep();
  const closed = await listSystemKeys(vault.db);
  const open = () => openKeyring({ db: vault.db, roots: parseRootKeys(rootKey), now: Date.now });
  await sql`create table kept as table system_key`.execute(vault.db);
  const restore = () =>
    intrude(vault.db, 'delete from system_key', 'insert into system_key select * from kept');

  for (const which of ["purpose = 'rowSeal'", "purpose = 'auditMac'", 'true']) {
    await intrude(vault.db, `delete from system_key where ${which}`);
    await t.rejects(open(), KeyringRefused, `without those where ${which}`);
    await t.rejects(reloadSystemKeys(vault.db, vault.keyring), KeyringRefused);
    await restore();
  }
  // One key as it was before: the others still say it, and the next look has it say so as well.
  await putSystemKeys(vault.db, before.slice(0, 1));
  t.equal((await open()).isTakenOver, true);
  await jobs.keep();
  t.same(new Set(await areClosed(stage)), new Set([true]));
  t.equal((await events(stage, 'team.takeOverEnd')).length, 1, 'which is not the end of anything');
  // All of them: whoever runs knows better.
  await putSystemKeys(vault.db, before);
  await t.rejects(reloadSystemKeys(vault.db, vault.keyring), {
    message: /before|earlier|taken/i,
  });
  await t.rejects(jobs.keep());
  await intrude(
    vault.db,
    `update team set row_mac = null, row_mac_version = 0 where slug = 'payments'`,
  );
  t.equal(await intact(stage), false);
  await putSystemKeys(vault.db, closed);
  await jobs.keep();
  t.equal(await intact(stage), false);
});

t.test('system keys that the release before made since say it, too', async (t) => {
  const stage = await stageOf(t);
  const { vault, jobs, rootKey } = stage;
  await close(stage);
  const [one, ...rest] = await listSystemKeys(vault.db);
  await putSystemKeys(vault.db, [wrapAsBefore(rootKey, one!)]);
  t.same((await areClosed(stage)).filter((is) => is).length, rest.length);
  await jobs.keep();
  t.same(new Set(await areClosed(stage)), new Set([true]));
});

t.test('a vault that begins with this release has nothing to take over', async (t) => {
  const rootKey = generateRootKey();
  const vault = await startVault(t, { rootKey });
  await vault.team('payments');
  const jobs = jobsOf(vault, egressTo(t, []));
  t.teardown(() => jobs.stop());
  const stage = { vault, rootKey, jobs } as Stage;
  t.same(new Set(await areClosed(stage)), new Set([true]));
  await changeAsBefore(stage, 9);
  t.equal(await intact(stage), false);
  await jobs.keep();
  t.same([await intact(stage), await events(stage, 'team.takeOver')], [false, []]);
});

t.test('what is stopped on the way closes nothing', async (t) => {
  const stage = await stageOf(t);
  const { vault } = stage;
  const audit = new AuditLog({
    db: vault.db,
    keyring: vault.keyring,
    now: Date.now,
    onError: () => undefined,
    onAlarm: () => undefined,
  });
  let left = 1;
  t.equal(
    await takeOverTeams(vault.db, { keyring: vault.keyring, audit }, () => (left -= 1) < -1),
    1,
  );
  t.equal((await macs(stage)).length, 1, 'a team whole, the other as it was');
  await close(stage);
  t.same(await macs(stage), ['payments', 'support']);
});
