// A writer to the database cannot share with themselves: every sealed column of a grant is changed
// by SQL, one at a time, and what comes of it is a denial, an event and an alarm; put back, it
// counts again.
import { sql } from 'kysely';
import t from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { CredentialsService } from '../../src/credentials/service.ts';
import { Subjects } from '../../src/db/subjects.ts';
import { SharingService } from '../../src/sharing/service.ts';
import type { SubjectId, TeamId } from '../../src/shared/ids.ts';
import { type Finding, verifyAll } from '../../src/integrity/verify.ts';
import { recomputeRowMacs } from '../../src/integrity/recompute-row-macs.ts';
import { unbounded } from '../../src/access/issuers.ts';
import { tampered, intrude } from '../helpers/intruder.ts';
import { askLease, demand, registerEngine, rulesOf, storeOpenai } from '../helpers/leases.ts';
import { startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };

t.test('sealed grants', async (t) => {
  const vault = await startVault(t);
  const { db } = vault;
  await vault.team('payments');
  await vault.team('sales', ['bella']);
  await vault.team('evil', ['mallory']);
  const engine = await registerEngine(vault, 'bot');
  await vault.member('sales', 'bot', 'engine', 'bella');
  await vault.member('sales', 'eddie', 'editor', 'bella');
  const shared = await storeOpenai(vault, 'payments', 'shared', 'sk-shared');
  const kept = await storeOpenai(vault, 'payments', 'kept', 'sk-kept');
  const foreign = await storeOpenai(vault, 'evil', 'shared', 'sk-evil', {}, 'mallory');
  const grant = (id: string, to: string, access: string, as = 'alice'): Promise<any> =>
    demand(vault.call(as, 'PUT', `/v1/credentials/${id}/grants/${to}`, { access }, any), 200);
  const toSales = await grant(shared.id, 'teams/sales', 'use');
  const toNora = await grant(shared.id, 'subjects/nora', 'read');
  await grant(foreign.id, 'teams/sales', 'use', 'mallory');
  const one = async (table: string, where: string): Promise<string> =>
    (
      await sql<{ id: string }>`select id from ${sql.table(table)} where ${sql.raw(where)}`.execute(
        db,
      )
    ).rows[0]!.id;
  const [payments, evil, mallory, nora] = [
    await one('team', "slug = 'payments'"),
    await one('team', "slug = 'evil'"),
    await one('subject', "sub = 'mallory'"),
    await one('subject', "sub = 'nora'"),
  ];
  const alarms = (): number => vault.logs.filter((line) => line.includes('"sealBroken"')).length;
  const sales = `id = '${toSales.id}'`;
  const noras = `id = '${toNora.id}'`;

  const lease = (id = shared.id): Promise<string> =>
    askLease(vault, 'bot', [{ id }], { onBehalfOf: 'eddie' }).then((answer) =>
      answer.status === 201 ? 'leased' : String(rulesOf(answer)),
    );
  const leaseByName = (): Promise<string> =>
    askLease(vault, 'bot', [{ team: 'payments', name: 'shared' }], { onBehalfOf: 'eddie' }).then(
      (answer) =>
        answer.status === 201
          ? `leased ${answer.json.credentials[0].id === shared.id ? 'ours' : 'theirs'}`
          : String(rulesOf(answer)),
    );
  const read =
    (as: string, id = shared.id) =>
    (): Promise<string> =>
      vault.call(as, 'GET', `/v1/credentials/${id}`).then(({ status }) => String(status));
  t.equal(await lease(), 'leased');
  t.equal(await read('nora')(), '200');

  const cases: readonly (readonly [
    what: string,
    table: string,
    statement: string,
    ask: () => Promise<string>,
    got: string,
  ])[] = [
    [
      'more access',
      'credential_grant',
      `update credential_grant set access = 'use' where ${noras}`,
      read('nora'),
      '404',
    ],
    [
      'less access',
      'credential_grant',
      `update credential_grant set access = 'read' where ${sales}`,
      lease,
      '/credentials/0 notFound',
    ],
    [
      'revision',
      'credential_grant',
      `update credential_grant set revision = revision + 1 where ${sales}`,
      lease,
      '/credentials/0 notFound',
    ],
    [
      'id',
      'credential_grant',
      `update credential_grant set id = '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d' where ${sales}`,
      lease,
      '/credentials/0 notFound',
    ],
    [
      'row MAC of nothing',
      'credential_grant',
      `update credential_grant set seal = '\\x' where ${sales}`,
      lease,
      '/credentials/0 notFound',
    ],
    [
      'row MAC of another grant',
      'credential_grant',
      `update credential_grant set seal = (select seal from credential_grant where ${noras}) where ${sales}`,
      lease,
      '/credentials/0 notFound',
    ],
    [
      'another credential',
      'credential_grant',
      `update credential_grant set credential_id = '${kept.id}' where ${sales}`,
      () => lease(kept.id),
      '/credentials/0 notFound',
    ],
    [
      'another team',
      'credential_grant',
      `update credential_grant set grantee_team_id = '${evil}' where ${sales}`,
      read('mallory'),
      '404',
    ],
    [
      'another subject',
      'credential_grant',
      `update credential_grant set grantee_subject_id = '${mallory}' where ${noras}`,
      read('mallory'),
      '404',
    ],
    [
      'to a subject in place of a team',
      'credential_grant',
      `update credential_grant set grantee_kind = 'subject', grantee_team_id = null, grantee_subject_id = '${mallory}' where ${sales}`,
      read('mallory'),
      '404',
    ],
    [
      'to an engine in place of a person',
      'credential_grant',
      `update credential_grant set grantee_kind = 'engine' where ${noras}`,
      read('nora'),
      '404',
    ],
    [
      'a row of their own',
      'credential_grant',
      `insert into credential_grant (id, team_id, credential_id, grantee_kind, grantee_subject_id, access, revision, seal, created_at, created_by, updated_at, updated_by)
      select '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d', '${payments}', '${kept.id}', 'subject', '${mallory}', 'use', 1, seal, created_at, created_by, updated_at, updated_by from credential_grant where ${noras}`,
      read('mallory', kept.id),
      '404',
    ],
    [
      'the sub of the subject',
      'subject',
      `update subject set sub = 'eve' where id = '${nora}'`,
      read('eve'),
      '404',
    ],
    [
      'the membership in the receiving team',
      'membership',
      `update membership set revision = revision + 1 where team_id = (select id from team where slug = 'sales') and role = 'engine'`,
      lease,
      '/credentials/0 notFound',
    ],
    [
      'the registration of the engine',
      'engine',
      `update engine set revision = revision + 1 where id = '${engine.id}'`,
      read('bot'),
      '404',
    ],
    [
      'the role of the person',
      'membership',
      `update membership set role = 'admin' where subject_id = (select id from subject where sub = 'eddie')`,
      lease,
      '/credentials/0 onBehalfOfRefused',
    ],
  ];
  for (const [what, table, statement, ask, got] of cases) {
    await t.test(what, async (t) => {
      vault.clock.ms += 61_000;
      const before = alarms();
      await tampered(db, { table, statement }, async () => {
        t.equal(await ask(), got);
      });
      t.ok(alarms() > before, 'an alarm');
      t.equal(await lease(), 'leased', 'put back, it counts again');
    });
  }

  await t.test(
    "two slugs that change places: the name of a team does not lead to another's credential",
    async (t) => {
      t.equal(await leaseByName(), 'leased ours');
      vault.clock.ms += 61_000;
      await intrude(
        db,
        `update team set slug = 'between' where slug = 'payments'`,
        `update team set slug = 'payments' where slug = 'evil'`,
        `update team set slug = 'evil' where slug = 'between'`,
      );
      t.equal(await leaseByName(), '/credentials/0 notFound');
      await intrude(
        db,
        `update team set slug = 'between' where slug = 'payments'`,
        `update team set slug = 'payments' where slug = 'evil'`,
        `update team set slug = 'evil' where slug = 'between'`,
      );
      t.equal(await leaseByName(), 'leased ours');
    },
  );

  await t.test(
    'a credential that is tampered with after it was looked at is granted to nobody',
    async (t) => {
      const now = (): number => Date.now() + vault.clock.ms;
      const audit = new AuditLog({
        db,
        keyring: vault.keyring,
        now,
        onError: () => undefined,
        onAlarm: () => undefined,
      });
      const parts = { db, keyring: vault.keyring, audit, now };
      const service = new SharingService({
        subjectBounds: unbounded,
        canShow: () => true,
        ...parts,
        subjects: new Subjects(),
        isEngine: async () => false,
      });
      const row = await new CredentialsService({
        subjectBounds: unbounded,
        ...parts,
        canShow: () => true,
      }).getCredential({ id: payments as TeamId, slug: 'payments' }, kept.id);
      const alice = {
        sub: 'alice',
        subject: (await one('subject', "sub = 'alice'")) as SubjectId,
        isOperator: false,
        requestId: 'a-request',
        address: null,
      };
      const to = { kind: 'subject', name: 'mallory' } as const;
      await tampered(
        db,
        {
          table: 'credential',
          statement: `update credential set name = 'better' where id = '${kept.id}'`,
        },
        async () => {
          await t.rejects(service.putGrant(alice, row, to, 'use', undefined), {
            code: 'notFound',
          } as never);
        },
      );
      t.equal((await service.putGrant(alice, row, to, 'read', undefined)).access, 'read');
      await service.removeGrant(alice, row, to, 'any');
    },
  );

  await t.test('denials stand in the audit log of the owner', async (t) => {
    const { items } = await demand(
      vault.call('alice', 'GET', '/v1/teams/payments/audit-events?decision=deny&limit=200'),
      200,
    );
    t.ok(items.filter(({ reason }: { reason: string }) => reason === 'sealBroken').length >= 12);
  });

  await t.test(
    'the integrity scan finds it; a list shows it; putting it anew mends it',
    async (t) => {
      const scan = async (): Promise<Finding[]> => {
        const found: Finding[] = [];
        await verifyAll(vault, {
          onFinding: (finding) => {
            found.push(finding);
          },
          isStopping: () => false,
        });
        return found;
      };
      t.same(await scan(), []);
      await intrude(db, `update credential_grant set access = 'use' where ${noras}`);
      t.same(await scan(), [{ table: 'credential_grant', row: toNora.id, fault: 'sealBroken' }]);
      t.equal(await recomputeRowMacs(db, vault.keyring, () => false), 0, 'and nothing seals it');
      const { items } = await demand(
        vault.call('alice', 'GET', `/v1/credentials/${shared.id}/grants`),
        200,
      );
      t.match(
        items.find(({ id }: { id: string }) => id === toNora.id),
        { intact: false },
      );
      await grant(shared.id, 'subjects/nora', 'read');
      t.same(await scan(), []);
      t.equal(await read('nora')(), '200');
    },
  );
});
