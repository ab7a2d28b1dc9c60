// What is in every column: a column that nobody classed fails, and what is called sealed or bound
// is compared with what the vault really seals and binds.
import { sql } from 'kysely';
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import type { Binding } from '../../src/crypto/index.ts';
import type { JsonObject } from '../../src/shared/json.ts';
import { askTicket } from '../helpers/broker.ts';
import { askLease, demand, registerEngine, storeOpenai } from '../helpers/leases.ts';
import { testDatabase } from '../helpers/database.ts';
import { typeSamples } from '../helpers/type-samples.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

/**
 * `in` says by what a column is kept from being changed past the service: the row MAC of a table's
 * rows, the MAC of an audit event or the plaintext of a token, and under which name it stands
 * there.
 */
type Class = 'tenant-data' | 'operational' | 'encrypted' | { readonly in: readonly string[] };
const within = (...places: string[]): Class => ({ in: places });
const tenantData = 'tenant-data';
const operational = 'operational';
const encrypted = 'encrypted'; // ciphertext and nothing else

const stamps = {
  created_at: operational,
  created_by: tenantData,
  updated_at: operational,
  updated_by: tenantData,
} as const;
const columns: Readonly<Record<string, Readonly<Record<string, Class>>>> = {
  subject: {
    id: within('membership.subject', 'engine.subject'),
    sub: within('membership.sub', 'engine.sub', 'credential_grant.name'),
    created_at: operational,
  },
  subject_prefix: { prefix: operational, issuer: operational, accepted_at: operational },
  team: {
    id: within('team.id', 'membership.team'),
    slug: within(
      'team.slug',
      'membership.slug',
      'credential_grant.slug',
      'credential_grant.name',
      'credential_transfer.slug',
      'credential_transfer.toSlug',
    ),
    name: tenantData,
    token_format: within('team.tokenFormat'),
    revision: within('team.revision'),
    deleted_at: operational,
    rotate_every_days: within('team.rotateEveryDays'),
    refuse_exposed_leases: within('team.refuseExposedLeases'),
    default_delivery: within('team.defaultDelivery'),
    versions_kept: within('team.versionsKept'),
    row_mac: operational,
    row_mac_version: operational,
    has_received: operational,
    ...stamps,
  },
  team_size: {
    team_id: operational,
    living_credentials: operational,
    stored_credentials: operational,
    bytes: operational,
    counted_at: operational,
  },
  membership: {
    team_id: within('membership.team'),
    subject_id: within('membership.subject'),
    role: within('membership.role'),
    acts_for_itself: within('membership.actsForItself'),
    revision: within('membership.revision'),
    seal: operational,
    ...stamps,
  },
  engine: {
    id: within('engine.id', 'engine_key.engine'),
    subject_id: within('engine.subject'),
    name: operational,
    state: within('engine.state'),
    revision: within('engine.revision'),
    seal: operational,
    ...stamps,
  },
  credential_type: {
    name: within('credential_type.name'),
    id: within('credential_type.id'),
    stored_name: within('credential_type.storedName'),
    declaration: within('credential_type.declaration'),
    revision: within('credential_type.revision'),
    row_mac: operational,
    ...stamps,
  },
  engine_key: {
    engine_id: within('engine_key.engine'),
    kid: within('engine_key.kid'),
    jwk: within('engine_key.jwk'),
    revision: within('engine_key.revision'),
    seal: operational,
    created_at: operational,
    created_by: operational,
  },
  root_key: {
    fingerprint: operational,
    canary: encrypted,
    created_at: operational,
    compromised_at: operational,
    compromised_by: tenantData,
    compromise_reason: tenantData,
  },
  system_key: {
    id: operational,
    purpose: operational,
    version: operational,
    root_fingerprint: operational,
    root_history: operational,
    wrapped: encrypted,
    created_at: operational,
    usable_from: operational,
    retired_at: operational,
  },
  data_key: {
    id: within('token.key'),
    team_id: within('token.team'),
    version: operational,
    format: operational,
    state: operational,
    fingerprint: operational,
    root_fingerprint: operational,
    wrapped: encrypted,
    created_at: operational,
    created_by: tenantData,
    demoted_at: operational,
    retired_at: operational,
    root_history: operational,
    compromised_at: operational,
    compromised_by: tenantData,
    compromise_reason: tenantData,
    destroy_scheduled_at: operational,
    destroy_at: operational,
    destroyed_at: operational,
  },
  credential: {
    id: within('credential.id', 'token.credential'),
    team_id: within('credential.team', 'token.team'),
    name: within('credential.name'),
    type: within('credential.type', 'token.type'),
    description: tenantData,
    labels: tenantData,
    state: within('credential.state'),
    state_before: within('credential.stateBefore'),
    current_version: within('credential.version'),
    expires_at: within('credential.expiresAt'),
    rotate_after: tenantData,
    due_at: tenantData,
    label_bits: tenantData,
    revision: within('credential.revision'),
    seal: operational,
    deleted_at: operational,
    ...stamps,
  },
  credential_version: {
    team_id: within('token.team'),
    credential_id: within('token.credential'),
    version: within('token.version'),
    data_key_id: within('token.key'),
    token: encrypted,
    secret_field_names: within('credential.secretFields'),
    public_fields: within('token.publicFields', 'credential.publicFields'),
    policy: within('token.policy', 'credential.policy'),
    undecryptable_at: operational,
    key_history: operational,
    created_at: operational,
    created_by: tenantData,
  },
  credential_usage: {
    credential_id: tenantData,
    team_id: tenantData,
    made_at: operational,
    idle_since: operational,
    use_count: operational,
    last_used_at: operational,
  },
  key_rotation: {
    id: operational,
    team_id: operational,
    to_key_id: operational,
    state: operational,
    total: operational,
    done: operational,
    created_at: operational,
    created_by: tenantData,
    progressed_at: operational,
    ended_at: operational,
    cause: operational,
  },
  oauth_token: {
    credential_id: within('token.credential'),
    team_id: within('token.team'),
    sequence: within('token.version'),
    data_key_id: within('token.key'),
    token: encrypted,
    client: within('token.publicFields'),
    policy: within('token.policy'),
    key_history: operational,
    takes_version: operational,
    expires_at: operational,
    is_refreshable: operational,
    obtained_at: operational,
    connected_at: operational,
    connected_by: tenantData,
    claim_id: operational,
    claimed_until: operational,
    attempts: operational,
    retry_at: operational,
    failure: operational,
    failed_at: operational,
    failure_detail: operational,
    unavailable_since: operational,
    forced_count: operational,
    force_after: operational,
    rejected_at: operational,
    instance_url: tenantData,
  },
  key_rotation_oauth_failure: {
    rotation_id: operational,
    credential_id: tenantData,
    at: operational,
  },
  oauth_authorization: {
    id: operational,
    team_id: tenantData,
    credential_id: tenantData,
    subject_id: tenantData,
    client: tenantData,
    redirect_uri: operational,
    state_hash: operational,
    salt: operational,
    created_at: operational,
    expires_at: operational,
  },
  key_rotation_failure: {
    rotation_id: operational,
    team_id: tenantData,
    credential_id: tenantData,
    version: tenantData,
    at: operational,
  },
  audit_event: {
    id: within('event.id'),
    at: within('event.at'),
    actor_id: within('event.actor'),
    team_id: within('event.team'),
    action: within('event.action'),
    target_type: within('event.targetType'),
    target_id: within('event.targetId'),
    decision: within('event.decision'),
    reason: within('event.reason'),
    request_id: within('event.requestId'),
    key_id: within('event.key'),
    credential_version: within('event.credentialVersion'),
    address_hash: within('event.addressHash'),
    details: within('event.details'),
    mac_version: operational,
    mac: operational,
  },
  audit_address: { event_id: tenantData, at: operational, address: tenantData, salt: operational },
  access_record: {
    id: operational,
    at: operational,
    subject_id: tenantData,
    team_id: tenantData,
    action: tenantData,
    target_id: tenantData,
    status: operational,
    request_id: operational,
    address: tenantData,
    reason: operational,
    count: operational,
  },
  idempotency_record: {
    subject_id: tenantData,
    method: operational,
    route: operational,
    key_hash: operational,
    body_mac_version: operational,
    body_mac: operational,
    target_id: tenantData,
    created_at: operational,
  },
  broker_ticket: {
    id: within('broker_ticket.id'),
    bundle_id: within('broker_ticket.bundle'),
    ticket_hash: within('broker_ticket.hash'),
    credential_id: within('broker_ticket.credential'),
    engine_id: within('broker_ticket.engine'),
    behalf_subject_id: within('broker_ticket.onBehalfOf'),
    host: within('broker_ticket.host'),
    expires_at: within('broker_ticket.expiresAt'),
    revision: within('broker_ticket.revision'),
    seal: operational,
    created_at: within('broker_ticket.createdAt'),
  },
  credential_grant: {
    id: within('credential_grant.id'),
    team_id: within('credential_grant.team'),
    credential_id: within('credential_grant.credential'),
    grantee_kind: within('credential_grant.kind'),
    grantee_team_id: within('credential_grant.grantee'),
    grantee_subject_id: within('credential_grant.grantee'),
    access: within('credential_grant.access'),
    revision: within('credential_grant.revision'),
    seal: operational,
    ...stamps,
  },
  webhook: {
    credential_id: within('webhook.credential'),
    team_id: within('webhook.team'),
    events: within('webhook.events'),
    revision: within('webhook.revision'),
    seal: operational,
    ...stamps,
    claim_id: operational,
    claimed_until: operational,
    served_at: operational,
    paused_until: operational,
    failing_since: operational,
    delivered_at: operational,
    gone_at: operational,
  },
  notification: {
    id: within('notification.id'),
    webhook_id: within('notification.webhook'),
    team_id: within('notification.team'),
    type: within('notification.type'),
    subject_type: within('notification.subjectType'),
    subject_id: within('notification.subjectId'),
    due_at: within('notification.dueAt'),
    at: within('notification.at'),
    data: within('notification.data'),
    seal: operational,
    state: operational,
    attempts: operational,
    next_attempt_at: operational,
    last_attempt_at: operational,
    outcome: operational,
    ended_at: operational,
  },
  credential_transfer: {
    id: within('credential_transfer.id'),
    team_id: within('credential_transfer.team'),
    credential_id: within('credential_transfer.credential'),
    to_team_id: within('credential_transfer.to'),
    expires_at: within('credential_transfer.expiresAt'),
    revision: within('credential_transfer.revision'),
    seal: operational,
    created_at: operational,
    created_by: tenantData,
  },
  schema_migration: {
    version: operational,
    name: operational,
    checksum: operational,
    applied_at: operational,
  },
};

