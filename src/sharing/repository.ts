// Grants in SQL. Every function takes the owner and the credential, but the look for another team.
import { sql } from 'kysely';
import type { Executor, Trx } from '../db/client.ts';
import type { GrantAccess, GranteeKind } from '../db/tables.ts';
import type { CredentialId, GrantId, SubjectId, TeamId } from '../shared/ids.ts';
import type { TeamRef, TeamSettingsRow } from '../access/index.ts';
import { settingsColumns } from '../access/sql.ts';
import type { Grantee, SharedGrantRow } from './types.ts';

const columns =
  sql.raw(`held.id, held.team_id as team, owner.slug, held.credential_id as credential,
    held.grantee_kind as kind, coalesce(held.grantee_team_id, held.grantee_subject_id) as grantee,
  coalesce(receiving.slug, person.sub, held.grantee_team_id::text, held.grantee_subject_id::text)
    as name, held.access, held.revision, held.seal,
  held.created_at as "createdAt", coalesce(creator.sub, held.created_by::text) as "createdBy",
    held.updated_at as "updatedAt", coalesce(updater.sub, held.updated_by::text) as "updatedBy"
  from credential_grant held left join team owner on owner.id = held.team_id
  left join team receiving on receiving.id = held.grantee_team_id left join subject person
    on person.id = held.grantee_subject_id
  left join subject creator on creator.id = held.created_by left join subject updater
    on updater.id = held.updated_by`);

/** The living team of a slug, held so to the end of the transaction. */
export async function holdTeam(trx: Trx, slug: string): Promise<TeamRef | undefined> {
  return trx
    .selectFrom('team')
    .select(['id', 'slug'])
    .where('slug', '=', slug)
    .where('deleted_at', 'is', null)
    .forKeyShare()
    .executeTakeFirst();
}

/** The same with its settings. */
export async function findHeldTeam(trx: Trx, slug: string): Promise<TeamSettingsRow | undefined> {
  const { rows } = await sql<TeamSettingsRow>`
    select ${settingsColumns('team')} from team where slug = ${slug}
      and deleted_at is null for key share`.execute(trx);
  return rows[0];
}

/**
 * The grant of a credential to one grantee; of a team that is gone, too, and whatever team it says
 * that the credential is of.
 */
export async function findGrant(
  executor: Executor,
  credential: CredentialId,
  { kind, name }: Grantee,
): Promise<SharedGrantRow | undefined> {
  const { rows } = await sql<SharedGrantRow>`
    select ${columns} where held.credential_id = ${credential}
      and ${kind === 'team' ? sql`receiving.slug = ${name}` : sql`person.sub = ${name}`}`.execute(
    executor,
  );
  return rows[0];
}

/** Grants of a credential in the order in which they were made. */
export async function listGrants(
  executor: Executor,
  credential: CredentialId,
  page: { limit: number; after: string | undefined },
): Promise<SharedGrantRow[]> {
  const { rows } = await sql<SharedGrantRow>`
    select ${columns} where held.credential_id = ${credential}
      and ${page.after === undefined ? sql`true` : sql`held.id > ${page.after}::uuid`}
    order by held.id limit ${page.limit}`.execute(executor);
  return rows;
}

/** How many grants a locked credential has, counted up to `max`. */
export async function countGrants(
  trx: Trx,
  credential: CredentialId,
  max: number,
): Promise<number> {
  const { rows } = await sql`select 1 from credential_grant where credential_id = ${credential}
      limit ${max}`.execute(trx);
  return rows.length;
}

/**
 * How many credentials a team has granted to one grantee, counted up to `max`. Whoever else grants
 * to this grantee waits.
 */
export async function countGrantsBetween(
  trx: Trx,
  owner: TeamId,
  { kind, grantee }: { kind: GranteeKind; grantee: TeamId | SubjectId },
  max: number,
): Promise<number> {
  await sql`select pg_advisory_xact_lock(hashtextextended(${`grants ${owner} ${grantee}`},
    0))`.execute(trx);
  const { rows } = await sql`
    select 1 from credential_grant
      where ${sql.ref(kind === 'team' ? 'grantee_team_id' : 'grantee_subject_id')} = ${grantee}
      and team_id = ${owner} limit ${max}`.execute(trx);
  return rows.length;
}

export interface GrantWrite {
  readonly id: GrantId;
  readonly team: TeamId;
  readonly credential: CredentialId;
  readonly kind: GranteeKind;
  readonly grantee: TeamId | SubjectId;
  readonly access: GrantAccess;
  readonly revision: number;
  readonly seal: Buffer;
  readonly by: SubjectId;
  readonly at: Date;
}

/** Inserts a grant, or writes anew one of the same grantee. */
export async function putGrant(trx: Trx, row: GrantWrite): Promise<void> {
  await sql`
    insert into credential_grant as held (id, team_id, credential_id, grantee_kind, grantee_team_id,
      grantee_subject_id, access, revision, seal, created_at, created_by, updated_at, updated_by)
    values (${row.id}, ${row.team}, ${row.credential}, ${row.kind},
      ${row.kind === 'team' ? row.grantee : null}, ${row.kind === 'team' ? null : row.grantee},
      ${row.access},
      ${row.revision}, ${row.seal}, ${row.at}, ${row.by}, ${row.at}, ${row.by})
    on conflict on constraint credential_grant_pkey do update
      set grantee_kind = excluded.grantee_kind, access = excluded.access,
        revision = excluded.revision, seal = excluded.seal, updated_at = excluded.updated_at,
        updated_by = excluded.updated_by`.execute(trx);
}

/** Ends a grant; whether there was one. */
export async function deleteGrant(trx: Trx, id: GrantId): Promise<boolean> {
  return (
    (await trx.deleteFrom('credential_grant').where('id', '=', id).executeTakeFirst())
      .numDeletedRows === 1n
  );
}
