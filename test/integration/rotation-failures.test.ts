// What does not open, what cannot be opened at this moment, and what is stopped.
import { sql } from 'kysely';
import t from 'tap';
import type { Keyring } from '../../src/crypto/index.ts';
import { endIfDone, listRunningRotations, reencryptBatch } from '../../src/keys/rotation.ts';
import { until } from '../helpers/processes.ts';
import {
  activeKey,
  addCredentials,
  allOpenUnderActiveKey,
  ended,
  eventsOf,
  makeTeam,
  noClaim,
  tokensOf,
  tokenVault,
} from '../helpers/tokens.ts';

/** Exchanges the tokens of two credentials, as somebody could who writes to the database. */
const exchange = (a: string, b: string) => sql`
  update credential_version held set token = other.token from credential_version other
  where (held.credential_id, other.credential_id) in ((${a}::uuid, ${b}::uuid), (${b}::uuid, ${a}::uuid))`;

t.test(
  'a token that does not open is named, skipped and marked, and blocks retiring its key',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    const ids = (await addCredentials(vault, of, 50)).toSorted();
    const from = await activeKey(vault.db, of.team.id);
    const moved = [ids[3]!, ids[20]!];
    await exchange(moved[0]!, moved[1]!).execute(vault.db);
    vault.worker({ batchRows: 10 }).start();
    const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
    const end = await ended(vault, of.team, rotation.id);
    t.match(end, { state: 'completedWithFailures', total: 50, done: 48, failed: 2 });
    t.strictSame(
      end.failures,
      moved.map((credential) => ({ credential, version: 1 })),
    );
    const tokens = await tokensOf(vault.db, of.team.id);
    for (const { credential, data_key_id, undecryptable_at: at } of tokens) {
      const isPoison = moved.includes(credential);
      t.equal(data_key_id, isPoison ? from.id : rotation.toKey);
      t.equal(at instanceof Date, isPoison);
    }
    const events = await eventsOf(vault.db, of.team.id, 'key.rotationRowFailed');
    t.match(
      events,
      moved.map((target) => ({
        target,
        version: 1,
        key: from.id,
        actor: of.admin.subject,
        request: `rotation:${rotation.id}`,
        details: { rotation: rotation.id },
      })),
      'one event a row',
    );
    t.equal(events.length, 2);
    t.match(await eventsOf(vault.db, of.team.id, 'key.rotationEnd'), [
      { details: { state: 'completedWithFailures', total: 50, done: 48, failed: 2 } },
    ]);
    await t.rejects(vault.life.retireKey(of.admin, of.team, from.id), {
      code: 'keyInUse',
      details: { rows: { credential_version: 2 } },
    });
    const again = await ended(
      vault,
      of.team,
      (await vault.keys.startRotation(of.admin, of.team, noClaim)).id,
    );
    t.match(
      again,
      { state: 'completedWithFailures', total: 50, done: 48, failed: 2 },
      'a later rotation tries them again',
    );

    // As a replica of the release before 0019 notes one, which does not say whose it is.
    await sql`delete from key_rotation_failure`.execute(vault.db);
    await sql`insert into key_rotation_failure (rotation_id, credential_id, version, at) values (${rotation.id}, ${moved[0]}, 1, now())`.execute(
      vault.db,
    );
    t.same(
      await vault.db
        .selectFrom('key_rotation_failure')
        .select(['team_id', 'credential_id'])
        .execute(),
      [{ team_id: of.team.id, credential_id: moved[0] }],
    );
  },
);

t.test('a token that opens again is moved and marked no longer', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  const [a, b] = await addCredentials(vault, of, 2);
  await exchange(a!, b!).execute(vault.db);
  vault.worker().start();
  await ended(vault, of.team, (await vault.keys.startRotation(of.admin, of.team, noClaim)).id);
  await sql`alter table credential_version disable trigger token_needs_active_key`.execute(
    vault.db,
  );
  await exchange(a!, b!).execute(vault.db);
  await sql`alter table credential_version enable trigger token_needs_active_key`.execute(vault.db);
  t.match(
    await ended(vault, of.team, (await vault.keys.startRotation(of.admin, of.team, noClaim)).id),
    { state: 'completed', done: 2 },
  );
  t.ok(await allOpenUnderActiveKey(vault, of.team.id));
  t.ok((await tokensOf(vault.db, of.team.id)).every(({ undecryptable_at: at }) => at === null));
});

