// The one list of tables with row MACs: how the rows of each are read, verified and protected.
import { type RawBuilder, sql } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import {
  verifyEngineRowMac,
  verifyGrantRowMac,
  verifyMembershipRowMac,
  type EngineMacFields,
  type GrantMacFields,
  type MembershipMacFields,
  engineRowMac,
  grantRowMac,
  membershipRowMac,
  verifyTeamRowMac,
  teamRowMac,
  type TeamSettingsRow,
} from '../access/index.ts';
import { settingsColumns } from '../access/sql.ts';
import { type TicketMacFields, ticketRowMac, verifyTicketRowMac } from '../broker/index.ts';
import {
  verifyCredentialRowMac,
  declaredMac,
  declaredMacHolds,
  type ProtectedType,
  credentialRowMac,
  type CredentialMacFields,
} from '../credentials/index.ts';
import {
  verifyEngineKeyRowMac,
  type EngineKeyMacFields,
  engineKeyRowMac,
} from '../engines/index.ts';
import {
  verifyNotificationRowMac,
  type NotificationMacFields,
  type WebhookMacFields,
  notificationRowMac,
  webhookRowMac,
  verifyWebhookRowMac,
} from '../notifications/index.ts';
import { type TransferMacFields, transferRowMac, verifyTransferRowMac } from '../sharing/index.ts';

/**
 * The names behind ids, each by its key: where a batch is read, no other table is read from end to
 * end.
 */
const nameOf = (table: 'team' | 'subject', id: string, as: string = table): string =>
  `lateral (select ${table === 'team' ? 'slug' : 'sub'} from ${table} where ${table}.id = ${id} offset 0) ${as}`;

/** How one table is read and its row MACs are made. */
export interface RowMacTable<T> {
  readonly table: string;
  /** Where the row MAC stands. */
  readonly column: 'seal' | 'row_mac';
  /** The columns of the row's key, in the order of its index. */
  readonly key: readonly {
    readonly column: RawBuilder<unknown>;
    readonly type: RawBuilder<unknown>;
  }[];
  /** Columns and joins that give what the row MAC covers; the table itself is `held`. */
  readonly select: RawBuilder<unknown>;
  readonly holds: (keyring: Keyring, row: T, seal: Buffer) => boolean;
  readonly seal: (keyring: Keyring, row: T) => Buffer;
}

const uuid = (column: string): RowMacTable<never>['key'][number] => ({
  column: sql.ref(column),
  type: sql.raw('uuid'),
});
const text = (column: string): RowMacTable<never>['key'][number] => ({
  column: sql.ref(column),
  type: sql.raw('text'),
});

