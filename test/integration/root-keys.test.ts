// Root keys over the whole app: several at once, rewrapping, a compromised one and what follows,
// the operator's counts.
import { sql } from 'kysely';
import t from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { generateRootKey, parseRootKeys } from '../../src/crypto/index.ts';
import { Subjects } from '../../src/db/subjects.ts';
import { openKeyring, RootKeyMissing } from '../../src/keys/system-keys.ts';
import { RootKeysService } from '../../src/root-keys/service.ts';
import { testDatabase } from '../helpers/database.ts';
import { intrude } from '../helpers/intruder.ts';
import { until } from '../helpers/processes.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const minute = 60_000;
const byId = (a: { id: string }, b: { id: string }): number => (a.id < b.id ? -1 : 1);
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

t.test('a key that does not unwrap is passed over and named, and all others move', async (t) => {
  const database = await testDatabase(t);
  const [old, fresh] = [generateRootKey(), generateRootKey()];
  const before = await startVault(t, { database, rootKey: old });
  for (const team of ['payments', 'support', 'sales']) await before.team(team);
  const vault = await startVault(t, { database, rootKey: `${fresh},${old}` });
  const { call, db } = vault;
  const [freshPrint, oldPrint] = parseRootKeys(`${fresh},${old}`).fingerprints;
  const keyOf = async (slug: string): Promise<string> =>
    (
      await db
        .selectFrom('data_key')
        .innerJoin('team', 'team.id', 'data_key.team_id')
        .select('data_key.id')
        .where('slug', '=', slug)
        .executeTakeFirstOrThrow()
    ).id;
  const [support, sales] = [await keyOf('support'), await keyOf('sales')];
  const { id: cursorKey } = await db
    .selectFrom('system_key')
    .select('id')
    .where('purpose', '=', 'cursor')
    .executeTakeFirstOrThrow();
  const flip = 'set wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1)';
  await intrude(
    db,
    `update data_key ${flip} where id = '${support}'`,
    `insert into root_key (fingerprint, canary) values ('0123456789abcdef', '\\x00')`,
    `update data_key set root_fingerprint = '0123456789abcdef' where id = '${sales}'`,
    `update system_key ${flip} where id = '${cursorKey}'`,
  );
  const failures = [
    {
      kind: 'dataKey',
      id: sales,
      team: 'sales',
      rootKey: '0123456789abcdef',
      reason: 'rootKeyMissing',
    },
    { kind: 'dataKey', id: support, team: 'support', rootKey: oldPrint, reason: 'damaged' },
    { kind: 'systemKey', id: cursorKey, team: null, rootKey: oldPrint, reason: 'damaged' },
  ];
  const answer = await call('operator', 'POST', '/v1/root-key-rotations');
  t.equal(answer.status, 200);
  t.strictSame(
    { ...answer.json, failures: answer.json.failures.toSorted(byId) },
    {
      primary: freshPrint,
      dataKeys: 1,
      systemKeys: 4,
      failed: 3,
      failures: failures.toSorted(byId),
    },
  );
  t.match(
    vault.logs
      .map((line) => JSON.parse(line))
      .filter(({ event }) => event === 'keyNotRewrapped')
      .toSorted(byId),
    failures.toSorted(byId),
    'the log names them',
  );
  for (const [slug, key, reason] of [
    ['support', support, 'damaged'],
    ['sales', sales, 'rootKeyMissing'],
  ] as const)
    t.match(
      (await call('alice', 'GET', `/v1/teams/${slug}/audit-events?action=key.rewrap`)).json.items,
      [
        {
          actor: 'operator',
          action: 'key.rewrap',
          decision: 'deny',
          reason,
          target: { type: 'key', id: key },
          intact: true,
        },
      ],
      `so does the audit log of ${slug}`,
    );
  t.match(
    (await call('alice', 'GET', '/v1/teams/payments/audit-events?action=key.rewrap')).json.items,
    [],
    'and of nobody else',
  );
  const { rows: events } = await sql<{ action: string; details: object; reason: string | null }>`
    select action, details, reason from audit_event where team_id is null and action <> 'team.create' order by at, id`.execute(
    db,
  );
  t.match(
    events.filter(({ action }) => action === 'systemKey.rewrap'),
    [{ details: { purpose: 'cursor', version: 1 }, reason: 'damaged' }],
  );
  const { rows: under } = await sql<{ slug: string; root: string }>`
    select slug, root_fingerprint as root from data_key join team on team.id = team_id order by slug`.execute(
    db,
  );
  t.strictSame(under, [
    { slug: 'payments', root: freshPrint },
    { slug: 'sales', root: '0123456789abcdef' },
    { slug: 'support', root: oldPrint },
  ]);
  t.ok(await store(vault, 'payments', 'goes on'));
  await intrude(
    db,
    `update data_key ${flip} where id = '${support}'`,
    `update data_key set root_fingerprint = '${oldPrint}' where id = '${sales}'`,
    `update system_key ${flip} where id = '${cursorKey}'`,
  );
  t.match(
    await call('operator', 'POST', '/v1/root-key-rotations'),
    { status: 200, json: { dataKeys: 2, systemKeys: 1, failed: 0, failures: [] } },
    'what was mended moves the next time',
  );
});

