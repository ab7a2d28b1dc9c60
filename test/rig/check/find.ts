// What is there after a run, past the API: rows, opened tokens, events. It looks for every thing
// that the journal names.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { sql } from 'kysely';
import { type Keyring, parseRootKeys, type Binding } from '../../../src/crypto/index.ts';
import { type Db, openDatabase } from '../../../src/db/client.ts';
import { loadKeyring } from '../../../src/keys/system-keys.ts';
import type { State } from '../journal.ts';
import type { Setting } from '../setting.ts';
import type { Standing } from '../workload/sweep.ts';
import type pg from 'pg';
import type { Found, FoundEvent } from './check.ts';

/** Things are named `kind/…`; each kind is found by one statement. */
type Kind = (db: Db, keyring: Keyring) => Promise<Row[]>;
interface Row {
  readonly thing: string;
  readonly state: NonNullable<State>;
  /** The id under which events name it. */
  readonly target?: string;
}

const rowsOf =
  (statement: ReturnType<typeof sql<Record<string, unknown>>>): Kind =>
  async (db) =>
    (await statement.execute(db)).rows.map(({ thing, target, ...state }) => ({
      thing: String(thing),
      state,
      ...(target === undefined || target === null ? {} : { target: String(target) }),
    }));

/** A credential is named by a label that the rig gives each and never changes. */
const credential: Kind = async (db, keyring) => {
  const { rows } = await sql<Record<string, any>>`
    select credential.id, credential.labels ->> 'rig' as label, credential.name, credential.state, credential.current_version as version,
      credential.revision, credential.description, credential.type, team.slug as team
    from credential join team on team.id = credential.team_id where credential.labels ? 'rig'`.execute(
    db,
  );
  const secrets = await openedSecrets(db, keyring);
  return rows.map(({ id, label, ...state }) => ({
    thing: `credential/${label}`,
    target: id as string,
    state: { ...state, secrets: secrets.get(id as string) ?? {} },
  }));
};

/** Every version's secret fields, as text, by credential and version; what does not open says so. */
async function openedSecrets(
  db: Db,
  keyring: Keyring,
): Promise<Map<string, Record<number, string>>> {
  const { rows } = await sql<Record<string, any>>`
    select held.team_id as team, held.credential_id as credential, held.version, held.token, held.public_fields as "publicFields", held.policy,
      credential.type, key.id, key.version as "keyVersion", key.format, key.root_fingerprint as "rootFingerprint", key.wrapped
    from credential_version held join data_key key on key.id = held.data_key_id join credential on credential.id = held.credential_id`.execute(
    db,
  );
  const found = new Map<string, Record<number, string>>();
  for (const { team, credential: id, version, token, publicFields, policy, type, ...key } of rows) {
    const place = { team, credential: id, version, type, publicFields, policy } as Binding;
    const { keyVersion, ...rest } = key;
    let text: string;
    try {
      const fields = keyring.open(
        { ...rest, team, version: keyVersion } as Parameters<Keyring['open']>[0],
        place,
        token,
      );
      text = Object.values(fields.expose()).join(' ');
    } catch {
      text = 'does not open';
    }
    const versions = found.get(id) ?? {};
    versions[version] = text;
    found.set(id, versions);
  }
  return found;
}

const kinds: Readonly<Record<string, Kind>> = {
  credential,
  team: rowsOf(sql`
    select 'team/' || slug as thing, id as target, name, revision, deleted_at is not null as deleted, versions_kept as "versionsKept",
      refuse_exposed_leases as "refuseExposedLeases" from team`),
  member: rowsOf(sql`
    select 'member/' || team.slug || '/' || sub as thing, role, acts_for_itself as "actsForItself", membership.revision
    from membership join team on team.id = membership.team_id join subject on subject.id = membership.subject_id`),
  engine: rowsOf(sql`
    select 'engine/' || sub as thing, engine.id as target, name, state, revision,
      (select coalesce(json_agg(kid order by kid), '[]') from engine_key where engine_id = engine.id) as kids
    from engine join subject on subject.id = engine.subject_id`),
  grant: rowsOf(sql`
    select 'grant/' || (credential.labels ->> 'rig') || '/' || coalesce(team.slug, sub) as thing, access, held.revision
    from credential_grant held join credential on credential.id = held.credential_id
    left join team on team.id = held.grantee_team_id left join subject on subject.id = held.grantee_subject_id where credential.labels ? 'rig'`),
  transfer: rowsOf(sql`
    select 'transfer/' || (credential.labels ->> 'rig') as thing, team.slug as to
    from credential_transfer offer join credential on credential.id = offer.credential_id join team on team.id = offer.to_team_id where credential.labels ? 'rig'`),
  ticket: rowsOf(sql`select 'ticket/' || id as thing from broker_ticket`),
  webhook: rowsOf(sql`
    select 'webhook/' || (credential.labels ->> 'rig') as thing, events, webhook.revision
    from webhook join credential on credential.id = webhook.credential_id where credential.labels ? 'rig'`),
  connection: rowsOf(sql`
    select 'connection/' || (credential.labels ->> 'rig') as thing, held.connected_at is not null as connected, credential.id as target
    from oauth_token held join credential on credential.id = held.credential_id where credential.labels ? 'rig' and held.connected_at is not null`),
  key: rowsOf(sql`
    select 'key/' || id as thing, id as target, state, compromised_at is not null as compromised from data_key`),
  rotation: rowsOf(sql`
    select 'rotation/' || id as thing, state <> 'running' as ended, state from key_rotation`),
  // How often somebody asked for a rotation of the team: one that was asked for once is there once.
  rotations: rowsOf(sql`
    select 'rotations/' || slug as thing, count(key_rotation.id)::int as requested
    from team left join key_rotation on key_rotation.team_id = team.id and cause = 'request' group by slug`),
  type: rowsOf(sql`
    select 'type/' || name as thing, declaration ->> 'title' as title from credential_type`),
  rootKey: rowsOf(sql`
    select 'rootKey/' || fingerprint as thing, compromised_at is not null as compromised from root_key`),
};