const teams: RowMacTable<TeamSettingsRow> = {
  table: 'team',
  column: 'row_mac',
  key: [uuid('held.id')],
  holds: (keyring, row) => verifyTeamRowMac(keyring, row),
  seal: teamRowMac,
  select: sql`${settingsColumns('held')} from team held`,
};
const credentials: RowMacTable<CredentialMacFields> = {
  table: 'credential',
  column: 'seal',
  key: [uuid('held.id')],
  holds: verifyCredentialRowMac,
  seal: credentialRowMac,
  select: sql.raw(`held.id, held.team_id as team, held.name, held.type, held.state,
      held.state_before as "stateBefore", held.current_version as version,
      held.expires_at as "expiresAt", held.revision,
    current.public_fields as "publicFields", current.policy,
      current.secret_field_names as "secretFieldNames"
    from credential held left join credential_version current on current.team_id = held.team_id
      and current.credential_id = held.id and current.version = held.current_version`),
};
const declaredTypes: RowMacTable<ProtectedType> = {
  table: 'credential_type',
  column: 'row_mac',
  key: [text('held.name')],
  holds: declaredMacHolds,
  seal: declaredMac,
  select: sql.raw(
    'held.name, held.id, held.stored_name as "storedName", held.declaration, held.revision ' +
      'from credential_type held',
  ),
};
const memberships: RowMacTable<MembershipMacFields> = {
  table: 'membership',
  column: 'seal',
  key: [uuid('held.team_id'), uuid('held.subject_id')],
  holds: verifyMembershipRowMac,
  seal: membershipRowMac,
  select:
    sql.raw(`held.team_id as team, team.slug, held.subject_id as subject, subject.sub, held.role,
      held.acts_for_itself as "actsForItself", held.revision
    from membership held left join ${nameOf('team', 'held.team_id')} on true
      left join ${nameOf('subject', 'held.subject_id')} on true`),
};
const engines: RowMacTable<EngineMacFields> = {
  table: 'engine',
  column: 'seal',
  key: [uuid('held.id')],
  holds: verifyEngineRowMac,
  seal: engineRowMac,
  select: sql.raw(
    `held.id, held.subject_id as subject, subject.sub, held.state, held.revision from engine held
      left join ${nameOf('subject', 'held.subject_id')} on true`,
  ),
};
const engineKeys: RowMacTable<EngineKeyMacFields> = {
  table: 'engine_key',
  column: 'seal',
  key: [uuid('held.engine_id'), text('held.kid')],
  holds: verifyEngineKeyRowMac,
  seal: engineKeyRowMac,
  select: sql.raw(
    'held.engine_id as engine, held.kid, held.jwk, held.revision from engine_key held',
  ),
};
const brokerTickets: RowMacTable<TicketMacFields> = {
  table: 'broker_ticket',
  column: 'seal',
  key: [uuid('held.id')],
  holds: verifyTicketRowMac,
  seal: ticketRowMac,
  select: sql.raw(`held.id, held.ticket_hash as hash, held.credential_id as credential,
      held.engine_id as engine, held.behalf_subject_id as "onBehalfOf", held.host,
    held.expires_at as "expiresAt", held.revision, held.bundle_id as bundle,
      held.created_at as "createdAt" from broker_ticket held`),
};
const grants: RowMacTable<GrantMacFields> = {
  table: 'credential_grant',
  column: 'seal',
  key: [uuid('held.id')],
  holds: verifyGrantRowMac,
  seal: grantRowMac,
  select: sql.raw(`held.id, held.team_id as team, owner.slug, held.credential_id as credential,
      held.grantee_kind as kind, coalesce(held.grantee_team_id, held.grantee_subject_id) as grantee,
    coalesce(receiving.slug, person.sub) as name, held.access, held.revision
    from credential_grant held left join ${nameOf('team', 'held.team_id', 'owner')} on true
    left join ${nameOf('team', 'held.grantee_team_id', 'receiving')} on true
      left join ${nameOf('subject', 'held.grantee_subject_id', 'person')} on true`),
};
const webhooks: RowMacTable<WebhookMacFields> = {
  table: 'webhook',
  column: 'seal',
  key: [uuid('held.credential_id')],
  holds: verifyWebhookRowMac,
  seal: webhookRowMac,
  select: sql.raw(
    'held.credential_id as credential, held.team_id as team, held.events, held.revision from ' +
      'webhook held',
  ),
};
const notifications: RowMacTable<NotificationMacFields> = {
  table: 'notification',
  column: 'seal',
  key: [uuid('held.id')],
  holds: verifyNotificationRowMac,
  seal: notificationRowMac,
  select: sql.raw(`held.id, held.webhook_id as webhook, held.team_id as team, held.type,
      held.subject_type as "subjectType", held.subject_id as "subjectId", held.due_at as "dueAt",
      held.at, held.data
    from notification held`),
};
const transfers: RowMacTable<TransferMacFields> = {
  table: 'credential_transfer',
  column: 'seal',
  key: [uuid('held.id')],
  holds: verifyTransferRowMac,
  seal: transferRowMac,
  select: sql.raw(`held.id, held.team_id as team, source.slug, held.credential_id as credential,
      held.to_team_id as "to", target.slug as "toSlug", held.expires_at as "expiresAt",
      held.revision
    from credential_transfer held left join ${nameOf('team', 'held.team_id', 'source')} on true
      left join ${nameOf('team', 'held.to_team_id', 'target')} on true`),
};

/** Every table with row MACs. Only its own functions know the type of a row. */
export const rowMacTables = [
  teams,
  credentials,
  memberships,
  declaredTypes,
  engines,
  engineKeys,
  brokerTickets,
  grants,
  webhooks,
  notifications,
  transfers,
] as unknown as readonly RowMacTable<never>[];
