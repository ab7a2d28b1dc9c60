// Acceptance beside everything else: rotations of both teams, changes of the credential, others who
// accept or end the offer.
import { sql } from 'kysely';
import t from 'tap';
import type { CredentialId } from '../../src/shared/ids.ts';
import { intrude } from '../helpers/intruder.ts';
import { demand, storeOpenai } from '../helpers/leases.ts';
import { accept, keysOf, moveStage, offer, rotate, scan, versionsOf } from '../helpers/moves.ts';
import { until } from '../helpers/processes.ts';
import { type Answer, startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };

t.test(
  "rotations of both teams while credentials move: every token ends under its own team's active key",
  async (t) => {
    const vault = await startVault(t);
    await vault.team('payments');
    await vault.team('billing', ['bella']);
    const ids: string[] = [];
    for (let i = 0; i < 40; i += 1) {
      const { id } = await storeOpenai(
        vault,
        i % 2 === 0 ? 'payments' : 'billing',
        `moving-${i}`,
        `sk-${i}`,
        {},
        i % 2 === 0 ? 'alice' : 'bella',
      );
      await demand(
        vault.call(
          i % 2 === 0 ? 'alice' : 'bella',
          'PATCH',
          `/v1/credentials/${id}`,
          { fields: { apiKey: `sk-${i}-next` } },
          any,
        ),
        200,
      );
      ids.push(id);
    }
    vault.start();
    const move = async (id: string, i: number): Promise<string> => {
      const [from, to] = i % 2 === 0 ? ['alice', 'bella'] : ['bella', 'alice'];
      const made = await offer(vault, id, from, i % 2 === 0 ? 'billing' : 'payments');
      for (;;) {
        const { status, json } = await accept(vault, made, to);
        if (json?.code !== 'keyBusy') return `${status} ${json?.code ?? ''}`;
      }
    };
    const [moved, ...rotations] = await Promise.all([
      Promise.all(ids.map(move)),
      rotate(vault, 'payments', 'alice'),
      rotate(vault, 'billing', 'bella'),
    ]);
    t.same(
      moved.filter((outcome) => outcome !== '200 '),
      [],
    );
    t.same(
      rotations.map(({ state, failed }) => ({ state, failed })),
      [
        { state: 'completed', failed: 0 },
        { state: 'completed', failed: 0 },
      ],
    );
    t.same(await scan(vault), []);
    const astray =
      await sql`select 1 from credential_version version join data_key on data_key.id = version.data_key_id join credential on credential.id = version.credential_id
    where data_key.state <> 'active' or data_key.team_id <> version.team_id or credential.team_id <> version.team_id`.execute(
        vault.db,
      );
    t.equal(astray.rows.length, 0);
    for (const [team, admin] of [
      ['payments', 'alice'],
      ['billing', 'bella'],
    ] as const) {
      for (const key of (await keysOf(vault, team)).slice(0, -1))
        await demand(vault.call(admin, 'POST', `/v1/teams/${team}/keys/${key}/retire`), 200);
    }
    t.equal(
      (
        await sql`select 1 from credential_version where credential_id = ${ids[0]}`.execute(
          vault.db,
        )
      ).rows.length,
      2,
    );
  },
);

t.test(
  'a version that a rotation could not open moves once it is repaired, and leaves the rotation',
  async (t) => {
    const { vault, id } = await moveStage(t);
    vault.start();
    const good = (await versionsOf(vault, id))[0].token;
    await intrude(
      vault.db,
      `update credential_version set token = (select token from credential_version where credential_id = '${id}' and version = 2) where credential_id = '${id}' and version = 1`,
    );
    const rotation = await rotate(vault, 'payments', 'alice');
    t.match(rotation, { state: 'completedWithFailures', failed: 1 });
    const failures = async (): Promise<any[]> =>
      (
        await demand(
          vault.call('alice', 'GET', `/v1/teams/payments/key-rotations/${rotation.id}`),
          200,
        )
      ).failures;
    t.match(await failures(), [{ credential: id, version: 1 }]);
    const transfer = await offer(vault, id);
    t.match(await accept(vault, transfer), { status: 409, json: { code: 'undecryptable' } });
    await intrude(
      vault.db,
      `update credential_version set token = '${good}' where credential_id = '${id}' and version = 1`,
    );
    await demand(accept(vault, transfer), 200);
    t.same(await failures(), [], 'what has moved away is told to the former team no more');
    t.same(await scan(vault), []);
    const [former] = await keysOf(vault, 'payments');
    await demand(vault.call('alice', 'POST', `/v1/teams/payments/keys/${former}/retire`), 200);
  },
);

