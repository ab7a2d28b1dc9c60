// Many teams with many credentials each, put straight into the tables: real seals, one token over
// and over (lists open none), rows of all teams in turn, as they come about in life. What is rare
// in it is as rare in each team, whatever the size.
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { credentialRowMac } from '../src/credentials/row-mac.ts';
import { parseRootKeys, Secret, type WrappedDataKey } from '../src/crypto/index.ts';
import { openDatabase } from '../src/db/client.ts';
import { openKeyring } from '../src/keys/system-keys.ts';
import { type CredentialId, newId, type TeamId } from '../src/shared/ids.ts';
import { ask, requestText } from './load.ts';
import type { Server } from './processes.ts';
import { person, type Setting } from './setting.ts';

/**
 * Who reads ten of so many teams, each of which is read by one; the admin of all of them is
 * `person`.
 */
export const memberOf = (team: number, teams: number): string =>
  `member-${team % Math.max(1, Math.floor(teams / 10))}`;
export const slugOf = (team: number): string => `team-${team}`;

const rowsPerInsert = 5_000;
const dayMs = 86_400_000;
const publicFields = { baseUrl: 'https://api.openai.com' };
const policy = { delivery: ['lease'], allowedHosts: [] } as const;
const types = [
  'openai',
  'openai',
  'openai',
  'bearer',
  'bearer',
  'smtp',
  'slack',
  'postgres',
  'github',
  'redis',
];
const environments = ['prod', 'dev', 'test', 'prod'];

const columns = [
  ['id', 'uuid'],
  ['team', 'int'],
  ['name', 'text'],
  ['type', 'text'],
  ['label', 'text'],
  ['state', 'text'],
  ['expires', 'timestamptz'],
  ['rotate', 'timestamptz'],
  ['created', 'timestamptz'],
  ['updated', 'timestamptz'],
  ['deleted', 'timestamptz'],
  ['used', 'timestamptz'],
  ['seal', 'bytea'],
  ['unreadable', 'bool'],
  ['exposed', 'bool'],
  ['unrefreshed', 'bool'],
] as const;
type Row = Readonly<Record<(typeof columns)[number][0], unknown>>;

const insertRows = `
  with of_team as (select ordinal - 1 as ordinal, team.id as team, key.id as key, subject.id as subject, (select id from data_key marked where marked.team_id = team.id and compromised_at is not null) as marked
    from unnest($1::text[]) with ordinality as slug (slug, ordinal) join team on team.slug = slug.slug join data_key key on key.team_id = team.id and key.state = 'active', subject where subject.sub = '${person}'),
  row as (select of_team.team as team_id, of_team.key, of_team.subject, of_team.marked, made.* from unnest(${columns.map(([, type], i) => `$${i + 3}::${type}[]`).join(', ')}) as made (${columns.map(([name]) => name).join(', ')}) join of_team on of_team.ordinal = made.team),
  credentials as (
    insert into credential (id, team_id, name, type, description, labels, state, current_version, expires_at, rotate_after, revision, seal, created_at, created_by, updated_at, updated_by, deleted_at)
    select id, team_id, name, type, 'made by the bench', jsonb_build_object('env', label), state, 1, expires, rotate, 1, seal, created, subject, updated, subject, deleted from row),
  usages as (insert into credential_usage (credential_id, team_id, made_at, use_count, last_used_at) select id, team_id, created, case when used is null then 0 else 7 end, used from row),
  held as (
    insert into oauth_token (credential_id, team_id, sequence, client, policy, failure, failed_at, is_refreshable) select id, team_id, 1, '{}', '{}', 'invalid_grant', now(), true from row where unrefreshed)
  insert into credential_version (team_id, credential_id, version, data_key_id, token, secret_field_names, public_fields, policy, undecryptable_at, created_at, created_by, key_history)
  select team_id, id, 1, key, $2, '{apiKey}', '${JSON.stringify(publicFields)}', '${JSON.stringify(policy)}', case when unreadable then now() end, created, subject, case when exposed and marked is not null then array[marked, key] else array[key] end
  from row`;

/**
 * Makes the teams through the vault and fills them past it. In a tenth of them, one for each reader
 * of ten, a key is marked as known to somebody.
 */
