// What a statement does with the id of a thing and the id of another team: it finds nothing and
// changes nothing. Above it stands authorization, which finds a thing with its team; this is what
// holds when a caller of the repositories mixes two up.
import { sql } from 'kysely';
import t from 'tap';
import * as credentials from '../../src/credentials/repository.ts';
import type { Trx } from '../../src/db/client.ts';
import * as keys from '../../src/keys/repository.ts';
import * as rotationRepository from '../../src/keys/rotation-repository.ts';
import { ciphertextTables } from '../../src/keys/tables/list.ts';
import * as rehoming from '../../src/keys/tables/rehoming.ts';
import * as leases from '../../src/leases/repository.ts';
import * as oauth from '../../src/oauth/repository.ts';
import type {
  CredentialId,
  DataKeyId,
  RotationId,
  SubjectId,
  TeamId,
} from '../../src/shared/ids.ts';
import { newId } from '../../src/shared/ids.ts';
import * as sharing from '../../src/sharing/repository.ts';
import * as transfers from '../../src/sharing/transfer-repository.ts';
import * as teams from '../../src/teams/repository.ts';
import { startAuthorizationServer } from '../helpers/authorization-server.ts';
import { demand } from '../helpers/leases.ts';
import { connect, oauthStage, storeOAuth } from '../helpers/oauth.ts';

const any = { 'if-match': '*' };
const tables = [
  'credential',
  'credential_version',
  'credential_grant',
  'data_key',
  'key_rotation',
  'membership',
  'oauth_token',
] as const;

/** Every row of these tables, as one value. */
async function rowsOf(trx: Trx): Promise<string> {
  const each = await Promise.all(
    tables.map(async (table) => {
      const { rows } = await sql<{ all: string | null }>`
        select string_agg(held::text, ' ' order by held::text) as all from ${sql.table(table)} held`.execute(
        trx,
      );
      return `${table}: ${rows[0]?.all ?? ''}`;
    }),
  );
  return each.join('\n');
}

