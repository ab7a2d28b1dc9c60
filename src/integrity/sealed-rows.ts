// The one list of sealed tables: how the rows of each are read, checked and sealed.
import { type RawBuilder, sql } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import {
  engineSealHolds,
  grantSealHolds,
  membershipSealHolds,
  type SealedEngine,
  type SealedGrant,
  type SealedMembership,
  sealEngine,
  sealGrant,
  sealMembership,
  settingsCount,
  teamMac,
  type TeamSettingsRow,
} from '../access/index.ts';
import { settingsColumns } from '../access/sql.ts';
import { type SealedTicket, sealTicket, ticketSealHolds } from '../broker/index.ts';
import {
  credentialSealHolds,
  declaredMac,
  declaredMacHolds,
  type ProtectedType,
  sealCredential,
  type SealedCredential,
} from '../credentials/index.ts';
import { engineKeySealHolds, type SealedEngineKey, sealEngineKey } from '../engines/index.ts';
import {
  notificationSealHolds,
  type SealedNotification,
  type SealedWebhook,
  sealNotification,
  sealWebhook,
  webhookSealHolds,
} from '../notifications/index.ts';
import { type SealedTransfer, sealTransfer, transferSealHolds } from '../sharing/index.ts';

/** The names behind ids, each by its key: where a batch is read, no other table is read from end to end. */
const nameOf = (table: 'team' | 'subject', id: string, as: string = table): string =>
  `lateral (select ${table === 'team' ? 'slug' : 'sub'} from ${table} where ${table}.id = ${id} offset 0) ${as}`;

/** How one table is read and sealed. */
export interface SealedRows<T> {
  readonly table: string;
  /** Where the seal stands. */
  readonly column: 'seal' | 'row_mac';
  /** The columns of the row's key, in the order of its index. */
  readonly key: readonly {
    readonly column: RawBuilder<unknown>;
    readonly type: RawBuilder<unknown>;
  }[];
  /** Columns and joins that give what the seal is over; the table itself is `held`. */
  readonly select: RawBuilder<unknown>;
  readonly holds: (keyring: Keyring, row: T, seal: Buffer) => boolean;
  readonly seal: (keyring: Keyring, row: T) => Buffer;
}

const uuid = (column: string): SealedRows<never>['key'][number] => ({
  column: sql.ref(column),
  type: sql.raw('uuid'),
});
const text = (column: string): SealedRows<never>['key'][number] => ({
  column: sql.ref(column),
  type: sql.raw('text'),
});

