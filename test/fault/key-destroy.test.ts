// The end of a key: destroyed once, when its time has come and nothing needs it; and what it was
// stays, whoever writes SQL.
import { sql } from 'kysely';
import t from 'tap';
import type { DataKeyId } from '../../src/shared/ids.ts';
import { until } from '../helpers/processes.ts';
import { replicaOf, threeReplicas } from '../helpers/replicas.ts';
import {
  activeKey,
  addCredentials,
  allOpenUnderActiveKey,
  ended,
  eventsOf,
  makeTeam,
  noClaim,
  type TeamOfTest,
  type TokenVault,
  tokenVault,
} from '../helpers/tokens.ts';

const dayMs = 86_400_000;

/** A team with a retired key. */
async function withRetiredKey(vault: TokenVault, of: TeamOfTest): Promise<DataKeyId> {
  const { id } = await activeKey(vault.db, of.team.id);
  const replica = { keys: vault.keys, life: vault.life };
  const rotation = await replica.keys.startRotation(of.admin, of.team, noClaim);
  const worker = vault.worker();
  worker.start();
  await ended(vault, of.team, rotation.id);
  await worker.stop();
  await replica.life.retireKey(of.admin, of.team, id);
  return id;
}

t.test(
  'a key is destroyed when its time has come, once, though three replicas look at once',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 3);
    const id = await withRetiredKey(vault, of);
    const clock = vault.time;
    const replicas = await threeReplicas(t, vault);
    await vault.life.scheduleDestroy(of.admin, of.team, id, 7);
    const destroy = async (): Promise<number> =>
      (await Promise.all(replicas.map(({ life }) => life.destroyDue()))).reduce(
        (sum, n) => sum + n,
        0,
      );
    clock.ms = 6 * dayMs;
    t.equal(await destroy(), 0);
    clock.ms = 8 * dayMs;
    t.equal(await destroy(), 1);
    t.match(await vault.keys.getKey(of.team, id), {
      state: 'destroyed',
      destroyedAt: Date,
      fingerprint: String,
    });
    t.match(await eventsOf(vault.db, of.team.id, 'key.destroy'), [{ target: id, actor: null }]);
    t.equal(
      (
        await vault.db
          .selectFrom('data_key')
          .select('wrapped')
          .where('id', '=', id)
          .executeTakeFirstOrThrow()
      ).wrapped,
      null,
    );
    t.ok(await allOpenUnderActiveKey(vault, of.team.id));
  },
);

t.test(
  'a destruction that was cancelled and scheduled anew waits for its new time, though it was listed with its old one',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    const id = await withRetiredKey(vault, of);
    const clock = vault.time;
    const replica = await replicaOf(t, vault);
    await replica.life.scheduleDestroy(of.admin, of.team, id, 7);
    clock.ms = 8 * dayMs;
    let destroyed: Promise<number> | undefined;
    await vault.db.transaction().execute(async (trx) => {
      await sql`select 1 from data_key where id = ${id} for update`.execute(trx);
      destroyed = replica.life.destroyDue();
      await until(
        async () =>
          (
            await sql`select 1 from pg_locks where locktype in ('transactionid', 'tuple') and not granted`.execute(
              vault.db,
            )
          ).rows.length > 0,
      );
      await sql`update data_key set state = 'retired', destroy_at = null, destroy_scheduled_at = null where id = ${id}`.execute(
        trx,
      );
      const at = new Date(Date.now() + clock.ms);
      await sql`update data_key set state = 'destroyPending', destroy_scheduled_at = ${at}, destroy_at = ${new Date(at.getTime() + 30 * dayMs)} where id = ${id}`.execute(
        trx,
      );
    });
    t.equal(await destroyed, 0);
    t.match(await vault.keys.getKey(of.team, id), { state: 'destroyPending' });
  },
);

