// Use counts: nothing is lost while the database is away, replicas do not lock each other up, and a
// purged credential is passed over.
import { sql } from 'kysely';
import { test } from 'tap';
import { openDatabase } from '../../src/db/client.ts';
import { UsageCounter } from '../../src/leases/usage.ts';
import { type CredentialId, newId } from '../../src/shared/ids.ts';
import { until } from '../helpers/processes.ts';
import { addCredentials, makeTeam, tokenVault } from '../helpers/tokens.ts';

test('use counts', async (t) => {
  const vault = await tokenVault(t);
  const { db } = vault;
  const ids = (await addCredentials(vault, await makeTeam(vault, 'payments'), 50)).sort();
  const errors: Error[] = [];
  const counter = (): UsageCounter =>
    new UsageCounter({
      db,
      now: Date.now,
      onError: (error) => {
        errors.push(error);
      },
    });
  const counts = async (): Promise<number[]> =>
    (
      await db
        .selectFrom('credential_usage')
        .select('use_count')
        .where('use_count', '>', 0)
        .orderBy('credential_id')
        .execute()
    ).map((row) => row.use_count);

  await t.test('are written every second, and at the stop', async (t) => {
    const running = counter();
    running.start();
    running.count(ids[0] as CredentialId);
    running.count(ids[0] as CredentialId);
    await until(async () => (await counts())[0] === 2);
    running.count(ids[0] as CredentialId);
    await running.stop();
    t.strictSame(await counts(), [3]);
  });

  await t.test('of several replicas add up, in whatever order they came', async (t) => {
    // A large table is joined row by row, in the order of what was counted; a small one would hide
    // that.
    for (const way of ['enable_hashjoin', 'enable_mergejoin'])
      await sql
        .raw(`alter database ${new URL(vault.url).pathname.slice(1)} set ${way} = off`)
        .execute(db);
    const { db: large, close } = openDatabase({
      url: vault.url,
      onError: (error) => {
        errors.push(error);
      },
    });
    t.teardown(close);
    const replicas = Array.from(
      { length: 4 },
      () =>
        new UsageCounter({
          db: large,
          now: Date.now,
          onError: (error) => {
            errors.push(error);
          },
        }),
    );
    await Promise.all(
      replicas.map(async (replica, index) => {
        for (let round = 0; round < 20; round += 1) {
          for (const id of index % 2 === 0 ? ids : [...ids].reverse()) replica.count(id);
          await replica.flush();
        }
      }),
    );
    t.strictSame(await counts(), [83, ...Array.from({ length: 49 }, () => 80)]);
    t.strictSame(errors, []);
  });

  await t.test('wait while they cannot be written', async (t) => {
    const waiting = counter();
    await sql`alter table credential_usage rename to away`.execute(db);
    waiting.count(ids[1] as CredentialId);
    await waiting.flush();
    waiting.count(ids[1] as CredentialId);
    await waiting.flush();
    t.equal(errors.length, 1, 'told once');
    await sql`alter table away rename to credential_usage`.execute(db);
    await waiting.stop();
    t.equal((await counts())[1], 82);
  });

  await t.test('of a credential that is gone are passed over', async (t) => {
    const late = counter();
    late.count(newId<CredentialId>());
    late.count(ids[2] as CredentialId);
    await late.stop();
    t.equal((await counts())[2], 81);
    t.equal(errors.length, 1);
  });
});
