// The guard of a key is a race between who writes a token and who takes the key away. Each
// interleaving is fixed by locks that the test holds, and the last test takes the guard's lock out
// to show that the row would land.
import { sql } from 'kysely';
import t from 'tap';
import type { Db } from '../../src/db/client.ts';
import { isCheckViolation } from '../../src/db/errors.ts';
import type { WrappedDataKey } from '../../src/crypto/index.ts';
import { until } from '../helpers/processes.ts';
import {
  activeKey,
  addCredentials,
  allOpenUnderActiveKey,
  countWaiting,
  ended,
  insertCredentials,
  makeTeam,
  noClaim,
  type TeamOfTest,
  tokensOf,
  type TokenVault,
  tokenVault,
} from '../helpers/tokens.ts';

const gate = 4711;

const queueing = 'perform pg_advisory_xact_lock_shared(data_key_queue(new.data_key_id));';
const locking = 'for key share';
const returning = 'return new;';

/**
 * Makes the real trigger stop at the gate after its check, for transactions that ask for it; what
 * is to be left out of it is left out.
 */
async function stopWritersAtGate(
  db: Db,
  { without = [] }: { without?: readonly string[] } = {},
): Promise<void> {
  const {
    rows: [row],
  } = await sql<{
    text: string;
  }>`select pg_get_functiondef('token_needs_active_key'::regproc) as text`.execute(db);
  let text = row?.text ?? '';
  for (const part of [queueing, locking, returning])
    if (text.split(part).length !== 2) throw new Error('the trigger is not as this test knows it');
  for (const part of without) text = text.replace(part, '');
  await sql
    .raw(
      text.replace(
        returning,
        `if current_setting('test.gate', true) = 'on' then perform pg_advisory_xact_lock_shared(${gate}); end if; return new;`,
      ),
    )
    .execute(db);
}

/** A writer who read the active key and whose insert has passed the check but not ended. */
async function writerAtGate(
  vault: TokenVault,
  of: TeamOfTest,
  key: WrappedDataKey,
): Promise<{ written: Promise<unknown> }> {
  const written = vault.db.transaction().execute(async (trx) => {
    await sql`set local test.gate = 'on'`.execute(trx);
    return insertCredentials(trx, vault.keyring, of, { n: 1, key });
  });
  written.catch(() => undefined);
  await until(async () => (await countWaiting(vault.db, { object: gate })) === 1);
  return { written };
}

/** Runs the action while the gate is closed. */
async function whileGateIsClosed<T>({ db }: TokenVault, action: () => Promise<T>): Promise<T> {
  return db.transaction().execute(async (trx) => {
    await sql`select pg_advisory_xact_lock(${gate})`.execute(trx);
    return action();
  });
}

/** Whether so many wait for a lock. */
const isSomebodyWaiting = async (db: Db, many = 1) => (await countWaiting(db)) >= many;

for (const without of [[], [queueing]])
  t.test(
    `a rotation waits for a writer who has the key, and counts and moves what he wrote${without.length === 0 ? '' : ', with the row lock alone'}`,
    async (t) => {
      const vault = await tokenVault(t);
      const of = await makeTeam(vault, 'payments');
      await addCredentials(vault, of, 3);
      await stopWritersAtGate(vault.db, { without });
      if (without.length > 0)
        await sql`alter table data_key disable trigger data_key_state_machine`.execute(vault.db); // it locks the row too
      const key = await activeKey(vault.db, of.team.id);
      const { written, started } = await whileGateIsClosed(vault, async () => {
        const writer = await writerAtGate(vault, of, key);
        const starting = vault.keys.startRotation(of.admin, of.team, noClaim);
        await until(() => isSomebodyWaiting(vault.db, 2));
        return { ...writer, started: starting };
      });
      await written;
      const rotation = await started;
      t.equal(rotation.total, 4, 'the last row under the old key is counted');
      vault.worker().start();
      t.match(await ended(vault, of.team, rotation.id), { state: 'completed', done: 4 });
      t.match(await vault.life.retireKey(of.admin, of.team, key.id), { state: 'retired' });
      t.ok(await allOpenUnderActiveKey(vault, of.team.id));
    },
  );

t.test(
  'a writer who does not let go makes the rotation give up, with nothing changed',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await stopWritersAtGate(vault.db);
    const key = await activeKey(vault.db, of.team.id);
    const { written } = await whileGateIsClosed(vault, async () => {
      const writer = await writerAtGate(vault, of, key);
      await t.rejects(vault.keys.startRotation(of.admin, of.team, noClaim), {
        code: 'keyBusy',
        retryAfterSeconds: 1,
      });
      t.strictSame(await vault.keys.listRotations(of.team, { limit: 10, after: undefined }), []);
      t.match(await vault.keys.listKeys(of.team, { limit: 10, after: undefined }), [
        { id: key.id, state: 'active', rows: 0 },
      ]);
      return writer;
    });
    await written;
    t.equal((await vault.keys.startRotation(of.admin, of.team, noClaim)).total, 1);
  },
);

t.test('a writer who comes after the demotion is refused under the old key', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  const key = await activeKey(vault.db, of.team.id);
  await vault.keys.startRotation(of.admin, of.team, noClaim);
  const error: unknown = await vault.db
    .transaction()
    .execute((trx) => insertCredentials(trx, vault.keyring, of, { n: 1, key }))
    .catch((thrown: unknown) => thrown);
  t.ok(isCheckViolation(error, 'token_needs_active_key'));
});

