// The rights of a subject in a team, as the database says them: the columns and joins that every
// query about a team's things takes along, and the check of the row MACs without which they count
// for nothing.
import { type RawBuilder, sql } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import type { Role } from '../db/tables.ts';
import type { EngineId, SubjectId, TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import type { Caller, TeamRef } from './caller.ts';
import type { BoundsRefusal, SubjectBounds } from './issuers.ts';

/**
 * What the row MAC of a membership covers. The slug and the sub are in it because callers name
 * teams and subjects by them.
 */
export interface MembershipMacFields {
  readonly team: TeamId;
  readonly slug: string;
  readonly subject: SubjectId;
  readonly sub: string;
  readonly role: Role;
  readonly actsForItself: boolean;
  readonly revision: number;
}
/** What the row MAC of an engine covers. */
export interface EngineMacFields {
  readonly id: EngineId;
  readonly subject: SubjectId;
  readonly sub: string;
  readonly state: 'enabled' | 'disabled';
  readonly revision: number;
}

/** The row MAC of a membership row. */
export const membershipRowMac = (keyring: Keyring, row: MembershipMacFields): Buffer =>
  keyring.rowMac('membership', membershipJson(row));
/** Whether the vault wrote this membership's row. */
export const verifyMembershipRowMac = (
  keyring: Keyring,
  row: MembershipMacFields,
  seal: Buffer,
): boolean => keyring.verifyRowMac('membership', membershipJson(row), seal);
/** The row MAC of an engine row. */
export const engineRowMac = (keyring: Keyring, row: EngineMacFields): Buffer =>
  keyring.rowMac('engine', engineJson(row));
/** Whether the vault wrote this engine's row. */
export const verifyEngineRowMac = (keyring: Keyring, row: EngineMacFields, seal: Buffer): boolean =>
  keyring.verifyRowMac('engine', engineJson(row), seal);

// Named one by one, in the order of the canonical form: what is passed in may carry more than the
// row MAC covers.
const membershipJson = ({
  team,
  slug,
  subject,
  sub,
  role,
  actsForItself,
  revision,
}: MembershipMacFields): JsonObject => ({
  actsForItself,
  revision,
  role,
  slug,
  sub,
  subject,
  team,
});
const engineJson = ({ id, subject, sub, state, revision }: EngineMacFields): JsonObject => ({
  id,
  revision,
  state,
  sub,
  subject,
});

/**
 * The columns that `effectiveRoleOf` reads; nulls where the left joins of `rightsJoin` found
 * nothing.
 */
export interface RightsRow {
  readonly member_role: Role | null;
  readonly member_acts_for_itself: boolean | null;
  readonly member_revision: number | null;
  readonly member_mac: Buffer | null;
  readonly engine_id: EngineId | null;
  readonly engine_state: 'enabled' | 'disabled' | null;
  readonly engine_revision: number | null;
  readonly engine_mac: Buffer | null;
}

/** To be selected beside the thing. */
export const rightsColumns =
  sql.raw(`member.role as member_role, member.acts_for_itself as member_acts_for_itself,
  member.revision as member_revision, member.seal as member_mac, member_engine.id as engine_id,
    member_engine.state as engine_state,
  member_engine.revision as engine_revision, member_engine.seal as engine_mac`);

/** To be joined where `team` is in the from-list. */
export const rightsJoin = (subject: SubjectId | RawBuilder<unknown>): RawBuilder<unknown> => sql`
  left join membership member on member.team_id = team.id and member.subject_id = ${subject}
  left join engine member_engine on member_engine.subject_id = member.subject_id
    and member.role = 'engine'`;

/**
 * What every question about rights is answered with: the keys of the row MACs, and what subjects
 * may not, whatever a row says.
 */
export interface RightsParts {
  readonly keyring: Keyring;
  readonly subjectBounds: SubjectBounds;
}

/** Whose right it is. */
export type Person = Pick<Caller, 'subject' | 'sub' | 'isEngineOnly'>;

/**
 * The role that holds, or why none does. The revisions name the rows that the decision rests on.
 */
export interface EffectiveRole {
  readonly role: Role | undefined;
  readonly refusal:
    | 'notMember'
    | 'sealBroken'
    | 'engineDisabled'
    | 'engineOnly'
    | BoundsRefusal
    | undefined;
  readonly actsForItself: boolean;
}

const none = (refusal: NonNullable<EffectiveRole['refusal']>): EffectiveRole => ({
  role: undefined,
  refusal,
  actsForItself: false,
});

/** What the rights columns are worth for this person in this team. */
export function effectiveRoleOf(
  row: RightsRow,
  team: TeamRef,
  person: Person,
  { keyring, subjectBounds }: RightsParts,
): EffectiveRole {
  const who = { team: team.id, slug: team.slug, subject: person.subject, sub: person.sub };
  const {
    member_role: role,
    member_revision: revision,
    member_mac: seal,
    member_acts_for_itself: actsForItself,
  } = row;
  if (role === null || revision === null || seal === null || actsForItself === null)
    return none('notMember');
  // SECURITY: a role counts only as the vault wrote it: for this subject, in this team, under this
  // name.
  if (!verifyMembershipRowMac(keyring, { ...who, role, actsForItself, revision }, seal))
    return none('sealBroken');
  // SECURITY: what an issuer's subjects may not, no row lets them.
  const refusal = subjectBounds.refusalIn(who.sub, who.slug);
  if (refusal !== undefined) return none(refusal);
  if (person.isEngineOnly === true && role !== 'engine') return none('engineOnly');
  if (role === 'engine') {
    const {
      engine_id: id,
      engine_state: state,
      engine_revision: engineRevision,
      engine_mac: engineMac,
    } = row;
    if (id === null || state === null || engineRevision === null || engineMac === null)
      return none('engineDisabled');
    const sealed = { id, subject: who.subject, sub: who.sub, state, revision: engineRevision };
    if (!verifyEngineRowMac(keyring, sealed, engineMac)) return none('sealBroken');
    if (state !== 'enabled') return none('engineDisabled');
  }
  return { role, refusal: undefined, actsForItself };
}
