// Credentials in SQL: reading with the rights of the reader, and the writes of one credential.
// Every function takes the team, or the subject whose rights come along with each row.
import { type RawBuilder, sql } from 'kysely';
import type { WrappedDataKey } from '../crypto/index.ts';
import { contentBytes, upToBytes } from '../db/bytes.ts';
import type { Executor, Trx } from '../db/client.ts';
import { countOf } from '../db/counts.ts';
import { statement } from '../db/statement.ts';
import type { CredentialState, LivingState } from '../db/tables.ts';
import { pageBytesMax } from '../shared/limits.ts';
import type { CredentialId, DataKeyId, SubjectId, TeamId } from '../shared/ids.ts';
import type { Policy } from './policy.ts';
import { problemsColumn } from './health.ts';
import type { PublicFields } from './public-values.ts';
import type { GrantRow, RightsRow } from '../access/index.ts';
import { grantsSql, rightsColumns, rightsJoin } from '../access/sql.ts';
import type { RecordedValues } from '../audit/index.ts';
import { recordedSql } from '../audit/sql.ts';
import type { CredentialRow, VersionRow } from './rows.ts';

/** The shown columns of a credential, over `credential`, its `team` and `joins`. */
export const columns = (now: Date | RawBuilder<unknown>): RawBuilder<unknown> => sql`
  credential.id, credential.team_id as team, team.slug, credential.name, credential.type,
    credential.description, credential.labels,
  credential.state, credential.state_before as "stateBefore", credential.current_version as version,
    credential.expires_at as "expiresAt", credential.rotate_after as "rotateAfter",
    credential.revision, credential.seal,
  current.public_fields as "publicFields", current.secret_field_names as "secretFieldNames",
    current.policy, ${problemsColumn(now)} as problems,
  ${countOf('usage.use_count')} as "useCount", usage.last_used_at as "lastUsedAt",
    credential.deleted_at as "deletedAt",
  credential.created_at as "createdAt",
    coalesce(creator.sub, credential.created_by::text) as "createdBy",
    credential.updated_at as "updatedAt",
    coalesce(updater.sub, credential.updated_by::text) as "updatedBy"`;

/**
 * What the row MAC of a credential's row covers, and the row MAC, over `credential` and `current`.
 */
export const rowMacColumns =
  sql.raw(`credential.id, credential.team_id as team, credential.name, credential.type,
    credential.state, credential.state_before as "stateBefore",
    credential.current_version as version,
  credential.expires_at as "expiresAt", credential.revision, credential.seal,
    current.public_fields as "publicFields", current.policy,
    current.secret_field_names as "secretFieldNames"`);

// `offset 0` keeps the planner to one row by its key for each credential, whatever it thinks of the
// size of tables.
export const joins = sql.raw(`
  left join lateral (select * from credential_version current
    where current.team_id = credential.team_id and current.credential_id = credential.id
      and current.version = credential.current_version offset 0) current on true
  left join lateral (select * from credential_usage usage where usage.team_id = credential.team_id
    and usage.credential_id = credential.id offset 0) usage on true
  left join subject creator on creator.id = credential.created_by
  left join subject updater on updater.id = credential.updated_by`);

/** What a subject may do with a credential, as its query says it. */
export type AccessRow = RightsRow & { readonly grants: readonly GrantRow[] | null };

const credentialWithRights = statement<
  { id: CredentialId; subject: SubjectId; now: Date },
  CredentialRow & AccessRow
>(
  (parameter) => sql`
  select ${columns(parameter('now'))}, ${rightsColumns},
    ${grantsSql(parameter('subject'))} as grants
  from credential join team on team.id = credential.team_id
    and team.deleted_at is null ${joins} ${rightsJoin(parameter('subject'))}
  where credential.id = ${parameter('id')}`,
);

/**
 * One credential, deleted ones too, with the rights of a subject in its team and the grants that
 * concern it.
 */
