// A credential whose token does not open can be looked at, changed in everything but its value,
// repaired and removed; it breaks no list; and what only seems broken (a root key that is not
// there) marks nothing.
import t from 'tap';
import { sql } from 'kysely';
import { generateRootKey, parseRootKeys } from '../../src/crypto/index.ts';
import { openKeyring } from '../../src/keys/system-keys.ts';
import { intrude } from '../helpers/intruder.ts';
import { openSecrets } from '../helpers/stored.ts';
import { type Answer, startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };

t.test('a credential that does not open', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments');
  let n = 0;
  const broken = async (
    type = 'smtp',
    fields: object = { host: 'mail', username: 'me', password: 'p' },
    more: object = {},
  ): Promise<string> => {
    const {
      json: { id },
    } = await call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: `c${(n += 1)}`,
      type,
      fields,
      ...more,
    });
    await intrude(
      db,
      `update credential_version set token = overlay(token placing 'AAAA' from 60) where credential_id = '${id}'`,
    );
    return id;
  };
  const patch = (id: string, body: object): Promise<Answer> =>
    call('alice', 'PATCH', `/v1/credentials/${id}`, body, any);
  const marks = async (id: string): Promise<number> =>
    (
      await sql<{
        n: number;
      }>`select count(*) as n from credential_version where credential_id = ${id} and undecryptable_at is not null`.execute(
        db,
      )
    ).rows[0]?.n ?? 0;
  const events = async (id: string, reason: string): Promise<number> =>
    (
      await sql<{
        n: number;
      }>`select count(*) as n from audit_event where target_id = ${id} and reason = ${reason}`.execute(
        db,
      )
    ).rows[0]?.n ?? 0;

  t.test(
    'is renamed, labelled, described, dated, disabled, enabled and deleted without being opened',
    async (t) => {
      const id = await broken();
      for (const change of [
        { name: 'renamed' },
        { labels: { a: 'b' } },
        { description: 'x' },
        { expiresAt: '2099-01-01T00:00:00Z' },
      ])
        t.equal((await patch(id, change)).status, 200, JSON.stringify(change));
      t.equal((await call('alice', 'POST', `/v1/credentials/${id}/disable`)).status, 200);
      t.equal((await call('alice', 'POST', `/v1/credentials/${id}/enable`)).status, 200);
      t.equal(await marks(id), 0, 'nobody has tried to open it');
      t.equal((await call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any)).status, 204);
    },
  );

  t.test(
    '409 undecryptable for what would open it; then health shows it, once in the audit log, and a filter finds it',
    async (t) => {
      const id = await broken();
      for (const change of [
        { fields: { username: 'you' } },
        { policy: { delivery: [], allowedHosts: [] } },
        { fields: { username: null }, description: 'lost' },
      ]) {
        const answer = await patch(id, change);
        t.ok(answer.status === 409 || answer.status === 400, JSON.stringify(change));
        if (answer.status === 409) t.equal(answer.json.code, 'undecryptable');
      }
      const custom = await broken('custom', { a: 'A', b: 'B' });
      t.equal(
        (await patch(custom, { fields: { a: 'A2' } })).json.code,
        'undecryptable',
        'a merge of some secrets',
      );
      t.match((await call('alice', 'GET', `/v1/credentials/${id}`)).json, {
        health: 'undecryptable',
        problems: ['undecryptable'],
        version: 1,
        revision: 1,
        description: null,
      });
      t.match(
        (
          await call('alice', 'GET', '/v1/teams/payments/credentials?problem=undecryptable')
        ).json.items
          .map((each: any) => each.id)
          .sort(),
        [id, custom].sort(),
      );
      t.strictSame([await marks(id), await events(id, 'undecryptable')], [1, 1]);
      t.match(
        (await call('alice', 'GET', `/v1/teams/payments/audit-events?target=${id}&decision=deny`))
          .json.items,
        [
          {
            action: 'credential.update',
            reason: 'undecryptable',
            credentialVersion: 1,
            intact: true,
            actor: 'alice',
          },
        ],
      );
      t.match((await call('alice', 'GET', `/v1/credentials/${id}/versions`)).json.items, [
        { isUndecryptable: true },
      ]);
    },
  );

  t.test('is repaired by new values for all secret fields, without being opened', async (t) => {
    const id = await broken(
      'custom',
      { a: 'A', b: 'B', region: 'eu' },
      { publicFieldNames: ['region'] },
    );
    await patch(id, { fields: { a: 'x' } });
    t.equal(await marks(id), 1);
    const repaired = await patch(id, { fields: { a: 'A2', b: 'B2' } });
    t.match(
      [repaired.status, repaired.json],
      [200, { health: 'ok', version: 2, publicFields: { region: 'eu' } }],
    );
    const held = await db
      .selectFrom('credential_version')
      .select('version')
      .where('credential_id', '=', id as never)
      .where('undecryptable_at', 'is', null)
      .execute();
    t.strictSame(held, [{ version: 2 }]);
    await intrude(
      db,
      `delete from credential_version where credential_id = '${id}' and version = 1`,
    );
    t.strictSame(await openSecrets(vault, id), { a: 'A2', b: 'B2' });
    const cleared = await broken('redis', { host: 'r', password: 'p' });
    t.equal(
      (await patch(cleared, { fields: { password: null } })).status,
      200,
      'clearing all of them opens nothing either',
    );
  });

  t.test('breaks no list and no page', async (t) => {
    const { items, nextCursor } = (
      await call('alice', 'GET', '/v1/teams/payments/credentials?limit=200')
    ).json;
    t.ok(items.length >= 4);
    t.equal(nextCursor, null);
  });

  t.test('a token under a key that can open nothing is refused and not marked', async (t) => {
    const id = await broken();
    t.equal((await call('alice', 'POST', '/v1/teams/payments/key-rotations')).status, 202);
    const ofTeam = "team_id = (select id from team where slug = 'payments')";
    await intrude(
      db,
      `update data_key set state = 'retired' where state = 'decryptOnly' and ${ofTeam}`,
    );
    t.match((await patch(id, { fields: { username: 'you' } })).json, { code: 'undecryptable' });
    t.equal(await marks(id), 0);
    await intrude(
      db,
      `update data_key set state = 'decryptOnly' where state = 'retired' and ${ofTeam}`,
    );
  });

  t.test('503 keyUnavailable without the root key, and nothing is marked', async (t) => {
    const {
      json: { id },
    } = await call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: 'fine',
      type: 'smtp',
      fields: { host: 'mail', username: 'me', password: 'p' },
    });
    await intrude(
      db,
      `update data_key set root_fingerprint = 'ffffffffffffffff' where team_id = (select id from team where slug = 'payments')`,
    );
    vault.keyring.forget();
    vault.clock.ms += 61_000; // what is remembered of keys is forgotten
    const answer = await patch(id, { fields: { username: 'you' } });
    t.match([answer.status, answer.json.code], [503, 'keyUnavailable']);
    t.equal((await patch(id, { description: 'still possible' })).status, 200);
    t.equal(
      (
        await call('alice', 'POST', '/v1/teams/payments/credentials', {
          name: 'x',
          type: 'bearer',
          fields: { token: 'x' },
        })
      ).json.code,
      'keyUnavailable',
    );
    t.strictSame([await marks(id), await events(id, 'undecryptable')], [0, 0]);
    await t.rejects(
      openKeyring({ db, roots: parseRootKeys(generateRootKey()), now: Date.now }),
      'another root key starts no vault',
    );
  });
});
