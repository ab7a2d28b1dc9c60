// What stands around a change of a key: how often it is tried, which format the next key has where
// nobody says it, and that no key is destroyed by a server whose clock was never asked.
import { sql } from 'kysely';
import t from 'tap';
import { DecryptionFailed } from '../../src/crypto/index.ts';
import { ClockDiffers } from '../../src/db/clock.ts';
import { keyBusy, withKeyLock } from '../../src/keys/changing.ts';
import { KeyLifeService } from '../../src/keys/life.ts';
import { testDatabase } from '../helpers/database.ts';
import { activeKey, ended, makeTeam, noClaim, tokenVault } from '../helpers/tokens.ts';

const dayMs = 86_400_000;

t.test('a change of a key is tried again only while others are in its way', async (t) => {
  const { db } = await testDatabase(t);
  const attempts = async (
    error: Error,
    until = Infinity,
  ): Promise<{ count: number; thrown: any }> => {
    let count = 0;
    const thrown = await withKeyLock(db, async () => {
      count += 1;
      if (count < until) throw error;
    }).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    return { count, thrown };
  };
  const ofServer = (code: string): Error => Object.assign(new Error('refused'), { code });

  const other = new RangeError('something else');
  t.same(await attempts(other), { count: 1, thrown: other }, 'any other error is its own');
  const unique = ofServer('23505');
  t.same(await attempts(unique), { count: 1, thrown: unique });
  for (const code of ['55P03', '40001', '40P01']) {
    const { count, thrown } = await attempts(ofServer(code));
    t.same([count, thrown.code], [6, 'keyBusy'], code);
    t.same(await attempts(ofServer(code), 3), { count: 3, thrown: undefined }, code);
  }
  const busy = keyBusy();
  t.same(await attempts(busy), { count: 6, thrown: busy });
});

t.test(
  'where the settings do not count, the next key has the format of the last one',
  async (t) => {
    const vault = await tokenVault(t);
    const formatOfNext = async (slug: string, thrown?: Error): Promise<string> => {
      const of = await makeTeam(vault, slug);
      await sql`update team set token_format = 'fernet-256' where slug = ${slug}`.execute(vault.db);
      const { rewrapDataKey } = vault.keyring;
      if (thrown !== undefined)
        vault.keyring.rewrapDataKey = () => {
          throw thrown;
        };
      try {
        await vault.keys.startRotation(of.admin, of.team, noClaim);
      } finally {
        vault.keyring.rewrapDataKey = rewrapDataKey;
      }
      return (await activeKey(vault.db, of.team.id)).format;
    };
    t.equal(await formatOfNext('one'), 'fernet', 'and not what was written past the vault');
    t.equal(await formatOfNext('two', new DecryptionFailed()), 'fernet-256', 'or the stronger one');
    await t.rejects(formatOfNext('three', new RangeError('a fault of ours')), RangeError);
  },
);

t.test('the server that destroys is the one whose clock was asked', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  const { id } = await activeKey(vault.db, of.team.id);
  const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
  vault.worker().start();
  await ended(vault, of.team, rotation.id);
  await vault.life.retireKey(of.admin, of.team, id);
  await vault.life.scheduleDestroy(of.admin, of.team, id, 7);
  vault.time.ms = 7 * dayMs + 60_000;
  const state = async (): Promise<string> => (await vault.keys.getKey(of.team, id)).state;
  const { db, keyring, audit } = vault;
  const life = (answer: (isInside: boolean) => Promise<boolean> | boolean): KeyLifeService =>
    new KeyLifeService({
      db,
      keyring,
      audit,
      now: () => Date.now() + vault.time.ms,
      wake: () => undefined,
      clock: {
        demandAgreement: async (trx: unknown) => {
          if (await answer(trx !== undefined)) throw new ClockDiffers('the clocks differ');
        },
      } as never,
    });
  const scheduledAnew = life(async (isInside) => {
    if (isInside) return false;
    await vault.life.cancelDestroy(of.admin, of.team, id);
    await vault.life.scheduleDestroy(of.admin, of.team, id, 7);
    return false;
  });
  t.equal(await scheduledAnew.destroyDue(), 0, 'a key that waits anew since it was listed stays');
  t.equal(await state(), 'destroyPending');
  vault.time.ms = 15 * dayMs;

  // The two questions are asked of two servers where one lost its place in between.
  await t.rejects(life((isInside) => isInside).destroyDue());
  t.equal(await state(), 'destroyPending', 'asked in the transaction');
  await t.rejects(life((isInside) => !isInside).destroyDue(), { name: 'ClockDiffers' });
  t.equal(await state(), 'destroyPending', 'and before anything is tried');
  t.equal(await life(() => false).destroyDue(), 1);
  t.equal(await state(), 'destroyed');
});