const teams: SealedRows<TeamSettingsRow> = {
  table: 'team',
  column: 'row_mac',
  key: [uuid('held.id')],
  holds: (keyring, row) => settingsCount(keyring, row),
  seal: teamMac,
  select: sql`${settingsColumns('held')} from team held`,
};
const credentials: SealedRows<SealedCredential> = {
  table: 'credential',
  column: 'seal',
  key: [uuid('held.id')],
  holds: credentialSealHolds,
  seal: sealCredential,
  select:
    sql.raw(`held.id, held.team_id as team, held.name, held.type, held.state, held.state_before as "stateBefore", held.current_version as version, held.expires_at as "expiresAt", held.revision,
    current.public_fields as "publicFields", current.policy, current.secret_field_names as "secretFieldNames"
    from credential held left join credential_version current on current.team_id = held.team_id and current.credential_id = held.id and current.version = held.current_version`),
};
const declaredTypes: SealedRows<ProtectedType> = {
  table: 'credential_type',
  column: 'row_mac',
  key: [text('held.name')],
  holds: declaredMacHolds,
  seal: declaredMac,
  select: sql.raw(
    'held.name, held.id, held.stored_name as "storedName", held.declaration, held.revision from credential_type held',
  ),
};
const memberships: SealedRows<SealedMembership> = {
  table: 'membership',
  column: 'seal',
  key: [uuid('held.team_id'), uuid('held.subject_id')],
  holds: membershipSealHolds,
  seal: sealMembership,
  select:
    sql.raw(`held.team_id as team, team.slug, held.subject_id as subject, subject.sub, held.role, held.acts_for_itself as "actsForItself", held.revision
    from membership held left join ${nameOf('team', 'held.team_id')} on true left join ${nameOf('subject', 'held.subject_id')} on true`),
};
const engines: SealedRows<SealedEngine> = {
  table: 'engine',
  column: 'seal',
  key: [uuid('held.id')],
  holds: engineSealHolds,
  seal: sealEngine,
  select: sql.raw(
    `held.id, held.subject_id as subject, subject.sub, held.state, held.revision from engine held left join ${nameOf('subject', 'held.subject_id')} on true`,
  ),
};
const engineKeys: SealedRows<SealedEngineKey> = {
  table: 'engine_key',
  column: 'seal',
  key: [uuid('held.engine_id'), text('held.kid')],
  holds: engineKeySealHolds,
  seal: sealEngineKey,
  select: sql.raw(
    'held.engine_id as engine, held.kid, held.jwk, held.revision from engine_key held',
  ),
};
const brokerTickets: SealedRows<SealedTicket> = {
  table: 'broker_ticket',
  column: 'seal',
  key: [uuid('held.id')],
  holds: ticketSealHolds,
  seal: sealTicket,
  select:
    sql.raw(`held.id, held.ticket_hash as hash, held.credential_id as credential, held.engine_id as engine, held.behalf_subject_id as "onBehalfOf", held.host,
    held.expires_at as "expiresAt", held.revision from broker_ticket held`),
};
const grants: SealedRows<SealedGrant> = {
  table: 'credential_grant',
  column: 'seal',
  key: [uuid('held.id')],
  holds: grantSealHolds,
  seal: sealGrant,
  select:
    sql.raw(`held.id, held.team_id as team, owner.slug, held.credential_id as credential, held.grantee_kind as kind, coalesce(held.grantee_team_id, held.grantee_subject_id) as grantee,
    coalesce(receiving.slug, person.sub) as name, held.access, held.revision
    from credential_grant held left join ${nameOf('team', 'held.team_id', 'owner')} on true
    left join ${nameOf('team', 'held.grantee_team_id', 'receiving')} on true left join ${nameOf('subject', 'held.grantee_subject_id', 'person')} on true`),
};
const webhooks: SealedRows<SealedWebhook> = {
  table: 'webhook',
  column: 'seal',
  key: [uuid('held.credential_id')],
  holds: webhookSealHolds,
  seal: sealWebhook,
  select: sql.raw(
    'held.credential_id as credential, held.team_id as team, held.events, held.revision from webhook held',
  ),
};
const notifications: SealedRows<SealedNotification> = {
  table: 'notification',
  column: 'seal',
  key: [uuid('held.id')],
  holds: notificationSealHolds,
  seal: sealNotification,
  select:
    sql.raw(`held.id, held.webhook_id as webhook, held.team_id as team, held.type, held.subject_type as "subjectType", held.subject_id as "subjectId", held.due_at as "dueAt", held.at, held.data
    from notification held`),
};
const transfers: SealedRows<SealedTransfer> = {
  table: 'credential_transfer',
  column: 'seal',
  key: [uuid('held.id')],
  holds: transferSealHolds,
  seal: sealTransfer,
  select:
    sql.raw(`held.id, held.team_id as team, source.slug, held.credential_id as credential, held.to_team_id as "to", target.slug as "toSlug", held.expires_at as "expiresAt", held.revision
    from credential_transfer held left join ${nameOf('team', 'held.team_id', 'source')} on true left join ${nameOf('team', 'held.to_team_id', 'target')} on true`),
};

/** Every sealed table. What a row is, only its own functions know. */
export const sealedTables = [
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
] as unknown as readonly SealedRows<never>[];
