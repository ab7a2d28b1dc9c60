// Root keys over the whole app: several at once, rewrapping, a compromised one and what follows,
// the operator's counts.
import t from 'tap';
import { generateRootKey, parseRootKeys } from '../../src/crypto/index.ts';
import { openKeyring, RootKeyMissing } from '../../src/keys/system-keys.ts';
import { testDatabase } from '../helpers/database.ts';
import { until } from '../helpers/processes.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const minute = 60_000;
const store = async (vault: TestVault, team: string, name: string): Promise<string> =>
  (
    await vault.call('alice', 'POST', `/v1/teams/${team}/credentials`, {
      name,
      type: 'openai',
      fields: { apiKey: `key of ${name}` },
    })
  ).json.id;

t.test(
  'everything is rewrapped under the root key that was put first, and the old one can go',
  async (t) => {
    const database = await testDatabase(t);
    const [old, fresh] = [generateRootKey(), generateRootKey()];
    const before = await startVault(t, { database, rootKey: old });
    await before.team('payments');
    await before.team('support');
    const id = await store(before, 'payments', 'one');
    const vault = await startVault(t, { database, rootKey: `${fresh},${old}` });
    const [freshPrint, oldPrint] = parseRootKeys(`${fresh},${old}`).fingerprints;
    t.match((await vault.call('operator', 'GET', '/v1/root-keys')).json.items, [
      { fingerprint: oldPrint, isConfigured: true, isPrimary: false, dataKeys: 2, systemKeys: 5 },
      { fingerprint: freshPrint, isConfigured: true, isPrimary: true, dataKeys: 0, systemKeys: 0 },
    ]);
    await t.rejects(
      openKeyring({ db: vault.db, roots: parseRootKeys(fresh), now: Date.now }),
      RootKeyMissing,
    );
    await t.rejects(
      openKeyring({ db: vault.db, roots: parseRootKeys(fresh), now: Date.now }),
      { message: new RegExp(oldPrint ?? '') },
      'the one that is needed is named',
    );
    const tokens = await vault.db.selectFrom('credential_version').select('token').execute();
    t.match(await vault.call('operator', 'POST', '/v1/root-key-rotations'), {
      status: 200,
      json: { primary: freshPrint, dataKeys: 2, systemKeys: 5 },
    });
    t.match(
      await vault.call('operator', 'POST', '/v1/root-key-rotations'),
      { status: 200, json: { dataKeys: 0, systemKeys: 0 } },
      'a second time there is nothing to do',
    );
    t.strictSame(
      await vault.db.selectFrom('credential_version').select('token').execute(),
      tokens,
      'no token is touched',
    );
    const after = await startVault(t, { database, rootKey: fresh });
    t.equal(
      (
        await after.call(
          'alice',
          'PATCH',
          `/v1/credentials/${id}`,
          { fields: { baseUrl: 'https://api.openai.com' }, description: 'still whole' },
          { 'if-match': '*' },
        )
      ).status,
      200,
    );
    t.match(
      (await after.call('alice', 'GET', '/v1/teams/payments/audit-events')).json.items.map(
        (each: { intact: boolean }) => each.intact,
      ),
      [true],
    );
  },
);

t.test("root keys are the operator's, and only fingerprints are said", async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  const [fingerprint] = parseRootKeys(vault.rootKey).fingerprints;
  for (const [method, url, body] of [
    ['GET', '/v1/root-keys'],
    ['POST', '/v1/root-key-rotations'],
    ['GET', '/v1/status'],
    ['POST', `/v1/root-keys/${fingerprint}/mark-compromised`, { reason: 'x' }],
  ] as const) {
    t.equal((await vault.call('alice', method, url, body)).status, 403);
    t.equal((await vault.call(null, method, url, body)).status, 401);
  }
  t.match(
    await vault.call('operator', 'POST', `/v1/root-keys/${fingerprint}/mark-compromised`, {
      reason: 'x',
    }),
    { status: 409, json: { code: 'stateConflict' } },
    'not the primary one',
  );
  t.equal(
    (
      await vault.call('operator', 'POST', '/v1/root-keys/0123456789abcdef/mark-compromised', {
        reason: 'x',
      })
    ).status,
    404,
  );
  t.notOk(vault.answers.some((answer) => answer.includes(vault.rootKey)));
});

