// What an export is made of: the kinds of things that are known of a team, each read along an
// index, a batch at a time. No column here holds a token, a wrapped key, a row MAC that leaves, or
// anything else that a secret could be got from.
import { type RawBuilder, sql } from 'kysely';
import type { CredentialId, DataKeyId, RotationId, SubjectId, TeamId } from '../shared/ids.ts';
import type { Keyring } from '../crypto/index.ts';
import { contentBytes, upToBytes } from '../db/bytes.ts';
import type { Trx } from '../db/client.ts';
import { countOf } from '../db/counts.ts';
import {
  verifyGrantRowMac,
  verifyMembershipRowMac,
  type GrantMacFields,
  type MembershipMacFields,
  verifyTeamRowMac,
  type TeamRef,
  type TeamSettingsRow,
} from '../access/index.ts';
import {
  verifyListedRowMac,
  type PublicFields,
  type CredentialMacFields,
  shownFields,
  shownFieldsOf,
  shownType,
} from '../credentials/index.ts';
import {
  type CiphertextTable,
  ciphertextTables,
  type DescribedKind,
  type SpelledKind,
} from '../keys/index.ts';
import { rotationFailuresSql } from '../keys/sql.ts';
import { type WebhookMacFields, verifyWebhookRowMac } from '../notifications/index.ts';

/** What of versions is read at once. */
const batchBytes = 1024 * 1024;

/** One line, before its schema has looked at it. */
export type Line = { readonly kind: string } & Readonly<Record<string, unknown>>;

/** How the things of one kind are read. */
// biome-ignore lint/suspicious/noExplicitAny: the rows of different kinds stand in one list
export interface Kind<Row = any> {
  readonly kind: string;
  /**
   * Up to `limit` rows of the team after this one, in the order of an index; one at the least, as
   * long as there is one.
   */
  readonly next: (
    trx: Trx,
    team: TeamId,
    after: Row | undefined,
    limit: number,
  ) => Promise<readonly Row[]>;
  /** What of a row goes out. */
  readonly line: (row: Row, keyring: Keyring, team: TeamRef) => Omit<Line, 'kind'>;
}

const all = sql`true`;
const after = <Row>(
  row: Row | undefined,
  condition: (row: Row) => RawBuilder<unknown>,
): RawBuilder<unknown> => (row === undefined ? all : condition(row));
const kind = <Row>(of: Kind<Row>): Kind => of as Kind;
const stamps = (table: string): RawBuilder<unknown> =>
  sql.raw(
    `${table}.created_at as "createdAt",
      coalesce(creator.sub, ${table}.created_by::text) as "createdBy",
      ${table}.updated_at as "updatedAt",
      coalesce(updater.sub, ${table}.updated_by::text) as "updatedBy"`,
  );
const stampJoins = (table: string): RawBuilder<unknown> =>
  sql.raw(
    `left join subject creator on creator.id = ${table}.created_by left join subject updater
      on updater.id = ${table}.updated_by`,
  );

const team = kind<TeamSettingsRow>({
  kind: 'team',
  next: async (trx, id, last) =>
    last !== undefined
      ? []
      : (
          await sql<TeamSettingsRow>`
    select team.id, team.slug, team.name, team.token_format as "tokenFormat",
      team.rotate_every_days as "rotateEveryDays",
      team.refuse_exposed_leases as "refuseExposedLeases",
      team.default_delivery as "defaultDelivery", team.versions_kept as "versionsKept",
        team.revision, team.row_mac as "rowMac", team.row_mac_version as "rowMacVersion",
        ${stamps('team')}
    from team ${stampJoins('team')} where team.id = ${id}`.execute(trx)
        ).rows,
  line: ({ rowMac, rowMacVersion, ...row }, keyring) => ({
    ...row,
    intact: verifyTeamRowMac(keyring, { ...row, rowMac, rowMacVersion }),
  }),
});

type MemberRow = { id: SubjectId; subject: string; seal: Buffer } & Pick<
  MembershipMacFields,
  'role' | 'actsForItself' | 'revision'
