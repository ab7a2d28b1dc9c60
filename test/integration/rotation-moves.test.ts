// A rotation from its start to its end: every token moves, nothing else changes, others are let be.
import { sql } from 'kysely';
import t from 'tap';
import type { Trx } from '../../src/db/client.ts';
import {
  endIfDone,
  listRunningRotations,
  reencryptBatch,
  type Position,
  settleTotal,
} from '../../src/keys/rotation.ts';
import { ciphertextTables } from '../../src/keys/tables/list.ts';
import { until } from '../helpers/processes.ts';
import {
  activeKey,
  addCredentials,
  allOpenUnderActiveKey,
  countWaiting,
  ended,
  eventsOf,
  makeTeam,
  noClaim,
  setFormat,
  tokensOf,
  tokenVault,
} from '../helpers/tokens.ts';

/** Seconds since 1970 in a Fernet token. */
const timeOf = (token: string): bigint => Buffer.from(token, 'base64url').readBigUInt64BE(1);

t.test('a rotation moves every token to the new key and changes nothing else', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  const other = await makeTeam(vault, 'other');
  const ids = await addCredentials(vault, of, 250);
  await addCredentials(vault, other, 5);
  await vault.db
    .updateTable('credential')
    .set({ state: 'deleted', deleted_at: new Date() })
    .where('id', '=', ids[0]!)
    .execute();
  const before = await tokensOf(vault.db, of.team.id);
  const othersBefore = await tokensOf(vault.db, other.team.id);
  const credentials = () => sql`select * from credential order by id`.execute(vault.db);
  const versions = () =>
    sql`select credential_id, version, secret_field_names, public_fields, policy, created_at, created_by, undecryptable_at from credential_version order by 1, 2`.execute(
      vault.db,
    );
  const unchanged = { credentials: (await credentials()).rows, versions: (await versions()).rows };
  const from = await activeKey(vault.db, of.team.id);

  const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
  t.match(rotation, {
    state: 'running',
    total: 250,
    done: 0,
    failed: 0,
    rowsPerSecond: 0,
    estimatedEnd: null,
    endedAt: null,
    createdBy: of.admin.sub,
  });
  t.equal(
    (await activeKey(vault.db, of.team.id)).id,
    rotation.toKey,
    'the new key is active at once',
  );
  t.ok(
    (await tokensOf(vault.db, of.team.id)).every(({ data_key_id }) => data_key_id === from.id),
    'and nothing has moved yet',
  );

  vault.worker({ batchRows: 30 }).start();
  const end = await ended(vault, of.team, rotation.id);
  t.match(end, {
    state: 'completed',
    total: 250,
    done: 250,
    failed: 0,
    failures: [],
    estimatedEnd: null,
  });
  t.ok(end.rowsPerSecond > 0);
  t.ok(end.endedAt instanceof Date);
  t.ok(
    await allOpenUnderActiveKey(vault, of.team.id),
    'each token opens under the new key, deleted credentials included',
  );
  const after = await tokensOf(vault.db, of.team.id);
  t.strictSame(
    after.map(({ token }) => timeOf(token)),
    before.map(({ token }) => timeOf(token)),
    'tokens keep their timestamps',
  );
  t.ok(after.every(({ token }, index) => token !== before[index]?.token));
  t.strictSame(
    (await credentials()).rows,
    unchanged.credentials,
    'no revision, no time, no row MAC changes',
  );
  t.strictSame((await versions()).rows, unchanged.versions);
  t.strictSame(
    await tokensOf(vault.db, other.team.id),
    othersBefore,
    'the tokens of another team are where they were',
  );
  t.equal((await vault.keys.listKeys(other.team, { limit: 10, after: undefined })).length, 1);

  t.match(await vault.keys.listKeys(of.team, { limit: 10, after: undefined }), [
    { version: 2, state: 'active', rows: 250, id: rotation.toKey, demotedAt: null },
    { version: 1, state: 'decryptOnly', rows: 0, id: from.id, demotedAt: Date },
  ]);
  t.match(await eventsOf(vault.db, of.team.id, 'key.rotate'), [
    {
      target: rotation.toKey,
      key: rotation.toKey,
      actor: of.admin.subject,
      details: { rotation: rotation.id, fromKey: from.id, toKey: rotation.toKey },
    },
  ]);
  t.match(await eventsOf(vault.db, of.team.id, 'key.rotationEnd'), [
    {
      target: rotation.id,
      request: `rotation:${rotation.id}`,
      actor: of.admin.subject,
      details: { state: 'completed', total: 250, done: 250, failed: 0 },
    },
  ]);
});

t.test(
  'a token keeps the time at which its value was sealed, however often it is moved',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 1);
    const [sealed] = await tokensOf(vault.db, of.team.id);
    await until(() => BigInt(Math.floor(Date.now() / 1000)) > timeOf(sealed!.token));
    vault.worker().start();
    for (let times = 0; times < 2; times += 1)
      await ended(vault, of.team, (await vault.keys.startRotation(of.admin, of.team, noClaim)).id);
    const [moved] = await tokensOf(vault.db, of.team.id);
    t.equal(timeOf(moved!.token), timeOf(sealed!.token));
  },
);