export async function findCredentialWithRights(
  executor: Executor,
  id: CredentialId,
  subject: SubjectId,
  now: Date,
): Promise<(CredentialRow & AccessRow) | undefined> {
  return (await credentialWithRights(executor, { id, subject, now }))[0];
}

const credentialOfTeam = statement<{ team: TeamId; id: CredentialId; now: Date }, CredentialRow>(
  (parameter) => sql`
    select ${columns(parameter('now'))} from credential
      join team on team.id = credential.team_id ${joins}
    where credential.id = ${parameter('id')} and credential.team_id = ${parameter('team')}`,
);

/** One credential of the team, as it is now. */
export async function findCredential(
  executor: Executor,
  team: TeamId,
  id: CredentialId,
  now: Date,
): Promise<CredentialRow | undefined> {
  return (await credentialOfTeam(executor, { team, id, now }))[0];
}

/** The living credential of a name, as it is now. */
export async function findCredentialByName(
  executor: Executor,
  team: TeamId,
  name: string,
  now: Date,
): Promise<CredentialRow | undefined> {
  const { rows } = await sql<CredentialRow>`
    select ${columns(now)} from credential join team on team.id = credential.team_id ${joins}
    where credential.team_id = ${team} and credential.name collate "C" = ${name}
      and credential.state <> 'deleted'`.execute(executor);
  return rows[0];
}

/** Versions of one credential, newest first, as many as may be read at once. */
export async function listVersions(
  executor: Executor,
  team: TeamId,
  id: CredentialId,
  page: { limit: number; before: number | undefined },
): Promise<(VersionRow & { readonly found: number })[]> {
  const all = sql`
    select version, public_fields as "publicFields", secret_field_names as "secretFieldNames",
      policy, undecryptable_at is not null as "isUndecryptable",
      credential_version.created_at as "createdAt",
        coalesce(creator.sub, credential_version.created_by::text) as "createdBy",
        ${contentBytes('credential_version')} as bytes
    from credential_version left join subject creator on creator.id = credential_version.created_by
    where team_id = ${team} and credential_id = ${id}
      and (${page.before ?? null}::int is null or version < ${page.before ?? null})
    order by version desc limit ${page.limit}`;
  const { rows } = await sql<
    VersionRow & { found: number }
  >`${upToBytes(all, sql`version desc`, pageBytesMax)}`.execute(executor);
  return rows;
}

/**
 * The team's active key. Named here and nowhere trusted: the trigger on credential_version checks
 * it again at the write.
 */
export async function findActiveKey(
  executor: Executor,
  team: TeamId,
): Promise<WrappedDataKey | undefined> {
  const { rows } = await sql<WrappedDataKey>`
    select id, team_id as team, version, format, root_fingerprint as "rootFingerprint", wrapped
    from data_key where team_id = ${team} and state = 'active'`.execute(executor);
  return rows[0];
}

/**
 * The same, held: nobody can demote it before this transaction ends. No row when it is being
 * demoted: start again. Stands in the key's queue first.
 */
export async function lockActiveKey(trx: Trx, team: TeamId): Promise<WrappedDataKey | undefined> {
  const { rows } = await sql<WrappedDataKey>`
    with queued as materialized (
      select id, pg_advisory_xact_lock_shared(data_key_queue(id)) from data_key
        where team_id = ${team} and state = 'active')
    select id, team_id as team, version, format, root_fingerprint as "rootFingerprint", wrapped
    from data_key where id = (select id from queued) and state = 'active' for key share`.execute(
    trx,
  );
  return rows[0];
}

export interface CredentialWrite {
  readonly id: CredentialId;
  readonly team: TeamId;
  readonly name: string;
  readonly type: string;
  readonly description: string | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly state: CredentialState;
  readonly stateBefore: LivingState | null;
  readonly version: number;
  readonly expiresAt: Date | null;
  readonly rotateAfter: Date | null;
  readonly revision: number;
  readonly seal: Buffer;
  readonly by: SubjectId;
  readonly at: Date;
}
export interface VersionWrite {
  readonly team: TeamId;
  readonly credential: CredentialId;
  readonly version: number;
  readonly key: DataKeyId;
  readonly token: string;
  readonly secretFieldNames: readonly string[];
  readonly publicFields: PublicFields;
  readonly policy: Policy;
  readonly by: SubjectId;
  readonly at: Date;
  /**
   * Keys that values kept from the version before were ever under; the key of this version comes by
   * itself.
   */
  readonly keyHistory: readonly DataKeyId[];
}

