// The decision about one action of one caller, by the table in roles.ts and by what the database
// says of their rights.
import type { GrantAccess, Role } from '../db/tables.ts';
import type { GrantId, SubjectId } from '../shared/ids.ts';
import type { Caller, TeamRef } from './caller.ts';
import { crossing, isAllowed, type TeamAction } from './roles.ts';

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

/** A refusal, as the audit is told of it. */
export interface Denial {
  readonly caller: Caller;
  readonly team: TeamRef | undefined;
  readonly action: string;
  readonly target: { readonly type: string; readonly id: string };
  readonly reason: string;
  /** The caller was told that there is no such thing. */
  readonly isHidden?: boolean;
}
