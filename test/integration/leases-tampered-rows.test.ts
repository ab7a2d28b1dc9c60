// A writer to the database cannot lease to themselves: every sealed column is changed by SQL, one
// at a time, and refused; put back, it counts again. Each refusal stands in the audit log and
// raises the alarm.
import { randomBytes } from 'node:crypto';
import { test } from 'tap';
import { sql } from 'kysely';
import { generateEngineKey } from '../../src/client/index.ts';
import { readPublicJwk } from '../../src/engines/jwk.ts';
import { membershipRowMac } from '../../src/access/rights.ts';
import type { SubjectId } from '../../src/shared/ids.ts';
import { askLease, demand, registerEngine, rulesOf, storeOpenai } from '../helpers/leases.ts';
import { storedColumns } from '../helpers/intruder.ts';
import { startVault } from '../helpers/vault.ts';

test('rows with a MAC', async (t) => {
  const vault = await startVault(t);
  const { db } = vault;
  await vault.team('payments');
  await vault.team('elsewhere', ['mallory']);
  const engine = await registerEngine(vault, 'n8n');
  const other = await registerEngine(vault, 'other-engine');
  await vault.member('payments', 'n8n', 'engine');
  await vault.member('elsewhere', 'n8n', 'engine', 'mallory');
  await vault.member('payments', 'vera', 'viewer');
  const good = await storeOpenai(
    vault,
    'payments',
    'good',
    `sk-${randomBytes(24).toString('hex')}`,
  );
  const ask = (more: Record<string, unknown> = {}): ReturnType<typeof askLease> =>
    askLease(vault, 'n8n', [{ id: good.id }], more);
  const idOf = async (sub: string): Promise<string> =>
    (await db.selectFrom('subject').select('id').where('sub', '=', sub).executeTakeFirstOrThrow())
      .id;
  const [n8n, alice, vera] = [await idOf('n8n'), await idOf('alice'), await idOf('vera')];
  const alarms = (): number => vault.logs.filter((line) => line.includes('"sealBroken"')).length;

  /**
   * Runs the change with triggers and foreign keys off, asks, and puts the table back as it was.
   */
  const tampered = async (
    table: string,
    where: string,
    change: string,
    act: () => Promise<void>,
  ): Promise<void> => {
    await db.connection().execute(async (connection) => {
      const run = (text: string): Promise<{ numAffectedRows?: bigint }> =>
        sql.raw(text).execute(connection);
      await run('set session_replication_role = replica');
      await run(`create temporary table kept as select * from ${table}`);
      try {
        const { numAffectedRows } = await run(`update ${table} set ${change} where ${where}`);
        t.equal(numAffectedRows, 1n, `changes one row: ${change}`);
        await act();
      } finally {
        await run(`delete from ${table}`);
        const stored = await storedColumns(connection, table);
        await run(`insert into ${table} (${stored}) select ${stored} from kept`);
        await run('drop table kept');
        await run('set session_replication_role = origin');
      }
    });
  };

  t.equal((await ask()).status, 201);
  const foreignKey = generateEngineKey('X25519').publicJwk as {
    kty: 'OKP';
    crv: 'X25519';
    x: string;
  };
  const foreign = readPublicJwk(foreignKey) as { kid: string };
  const engineRow = `id = '${engine.id}'`;
  const membershipRow = `subject_id = '${n8n}' and team_id = (select id from team where slug = 'payments')`;

  const cases: readonly (readonly [
    table: string,
    where: string,
    change: string,
    status: number,
    rules: readonly string[],
    more?: Record<string, unknown>,
  ])[] = [
    ['engine', engineRow, `revision = revision + 1`, 403, []],
    ['engine', engineRow, `state = 'disabled', revision = revision + 1`, 403, []],
    ['engine', engineRow, `subject_id = '${alice}'`, 403, []],
    ['engine', engineRow, `id = '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d'`, 403, []],
    ['engine', engineRow, `seal = '\\x'`, 403, []],
    ['engine', engineRow, `seal = (select seal from engine where id = '${other.id}')`, 403, []],
    [
      'engine_key',
      `engine_id = '${engine.id}'`,
      `jwk = '${JSON.stringify(foreignKey)}'`,
      422,
      ['/keyId notFound'],
    ],
    [
      'engine_key',
      `engine_id = '${engine.id}'`,
      `jwk = '${JSON.stringify(foreignKey)}', kid = '${foreign.kid}'`,
      422,
      ['/keyId notFound'],
    ],
    [
      'engine_key',
      `engine_id = '${engine.id}'`,
      `kid = '${foreign.kid}'`,
      422,
      ['/keyId notFound'],
    ],
    [
      'engine_key',
      `engine_id = '${engine.id}'`,
      `revision = revision + 1`,
      422,
      ['/keyId notFound'],
    ],
    [
      'engine_key',
      `engine_id = '${engine.id}'`,
      `engine_id = '${other.id}'`,
      422,
      ['/keyId notFound'],
    ],
    ['membership', membershipRow, `revision = revision + 1`, 422, ['/credentials/0 notFound']],
    ['membership', membershipRow, `role = 'admin'`, 422, ['/credentials/0 notFound']],
    [
      'membership',
      membershipRow,
      `acts_for_itself = true`,
      422,
      ['/credentials/0 notFound'],
      { onBehalfOf: null },
    ],
    [
      'membership',
      membershipRow,
      `subject_id = '${await idOf('other-engine')}'`,
      422,
      ['/credentials/0 notFound'],
    ],
    [
      'membership',
      `subject_id = '${vera}'`,
      `role = 'editor'`,
      422,
      ['/credentials/0 onBehalfOfRefused'],
      { onBehalfOf: 'vera' },
    ],
    [
      'membership',
      `subject_id = '${alice}'`,
      `revision = revision + 1`,
      422,
      ['/credentials/0 onBehalfOfRefused'],
    ],
    ['credential', `id = '${good.id}'`, `name = 'better'`, 422, ['/credentials/0 notFound']],
    ['credential', `id = '${good.id}'`, `type = 'bearer'`, 422, ['/credentials/0 notFound']],
    ['credential', `id = '${good.id}'`, `state = 'disabled'`, 422, ['/credentials/0 notFound']],
    ['credential', `id = '${good.id}'`, `current_version = 2`, 422, ['/credentials/0 notFound']],
    [
      'credential',
      `id = '${good.id}'`,
      `expires_at = now() + interval '1 year'`,
      422,
      ['/credentials/0 notFound'],
    ],
    ['credential', `id = '${good.id}'`, `revision = 2`, 422, ['/credentials/0 notFound']],
    [
      'credential',
      `id = '${good.id}'`,
      `team_id = (select id from team where slug = 'elsewhere')`,
      422,
      ['/credentials/0 notFound'],
    ],
    [
      'credential_version',
      `credential_id = '${good.id}'`,
      `public_fields = '{"baseUrl":"https://evil.test"}'`,
      422,
      ['/credentials/0 notFound'],
    ],
    [
      'credential_version',
      `credential_id = '${good.id}'`,
      `policy = '{"delivery":["lease"],"allowedHosts":["evil.test"]}'`,
      422,
      ['/credentials/0 notFound'],
    ],
    [
      'credential_version',
      `credential_id = '${good.id}'`,
      `secret_field_names = '{}'`,
      422,
      ['/credentials/0 notFound'],
    ],
  ];
  for (const [table, where, change, status, rules, more] of cases) {
    await t.test(`${table}: ${change.slice(0, 60)}`, async (t) => {
      vault.clock.ms += 61_000;
      const before = alarms();
      await tampered(table, where, change, async () => {
        const answer = await ask(more);
        t.equal(answer.status, status, answer.text);
        t.strictSame(rulesOf(answer), rules);
      });
      const isMoved =
        change.startsWith('engine_id') ||
        (change.startsWith('subject_id') && table !== 'credential');
      if (!isMoved) t.ok(alarms() > before, 'the alarm is raised');
      t.equal((await ask()).status, 201, 'put back, it counts again');
    });
  }

  await t.test('a key that was put in beside the right ones is not sent to', async (t) => {
    vault.clock.ms += 61_000;
    await sql`insert into engine_key (engine_id, kid, jwk, revision, seal, created_at, created_by)
      select engine_id, ${foreign.kid}, ${JSON.stringify(foreignKey)}::jsonb, revision, seal, now(), created_by from engine_key where engine_id = ${engine.id}`.execute(
      db,
    );
    t.strictSame(rulesOf(await ask()), ['/keyId notFound']);
    t.strictSame(rulesOf(await ask({ keyId: foreign.kid })), ['/keyId notFound']);
    await sql`delete from engine_key where kid = ${foreign.kid}`.execute(db);
    t.equal((await ask()).status, 201);
  });

  await t.test(
    'an engine that holds another role, sealed as it should be, leases nothing',
    async (t) => {
      const { id: team } = await db
        .selectFrom('team')
        .select('id')
        .where('slug', '=', 'payments')
        .executeTakeFirstOrThrow();
      const seal = membershipRowMac(vault.keyring, {
        team,
        slug: 'payments',
        subject: n8n as SubjectId,
        sub: 'n8n',
        role: 'admin',
        actsForItself: false,
        revision: 9,
      });
      await tampered(
        'membership',
        membershipRow,
        `role = 'admin', revision = 9, seal = '\\x${seal.toString('hex')}'`,
        async () => {
          t.equal(
            (await vault.call('n8n', 'GET', '/v1/teams/payments')).status,
            200,
            'the row MAC verifies',
          );
          t.strictSame(rulesOf(await ask()), ['/credentials/0 notFound']);
        },
      );
    },
  );

  await t.test(
    "a registration that somebody changed is not sealed again by a change of the operator's",
    async (t) => {
      await tampered('engine', engineRow, `state = 'disabled'`, async () => {
        for (const [method, url, body] of [
          ['PATCH', `/v1/engines/${engine.id}`, { name: 'renamed' }],
          ['PATCH', `/v1/engines/${engine.id}`, { state: 'enabled' }],
          ['POST', `/v1/engines/${engine.id}/keys`, { key: generateEngineKey().publicJwk }],
        ] as const) {
          const answer = await vault.call('operator', method, url, body, { 'if-match': '*' });
          t.match(answer, { status: 409, json: { code: 'stateConflict' } }, `${method} ${url}`);
        }
        t.equal((await ask()).status, 403);
      });
      t.equal((await ask()).status, 201);
    },
  );

  await t.test(
    'the role engine is not given for a registration that was made by SQL',
    async (t) => {
      const subject = await idOf('vera');
      await demand(
        vault.call('alice', 'DELETE', '/v1/teams/payments/members/vera', undefined, {
          'if-match': '*',
        }),
        204,
      );
      await sql`insert into engine select '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3e', ${subject}, 'made by SQL', state, revision, seal, created_at, created_by, updated_at, updated_by from engine where id = ${engine.id}`.execute(
        db,
      );
      t.match(
        await vault.call(
          'alice',
          'PUT',
          '/v1/teams/payments/members/vera',
          { role: 'engine' },
          { 'if-match': '*' },
        ),
        { status: 409, json: { code: 'notAnEngine' } },
      );
      t.equal((await askLease(vault, 'vera', [{ id: good.id }])).status, 403);
    },
  );
});
