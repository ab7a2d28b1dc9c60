// The tables as kysely sees them: one interface a table, in the order of the migrations.
// docs/schema.sql is their whole truth.
import type { Generated } from 'kysely';
import type { ColumnType } from 'kysely';
import type {
  AuthorizationId,
  CredentialId,
  DataKeyId,
  EngineId,
  EventId,
  GrantId,
  NotificationId,
  RotationId,
  SubjectId,
  TeamId,
  TicketId,
  TransferId,
} from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';

export type Role = 'viewer' | 'editor' | 'admin' | 'auditor' | 'engine';
export type Delivery = 'lease' | 'broker';
/** `engine`: the subject was a registered engine when it was granted to. */
export type GranteeKind = 'team' | 'subject' | 'engine';
export type GrantAccess = 'read' | 'use';
export type TokenFormatColumn = 'fernet' | 'fernet-256';
export type LivingState = 'enabled' | 'disabled';
export type CredentialState = LivingState | 'deleted';
export type DataKeyState = 'active' | 'decryptOnly' | 'retired' | 'destroyPending' | 'destroyed';
export type RotationCause = 'request' | 'policy' | 'compromise' | 'rootCompromise';
export type RotationState = 'running' | 'completed' | 'completedWithFailures' | 'cancelled';

/** jsonb: read as a value, written as text that the caller has serialised. */
type Json<T = JsonObject> = ColumnType<T, string, string>;

interface Stamped {
  created_at: Date;
  created_by: SubjectId;
  updated_at: Date;
  updated_by: SubjectId;
}

export interface SubjectTable {
  id: SubjectId;
  sub: string;
  created_at: ColumnType<Date, Date | undefined, never>;
}
export interface TeamTable extends Stamped {
  id: TeamId;
  slug: ColumnType<string, string, never>;
  name: string;
  token_format: TokenFormatColumn;
  revision: number;
  deleted_at: Date | null;
  rotate_every_days: ColumnType<number | null, number | null | undefined, number | null>;
  refuse_exposed_leases: ColumnType<boolean, boolean | undefined, boolean>;
  versions_kept: ColumnType<number, number | undefined, number>;
  has_received: ColumnType<boolean, never, never>;
  row_mac: Later<Buffer>;
  row_mac_version: ColumnType<number, number | undefined, number>;
  default_delivery: ColumnType<Delivery[], Delivery[] | undefined, Delivery[]>;
}
export interface MembershipTable extends Stamped {
  team_id: TeamId;
  subject_id: SubjectId;
  role: Role;
  acts_for_itself: boolean;
  revision: number;
  seal: Buffer;
}
export interface EngineTable extends Stamped {
  id: EngineId;
  subject_id: SubjectId;
  name: string;
  state: 'enabled' | 'disabled';
  revision: number;
  seal: Buffer;
}
export interface CredentialTypeTable extends Stamped {
  name: string;
  id: string;
  stored_name: string;
  declaration: Json;
  revision: number;
  row_mac: Buffer;
}
export interface EngineKeyTable {
  engine_id: EngineId;
  kid: string;
  jwk: Json;
  revision: number;
  seal: Buffer;
  created_at: Date;
  created_by: SubjectId;
}
/** Nullable, and left out when the row is made. */
type Later<T> = ColumnType<T | null, T | null | undefined, T | null>;

