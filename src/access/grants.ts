// Credentials that are shared: what the grants to a subject and to its teams are worth. Read beside
// the credential, in one look at the database; a row counts only as the vault wrote it, and only
// together with what it is used in: a membership, or the engine's registration.
import { type RawBuilder, sql } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import type { Executor, Trx } from '../db/client.ts';
import { type Statement, statement, unseen } from '../db/statement.ts';
import type { GrantAccess, GranteeKind, Role } from '../db/tables.ts';
import type { CredentialId, EngineId, GrantId, SubjectId, TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import type { GrantPath, GrantPaths } from './decide.ts';
import {
  verifyEngineRowMac,
  verifyMembershipRowMac,
  type Person,
  type RightsParts,
} from './rights.ts';

/**
 * What the row MAC of a grant covers. Slugs and the sub are in it because callers name teams and
 * subjects by them.
 */
export interface GrantMacFields {
  readonly id: GrantId;
  readonly team: TeamId;
  readonly slug: string;
  readonly credential: CredentialId;
  readonly kind: GranteeKind;
  readonly grantee: TeamId | SubjectId;
  /** The slug or the sub of the grantee. */
  readonly name: string;
  readonly access: GrantAccess;
  readonly revision: number;
}

/** The row MAC of a grant. */
export const grantRowMac = (keyring: Keyring, row: GrantMacFields): Buffer =>
  keyring.rowMac('credential_grant', asJson(row));
/** Whether the vault wrote this grant's row. */
export const verifyGrantRowMac = (keyring: Keyring, row: GrantMacFields, seal: Buffer): boolean =>
  keyring.verifyRowMac('credential_grant', asJson(row), seal);

// Named one by one: rows carry more columns than the row MAC covers.
const asJson = ({
  id,
  team,
  slug,
  credential,
  kind,
  grantee,
  name,
  access,
  revision,
}: GrantMacFields): JsonObject => ({
  access,
  credential,
  grantee,
  id,
  kind,
  name,
  revision,
  slug,
  team,
});

/**
 * One grant that concerns a subject, as `grantsSql` gives it: with the membership in the receiving
 * team, and the registration as an engine.
 */
export interface GrantRow {
  readonly id: GrantId;
  readonly kind: GranteeKind;
  readonly access: GrantAccess;
  readonly revision: number;
  readonly seal: string;
  readonly team: TeamId | null;
  readonly slug: string | null;
  readonly role: Role | null;
  readonly actsForItself: boolean | null;
  readonly memberRevision: number | null;
  readonly memberMac: string | null;
  readonly engine: EngineId | null;
  readonly engineState: 'enabled' | 'disabled' | null;
  readonly engineRevision: number | null;
  readonly engineMac: string | null;
}

const asGrantRow = sql.raw(`jsonb_build_object(
    'id', held.id, 'kind', held.grantee_kind, 'access', held.access, 'revision', held.revision,
      'seal', encode(held.seal, 'hex'), 'team', receiving.id, 'slug', receiving.slug,
    'role', holder.role, 'actsForItself', holder.acts_for_itself, 'memberRevision', holder.revision,
      'memberMac', encode(holder.seal, 'hex'),
    'engine', asker.id, 'engineState', asker.state, 'engineRevision', asker.revision, 'engineMac',
      encode(asker.seal, 'hex'))`);

/**
 * The grants of `credential` (an alias of the from-list) that concern the subject; null where there
 * are none. Which these are is asked first, and only of these what they are worth; `offset 0` keeps
 * the planner to one row by its key for each grant.
 */
export const grantsSql = (
  subject: RawBuilder<unknown>,
): RawBuilder<readonly GrantRow[] | null> => sql`(
  select jsonb_agg(${asGrantRow})
  from (select id, grantee_kind, grantee_team_id, grantee_subject_id, access, revision, seal
    from credential_grant given
    where given.credential_id = credential.id and (given.grantee_subject_id = ${subject}
      or coalesce((select true from membership where team_id = given.grantee_team_id
        and subject_id = ${subject}), false)) offset 0) held
  left join lateral (select team.id, team.slug from team where team.id = held.grantee_team_id
    and team.deleted_at is null offset 0) receiving on true
  left join lateral (select subject_id, role, acts_for_itself, revision, seal from membership
    where team_id = receiving.id and subject_id = ${subject} offset 0) holder on true
  left join lateral (select engine.id, state, revision, seal from engine
    where engine.subject_id = ${subject} offset 0) asker on true
  where held.grantee_subject_id = ${subject} or holder.subject_id is not null)`;

interface GrantedRow {
  readonly team: TeamId;
  readonly slug: string;
  readonly credential: CredentialId;
  readonly row: GrantRow;
}

// `offset 0` keeps the planner from reading whole tables.
const granted = (
  isOneTeam: boolean,
): Statement<{ subject: SubjectId; team: TeamId | undefined }, GrantedRow> =>
  statement((parameter) => {
    const who = unseen(parameter('subject'), 'uuid');
    const held = (condition: RawBuilder<unknown>): RawBuilder<unknown> => sql`
    cross join lateral (
      select id, team_id, credential_id, grantee_kind, access, revision, seal from credential_grant
        where ${condition} offset 0) held
    cross join lateral (select team.slug from team where team.id = held.team_id
      and team.deleted_at is null offset 0) owner`;
    const columns = sql`select held.team_id as team, owner.slug, held.credential_id as credential,
      ${asGrantRow} as row`;
    const throughTeams = sql<GrantedRow>`
    ${columns}
    from membership holder
    cross join lateral (select team.id, team.slug from team where team.id = holder.team_id
      and team.deleted_at is null offset 0) receiving
    left join engine asker on asker.subject_id = holder.subject_id
    ${held(sql`grantee_team_id = receiving.id`)}
    where holder.subject_id = ${who}`;
    if (isOneTeam)
      return sql`${throughTeams} and holder.team_id = ${unseen(parameter('team'), 'uuid')}`;
    return sql`${throughTeams} union all ${columns}
    from (select ${who} as id) person
    left join engine asker on asker.subject_id = person.id
    cross join lateral (select null::uuid as id, null::text as slug) receiving
    cross join lateral (select null::text as role, null::boolean as acts_for_itself,
      null::int as revision, null::bytea as seal) holder
    ${held(sql`grantee_subject_id = person.id`)}`;
  });
const grantedToAll = granted(false);
const grantedToTeam = granted(true);

/** Everything granted to a subject and to its teams, or to one of these only. */
export async function listGrantsTo(
  executor: Executor,
  subject: SubjectId,
  team: TeamId | undefined,
): Promise<{ readonly owned: Owned; readonly row: GrantRow }[]> {
  const run = team === undefined ? grantedToAll : grantedToTeam;
  return (await run(executor, { subject, team })).map(({ row, ...owned }) => ({ owned, row }));
}

/** A credential and who owns it. */
export interface Owned {
  readonly team: TeamId;
  readonly slug: string;
  readonly credential: CredentialId;
}

export const noGrantPaths: GrantPaths = { grantPaths: [], isBroken: false };

/** What these grants are worth to this person: those with more access first. */
export function grantPathsOf(
  rows: readonly GrantRow[] | null,
  owned: Owned,
  person: Person,
  parts: RightsParts,
): GrantPaths {
  if (rows === null) return noGrantPaths;
  const grantPaths: GrantPath[] = [];
  let isBroken = false;
  for (const row of rows) {
    const grantPath = grantPathOf(row, owned, person, parts);
    if (grantPath === 'sealBroken') isBroken = true;
    else if (grantPath !== undefined) grantPaths.push(grantPath);
  }
  grantPaths.sort((a, b) =>
    a.access === b.access ? (a.grant < b.grant ? -1 : 1) : a.access === 'use' ? -1 : 1,
  );
  return { grantPaths, isBroken };
}

function grantPathOf(
  row: GrantRow,
  owned: Owned,
  person: Person,
  { keyring, subjectBounds }: RightsParts,
): GrantPath | 'sealBroken' | undefined {
  const { id, kind, access, revision, team, slug } = row;
  const grantee = kind === 'team' ? team : person.subject;
  const name = kind === 'team' ? slug : person.sub;
  if (grantee === null || name === null) return undefined;
  // SECURITY: a grant counts only as the vault wrote it: of this credential, by this owner, to this
  // grantee, under these names.
  if (
    !verifyGrantRowMac(
      keyring,
      { id, ...owned, kind, grantee, name, access, revision },
      bytes(row.seal),
    )
  )
    return 'sealBroken';
  // SECURITY: what an issuer's subjects may not, no row lets them: neither in the team that owns
  // the credential nor in the one that it was granted to.
  if (subjectBounds.refusalIn(person.sub, owned.slug) !== undefined) return undefined;
  if (slug !== null && subjectBounds.refusalIn(person.sub, slug) !== undefined) return undefined;
  const engine = engineStateOf(row, person, keyring);
  if (engine === 'sealBroken') return engine;
  if (person.isEngineOnly === true && engine !== 'enabled') return undefined;
  if (kind === 'team') {
    const { role, actsForItself, memberRevision, memberMac } = row;
    if (
      team === null ||
      slug === null ||
      role === null ||
      actsForItself === null ||
      memberRevision === null ||
      memberMac === null
    )
      return undefined;
    if (
      !verifyMembershipRowMac(
        keyring,
        { team, slug, ...person, role, actsForItself, revision: memberRevision },
        bytes(memberMac),
      )
    )
      return 'sealBroken';
    if ((role === 'engine') !== (engine === 'enabled')) return undefined;
    return {
      subject: person.subject,
      grant: id,
      revision,
      access,
      team: { id: team, slug, memberRevision },
      role,
      actsForItself,
    };
  }
  // SECURITY: what was granted to a person does not count once the subject is an engine, and the
  // other way round.
  if (kind === 'engine')
    return engine === 'enabled'
      ? {
          subject: person.subject,
          grant: id,
          revision,
          access,
          team: undefined,
          role: 'engine',
          actsForItself: false,
        }
      : undefined;
  return engine === 'none'
    ? {
        subject: person.subject,
        grant: id,
        revision,
        access,
        team: undefined,
        role: 'editor',
        actsForItself: false,
      }
    : undefined;
}

function engineStateOf(
  { engine: id, engineState: state, engineRevision: revision, engineMac: seal }: GrantRow,
  { subject, sub }: Person,
  keyring: Keyring,
): 'none' | 'enabled' | 'disabled' | 'sealBroken' {
  if (id === null || state === null || revision === null || seal === null) return 'none';
  return verifyEngineRowMac(keyring, { id, subject, sub, state, revision }, bytes(seal))
    ? state
    : 'sealBroken';
}

const bytes = (hex: string): Buffer => Buffer.from(hex, 'hex');

/**
 * As SQL: whether these grants are as they were, their teams alive. `ids` and `revisions` are
 * arrays side by side.
 */
export const grantsStandSql = (
  ids: RawBuilder<unknown>,
  revisions: RawBuilder<unknown>,
): RawBuilder<boolean> => sql`
  not exists (select 1 from unnest(${ids}::uuid[], ${revisions}::int[]) as basis (id, revision)
    left join credential_grant held on held.id = basis.id and held.revision = basis.revision
    left join team receiving on receiving.id = held.grantee_team_id
    where held.id is null or receiving.deleted_at is not null)`;

/**
 * Whether the grant is as it was and its team alive; the grant is held so to the end of the
 * transaction.
 */
export async function holdGrant(trx: Trx, { grant, revision }: GrantPath): Promise<boolean> {
  const { rows } = await sql`
    select 1 from credential_grant held
    where held.id = ${grant} and held.revision = ${revision}
      and (held.grantee_team_id is null
        or exists (select 1 from team where team.id = held.grantee_team_id
        and team.deleted_at is null))
      for share of held`.execute(trx);
  return rows.length === 1;
}