>;
const member = kind<MemberRow>({
  kind: 'member',
  next: async (trx, id, last, limit) =>
    (
      await sql<MemberRow>`
    select held.subject_id as id, coalesce(person.sub, held.subject_id::text) as subject, held.role,
      held.acts_for_itself as "actsForItself", held.revision, held.seal, ${stamps('held')}
    from membership held left join subject person
      on person.id = held.subject_id ${stampJoins('held')}
    where held.team_id = ${id} and ${after(last, (row) => sql`held.subject_id > ${row.id}`)}
      order by held.subject_id limit ${limit}`.execute(trx)
    ).rows,
  line: ({ id, seal, ...row }, keyring, { id: team, slug }) => ({
    ...row,
    intact: verifyMembershipRowMac(
      keyring,
      { ...row, team, slug, subject: id, sub: row.subject },
      seal,
    ),
  }),
});

type KeyRow = { id: DataKeyId; version: number };
const key = kind<KeyRow>({
  kind: 'key',
  next: async (trx, id, last, limit) =>
    (
      await sql<KeyRow>`
    select key.id, key.version, key.state, key.format, key.fingerprint,
      key.root_fingerprint as "rootFingerprint", key.root_history as "rootFingerprints",
      key.created_at as "createdAt", coalesce(creator.sub, key.created_by::text) as "createdBy",
        key.demoted_at as "demotedAt", key.retired_at as "retiredAt",
        key.compromised_at as "compromisedAt",
      coalesce(marker.sub, key.compromised_by::text) as "compromisedBy",
        key.compromise_reason as "compromiseReason",
        key.destroy_scheduled_at as "destroyScheduledAt", key.destroy_at as "destroyAt",
        key.destroyed_at as "destroyedAt"
    from data_key key left join subject creator on creator.id = key.created_by
      left join subject marker on marker.id = key.compromised_by
    where key.team_id = ${id} and ${after(last, (row) => sql`key.version > ${row.version}`)}
      order by key.version limit ${limit}`.execute(trx)
    ).rows,
  line: (row) => row,
});

type RotationRow = { id: RotationId };
const rotation = kind<RotationRow>({
  kind: 'rotation',
  next: async (trx, id, last, limit) =>
    (
      await sql<RotationRow>`
    select held.id, held.state, held.to_key_id as "toKey", ${countOf('held.total')} as total,
      ${countOf('held.done')} as done, held.cause, held.created_at as "createdAt",
      coalesce(creator.sub, held.created_by::text) as "createdBy",
      held.progressed_at as "progressedAt", held.ended_at as "endedAt"
    from key_rotation held left join subject creator on creator.id = held.created_by
    where held.team_id = ${id} and ${after(last, (row) => sql`held.id > ${row.id}`)}
      order by held.id limit ${limit}`.execute(trx)
    ).rows,
  line: (row) => row,
});

type FailureRow = {
  rotation: RotationId;
  credential: CredentialId;
  version: number | null;
  at: Date;
};
/** Version 0 stands for the tokens stored beside the versions. */
const rotationFailure = kind<FailureRow>({
  kind: 'rotationFailure',
  next: async (trx, id, last, limit) =>
    (
      await sql<FailureRow>`
    select failure.rotation, failure.credential, nullif(failure.version, 0) as version, failure.at
    from key_rotation rotation
    cross join lateral (${rotationFailuresSql(sql`rotation.id`)}) failure
    where rotation.team_id = ${id}
      and ${after(
        last,
        (row) => sql`(failure.rotation, failure.credential,
      failure.version) > (${row.rotation}, ${row.credential}, ${row.version ?? 0})`,
      )}
    order by failure.rotation, failure.credential, failure.version limit ${limit}`.execute(trx)
    ).rows,
  line: (row) => row,
});

