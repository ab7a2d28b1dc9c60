// How a worker shares its time: rests while requests are answered, not when it is urgent; what is
// urgent goes first.
import t from 'tap';
import { sql } from 'kysely';
import { type Keyring, KeyUnavailable } from '../../src/crypto/index.ts';
import {
  activeKey,
  addCredentials,
  ended,
  eventsOf,
  makeTeam,
  noClaim,
  type TokenVault,
  tokenVault,
} from '../helpers/tokens.ts';
import { until } from '../helpers/processes.ts';

/**
 * Sleeps for no time at all, and remembers for how long it was asked to while batches were being
 * moved.
 */
function clockOf(): { rests: number[]; sleep: (ms: number, signal: AbortSignal) => Promise<void> } {
  const rests: number[] = [];
  return {
    rests,
    sleep: async (ms) => {
      rests.push(ms);
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
    },
  };
}
const pollMs = 12_345; // longer than any rest between batches, so that the two can be told apart
const between = (rests: readonly number[]): number[] =>
  rests.filter((ms) => ms !== pollMs && ms !== 50);

t.test(
  'between batches the worker rests while requests are answered, and not at all otherwise',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 100);
    for (const isBusy of [true, false]) {
      const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
      const { rests, sleep } = clockOf();
      const worker = vault.worker({ batchRows: 10, pollMs, sleep, isForegroundBusy: () => isBusy });
      worker.start();
      t.match(await ended(vault, of.team, rotation.id), { state: 'completed', done: 100 });
      await worker.stop();
      if (!isBusy) t.strictSame(between(rests), []);
      else {
        t.ok(between(rests).length >= 10, `${between(rests).length} rests for ten batches`);
        t.ok(
          between(rests).every((ms) => ms > 0 && ms <= 200),
          'none longer than a fifth of a second',
        );
      }
    }
  },
);

t.test(
  'while requests are answered a worker works for a fifth of the time at the most',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 300);
    const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
    const shares: { worked: number; rested: number }[] = [];
    let since: number | undefined;
    const sleep = async (ms: number): Promise<void> => {
      if (between([ms]).length > 0 && since !== undefined)
        shares.push({ worked: performance.now() - since, rested: ms });
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
      since = between([ms]).length > 0 ? performance.now() : undefined;
    };
    vault.worker({ batchRows: 10, pollMs, sleep, isForegroundBusy: () => true }).start();
    t.match(await ended(vault, of.team, rotation.id), { state: 'completed', done: 300 });
    t.ok(shares.length >= 20, `${shares.length} shares`);
    // What lies between two sleeps is the batch and a little more, which is left a margin of a
    // quarter.
    const fair = shares.filter(({ worked, rested }) => rested === 200 || rested >= 3 * worked);
    t.ok(fair.length >= shares.length * 0.8, `${fair.length} of ${shares.length}`);
  },
);

t.test('the throttle asks before every batch: it begins and ends with the requests', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  await addCredentials(vault, of, 100);
  const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
  const { rests, sleep } = clockOf();
  let asked = 0;
  vault.worker({ batchRows: 10, pollMs, sleep, isForegroundBusy: () => (asked += 1) <= 4 }).start();
  await ended(vault, of.team, rotation.id);
  t.equal(between(rests).length, 4);
});

t.test('a worker that rests holds nothing: no batch is open meanwhile', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  await addCredentials(vault, of, 100);
  const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
  const open: number[] = [];
  const sleep = async (ms: number): Promise<void> => {
    if (between([ms]).length === 0) {
      await new Promise((resolve) => {
        setImmediate(resolve);
      });
      return;
    }
    const { rows } = await sql<{
      n: number;
    }>`select count(*) as n from pg_locks join pg_class on pg_class.oid = relation where relname = 'credential_version' and pid <> pg_backend_pid()
      and database = (select oid from pg_database where datname = current_database())`.execute(
      vault.db,
    );
    open.push(rows[0]!.n);
  };
  vault.worker({ batchRows: 10, pollMs, sleep, isForegroundBusy: () => true }).start();
  t.match(await ended(vault, of.team, rotation.id), { state: 'completed', done: 100 });
  t.strictSame(
    open,
    open.map(() => 0),
  );
  t.ok(open.length >= 10);
});

