// Two teams, a credential of one of them, and its way to the other.
import { sql } from 'kysely';
import { type Finding, verifyAll } from '../../src/integrity/verify.ts';
import { demand, registerEngine, storeOpenai, type TestEngine } from './leases.ts';
import { until } from './processes.ts';
import { type Answer, startVault, type TestVault } from './vault.ts';

const any = { 'if-match': '*' };
const both = { policy: { delivery: ['lease', 'broker'], allowedHosts: [] } };

export interface MoveStage {
  readonly vault: TestVault;
  readonly id: string;
  readonly bot: TestEngine;
}

/**
 * `payments` (alice, engine n8n) and `billing` (bella, engine bot); a credential of three versions.
 */
export async function moveStage(t: Parameters<typeof startVault>[0]): Promise<MoveStage> {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('billing', ['bella']);
  await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const bot = await registerEngine(vault, 'bot');
  await vault.member('billing', 'bot', 'engine', 'bella');
  const { id } = await storeOpenai(vault, 'payments', 'moving', 'sk-first', {
    ...both,
    labels: { env: 'prod' },
  });
  for (const apiKey of ['sk-second', 'sk-third'])
    await demand(
      vault.call('alice', 'PATCH', `/v1/credentials/${id}`, { fields: { apiKey } }, any),
      200,
    );
  return { vault, id, bot };
}
export const offer = (vault: TestVault, id: string, as = 'alice', to = 'billing'): Promise<any> =>
  demand(vault.call(as, 'POST', `/v1/credentials/${id}/transfers`, { team: to }), 201);
export const accept = (vault: TestVault, transfer: { id: string }, as = 'bella'): Promise<Answer> =>
  vault.call(as, 'POST', `/v1/transfers/${transfer.id}/accept`);
export const versionsOf = async ({ db }: TestVault, id: string): Promise<any[]> =>
  (
    await sql`
  select version, credential_version.created_at, public_fields, policy, data_key_id, key_history, team.slug, token, substring(token from 1 for 12) as time
  from credential_version join team on team.id = team_id where credential_id = ${id} order by version`.execute(
      db,
    )
  ).rows;
export const keysOf = async ({ db }: TestVault, slug: string): Promise<string[]> =>
  (
    await sql<{ id: string }>`
  select data_key.id from data_key join team on team.id = team_id where slug = ${slug} order by version`.execute(
      db,
    )
  ).rows.map(({ id }) => id);
export const scan = async (vault: TestVault): Promise<Finding[]> => {
  const found: Finding[] = [];
  await verifyAll(vault, {
    onFinding: (finding) => {
      found.push(finding);
    },
    isStopping: () => false,
  });
  return found;
};
export const events = async (
  vault: TestVault,
  team: string,
  admin: string,
  action: string,
): Promise<any[]> =>
  (
    await demand(
      vault.call(admin, 'GET', `/v1/teams/${team}/audit-events?action=${action}&limit=200`),
      200,
    )
  ).items;
export const rotate = async (vault: TestVault, team: string, admin: string): Promise<any> => {
  const { id } = await demand(vault.call(admin, 'POST', `/v1/teams/${team}/key-rotations`), 202);
  return until(async () => {
    const rotation = await demand(
      vault.call(admin, 'GET', `/v1/teams/${team}/key-rotations/${id}`),
      200,
    );
    return rotation.state !== 'running' && rotation;
  });
};
