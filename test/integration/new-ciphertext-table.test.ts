// A table with ciphertexts joins the vault by its schema, a descriptor and one line in the list of
// descriptors: rotating, retiring, verifying, exporting, exposure, transfers and sizes take it in,
// and no other file is touched.
import { registerHooks } from 'node:module';
import { pathToFileURL } from 'node:url';
import { join } from 'node:path';
import { sql } from 'kysely';
import t from 'tap';
import type { DataKeyId, TeamId } from '../../src/shared/ids.ts';

const list = pathToFileURL(join(import.meta.dirname, '../../src/keys/tables/list.ts')).href;
const fixture = pathToFileURL(join(import.meta.dirname, '../helpers/note-table.ts')).href;
const named = '[credentialVersions, oauthTokens]';
let edited = 0;
// The line that somebody would write into the list, in memory only.
registerHooks({
  load(url, context, nextLoad) {
    const loaded = nextLoad(url, context);
    if (url !== list) return loaded;
    const source = String(loaded.source);
    if (!source.includes(named)) throw new Error('the list does not read as this test expects');
    edited += 1;
    return {
      ...loaded,
      source: `import { notes } from '${fixture}';\n${source.replace(named, '[credentialVersions, oauthTokens, notes]')}`,
    };
  },
});
// Only what is loaded from here on sees the list as it is edited.
const { createNotes, notes } = await import('../helpers/note-table.ts');
const { startVault } = await import('../helpers/vault.ts');
const { demand, storeOpenai } = await import('../helpers/leases.ts');
const { until } = await import('../helpers/processes.ts');
const { findActiveKey } = await import('../../src/credentials/repository.ts');
const { bytesOfCredential, countNext, countSmall } = await import(
  '../../src/credentials/room-repository.ts'
);
const { Secret } = await import('../../src/crypto/index.ts');
const { verifyAll } = await import('../../src/integrity/verify.ts');
const { placeOf } = await import('../../src/keys/tables/table.ts');
const { listStoredTokens } = await import('../../src/keys/tables/walking.ts');

const base = '/v1/teams/payments';
const text = 'what stands in the note';
const shown = { title: 'a note' };
const policy = { delivery: [] };

interface Note {
  readonly credential_id: string;
  readonly data_key_id: DataKeyId;
  readonly undecryptable_at: Date | null;
}