t.test(
  'a key in use is not destroyed even when its time has come, and keeps no other from it',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    const other = await makeTeam(vault, 'other');
    const inUse = await withRetiredKey(vault, of);
    const unused = await withRetiredKey(vault, other);
    await vault.life.scheduleDestroy(of.admin, of.team, inUse, 7);
    await vault.life.scheduleDestroy(other.admin, other.team, unused, 7);
    // A row that somebody put back past the vault's check, as from a backup.
    await addCredentials(vault, of, 1);
    await sql`alter table credential_version disable trigger token_needs_active_key`.execute(
      vault.db,
    );
    await sql`update credential_version set data_key_id = ${inUse} where team_id = ${of.team.id}`.execute(
      vault.db,
    );
    vault.time.ms = 8 * dayMs;
    const replica = await replicaOf(t, vault);
    await t.rejects(replica.life.destroyDue(), {
      name: 'AggregateError',
      errors: [{ message: `key ${inUse} cannot be destroyed`, cause: { code: 'keyInUse' } }],
    });
    t.match(await vault.keys.getKey(of.team, inUse), { state: 'destroyPending', rows: 1 });
    t.match(await vault.keys.getKey(other.team, unused), { state: 'destroyed' });
    await t.rejects(
      sql`update data_key set state = 'destroyed', wrapped = null, destroyed_at = destroy_at where id = ${inUse}`.execute(
        vault.db,
      ),
      { constraint: 'data_key_in_use' } as never,
    );
  },
);

t.test('what a key was cannot be undone in SQL, nor its waiting time cut short', async (t) => {
  const vault = await tokenVault(t);
  const { db } = vault;
  const of = await makeTeam(vault, 'payments');
  await addCredentials(vault, of, 1);
  const id = await withRetiredKey(vault, of);
  const refusal = (change: string): Promise<unknown> =>
    sql
      .raw(change)
      .execute(db)
      .then(
        () => 'done',
        (error: { constraint?: string }) => error.constraint,
      );
  const change = (set: string): Promise<unknown> =>
    refusal(`update data_key set ${set} where id = '${id}'`);
  for (const pending of [
    'destroy_at = now()',
    "destroy_at = now() + interval '6 days', destroy_scheduled_at = now()",
    "destroy_at = now() + interval '8 days'",
    "destroy_at = now(), destroy_scheduled_at = now() - interval '8 days'",
  ])
    t.equal(
      await change(`state = 'destroyPending', ${pending}`),
      'data_key_destroy_waits',
      pending,
    );
  t.equal(
    await change("destroy_at = now(), destroy_scheduled_at = now() - interval '8 days'"),
    'data_key_destroy_at_only_then',
  );
  t.equal(
    await change("state = 'destroyed', wrapped = null, destroyed_at = now()"),
    'data_key_state_machine',
  );
  await vault.life.scheduleDestroy(of.admin, of.team, id, 7);
  for (const shorter of [
    'destroy_at = now()',
    "destroy_scheduled_at = destroy_scheduled_at - interval '8 days', destroy_at = destroy_at - interval '8 days'",
  ]) {
    t.equal(await change(shorter), 'data_key_destroy_waits', shorter);
  }
  t.equal(
    await change("state = 'destroyed', wrapped = null, destroyed_at = now()"),
    'data_key_destroy_waits',
    'nor is it destroyed before',
  );
  await vault.life.cancelDestroy(of.admin, of.team, id);
  await vault.life.markCompromised(of.admin, of.team, id, 'a test');
  for (const undone of [
    'compromised_at = null, compromised_by = null, compromise_reason = null',
    "compromise_reason = 'nothing'",
    "fingerprint = repeat('0', 16)",
    'version = 99',
    "format = 'fernet-256'",
    "root_history = '{}'",
    "root_history = array['x']",
    'id = gen_random_uuid()',
    'created_at = now()',
  ])
    t.equal(await change(undone), 'data_key_keeps_its_past', undone);
  t.equal(await refusal(`delete from data_key where id = '${id}'`), 'data_key_tombstone_stays');
  t.equal(await refusal(`delete from team where id = '${of.team.id}'`), 'data_key_tombstone_stays');
  t.equal(
    await refusal("update credential_version set key_history = '{}'"),
    'credential_version_key_history',
  );
  t.equal(
    await refusal('update credential_version set key_history = key_history[2:]'),
    'credential_version_key_history',
  );
  const { rows } = await sql<{
    history: string[];
  }>`select key_history as history from credential_version`.execute(db);
  t.strictSame(rows, [{ history: [id, (await activeKey(db, of.team.id)).id] }]);
  t.equal(
    await refusal(
      "begin isolation level repeatable read; update data_key set state = 'decryptOnly' where state = 'active'; commit",
    ),
    'data_key_read_committed',
  );
});