t.test('a new key has the format that the team has now', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  await addCredentials(vault, of, 3);
  await setFormat(vault, of, 'fernet-256');
  vault.worker().start();
  await ended(vault, of.team, (await vault.keys.startRotation(of.admin, of.team, noClaim)).id);
  t.ok((await tokensOf(vault.db, of.team.id)).every(({ token }) => token.startsWith('QQAAA')));
  t.ok(await allOpenUnderActiveKey(vault, of.team.id));
  t.match(await vault.keys.listKeys(of.team, { limit: 10, after: undefined }), [
    { format: 'fernet-256' },
    { format: 'fernet' },
  ]);
});

t.test('a team without tokens rotates, and a rotation moves what earlier ones left', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  const worker = vault.worker();
  worker.start();
  t.match(
    await ended(vault, of.team, (await vault.keys.startRotation(of.admin, of.team, noClaim)).id),
    { state: 'completed', total: 0, done: 0 },
  );
  await worker.stop();
  await addCredentials(vault, of, 3);
  const cancelled = await vault.keys.startRotation(of.admin, of.team, noClaim);
  await vault.keys.cancelRotation(of.admin, of.team, cancelled.id);
  await addCredentials(vault, of, 4);
  const last = await vault.keys.startRotation(of.admin, of.team, noClaim);
  t.equal(last.total, 7, 'tokens under two old keys');
  vault.worker().start();
  t.match(await ended(vault, of.team, last.id), { state: 'completed', done: 7 });
  t.strictSame(
    (await vault.keys.listKeys(of.team, { limit: 10, after: undefined })).map(
      ({ version, rows }) => [version, rows],
    ),
    [
      [4, 7],
      [3, 0],
      [2, 0],
      [1, 0],
    ],
  );
});

t.test('several teams rotate at once, each to its own key', async (t) => {
  const vault = await tokenVault(t);
  const teams = [
    await makeTeam(vault, 'team-a'),
    await makeTeam(vault, 'team-b'),
    await makeTeam(vault, 'team-c'),
  ];
  for (const of of teams) await addCredentials(vault, of, 60);
  const rotations = await Promise.all(
    teams.map((of) => vault.keys.startRotation(of.admin, of.team, noClaim)),
  );
  vault.worker({ batchRows: 10 }).start();
  for (const [index, of] of teams.entries()) {
    t.match(await ended(vault, of.team, rotations[index]!.id), { state: 'completed', done: 60 });
    t.ok(await allOpenUnderActiveKey(vault, of.team.id));
  }
});

t.test(
  'two workers share one rotation: no token is moved twice, and the count is exact',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 600);
    await sql`create table move (worker text, credential_id uuid)`.execute(vault.db);
    await sql`create function note_move() returns trigger language plpgsql as $$
    begin insert into move values (pg_backend_pid()::text, new.credential_id); return new; end $$`.execute(
      vault.db,
    );
    await sql`create trigger note_move after update of token on credential_version for each row execute function note_move()`.execute(
      vault.db,
    );
    const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
    for (const worker of [
      vault.worker({ batchRows: 20 }),
      vault.worker({ batchRows: 20 }),
      vault.worker({ batchRows: 20 }),
    ])
      worker.start();
    t.match(await ended(vault, of.team, rotation.id), { state: 'completed', done: 600 });
    t.ok(await allOpenUnderActiveKey(vault, of.team.id));
    const { rows } = await sql<{ moves: number; tokens: number; workers: number }>`
    select count(*) as moves, count(distinct credential_id) as tokens, count(distinct worker) as workers from move`.execute(
      vault.db,
    );
    t.match(rows, [{ moves: 600, tokens: 600 }]);
    t.ok(rows[0]!.workers > 1, 'more than one connection moved tokens');
  },
);

t.test('a rotation does not end while another holds a token that was not moved', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  const [held] = await addCredentials(vault, of, 3);
  const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
  await vault.db.transaction().execute(async (trx) => {
    await sql`select 1 from credential_version where credential_id = ${held} for update`.execute(
      trx,
    );
    vault.worker().start();
    await until(async () => (await vault.keys.getRotation(of.team, rotation.id)).done === 2);
    const [running] = await listRunningRotations(vault.db);
    const parts = { db: vault.db, keyring: vault.keyring, audit: vault.audit, now: Date.now };
    t.match(
      await reencryptBatch(parts, running!, { limit: 10, passOver: [], after: undefined }),
      { moved: 0, failed: 0, last: undefined },
      'no row comes back',
    );
    await sql`select 1 from key_rotation where id = ${rotation.id} for no key update`.execute(trx); // as a batch does that ends
    t.equal(
      await endIfDone(parts, running!),
      false,
      'but that is not done, and to see it waits for nobody',
    );
    t.equal((await vault.keys.getRotation(of.team, rotation.id)).state, 'running');
  });
  t.match(await ended(vault, of.team, rotation.id), { state: 'completed', done: 3 });
});

