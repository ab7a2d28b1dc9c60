// Who may do what. One table, read by every decision about a team's things, and printed action by
// action into openapi.yaml.
import type { GrantAccess, Role } from '../db/tables.ts';
import type { GrantId, SubjectId, TeamId } from '../shared/ids.ts';

const table = {
  //                    viewer editor admin  auditor engine
  'credential.read': [true, true, true, true, true],
  'credential.write': [false, true, true, false, false],
  'credential.manage': [false, false, true, false, false],
  'credential.use': [false, true, true, false, false],
  'credential.lease': [false, false, false, false, true],
  'team.read': [true, true, true, true, true],
  'team.manage': [false, false, true, false, false],
  'key.read': [false, false, true, true, false],
  'key.rotate': [false, false, true, false, false],
  'audit.read': [false, false, true, true, false],
} as const satisfies Record<string, readonly [boolean, boolean, boolean, boolean, boolean]>;

/** The columns of the table, in their order. */
export const roles = [
  'viewer',
  'editor',
  'admin',
  'auditor',
  'engine',
] as const satisfies readonly Role[];

export type TeamAction = keyof typeof table;
export const teamActions = Object.keys(table) as TeamAction[];

/**
 * What a grant lets through of the actions that a role allows. Write, manage and keys never cross a
 * team.
 */
const crossing: Readonly<Record<GrantAccess, readonly TeamAction[]>> = {
  read: ['credential.read'],
  use: ['credential.read', 'credential.use', 'credential.lease'],
};

/** What only an operator may do. An operator has no role in a team, so sees no credential of it. */
export const operatorActions = [
  'team.create',
  'engine.manage',
  'rootKey.rotate',
  'status.read',
] as const;
export type OperatorAction = (typeof operatorActions)[number];

/** What the path names. A deleted credential is found by `anyCredential` only. */
export type LocatedBy = 'team' | 'credential' | 'anyCredential';

/**
 * What a route says of itself. `{ team }` names one action on one team's things, found by the path;
 * `{ each }` is for a call about several things: the service asks the same table for each of them.
 */
export type Access =
  | 'public'
  | 'authenticated'
  | { readonly operator: OperatorAction }
  | { readonly team: TeamAction; readonly by: LocatedBy }
  | { readonly each: TeamAction };

/** Whether the role may do the action. */
export function isAllowed(role: Role, action: TeamAction): boolean {
  return table[action][roles.indexOf(role)] === true;
}

/** The roles that may do the action, in the table's order. */
export function rolesFor(action: TeamAction): readonly Role[] {
  return roles.filter((role) => isAllowed(role, action));
}

/** The action as openapi.yaml and the trail print it. */
export function actionOf(access: Access): string {
  if (typeof access === 'string') return access;
  if ('operator' in access) return access.operator;
  return 'team' in access ? access.team : access.each;
}

/** Who calls, as far as an operation needs to know it. */
export interface Caller {
  readonly sub: string;
  readonly subject: SubjectId;
  readonly isOperator: boolean;
  /** The token is one that only an engine may have: no other role counts. */
  readonly isEngineOnly?: true;
  /**
   * Of somebody whom nobody has given a right: the issuer. The id is then of this request only, and
   * stands in no row.
   */
  readonly strangerOf?: string;
  readonly requestId: string;
  /** The peer's address; it goes nowhere but into the audit's erasable side row. */
  readonly address: string | null;
}

/** The team that a request is about. */
export interface TeamRef {
  readonly id: TeamId;
  readonly slug: string;
}

/**
 * One way to a credential of another team: a grant, and the role in which it is used. Both were
 * sealed by the vault.
 */
export interface Way {
  /** Whose way it is. */
  readonly subject: SubjectId;
  readonly grant: GrantId;
  readonly revision: number;
  readonly access: GrantAccess;
  /**
   * The team that it was granted to, with the revision of the membership there; undefined where it
   * was granted to the subject himself.
   */
  readonly team: (TeamRef & { readonly memberRevision: number }) | undefined;
  readonly role: Role;
  readonly actsForItself: boolean;
}

/**
 * All ways of a subject to one credential; `isBroken` where there is a row besides that the vault
 * did not write.
 */
export interface Ways {
  readonly ways: readonly Way[];
  readonly isBroken: boolean;
}

/** The way by which the action is allowed: the grant lets it through, and the role allows it. */
export const wayFor = ({ ways }: Ways, action: TeamAction): Way | undefined =>
  ways.find(({ access, role }) => crossing[access].includes(action) && isAllowed(role, action));

/**
 * What was found by the path, with the rights of the caller in it, in one look at the database.
 * `role` is there only when the membership's seal holds (and, for an engine, its registration's);
 * `refusal` says why it is not.
 */
export interface Located<T = unknown> {
  readonly team: TeamRef;
  readonly role: Role | undefined;
  readonly refusal: string | undefined;
  readonly thing: T;
  /** Ways past the membership; only credentials have some. */
  readonly ways?: Ways;
}

/**
 * The answer about one action: go on with this role (and, of another team's thing, by this way),
 * hide the thing (404), or refuse (403).
 */
export type Decision =
  | { readonly kind: 'allow'; readonly role: Role; readonly way?: Way }
  | { readonly kind: 'hide'; readonly reason: string }
  | { readonly kind: 'refuse'; readonly reason: string };

/**
 * Outside the team, and without a grant, a thing does not exist; without the right it is refused.
 */
export function decide(located: Located | undefined, action: TeamAction): Decision {
  if (located === undefined) return { kind: 'hide', reason: 'noSuchThing' };
  const { role, ways = { ways: [], isBroken: false } } = located;
  if (role !== undefined && isAllowed(role, action)) return { kind: 'allow', role };
  const way = wayFor(ways, action);
  // SECURITY: in the owner's team he is nobody: whatever is asked of his role there, it allows
  // nothing that a grant does not.
  if (way !== undefined) return { kind: 'allow', role: 'viewer', way };
  if (role === undefined && ways.ways.length === 0)
    return {
      kind: 'hide',
      reason: ways.isBroken ? 'sealBroken' : (located.refusal ?? 'notMember'),
    };
  return { kind: 'refuse', reason: ways.isBroken ? 'sealBroken' : 'role' };
}