type Parameters = VersionParameters &
  RecordedValues &
  Pick<
    CredentialWrite,
    | 'id'
    | 'name'
    | 'type'
    | 'description'
    | 'state'
    | 'expiresAt'
    | 'rotateAfter'
    | 'revision'
    | 'seal'
  > & { readonly labels: string };

// Nothing is recorded of what was not inserted.
const insertion = statement<Parameters, { id: CredentialId }>(
  (parameter) => sql`
  with alive as (select 1 from team where id = ${parameter('team')}
    and deleted_at is null for key share),
  made as (
    insert into credential (id, team_id, name, type, description, labels, state, current_version,
      expires_at, rotate_after, revision, seal, created_at, created_by, updated_at, updated_by)
    select ${parameter('id')}::uuid, ${parameter('team')}::uuid, ${parameter('name')},
      ${parameter('type')}, ${parameter('description')}, ${parameter('labels')}::jsonb,
      ${parameter('state')}, ${parameter('version')}::int, ${parameter('expiresAt')}::timestamptz,
        ${parameter('rotateAfter')}::timestamptz, ${parameter('revision')}::int,
      ${parameter('seal')}::bytea,
      ${parameter('at')}::timestamptz, ${parameter('by')}::uuid, ${parameter('at')}::timestamptz,
        ${parameter('by')}::uuid
    from alive returning id),
  versioned as (${insertVersionSql(parameter)} from made),
  unused as (insert into credential_usage (credential_id, team_id, made_at, use_count)
    select id, ${parameter('team')}::uuid, ${parameter('at')}::timestamptz, 0 from made),
  ${recordedSql(parameter, { isOne: true, onlyIf: sql`exists (select 1 from made)` })}
  select id from made`,
);

/**
 * Inserts a credential, its first version and its one event, in one statement. False, and nothing
 * inserted, when the team is gone. A unique violation of credential_living_name says that the name
 * is taken.
 */
export async function insertCredential(
  executor: Executor,
  row: CredentialWrite,
  version: VersionWrite,
  recorded: RecordedValues,
): Promise<boolean> {
  const { id, name, type, description, state, expiresAt, rotateAfter, revision, seal } = row;
  const made = await insertion(executor, {
    ...recorded,
    ...parametersOf(version),
    id,
    name,
    type,
    description,
    labels: JSON.stringify(row.labels),
    state,
    expiresAt,
    rotateAfter,
    revision,
    seal,
  });
  return made.length === 1;
}

const versionInsertion = statement<VersionParameters, unknown>(insertVersionSql);

/** Inserts a version of a credential that exists. */
export async function insertVersion(trx: Trx, version: VersionWrite): Promise<void> {
  await versionInsertion(trx, parametersOf(version));
}

interface VersionParameters extends Omit<VersionWrite, 'publicFields' | 'policy'> {
  readonly publicFields: string;
  readonly policy: string;
}

const parametersOf = (version: VersionWrite): VersionParameters => ({
  ...version,
  publicFields: JSON.stringify(version.publicFields),
  policy: JSON.stringify(version.policy),
});

function insertVersionSql(
  parameter: (name: keyof VersionParameters) => RawBuilder<unknown>,
): RawBuilder<unknown> {
  return sql`
    insert into credential_version (team_id, credential_id, version, data_key_id, token,
      secret_field_names, public_fields, policy, created_at, created_by, key_history)
    select ${parameter('team')}::uuid, ${parameter('credential')}::uuid,
      ${parameter('version')}::int, ${parameter('key')}::uuid, ${parameter('token')},
      ${parameter('secretFieldNames')}::text[], ${parameter('publicFields')}::jsonb,
        ${parameter('policy')}::jsonb, ${parameter('at')}::timestamptz, ${parameter('by')}::uuid,
      ${parameter('keyHistory')}::uuid[]`;
}