/** What a page of rows that may be long is counted by. */
type Counted = { bytes: number; found: number; before: number };
type CredentialRow = Omit<CredentialMacFields, 'team'> & { seal: Buffer; labels: object } & Counted;
const credential = kind<CredentialRow>({
  kind: 'credential',
  next: async (trx, id, last, limit) => {
    const rows = sql`
    select held.id, held.name, held.type, held.description, held.labels, held.state,
      held.state_before as "stateBefore", held.current_version as version,
      held.expires_at as "expiresAt", held.rotate_after as "rotateAfter", held.revision, held.seal,
        current.public_fields as "publicFields", current.policy,
        current.secret_field_names as "secretFieldNames",
      coalesce(${countOf('usage.use_count')}, 0) as "useCount", usage.last_used_at as "lastUsedAt",
        held.deleted_at as "deletedAt", ${stamps('held')},
      coalesce(${contentBytes('current')}, 0) as bytes
    from credential held left join credential_version current on current.team_id = held.team_id
      and current.credential_id = held.id and current.version = held.current_version
    left join credential_usage usage on usage.team_id = held.team_id
      and usage.credential_id = held.id ${stampJoins('held')}
    where held.team_id = ${id} and ${after(last, (row) => sql`held.id > ${row.id}`)}
      order by held.id limit ${limit}`;
    return (await sql<CredentialRow>`${upToBytes(rows, sql`id`, batchBytes)}`.execute(trx)).rows;
  },
  line: (
    { seal, publicFields, policy, secretFieldNames, bytes: _, found: __, before: ___, ...row },
    keyring,
    { id: team },
  ) => ({
    ...row,
    type: shownType(row.type),
    isDeleted: row.state === 'deleted',
    intact: verifyListedRowMac(
      keyring,
      { ...row, team, publicFields, policy, secretFieldNames },
      seal,
    ),
  }),
});

type VersionRow = {
  credential: CredentialId;
  version: number;
  type: string | null;
  publicFields: PublicFields;
} & Counted;
const version = kind<VersionRow>({
  kind: 'version',
  next: async (trx, id, last, limit) => {
    const rows = sql`
    select held.credential_id as credential, held.version, credential.type,
      held.version = credential.current_version as "isCurrent", held.data_key_id as key,
      held.key_history as "keyHistory",
      held.public_fields as "publicFields", held.secret_field_names as "secretFields", held.policy,
        held.undecryptable_at as "undecryptableAt", held.created_at as "createdAt",
        coalesce(creator.sub, held.created_by::text) as "createdBy",
      ${contentBytes('held')} as bytes
    from credential_version held left join credential on credential.team_id = held.team_id
      and credential.id = held.credential_id left join subject creator
      on creator.id = held.created_by
    where held.team_id = ${id}
      and ${after(
        last,
        (row) => sql`(held.credential_id, held.version) > (${row.credential},
      ${row.version}::int)`,
      )}
    order by held.credential_id, held.version limit ${limit}`;
    return (
      await sql<VersionRow>`${upToBytes(rows, sql`credential, version`, batchBytes)}`.execute(trx)
    ).rows;
  },
  line: ({ bytes: _, found: __, before: ___, type, ...row }) => ({
    ...row,
    publicFields:
      type === null
        ? shownFields(undefined, row.publicFields)
        : shownFieldsOf(type, row.publicFields),
  }),
});

type ConnectionRow = { credential: CredentialId };
const connection = kind<ConnectionRow>({
  kind: 'connection',
  next: async (trx, id, last, limit) =>
    (
      await sql<ConnectionRow>`
    select held.credential_id as credential, held.token is not null as "isHeld",
      held.data_key_id as key, held.key_history as "keyHistory", held.sequence,
      held.expires_at as "expiresAt",
      held.is_refreshable as "isRefreshable", held.obtained_at as "obtainedAt",
        held.connected_at as "connectedAt",
        coalesce(connector.sub, held.connected_by::text) as "connectedBy", held.attempts,
        held.retry_at as "retryAt",
      case when held.failure = 'refused' then coalesce(held.failure_detail, held.failure)
        else held.failure end as failure, held.failed_at as "failedAt",
      held.unavailable_since as "unavailableSince", held.forced_count as "forcedCount",
        held.force_after as "forceAfter", held.rejected_at as "rejectedAt",
        held.instance_url as "instanceUrl"
    from oauth_token held left join subject connector on connector.id = held.connected_by
    where held.team_id = ${id}
      and ${after(last, (row) => sql`held.credential_id > ${row.credential}`)}
      order by held.credential_id limit ${limit}`.execute(trx)
    ).rows,
  line: (row) => row,
});

