// What destroying really does, and what it does not: the live database, the tombstones, and backups
// from before.
import { sql } from 'kysely';
import t, { type Test } from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import {
  DecryptionFailed,
  generateRootKey,
  Keyring,
  KeyUnavailable,
  parseRootKeys,
  type Binding,
} from '../../src/crypto/index.ts';
import type { Db } from '../../src/db/client.ts';
import { Retention } from '../../src/retention/service.ts';
import { backUp } from '../helpers/copies.ts';
import { testDatabase } from '../helpers/database.ts';
import { intrude } from '../helpers/intruder.ts';
import { until } from '../helpers/processes.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const day = 86_400_000;

/**
 * The secrets that somebody gets out of a database with these root keys, without the vault: as
 * docs/format.md says.
 */
async function readable(db: Db, rootKeys: string): Promise<string[]> {
  const keyring = new Keyring({ roots: parseRootKeys(rootKeys), now: Date.now });
  const { rows } = await sql<
    Binding & {
      token: string;
      id: never;
      keyVersion: number;
      format: 'fernet' | 'fernet-256';
      root: string;
      wrapped: Buffer | null;
    }
  >`
    select v.team_id as team, v.credential_id as credential, v.version, c.type, v.public_fields as "publicFields", v.policy, v.token,
      k.id, k.version as "keyVersion", k.format, k.root_fingerprint as root, k.wrapped
    from credential_version v join credential c on c.id = v.credential_id join data_key k on k.id = v.data_key_id`.execute(
    db,
  );
  const found: string[] = [];
  for (const { token, id, keyVersion, format, root, wrapped, ...binding } of rows) {
    if (wrapped === null) continue;
    try {
      found.push(
        ...Object.values(
          keyring
            .open(
              {
                id,
                team: binding.team,
                version: keyVersion,
                format,
                rootFingerprint: root,
                wrapped,
              },
              binding,
              token,
            )
            .expose(),
        ),
      );
    } catch (error) {
      if (!(error instanceof KeyUnavailable || error instanceof DecryptionFailed)) throw error;
    }
  }
  return found.sort();
}

const store = async (vault: TestVault, team: string, name: string): Promise<string> =>
  (
    await vault.call('alice', 'POST', `/v1/teams/${team}/credentials`, {
      name,
      type: 'openai',
      fields: { apiKey: `key of ${name}` },
    })
  ).json.id;

/** Rotates, retires the first key and lets the vault destroy it after its days. */
async function destroyFirstKey(
  vault: TestVault,
): Promise<{ id: string; state: string; destroyAt: string; lastBackupWithKey: string }> {
  vault.start();
  const {
    json: { id: rotation },
  } = await vault.call('alice', 'POST', '/v1/teams/payments/key-rotations');
  await until(
    async () =>
      (await vault.call('alice', 'GET', `/v1/teams/payments/key-rotations/${rotation}`)).json
        .state === 'completed',
  );
  const {
    json: {
      items: [, { id }],
    },
  } = await vault.call('alice', 'GET', '/v1/teams/payments/keys');
  await vault.call('alice', 'POST', `/v1/teams/payments/keys/${id}/retire`);
  await vault.call('alice', 'POST', `/v1/teams/payments/keys/${id}/schedule-destroy`, { days: 7 });
  return (await vault.call('alice', 'GET', `/v1/teams/payments/keys/${id}`)).json;
}

/**
 * The same database under other root keys, so many days later; waits until the vault has destroyed
 * what is due.
 */
async function later(
  t: Test,
  before: TestVault,
  rootKey: string,
  days: number,
): Promise<TestVault> {
  const vault = await startVault(t, {
    database: { url: before.databaseUrl, db: before.db },
    rootKey,
  });
  vault.clock.ms = days * day;
  vault.start();
  await until(
    async () =>
      (await sql`select 1 from data_key where state = 'destroyPending'`.execute(vault.db)).rows
        .length === 0,
  );
  return vault;
}

