// Teams and memberships in SQL. Every function about a team's things takes the team.
import { sql } from 'kysely';
import type { Executor, Trx } from '../db/client.ts';
import { statement } from '../db/statement.ts';
import type { Role } from '../db/tables.ts';
import type { SubjectId, TeamId } from '../shared/ids.ts';
import {
  type MacedTeam,
  type RightsRow,
  teamMacVersion,
  type TeamSettingsRow,
} from '../access/index.ts';
import { rightsColumns, rightsJoin, settingsColumns } from '../access/sql.ts';
import type { MemberRow } from './types.ts';

export interface TeamRow extends TeamSettingsRow {
  readonly name: string;
  readonly createdAt: Date;
  readonly createdBy: string;
  readonly updatedAt: Date;
  readonly updatedBy: string;
}
const teamColumns = sql`${settingsColumns('team')}, team.name,
  team.created_at as "createdAt", coalesce(creator.sub, team.created_by::text) as "createdBy",
    team.updated_at as "updatedAt", coalesce(updater.sub, team.updated_by::text) as "updatedBy"`;
const teamFrom = sql.raw(
  'team left join subject creator on creator.id = team.created_by left join subject updater on ' +
    'updater.id = team.updated_by',
);
const memberColumns =
  sql.raw(`member.subject_id as subject, coalesce(person.sub, member.subject_id::text) as sub,
    member.role, member.acts_for_itself as "actsForItself", member.revision, member.seal,
  member.created_at as "createdAt", coalesce(creator.sub, member.created_by::text) as "createdBy",
    member.updated_at as "updatedAt",
    coalesce(updater.sub, member.updated_by::text) as "updatedBy"`);
const memberFrom =
  sql.raw(`membership member left join subject person on person.id = member.subject_id
  left join subject creator on creator.id = member.created_by left join subject updater
    on updater.id = member.updated_by`);

const teamWithRights = statement<{ slug: string; subject: SubjectId }, TeamRow & RightsRow>(
  (parameter) => sql`
  select ${teamColumns}, ${rightsColumns} from ${teamFrom} ${rightsJoin(parameter('subject'))}
  where team.slug = ${parameter('slug')} and team.deleted_at is null`,
);

/** The living team of a slug with the rights of a subject in it. */
export async function findTeamWithRights(
  executor: Executor,
  slug: string,
  subject: SubjectId,
): Promise<(TeamRow & RightsRow) | undefined> {
  return (await teamWithRights(executor, { slug, subject }))[0];
}

/** The living teams in which the subject has a membership row, by slug. */
export async function listTeamsWithRights(
  executor: Executor,
  subject: SubjectId,
  page: { limit: number; afterSlug: string | undefined },
): Promise<(TeamRow & RightsRow)[]> {
  const { rows } = await sql<TeamRow & RightsRow>`
    select ${teamColumns}, ${rightsColumns} from ${teamFrom} ${rightsJoin(subject)}
    where team.deleted_at is null and member.subject_id is not null
      and (${page.afterSlug ?? null}::text is null
        or team.slug collate "C" > ${page.afterSlug ?? null})
    order by team.slug collate "C" limit ${page.limit}`.execute(executor);
  return rows;
}

/** A team as it is to be written. */
export type TeamWrite = MacedTeam & {
  readonly name: string;
  readonly mac: Buffer;
  readonly by: SubjectId;
  readonly at: Date;
};

/** Inserts a team. */
export async function insertTeam(trx: Trx, team: TeamWrite): Promise<void> {
  await trx
    .insertInto('team')
    .values({
      id: team.id,
      slug: team.slug,
      ...writtenColumns(team),
      created_at: team.at,
      created_by: team.by,
      updated_at: team.at,
      updated_by: team.by,
      deleted_at: null,
    })
    .execute();
}

/**
 * Locks a living team against deletion, against new credentials and against other changes of the
 * team; as it is then.
 */
export async function lockTeam(trx: Trx, team: TeamId): Promise<TeamRow | undefined> {
  const { rows } = await sql<TeamRow>`select ${teamColumns} from ${teamFrom} where team.id = ${team}
      and team.deleted_at is null for update of team`.execute(trx);
  return rows[0];
}

/** Writes a locked team with its MAC. */
export async function updateTeam(trx: Trx, team: TeamWrite): Promise<void> {
  await trx
    .updateTable('team')
    .set({ ...writtenColumns(team), updated_at: team.at, updated_by: team.by })
    .where('id', '=', team.id)
    .execute();
}

/** Marks a locked team deleted, whatever its settings are worth. */
export async function markTeamDeleted(
  trx: Trx,
  team: TeamId,
  { by, at }: { by: SubjectId; at: Date },
): Promise<void> {
  await trx
    .updateTable('team')
    .set({ deleted_at: at, updated_at: at, updated_by: by })
    .where('id', '=', team)
    .execute();
}

