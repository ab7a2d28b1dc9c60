// The SQL of docs/operations.md as it stands there: a vault under the role that it makes does all
// its work, and cannot change the audit.
import { randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import t from 'tap';
import { openDatabase } from '../../src/db/client.ts';
import { sqlState } from '../../src/db/errors.ts';
import { migrate } from '../../src/db/migrate.ts';
import { Retention } from '../../src/retention/service.ts';
import { AuditLog } from '../../src/audit/record.ts';
import { command, testDatabase, withDatabase } from '../helpers/database.ts';
import { askLease, demand, openAnswer, registerEngine, storeOpenai } from '../helpers/leases.ts';
import { statementsWith } from '../helpers/operations-page.ts';
import { until } from '../helpers/processes.ts';
import { startVault } from '../helpers/vault.ts';

t.test('the roles of the operations page', async (t) => {
  // Roles belong to the whole server, which other tests use at the same time: their names get a
  // suffix of this run.
  const suffix = randomBytes(4).toString('hex');
  const password = randomBytes(12).toString('hex');
  const named = (statement: string): string =>
    statement
      .replaceAll(/\bcredvault(?:_(?:owner|app))?\b/g, (name) => `${name}_${suffix}`)
      .replaceAll("'…'", `'${password}'`);
  const { url: server } = await testDatabase(t, { empty: true }); // as a superuser
  const as = (role: string): string =>
    withDatabase(server, `credvault_${suffix}`).replace(
      /^([^:]+:\/\/)(?:[^/@]*@)?/,
      `$1${role}_${suffix}:${password}@`,
    );
  t.teardown(async () => {
    for (const text of [
      `drop database if exists credvault_${suffix} with (force)`,
      `drop role if exists credvault_app_${suffix}`,
      `drop role if exists credvault_owner_${suffix}`,
    ])
      await command(server, text);
  });
  for (const statement of statementsWith('create role')) await command(server, named(statement));
  await migrate(as('credvault_owner'));
  for (const _ of [1, 2])
    for (const statement of statementsWith('grant usage'))
      await command(as('credvault_owner'), named(statement));

  const { db, close } = openDatabase({
    url: as('credvault_app'),
    poolMax: 8,
    onError: () => undefined,
  });
  t.teardown(close); // before the database is dropped: teardowns run backwards
  const vault = await startVault(t, { database: { url: as('credvault_app'), db } });
  vault.start();

  await t.test('a vault under the app role does all its work', async (t) => {
    await vault.team('payments');
    await vault.member('payments', 'victor', 'viewer');
    const engine = await registerEngine(vault, 'n8n');
    await vault.member('payments', 'n8n', 'engine');
    const stored = await storeOpenai(vault, 'payments', 'openai-prod', 'sk-1', {}, 'alice');
    await demand(
      vault.call(
        'alice',
        'PATCH',
        `/v1/credentials/${stored.id}`,
        { fields: { apiKey: 'sk-2' } },
        { 'if-match': '*' },
      ),
      200,
    );
    await demand(
      vault.call('victor', 'DELETE', `/v1/credentials/${stored.id}`, undefined, {
        'if-match': '*',
      }),
      403,
    );
    const other = await storeOpenai(vault, 'payments', 'openai-test', 'sk-3');
    await demand(
      vault.call('alice', 'DELETE', `/v1/credentials/${other.id}`, undefined, { 'if-match': '*' }),
      204,
    );
    const { id } = await demand(
      vault.call('alice', 'POST', '/v1/teams/payments/key-rotations', undefined, {
        'idempotency-key': 'one',
      }),
      202,
    );
    await until(
      async () =>
        (await demand(vault.call('alice', 'GET', `/v1/teams/payments/key-rotations/${id}`), 200))
          .state === 'completed',
    );
    const {
      items: [, former],
    } = await demand(vault.call('alice', 'GET', '/v1/teams/payments/keys'), 200);
    await demand(vault.call('alice', 'POST', `/v1/teams/payments/keys/${former.id}/retire`), 200);
    const opened = await openAnswer(
      vault,
      engine,
      await askLease(vault, 'n8n', [{ id: stored.id }]),
    );
    t.match(opened.credentials, [{ fields: { apiKey: 'sk-2' } }]);
    await demand(
      vault.call('alice', 'POST', `/v1/teams/payments/keys/${former.id}/schedule-destroy`, {
        days: 7,
      }),
      200,
    );
    await demand(
      vault.call('alice', 'POST', `/v1/teams/payments/keys/${former.id}/mark-compromised`, {
        reason: 'a test',
      }),
      200,
    );
    await demand(vault.call('operator', 'GET', '/v1/status'), 200);
    const old = await sql<{
      fingerprint: string;
    }>`insert into root_key (fingerprint, canary) values ('0123456789abcdef', '\\x00') returning fingerprint`.execute(
      db,
    );
    await demand(
      vault.call('operator', 'POST', `/v1/root-keys/${old.rows[0]?.fingerprint}/mark-compromised`, {
        reason: 'a test',
      }),
      200,
    );
    await sql`update system_key set root_fingerprint = root_fingerprint, wrapped = wrapped`.execute(
      db,
    ); // as a rewrap does
    await sql`update data_key set root_fingerprint = root_fingerprint, wrapped = wrapped`.execute(
      db,
    );
    await demand(
      vault.call('alice', 'DELETE', '/v1/teams/payments/members/victor', undefined, {
        'if-match': '*',
      }),
      204,
    );
    await demand(
      vault.call('operator', 'DELETE', `/v1/engines/${engine.id}`, undefined, { 'if-match': '*' }),
      204,
    );
    const { items } = await demand(
      vault.call('alice', 'GET', '/v1/teams/payments/audit-events'),
      200,
    );
    t.ok(items.length > 8);
    t.ok(items.every(({ intact }: { intact: boolean }) => intact));
    await until(async () => (await sql`select 1 from access_record`.execute(db)).rows.length > 0);
    t.notOk(
      vault.logs.some(
        (line) => line.includes('permission denied') || line.includes('"event":"background"'),
      ),
      'nothing failed beside the requests',
    );
  });

  await t.test('its housekeeping destroys what is over, months included', async (t) => {
    vault.clock.ms += 31 * 86_400_000;
    const audit = new AuditLog({
      db,
      keyring: vault.keyring,
      now: Date.now,
      onError: raise,
      onAlarm: () => undefined,
    });
    await new Retention({ db, audit, clock: vault.databaseClock, onError: raise }).run();
    vault.clock.ms = 0;
    t.same((await sql`select 1 from credential where state = 'deleted'`.execute(db)).rows, []);
  });

  await t.test('it cannot change or remove what the audit says, nor the schema', async (t) => {
    for (const statement of [
      "update audit_event set reason = 'x'",
      'delete from audit_event',
      'truncate audit_event',
      'alter table audit_event disable trigger all',
      'drop table audit_event',
      'update access_record set status = 200',
      'delete from access_record',
      'delete from audit_address',
      'delete from system_key',
      'delete from root_key',
      "update schema_migration set name = 'x'",
      'create table mine (id int)',
      'drop trigger audit_event_is_append_only on audit_event',
    ])
      t.equal(await stateOf(as('credvault_app'), statement), '42501', statement);
    const partition = (
      await sql<{
        name: string;
      }>`select inhrelid::regclass::text as name from pg_inherits where inhparent = 'audit_event'::regclass limit 1`.execute(
        db,
      )
    ).rows[0]!.name;
    for (const statement of [
      `delete from ${partition}`,
      `select * from ${partition}`,
      `drop table ${partition}`,
    ])
      t.equal(await stateOf(as('credvault_app'), statement), '42501', statement);
  });

  await t.test(
    'even the owner cannot change or remove an event by a plain statement',
    async (t) => {
      for (const statement of [
        "update audit_event set reason = 'x'",
        'delete from audit_event',
        'truncate audit_event',
      ])
        t.equal(await stateOf(as('credvault_owner'), statement), '23514', statement);
    },
  );

  await t.test('the query for a backup names the root key that it needs', async (t) => {
    const { rows } = await sql<{
      root_fingerprint: string;
      count: number;
    }>`${sql.raw(statementsWith('union all')[0]!)}`.execute(db);
    const { rows: keys } = await sql<{
      fingerprint: string;
    }>`select fingerprint from root_key where compromised_at is null`.execute(db);
    t.same(
      rows.map(({ root_fingerprint }) => root_fingerprint),
      keys.map(({ fingerprint }) => fingerprint),
    );
    t.equal(rows[0]?.count, 12, 'two versions of five system keys, and two data keys');
  });
});

async function stateOf(url: string, statement: string): Promise<string | undefined> {
  return command(url, statement).then(
    () => 'done',
    (error: unknown) => sqlState(error),
  );
}

function raise(error: Error): never {
  throw error;
}
