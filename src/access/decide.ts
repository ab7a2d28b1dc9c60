// The decision about one action of one caller, by the table in roles.ts and by what the database
// says of their rights.
import type { GrantAccess, Role } from '../db/tables.ts';
import type { GrantId, SubjectId } from '../shared/ids.ts';
import type { Caller, TeamRef } from './caller.ts';
import { crossing, isAllowed, type TeamAction } from './roles.ts';

/**
 * One way to a credential of another team: a grant, and the role in which it is used. Both have row
 * MACs that verify.
 */
export interface GrantPath {
  /** Whose way it is. */
  readonly subject: SubjectId;
  readonly grant: GrantId;
  readonly revision: number;
  readonly access: GrantAccess;
  /**
   * The team that it was granted to, with the revision of the membership there; undefined where it
   * was granted to the subject directly.
   */
  readonly team: (TeamRef & { readonly memberRevision: number }) | undefined;
  readonly role: Role;
  readonly actsForItself: boolean;
}

/**
 * All ways of a subject to one credential; `isBroken` where there is a row besides that the vault
 * did not write.
 */
export interface GrantPaths {
  readonly grantPaths: readonly GrantPath[];
  readonly isBroken: boolean;
}

/** The way by which the action is allowed: the grant lets it through, and the role allows it. */
export const grantPathFor = (
  { grantPaths }: GrantPaths,
  action: TeamAction,
): GrantPath | undefined =>
  grantPaths.find(
    ({ access, role }) => crossing[access].includes(action) && isAllowed(role, action),
  );

/**
 * What was found by the path, with the rights of the caller in it, in one look at the database.
 * `role` is there only when the membership's row MAC verifies (and, for an engine, its
 * registration's); `refusal` says why it is not.
 */
export interface ResolvedResource<T = unknown> {
  readonly team: TeamRef;
  readonly role: Role | undefined;
  readonly refusal: string | undefined;
  readonly resource: T;
  /** Ways past the membership; only credentials have some. */
  readonly grantPaths?: GrantPaths;
}

/**
 * The answer about one action: go on with this role (and, of another team's thing, by this way),
 * hide the thing (404), or refuse (403).
 */
export type Decision =
  | { readonly kind: 'allow'; readonly role: Role; readonly grantPath?: GrantPath }
  | { readonly kind: 'hide'; readonly reason: string }
  | { readonly kind: 'refuse'; readonly reason: string };

/**
 * Outside the team, and without a grant, a thing does not exist; without the right it is refused.
 */
export function decide(resolved: ResolvedResource | undefined, action: TeamAction): Decision {
  if (resolved === undefined) return { kind: 'hide', reason: 'noSuchThing' };
  const { role, grantPaths = { grantPaths: [], isBroken: false } } = resolved;
  if (role !== undefined && isAllowed(role, action)) return { kind: 'allow', role };
  const grantPath = grantPathFor(grantPaths, action);
  // SECURITY: in the owner's team the caller is no member: a role check there allows nothing that a
  // grant does not.
  if (grantPath !== undefined) return { kind: 'allow', role: 'viewer', grantPath };
  if (role === undefined && grantPaths.grantPaths.length === 0)
    return {
      kind: 'hide',
      reason: grantPaths.isBroken ? 'sealBroken' : (resolved.refusal ?? 'notMember'),
    };
  return { kind: 'refuse', reason: grantPaths.isBroken ? 'sealBroken' : 'role' };
}

/** A refusal, as it goes into the audit log. */
export interface Denial {
  readonly caller: Caller;
  readonly team: TeamRef | undefined;
  readonly action: string;
  readonly target: { readonly type: string; readonly id: string };
  readonly reason: string;
  /** The caller was told that there is no such thing. */
  readonly isHidden?: boolean;
}
