// The start: root keys are checked against the database before anything is written, and the vault's
// own keys are made once.
import { sql } from 'kysely';
import t from 'tap';
import { generateRootKey, parseRootKeys } from '../../src/crypto/index.ts';
import type { Db } from '../../src/db/client.ts';
import {
  CanaryWrong,
  checkCanaries,
  insertNextSystemKeys,
  KeyringRefused,
  type OnDamaged,
  openKeyring,
  reloadSystemKeys,
  RootKeyMissing,
} from '../../src/keys/system-keys.ts';
import { testDatabase } from '../helpers/database.ts';
import { runModule, until } from '../helpers/processes.ts';
import { countWaiting, makeTeam, tokenVault } from '../helpers/tokens.ts';

const now = Date.now;
const held = async (db: Db) => ({
  roots: (
    await sql<{ fingerprint: string }>`select fingerprint from root_key order by 1`.execute(db)
  ).rows.map(({ fingerprint }) => fingerprint),
  systemKeys: (
    await sql`select id, purpose, version, usable_from <= now() and retired_at is null as active, root_fingerprint, wrapped from system_key order by purpose, version`.execute(
      db,
    )
  ).rows,
});

t.test(
  'the first start makes one active key of each purpose and the canary; a later start finds them',
  async (t) => {
    const { db } = await testDatabase(t);
    const roots = parseRootKeys(generateRootKey());
    t.equal(await checkCanaries(db, roots), false, 'before the start there is no canary');
    const first = await openKeyring({ db, roots, now });
    const before = await held(db);
    t.strictSame(before.roots, [roots.primary]);
    t.match(
      before.systemKeys,
      ['auditMac', 'cursor', 'idempotency', 'leaseSigning', 'rowSeal'].map((purpose) => ({
        purpose,
        version: 1,
        active: true,
        root_fingerprint: roots.primary,
      })),
    );
    const second = await openKeyring({ db, roots, now });
    t.strictSame(await held(db), before, 'nothing is written twice');
    t.equal(second.leaseKeyId(), first.leaseKeyId());
    t.ok(second.verifyMac('auditMac', 'message', first.mac('auditMac', 'message')));
    t.equal(await checkCanaries(db, roots), true);
  },
);

t.test(
  'replicas that start at once on an empty database make one set of system keys',
  async (t) => {
    const { url, db } = await testDatabase(t);
    const source = (path: string) => JSON.stringify(new URL(path, import.meta.url).pathname);
    const program = `
    import { openDatabase } from ${source('../../src/db/client.ts')};
    import { parseRootKeys } from ${source('../../src/crypto/index.ts')};
    import { openKeyring } from ${source('../../src/keys/system-keys.ts')};
    const { db, close } = openDatabase({ url: process.argv[1], onError: () => undefined });
    const keyring = await openKeyring({ db, roots: parseRootKeys(process.argv[2]), now: Date.now });
    console.log('kid ' + keyring.leaseKeyId());
    await close();`;
    const rootKeys = generateRootKey();
    const kids = await db
      .transaction()
      .execute(async (trx) => {
        await sql`select pg_advisory_xact_lock(hashtext('credential-vault system keys'))`.execute(
          trx,
        );
        const replicas = Array.from({ length: 4 }, () => runModule(t, program, [url, rootKeys]));
        await until(async () => (await countWaiting(db)) === 4);
        return replicas.map(async (replica) => (await replica.printed(/kid (\S+)/))[1]);
      })
      .then((printed) => Promise.all(printed));
    t.equal(new Set(kids).size, 1, 'all of them sign with the same key');
    t.equal((await held(db)).systemKeys.length, 5);
  },
);

t.test(
  'a missing root key stops the start, names its fingerprint and writes nothing',
  async (t) => {
    const vault = await tokenVault(t);
    await makeTeam(vault, 'payments');
    const before = await held(vault.db);
    const fingerprint = parseRootKeys(vault.rootKeys).primary;
    const other = parseRootKeys(generateRootKey());
    const error: unknown = await openKeyring({ db: vault.db, roots: other, now }).catch(
      (thrown: unknown) => thrown,
    );
    t.ok(error instanceof RootKeyMissing && error instanceof KeyringRefused);
    t.match(error, { fingerprints: [fingerprint], message: new RegExp(fingerprint) });
    t.notMatch(String(error), /[A-Za-z0-9_-]{43}=/, 'and no key');
    t.strictSame(await held(vault.db), before, 'not even the canary of the key that is new');
    const both = parseRootKeys(`${generateRootKey()},${vault.rootKeys}`);
    await openKeyring({ db: vault.db, roots: both, now });
    t.strictSame(
      (await held(vault.db)).roots,
      [...both.fingerprints].toSorted(),
      'put first beside the old one, it is taken',
    );
  },
);