t.test(
  'a compromised root key: every key it ever wrapped is marked, every team rotates, new system keys take over without a gap',
  async (t) => {
    const database = await testDatabase(t);
    const [old, fresh] = [generateRootKey(), generateRootKey()];
    const before = await startVault(t, { database, rootKey: old });
    await before.team('payments');
    await before.team('support');
    const id = await store(before, 'payments', 'one');
    await store(before, 'support', 'two');
    const vault = await startVault(t, { database, rootKey: `${fresh},${old}` });
    const oldPrint = parseRootKeys(old).fingerprints[0] ?? '';
    t.equal((await vault.call('operator', 'POST', '/v1/root-key-rotations')).status, 200);
    await vault.team('later');
    t.match(
      await vault.call('operator', 'POST', `/v1/root-keys/${oldPrint}/mark-compromised`, {
        reason: 'stolen',
      }),
      { status: 200, json: { keys: 2, teams: 2 } },
      'wrapped anew or not, they were under it',
    );
    t.match(
      await vault.call('operator', 'POST', `/v1/root-keys/${oldPrint}/mark-compromised`, {
        reason: 'stolen',
      }),
      { status: 409 },
    );
    vault.start();
    for (const team of ['payments', 'support']) {
      await until(async () => {
        const { json } = await vault.call('alice', 'GET', `/v1/teams/${team}/keys`);
        return json.items.length === 2 && json.items[0].rows === 1 && json.items[1].rows === 0;
      });
      t.match((await vault.call('alice', 'GET', `/v1/teams/${team}/key-rotations`)).json.items, [
        { cause: 'rootCompromise' },
      ]);
    }
    t.equal(
      (await vault.call('alice', 'GET', '/v1/teams/later/keys')).json.items.length,
      1,
      'a team whose key it never wrapped is left alone',
    );
    t.strictSame((await vault.call('alice', 'GET', `/v1/credentials/${id}`)).json.problems, [
      'exposed',
    ]);

    const kids = async (): Promise<string[]> =>
      (await vault.call(null, 'GET', '/.well-known/jwks.json')).json.keys.map(
        (key: { kid: string }) => key.kid,
      );
    const { SystemKeyKeeper } = await import('../../src/keys/system-key-keeper.ts');
    const { resealAll } = await import('../../src/integrity/reseal.ts');
    const keeper = new SystemKeyKeeper({
      db: vault.db,
      keyring: vault.keyring,
      clock: vault.databaseClock,
      onError: (error) => {
        throw error;
      },
      reseal: (isStopping) => resealAll(vault.db, vault.keyring, isStopping),
    });
    const signer = vault.keyring.leaseKeyId();
    await keeper.run();
    t.equal((await kids()).length, 2, 'the next lease-signing key is published before it signs');
    t.equal(vault.keyring.leaseKeyId(), signer);
    t.equal(vault.keyring.sealVersion(), 1);
    vault.clock.ms += 3 * minute;
    await keeper.run();
    t.equal(vault.keyring.sealVersion(), 2);
    const { rows } = await vault.db
      .selectFrom('membership')
      .select((eb) => eb.fn.countAll<number>().as('rows'))
      .where('seal', 'is not', null)
      .executeTakeFirstOrThrow();
    t.equal(rows, 3);
    for (const table of ['membership', 'credential'] as const) {
      t.ok(
        (await vault.db.selectFrom(table).select('seal').execute()).every(
          ({ seal }) => seal.readUInt16BE() === 2,
        ),
        `${table} is sealed anew`,
      );
    }
    t.equal((await vault.call('alice', 'GET', `/v1/credentials/${id}`)).status, 200);
    vault.clock.ms += 15 * minute;
    await keeper.run();
    t.not(vault.keyring.leaseKeyId(), signer);
    t.equal((await kids()).length, 2, 'the one before is still published');
    t.strictSame(
      await vault.db
        .selectFrom('system_key')
        .select(['purpose', 'version'])
        .where('retired_at', 'is not', null)
        .execute(),
      [{ purpose: 'rowSeal', version: 1 }],
      'a seal key that somebody knows verifies nothing any more',
    );
    t.equal((await vault.call('alice', 'GET', '/v1/teams')).json.items.length, 3);
    vault.clock.ms += 25 * 60 * minute;
    await keeper.run();
    t.equal((await kids()).length, 1, 'a day after its last use it is gone');
  },
);
