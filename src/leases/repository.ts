// The use of credentials in SQL: one statement that reads all that a lease or a ticket rests on,
// and one that records it if all of that still stands.
import { type RawBuilder, sql } from 'kysely';
import type { Db, Executor } from '../db/client.ts';
import { type Statement, statement } from '../db/statement.ts';
import type { CredentialState, DataKeyState, LivingState, Role } from '../db/tables.ts';
import type {
  CredentialId,
  DataKeyId,
  EngineId,
  GrantId,
  SubjectId,
  TeamId,
} from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import type { ExpectedLease } from './snapshots.ts';
import { storedBytesMax } from './sizes.ts';
import type { FoundRow, LeaseQuery, RecipientRow, LeasedVersionRow } from './types.ts';
import { type GrantRow, type RightsRow, type SettingsJson, settingsOf } from '../access/index.ts';
import {
  grantsSql,
  grantsStandSql,
  rightsColumns,
  rightsJoin,
  settingsJson,
} from '../access/sql.ts';
import type { RecordedValues } from '../audit/index.ts';
import { recordedSql } from '../audit/sql.ts';
import { oauthTypeNames, type Policy, type PublicFields } from '../credentials/index.ts';
import { exposedSql } from '../credentials/sql.ts';

type Row = UseRow & {
  readonly position: number;
  readonly is_withheld: boolean;
  readonly caller_id: EngineId | null;
  readonly caller_state: 'enabled' | 'disabled' | null;
  readonly caller_revision: number | null;
  readonly caller_mac: Buffer | null;
  readonly kid: string | null;
  readonly jwk: JsonObject | null;
  readonly key_revision: number | null;
  readonly key_mac: Buffer | null;
};

/** What `useColumns` gives; nulls where the joins found nothing. */
export type UseRow = RightsRow & {
  readonly team: TeamId | null;
  readonly slug: string | null;
  readonly behalf_subject: SubjectId | null;
  readonly behalf_role: Role | null;
  readonly behalf_acts_for_itself: boolean | null;
  readonly behalf_revision: number | null;
  readonly behalf_mac: Buffer | null;
  readonly grants: readonly GrantRow[] | null;
  readonly behalf_grants: readonly GrantRow[] | null;
  readonly id: CredentialId;
  readonly name: string;
  readonly type: string;
  readonly state: CredentialState;
  readonly state_before: LivingState | null;
  readonly current_version: number;
  readonly expires_at: Date | null;
  readonly revision: number;
  readonly seal: Buffer;
  readonly token: string | null;
  /** Null where there is no current version. */
  readonly token_bytes: number | null;
  readonly content_bytes: number | null;
  readonly public_fields: JsonObject | null;
  readonly policy: JsonObject | null;
  readonly secret_field_names: string[] | null;
  readonly undecryptable_at: Date | null;
  readonly exposed_team: SettingsJson | null;
  readonly data_key_id: DataKeyId | null;
  readonly data_key_version: number;
  readonly data_key_format: 'fernet' | 'fernet-256';
  readonly data_key_state: DataKeyState;
  readonly data_key_root: string;
  readonly data_key_wrapped: Buffer;
};

/** As SQL, over `useColumns`: not exposed, or of a team that lets such be used. */
export const isUsedThoughExposed = (alias: string): RawBuilder<boolean> =>
  sql<boolean>`(${sql.ref(`${alias}.exposed_team`)} ->> 'refuseExposedLeases')
    is distinct from 'true'`;

/**
 * All of a credential that the decision on its use reads, to be selected where `useJoins` is
 * joined; `content` is what is read of its version.
 */
const columnsWith = (
  content: RawBuilder<unknown>,
): RawBuilder<unknown> => sql`${rightsColumns}, team.id as team, team.slug,
    behalf.id as behalf_subject, behalf_member.role as behalf_role,
      behalf_member.acts_for_itself as behalf_acts_for_itself,
    behalf_member.revision as behalf_revision, behalf_member.seal as behalf_mac, shared.grants,
      shared.behalf_grants,
    credential.id, credential.name, credential.type, credential.state, credential.state_before,
      credential.current_version, credential.expires_at, credential.revision, credential.seal,
    ${content}, version.undecryptable_at,
    case when ${exposedSql(sql`version.key_history`)} then ${settingsJson('team')}
      end as exposed_team,
    data_key.id as data_key_id, data_key.version as data_key_version,
      data_key.format as data_key_format, data_key.state as data_key_state,
    data_key.root_fingerprint as data_key_root, data_key.wrapped as data_key_wrapped`;