/** The credentials that the rig made, as they are now. */
export async function findCredentials(setting: Setting): Promise<Standing[]> {
  return setting.pair.primary.query<Standing & pg.QueryResultRow>(
    `select credential.id, credential.labels ->> 'rig' as label, team.slug as team, credential.type, credential.state,
       array(select jsonb_array_elements_text(held.policy -> 'delivery')) as delivery
     from credential join team on team.id = credential.team_id
     join credential_version held on held.credential_id = credential.id and held.version = credential.current_version
     where credential.labels ? 'rig'`,
    [],
    'credvault',
  );
}

/** Looks for all of it. */
export async function find(setting: Setting, names: readonly string[]): Promise<Found> {
  const database = openDatabase({
    url: setting.databaseUrl('rig'),
    poolMax: 2,
    statementTimeoutMs: 120_000,
    onError: () => undefined,
  });
  const { db } = database;
  try {
    const roots = parseRootKeys(setting.rootKeys);
    const keyring = await loadKeyring({ db, roots, now: Date.now });
    const rows = new Map<string, State[]>(names.map((name) => [name, []]));
    const targets = new Map<string, string>();
    for (const [kind, look] of Object.entries(kinds)) {
      if (!names.some((name) => name.startsWith(`${kind}/`))) continue;
      for (const { thing, state, target } of await look(db, keyring)) {
        rows.get(thing)?.push(state);
        if (target !== undefined) targets.set(thing, target);
      }
    }
    return {
      things: rows,
      targets,
      events: await findEvents(db),
      accessRecords: await findAccessRecords(db),
      underRetiredKeys: await findUnderRetiredKeys(db),
      undelivered: await findUndelivered(db, setting),
      verify: verifyOf(setting),
      calls: setting.peers.calls,
    };
  } finally {
    await database.close();
  }
}

async function findEvents(db: Db): Promise<FoundEvent[]> {
  const { rows } = await sql<FoundEvent>`
    select action, decision, target_id as target, team_id as team, request_id as "requestId" from audit_event`.execute(
    db,
  );
  return rows;
}

async function findAccessRecords(db: Db): Promise<Map<string, number>> {
  const { rows } = await sql<{ request: string; n: number }>`
    select request_id as request, count(*)::int as n from access_record group by request_id`.execute(
    db,
  );
  return new Map(rows.map(({ request, n }) => [request, n]));
}

async function findUnderRetiredKeys(db: Db): Promise<string[]> {
  const { rows } = await sql<{ what: string }>`
    select 'credential_version ' || credential_id || ' under ' || key.state as what from credential_version held join data_key key on key.id = held.data_key_id
      where key.state not in ('active', 'decryptOnly')
    union all
    select 'oauth_token ' || credential_id || ' under ' || key.state from oauth_token held join data_key key on key.id = held.data_key_id
      where key.state not in ('active', 'decryptOnly')`.execute(db);
  return rows.map(({ what }) => what);
}

async function findUndelivered(db: Db, { peers }: Setting): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    select id from notification where state = 'delivered'`.execute(db);
  return rows.flatMap(({ id }) => (peers.messages.has(id) ? [] : [`the message ${id}`]));
}

/** The command, as an operator runs it. */
function verifyOf(setting: Setting): string | undefined {
  const main = join(import.meta.dirname, '../../../src/main.ts');
  const { status, stdout, stderr } = spawnSync(process.execPath, [main, 'verify'], {
    encoding: 'utf8',
    env: {
      PATH: process.env['PATH'],
      DATABASE_URL: setting.databaseUrl('rig'),
      CREDVAULT_ROOT_KEYS: setting.rootKeys,
    },
  });
  return status === 0 ? undefined : `${status}: ${stdout}${stderr}`.slice(0, 2_000);
}