/**
 * Tables with row MACs in which what is sealed never changes, so that there is no revision of it.
 */
const unchanging: ReadonlySet<string> = new Set(['notification']);

t.test('every column of every table is classed, and every classed column exists', async (t) => {
  const { db } = await testDatabase(t);
  const found = new Map<string, string[]>();
  const { rows } = await sql<{ table: string; column: string }>`
    select relname as "table", attname as "column" from pg_attribute join pg_class on pg_class.oid = attrelid
    where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f') and not relispartition and attnum > 0 and not attisdropped
    order by relname, attnum`.execute(db);
  for (const { table, column } of rows) found.set(table, [...(found.get(table) ?? []), column]);
  t.same([...found.keys()].sort(), Object.keys(columns).sort());
  for (const [table, names] of found)
    t.same([...names].sort(), Object.keys(columns[table] ?? {}).sort(), table);
});

t.test(
  'every table says in its comment what it holds, and whether its rows are sealed',
  folded(async (t) => {
    const { db } = await testDatabase(t);
    for (const [table, classed] of Object.entries(columns)) {
      const {
        rows: [row],
      } = await sql<{
        comment: string | null;
      }>`select obj_description(${table}::regclass, 'pg_class') as comment`.execute(db);
      const comment = row?.comment ?? '';
      t.match(comment, /^(tenant-data|operational)(, sealed)?: ./, table);
      const isSealed = /^[a-z-]+, sealed:/.test(comment);
      t.equal(
        ('seal' in classed || 'row_mac' in classed) &&
          ('revision' in classed || unchanging.has(table)),
        isSealed,
        `${table} is sealed exactly if it has revision and row MAC`,
      );
      t.equal(
        placesOf(classed).some((place) => place === `${table}.revision`),
        isSealed && !unchanging.has(table),
        `${table}: the row MAC is over the revision`,
      );
    }
  }),
);