export const useColumns = columnsWith(
  sql`version.token, version.public_fields, version.policy, version.secret_field_names,
    0 as token_bytes, 0 as content_bytes`,
);

/**
 * Joined where `credential` is in the from-list: the caller, and the person on whose behalf (a
 * condition on `behalf`, a subject).
 */
export const useJoins = (
  subject: RawBuilder<unknown>,
  onBehalfOf: RawBuilder<unknown>,
): RawBuilder<unknown> => sql`
  left join team on team.id = credential.team_id and team.deleted_at is null
  ${rightsJoin(subject)}
  left join subject behalf on ${onBehalfOf}
  left join membership behalf_member on behalf_member.team_id = team.id
    and behalf_member.subject_id = behalf.id
  left join credential_version version on version.team_id = credential.team_id
    and version.credential_id = credential.id and version.version = credential.current_version
  left join data_key on data_key.id = version.data_key_id and data_key.team_id = credential.team_id
  cross join lateral (select ${grantsSql(subject)} as grants,
    ${grantsSql(sql.ref('behalf.id'))} as behalf_grants) shared`;

interface LeasableParameters {
  readonly subject: SubjectId;
  readonly ids: readonly (CredentialId | null)[];
  readonly teams: readonly (string | null)[];
  readonly names: readonly (string | null)[];
  readonly onBehalfOf: string | null;
  readonly keyId: string | null;
  readonly knownVersions: readonly (number | null)[];
  readonly isWanted: readonly boolean[];
  readonly bytesMax: number;
}

// What an access token is got with is opened whatever version of it the caller has.
const oauthTypes = sql.join(oauthTypeNames.map((name) => sql.lit(name)));
// octet_length of text looks at the pointer to a value that lies outside of the row, and reads none
// of it; JSON has no such length, so the server writes it out, and keeps it to itself. A token that
// somebody emptied past the vault counts as one byte: nothing is what is not to be read.
const sizes = sql`
  cross join lateral (select
    case when wanted.is_wanted and (wanted.known is distinct from credential.current_version
      or credential.type in (${oauthTypes})) then greatest(octet_length(version.token), 1) else 0
      end as token_bytes,
    case when wanted.is_wanted then octet_length(version.public_fields::text) +
      octet_length(version.policy::text) else 0 end as content_bytes) size`;
// SECURITY: the sizes of all that is asked for are known before the first byte of any of it is read
// out: a request for more than may be read brings none of it into this process.
const fitsSql = (bytesMax: RawBuilder<unknown>): RawBuilder<unknown> =>
  sql`coalesce(sum(size.token_bytes + size.content_bytes) over (), 0) <= ${bytesMax}`;
const contentSql = (bytesMax: RawBuilder<unknown>): RawBuilder<unknown> => {
  const isRead = sql`wanted.is_wanted and ${fitsSql(bytesMax)}`;
  return sql`case when size.token_bytes > 0 and ${isRead} then version.token end as token,
    case when ${isRead} then version.public_fields end as public_fields,
      case when ${isRead} then version.policy end as policy,
    case when ${isRead} then version.secret_field_names end as secret_field_names, size.token_bytes,
      size.content_bytes, not ${fitsSql(bytesMax)} as is_withheld`;
};

// The arrays stand in subselects so that their length is not seen by the planner: it would plan
// these joins anew for every lease, which takes far longer than running them. The caller and its
// key stand in the first row only.
const leasableSql = (
  parameter: (name: keyof LeasableParameters) => RawBuilder<unknown>,
): RawBuilder<Row> => sql`
  select wanted.position::int as position, ${columnsWith(contentSql(parameter('bytesMax')))},
    caller.id as caller_id, caller.state as caller_state, caller.revision as caller_revision,
      caller.seal as caller_mac,
    recipient.kid, recipient.jwk, recipient.revision as key_revision, recipient.seal as key_mac
  from unnest((select ${parameter('ids')}::uuid[]), (select ${parameter('teams')}::text[]),
    (select ${parameter('names')}::text[]), (select ${parameter('knownVersions')}::int[]),
    (select ${parameter('isWanted')}::boolean[]))
      with ordinality as wanted (id, slug, name, known, is_wanted, position)
  left join engine caller on caller.subject_id = ${parameter('subject')} and wanted.position = 1
  left join lateral (
    select kid, jwk, revision, seal from engine_key
    where engine_id = caller.id
      and (${parameter('keyId')}::text is null or kid = ${parameter('keyId')})
    order by created_at desc, kid limit 1
  ) recipient on true
  left join lateral (
    select * from credential where credential.id = wanted.id
    union all
    select credential.* from team named join credential on credential.team_id = named.id
    where named.slug = wanted.slug and credential.name collate "C" = wanted.name
      and credential.state <> 'deleted'
  ) credential on true
  ${useJoins(parameter('subject'), sql`behalf.sub = ${parameter('onBehalfOf')}`)}
  ${sizes}
  order by wanted.position`;
