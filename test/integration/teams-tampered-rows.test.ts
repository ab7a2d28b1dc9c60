// A writer to the database cannot give themselves a right: every sealed column of a membership is
// changed by SQL, one at a time, and what comes of it is a denial, an event and an alarm; put back,
// it counts again.
import t from 'tap';
import { sql } from 'kysely';
import { tampered } from '../helpers/intruder.ts';
import { registerEngine } from '../helpers/leases.ts';
import { startVault } from '../helpers/vault.ts';

t.test('sealed memberships', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments');
  await vault.team('elsewhere', ['mallory']);
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'vera', 'viewer');
  await vault.member('payments', 'n8n', 'engine');
  await vault.member('elsewhere', 'vera', 'admin', 'mallory');
  const {
    json: { id },
  } = await call('alice', 'POST', '/v1/teams/payments/credentials', {
    name: 'one',
    type: 'bearer',
    fields: { token: 'a-secret-token' },
  });
  const idOf = async (sub: string): Promise<string> =>
    (await db.selectFrom('subject').select('id').where('sub', '=', sub).executeTakeFirstOrThrow())
      .id;
  const teamOf = async (slug: string): Promise<string> =>
    (await db.selectFrom('team').select('id').where('slug', '=', slug).executeTakeFirstOrThrow())
      .id;
  const [vera, mallory, n8n, payments, elsewhere] = [
    await idOf('vera'),
    await idOf('mallory'),
    await idOf('n8n'),
    await teamOf('payments'),
    await teamOf('elsewhere'),
  ];
  const row = `team_id = '${payments}' and subject_id = '${vera}'`;
  const engineRow = `team_id = '${payments}' and subject_id = '${n8n}'`;
  const copyOf = (
    values: string,
    from: string,
  ): string => `insert into membership (team_id, subject_id, role, acts_for_itself, revision, seal, created_at, created_by, updated_at, updated_by)
    select ${values}, created_at, created_by, updated_at, updated_by from membership where ${from}`;

  /**
   * [what is done, in which table, by which statement, who tries, on which team's things, whether
   * there is a row to be alarmed about]
   */
  const cases: readonly (readonly [string, string, string, string, string, boolean])[] = [
    [
      'role',
      'membership',
      `update membership set role = 'admin' where ${row}`,
      'vera',
      'payments',
      true,
    ],
    [
      'acts_for_itself',
      'membership',
      `update membership set acts_for_itself = true where ${engineRow}`,
      'n8n',
      'payments',
      true,
    ],
    [
      'revision',
      'membership',
      `update membership set revision = revision + 1 where ${row}`,
      'vera',
      'payments',
      true,
    ],
    [
      'team_id',
      'membership',
      `update membership set team_id = '${payments}' where subject_id = '${mallory}'`,
      'mallory',
      'payments',
      true,
    ],
    [
      'team_id, away',
      'membership',
      `update membership set team_id = '${elsewhere}' where ${engineRow}`,
      'n8n',
      'elsewhere',
      true,
    ],
    [
      'subject_id',
      'membership',
      `update membership set subject_id = '${mallory}' where team_id = '${payments}' and role = 'admin'`,
      'mallory',
      'payments',
      true,
    ],
    [
      'row MAC of nothing',
      'membership',
      `update membership set seal = '\\x' where ${row}`,
      'vera',
      'payments',
      true,
    ],
    [
      'row MAC of zeros',
      'membership',
      `update membership set seal = decode(repeat('00', 34), 'hex') where ${row}`,
      'vera',
      'payments',
      true,
    ],
    [
      'row MAC with a bit turned',
      'membership',
      `update membership set seal = set_bit(seal, 271, 1 - get_bit(seal, 271)) where ${row}`,
      'vera',
      'payments',
      true,
    ],
    [
      'row MAC under another key version',
      'membership',
      `update membership set seal = set_byte(seal, 1, 2) where ${row}`,
      'vera',
      'payments',
      true,
    ],
    [
      'row MAC of another row',
      'membership',
      `update membership set seal = (select seal from membership where team_id = '${payments}' and role = 'admin') where ${row}`,
      'vera',
      'payments',
      true,
    ],
    [
      'role and row MAC of the admin',
      'membership',
      `update membership m set role = a.role, seal = a.seal, revision = a.revision from membership a where a.team_id = '${payments}' and a.role = 'admin' and m.team_id = '${payments}' and m.subject_id = '${vera}'`,
      'vera',
      'payments',
      true,
    ],
    [
      'role and row MAC of the same person in another team',
      'membership',
      `update membership m set role = a.role, seal = a.seal, revision = a.revision from membership a where a.team_id = '${elsewhere}' and a.subject_id = '${vera}' and m.team_id = '${payments}' and m.subject_id = '${vera}'`,
      'vera',
      'payments',
      true,
    ],
    [
      'a row made by hand',
      'membership',
      copyOf(
        `'${payments}', '${mallory}', 'admin', false, 1, decode(repeat('00', 34), 'hex')`,
        row,
      ),
      'mallory',
      'payments',
      true,
    ],
    [
      'a row copied from another person',
      'membership',
      copyOf(
        `'${payments}', '${mallory}', role, acts_for_itself, revision, seal`,
        `team_id = '${payments}' and role = 'admin'`,
      ),
      'mallory',
      'payments',
      true,
    ],
    [
      'a row copied from another team',
      'membership',
      copyOf(
        `'${payments}', '${mallory}', role, acts_for_itself, revision, seal`,
        `team_id = '${elsewhere}' and subject_id = '${mallory}'`,
      ),
      'mallory',
      'payments',
      true,
    ],
    [
      'another slug',
      'team',
      `update team set slug = 'renamed' where id = '${payments}'`,
      'vera',
      'renamed',
      true,
    ],
    [
      'another sub',
      'subject',
      `update subject set sub = 'oscar' where id = '${vera}'`,
      'oscar',
      'payments',
      true,
    ],
    [
      'the engine behind the role is enabled by hand',
      'engine',
      `update engine set revision = revision + 1 where id = '${engine.id}'`,
      'n8n',
      'payments',
      true,
    ],
    [
      'no engine behind the role',
      'engine',
      `update engine set subject_id = '${mallory}' where id = '${engine.id}'`,
      'n8n',
      'payments',
      false,
    ],
  ];
  const url = (team: string): string =>
    team === 'renamed'
      ? '/v1/teams/renamed'
      : team === 'elsewhere'
        ? '/v1/teams/elsewhere'
        : `/v1/credentials/${id}`;
  const events = async (): Promise<number> =>
    (
      await sql<{
        n: number;
      }>`select count(*) as n from audit_event where decision = 'deny' and reason = 'sealBroken'`.execute(
        db,
      )
    ).rows[0]?.n ?? 0;
  const alarms = (): number =>
    vault.logs.filter(
      (line) => line.includes('"event":"sealBroken"') && line.includes('"level":50'),
    ).length;
  const missing = (
    await call('mallory', 'GET', '/v1/credentials/019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d')
  ).json;

  for (const [what, table, statement, who, team, isAlarming] of cases) {
    await t.test(what, async (t) => {
      vault.clock.ms += 61_000;
      const before = { events: await events(), alarms: alarms() };
      await tampered(db, { table, statement }, async () => {
        const answer = await call(who, 'GET', url(team));
        t.equal(answer.status, 404, answer.text);
        t.strictSame(
          { ...answer.json, requestId: '' },
          { ...missing, requestId: '' },
          'as if there were nothing',
        );
        t.equal(
          (await call(who, 'PATCH', `/v1/teams/${team}`, { name: 'mine' }, { 'if-match': '*' }))
            .status,
          404,
        );
        const listed = await call(who, 'GET', '/v1/credentials');
        t.match([listed.status, listed.json.items], [200, []], 'nor in a list');
        t.notOk(
          (await call(who, 'GET', '/v1/whoami')).json.teams.some(
            (each: { team: string }) => each.team === team,
          ),
        );
      });
      if (isAlarming) {
        t.ok((await events()) > before.events, 'an event');
        t.ok(alarms() > before.alarms, 'an alarm');
      }
      t.equal(
        (await call('vera', 'GET', `/v1/credentials/${id}`)).status,
        200,
        'put back, it counts again',
      );
      t.equal((await call('n8n', 'GET', `/v1/credentials/${id}`)).status, 200);
      t.equal((await call('mallory', 'GET', `/v1/credentials/${id}`)).status, 404);
    });
  }

  t.test(
    'the event is in the audit log of the team that it is about, with who tried',
    async (t) => {
      await tampered(
        db,
        { table: 'membership', statement: `update membership set role = 'admin' where ${row}` },
        async () => {
          vault.clock.ms += 61_000;
          await call(
            'vera',
            'PUT',
            '/v1/teams/payments/members/vera',
            { role: 'admin' },
            { 'if-match': '*' },
          );
        },
      );
      const auditLog = (
        await call('alice', 'GET', '/v1/teams/payments/audit-events?decision=deny&limit=1')
      ).json.items;
      t.match(auditLog, [
        {
          actor: 'vera',
          action: 'team.manage',
          target: { type: 'team', id: 'payments' },
          decision: 'deny',
          reason: 'sealBroken',
          intact: true,
        },
      ]);
    },
  );
});