/** Locks a credential for a change; its row as it is then. */
export async function lockCredential(
  trx: Trx,
  team: TeamId,
  id: CredentialId,
  now: Date,
): Promise<CredentialRow | undefined> {
  // SECOND LINE: findCredential asks for team_id too; without it here, the lock is on another's
  // row.
  const { rows } =
    await sql`select 1 from credential where id = ${id} and team_id = ${team} for no key
      update`.execute(trx);
  return rows.length === 0 ? undefined : findCredential(trx, team, id, now);
}

/**
 * Writes the mutable columns of a locked credential. A unique violation of credential_living_name
 * says that the name is taken.
 */
export async function updateCredential(trx: Trx, row: CredentialWrite): Promise<void> {
  await sql`
    update credential set name = ${row.name}, description = ${row.description},
      labels = ${JSON.stringify(row.labels)}::jsonb, state = ${row.state},
      current_version = ${row.version}, expires_at = ${row.expiresAt},
        rotate_after = ${row.rotateAfter}, revision = ${row.revision}, seal = ${row.seal},
        updated_at = ${row.at}, updated_by = ${row.by},
      deleted_at = ${row.state === 'deleted' ? row.at : null}, state_before = ${row.stateBefore}
    where id = ${row.id} and team_id = ${row.team}`.execute(trx);
}

/** What a version says, and its token as `findToken` gives it. */
export interface HeldVersion
  extends Pick<VersionRow, 'publicFields' | 'policy' | 'secretFieldNames'> {
  readonly held: StoredToken | undefined;
}

/** One version, read in one statement. */
export async function findVersion(
  trx: Trx,
  team: TeamId,
  id: CredentialId,
  version: number,
): Promise<HeldVersion | undefined> {
  const { rows } = await sql<Omit<HeldVersion, 'held'> & TokenColumns>`
    select held.public_fields as "publicFields", held.policy,
      held.secret_field_names as "secretFieldNames", ${tokenColumns}
    from credential_version held left join data_key on data_key.id = held.data_key_id
      and data_key.state in ('active', 'decryptOnly')
    where held.team_id = ${team} and held.credential_id = ${id}
      and held.version = ${version}`.execute(trx);
  const [row] = rows;
  if (row === undefined) return undefined;
  const { publicFields, policy, secretFieldNames } = row;
  return { publicFields, policy, secretFieldNames, held: storedOf(row) };
}

/** The keys that the values of a version were ever under. */
export async function findKeyHistory(
  trx: Trx,
  team: TeamId,
  id: CredentialId,
  version: number,
): Promise<DataKeyId[]> {
  const { rows } = await sql<{ keys: DataKeyId[] }>`
    select key_history as keys from credential_version where team_id = ${team}
      and credential_id = ${id} and version = ${version}`.execute(trx);
  return rows[0]?.keys ?? [];
}

const bytes = sql.raw('octet_length(token) + pg_column_size(public_fields) as bytes');

/**
 * Destroys one version that is not the current one; how many bytes it had, undefined where there is
 * none.
 */
export async function deleteVersion(
  trx: Trx,
  team: TeamId,
  id: CredentialId,
  version: number,
): Promise<number | undefined> {
  const { rows } = await sql<{ bytes: number }>`
    delete from credential_version where team_id = ${team} and credential_id = ${id}
      and version = ${version}
      and version <> (select current_version from credential where id = ${id})
        returning ${bytes}`.execute(trx);
  return rows[0]?.bytes;
}

/**
 * Destroys all but so many of the newest versions, the one about to become current counted in. How
 * many bytes that were.
 */
export async function pruneVersions(
  trx: Trx,
  team: TeamId,
  id: CredentialId,
  kept: number,
): Promise<number> {
  const { rows } = await sql<{ bytes: number }>`
    delete from credential_version where team_id = ${team} and credential_id = ${id}
      and version in (
      select version from credential_version where team_id = ${team} and credential_id = ${id}
      order by version desc offset ${kept})
    returning ${bytes}`.execute(trx);
  return rows.reduce((sum, row) => sum + row.bytes, 0);
}