const leasable = statement<LeasableParameters, Row>(leasableSql);

interface ExpectedParameters {
  readonly now: Date;
  readonly count: number;
  readonly engine: EngineId;
  readonly engineRevision: number;
  readonly kid: string;
  readonly credentials: readonly CredentialId[];
  readonly owners: readonly TeamId[];
  readonly revisions: readonly number[];
  readonly versions: readonly number[];
  readonly dataKeys: readonly DataKeyId[];
  readonly memberRevisions: readonly (number | null)[];
  readonly behalfSubjects: readonly (SubjectId | null)[];
  readonly behalfRevisions: readonly (number | null)[];
}

// The same, and the record of the lease if what is found is what was expected and can be leased:
// then nothing that the decision rests on has changed since it was taken the last time. It is taken
// again all the same, over these rows.
const leasableAndRecorded = (
  isOne: boolean,
): Statement<
  LeasableParameters & ExpectedParameters & RecordedValues,
  Row & { readonly is_recorded: boolean }
> =>
  statement(
    (parameter) => sql`
  with found as materialized (${leasableSql(parameter)}),
  basis as materialized (select
    exists (select 1 from found where position = 1 and caller_id = ${parameter('engine')}
      and caller_state = 'enabled' and caller_revision = ${parameter('engineRevision')}
      and kid = ${parameter('kid')})
    and ${parameter('count')} = (select count(*) from found
      join unnest((select ${parameter('credentials')}::uuid[]),
      (select ${parameter('owners')}::uuid[]),
        (select ${parameter('revisions')}::int[]), (select ${parameter('versions')}::int[]),
          (select ${parameter('dataKeys')}::uuid[]),
          (select ${parameter('memberRevisions')}::int[]),
        (select ${parameter('behalfSubjects')}::uuid[]),
          (select ${parameter('behalfRevisions')}::int[])) with ordinality
        as expected (id, team, revision, version, data_key, member_revision, behalf_subject,
          behalf_revision, position)
      on expected.position = found.position and expected.id = found.id
        and expected.team = found.team and expected.revision = found.revision
      and expected.version = found.current_version and expected.data_key = found.data_key_id
        and found.member_revision is not distinct from expected.member_revision
      and found.behalf_subject is not distinct from expected.behalf_subject
        and found.behalf_revision is not distinct from expected.behalf_revision
      and not found.is_withheld and found.state = 'enabled'
        and found.data_key_state in ('active', 'decryptOnly') and found.undecryptable_at is null
        and ${isUsedThoughExposed('found')}
      and (found.expires_at is null or found.expires_at > ${parameter('now')}))
    as stands),
  ${recordedSql(parameter, { isOne, onlyIf: sql`(select stands from basis)` })}
  select found.*, basis.stands as is_recorded from found cross join basis order by found.position`,
  );
const leasableAndRecordedOne = leasableAndRecorded(true);
const leasableAndRecordedSeveral = leasableAndRecorded(false);

export interface Leasable {
  readonly recipient: RecipientRow;
  readonly found: readonly (FoundRow | undefined)[];
  /** All of it together is larger than was to be read: of nothing is there any content. */
  readonly isWithheld: boolean;
}

/**
 * What each reference found, in their order, and the caller: one statement, so that a token and the
 * state of its key are of one moment. Content is read only if all that is wanted fits together.
 */
export async function findLeasable(
  db: Db,
  query: LeaseQuery,
  bytesMax = storedBytesMax,
): Promise<Leasable> {
  return leasableOf(query, await leasable(db, parametersOf(query, bytesMax)));
}

/**
 * The same, having recorded the events if what was found is what was expected, and not withheld.
 */