t.test('a rotation for a compromise does not rest, and goes before the others', async (t) => {
  const vault = await tokenVault(t);
  const [calm, urgent] = [await makeTeam(vault, 'calm'), await makeTeam(vault, 'urgent')];
  for (const each of [calm, urgent]) await addCredentials(vault, each, 60);
  const first = await vault.keys.startRotation(calm.admin, calm.team, noClaim);
  await vault.life.markCompromised(
    urgent.admin,
    urgent.team,
    (await activeKey(vault.db, urgent.team.id)).id,
    'a backup was lost',
  );
  const [{ id: second } = { id: first.id }] = await vault.keys.listRotations(urgent.team, {
    limit: 1,
    after: undefined,
  });
  await sql`create table move (at bigint generated always as identity, team uuid)`.execute(
    vault.db,
  );
  await sql`create function note_move() returns trigger language plpgsql as $$ begin insert into move (team) values (new.team_id); return new; end $$`.execute(
    vault.db,
  );
  await sql`create trigger note_move after update of token on credential_version for each row execute function note_move()`.execute(
    vault.db,
  );
  const { rests, sleep } = clockOf();
  vault.worker({ batchRows: 10, pollMs, sleep, isForegroundBusy: () => true }).start();
  t.match(await ended(vault, urgent.team, second), {
    state: 'completed',
    done: 60,
    cause: 'compromise',
  });
  t.match(await ended(vault, calm.team, first.id), { state: 'completed', done: 60 });
  const { rows } = await sql<{ team: string }>`select team from move order by at`.execute(vault.db);
  t.strictSame(
    rows.map(({ team }) => team),
    [...Array<string>(60).fill(urgent.team.id), ...Array<string>(60).fill(calm.team.id)],
  );
  t.ok(between(rests).length < 12, 'the six batches that were urgent had no rest between them');
});

/** A keyring that lacks the root key of one data key. */
const withoutKey = ({ keyring }: TokenVault, id: string, error: Error): Keyring =>
  Object.assign(Object.create(null), {
    reseal: (...given: Parameters<Keyring['reseal']>) => {
      if (given[0].id === id) throw error;
      return keyring.reseal(...given);
    },
  }) as Keyring;

t.test('an urgent rotation that waits for a root key holds up nobody else', async (t) => {
  const vault = await tokenVault(t);
  const [calm, urgent] = [await makeTeam(vault, 'calm'), await makeTeam(vault, 'urgent')];
  for (const each of [calm, urgent]) await addCredentials(vault, each, 5);
  const lost = await activeKey(vault.db, urgent.team.id);
  await vault.life.markCompromised(urgent.admin, urgent.team, lost.id, 'a backup was lost');
  const rotation = await vault.keys.startRotation(calm.admin, calm.team, noClaim);
  const errors: Error[] = [];
  vault
    .worker({
      keyring: withoutKey(vault, lost.id, new KeyUnavailable(lost.rootFingerprint)),
      onError: (error) => errors.push(error),
    })
    .start();
  t.match(await ended(vault, calm.team, rotation.id), { state: 'completed', done: 5 });
  await until(() => errors.length > 0);
  t.match(errors, [{ message: /waits for root keys/ }]);
});

t.test(
  'marking a key compromised while its rotation is moved: the batch is let go without a complaint, and everything moves to a third key',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 200);
    const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
    const errors: Error[] = [];
    for (let n = 0; n < 2; n += 1)
      vault.worker({ batchRows: 5, onError: (error) => errors.push(error) }).start();
    await until(async () => (await vault.keys.getRotation(of.team, rotation.id)).done > 20);
    await vault.life.markCompromised(of.admin, of.team, rotation.toKey, 'made on a stolen machine');
    t.match(await vault.keys.getRotation(of.team, rotation.id), { state: 'cancelled' });
    const [next] = await vault.keys.listRotations(of.team, { limit: 1, after: undefined });
    t.match(await ended(vault, of.team, next!.id), { state: 'completed', cause: 'compromise' });
    t.match(await vault.keys.listKeys(of.team, { limit: 10, after: undefined }), [
      { state: 'active', rows: 200 },
      { state: 'decryptOnly', rows: 0 },
      { state: 'decryptOnly', rows: 0 },
    ]);
    t.strictSame(errors, []);
    t.equal((await eventsOf(vault.db, of.team.id, 'key.rotationCancel')).length, 1);
  },
);

t.test(
  'a rotation that others started is made urgent by a mark, and is the one that moves',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 3);
    const old = await activeKey(vault.db, of.team.id);
    const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
    await vault.life.markCompromised(of.admin, of.team, old.id, 'a backup was lost');
    t.match(await vault.keys.listRotations(of.team, { limit: 10, after: undefined }), [
      { id: rotation.id, cause: 'compromise', state: 'running' },
    ]);
  },
);