export async function fillTeams(
  vault: Server,
  setting: Setting,
  { teams, perTeam }: { teams: number; perTeam: number },
): Promise<void> {
  const call = (
    as: keyof Setting['tokens'],
    method: string,
    path: string,
    body?: object,
  ): Promise<string> => ask(vault.port, requestText(method, path, setting.tokens[as], body));
  const markKey = async (slug: string): Promise<void> => {
    await call('person', 'POST', `/v1/teams/${slug}/key-rotations`);
    const { items: keys } = JSON.parse(await call('person', 'GET', `/v1/teams/${slug}/keys`)) as {
      items: { id: string; state: string }[];
    };
    await call(
      'person',
      'POST',
      `/v1/teams/${slug}/keys/${keys.find(({ state }) => state !== 'active')?.id}/mark-compromised`,
      { reason: 'the bench wants one' },
    );
  };
  const slugs = Array.from({ length: teams }, (_, team) => slugOf(team));
  for (const [team, slug] of slugs.entries()) {
    await call('operator', 'POST', '/v1/teams', { slug, name: slug, admins: [person] });
    await call('person', 'PUT', `/v1/teams/${slug}/members/${memberOf(team, teams)}`, {
      role: 'viewer',
    });
    if (team < Math.max(1, Math.floor(teams / 10))) await markKey(slug);
  }

  const { db, close } = openDatabase({
    url: setting.databaseUrl,
    onError: (error) => {
      throw error;
    },
  });
  const client = new pg.Client({ connectionString: setting.databaseUrl });
  await client.connect();
  try {
    const keyring = await openKeyring({
      db,
      roots: parseRootKeys(setting.rootKeys),
      now: Date.now,
    });
    const { rows: ids } = await client.query<{ id: TeamId }>(
      'select id from unnest($1::text[]) with ordinality as slug (slug, ordinal) join team using (slug) order by ordinal',
      [slugs],
    );
    const {
      rows: [key],
    } = await client.query<WrappedDataKey>(
      `
      select id, team_id as team, version, format, root_fingerprint as "rootFingerprint", wrapped from data_key where team_id = $1 and state = 'active'`,
      [ids[0]?.id],
    );
    if (key === undefined) throw new Error('no such team');
    const token = keyring.seal(
      key,
      {
        team: key.team,
        credential: newId<CredentialId>(),
        version: 1,
        type: 'openai',
        publicFields,
        policy,
      },
      new Secret({ apiKey: `sk-${randomBytes(24).toString('hex')}` }),
    );
    const begun = Date.now();
    const makeRow = (serial: number): Row => {
      const [team, n] = [serial % teams, Math.floor(serial / teams)];
      // A walk through the numbers below a thousand that meets each once: the columns have nothing
      // to do with each other.
      const chance = (step: number): number => ((n * step + 17) % 997) / 997;
      const id = newId<CredentialId>();
      const at = (days: number): Date => new Date(begun + Math.round(days * dayMs) + n);
      const isDeleted = chance(31) < 0.05;
      const state = isDeleted ? 'deleted' : chance(37) < 0.01 ? 'disabled' : 'enabled';
      const isUnrefreshed = chance(41) < 0.005;
      const type = isUnrefreshed ? 'oauth2' : types[n % types.length]!;
      const [expires, name] = [
        chance(43) < 0.1 ? at(chance(47) * 365 - 10) : null,
        `service-${String((n * 7_919) % 1_000_003).padStart(7, '0')}`,
      ];
      const sealed = {
        id,
        team: ids[team]!.id,
        name,
        type,
        state,
        stateBefore: null,
        version: 1,
        expiresAt: expires,
        revision: 1,
        publicFields,
        policy,
        secretFieldNames: ['apiKey'],
      } as const;
      const created = at(-800 + chance(53) * 400);
      return {
        id,
        team,
        name,
        type,
        label: chance(59) < 0.004 ? 'rare' : environments[n % environments.length],
        state,
        expires,
        rotate: chance(61) < 0.2 ? at(chance(67) * 365 - 5) : null,
        created,
        updated: at(-400 + chance(71) * 399),
        deleted: isDeleted ? at(-1) : null,
        used: chance(73) < 0.6 ? at(-chance(79) * 390) : null,
        seal: credentialRowMac(keyring, sealed),
        unreadable: chance(83) < 0.005,
        exposed: chance(89) < 0.05,
        unrefreshed: isUnrefreshed,
      };
    };
    await client.query('set session_replication_role = replica; set synchronous_commit = off');
    for (let stored = 0; stored < teams * perTeam; stored += rowsPerInsert) {
      const rows = Array.from(
        { length: Math.min(rowsPerInsert, teams * perTeam - stored) },
        (_, i) => makeRow(stored + i),
      );
      await client.query({
        name: 'fill',
        text: insertRows,
        values: [slugs, token, ...columns.map(([name]) => rows.map((row) => row[name]))],
      });
    }
    await client.query('vacuum analyze');
  } finally {
    await client.end();
    await close();
  }
}
