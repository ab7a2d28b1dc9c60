// What a statement does with the id of a thing and the id of another team: nothing. Above it stands
// authorization, which finds a thing with its team; this is what holds when a caller of the
// repository mixes two up.
import { sql } from 'kysely';
import t from 'tap';
import * as credentials from '../../src/credentials/repository.ts';
import type { CredentialId, TeamId } from '../../src/shared/ids.ts';
import { startVault } from '../helpers/vault.ts';

t.test('no statement reaches a credential by way of another team', async (t) => {
  const vault = await startVault(t);
  const { db, call } = vault;
  await vault.team('payments');
  await vault.team('elsewhere');
  const stored = await call('alice', 'POST', '/v1/teams/payments/credentials', {
    name: 'main',
    type: 'bearer',
    fields: { token: 'v1' },
  });
  const id: CredentialId = stored.json.id;
  const { rows: teams } = await sql<{
    id: TeamId;
    slug: string;
  }>`select id, slug from team`.execute(db);
  const [own, other] = ['payments', 'elsewhere'].map(
    (slug) => teams.find((team) => team.slug === slug)!.id,
  ) as [TeamId, TeamId];
  const now = new Date();
  const page = { limit: 10, before: undefined };

  const reads: Readonly<Record<string, (team: TeamId) => Promise<unknown>>> = {
    findCredential: (team) => credentials.findCredential(db, team, id, now),
    findCredentialByName: (team) => credentials.findCredentialByName(db, team, 'main', now),
    lockCredential: (team) =>
      db.transaction().execute((trx) => credentials.lockCredential(trx, team, id, now)),
    findVersion: (team) =>
      db.transaction().execute((trx) => credentials.findVersion(trx, team, id, 1)),
    findToken: (team) => credentials.findToken(db, team, id, 1),
    listVersions: async (team) => (await credentials.listVersions(db, team, id, page))[0],
  };
  for (const [name, read] of Object.entries(reads)) {
    t.not(await read(own), undefined, `${name}: its own team finds it`);
    t.equal(await read(other), undefined, `${name}: another team does not`);
  }
});