type AuthorizationRow = { id: string };
const authorization = kind<AuthorizationRow>({
  kind: 'authorization',
  next: async (trx, id, last, limit) =>
    (
      await sql<AuthorizationRow>`
    select held.id, held.credential_id as credential,
      coalesce(person.sub, held.subject_id::text) as subject, held.created_at as "createdAt",
      held.expires_at as "expiresAt"
    from oauth_authorization held left join subject person on person.id = held.subject_id
    where held.team_id = ${id} and ${after(last, (row) => sql`held.id > ${row.id}`)}
      order by held.id limit ${limit}`.execute(trx)
    ).rows,
  line: (row) => row,
});

type TicketRow = { id: string; credential: CredentialId };
const ticket = kind<TicketRow>({
  kind: 'ticket',
  next: async (trx, id, last, limit) =>
    (
      await sql<TicketRow>`
    select held.id, held.bundle_id as bundle, held.credential_id as credential,
      held.engine_id as engine, coalesce(person.sub, held.behalf_subject_id::text) as "onBehalfOf",
      held.host, held.expires_at as "expiresAt", held.created_at as "createdAt"
    from credential join broker_ticket held on held.credential_id = credential.id
      left join subject person on person.id = held.behalf_subject_id
    where credential.team_id = ${id}
      and ${after(
        last,
        (row) => sql`credential.id >= ${row.credential}
      and (held.credential_id, held.id) > (${row.credential}, ${row.id})`,
      )}
    order by credential.id, held.id limit ${limit}`.execute(trx)
    ).rows,
  line: (row) => row,
});

type GrantRow = Omit<GrantMacFields, 'team' | 'slug'> & {
  seal: Buffer;
  createdAt: Date;
  createdBy: string;
  updatedAt: Date;
  updatedBy: string;
};
const grant = kind<GrantRow>({
  kind: 'grant',
  next: async (trx, id, last, limit) =>
    (
      await sql<GrantRow>`
    select held.id, held.credential_id as credential, held.grantee_kind as kind,
      coalesce(held.grantee_team_id, held.grantee_subject_id) as grantee,
      coalesce(receiving.slug, person.sub, held.grantee_team_id::text,
      held.grantee_subject_id::text) as name,
      held.access, held.revision, held.seal, ${stamps('held')}
    from credential join credential_grant held on held.credential_id = credential.id
      and held.team_id = credential.team_id
    left join team receiving on receiving.id = held.grantee_team_id left join subject person
      on person.id = held.grantee_subject_id ${stampJoins('held')}
    where credential.team_id = ${id}
      and ${after(
        last,
        (row) => sql`credential.id >= ${row.credential}
      and (held.credential_id, held.id) > (${row.credential}, ${row.id})`,
      )}
    order by credential.id, held.id limit ${limit}`.execute(trx)
    ).rows,
  line: ({ seal, grantee, ...row }, keyring, { id: team, slug }) => ({
    id: row.id,
    credential: row.credential,
    to: row.kind,
    team: row.kind === 'team' ? row.name : null,
    subject: row.kind === 'team' ? null : row.name,
    access: row.access,
    revision: row.revision,
    intact: verifyGrantRowMac(keyring, { ...row, grantee, team, slug }, seal),
    createdAt: row.createdAt,
    createdBy: row.createdBy,
    updatedAt: row.updatedAt,
    updatedBy: row.updatedBy,
  }),
});