export async function findAndRecord(
  db: Db,
  query: LeaseQuery,
  { recipient, leased }: ExpectedLease,
  bytesMax: number,
  now: Date,
  recorded: RecordedValues,
): Promise<Leasable & { readonly isRecorded: boolean }> {
  const run = leased.length === 1 ? leasableAndRecordedOne : leasableAndRecordedSeveral;
  const rows = await run(db, {
    ...parametersOf(query, bytesMax),
    ...recorded,
    now,
    count: leased.length,
    engine: recipient.id,
    engineRevision: recipient.revision,
    kid: recipient.kid,
    credentials: leased.map(({ id }) => id),
    owners: leased.map(({ team }) => team),
    revisions: leased.map(({ revision }) => revision),
    versions: leased.map(({ version }) => version),
    dataKeys: leased.map(({ dataKey }) => dataKey),
    memberRevisions: leased.map(({ memberRevision }) => memberRevision),
    behalfSubjects: leased.map(({ behalfSubject }) => behalfSubject),
    behalfRevisions: leased.map(({ behalfRevision }) => behalfRevision),
  });
  return { ...leasableOf(query, rows), isRecorded: rows[0]?.is_recorded === true };
}

const parametersOf = (
  { references, subject, onBehalfOf, keyId, knownVersions, isWanted }: LeaseQuery,
  bytesMax: number,
): LeasableParameters => ({
  subject,
  ids: references.map((each) => ('id' in each ? each.id : null)),
  teams: references.map((each) => ('id' in each ? null : each.team)),
  names: references.map((each) => ('id' in each ? null : each.name)),
  onBehalfOf: onBehalfOf ?? null,
  keyId: keyId ?? null,
  knownVersions: references.map((_, position) => knownVersions?.[position] ?? null),
  isWanted: references.map((_, position) => isWanted?.[position] ?? true),
  bytesMax,
});

function leasableOf({ references }: LeaseQuery, rows: readonly Row[]): Leasable {
  const found = Array<FoundRow | undefined>(references.length).fill(undefined);
  for (const row of rows) found[row.position - 1] ??= foundOf(row);
  return { recipient: recipientOf(rows[0]), found, isWithheld: rows[0]?.is_withheld === true };
}

function recipientOf(row: Row | undefined): RecipientRow {
  if (
    row === undefined ||
    row.caller_id === null ||
    row.caller_state === null ||
    row.caller_revision === null ||
    row.caller_mac === null
  ) {
    return { engine: undefined, key: undefined };
  }
  const { kid, jwk, key_revision: revision, key_mac: seal } = row;
  return {
    engine: {
      id: row.caller_id,
      state: row.caller_state,
      revision: row.caller_revision,
      seal: row.caller_mac,
    },
    key:
      kid === null || jwk === null || revision === null || seal === null
        ? undefined
        : { kid, jwk, revision, seal },
  };
}

/** What the row found; undefined where there is no such credential of a living team. */
export function foundOf(row: UseRow): FoundRow | undefined {
  const { team, slug } = row;
  if (team === null || slug === null) return undefined;
  return {
    team,
    slug,
    rights: row,
    behalfSubject: row.behalf_subject,
    grants: row.grants,
    behalfGrants: row.behalf_grants,
    behalfRights: {
      member_role: row.behalf_role,
      member_acts_for_itself: row.behalf_acts_for_itself,
      member_revision: row.behalf_revision,
      member_mac: row.behalf_mac,
      engine_id: null,
      engine_state: null,
      engine_revision: null,
      engine_mac: null,
    },
    id: row.id,
    name: row.name,
    type: row.type,
    state: row.state,
    stateBefore: row.state_before,
    currentVersion: row.current_version,
    expiresAt: row.expires_at,
    revision: row.revision,
    seal: row.seal,
    content: contentOf(row),
    version: versionOf(row, team),
    size: { token: row.token_bytes ?? 0, content: row.content_bytes ?? 0 },
  };
}

function contentOf({
  public_fields: publicFields,
  policy,
  secret_field_names: secretFieldNames,
}: UseRow): FoundRow['content'] {
  if (publicFields === null || policy === null || secretFieldNames === null) return undefined;
  return {
    publicFields: publicFields as PublicFields,
    policy: policy as unknown as Policy,
    secretFieldNames,
  };
}