t.test('each batch commits with its event, or neither does', async (t) => {
  const database = await testDatabase(t);
  const [old, fresh] = [generateRootKey(), generateRootKey()];
  const before = await startVault(t, { database, rootKey: old });
  for (let n = 0; n < 7; n += 1) await before.team(`team-${n}`);
  const { db, keyring } = await startVault(t, { database, rootKey: `${fresh},${old}` });
  const roots = parseRootKeys(`${fresh},${old}`);
  const service = new RootKeysService({
    db,
    keyring,
    audit: new AuditLog({
      db,
      keyring,
      now: Date.now,
      onError: raise,
      onAlarm: () => undefined,
    }),
    now: Date.now,
    configured: roots.fingerprints,
    insertNextSystemKeys: async () => undefined,
    onMarked: () => undefined,
    onUnwrapped: raise,
    batchKeys: 2,
  });
  const caller = {
    sub: 'operator',
    subject: await new Subjects().ensure(db, 'operator'),
    isOperator: true,
    requestId: 'a-test',
    address: null,
  };
  const moved = async (): Promise<number> =>
    (await sql`select 1 from data_key where root_fingerprint = ${roots.primary}`.execute(db)).rows
      .length;
  const told = async (): Promise<number[]> =>
    (
      await sql<{
        keys: number;
      }>`select (details ->> 'dataKeys')::int as keys from audit_event where action = 'rootKey.rotate' order by at, id`.execute(
        db,
      )
    ).rows.map(({ keys }) => keys);
  await sql
    .raw(
      `create function two_only() returns trigger language plpgsql as $$
      begin
        if new.action = 'rootKey.rotate' and (select count(*) from audit_event where action = 'rootKey.rotate') >= 2 then raise exception 'no more'; end if;
        return new;
      end $$;
      create trigger two_only before insert on audit_event for each row execute function two_only()`,
    )
    .execute(db);
  await t.rejects(service.rewrap(caller));
  t.strictSame(await told(), [2, 2]);
  t.equal(await moved(), 4, 'what has no event is not moved');
  await sql`drop trigger two_only on audit_event`.execute(db);
  await sql
    .raw(
      `create function no_commit() returns trigger language plpgsql as $$ begin raise exception 'no commit today'; end $$;
      create constraint trigger no_commit after update on data_key deferrable initially deferred for each row execute function no_commit()`,
    )
    .execute(db);
  await t.rejects(service.rewrap(caller));
  t.strictSame(await told(), [2, 2], 'what is not moved has no event');
  await sql`drop trigger no_commit on data_key`.execute(db);
  t.match(await service.rewrap(caller), { dataKeys: 3, systemKeys: 5, failed: 0 });
  t.strictSame(await told(), [2, 2, 2, 1, 0], 'and the last one for the system keys');
  t.equal(await moved(), 7);
});

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
    const { recomputeRowMacs } = await import('../../src/integrity/recompute-row-macs.ts');
    const keeper = new SystemKeyKeeper({
      db: vault.db,
      keyring: vault.keyring,
      clock: vault.databaseClock,
      onError: (error) => {
        throw error;
      },
      audit: new AuditLog({
        db: vault.db,
        keyring: vault.keyring,
        now: vault.databaseClock.now,
        onError: () => undefined,
        onAlarm: () => undefined,
      }),
      reseal: (isStopping) => recomputeRowMacs(vault.db, vault.keyring, isStopping),
      takeOver: () => Promise.resolve(0),
    });
    const signer = vault.keyring.leaseKeyId();
    await keeper.run();
    t.equal((await kids()).length, 2, 'the next lease-signing key is published before it signs');
    t.equal(vault.keyring.leaseKeyId(), signer);
    t.equal(vault.keyring.rowMacVersion(), 1);
    vault.clock.ms += 3 * minute;
    await keeper.run();
    t.equal(vault.keyring.rowMacVersion(), 2);
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
      'a row MAC key that somebody knows verifies nothing any more',
    );
    t.equal((await vault.call('alice', 'GET', '/v1/teams')).json.items.length, 3);
    vault.clock.ms += 25 * 60 * minute;
    await keeper.run();
    t.equal((await kids()).length, 1, 'a day after its last use it is gone');
  },
);

function raise(error: unknown): never {
  throw error;
}
