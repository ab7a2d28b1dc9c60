// The command `verify`: nothing to say of a healthy database, every kind of fault found where it
// is, and no more memory for more rows.
import { type KyselyPlugin, sql } from 'kysely';
import t, { type Test } from 'tap';
import { generateRootKey, parseRootKeys } from '../../src/crypto/index.ts';
import { type Finding, verifyAll } from '../../src/integrity/verify.ts';
import { runToEnd } from '../helpers/commands.ts';
import { testDatabase } from '../helpers/database.ts';
import { intrude } from '../helpers/intruder.ts';
import { registerEngine } from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { addCredentials, makeTeam, tokenVault } from '../helpers/tokens.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const run = (
  t: Test,
  { databaseUrl, rootKey }: TestVault,
  ...args: string[]
): ReturnType<typeof runToEnd> =>
  runToEnd(t, ['verify', ...args], {
    environment: { DATABASE_URL: databaseUrl, CREDVAULT_ROOT_KEYS: rootKey },
  });
const findingsOf = async (t: Test, vault: TestVault): Promise<Finding[]> => {
  const { code, output, errors } = await run(t, vault, '--json');
  const said = output
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Finding & { findings: number });
  t.equal(errors, '');
  t.equal(said.at(-1)?.findings, said.length - 1);
  t.equal(code, said.length === 1 ? 0 : 3);
  return said.slice(0, -1);
};

/**
 * A team with an engine and three credentials, one of them of two versions, rotated once: a bit of
 * everything.
 */
async function stage(
  t: Test,
  rootKey = generateRootKey(),
): Promise<{ vault: TestVault; ids: string[]; engine: string; retired: string }> {
  const vault = await startVault(t, { rootKey });
  await vault.team('payments');
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const ids: string[] = [];
  for (const name of ['one', 'two', 'three']) {
    ids.push(
      (
        await vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
          name,
          type: 'openai',
          fields: { apiKey: `key of ${name}` },
        })
      ).json.id,
    );
  }
  await vault.call(
    'alice',
    'PATCH',
    `/v1/credentials/${ids[0]}`,
    { fields: { apiKey: 'another' } },
    { 'if-match': '*' },
  );
  vault.start();
  const { json } = await vault.call('alice', 'POST', '/v1/teams/payments/key-rotations');
  await until(
    async () =>
      (await vault.call('alice', 'GET', `/v1/teams/payments/key-rotations/${json.id}`)).json
        .state === 'completed',
  );
  const {
    json: { items },
  } = await vault.call('alice', 'GET', '/v1/teams/payments/keys');
  const retired = items[1].id as string;
  await vault.call('alice', 'POST', `/v1/teams/payments/keys/${retired}/retire`);
  return { vault, ids, engine: engine.id, retired };
}

t.test('of a healthy database it says how much it looked at, and writes nothing', async (t) => {
  const { vault } = await stage(t);
  await vault.stop();
  const counts = async (): Promise<unknown> =>
    (
      await sql`select (select count(*) from audit_event) as events, (select max(xmin::text::bigint) from credential) as written,
    (select count(*) from root_key) as roots`.execute(vault.db)
    ).rows;
  const before = await counts();
  t.match(await run(t, vault), {
    code: 0,
    output: /^7 keys, 4 tokens, 8 row MACs, \d+ events looked at; everything holds\n$/,
    errors: '',
  });
  t.same(await findingsOf(t, vault), []);
  t.same(await counts(), before);
  await sql.raw('create role verify_reader login').execute(vault.db);
  t.teardown(async () => {
    await sql
      .raw('drop owned by verify_reader; drop role verify_reader')
      .execute(vault.db)
      .catch(() => undefined);
  });
  await sql
    .raw(
      'grant usage on schema public to verify_reader; grant select on all tables in schema public to verify_reader',
    )
    .execute(vault.db);
  const reader = vault.databaseUrl.replace(/^(\w+:\/\/)[^@/]*@/, '$1verify_reader@');
  t.match(
    await runToEnd(t, ['verify'], {
      environment: { DATABASE_URL: reader, CREDVAULT_ROOT_KEYS: vault.rootKey },
    }),
    { code: 0, errors: '' },
    'a role that may only read is enough',
  );
});