function versionOf(row: UseRow, team: TeamId): LeasedVersionRow | undefined {
  const { token, public_fields: publicFields, policy, data_key_id: id } = row;
  if (publicFields === null || policy === null || id === null) return undefined;
  // SECURITY: the key is given out only in a state in which it opens: a retired one has no tokens,
  // whatever a row claims.
  if (row.data_key_state !== 'active' && row.data_key_state !== 'decryptOnly') return undefined;
  const key = {
    id,
    team,
    version: row.data_key_version,
    format: row.data_key_format,
    rootFingerprint: row.data_key_root,
    wrapped: row.data_key_wrapped,
  };
  return {
    token: token ?? undefined,
    publicFields,
    policy,
    isMarked: row.undecryptable_at !== null,
    exposedTeam: row.exposed_team === null ? undefined : settingsOf(row.exposed_team),
    key,
  };
}

/** What a lease rested on when it was decided. */
export interface Basis {
  readonly engine: { readonly id: EngineId; readonly revision: number; readonly kid: string };
  readonly members: readonly {
    readonly team: TeamId;
    readonly subject: SubjectId;
    readonly revision: number;
  }[];
  readonly grants: readonly { readonly id: GrantId; readonly revision: number }[];
  readonly credentials: readonly {
    readonly id: CredentialId;
    readonly revision: number;
    readonly version: number;
    readonly dataKey: DataKeyId;
    readonly isMarked: boolean;
  }[];
}

/**
 * Records the events made by `recorded` if everything in the basis is as it was; whether it did. In
 * the same statement, versions that were marked undecryptable and have opened lose their mark.
 */
export async function recordIfUnchanged(
  db: Db,
  basis: Basis,
  recorded: (onlyIf: RawBuilder<unknown>) => RawBuilder<unknown>,
): Promise<boolean> {
  const { engine, members, grants, credentials } = basis;
  const healed = credentials.filter(({ isMarked }) => isMarked);
  const stands = sql`(select stands from basis)`;
  const { rows } = await sql`
    with basis as (select
      exists (select 1 from engine join engine_key on engine_key.engine_id = engine.id
        and engine_key.kid = ${engine.kid}
        where engine.id = ${engine.id} and engine.revision = ${engine.revision}
          and engine.state = 'enabled')
      and ${members.length} = (select count(*)
        from unnest(${members.map(({ team }) => team)}::uuid[],
        ${members.map(({ subject }) => subject)}::uuid[],
          ${members.map(({ revision }) => revision)}::int[]) as held (team, subject, revision)
        join membership on membership.team_id = held.team and membership.subject_id = held.subject
          and membership.revision = held.revision)
      ${
        grants.length === 0
          ? sql``
          : sql`and
        ${grantsStandSql(sql`${grants.map(({ id }) => id)}`, sql`${grants.map(({ revision }) => revision)}`)}`
      }
      and ${credentials.length} = (select count(*)
        from unnest(${credentials.map(({ id }) => id)}::uuid[],
        ${credentials.map(({ revision }) => revision)}::int[],
          ${credentials.map(({ version }) => version)}::int[],
            ${credentials.map(({ dataKey }) => dataKey)}::uuid[]) as held (id, revision, version,
            data_key)
        join credential on credential.id = held.id and credential.revision = held.revision
          and credential.current_version = held.version and credential.state = 'enabled'
        join credential_version version on version.team_id = credential.team_id
          and version.credential_id = held.id and version.version = held.version
          and version.data_key_id = held.data_key)
      as stands),
    ${recorded(stands)}
    ${
      healed.length === 0
        ? sql``
        : sql`, healed as (
      update credential_version set undecryptable_at = null
      from unnest(${healed.map(({ id }) => id)}::uuid[],
        ${healed.map(({ version }) => version)}::int[]) as held (id, version)
        join credential on credential.id = held.id
      where credential_version.team_id = credential.team_id
        and credential_version.credential_id = held.id and credential_version.version = held.version
        and ${stands})`
    }
    select 1 from recorded limit 1`.execute(db);
  return rows.length === 1;
}

/** Marks a version whose token did not open under a key that did. */
export async function updateUndecryptableUse(
  executor: Executor,
  of: { team: TeamId; id: CredentialId; version: number; dataKey: DataKeyId; at: Date },
): Promise<void> {
  await executor
    .updateTable('credential_version')
    .set({ undecryptable_at: of.at })
    .where('team_id', '=', of.team)
    .where('credential_id', '=', of.id)
    .where('version', '=', of.version)
    .where('data_key_id', '=', of.dataKey)
    .where('undecryptable_at', 'is', null)
    .execute();
}