type WebhookRow = Omit<WebhookMacFields, 'team'> & { seal: Buffer };
const webhook = kind<WebhookRow>({
  kind: 'webhook',
  next: async (trx, id, last, limit) =>
    (
      await sql<WebhookRow>`
    select held.credential_id as credential, held.events, held.revision, held.seal,
      held.served_at as "servedAt", held.paused_until as "pausedUntil",
      held.failing_since as "failingSince",
      held.delivered_at as "deliveredAt", held.gone_at as "goneAt", ${stamps('held')}
    from webhook held ${stampJoins('held')} where held.team_id = ${id}
      and ${after(last, (row) => sql`held.credential_id > ${row.credential}`)}
      order by held.credential_id limit ${limit}`.execute(trx)
    ).rows,
  line: ({ seal, ...row }, keyring, { id: team }) => ({
    ...row,
    intact: verifyWebhookRowMac(keyring, { ...row, team }, seal),
  }),
});

type NotificationRow = { credential: CredentialId; id: string };
const notification = kind<NotificationRow>({
  kind: 'notification',
  next: async (trx, id, last, limit) =>
    (
      await sql<NotificationRow>`
    select held.webhook_id as credential, held.id, held.type, held.subject_type as "subjectType",
      held.subject_id as subject, held.due_at as "dueAt", held.at, held.state, held.attempts,
      held.next_attempt_at as "nextAttemptAt", held.last_attempt_at as "lastAttemptAt",
        held.outcome, held.ended_at as "endedAt"
    from webhook join notification held on held.webhook_id = webhook.credential_id
    where webhook.team_id = ${id}
      and ${after(
        last,
        (row) => sql`webhook.credential_id >= ${row.credential}
      and (held.webhook_id, held.id) > (${row.credential}, ${row.id})`,
      )}
    order by webhook.credential_id, held.id limit ${limit}`.execute(trx)
    ).rows,
  line: (row) => row,
});

/** The kinds of tables with ciphertexts that are spelled out here. */
const spelled: Readonly<Record<SpelledKind['spelled'], Kind>> = { version, connection };

type DescribedRow = { readonly credential: CredentialId; readonly number: number };

/** A kind as the descriptor of its table describes it: never the token. */
const described = (
  { name, number, rows }: CiphertextTable,
  { kind: named, members }: DescribedKind,
): Kind => {
  const numberColumn = sql.ref(`held.${number}`);
  const isNumbered = rows === 'versions';
  const columns = Object.entries(members).map(
    ([member, { column }]) => sql`, ${sql.ref(`held.${column}`)} as ${sql.ref(member)}`,
  );
  const place = isNumbered ? sql`held.credential_id, ${numberColumn}` : sql`held.credential_id`;
  return kind<DescribedRow>({
    kind: named,
    next: async (trx, id, last, limit) =>
      (
        await sql<DescribedRow>`
    select held.credential_id as credential, ${numberColumn} as number, held.data_key_id as key,
      held.key_history as "keyHistory" ${sql.join(columns, sql``)}
    from ${sql.table(name)} held
    where held.team_id = ${id} and ${after(
      last,
      (row) => sql`(${place}) > (${row.credential} ${isNumbered ? sql`, ${row.number}` : sql``})`,
    )}
    order by ${place} limit ${limit}`.execute(trx)
      ).rows,
    line: (row) => row,
  });
};

const kindOf = (table: CiphertextTable): Kind =>
  table.exported.spelled === undefined
    ? described(table, table.exported)
    : spelled[table.exported.spelled];
const [ofVersions, ofOthers] = [
  ciphertextTables.filter(({ rows }) => rows === 'versions'),
  ciphertextTables.filter(({ rows }) => rows === 'one'),
];

/**
 * Every kind but the events, in the order in which they go out: what others refer to comes before
 * them.
 */
export const kinds: readonly Kind[] = [
  team,
  member,
  key,
  rotation,
  credential,
  ...ofVersions.map(kindOf),
  rotationFailure,
  grant,
  ...ofOthers.map(kindOf),
  authorization,
  ticket,
  webhook,
  notification,
];