t.test('the time at which a token was first found undecryptable stays', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  const [a, b] = await addCredentials(vault, of, 2);
  await exchange(a!, b!).execute(vault.db);
  const found = new Date('2026-01-02T03:04:05Z');
  await vault.db
    .updateTable('credential_version')
    .set({ undecryptable_at: found })
    .where('credential_id', '=', a!)
    .execute();
  vault.worker().start();
  await ended(vault, of.team, (await vault.keys.startRotation(of.admin, of.team, noClaim)).id);
  const at = new Map(
    (await tokensOf(vault.db, of.team.id)).map(({ credential, undecryptable_at }) => [
      credential,
      undecryptable_at,
    ]),
  );
  t.strictSame(at.get(a!), found);
  t.ok(at.get(b!)! > found);
});

t.test('a token under a key that was retired is not opened', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  const [id] = await addCredentials(vault, of, 1);
  await sql`alter table data_key disable trigger data_key_state_machine`.execute(vault.db);
  const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
  await sql`update data_key set state = 'retired' where state = 'decryptOnly'`.execute(vault.db);
  vault.worker().start();
  t.match(await ended(vault, of.team, rotation.id), {
    state: 'completedWithFailures',
    failures: [{ credential: id, version: 1 }],
  });
  t.strictSame(
    (await tokensOf(vault.db, of.team.id)).map(({ undecryptable_at: at }) => at),
    [null],
    'and nothing is said of the token itself',
  );
});

t.test(
  'a data key that cannot be unwrapped marks nothing: the rotation waits for it, says so once, moves the rest, and ends when it is back',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 30);
    const first = await activeKey(vault.db, of.team.id);
    const cancelled = await vault.keys.startRotation(of.admin, of.team, noClaim);
    await vault.keys.cancelRotation(of.admin, of.team, cancelled.id);
    await addCredentials(vault, of, 30);
    const gone = 'feedfacefeedface';
    await vault.db
      .insertInto('root_key')
      .values({ fingerprint: gone, canary: Buffer.alloc(45) })
      .execute();
    await vault.db
      .updateTable('data_key')
      .set({ root_fingerprint: gone })
      .where('id', '=', first.id)
      .execute();
    const errors: Error[] = [];
    let attempts = 0;
    const keyring = Object.assign(Object.create(null), {
      reseal: (...given: Parameters<Keyring['reseal']>) => {
        if (given[0].id === first.id) attempts += 1;
        return vault.keyring.reseal(...given);
      },
    }) as Keyring;
    vault
      .worker({ keyring, batchRows: 7, pollMs: 1, onError: (error) => errors.push(error) })
      .start();
    const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
    await until(() => attempts > 7 * 4);
    t.match(
      await vault.keys.getRotation(of.team, rotation.id),
      { state: 'running', total: 60, done: 30, failed: 0 },
      'tokens under the other key have moved',
    );
    t.ok((await tokensOf(vault.db, of.team.id)).every(({ undecryptable_at: at }) => at === null));
    t.match(errors, [{ message: `rotation ${rotation.id} waits for root keys: ${gone}` }]);
    t.equal(errors.length, 1, 'told once, though it was tried again and again');
    await vault.db
      .updateTable('data_key')
      .set({ root_fingerprint: first.rootFingerprint })
      .where('id', '=', first.id)
      .execute();
    t.match(await ended(vault, of.team, rotation.id), { state: 'completed', done: 60, failed: 0 });
    t.ok(await allOpenUnderActiveKey(vault, of.team.id));
  },
);

t.test('a changed wrapping is no reason to call the tokens under it undecryptable', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  await addCredentials(vault, of, 5);
  const errors: Error[] = [];
  for (const key of ['from', 'to'] as const) {
    const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
    const tampered = sql`update data_key set wrapped = set_byte(wrapped, 20, get_byte(wrapped, 20) # 1) where state = ${key === 'to' ? 'active' : 'decryptOnly'} and team_id = ${of.team.id}`;
    await tampered.execute(vault.db);
    vault.keyring.forget();
    const worker = vault.worker({ onError: (error) => errors.push(error) });
    worker.start();
    await until(() => errors.length > 0);
    await worker.stop();
    t.match(errors.splice(0), [{ message: /waits for root keys/ }], key);
    t.match(await vault.keys.getRotation(of.team, rotation.id), {
      state: 'running',
      done: 0,
      failed: 0,
    });
    await tampered.execute(vault.db);
    const next = vault.worker();
    next.start();
    t.match(await ended(vault, of.team, rotation.id), { state: 'completed', done: 5 });
    await next.stop(); // or it would move the next rotation's tokens before the key is tampered with
  }
});

