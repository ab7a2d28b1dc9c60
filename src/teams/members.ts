// The members of teams: who may. Every change commits with its audit event.
import type { Keyring } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import { isCheckViolation, isUniqueViolation } from '../db/errors.ts';
import type { Subjects } from '../db/subjects.ts';
import type { Role } from '../db/tables.ts';
import { AppError, invalid, notFound } from '../shared/errors.ts';
import { growthLimits, limitReached } from '../shared/growth.ts';
import type { SubjectId } from '../shared/ids.ts';
import type { Page } from '../shared/paging.ts';
import {
  checkRevision,
  type ExpectedRevision,
  preconditionFailed,
  preconditionRequired,
  revisionOfReplacement,
} from '../shared/revisions.ts';
import {
  type Caller,
  demandBounds,
  verifyMembershipRowMac,
  membershipRowMac,
  type SubjectBounds,
  type TeamRef,
} from '../access/index.ts';
import type { AuditLog } from '../audit/index.ts';
import * as repository from './repository.ts';
import type { MemberRow } from './types.ts';

export interface MembersParts {
  readonly db: Db;
  readonly keyring: Keyring;
  /** What subjects may not, whatever a row says. */
  readonly subjectBounds: SubjectBounds;
  readonly audit: AuditLog;
  readonly subjects: Subjects;
  readonly now: () => number;
  readonly membersMax?: number | undefined;
  /** Whether a row can be answered with. */
  readonly canShow: { readonly member: (row: MemberRow) => boolean };
  /**
   * Whether a subject is a registered, enabled engine whose row MAC verifies; from the engines'
   * service.
   */
  readonly isEnabledEngine: (
    trx: Trx,
    subject: SubjectId,
    sub: string,
    caller: Caller,
  ) => Promise<boolean>;
}

/** A member, and whether the vault wrote the row: without that it lets nobody do anything. */
export type SeenMember = MemberRow & { readonly intact: boolean };

/** How many members a team may have. */
export const membersMaxOf = ({ membersMax }: Pick<MembersParts, 'membersMax'>): number =>
  membersMax ?? growthLimits.members;

/** What is asked of members. */
export class MembersService {
  readonly #parts: MembersParts;
  constructor(parts: MembersParts) {
    this.#parts = parts;
  }

  /** Members by sub; one more than the page, for the cursor. A tampered one raises the alarm. */
  async listMembers(team: TeamRef, page: Page, requestId: string): Promise<SeenMember[]> {
    const { db, audit } = this.#parts;
    const rows = await repository.listMembers(db, team.id, {
      limit: page.limit + 1,
      afterSub: page.after?.[0],
    });
    return rows.map((row) => {
      const intact = this.#rowMacVerifies(team, row);
      if (!intact)
        audit.alarm({
          team,
          action: 'team.read',
          target: { type: 'subject', id: row.subject },
          reason: 'sealBroken',
          requestId,
        });
      return { ...row, intact };
    });
  }