t.test('a table with ciphertexts joins by its descriptor alone', async (t) => {
  t.equal(edited, 1, 'the list was edited');
  const vault = await startVault(t);
  const { db, keyring, call } = vault;
  await createNotes(db);
  await vault.team('payments');
  await vault.team('partners', ['bob']);
  const teamOf = async (slug: string): Promise<TeamId> =>
    (await db.selectFrom('team').select('id').where('slug', '=', slug).executeTakeFirstOrThrow())
      .id;
  const [payments, partners] = [await teamOf('payments'), await teamOf('partners')];

  /** Writes a note as its feature would. */
  const writeNote = async (credential: string, history: readonly DataKeyId[] = []) => {
    const key = (await findActiveKey(db, payments))!;
    const place = placeOf(notes, {
      team: payments,
      credential: credential as never,
      number: 1,
      type: 'openai',
      publicFields: shown,
      policy,
    });
    const token = keyring.seal(key, place, new Secret({ text }));
    await sql`
      insert into credential_note
        (team_id, credential_id, edition, data_key_id, token, shown, policy, key_history)
      values (${payments}, ${credential}, 1, ${key.id}, ${token}, ${JSON.stringify(shown)}::jsonb,
        ${JSON.stringify(policy)}::jsonb, ${history}::uuid[])`.execute(db);
    return token;
  };
  const findNote = async (credential: string): Promise<Note | undefined> =>
    (
      await sql<Note>`
        select credential_id, data_key_id, undecryptable_at from credential_note
        where credential_id = ${credential}`.execute(db)
    ).rows[0];
  const openNote = async (credential: string): Promise<string | undefined> => {
    const all = await listStoredTokens(db, notes, undefined, 100);
    const note = all.find((each) => each.credential === credential)!;
    const { keyId, keyVersion, format, root, wrapped, team } = note;
    const key = {
      ...{ id: keyId, team, version: keyVersion, format, wrapped },
      rootFingerprint: root,
    };
    return keyring.open(key, placeOf(notes, note), note.token).expose()['text'];
  };
  const verify = async () => {
    const findings: { table: string; row: string; fault: string }[] = [];
    const { tokens } = await verifyAll(
      { db, keyring },
      {
        onFinding: (finding) => {
          findings.push(finding);
        },
        isStopping: () => false,
      },
    );
    return { tokens, findings };
  };
  const rotate = async () => {
    const { id } = await demand(call('alice', 'POST', `${base}/key-rotations`), 202);
    return until(async () => {
      const { json } = await call('alice', 'GET', `${base}/key-rotations/${id}`);
      return json.state !== 'running' && json;
    });
  };
  const activeKey = async (): Promise<DataKeyId> => (await findActiveKey(db, payments))!.id;
  const retire = (key: DataKeyId) => call('alice', 'POST', `${base}/keys/${key}/retire`);
  vault.start();

  const first = await activeKey();
  const whole = await storeOpenai(vault, 'payments', 'whole', 'sk-whole');
  const broken = await storeOpenai(vault, 'payments', 'broken', 'sk-broken');
  const plain = await storeOpenai(vault, 'payments', 'plain', 'sk-plain');
  await writeNote(whole.id);
  await writeNote(broken.id);

  await t.test('sizes', async (t) => {
    const [note, none] = [
      await bytesOfCredential(db, payments, whole.id),
      await bytesOfCredential(db, payments, plain.id),
    ];
    t.ok(note > none + 100, 'a note counts');
    const small = await db.transaction().execute((trx) => countSmall(trx, payments, 100));
    const pieces = await countNext(db, notes, payments, { last: undefined, lastVersion: 0 }, 1);
    t.ok(pieces.size.bytes > 100);
    t.match(pieces, { size: { living: 0, stored: 0 }, last: String });
    t.equal(
      small!.bytes,
      (await bytesOfCredential(db, payments, broken.id)) + note + none,
      'in whole',
    );
  });

  await t.test('verify', async (t) => {
    t.same(await verify(), { tokens: 5, findings: [] });
    // the same token in another row: bound to where it was
    await sql`
      update credential_note held set token = other.token from credential_note other
      where held.credential_id = ${broken.id} and other.credential_id = ${whole.id}`.execute(db);
    t.match(await verify(), {
      tokens: 5,
      findings: [{ table: 'credential_note', row: broken.id, fault: 'tokenDoesNotOpen' }],
    });
  });

  await t.test('rotating, and recording a failure', async (t) => {
    t.match(await rotate(), {
      state: 'completedWithFailures',
      total: 5,
      done: 4,
      failed: 1,
      failures: [{ credential: broken.id, version: null }],
    });
    const second = await activeKey();
    t.not(second, first);
    t.match(await findNote(whole.id), { data_key_id: second, undecryptable_at: null });
    t.equal(await openNote(whole.id), text);
    t.match(await findNote(broken.id), { data_key_id: first, undecryptable_at: Date });
    const { rows } = await sql<{ details: object; target_id: string }>`
      select details, target_id from audit_event where action = 'key.rotationRowFailed'`.execute(
      db,
    );
    t.match(rows, [{ target_id: broken.id, details: { table: 'credential_note' } }]);
    t.equal(rows.length, 1);
  });

  await t.test('exporting', async (t) => {
    const { text: exported } = await call('alice', 'GET', `${base}/export?events=false`);
    const lines = exported
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const of = (kind: string) => lines.filter((line) => line.kind === kind);
    t.match(
      of('note').toSorted((a, b) =>
        a.credential === whole.id ? -1 : b.credential === whole.id ? 1 : 0,
      ),
      [
        {
          credential: whole.id,
          number: 1,
          key: await activeKey(),
          keyHistory: [first, await activeKey()],
          undecryptableAt: null,
        },
        { credential: broken.id, key: first, undecryptableAt: String },
      ],
    );
    t.equal(of('note').length, 2);
    t.match(of('rotationFailure'), [{ credential: broken.id, version: null }]);
    t.equal(of('unreadable').length, 0);
    t.notMatch(exported, /gAAAA|QQAAA/, 'no token leaves');
  });

  await t.test('retiring', async (t) => {
    const refused = await demand(retire(first), 409);
    t.match(refused, {
      code: 'keyInUse',
      rows: { credential_version: 0, oauth_token: 0, credential_note: 1 },
    });
    const past = await sql`update data_key set state = 'retired' where id = ${first}`
      .execute(db)
      .catch((error: unknown) => error);
    t.match(past, { constraint: 'data_key_in_use' }, 'nor past the vault');
    await sql`delete from credential_note where credential_id = ${broken.id}`.execute(db);
    await demand(retire(first), 200);
  });

  await t.test('exposure', async (t) => {
    const later = await storeOpenai(vault, 'payments', 'later', 'sk-later');
    await writeNote(later.id, [first]);
    const healthOf = async (id: string) =>
      (await demand(call('alice', 'GET', `/v1/credentials/${id}`), 200)).health;
    t.equal(await healthOf(later.id), 'ok');
    await demand(
      call('alice', 'POST', `${base}/keys/${first}/mark-compromised`, {
        reason: 'a laptop is gone',
      }),
      200,
    );
    t.equal(await healthOf(later.id), 'exposed', 'by its note alone');
    const other = await storeOpenai(vault, 'payments', 'other', 'sk-other');
    t.equal(await healthOf(other.id), 'ok', 'one without a note is not');
    await writeNote(other.id);
    t.equal(await healthOf(other.id), 'ok', 'nor one whose note was never under that key');
    const listed = await demand(call('alice', 'GET', `${base}/credentials?problem=exposed`), 200);
    t.ok(
      listed.items.some(({ id }: { id: string }) => id === later.id),
      'lists know it too',
    );
  });

  await t.test('transfers', async (t) => {
    const offer = await demand(
      call('alice', 'POST', `/v1/credentials/${whole.id}/transfers`, { team: 'partners' }),
      201,
    );
    const accept = () => call('bob', 'POST', `/v1/transfers/${offer.id}/accept`);
    await sql`
      update credential_note set locked_until = now() + interval '1 day'
      where credential_id = ${whole.id}`.execute(db);
    t.match(await demand(accept(), 409), {
      code: 'stateConflict',
      detail: 'The note is being written; try again.',
    });
    await sql`update credential_note set locked_until = null`.execute(db);
    const { rows } = await sql<{ token: string }>`
      select token from credential_note where credential_id = ${whole.id}`.execute(db);
    await sql`
      update credential_note held set token = other.token from credential_note other
      where held.credential_id = ${whole.id} and other.credential_id <> ${whole.id}
        and other.data_key_id = held.data_key_id`.execute(db);
    t.match(await demand(accept(), 409), {
      code: 'undecryptable',
      detail: 'The note does not open: delete it first.',
    });
    await sql`
      update credential_note set token = ${rows[0]!.token}, undecryptable_at = now()
      where credential_id = ${whole.id}`.execute(db);
    await demand(accept(), 200);
    t.match(await findNote(whole.id), {
      data_key_id: (await findActiveKey(db, partners))!.id,
      undecryptable_at: null,
    });
    t.equal(await openNote(whole.id), text);
    t.same((await verify()).findings, []);
  });
});