t.test(
  'a cancelled rotation moves nothing more; its key stays active and a later rotation moves the rest',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 40);
    const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
    const [running] = await listRunningRotations(vault.db);
    const parts = { db: vault.db, keyring: vault.keyring, audit: vault.audit, now: Date.now };
    const first = await reencryptBatch(parts, running!, {
      limit: 10,
      passOver: [],
      after: undefined,
    });
    t.match(first, { moved: 10 });
    t.match(await vault.keys.cancelRotation(of.admin, of.team, rotation.id), {
      state: 'cancelled',
      total: 40,
      done: 10,
      failed: 0,
      endedAt: Date,
    });
    t.match(await reencryptBatch(parts, running!, { limit: 10, passOver: [], after: first.last }), {
      moved: 0,
      last: undefined,
    });
    t.equal(await endIfDone(parts, running!), false);
    t.match(await vault.keys.getRotation(of.team, rotation.id), { state: 'cancelled', done: 10 });
    t.equal((await activeKey(vault.db, of.team.id)).id, rotation.toKey);
    t.match(await eventsOf(vault.db, of.team.id, 'key.rotationCancel'), [
      { target: rotation.id, details: { total: 40, done: 10, failed: 0 }, actor: of.admin.subject },
    ]);
    await t.rejects(vault.keys.cancelRotation(of.admin, of.team, rotation.id), {
      code: 'rotationNotRunning',
    });
    await t.rejects(
      vault.keys.cancelRotation(of.admin, (await makeTeam(vault, 'other')).team, rotation.id),
      { code: 'notFound' },
    );
    const next = await vault.keys.startRotation(of.admin, of.team, noClaim);
    t.equal(next.total, 40);
    vault.worker().start();
    t.match(await ended(vault, of.team, next.id), { state: 'completed', done: 40 });
  },
);

t.test(
  'a rotation ends once: not after it was cancelled, and not for two who found nothing left',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 5);
    const parts = { db: vault.db, keyring: vault.keyring, audit: vault.audit, now: Date.now };
    const moved = async () => {
      const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
      const [running] = await listRunningRotations(vault.db);
      await reencryptBatch(parts, running!, { limit: 10, passOver: [], after: undefined });
      return { id: rotation.id, running: running! };
    };
    const cancelled = await moved();
    await vault.keys.cancelRotation(of.admin, of.team, cancelled.id);
    t.equal(await endIfDone(parts, cancelled.running), false);
    t.match(await vault.keys.getRotation(of.team, cancelled.id), { state: 'cancelled', done: 5 });
    const completed = await moved();
    t.strictSame(
      (await Promise.all([1, 2, 3].map(() => endIfDone(parts, completed.running)))).toSorted(),
      [false, false, true],
    );
    t.equal((await eventsOf(vault.db, of.team.id, 'key.rotationEnd')).length, 1);
  },
);

t.test('a batch that was being moved when its rotation was cancelled is not kept', async (t) => {
  const vault = await tokenVault(t);
  const of = await makeTeam(vault, 'payments');
  await addCredentials(vault, of, 10);
  const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
  const [running] = await listRunningRotations(vault.db);
  const before = await tokensOf(vault.db, of.team.id);
  let isCancelled: Promise<unknown> | undefined;
  const keyring = Object.assign(Object.create(null), {
    reseal: (...given: Parameters<Keyring['reseal']>) => {
      isCancelled ??= vault.keys.cancelRotation(of.admin, of.team, rotation.id);
      return vault.keyring.reseal(...given);
    },
  }) as Keyring;
  // Between re-encrypting and storing, the batch waits until the cancelling is committed.
  const audit = Object.assign(Object.create(null), {
    record: async (...given: Parameters<typeof vault.audit.record>) => {
      await isCancelled;
      return vault.audit.record(...given);
    },
  }) as typeof vault.audit;
  const parts = { db: vault.db, keyring, audit, now: Date.now };
  t.match(await reencryptBatch(parts, running!, { limit: 10, passOver: [], after: undefined }), {
    moved: 0,
    failed: 0,
    last: undefined,
  });
  t.strictSame(await tokensOf(vault.db, of.team.id), before);
  t.match(await vault.keys.getRotation(of.team, rotation.id), { state: 'cancelled', done: 0 });
});

t.test(
  'trouble with the database holds a rotation up and is told once; it goes on by itself',
  async (t) => {
    const vault = await tokenVault(t);
    const of = await makeTeam(vault, 'payments');
    await addCredentials(vault, of, 5);
    const rotation = await vault.keys.startRotation(of.admin, of.team, noClaim);
    await sql`create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = '53100'; end $$`.execute(
      vault.db,
    );
    await sql`create trigger refuse before update of token on credential_version for each row execute function refuse()`.execute(
      vault.db,
    );
    const errors: Error[] = [];
    vault.worker({ pollMs: 1, onError: (error) => errors.push(error) }).start();
    await until(() => errors.length > 0);
    t.match(errors, [{ message: `rotation ${rotation.id} is held up`, cause: { code: '53100' } }]);
    await sql`drop trigger refuse on credential_version`.execute(vault.db);
    t.match(await ended(vault, of.team, rotation.id), { state: 'completed', done: 5 });
    t.equal(errors.length, 1);
  },
);