t.test('no statement reaches what is another team’s', async (t) => {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  const { db, call } = vault;
  await vault.team('elsewhere');
  await vault.member('payments', 'nora', 'viewer');
  const { id } = (await storeOAuth(stage, 'main')) as { id: CredentialId };
  await demand(
    call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { fields: server.fields({ scope: 'openid' }) },
      any,
    ),
    200,
  );
  await connect(stage, id);
  await demand(
    call('alice', 'PUT', `/v1/credentials/${id}/grants/teams/elsewhere`, { access: 'use' }),
    200,
  );
  const find = async <T>(text: string): Promise<T> =>
    (await sql.raw<{ value: T }>(text).execute(db)).rows[0]!.value;
  const own = await find<TeamId>(`select id as value from team where slug = 'payments'`);
  const other = await find<TeamId>(`select id as value from team where slug = 'elsewhere'`);
  const key = await find<DataKeyId>(`select id as value from data_key where team_id = '${own}'`);
  const subject = await find<SubjectId>(`select id as value from subject where sub = 'nora'`);
  const rotation = newId<RotationId>();
  const at = new Date();
  await db.transaction().execute((trx) =>
    rotationRepository.insertRotation(trx, {
      id: rotation,
      team: own,
      toKey: key,
      by: null,
      at,
      cause: 'request',
    }),
  );
  const held = (await oauth.findStoredTokens(db, own, id))!;
  const [claim, json] = [newId(), {}];
  await oauth.claimRefresh(db, {
    forced: undefined,
    id: claim,
    team: own,
    credential: id,
    sequence: held.sequence,
    client: json,
    policy: json,
    at,
    until: new Date(at.getTime() + 60_000),
  });
  const row = (await credentials.findCredential(db, own, id, at))!;
  const { token } = (await credentials.findToken(db, own, id, 1))!;
  const page = {
    limit: 10,
    before: undefined,
    beforeVersion: undefined,
    after: undefined,
    afterSub: undefined,
  };
  const of = { id, credential: id, version: 1, sequence: held.sequence, at, by: subject };

  const statements: Readonly<Record<string, (trx: Trx, team: TeamId) => Promise<unknown>>> = {
    findCredential: (trx, team) => credentials.findCredential(trx, team, id, at),
    findCredentialByName: (trx, team) => credentials.findCredentialByName(trx, team, 'main', at),
    lockCredential: (trx, team) => credentials.lockCredential(trx, team, id, at),
    listVersions: (trx, team) => credentials.listVersions(trx, team, id, page),
    findVersion: (trx, team) => credentials.findVersion(trx, team, id, 1),
    findToken: (trx, team) => credentials.findToken(trx, team, id, 1),
    deleteVersion: (trx, team) => credentials.deleteVersion(trx, team, id, 1),
    pruneVersions: async (trx, team) => {
      await credentials.pruneVersions(trx, team, id, 1);
    },
    updateCredential: (trx, team) =>
      credentials.updateCredential(trx, {
        ...row,
        ...of,
        team,
        version: row.version,
        name: 'changed',
      }),
    'markUndecryptable (credentials)': (trx, team) =>
      credentials.updateUndecryptable(trx, { ...of, team, key }),
    'markUndecryptable (leases)': (trx, team) =>
      leases.updateUndecryptableUse(trx, { ...of, team, dataKey: key }),
    findKey: (trx, team) => keys.findKey(trx, team, key),
    listKeys: async (trx, team) =>
      (await keys.listKeys(trx, team, page)).filter((found) => found.id === key),
    lockKey: (trx, team) => keys.lockKey(trx, team, key),
    lockActiveKey: async (trx, team) =>
      [await keys.lockActiveKeyAlone(trx, team)].filter((found) => found?.id === key),
    'lockActiveKey (credentials)': async (trx, team) =>
      [await credentials.lockActiveKey(trx, team)].filter((found) => found?.id === key),
    findActiveKey: async (trx, team) =>
      [await credentials.findActiveKey(trx, team)].filter((found) => found?.id === key),
    updateKey: (trx, team) =>
      keys.updateKey(trx, team, key, { compromised_at: at, compromise_reason: 'x' }),
    demoteKey: (trx, team) => keys.demoteKey(trx, team, key, at),
    hasTokens: (trx, team) => keys.hasTokens(trx, team, key),
    findRunningRotation: (trx, team) => rotationRepository.findRunningRotation(trx, team),
    lockRunningRotation: (trx, team) => rotationRepository.lockRunningRotation(trx, team),
    findRotation: (trx, team) => rotationRepository.findRotation(trx, team, rotation),
    listRotations: (trx, team) => rotationRepository.listRotations(trx, team, page),
    cancelRotation: (trx, team) => rotationRepository.cancelRotation(trx, team, rotation, at),
    isActiveCompromised: async (trx, team) => {
      await sql`update data_key set compromised_at = now(), compromise_reason = 'x' where id = ${key}`.execute(
        trx,
      );
      return keys.isActiveCompromised(trx, team);
    },
    findStoredTokens: (trx, team) => oauth.findStoredTokens(trx, team, id),
    lockStoredTokens: (trx, team) =>
      oauth
        .lockStoredTokens(trx, { ...of, team, client: json, policy: json })
        .catch((error: unknown) => {
          if (error instanceof oauth.CredentialMoved) return undefined;
          throw error;
        }),
    claimRefresh: (trx, team) =>
      oauth.claimRefresh(trx as never, {
        forced: undefined,
        ...of,
        id: newId(),
        team,
        client: json,
        policy: json,
        at: new Date(at.getTime() + 120_000),
        until: new Date(at.getTime() + 180_000),
      }),
    findKeyHistory: (trx, team) =>
      oauth.findKeptKeyHistory(trx, { ...of, team }, { isOfVersion: false }),
    'findKeyHistory (version)': (trx, team) =>
      oauth.findKeptKeyHistory(trx, { ...of, team }, { isOfVersion: true }),
    writeStoredTokens: (trx, team) =>
      oauth.writeStoredTokens(trx, {
        ...of,
        team,
        key,
        token,
        client: json,
        policy: json,
        keyHistory: [],
        expiresAt: null,
        isRefreshable: false,
        failure: undefined,
        instanceUrl: undefined,
      }),
    failRefresh: (trx, team) =>
      oauth.failRefresh(trx, { ...of, team, claim, failure: undefined, retryAt: at }),
    failOpening: (trx, team) => oauth.failOpening(trx, { ...of, team, key }),
    countGrantsBetween: (trx, team) =>
      sharing.countGrantsBetween(trx, team, { kind: 'team', grantee: other }, 10),
    moveCredential: (trx, team) =>
      transfers.moveCredential(trx, { ...of, from: team, to: other, revision: 9, seal: row.seal }),
    ...Object.fromEntries(
      ciphertextTables.flatMap(
        (table): [string, (trx: Trx, team: TeamId) => Promise<unknown>][] => [
          [
            `findMovableBytes of ${table.name}`,
            (trx, team) => rehoming.findMovableBytes(trx, table, { ...of, team }),
          ],
          [
            `listMovable of ${table.name}`,
            (trx, team) =>
              rehoming.listMovable(trx, table, {
                ...of,
                team,
                after: undefined,
                limit: 10,
                bytesMax: 1_000_000,
              }),
          ],
          ...[`${token.slice(0, -1)}=`, null].map(
            (moved): [string, (trx: Trx, team: TeamId) => Promise<unknown>] => [
              `storeMoved of ${table.name}, ${moved === null ? 'without' : 'with'} a token`,
              async (trx, team) => {
                await sql`set constraints all deferred`.execute(trx);
                await rehoming.storeMoved(trx, table, {
                  ...of,
                  from: team,
                  to: moved === null ? other : own,
                  key,
                  numbers: [1],
                  tokens: [moved],
                });
              },
            ],
          ),
        ],
      ),
    ),
    findMember: (trx, team) => teams.findMember(trx, team, 'nora'),
    listMembers: async (trx, team) =>
      (await teams.listMembers(trx, team, page)).filter(({ sub }) => sub === 'nora'),
    listAdmins: async (trx, team) =>
      (await teams.listAdmins(trx, team)).filter(({ sub }) => sub === 'bob'),
    updateMember: (trx, team) =>
      teams.updateMember(trx, {
        team,
        subject,
        role: 'editor',
        actsForItself: false,
        revision: 2,
        seal: row.seal,
        by: subject,
        at,
      }),
    deleteMember: (trx, team) => teams.deleteMember(trx, team, subject, 1),
    countLivingCredentials: (trx, team) => teams.countLivingCredentials(trx, team),
  };
  await vault.member('payments', 'bob', 'admin');

  const isNothing = (result: unknown): boolean =>
    result === undefined ||
    result === false ||
    result === 0 ||
    (Array.isArray(result) && result.length === 0);
  /** What a statement finds and whether it changes anything; nothing of it stays. */
  async function effectOf(
    statement: (trx: Trx, team: TeamId) => Promise<unknown>,
    team: TeamId,
  ): Promise<'nothing' | 'something'> {
    const undone = new Error('undone');
    let effect: 'nothing' | 'something' = 'nothing';
    await db
      .transaction()
      .execute(async (trx) => {
        const before = await rowsOf(trx);
        const result = await statement(trx, team);
        // A statement that changes things is asked whether it did; what a test prepares is undone with it.
        if (!isNothing(result) || (result === undefined && (await rowsOf(trx)) !== before))
          effect = 'something';
        throw undone;
      })
      .catch((error: unknown) => {
        // What the database refused had reached a row.
        if ((error as { code?: string }).code !== undefined) effect = 'something';
        else if (error !== undone) throw error;
      });
    return effect;
  }
  for (const [name, statement] of Object.entries(statements)) {
    t.equal(await effectOf(statement, other), 'nothing', `${name}: nothing by another team`);
    t.equal(await effectOf(statement, own), 'something', `${name}: something by its own`);
  }
});