t.test(
  'a destroyed key is gone from the live database at once; an old backup opens with the old root key, and with the root keys that are left nothing opens',
  async (t) => {
    const database = await testDatabase(t);
    const old = generateRootKey();
    const first = await startVault(t, { database, rootKey: old });
    await first.team('payments');
    await store(first, 'payments', 'one');
    const backup = await backUp(t, database.db);
    t.same(await readable(backup.db, old), ['key of one'], 'a control: the backup is a whole one');
    const scheduled = await destroyFirstKey(first);
    t.match(scheduled, { state: 'destroyPending' });
    t.equal(scheduled.lastBackupWithKey, scheduled.destroyAt);
    await first.stop();

    const vault = await later(t, first, old, 8);
    const { json: key } = await vault.call(
      'alice',
      'GET',
      `/v1/teams/payments/keys/${scheduled.id}`,
    );
    t.match(key, {
      state: 'destroyed',
      rows: 0,
      rootFingerprints: parseRootKeys(old).fingerprints,
    });
    t.equal(key.lastBackupWithKey, key.destroyedAt, 'the answer says until when backups hold it');
    t.match(
      await sql`select wrapped, fingerprint from data_key where id = ${key.id}`.execute(
        database.db,
      ),
      { rows: [{ wrapped: null, fingerprint: key.fingerprint }] },
    );
    t.same(
      await readable(backup.db, old),
      ['key of one'],
      'without the procedure the backup opens as before',
    );
    for (const verb of ['restore', 'cancel-destroy', 'retire'])
      t.match(await vault.call('alice', 'POST', `/v1/teams/payments/keys/${key.id}/${verb}`), {
        status: 409,
        json: { code: 'keyStateConflict' },
      });
    await vault.stop();

    // The procedure of docs/operations.md: fresh root key, rewrap, fresh backup, old root key
    // destroyed.
    const fresh = generateRootKey();
    const both = await later(t, first, `${fresh},${old}`, 8);
    t.same(
      await readable(database.db, fresh),
      [],
      'before the rewrap nothing is under the fresh one',
    );
    t.equal((await both.call('operator', 'POST', '/v1/root-key-rotations')).status, 200);
    const freshBackup = await backUp(t, database.db);
    await both.stop();
    t.same(await readable(backup.db, fresh), [], 'the old backup is noise');
    t.same(await readable(freshBackup.db, fresh), ['key of one'], 'the fresh one is not');
    t.same(
      await readable(backup.db, old),
      ['key of one'],
      'and it is the old root key that had to go',
    );
    const after = await later(t, first, fresh, 8);
    t.match(
      (await after.call('alice', 'GET', `/v1/teams/payments/keys/${key.id}`)).json.rootFingerprints,
      parseRootKeys(old).fingerprints,
      'the fresh one never wrapped it',
    );
    t.equal(
      (await after.call('alice', 'GET', '/v1/teams/payments/credentials')).json.items[0].health,
      'ok',
    );
  },
);