t.test('a root key that only one data key needs is missed too', async (t) => {
  const vault = await tokenVault(t);
  const { team, admin } = await makeTeam(vault, 'payments');
  const both = `${generateRootKey()},${vault.rootKeys}`;
  const keyring = await openKeyring({ db: vault.db, roots: parseRootKeys(both), now });
  const key = keyring.newDataKey({
    id: '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d' as never,
    team: team.id,
    version: 2,
    format: 'fernet',
  });
  await vault.db
    .insertInto('data_key')
    .values({
      id: key.id,
      team_id: team.id,
      version: 2,
      format: 'fernet',
      state: 'decryptOnly',
      fingerprint: key.fingerprint,
      root_fingerprint: key.rootFingerprint,
      wrapped: key.wrapped,
      created_at: new Date(),
      created_by: admin.subject,
      demoted_at: null,
      retired_at: null,
    })
    .execute();
  await t.rejects(openKeyring({ db: vault.db, roots: parseRootKeys(vault.rootKeys), now }), {
    name: 'RootKeyMissing',
    fingerprints: [key.rootFingerprint],
  });
});

t.test('a wrong canary stops the start and makes a running replica not ready', async (t) => {
  const { db } = await testDatabase(t);
  const roots = parseRootKeys(generateRootKey());
  await openKeyring({ db, roots, now });
  const other = parseRootKeys(generateRootKey());
  await db
    .updateTable('root_key')
    .set({ canary: other.makeCanary(other.primary) })
    .execute();
  const before = await held(db);
  const error: unknown = await openKeyring({ db, roots, now }).catch((thrown: unknown) => thrown);
  t.ok(error instanceof CanaryWrong);
  t.match(error, { fingerprint: roots.primary, message: new RegExp(roots.primary) });
  t.strictSame(await held(db), before);
  t.equal(await checkCanaries(db, roots), false);
});

t.test('deleted system keys are not made anew where anything was sealed with them', async (t) => {
  for (const data of ['team', 'audit event'] as const) {
    const vault = await tokenVault(t);
    const roots = parseRootKeys(vault.rootKeys);
    if (data === 'team') await makeTeam(vault, 'payments');
    else {
      await vault.audit.record(vault.db, {
        caller: { subject: null, requestId: 'r', address: null },
        action: 'team.create',
        target: { type: 'team', id: 'x' },
      });
    }
    await sql`delete from system_key where purpose = 'cursor'`.execute(vault.db);
    await t.rejects(
      openKeyring({ db: vault.db, roots, now }),
      { name: 'KeyringRefused', message: 'system keys are missing from the database: cursor' },
      `${data}: one is gone`,
    );
    await sql`delete from system_key`.execute(vault.db);
    await t.rejects(
      openKeyring({ db: vault.db, roots, now }),
      { name: 'KeyringRefused', message: /they were deleted/ },
      `${data}: all are gone`,
    );
    t.equal((await held(vault.db)).systemKeys.length, 0);
  }
});

t.test('a changed system key stops the start', async (t) => {
  const { db } = await testDatabase(t);
  const roots = parseRootKeys(generateRootKey());
  await openKeyring({ db, roots, now });
  await sql`update system_key set wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) where purpose = 'rowSeal'`.execute(
    db,
  );
  await t.rejects(openKeyring({ db, roots, now }), {
    name: 'KeyringRefused',
    message: new RegExp(
      `\\(rowSeal, version 1\\) wrapped by root key ${roots.primary} does not unwrap`,
    ),
  });
});

t.test('one changed system key stops nothing that it need not stop', async (t) => {
  const { db } = await testDatabase(t);
  const roots = parseRootKeys(generateRootKey());
  const running = await openKeyring({ db, roots, now });
  const row = { id: 'x', team: 'y' };
  const seal = running.rowMac('engine', row);
  await db.transaction().execute((trx) =>
    insertNextSystemKeys(trx, running, {
      leaseSigning: new Date(0),
      others: new Date(0),
    }),
  );
  await sql`update system_key set wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) where purpose = 'rowSeal' and version = 1`.execute(
    db,
  );
  const told: string[] = [];
  const onDamaged: OnDamaged = (keys) => {
    told.push(keys.map(({ purpose, version }) => `${purpose} ${version}`).join());
  };
  await reloadSystemKeys(db, running, onDamaged);
  t.strictSame(told, ['rowSeal 1'], 'it is named');
  t.equal(running.rowMacVersion(), 2, 'the versions that others made are loaded');
  t.ok(running.verifyRowMac('engine', row, seal), 'what is loaded already goes on verifying');

  told.length = 0;
  const started = await openKeyring({ db, roots, now, onDamaged });
  t.strictSame(told, ['rowSeal 1']);
  t.equal(started.rowMacVersion(), 2);
  t.notOk(started.verifyRowMac('engine', row, seal), 'what is under it counts for nothing');
  t.ok(started.verifyRowMac('engine', row, running.rowMac('engine', row)));
  t.equal(started.verifyMac('cursor', 'm', running.mac('cursor', 'm')), true);

  await sql`update system_key set wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) where purpose = 'cursor' and version = 2`.execute(
    db,
  );
  await t.rejects(openKeyring({ db, roots, now }), {
    name: 'KeyringRefused',
    message: /\(cursor, version 2\)/,
  });
  await reloadSystemKeys(db, running, onDamaged);
  t.equal(running.rowMacVersion(), 2, 'a replica that runs goes on with what it has');
  t.ok(running.verifyMac('cursor', 'm', running.mac('cursor', 'm')));
});