const writtenColumns = (team: TeamWrite) => ({
  name: team.name,
  token_format: team.tokenFormat,
  rotate_every_days: team.rotateEveryDays,
  refuse_exposed_leases: team.refuseExposedLeases,
  default_delivery: [...team.defaultDelivery],
  versions_kept: team.versionsKept,
  revision: team.revision,
  row_mac: team.mac,
  row_mac_version: teamMacVersion,
});

/** How many credentials of the team live. */
export async function countLivingCredentials(trx: Trx, team: TeamId): Promise<number> {
  const row = await trx
    .selectFrom('credential')
    .select((select) => select.fn.countAll<number>().as('count'))
    .where('team_id', '=', team)
    .where('state', '<>', 'deleted')
    .executeTakeFirstOrThrow();
  return row.count;
}

/**
 * How many members the team has, counted up to `max`. The caller holds a lock on the team: others
 * who add one wait, and nobody who stores a credential.
 */
export async function countMembers(trx: Trx, team: TeamId, max: number): Promise<number> {
  await sql`select 1 from team where id = ${team} for no key update`.execute(trx);
  const { rows } = await sql<{ count: number }>`
    select count(*) as count from (select 1 from membership where team_id = ${team}
      limit ${max}) counted`.execute(trx);
  return rows[0]?.count ?? 0;
}

/** One member of the team. */
export async function findMember(
  executor: Executor,
  team: TeamId,
  sub: string,
): Promise<MemberRow | undefined> {
  const { rows } =
    await sql<MemberRow>`select ${memberColumns} from ${memberFrom} where member.team_id = ${team}
      and person.sub = ${sub}`.execute(executor);
  return rows[0];
}

/** The rows that say admin, whatever their row MACs say. */
export async function listAdmins(trx: Trx, team: TeamId): Promise<MemberRow[]> {
  const { rows } =
    await sql<MemberRow>`select ${memberColumns} from ${memberFrom} where member.team_id = ${team}
      and member.role = 'admin'`.execute(trx);
  return rows;
}

/** Members by sub. */
export async function listMembers(
  executor: Executor,
  team: TeamId,
  page: { limit: number; afterSub: string | undefined },
): Promise<MemberRow[]> {
  const { rows } = await sql<MemberRow>`
    select ${memberColumns} from ${memberFrom}
    where member.team_id = ${team}
      and (${page.afterSub ?? null}::text is null
      or coalesce(person.sub, member.subject_id::text) collate "C" > ${page.afterSub ?? null})
    order by coalesce(person.sub, member.subject_id::text) collate "C" limit ${page.limit}`.execute(
    executor,
  );
  return rows;
}

export interface MemberWrite {
  readonly team: TeamId;
  readonly subject: SubjectId;
  readonly role: Role;
  readonly actsForItself: boolean;
  readonly revision: number;
  readonly seal: Buffer;
  readonly by: SubjectId;
  readonly at: Date;
}

/** Inserts a member; a unique violation of membership_pkey says that there is one. */
export async function insertMember(trx: Trx, member: MemberWrite): Promise<void> {
  await trx
    .insertInto('membership')
    .values({
      team_id: member.team,
      subject_id: member.subject,
      role: member.role,
      acts_for_itself: member.actsForItself,
      revision: member.revision,
      seal: member.seal,
      created_at: member.at,
      created_by: member.by,
      updated_at: member.at,
      updated_by: member.by,
    })
    .execute();
}

/** Replaces role and row MAC of a member whose revision is still the one before; whether it was. */
export async function updateMember(trx: Trx, member: MemberWrite): Promise<boolean> {
  const result = await trx
    .updateTable('membership')
    .set({
      role: member.role,
      acts_for_itself: member.actsForItself,
      revision: member.revision,
      seal: member.seal,
      updated_at: member.at,
      updated_by: member.by,
    })
    .where('team_id', '=', member.team)
    .where('subject_id', '=', member.subject)
    .where('revision', '=', member.revision - 1)
    .executeTakeFirst();
  return result.numUpdatedRows === 1n;
}

/**
 * Writes a member in the place of a row with this row MAC, whatever it says; whether there was one.
 */
export async function replaceMember(trx: Trx, member: MemberWrite, seal: Buffer): Promise<boolean> {
  const result = await trx
    .updateTable('membership')
    .set({
      role: member.role,
      acts_for_itself: member.actsForItself,
      revision: member.revision,
      seal: member.seal,
      created_at: member.at,
      created_by: member.by,
      updated_at: member.at,
      updated_by: member.by,
    })
    .where('team_id', '=', member.team)
    .where('subject_id', '=', member.subject)
    .where('seal', 'is not distinct from', seal)
    .executeTakeFirst();
  return result.numUpdatedRows === 1n;
}

/** Deletes a member at this revision; whether there was one. */
export async function deleteMember(
  trx: Trx,
  team: TeamId,
  subject: SubjectId,
  revision: number,
): Promise<boolean> {
  const result = await trx
    .deleteFrom('membership')
    .where('team_id', '=', team)
    .where('subject_id', '=', subject)
    .where('revision', '=', revision)
    .executeTakeFirst();
  return result.numDeletedRows === 1n;
}
