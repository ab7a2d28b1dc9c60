// Who may do what. One table, read by every decision about a team's things, and printed action by
// action into openapi.yaml.
import type { GrantAccess, Role } from '../db/tables.ts';

// biome-ignore format: it is read as a table, so its columns line up
const table = {
  'credential.read':   { viewer: true,  editor: true,  admin: true,  auditor: true,  engine: true  },
  'credential.write':  { viewer: false, editor: true,  admin: true,  auditor: false, engine: false },
  'credential.manage': { viewer: false, editor: false, admin: true,  auditor: false, engine: false },
  'credential.use':    { viewer: false, editor: true,  admin: true,  auditor: false, engine: false },
  'credential.lease':  { viewer: false, editor: false, admin: false, auditor: false, engine: true  },
  'team.read':         { viewer: true,  editor: true,  admin: true,  auditor: true,  engine: true  },
  'team.manage':       { viewer: false, editor: false, admin: true,  auditor: false, engine: false },
  'key.read':          { viewer: false, editor: false, admin: true,  auditor: true,  engine: false },
  'key.rotate':        { viewer: false, editor: false, admin: true,  auditor: false, engine: false },
  'audit.read':        { viewer: false, editor: false, admin: true,  auditor: true,  engine: false },
} as const satisfies Readonly<Record<string, Readonly<Record<Role, boolean>>>>;

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
  'credentialType.manage',
  'rootKey.rotate',
  'status.read',
] as const;
export type OperatorAction = (typeof operatorActions)[number];

/** What the path names. A deleted credential is found by `anyCredential` only. */
export type ResolvedBy = 'team' | 'credential' | 'anyCredential';

/**
 * What a route says of itself. `{ team }` names one action on one team's things, found by the path;
 * `{ each }` is for a call about several things: the service asks the same table for each of them.
 */
export type Access =
  | 'public'
  | 'authenticated'
  | { readonly operator: OperatorAction }
  | { readonly team: TeamAction; readonly by: ResolvedBy }
  | { readonly each: TeamAction };

/** Whether the role may do the action. */
export function isAllowed(role: Role, action: TeamAction): boolean {
  return table[action][role] === true;
}

/** The roles that may do the action, in the table's order. */
export function rolesFor(action: TeamAction): readonly Role[] {
  return roles.filter((role) => isAllowed(role, action));
}

/** The action as openapi.yaml and the audit log print it. */
export function actionOf(access: Access): string {
  if (typeof access === 'string') return access;
  if ('operator' in access) return access.operator;
  return 'team' in access ? access.team : access.each;
}