t.test('a writer who waits for a demotion is refused when it commits', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  const key = await activeKey(vault.db, of.team.id);
  let outcome: Promise<unknown> | undefined;
  await vault.db.transaction().execute(async (trx) => {
    await sql`select 1 from data_key where id = ${key.id} for update`.execute(trx);
    outcome = vault.db
      .transaction()
      .execute((writer) => insertCredentials(writer, vault.keyring, of, { n: 1, key }))
      .catch((thrown: unknown) => thrown);
    await until(() => isSomebodyWaiting(vault.db));
    await sql`update data_key set state = 'decryptOnly' where id = ${key.id}`.execute(trx);
  });
  t.ok(isCheckViolation(await outcome, 'token_needs_active_key'));
});

for (const trigger of ['enable', 'disable'])
  t.test(
    `retiring waits for whoever holds the key, and gives up when he does not let go (its trigger: ${trigger}d)`,
    async (t) => {
      const vault = await tokenVault(t);
      const of = await makeTeam(vault, 'payments');
      await sql
        .raw(`alter table data_key ${trigger} trigger data_key_state_machine`)
        .execute(vault.db);
      const key = await activeKey(vault.db, of.team.id);
      vault.worker().start();
      await ended(vault, of.team, (await vault.keys.startRotation(of.admin, of.team, noClaim)).id);
      await vault.db.transaction().execute(async (trx) => {
        await sql`select 1 from data_key where id = ${key.id} for key share`.execute(trx);
        await t.rejects(vault.life.retireKey(of.admin, of.team, key.id), { code: 'keyBusy' });
        t.match(await vault.keys.getKey(of.team, key.id), { state: 'decryptOnly' });
      });
      let retired: Promise<unknown> | undefined;
      await vault.db.transaction().execute(async (trx) => {
        await sql`select 1 from data_key where id = ${key.id} for key share`.execute(trx);
        retired = vault.life.retireKey(of.admin, of.team, key.id);
        await until(() => isSomebodyWaiting(vault.db));
      });
      t.match(await retired, { state: 'retired' });
    },
  );

t.test(
  'writers who never pause do not keep a rotation from starting, and none of their rows stays behind',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    let isOver = false;
    let written = 0;
    const writers = Array.from({ length: 5 }, async () => {
      while (!isOver) {
        try {
          await vault.db.transaction().execute(async (trx) =>
            insertCredentials(trx, vault.keyring, of, {
              n: 1,
              key: await activeKey(trx, of.team.id),
            }),
          );
          written += 1;
        } catch (error) {
          if (!isCheckViolation(error, 'token_needs_active_key')) throw error;
        }
      }
    });
    vault.worker().start();
    await until(() => written > 50);
    for (let times = 0; times < 5; times += 1) {
      const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
      const before = written;
      await until(() => written > before + 20);
      t.match(await ended(vault, of.team, rotation.id), { state: 'completed', failed: 0 });
    }
    isOver = true;
    await Promise.all(writers);
    t.equal((await tokensOf(vault.db, of.team.id)).length, written);
    t.ok(await allOpenUnderActiveKey(vault, of.team.id));
    const [, ...old] = await vault.keys.listKeys(of.team, { limit: 10, after: undefined });
    for (const key of old)
      t.match(await vault.life.retireKey(of.admin, of.team, key.id), { state: 'retired' });
  },
);

t.test('writers who overlap without a gap do not keep a rotation from starting', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  const key = await activeKey(vault.db, of.team.id);
  const openWriter = () => {
    const [inserted, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    let isInserted = false;
    const ended = vault.db
      .transaction()
      .execute(async (trx) => {
        await insertCredentials(trx, vault.keyring, of, { n: 1, key });
        isInserted = true;
        inserted.resolve();
        await released.promise;
      })
      .catch((error: unknown) => {
        if (!isCheckViolation(error, 'token_needs_active_key')) throw error;
      });
    return {
      inserted: inserted.promise,
      isInserted: () => isInserted,
      end: async () => {
        released.resolve();
        await ended;
      },
    };
  };
  let holder = openWriter();
  await holder.inserted;
  let isStarted = false;
  const starting = vault.keys.startRotation(of.admin, of.team, noClaim).finally(() => {
    isStarted = true;
  });
  await until(() => isSomebodyWaiting(vault.db));
  for (let turns = 0; turns < 100 && !isStarted; turns += 1) {
    const next = openWriter();
    await until(async () => isStarted || next.isInserted() || (await countWaiting(vault.db)) === 2);
    await holder.end();
    holder = next;
  }
  t.ok(isStarted, 'the one who came after it let the rotation go first');
  await holder.end();
  t.equal((await starting).total, (await tokensOf(vault.db, of.team.id)).length);
});

t.test('control: without the locks of the trigger the row lands under a retired key', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  await addCredentials(vault, of, 3);
  await stopWritersAtGate(vault.db, { without: [queueing, locking] });
  const key = await activeKey(vault.db, of.team.id);
  const { written } = await whileGateIsClosed(vault, async () => {
    const writer = await writerAtGate(vault, of, key);
    vault.worker().start();
    const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
    t.match(await ended(vault, of.team, rotation.id), { state: 'completed', total: 3 });
    t.match(await vault.life.retireKey(of.admin, of.team, key.id), { state: 'retired' });
    return writer;
  });
  await written;
  t.match(
    await vault.keys.getKey(of.team, key.id),
    { state: 'retired', rows: 1 },
    'this is what they prevent',
  );
});