t.test(
  'of a deleted team tombstones stay, its slug and its audit log, and nothing else',
  async (t) => {
    const database = await testDatabase(t);
    const old = generateRootKey();
    const first = await startVault(t, { database, rootKey: old });
    const { call } = first;
    await first.team('payments');
    await first.team('support');
    await first.member('payments', 'victor', 'viewer');
    const id = await store(first, 'payments', 'one');
    await store(first, 'support', 'two');
    await destroyFirstKey(first); // its time is not over yet
    const backup = await backUp(t, database.db);
    await call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, { 'if-match': '*' });
    t.equal(
      (await call('alice', 'DELETE', '/v1/teams/payments', undefined, { 'if-match': '*' })).status,
      204,
    );
    const {
      rows: [team],
    } = await sql<{ id: string }>`select id from team where slug = 'payments'`.execute(database.db);
    const keysOf = async (): Promise<
      { state: string; wrapped: Buffer | null; fingerprint: string; root_history: string[] }[]
    > =>
      (
        await sql<{
          state: string;
          wrapped: Buffer | null;
          fingerprint: string;
          root_history: string[];
        }>`select state, wrapped, fingerprint, root_history from data_key where team_id = ${team?.id} order by version`.execute(
          database.db,
        )
      ).rows;
    const before = await keysOf();

    await first.stop();

    first.clock.ms = 6 * day;
    const audit = new AuditLog({
      db: database.db,
      keyring: first.keyring,
      now: first.databaseClock.now,
      onError: (error) => {
        throw error;
      },
      onAlarm: () => undefined,
    });
    await new Retention({
      db: database.db,
      audit,
      clock: first.databaseClock,
      onError: (error) => {
        throw error;
      },
    }).run();
    t.ok(
      (await keysOf()).every(({ wrapped }) => wrapped !== null),
      'for 7 days everything is there',
    );
    await later(t, first, old, 8);
    await until(async () => (await keysOf()).every(({ state }) => state === 'destroyed'));
    const tombstones = await keysOf();
    t.ok(tombstones.length === 2 && tombstones.every(({ wrapped }) => wrapped === null));
    t.same(
      tombstones.map(({ fingerprint, root_history }) => [fingerprint, root_history]),
      before.map(({ fingerprint, root_history }) => [fingerprint, root_history]),
      'a backup can be matched',
    );
    const { rows: tables } = await sql<{ name: string }>`
    select table_name as name from information_schema.columns where table_schema = 'public' and column_name = 'team_id' and table_name in (
      select relname from pg_class where relkind in ('r', 'p') and not relispartition) order by 1`.execute(
      database.db,
    );
    const left: string[] = [];
    for (const { name } of tables)
      if (
        (
          await sql`select 1 from ${sql.table(name)} where team_id = ${team?.id} limit 1`.execute(
            database.db,
          )
        ).rows.length > 0
      )
        left.push(name);
    t.ok(tables.length > 5);
    t.same(left, ['access_record', 'audit_event', 'data_key']);
    t.same(await readable(database.db, old), ['key of two'], 'others are left alone');
    t.same(
      await readable(backup.db, old),
      ['key of one', 'key of two'],
      'a backup from before still opens it, until the root key goes',
    );
    await t.rejects(
      sql`delete from data_key where team_id = ${team?.id}`.execute(database.db),
      /never deleted/,
    );
    await t.rejects(
      sql`delete from team where id = ${team?.id}`.execute(database.db),
      /never deleted/,
      'not with its team either',
    );
    await t.rejects(
      sql`update data_key set state = 'retired', wrapped = '\\x00', destroyed_at = null where team_id = ${team?.id}`.execute(
        database.db,
      ),
      'a tombstone does not rise',
    );
    const { rows: events } = await sql<{
      action: string;
    }>`select action from audit_event where team_id = ${team?.id} and action in ('team.purge', 'credential.purge')`.execute(
      database.db,
    );
    t.match(
      events.map(({ action }) => action),
      ['team.purge'],
    );
  },
);

t.test(
  "a living team's keys are not shredded by whoever says so, only a deleted one's",
  async (t) => {
    const vault = await startVault(t);
    await vault.team('payments');
    await t.rejects(
      sql`update data_key set state = 'destroyed', wrapped = null, destroyed_at = now()`.execute(
        vault.db,
      ),
      /does not go from active to destroyed/,
    );
    await store(vault, 'payments', 'one');
    await intrude(vault.db, "update team set deleted_at = now() - interval '8 days'");
    await t.rejects(
      sql`update data_key set state = 'destroyed', wrapped = null, destroyed_at = now()`.execute(
        vault.db,
      ),
      /in use/,
      'nor while a token is under it',
    );
  },
);