t.test(
  'what is called sealed or bound is what the vault seals and binds, member by member',
  async (t) => {
    const vault = await startVault(t);
    const real = await watch(vault);
    const said = new Set(Object.values(columns).flatMap(placesOf));
    t.same([...said].sort(), [...real].sort());
  },
);

const placesOf = (classed: Readonly<Record<string, Class>>): string[] =>
  Object.values(classed).flatMap((each) => (typeof each === 'string' ? [] : each.in));

/** Does one of everything and collects what goes into seals, MACs of events and tokens. */
async function watch(vault: TestVault): Promise<Set<string>> {
  const { keyring } = vault;
  const places = new Set<string>();
  const take = (kind: string, value: object): void => {
    for (const name of Object.keys(value)) places.add(`${kind}.${name}`);
  };
  const { rowMac, mac, seal } = keyring;
  keyring.rowMac = (table, row) => {
    take(table, row);
    return rowMac.call(keyring, table, row);
  };
  keyring.mac = (purpose, message) => {
    if (purpose === 'auditMac') take('event', JSON.parse(String(message)) as JsonObject);
    return mac.call(keyring, purpose, message);
  };
  keyring.seal = (key, place, fields) => {
    take('token', { ...(place satisfies Binding), key: key.id });
    return seal.call(keyring, key, place, fields);
  };
  await vault.team('payments');
  await vault.member('payments', 'eddie', 'editor');
  await demand(
    vault.call('operator', 'PUT', '/v1/credential-types/acme.crm', {
      title: 'Acme CRM',
      description: 'An API key of Acme.',
      fields: [{ name: 'apiKey', title: 'API key', class: 'secret', isRequired: true }],
    }),
    200,
  );
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const { id } = await storeOpenai(vault, 'payments', 'openai', 'sk-test');
  await demand(
    vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { fields: { apiKey: 'sk-next' } },
      { 'if-match': '*' },
    ),
    200,
  );
  await demand(
    vault.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, { 'if-match': '*' }),
    204,
  );
  await demand(vault.call('alice', 'POST', `/v1/credentials/${id}/restore`), 200);
  await demand(askLease(vault, engine.sub, [{ id }]), 201);
  const { id: brokered } = await storeOpenai(vault, 'payments', 'brokered', 'sk-test-brokered', {
    policy: { delivery: ['broker'], allowedHosts: [] },
  });
  await demand(askTicket(vault, engine.sub, { id: brokered }), 201);
  await vault.team('lending', ['otto']);
  await demand(
    vault.call('alice', 'PUT', `/v1/credentials/${brokered}/grants/teams/lending`, {
      access: 'use',
    }),
    200,
  );
  const { id: receiver } = (await demand(
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: 'receiver',
      type: 'webhook',
      fields: { ...typeSamples['webhook']?.public, ...typeSamples['webhook']?.secret },
    }),
    201,
  )) as { id: string };
  await demand(
    vault.call('alice', 'PUT', `/v1/teams/payments/webhooks/${receiver}`, {
      events: ['key.overdue'],
    }),
    200,
  );
  await demand(vault.call('alice', 'POST', `/v1/teams/payments/webhooks/${receiver}/test`), 202);
  await demand(
    vault.call('alice', 'POST', `/v1/credentials/${brokered}/transfers`, { team: 'lending' }),
    201,
  );
  return places;
}