/** How many bytes that will be once one more version is there. */
export async function bytesToPrune(
  trx: Trx,
  team: TeamId,
  id: CredentialId,
  kept: number,
): Promise<number> {
  const { rows } = await sql<{ bytes: number }>`
    select ${bytes} from credential_version where team_id = ${team} and credential_id = ${id}
    order by version desc offset ${kept - 1}`.execute(trx);
  return rows.reduce((sum, row) => sum + row.bytes, 0);
}

/** How many bytes are stored of current versions; nothing of them is read. */
export async function findStoredSizes(
  executor: Executor,
  team: TeamId,
  ids: readonly CredentialId[],
): Promise<ReadonlyMap<string, number>> {
  const { rows } = await sql<{ id: CredentialId; bytes: number }>`
    select credential.id, octet_length(version.token) + ${contentBytes('version')} as bytes
    from credential join credential_version version
      on version.team_id = credential.team_id and version.credential_id = credential.id
        and version.version = credential.current_version
    where credential.team_id = ${team} and credential.id = any(${ids}::uuid[])`.execute(executor);
  return new Map(rows.map(({ id, bytes }) => [id, bytes]));
}

export interface StoredToken {
  readonly token: string;
  readonly key: WrappedDataKey;
  readonly keyHistory: readonly DataKeyId[];
}

/**
 * The token of a version with the key that it is under, in one statement; a retired key opens
 * nothing.
 */
export async function findToken(
  executor: Executor,
  team: TeamId,
  id: CredentialId,
  version: number,
): Promise<StoredToken | undefined> {
  const { rows } = await sql<TokenColumns>`
    select ${tokenColumns}
    from credential_version held join data_key on data_key.id = held.data_key_id
      and data_key.state in ('active', 'decryptOnly')
    where held.team_id = ${team} and held.credential_id = ${id}
      and held.version = ${version}`.execute(executor);
  return rows[0] === undefined ? undefined : storedOf(rows[0]);
}

/** Over `held`, a version, and `data_key`, which may be missing. */
const tokenColumns = sql.raw(`held.token, held.key_history as "keyHistory", data_key.id as "keyId",
    data_key.team_id as "keyTeam", data_key.version as "keyVersion",
  data_key.format as "keyFormat", data_key.root_fingerprint as "keyRoot",
    data_key.wrapped as "keyWrapped"`);
interface TokenColumns {
  readonly token: string;
  readonly keyHistory: DataKeyId[];
  readonly keyId: DataKeyId | null;
  readonly keyTeam: TeamId;
  readonly keyVersion: number;
  readonly keyFormat: WrappedDataKey['format'];
  readonly keyRoot: string;
  readonly keyWrapped: Buffer;
}

function storedOf(row: TokenColumns): StoredToken | undefined {
  if (row.keyId === null) return undefined;
  return {
    token: row.token,
    keyHistory: row.keyHistory,
    key: {
      id: row.keyId,
      team: row.keyTeam,
      version: row.keyVersion,
      format: row.keyFormat,
      rootFingerprint: row.keyRoot,
      wrapped: row.keyWrapped,
    },
  };
}

/**
 * Remembers that a version's token did not open under a key that did; false when that is known, or
 * the token is under another key.
 */
export async function updateUndecryptable(
  trx: Trx,
  of: { team: TeamId; id: CredentialId; version: number; key: DataKeyId; at: Date },
): Promise<boolean> {
  const result = await trx
    .updateTable('credential_version')
    .set({ undecryptable_at: of.at })
    .where('team_id', '=', of.team)
    .where('credential_id', '=', of.id)
    .where('version', '=', of.version)
    .where('data_key_id', '=', of.key)
    .where('undecryptable_at', 'is', null)
    .executeTakeFirst();
  return result.numUpdatedRows === 1n;
}