t.test(
  'a batch reads its own tokens and not all of its key, whatever the planner thinks of the tables',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await sql`alter table credential_version set (autovacuum_enabled = off)`.execute(vault.db);
    await addCredentials(vault, of, 3000);
    await vault.keys.startRotation(of.admin, of.team, noClaim);
    const [running] = await listRunningRotations(vault.db);
    const reads: number[] = [];
    const audit = Object.assign(Object.create(null), {
      record: async (trx: Trx) => {
        const { rows } = await sql<{
          n: number;
        }>`select seq_tup_read + idx_tup_fetch as n from pg_stat_xact_user_tables where relname = 'credential_version'`.execute(
          trx,
        );
        reads.push(rows[0]!.n);
      },
    }) as typeof vault.audit;
    const parts = { db: vault.db, keyring: vault.keyring, audit, now: Date.now };
    let after: Position | undefined;
    for (let batches = 0; batches < 12; batches += 1)
      ({ last: after } = await reencryptBatch(parts, running!, { limit: 20, passOver: [], after }));
    t.equal(reads.length, 12);
    // the counters are the connection's, until it hands them in
    const each = reads.slice(1).map((n, index) => n - reads[index]!);
    t.ok(Math.max(...each) <= 80, `rows read for each batch of 20: ${each.join()}`);
  },
);

t.test('every table with tokens is in the one list', async (t) => {
  const { db } = await tokenVault(t);
  const { rows } = await sql<{ table_name: string }>`
    select c.table_name from information_schema.columns c join information_schema.tables t using (table_schema, table_name)
    where c.table_schema = 'public' and t.table_type = 'BASE TABLE' and c.column_name in ('token', 'data_key_id')
    group by 1 having count(*) = 2 order by 1`.execute(db);
  t.strictSame(
    rows.map(({ table_name }) => table_name),
    ciphertextTables.map(({ name }) => name).toSorted(),
  );
  const triggers = await sql<{ table_name: string }>`
    select event_object_table as table_name from information_schema.triggers where trigger_name = 'token_needs_active_key' group by 1 order by 1`.execute(
    db,
  );
  t.strictSame(
    triggers.rows.map(({ table_name }) => table_name),
    ciphertextTables.map(({ name }) => name).toSorted(),
    'and each has the trigger that guards it',
  );
});

t.test(
  'how much there is to move is counted when the key is let go: the team writes meanwhile, and the count is exact',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 5);
    await sql`create function stop_at_gate() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(4711); return new; end $$`.execute(
      vault.db,
    );
    await sql`create trigger stop_at_gate before update of total on key_rotation for each row when (old.state = 'running' and new.state = 'running') execute function stop_at_gate()`.execute(
      vault.db,
    );
    let starting: ReturnType<typeof vault.keys.startRotation> | undefined;
    await vault.db.transaction().execute(async (trx) => {
      await sql`select pg_advisory_xact_lock(4711)`.execute(trx);
      starting = vault.keys.startRotation(of.admin, of.team, noClaim);
      await until(async () => (await countWaiting(vault.db, { object: 4711 })) > 0);
      t.match(
        await vault.keys.listRotations(of.team, { limit: 1, after: undefined }),
        [{ state: 'running', total: 0 }],
        'it runs, and nobody has counted',
      );
      await addCredentials(vault, of, 2);
    });
    t.match(await starting, { total: 5, done: 0 });
  },
);

t.test(
  'a rotation whose starter died before it counted is counted by whoever moves it',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 5);
    const { id } = await vault.keys.startRotation(of.admin, of.team, noClaim);
    const parts = { db: vault.db, keyring: vault.keyring, audit: vault.audit, now: Date.now };
    const [running] = await listRunningRotations(vault.db);
    await reencryptBatch(parts, running!, { limit: 2, passOver: [], after: undefined });
    await vault.db.updateTable('key_rotation').set({ total: 0 }).execute();
    await settleTotal(vault.db, id);
    t.match(
      await vault.keys.getRotation(of.team, id),
      { total: 5, done: 2 },
      'what is moved already counts',
    );
    await vault.db
      .updateTable('key_rotation')
      .set({ total: 0, created_at: new Date(Date.now() - 60_000) })
      .execute();
    await sql`create table counted (total bigint)`.execute(vault.db);
    await sql`create function note_total() returns trigger language plpgsql as $$ begin insert into counted values (new.total); return new; end $$`.execute(
      vault.db,
    );
    await sql`create trigger note_total before update of total on key_rotation for each row when (new.state = 'running') execute function note_total()`.execute(
      vault.db,
    );
    vault.worker().start();
    t.match(await ended(vault, of.team, id), { state: 'completed', total: 5, done: 5 });
    t.strictSame(
      (await sql`select total from counted`.execute(vault.db)).rows,
      [{ total: 5 }],
      'before it was done, and once',
    );
  },
);
