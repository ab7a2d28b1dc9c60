// Starting rotations and retiring keys: one at a time, and only what nothing needs.
import t from 'tap';
import { AppError } from '../../src/shared/errors.ts';
import { type DataKeyId, newId } from '../../src/shared/ids.ts';
import {
  activeKey,
  addCredentials,
  ended,
  eventsOf,
  makeTeam,
  noClaim,
  tokensOf,
  tokenVault,
} from '../helpers/tokens.ts';

t.test(
  'a key in use is not retired, and the answer counts what needs it; at zero it is',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 12);
    const from = await activeKey(vault.db, of.team.id);
    await t.rejects(
      vault.life.retireKey(of.admin, of.team, from.id),
      { code: 'keyStateConflict' },
      'the active key is not retired',
    );
    const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
    await t.rejects(vault.life.retireKey(of.admin, of.team, from.id), {
      code: 'keyInUse',
      details: { rows: { credential_version: 12 } },
    });
    t.match(await vault.keys.getKey(of.team, from.id), { state: 'decryptOnly', rows: 12 });
    vault.worker().start();
    await ended(vault, of.team, rotation.id);
    const retired = await vault.life.retireKey(of.admin, of.team, from.id);
    t.match(retired, {
      id: from.id,
      version: 1,
      state: 'retired',
      rows: 0,
      retiredAt: Date,
      demotedAt: Date,
    });
    t.strictSame(await vault.keys.getKey(of.team, from.id), retired);
    t.match(await eventsOf(vault.db, of.team.id, 'key.retire'), [
      { target: from.id, key: from.id, actor: of.admin.subject },
    ]);
    await t.rejects(
      vault.life.retireKey(of.admin, of.team, from.id),
      { code: 'keyStateConflict' },
      'not twice',
    );
    t.equal((await tokensOf(vault.db, of.team.id)).length, 12);
  },
);

t.test(
  'the database itself refuses to retire a key in use, to skip a state and to go back',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 1);
    const from = await activeKey(vault.db, of.team.id);
    const refusal = (state: 'active' | 'decryptOnly' | 'retired') =>
      vault.db
        .updateTable('data_key')
        .set({ state })
        .where('id', '=', from.id)
        .execute()
        .then(
          () => 'done',
          (error: { constraint?: string }) => error.constraint,
        );
    t.equal(await refusal('retired'), 'data_key_state_machine');
    await vault.keys.startRotation(of.admin, of.team, noClaim);
    t.equal(await refusal('retired'), 'data_key_in_use');
    t.equal(await refusal('active'), 'data_key_state_machine');
  },
);

t.test('keys and rotations of another team do not exist', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  const other = await makeTeam(vault, 'other');
  const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
  for (const id of [rotation.toKey, newId<DataKeyId>()]) {
    await t.rejects(vault.keys.getKey(other.team, id), { code: 'notFound' });
    await t.rejects(vault.life.retireKey(other.admin, other.team, id), { code: 'notFound' });
  }
  await t.rejects(vault.keys.getRotation(other.team, rotation.id), { code: 'notFound' });
  t.strictSame(await vault.keys.listRotations(other.team, { limit: 10, after: undefined }), []);
  t.equal((await vault.keys.listKeys(other.team, { limit: 10, after: undefined })).length, 1);
});

t.test(
  'of rotations that are started at once, one starts and the others are told its id',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 3);
    const started = await Promise.all(
      Array.from({ length: 8 }, () =>
        vault.keys.startRotation(of.admin, of.team, noClaim).catch((error: unknown) => error),
      ),
    );
    const [winner, ...more] = started.filter((answer) => !(answer instanceof Error)) as {
      id: string;
    }[];
    t.equal(more.length, 0);
    const refused = started.filter((answer) => answer instanceof AppError);
    t.equal(refused.length, 7);
    for (const error of refused)
      t.match(error, { code: 'rotationRunning', details: { rotationId: winner!.id } });
    t.equal(
      (await vault.keys.listKeys(of.team, { limit: 10, after: undefined })).length,
      2,
      'no key is left behind',
    );
    t.equal((await eventsOf(vault.db, of.team.id, 'key.rotate')).length, 1);
  },
);

t.test('keys and rotations are listed newest first, in pages', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  vault.worker().start();
  for (let times = 0; times < 4; times += 1)
    await ended(vault, of.team, (await vault.keys.startRotation(of.admin, of.team, noClaim)).id);
  const versions = async (limit: number, after?: string) =>
    (
      await vault.keys.listKeys(of.team, {
        limit,
        after: after === undefined ? undefined : [after],
      })
    ).map(({ version }) => version);
  t.strictSame(await versions(10), [5, 4, 3, 2, 1]);
  t.strictSame(await versions(1), [5, 4], 'one more than the page');
  t.strictSame(await versions(1, '4'), [3, 2]);
  const all = await vault.keys.listRotations(of.team, { limit: 10, after: undefined });
  t.strictSame(
    all.map(({ id }) => id),
    all
      .map(({ id }) => id)
      .toSorted()
      .toReversed(),
  );
  t.strictSame(
    await vault.keys.listRotations(of.team, { limit: 1, after: [all[1]!.id] }),
    all.slice(2, 4),
  );
});