t.test('every kind of fault is named, where it is', async (t) => {
  const { vault, ids, engine, retired } = await stage(t);
  const [one, two, three] = ids;
  await intrude(
    vault.db,
    `update credential_version set token = overlay(token placing 'AAAA' from 60) where credential_id = '${one}' and version = 1`,
    `update credential_version set data_key_id = '${retired}' where credential_id = '${two}'`,
    `update credential set name = 'bent' where id = '${three}'`,
    `update membership set role = 'admin' where role = 'engine'`,
    `update engine set seal = set_byte(seal, 20, 255 - get_byte(seal, 20))`,
    `update engine_key set revision = revision + 1`,
    `update audit_event set reason = 'bent' where action = 'team.create'`,
  );
  const {
    rows: [event],
  } = await sql<{ id: string }>`select id from audit_event where action = 'team.create'`.execute(
    vault.db,
  );
  const {
    rows: [member],
  } = await sql<{
    row: string;
  }>`select team_id || '/' || subject_id as row from membership where role = 'admin' and subject_id = (select id from subject where sub = 'n8n')`.execute(
    vault.db,
  );
  const {
    rows: [engineKey],
  } = await sql<{ kid: string }>`select kid from engine_key`.execute(vault.db);
  t.same(await findingsOf(t, vault), [
    ...[
      { table: 'credential_version', row: `${one}/1`, fault: 'tokenDoesNotOpen' },
      { table: 'credential_version', row: `${two}/1`, fault: 'keyNotUsable' },
    ],
    { table: 'credential', row: three, fault: 'sealBroken' },
    { table: 'membership', row: member?.row, fault: 'sealBroken' },
    { table: 'engine', row: engine, fault: 'sealBroken' },
    { table: 'engine_key', row: `${engine}/${engineKey?.kid}`, fault: 'sealBroken' },
    { table: 'audit_event', row: event?.id, fault: 'macBroken' },
  ]);
  const { output } = await run(t, vault);
  t.match(output, new RegExp(`^tokenDoesNotOpen {2}credential_version {2}${one}/1\n`));
  t.match(output, /; 7 do not hold\n$/);
});

t.test('a token that was put elsewhere, and what stands beside it, is compared', async (t) => {
  const {
    vault,
    ids: [one, two],
  } = await stage(t);
  await intrude(
    vault.db,
    `update credential_version v set token = other.token from credential_version other where v.credential_id = '${one}' and v.version = 2 and other.credential_id = '${two}'`,
    `update credential_version set public_fields = '{"baseUrl":"https://evil.example"}' where credential_id = '${two}'`,
  );
  t.match(await findingsOf(t, vault), [
    { row: `${one}/2`, fault: 'tokenDoesNotOpen' },
    { row: `${two}/1`, fault: 'tokenDoesNotOpen' },
    { table: 'credential', row: two, fault: 'sealBroken' },
  ]);
});

