// A database as it would be after years: so many rows in every table that grows with use, put
// straight into them. Twenty to a team, whatever the size, so that what belongs to one team stays
// as it is while the vault grows.
import type pg from 'pg';

/** The tables that grow with nothing that callers do. */
export const tablesThatStay: Readonly<Record<string, string>> = {
  root_key: 'one a root key that was ever configured',
  system_key: 'five a compromise of a root key',
  schema_migration: 'one a migration',
  subject_prefix: 'one an issuer',
};

const perTeam = 20;
const text = (value: string): string => `'${value}'`;
/** The id of the nth row of a kind. */
const id = (kind: number, n = 'n'): string =>
  `('01900000-${kind.toString(16).padStart(4, '0')}-7000-8000-' || lpad(to_hex(${n}), 12, '0'))::uuid`;
const [subject, team, engine, dataKey, credential, rotation, other] = [1, 2, 3, 4, 5, 6, 7];
const ofTeam = `(n % greatest(1, (select rows from size) / ${perTeam}))`;
/** A key has five tokens, whatever the size. */
const underKey = '(n % greatest(1, (select rows from size) / 5))';
const past = `now() - n * interval '1 second'`;
const bytes = (length: number): string => `decode(repeat('00', ${length}), 'hex')`;
const stamps = {
  created_at: past,
  created_by: id(subject!),
  updated_at: past,
  updated_by: id(subject!),
};
const sealed = { revision: '1', seal: bytes(34) };
const partly = (value: string, each: number): string =>
  `case when n % ${each} = 0 then ${value} end`;