t.test('two connections: whoever comes second sees what the first has done', async (t) => {
  const { vault, id } = await moveStage(t);
  const path = `/v1/credentials/${id}`;
  /** Holds a lock until `asked` waits for it, then lets go. */
  const behind = async (statement: string, ask: () => Promise<Answer>): Promise<Answer> => {
    let asked: Promise<Answer> | undefined;
    await vault.db.transaction().execute(async (trx) => {
      await sql.raw(statement).execute(trx);
      asked = ask();
      await until(
        async () =>
          (
            await sql<{
              n: number;
            }>`select count(*)::int as n from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()`.execute(
              vault.db,
            )
          ).rows[0]!.n > 0,
      );
    });
    return asked!;
  };
  await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'), 202); // nobody moves but the batch below
  const first = await offer(vault, id);
  const {
    rows: [held],
  } = await sql<any>`
    select version.token, version.team_id as team, version.public_fields, version.policy, jsonb_object_agg(data_key.state, data_key.id) as keys from credential_version version join data_key on data_key.team_id = version.team_id
    where version.credential_id = ${id} and version.version = 2 group by 1, 2, 3, 4`.execute(
    vault.db,
  );
  const keyNamed = async (key: string): Promise<any> =>
    (
      await sql`select id, team_id as team, version, format, root_fingerprint as "rootFingerprint", wrapped from data_key where id = ${key}`.execute(
        vault.db,
      )
    ).rows[0];
  const moved = vault.keyring.reseal(
    await keyNamed(held.keys.decryptOnly),
    await keyNamed(held.keys.active),
    {
      team: held.team,
      credential: id as CredentialId,
      version: 2,
      type: 'openai',
      publicFields: held.public_fields,
      policy: held.policy,
    },
    held.token,
  );
  t.equal(
    (
      await behind(
        `update credential_version set token = '${moved}', data_key_id = '${held.keys.active}' where credential_id = '${id}' and version = 2`,
        () => accept(vault, first),
      )
    ).status,
    200,
    'behind a batch of a rotation',
  );
  t.same(await scan(vault), []);
  const back = await offer(vault, id, 'bella', 'payments');
  t.equal(
    (
      await behind(`select 1 from credential where id = '${id}' for no key update`, () =>
        accept(vault, back, 'alice'),
      )
    ).status,
    200,
    'behind a change',
  );
  const deleted = await offer(vault, id);
  t.equal(
    (
      await behind(
        `select 1 from credential where id = '${id}' for no key update; delete from credential_transfer where id = '${deleted.id}'`,
        () => accept(vault, deleted),
      )
    ).status,
    404,
    'behind a withdrawal',
  );

  const raced = await offer(vault, id);
  const outcomes = await Promise.all([
    accept(vault, raced),
    accept(vault, raced),
    vault.call('alice', 'DELETE', `/v1/transfers/${raced.id}`),
  ]);
  const won = outcomes.filter(({ status }) => status < 300);
  t.equal(won.length, 1, `one of three wins: ${String(outcomes.map(({ status }) => status))}`);
  t.ok(outcomes.every(({ status }) => [200, 204, 404].includes(status)));
  const { slug: owner } = (
    await sql<{
      slug: string;
    }>`select slug from credential join team on team.id = team_id where credential.id = ${id}`.execute(
      vault.db,
    )
  ).rows[0]!;
  const admin = owner === 'payments' ? 'alice' : 'bella';

  for (const [what, ask] of [
    [
      'an update',
      () => vault.call(admin, 'PATCH', path, { fields: { apiKey: 'sk-late-value' } }, any),
    ],
    ['a deletion', () => vault.call(admin, 'DELETE', path, undefined, any)],
    [
      'a grant',
      () => vault.call(admin, 'PUT', `${path}/grants/subjects/nora`, { access: 'use' }, any),
    ],
    ['a restored version', () => vault.call(admin, 'POST', `${path}/versions/1/restore`)],
  ] as const) {
    const there = await offer(vault, id, admin, owner === 'payments' ? 'billing' : 'payments');
    const [taken, changed] = await Promise.all([
      accept(vault, there, admin === 'alice' ? 'bella' : 'alice'),
      ask(),
    ]);
    t.ok(
      [
        [200, 200],
        [200, 404],
        [200, 204],
        [404, 204],
        [404, 200],
      ].some(([a, b]) => taken.status === a && changed.status === b),
      `${what}: ${taken.status} ${changed.status}`,
    );
    t.same(await scan(vault), [], `${what}: all of it holds`);
    if (taken.status === 200)
      t.equal(
        (await sql`select 1 from credential_grant`.execute(vault.db)).rows.length,
        0,
        `${what}: no grant survives`,
      );
    if (changed.status === 204 && taken.status !== 200)
      await demand(vault.call(admin, 'POST', `${path}/restore`), 200);
    if (taken.status === 200)
      await demand(
        accept(vault, await offer(vault, id, admin === 'alice' ? 'bella' : 'alice', owner), admin),
        200,
      );
    await sql`delete from credential_transfer`.execute(vault.db);
  }
});