  /**
   * Adds a member or changes a role. `expected` is asked for only when there is a member already; a
   * revision of somebody who is no member (any more) is stale. Throws preconditionRequired,
   * preconditionFailed, lastAdmin, notAnEngine, isAnEngine, limitReached.
   */
  async putMember(
    caller: Caller,
    team: TeamRef,
    sub: string,
    input: { role: Role; actsForItself?: boolean | undefined },
    expected: ExpectedRevision | undefined,
  ): Promise<MemberRow> {
    const { db, keyring, subjectBounds, subjects, audit, canShow } = this.#parts;
    const actsForItself = input.actsForItself ?? false;
    if (actsForItself && input.role !== 'engine') throw invalid('/actsForItself', 'engineOnly');
    demandBounds(subjectBounds, sub, team.slug, '/params/subject');
    const at = new Date(this.#parts.now());
    try {
      return await db.transaction().execute(async (trx) => {
        const subject = await subjects.ensure(trx, sub);
        const found = await repository.findMember(trx, team.id, sub);
        if (found !== undefined) {
          if (expected === undefined) throw preconditionRequired();
          checkRevision(expected, found.revision);
          if (found.role === 'admin' && input.role !== 'admin')
            await this.#keepAnAdmin(trx, team, subject);
        } else {
          if (expected !== undefined && expected !== 'any') throw preconditionFailed();
          const max = membersMaxOf(this.#parts);
          if ((await repository.countMembers(trx, team.id, max)) >= max)
            throw limitReached('members', max);
        }
        if (
          input.role === 'engine' &&
          !(await this.#parts.isEnabledEngine(trx, subject, sub, caller))
        ) {
          throw new AppError(
            'notAnEngine',
            'The role engine is given only to the subject of an enabled engine.',
          );
        }
        // SECURITY: what the vault did not write is replaced, not continued: nothing of it is
        // protected anew.
        const isTampered =
          found !== undefined && !(this.#rowMacVerifies(team, found) && canShow.member(found));
        const before = isTampered ? undefined : found;
        const revision = isTampered ? revisionOfReplacement() : (before?.revision ?? 0) + 1;
        const sealed = {
          team: team.id,
          slug: team.slug,
          subject,
          sub,
          role: input.role,
          actsForItself,
          revision,
        };
        const write = {
          ...sealed,
          seal: membershipRowMac(keyring, sealed),
          by: caller.subject,
          at,
        };
        if (found === undefined) await repository.insertMember(trx, write);
        else if (
          !(isTampered
            ? await repository.replaceMember(trx, write, found.seal)
            : await repository.updateMember(trx, write))
        )
          throw preconditionFailed();
        await audit.record(trx, {
          caller,
          team,
          action: found === undefined ? 'member.add' : 'member.change',
          target: { type: 'subject', id: subject },
          details: {
            role: input.role,
            actsForItself,
            ...(before === undefined ? {} : { roleBefore: before.role }),
            ...(isTampered ? { wasTampered: true } : {}),
          },
        });
        return {
          subject,
          sub,
          role: input.role,
          actsForItself,
          revision,
          seal: write.seal,
          createdAt: before?.createdAt ?? at,
          createdBy: before?.createdBy ?? caller.sub,
          updatedAt: at,
          updatedBy: caller.sub,
        };
      });
    } catch (error) {
      if (isUniqueViolation(error, 'membership_pkey')) throw preconditionFailed();
      throw asMemberError(error);
    }
  }

  /**
   * Removes a member; it counts at the next request. Throws notFound, preconditionFailed,
   * lastAdmin.
   */
  async removeMember(
    caller: Caller,
    team: TeamRef,
    sub: string,
    expected: ExpectedRevision,
  ): Promise<void> {
    try {
      await this.#parts.db.transaction().execute(async (trx) => {
        const member = await repository.findMember(trx, team.id, sub);
        if (member === undefined) throw notFound();
        checkRevision(expected, member.revision);
        if (member.role === 'admin') await this.#keepAnAdmin(trx, team, member.subject);
        if (!(await repository.deleteMember(trx, team.id, member.subject, member.revision)))
          throw preconditionFailed();
        await this.#parts.audit.record(trx, {
          caller,
          team,
          action: 'member.remove',
          target: { type: 'subject', id: member.subject },
          details: this.#rowMacVerifies(team, member)
            ? { roleBefore: member.role }
            : { wasTampered: true },
        });
      });
    } catch (error) {
      throw asMemberError(error);
    }
  }

  /**
   * Throws lastAdmin unless somebody else is an admin whom the vault made one: a trigger keeps a
   * row that says admin, but a row that was changed past the service lets nobody in, nor does one
   * of a subject that its issuer keeps out. Admins leave one at a time, each under the team's lock.
   */
  async #keepAnAdmin(trx: Trx, team: TeamRef, leaving: SubjectId): Promise<void> {
    if ((await repository.lockTeam(trx, team.id)) === undefined) throw notFound();
    const admins = await repository.listAdmins(trx, team.id);
    const { subjectBounds } = this.#parts;
    const counts = (admin: MemberRow): boolean =>
      this.#rowMacVerifies(team, admin) &&
      subjectBounds.refusalIn(admin.sub, team.slug) === undefined;
    if (!admins.some((admin) => admin.subject !== leaving && counts(admin))) throw lastAdmin();
  }

  /** Whether the vault wrote this member's row; without that it lets nobody do anything. */
  #rowMacVerifies(team: TeamRef, member: MemberRow): boolean {
    return verifyMembershipRowMac(
      this.#parts.keyring,
      { ...member, team: team.id, slug: team.slug },
      member.seal,
    );
  }
}

const lastAdmin = (): AppError => new AppError('lastAdmin', 'A team keeps at least one admin.');

/** What the constraints on members say. */
export function asMemberError(error: unknown): unknown {
  if (isCheckViolation(error, 'membership_keep_an_admin')) return lastAdmin();
  if (isCheckViolation(error, 'membership_engine_role'))
    return new AppError('isAnEngine', 'An engine holds no other role, anywhere.');
  return error;
}
