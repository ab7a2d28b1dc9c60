// The remembered active key gives no leave: what is stored after a rotation is under the new key,
// also by a replica that was not told.
import t from 'tap';
import { tokensOf } from '../helpers/tokens.ts';
import { startVault } from '../helpers/vault.ts';

t.test('a credential stored after a rotation is under the new key, in every replica', async (t) => {
  const one = await startVault(t);
  const other = await startVault(t, {
    database: { url: one.databaseUrl, db: one.db },
    rootKey: one.rootKey,
  });
  await one.team('payments');
  const store = async (
    vault: typeof one,
    name: string,
    headers: Record<string, string> = {},
  ): Promise<string> => {
    const answer = await vault.call(
      'alice',
      'POST',
      '/v1/teams/payments/credentials',
      { name, type: 'bearer', fields: { token: 'x' } },
      headers,
    );
    t.equal(answer.status, 201, answer.text);
    return answer.json.id;
  };
  for (const vault of [one, other]) await store(vault, `before-${vault === one ? 'one' : 'other'}`);
  const { json: rotation } = await one.call('alice', 'POST', '/v1/teams/payments/key-rotations');
  const stored = [
    await store(one, 'after-one'),
    await store(other, 'after-other'),
    await store(other, 'again-other', { 'idempotency-key': 'again' }),
  ];
  const { id: team } = await one.db
    .selectFrom('team')
    .select('id')
    .where('slug', '=', 'payments')
    .executeTakeFirstOrThrow();
  const keys = new Map(
    (await tokensOf(one.db, team)).map(({ credential, data_key_id: key }) => [
      credential as string,
      key as string,
    ]),
  );
  t.same(
    stored.map((id) => keys.get(id)),
    stored.map(() => rotation.toKey),
  );

  t.test('with an idempotency key too, when the rotation came just before', async (t) => {
    for (const table of ['key_rotation'] as const)
      await one.db.updateTable(table).set({ state: 'cancelled', ended_at: new Date() }).execute();
    const again = await one.call('alice', 'POST', '/v1/teams/payments/key-rotations');
    t.equal(again.status, 202, again.text);
    const id = await store(other, 'last-other', { 'idempotency-key': 'last' });
    t.equal(
      (await tokensOf(one.db, team)).find(({ credential }) => credential === id)?.data_key_id,
      again.json.toKey,
    );
  });
});
