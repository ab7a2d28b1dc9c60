// The opening of a credential for a use of the vault's own: by the row as it is at that moment, not
// as the hook saw it.
import { sql } from 'kysely';
import t from 'tap';
import { AuditLog } from '../../src/audit/record.ts';
import { CredentialsService } from '../../src/credentials/service.ts';
import { unbounded } from '../../src/access/issuers.ts';
import { demand, storeOpenai } from '../helpers/leases.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';
import type { CredentialRow } from '../../src/credentials/rows.ts';

async function setStage(
  t: Parameters<typeof startVault>[0],
): Promise<{ vault: TestVault; use: () => Promise<string>; row: CredentialRow }> {
  const vault = await startVault(t);
  await vault.team('payments');
  const { id } = await storeOpenai(vault, 'payments', 'openai', 'sk-0123456789');
  const { db, keyring } = vault;
  const now = (): number => Date.now() + vault.clock.ms;
  const audit = new AuditLog({
    db,
    keyring,
    now,
    onError: () => undefined,
    onAlarm: () => undefined,
  });
  const service = new CredentialsService({
    subjectBounds: unbounded,
    db,
    keyring,
    audit,
    now,
    canShow: () => true,
  });
  const { team, slug } = (
    await sql<{
      team: CredentialRow['team'];
      slug: string;
    }>`select id as team, slug from team`.execute(db)
  ).rows[0]!;
  const row = await service.getCredential({ id: team, slug }, id);
  const { subject } = (
    await sql<{ subject: never }>`select id as subject from subject where sub = 'alice'`.execute(db)
  ).rows[0]!;
  const caller = { sub: 'alice', subject, isOperator: false, requestId: 'test', address: null };
  const use = async (): Promise<string> => {
    const before = await countEvents(vault);
    const outcome = await service
      .openForUse(caller, row, { action: 'credential.test', details: {} }, undefined)
      .then(
        ({ secrets, row: { version } }) => `${version} ${secrets.expose()['apiKey'] ?? ''}`,
        (error: { code?: string }) => String(error.code),
      );
    return `${outcome}, ${(await countEvents(vault)) - before} events`;
  };
  return { vault, use, row };
}
const countEvents = async ({ db }: TestVault): Promise<number> =>
  Number(
    (
      await sql<{
        n: string;
      }>`select count(*) as n from audit_event where action = 'credential.test'`.execute(db)
    ).rows[0]?.n,
  );

t.test('what was replaced since is opened as it is now, and recorded', async (t) => {
  const { vault, use, row } = await setStage(t);
  t.equal(await use(), '1 sk-0123456789, 1 events');
  await demand(
    vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${row.id}`,
      { fields: { apiKey: 'sk-another-one' } },
      { 'if-match': '*' },
    ),
    200,
  );
  t.equal(await use(), '2 sk-another-one, 1 events');
});

t.test(
  'what was disabled or deleted since, or changed past the vault, is not opened',
  async (t) => {
    const { vault, use, row } = await setStage(t);
    await demand(vault.call('alice', 'POST', `/v1/credentials/${row.id}/disable`), 200);
    t.equal(await use(), 'stateConflict, 0 events');
    await sql`update credential set state = 'enabled' where id = ${row.id}`.execute(vault.db);
    t.equal(await use(), 'notFound, 0 events', 'its row MAC does not verify');
    await sql`update credential set state = 'disabled' where id = ${row.id}`.execute(vault.db);
    await demand(
      vault.call('alice', 'DELETE', `/v1/credentials/${row.id}`, undefined, { 'if-match': '*' }),
      204,
    );
    t.equal(await use(), 'notFound, 0 events');
  },
);
