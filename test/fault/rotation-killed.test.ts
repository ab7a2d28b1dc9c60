// Replicas that die or stop while they move tokens: what was moved is whole, what was not is moved
// by others.
import { sql } from 'kysely';
import t from 'tap';
import type { CredentialId } from '../../src/shared/ids.ts';
import { type Program, runModule, until } from '../helpers/processes.ts';
import {
  activeKey,
  addCredentials,
  allOpenUnderActiveKey,
  countWaiting,
  ended,
  eventsOf,
  makeTeam,
  noClaim,
  tokensOf,
  type TokenVault,
  tokenVault,
} from '../helpers/tokens.ts';

const gate = 4711;
const source = (path: string) => JSON.stringify(new URL(path, import.meta.url).pathname);
const replicaProgram = `
  import { AuditLog } from ${source('../../src/audit/record.ts')};
  import { parseRootKeys } from ${source('../../src/crypto/index.ts')};
  import { openDatabase } from ${source('../../src/db/client.ts')};
  import { openKeyring } from ${source('../../src/keys/system-keys.ts')};
  import { RotationWorker } from ${source('../../src/keys/worker.ts')};
  const onError = (error) => { console.log('error ' + error.message); };
  const { db } = openDatabase({ url: process.argv[1], onError });
  const keyring = await openKeyring({ db, roots: parseRootKeys(process.argv[2]), now: Date.now });
  const audit = new AuditLog({ db, keyring, now: Date.now, onError, onAlarm: onError });
  new RotationWorker({ db, keyring, audit, now: Date.now, onError, batchRows: 40, pollMs: 50 }).start();
  console.log('ready');`;

const replica = (t: Parameters<typeof runModule>[0], vault: TokenVault): Program =>
  runModule(t, replicaProgram, [vault.url, vault.rootKeys]);

/** Makes whoever moves the token stop at the gate, in the middle of its batch. */
async function gateAt(vault: TokenVault, credential: CredentialId): Promise<void> {
  await sql`create function stop_at_gate() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(4711); return new; end $$`.execute(
    vault.db,
  );
  await sql
    .raw(
      `create trigger stop_at_gate after update of token on credential_version for each row when (new.credential_id = '${credential}') execute function stop_at_gate()`,
    )
    .execute(vault.db);
}

/** Closes the gate, brings somebody to it, and runs the action while they stand there. */
async function whileSomebodyIsAtGate(
  { db }: TokenVault,
  bring: () => Promise<unknown>,
  action: () => Promise<unknown>,
): Promise<void> {
  await db.transaction().execute(async (trx) => {
    await sql`select pg_advisory_xact_lock(${gate})`.execute(trx);
    await bring();
    await until(async () => (await countWaiting(db, { object: gate })) > 0);
    await action();
  });
}

t.test(
  'a replica that is killed in the middle of a batch loses nothing, and another finishes its rotation',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    const ids = (await addCredentials(vault, of, 2000)).toSorted();
    await gateAt(vault, ids[1010]!);
    const from = await activeKey(vault.db, of.team.id);
    const first = replica(t, vault);
    await first.printed(/ready/);
    let rotation: Awaited<ReturnType<typeof vault.keys.startRotation>> | undefined;
    const state = () => vault.keys.getRotation(of.team, rotation!.id);
    const underOldKey = async () =>
      (await tokensOf(vault.db, of.team.id)).filter(({ data_key_id: key }) => key === from.id)
        .length;
    await whileSomebodyIsAtGate(
      vault,
      async () => {
        rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
      },
      async () => {
        await until(async () => (await state()).done >= 1000);
        first.child.kill('SIGKILL');
        t.equal(await first.ended, 'SIGKILL');
        // While the batch stands at the gate, the one after it may have gone through.
        const { done } = await state();
        t.match(
          await state(),
          { state: 'running', total: 2000, done: done === 1000 ? 1000 : 1040 },
          'what it had committed stands',
        );
        t.equal(await underOldKey(), 2000 - done);
        const second = replica(t, vault);
        await second.printed(/ready/);
        await until(async () => (await state()).done === 1960);
        t.equal(await underOldKey(), 40, 'the batch that the dead one held is not moved yet');
        t.match(await state(), { state: 'running' });
        t.notMatch(second.output(), /error/);
      },
    );
    t.match(await ended(vault, of.team, rotation!.id), {
      state: 'completed',
      total: 2000,
      done: 2000,
      failed: 0,
    });
    t.ok(await allOpenUnderActiveKey(vault, of.team.id));
    t.match(await vault.life.retireKey(of.admin, of.team, from.id), { state: 'retired', rows: 0 });
    t.equal((await eventsOf(vault.db, of.team.id, 'key.rotationEnd')).length, 1);
  },
);

t.test(
  'replicas share a rotation that one of them started, and its end is told once',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 2000);
    const replicas = [replica(t, vault), replica(t, vault)];
    for (const { printed } of replicas) await printed(/ready/);
    const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
    t.match(await ended(vault, of.team, rotation.id), { state: 'completed', done: 2000 });
    t.ok(await allOpenUnderActiveKey(vault, of.team.id));
    t.equal((await eventsOf(vault.db, of.team.id, 'key.rotationEnd')).length, 1);
    for (const { output } of replicas) t.notMatch(output(), /error/);
  },
);

t.test('a worker that is stopped finishes what it holds and begins no other batch', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  const ids = (await addCredentials(vault, of, 100)).toSorted();
  await gateAt(vault, ids[25]!);
  const worker = vault.worker({ batchRows: 10 });
  worker.start();
  let rotation: Awaited<ReturnType<typeof vault.keys.startRotation>> | undefined;
  let stopped: Promise<void> | undefined;
  let isStopped = false;
  await whileSomebodyIsAtGate(
    vault,
    async () => {
      rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
    },
    async () => {
      stopped = worker.stop().then(() => {
        isStopped = true;
      });
      await until(async () => (await vault.keys.getRotation(of.team, rotation!.id)).done >= 20);
      t.notOk(isStopped, 'it waits for the batch');
    },
  );
  await stopped;
  const { state, done } = await vault.keys.getRotation(of.team, rotation!.id);
  t.equal(state, 'running');
  t.ok(
    done === 30 || done === 40,
    `${done} are moved: the batch at the gate, and one more if it had begun`,
  );
});
