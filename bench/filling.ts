// Fills a team past the service: real tokens and real seals by the vault's own keyring, put
// straight into the tables, without triggers, as fast as the machine goes.
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { credentialRowMac } from '../src/credentials/row-mac.ts';
import {
  type Keyring,
  parseRootKeys,
  type Binding,
  Secret,
  type WrappedDataKey,
} from '../src/crypto/index.ts';
import { openDatabase } from '../src/db/client.ts';
import { openKeyring } from '../src/keys/system-keys.ts';
import { type CredentialId, newId } from '../src/shared/ids.ts';
import { person, type Setting } from './setting.ts';

const rowsPerInsert = 5_000;
const publicFields = { baseUrl: 'https://api.openai.com' };
const policy = { delivery: ['lease'], allowedHosts: [] } as const;
const labels = { env: 'bench' };

const insertRows = `
  with of_team as (select team.id as team, key.id as key, subject.id as subject from team join data_key key on key.team_id = team.id and key.state = 'active', subject
    where team.slug = $1 and subject.sub = $2),
  made as (select * from unnest($3::uuid[], $4::bytea[], $5::text[]) as made (id, seal, token)),
  credentials as (
    insert into credential (id, team_id, name, type, description, labels, state, current_version, revision, seal, created_at, created_by, updated_at, updated_by)
    select made.id, team, made.id::text, 'openai', 'made by the bench', '${JSON.stringify(labels)}', 'enabled', 1, 1, seal, now(), subject, now(), subject from made, of_team)
  insert into credential_version (team_id, credential_id, version, data_key_id, token, secret_field_names, public_fields, policy, created_at, created_by, key_history)
  select team, made.id, 1, key, token, '{apiKey}', '${JSON.stringify(publicFields)}', '${JSON.stringify(policy)}', now(), subject, array[key] from made, of_team`;

/** Stores so many credentials, and vacuums; the ids of some of them, spread over all. */
export async function fillTeam(
  setting: Setting,
  { team, rows, idsWanted }: { team: string; rows: number; idsWanted: number },
): Promise<string[]> {
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
    const {
      rows: [key],
    } = await client.query<WrappedDataKey>(
      `
      select key.id, key.team_id as team, key.version, key.format, key.root_fingerprint as "rootFingerprint", key.wrapped
      from data_key key join team on team.id = key.team_id where team.slug = $1 and key.state = 'active'`,
      [team],
    );
    if (key === undefined) throw new Error('no such team');
    await client.query('set session_replication_role = replica');
    const ids: string[] = [];
    for (let stored = 0; stored < rows; stored += rowsPerInsert) {
      const made = Array.from({ length: Math.min(rowsPerInsert, rows - stored) }, () =>
        makeCredential(keyring, key),
      );
      await client.query({
        name: 'fill',
        text: insertRows,
        values: [
          team,
          person,
          made.map(({ id }) => id),
          made.map(({ seal }) => seal),
          made.map(({ token }) => token),
        ],
      });
      const step = Math.max(1, Math.floor(rows / idsWanted));
      ids.push(...made.filter((_, i) => (stored + i) % step === 0).map(({ id }) => id));
    }
    await client.query('vacuum analyze');
    return ids;
  } finally {
    await client.end();
    await close();
  }
}

function makeCredential(
  keyring: Keyring,
  key: WrappedDataKey,
): { id: CredentialId; seal: Buffer; token: string } {
  const id = newId<CredentialId>();
  const binding: Binding = {
    team: key.team,
    credential: id,
    version: 1,
    type: 'openai',
    publicFields,
    policy,
  };
  const seal = credentialRowMac(keyring, {
    id,
    team: key.team,
    name: id,
    type: 'openai',
    state: 'enabled',
    stateBefore: null,
    version: 1,
    expiresAt: null,
    revision: 1,
    publicFields,
    policy,
    secretFieldNames: ['apiKey'],
  });
  return {
    id,
    seal,
    token: keyring.seal(
      key,
      binding,
      new Secret({ apiKey: `sk-${randomBytes(24).toString('hex')}` }),
    ),
  };
}