export interface RootKeyTable {
  fingerprint: string;
  canary: Buffer;
  created_at: ColumnType<Date, Date | undefined, never>;
  compromised_at: Later<Date>;
  compromised_by: Later<SubjectId>;
  compromise_reason: Later<string>;
}
export interface SystemKeyTable {
  id: string;
  purpose: 'rowSeal' | 'auditMac' | 'cursor' | 'idempotency' | 'leaseSigning';
  version: number;
  root_fingerprint: string;
  wrapped: Buffer;
  root_history: ColumnType<string[], never, never>;
  usable_from: Date;
  retired_at: Later<Date>;
  created_at: ColumnType<Date, Date | undefined, never>;
}
export interface DataKeyTable {
  id: DataKeyId;
  team_id: TeamId;
  version: number;
  format: TokenFormatColumn;
  state: DataKeyState;
  fingerprint: string;
  root_fingerprint: string;
  wrapped: Buffer | null;
  root_history: ColumnType<string[], never, never>;
  created_at: Date;
  created_by: SubjectId | null;
  demoted_at: Date | null;
  retired_at: Date | null;
  compromised_at: Later<Date>;
  compromised_by: Later<SubjectId>;
  compromise_reason: Later<string>;
  destroy_scheduled_at: Later<Date>;
  destroy_at: Later<Date>;
  destroyed_at: Later<Date>;
}
export interface CredentialTable extends Stamped {
  id: CredentialId;
  team_id: TeamId;
  name: string;
  type: ColumnType<string, string, never>;
  description: string | null;
  labels: Json<Record<string, string>>;
  state: CredentialState;
  current_version: number;
  expires_at: Date | null;
  rotate_after: Later<Date>;
  due_at: ColumnType<Date | null, never, never>;
  label_bits: ColumnType<bigint, never, never>;
  revision: number;
  seal: Buffer;
  deleted_at: Date | null;
  state_before: ColumnType<LivingState | null, LivingState | null | undefined, LivingState | null>;
}
export interface CredentialVersionTable {
  team_id: TeamId;
  credential_id: CredentialId;
  version: number;
  data_key_id: DataKeyId;
  token: string;
  secret_field_names: string[];
  public_fields: Json;
  policy: Json;
  undecryptable_at: Date | null;
  created_at: Date;
  created_by: SubjectId;
  key_history: ColumnType<DataKeyId[], DataKeyId[] | undefined, never>;
}
export interface CredentialUsageTable {
  credential_id: CredentialId;
  team_id: TeamId;
  use_count: number;
  last_used_at: Date | null;
  made_at: Date;
  idle_since: ColumnType<Date, never, never>;
}
export interface KeyRotationTable {
  id: RotationId;
  team_id: TeamId;
  to_key_id: DataKeyId;
  state: RotationState;
  total: number;
  done: number;
  created_at: Date;
  created_by: SubjectId | null;
  progressed_at: Date;
  ended_at: Date | null;
  cause: ColumnType<RotationCause, RotationCause | undefined, never>;
}
export interface KeyRotationFailureTable {
  rotation_id: RotationId;
  team_id: TeamId;
  credential_id: CredentialId;
  version: number;
  at: Date;
}
export interface OAuthTokenTable {
  credential_id: CredentialId;
  team_id: TeamId;
  sequence: number;
  data_key_id: DataKeyId | null;
  token: string | null;
  client: Json;
  policy: Json;
  key_history: DataKeyId[];
  takes_version: boolean;
  expires_at: Date | null;
  is_refreshable: boolean;
  obtained_at: Date | null;
  connected_at: Date | null;
  connected_by: SubjectId | null;
  claim_id: string | null;
  claimed_until: Date | null;
  attempts: number;
  retry_at: Date | null;
  failure: string | null;
  failed_at: Date | null;
  failure_detail: string | null;
  unavailable_since: Date | null;
  forced_count: number;
  force_after: Date | null;
  rejected_at: Date | null;
  instance_url: string | null;
}
export interface KeyRotationOAuthFailureTable {
  rotation_id: RotationId;
  credential_id: CredentialId;
  at: Date;
}
export interface OAuthAuthorizationTable {
  id: AuthorizationId;
  team_id: TeamId;
  credential_id: CredentialId;
  subject_id: SubjectId;
  client: Json;
  redirect_uri: string;
  state_hash: Buffer;
  salt: Buffer;
  created_at: Date;
  expires_at: Date;
}
export interface AuditEventTable {
  id: EventId;
  at: Date;
  actor_id: SubjectId | null;
  team_id: TeamId | null;
  action: string;
  target_type: string;
  target_id: string;
  decision: 'allow' | 'deny';
  reason: string | null;
  request_id: string;
  key_id: DataKeyId | null;
  credential_version: number | null;
  address_hash: Buffer | null;
  details: Json;
  mac_version: number;
  mac: Buffer;
}
export interface AuditAddressTable {
  event_id: EventId;
  at: Date;
  address: string;
  salt: Buffer;
}
export interface AccessRecordTable {
  id: EventId;
  at: Date;
  subject_id: SubjectId | null;
  team_id: TeamId | null;
  action: string;
  target_id: string | null;
  status: number;
  request_id: string;
  address: string | null;
}
export interface IdempotencyRecordTable {
  subject_id: SubjectId;
  method: string;
  route: string;
  key_hash: Buffer;
  body_mac_version: number;
  body_mac: Buffer;
  target_id: string;
  created_at: Date;
}
export interface BrokerTicketTable {
  id: TicketId;
  bundle_id: TicketId | null;
  ticket_hash: Buffer;
  credential_id: CredentialId;
  engine_id: EngineId;
  behalf_subject_id: SubjectId | null;
  host: string | null;
  expires_at: Date;
  revision: number;
  seal: Buffer;
  created_at: Date;
}
export interface CredentialGrantTable extends Stamped {
  id: GrantId;
  team_id: TeamId;
  credential_id: CredentialId;
  grantee_kind: GranteeKind;
  grantee_team_id: TeamId | null;
  grantee_subject_id: SubjectId | null;
  access: GrantAccess;
  revision: number;
  seal: Buffer;
}
export interface WebhookTable extends Stamped {
  credential_id: CredentialId;
  team_id: TeamId;
  events: string[];
  revision: number;
  seal: Buffer;
  claim_id: string | null;
  claimed_until: Date | null;
  served_at: Date | null;
  paused_until: Date | null;
  failing_since: Date | null;
  delivered_at: Date | null;
  gone_at: Date | null;
}
export interface NotificationTable {
  id: NotificationId;
  webhook_id: CredentialId;
  team_id: TeamId;
  type: string;
  subject_type: string;
  subject_id: string;
  due_at: Date;
  at: Date;
  data: Json;
  seal: Buffer;
  state: 'pending' | 'delivered' | 'failed';
  attempts: number;
  next_attempt_at: Date | null;
  last_attempt_at: Date | null;
  outcome: string | null;
  ended_at: Date | null;
}
export interface CredentialTransferTable {
  id: TransferId;
  team_id: TeamId;
  credential_id: CredentialId;
  to_team_id: TeamId;
  expires_at: Date;
  revision: number;
  seal: Buffer;
  created_at: Date;
  created_by: SubjectId;
}

export interface SubjectPrefixTable {
  prefix: string;
  issuer: string;
  accepted_at: Generated<Date>;
}

export interface Tables {
  subject: SubjectTable;
  subject_prefix: SubjectPrefixTable;
  team: TeamTable;
  membership: MembershipTable;
  engine: EngineTable;
  engine_key: EngineKeyTable;
  root_key: RootKeyTable;
  system_key: SystemKeyTable;
  data_key: DataKeyTable;
  credential: CredentialTable;
  credential_type: CredentialTypeTable;
  credential_version: CredentialVersionTable;
  credential_usage: CredentialUsageTable;
  key_rotation: KeyRotationTable;
  key_rotation_failure: KeyRotationFailureTable;
  oauth_token: OAuthTokenTable;
  key_rotation_oauth_failure: KeyRotationOAuthFailureTable;
  oauth_authorization: OAuthAuthorizationTable;
  audit_event: AuditEventTable;
  audit_address: AuditAddressTable;
  access_record: AccessRecordTable;
  idempotency_record: IdempotencyRecordTable;
  broker_ticket: BrokerTicketTable;
  credential_grant: CredentialGrantTable;
  webhook: WebhookTable;
  notification: NotificationTable;
  credential_transfer: CredentialTransferTable;
}