t.test(
  'a key that does not unwrap, and a root key that is not there, are named with what they need',
  async (t) => {
    const { vault, retired } = await stage(t);
    await intrude(
      vault.db,
      `update data_key set wrapped = overlay(wrapped placing '\\x0000' from 30) where id = '${retired}'`,
    );
    t.same(
      await findingsOf(t, vault),
      [{ table: 'data_key', row: retired, fault: 'keyDoesNotUnwrap' }],
      'before somebody restores it',
    );

    const needed = vault.rootKey;
    const [print = ''] = parseRootKeys(needed).fingerprints;
    const database = { url: vault.databaseUrl, db: vault.db };
    const after = await startVault(t, { database, rootKey: `${generateRootKey()},${needed}` });
    await after.team('later');
    const [fresh = ''] = after.rootKey.split(',');
    const alone = { ...after, rootKey: fresh };
    t.match(
      await run(t, alone),
      {
        code: 1,
        output: '',
        errors: `credential-vault verify: keys in the database are wrapped by root keys that are not configured: ${print}\n`,
      },
      'without the system keys nothing can be said',
    );
    const parts = parseRootKeys(after.rootKey);
    for (const key of await vault.db
      .selectFrom('system_key')
      .select(['id', 'purpose', 'version', 'root_fingerprint as rootFingerprint', 'wrapped'])
      .execute()) {
      const { rootFingerprint, wrapped } = after.keyring.rewrapSystemKey(key);
      await sql`update system_key set root_fingerprint = ${rootFingerprint}, wrapped = ${wrapped} where id = ${key.id}`.execute(
        vault.db,
      );
    }
    t.equal(parts.primary, parseRootKeys(fresh).primary);
    const found = await findingsOf(t, alone);
    t.same(
      new Set(found.map(({ table, fault, needs }) => `${table} ${fault} ${needs}`)),
      new Set([`data_key rootKeyMissing ${print}`, `credential_version rootKeyMissing ${print}`]),
    );
    t.equal(found.length, 2 + 4);
    t.match(
      (await run(t, alone)).output,
      new RegExp(`^rootKeyMissing {2}data_key {2}\\S+ {2}needs root key ${print}\n`),
    );
  },
);

t.test('what it may not look at it says, and how it is called', async (t) => {
  const { url } = await testDatabase(t, { empty: true });
  const environment = { DATABASE_URL: url, CREDVAULT_ROOT_KEYS: generateRootKey() };
  t.match(await runToEnd(t, ['verify'], { environment }), {
    code: 1,
    errors: /the schema is behind this version/,
  });
  t.match(await runToEnd(t, ['verify'], { environment: { DATABASE_URL: url } }), {
    code: 1,
    errors: /CREDVAULT_ROOT_KEYS is required/,
  });
  t.match(await runToEnd(t, ['verify', '--watch'], { environment }), {
    code: 2,
    errors: /an option is unknown/,
  });
  const { url: migrated } = await testDatabase(t);
  t.match(
    await runToEnd(t, ['verify'], { environment: { ...environment, DATABASE_URL: migrated } }),
    { code: 1, errors: /system keys are missing/ },
    'it makes none',
  );
});

t.test(
  'it reads a bounded number of rows at a time, whatever there is, and misses none',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    const ids = await addCredentials(vault, of, 2_300);
    const sizes: number[] = [];
    const counting: KyselyPlugin = {
      transformQuery: ({ node }) => node,
      transformResult: async ({ result }) => {
        sizes.push(result.rows.length);
        return result;
      },
    };
    await intrude(
      vault.db,
      `update credential_version set token = overlay(token placing 'AAAA' from 60) where credential_id = any ('{${[ids[0], ids[999], ids[1000], ids.at(-1)].join()}}')`,
    );
    const found: string[] = [];
    const verified = await verifyAll(
      { db: vault.db.withPlugin(counting), keyring: vault.keyring },
      {
        onFinding: ({ row }) => {
          found.push(row);
        },
        isStopping: () => false,
      },
    );
    t.match(verified, { isWhole: true, tokens: 2_300, findings: 4 });
    t.ok(verified.seals >= 2_300);
    t.equal(found.length, 4);
    t.ok(Math.max(...sizes) <= 1_000, `at most ${Math.max(...sizes)} rows at once`);
    t.ok(sizes.length > 14);
    let batches = 0;
    t.match(
      await verifyAll(
        { db: vault.db, keyring: vault.keyring },
        {
          onFinding: () => undefined,
          isStopping: () => {
            batches += 1;
            return batches > 4;
          },
        },
      ),
      { isWhole: false },
      'it stops between batches when asked',
    );
  },
);
