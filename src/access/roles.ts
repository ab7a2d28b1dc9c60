// Who may do what. One table, read by every decision about a team's things, and printed action by
// action into openapi.yaml.
import type { GrantAccess, Role } from '../db/tables.ts';

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
export const crossing: Readonly<Record<GrantAccess, readonly TeamAction[]>> = {
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