/** How the nth row of each table is made. */
const rows: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  subject: { id: id(subject!), sub: `'subject-' || n` },
  team: {
    id: id(team!),
    slug: `'grown-' || n`,
    name: `'grown ' || n`,
    token_format: text('fernet'),
    rotate_every_days: partly('30', 10),
    has_received: 'n % 50 = 0',
    deleted_at: partly('now()', 1000),
    ...stamps,
  },
  team_size: {
    team_id: id(team!),
    living_credentials: '19',
    stored_credentials: '20',
    bytes: '10000',
    counted_at: 'now()',
  },
  membership: {
    team_id: id(team!, ofTeam),
    subject_id: id(subject!),
    role: `(array['viewer','editor','admin','auditor'])[n % 4 + 1]`,
    ...sealed,
    ...stamps,
  },
  engine: {
    id: id(engine!),
    subject_id: id(subject!),
    name: `'engine ' || n`,
    state: text('enabled'),
    ...sealed,
    ...stamps,
  },
  credential_type: {
    name: `'acme.t' || n`,
    id: 'gen_random_uuid()',
    stored_name: `'acme.t' || n || '#' || rpad('d' || n, 43, '0')`,
    declaration: `'{"title":"T","description":"D","fields":[]}'`,
    revision: '1',
    row_mac: bytes(36),
    ...stamps,
  },
  engine_key: {
    engine_id: id(engine!),
    kid: `rpad('k' || n, 43, '0')`,
    jwk: `'{"kty":"OKP"}'`,
    ...sealed,
    created_at: past,
    created_by: id(subject!),
  },
  data_key: {
    id: id(dataKey!),
    team_id: id(team!, `(n % greatest(1, (select rows from size) / 10))`),
    version: 'n / greatest(1, (select rows from size) / 10) + 1',
    format: text('fernet'),
    state: `case when n / greatest(1, (select rows from size) / 10) = 9 then 'active' else 'decryptOnly' end`,
    fingerprint: `lpad(to_hex(n), 16, '0')`,
    root_fingerprint: `(select min(fingerprint) from root_key where compromised_at is null)`,
    root_history: `array(select min(fingerprint) from root_key where compromised_at is null)`,
    wrapped: bytes(61),
    created_at: past,
    compromised_at: partly('now()', 20),
    compromise_reason: partly(text('a test'), 20),
  },
  credential: {
    id: id(credential!),
    team_id: id(team!, ofTeam),
    name: `'credential ' || n`,
    type: `(array['openai','bearer','oauth2','webhook'])[n % 4 + 1]`,
    labels: `jsonb_build_object('env', (array['prod','dev'])[n % 2 + 1])`,
    state: `case when n % 20 = 0 then 'deleted' when n % 20 = 1 then 'disabled' else 'enabled' end`,
    deleted_at: partly('now()', 20),
    current_version: '1',
    expires_at: partly(`now() + (n % 100) * interval '1 day'`, 5),
    rotate_after: partly(`now() + (n % 100 - 50) * interval '1 day'`, 5),
    ...sealed,
    ...stamps,
  },
  credential_version: {
    team_id: id(team!, ofTeam),
    credential_id: id(credential!),
    version: '1',
    data_key_id: id(dataKey!, underKey),
    token: `'gAAAA' || repeat('A', 400)`,
    secret_field_names: `'{apiKey}'`,
    public_fields: `'{}'`,
    policy: `'{"delivery":["lease"],"allowedHosts":[]}'`,
    undecryptable_at: partly('now()', 500),
    created_at: past,
    created_by: id(subject!),
    key_history: `array[${id(dataKey!, underKey)}]`,
  },
  credential_usage: {
    credential_id: id(credential!),
    team_id: id(team!, ofTeam),
    made_at: past,
    use_count: 'n',
    last_used_at: partly(past, 2),
  },
  credential_grant: {
    id: id(other!),
    team_id: id(team!, ofTeam),
    credential_id: id(credential!),
    grantee_kind: `case when n % 2 = 0 then 'team' else 'subject' end`,
    grantee_team_id: partly(
      id(team!, `(n % greatest(1, (select rows from size) / ${perTeam}) + 1)`),
      2,
    ),
    grantee_subject_id: `case when n % 2 = 1 then ${id(subject!)} end`,
    access: text('use'),
    ...sealed,
    ...stamps,
  },
  credential_transfer: {
    id: id(other!),
    team_id: id(team!, ofTeam),
    credential_id: id(credential!),
    to_team_id: id(team!, `(n % greatest(1, (select rows from size) / ${perTeam}) + 1)`),
    expires_at: `now() + interval '1 day' + n * interval '1 second'`,
    ...sealed,
    created_at: past,
    created_by: id(subject!),
  },
  webhook: {
    credential_id: id(credential!),
    team_id: id(team!, ofTeam),
    events: `'{key.overdue}'`,
    failing_since: partly('now()', 100),
    ...sealed,
    ...stamps,
  },
  notification: {
    id: id(other!),
    webhook_id: id(credential!),
    team_id: id(team!, ofTeam),
    type: text('key.overdue'),
    subject_type: text('key'),
    subject_id: `n::text`,
    due_at: past,
    at: past,
    data: `'{}'`,
    seal: bytes(34),
    state: `case when n % 100 = 0 then 'pending' else 'delivered' end`,
    next_attempt_at: partly(`now() + n * interval '1 second'`, 100),
    ended_at: `case when n % 100 <> 0 then ${past} end`,
  },
  broker_ticket: {
    id: id(other!),
    bundle_id: id(other!),
    ticket_hash: bytes(32),
    credential_id: id(credential!),
    engine_id: id(engine!, '(n % 1000)'),
    expires_at: `now() + n * interval '1 second'`,
    ...sealed,
    created_at: past,
  },
  oauth_authorization: {
    id: id(other!),
    team_id: id(team!, ofTeam),
    credential_id: id(credential!),
    subject_id: id(subject!),
    client: `'{}'`,
    redirect_uri: text('https://platform.test'),
    state_hash: bytes(32),
    salt: bytes(16),
    created_at: past,
    expires_at: `now() + n * interval '1 second'`,
  },
  oauth_token: {
    credential_id: id(credential!),
    team_id: id(team!, ofTeam),
    sequence: '1',
    client: `'{}'`,
    policy: `'{}'`,
    is_refreshable: 'n % 100 <> 0',
    failure: partly(text('invalid_grant'), 200),
    failed_at: partly('now()', 200),
    data_key_id: id(dataKey!, underKey),
    token: `'gAAAA' || repeat('A', 400)`,
    key_history: `array[${id(dataKey!, underKey)}]`,
  },
  key_rotation: {
    id: id(rotation!),
    team_id: id(team!, ofTeam),
    to_key_id: id(dataKey!),
    state: `case when n % 1000 = 0 and n < (select rows from size) / ${perTeam} then 'running' else 'completed' end`,
    total: 'n',
    done: 'n',
    created_at: past,
    progressed_at: past,
    ended_at: `case when n % 1000 = 0 and n < (select rows from size) / ${perTeam} then null else ${past} end`,
  },
  key_rotation_failure: {
    rotation_id: id(rotation!),
    credential_id: id(credential!),
    version: '1',
    at: past,
    team_id: id(team!, ofTeam),
  },
  key_rotation_oauth_failure: {
    rotation_id: id(rotation!),
    credential_id: id(credential!),
    at: past,
  },
  idempotency_record: {
    subject_id: id(subject!, '(n % 1000)'),
    method: text('POST'),
    route: text('/v1/teams/:team/credentials'),
    key_hash: `decode(lpad(to_hex(n), 64, '0'), 'hex')`,
    body_mac_version: '1',
    body_mac: bytes(32),
    target_id: 'n::text',
    created_at: past,
  },
  audit_event: {
    id: id(other!),
    at: past,
    actor_id: id(subject!),
    team_id: id(team!, ofTeam),
    action: `(array['credential.read','credential.update','credential.lease'])[n % 3 + 1]`,
    target_type: text('credential'),
    target_id: `${id(credential!)}::text`,
    decision: text('allow'),
    request_id: 'n::text',
    address_hash: bytes(32),
    details: `'{}'`,
    mac_version: '1',
    mac: bytes(32),
  },
  audit_address: { event_id: id(other!), at: past, address: text('192.0.2.1'), salt: bytes(16) },
  access_record: {
    id: id(other!),
    at: past,
    subject_id: id(subject!),
    team_id: id(team!, ofTeam),
    action: text('credential.read'),
    status: '200',
    request_id: 'n::text',
  },
};

export const tablesThatGrow: readonly string[] = Object.keys(rows);

/**
 * Makes so many rows in each table, beside those that were made before. On a connection of its own,
 * which has as much time as it needs.
 */
export async function grow(client: pg.Client, count: number): Promise<void> {
  await client.query('set session_replication_role = replica');
  await client.query('create temporary table size (rows int)');
  await client.query('insert into size values ($1)', [count]);
  for (const [table, columns] of Object.entries(rows)) {
    const names = Object.keys(columns);
    const values = Object.values(columns);
    await client.query(
      `insert into ${table} (${names.join(', ')}) select ${values.join(', ')} from generate_series((select count(*)::int from ${table}), ${count}) as n on conflict do nothing`,
    );
  }
  await client.query('drop table size');
  await client.query('set session_replication_role = origin');
  await client.query(`vacuum analyze ${tablesThatGrow.join(', ')}`);
}
