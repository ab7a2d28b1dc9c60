// Teams and their members: who owns, who may. Every change commits with its audit event.
import { demandName } from '../shared/visible-names.ts';
import type { Keyring } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import { isCheckViolation, isUniqueViolation } from '../db/errors.ts';
import type { Subjects } from '../db/subjects.ts';
import type { Role, TokenFormatColumn } from '../db/tables.ts';
import { AppError, invalid, notFound } from '../shared/errors.ts';
import { growthLimits, limitReached } from '../shared/growth.ts';
import { newId, type SubjectId, type TeamId } from '../shared/ids.ts';
import {
  checkRevision,
  type ExpectedRevision,
  preconditionFailed,
  preconditionRequired,
  revisionOfReplacement,
} from '../shared/revisions.ts';
import * as repository from './repository.ts';
import type { TeamRow } from './repository.ts';
import { takeOver } from './take-over.ts';
import type { Claim } from '../db/claims.ts';
import type { Page } from '../shared/paging.ts';
import {
  type Caller,
  isOfBefore,
  type Located,
  type MacedTeam,
  membershipSealHolds,
  sealMembership,
  settingsCount,
  standingOf,
  teamMac,
  teamMacVersion,
  type TeamRef,
  type SubjectBounds,
  demandBounds,
} from '../access/index.ts';
import type { AuditLog } from '../audit/index.ts';
import type { MemberRow } from './types.ts';
import { slugForm } from '../shared/patterns.ts';

export interface TeamsParts {
  readonly db: Db;
  readonly keyring: Keyring;
  /** What subjects may not, whatever a row says. */
  readonly subjectBounds: SubjectBounds;
  readonly audit: AuditLog;
  readonly subjects: Subjects;
  readonly now: () => number;
  readonly tokenFormat: TokenFormatColumn;
  readonly membersMax?: number | undefined;
  /** Whether a row can be answered with. */
  readonly canShow: {
    readonly team: (row: SeenTeam) => boolean;
    readonly member: (row: MemberRow) => boolean;
  };
  /** Makes a team's first data key; from the keys' service. */
  readonly insertFirstKey: (
    trx: Trx,
    key: { team: TeamId; format: TokenFormatColumn; by: SubjectId; at: Date },
  ) => Promise<void>;
  /**
   * Whether a subject is a registered, enabled engine whose seal holds; from the engines' service.
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
/** A team, and whether its settings count: where they do not, nothing may rest on them. */
export type SeenTeam = TeamRow & { readonly intact: boolean };

type Undefinable<T> = { readonly [K in keyof T]: T[K] | undefined };
/** What a team's admin can set besides the name. */
const protectedNames = [
  'tokenFormat',
  'rotateEveryDays',
  'refuseExposedLeases',
  'defaultDelivery',
  'versionsKept',
] as const satisfies readonly (keyof MacedTeam)[];
const settingNames = ['name', ...protectedNames] as const;
type TeamSettings = Pick<TeamRow, (typeof settingNames)[number]>;
/** What a team has before its admin sets anything. */
const settingsAtFirst = {
  rotateEveryDays: null,
  refuseExposedLeases: false,
  defaultDelivery: ['lease'],
  versionsKept: 10,
} as const satisfies Partial<TeamSettings>;

/** Thrown out of a transaction, so that it rolls back; never leaves this file. */
class SettingsTampered extends Error {}

/** What is asked of teams. */
export class TeamsService {
  readonly #parts: TeamsParts;
  constructor(parts: TeamsParts) {
    this.#parts = parts;
  }

  /** The team of a path with the caller's standing in it, for the authorization hook. */
  async locateTeam(caller: Caller, slug: string): Promise<Located<SeenTeam> | undefined> {
    if (!slugForm.test(slug)) return undefined;
    const row = await repository.findTeamWithRights(this.#parts.db, slug, caller.subject);
    if (row === undefined) return undefined;
    const standing = standingOf(row, row, caller, this.#parts);
    return {
      team: { id: row.id, slug: row.slug },
      role: standing.role,
      refusal: standing.refusal,
      thing: this.#seen(row),
    };
  }

  /**
   * The teams in which the caller's role counts, one more than the page, for the cursor. What a
   * broken seal hides is reported.
   */
  async listTeams(caller: Caller, page: Page): Promise<{ team: SeenTeam; role: Role }[]> {
    const { db, audit } = this.#parts;
    const wanted = page.limit + 1;
    const found: { team: SeenTeam; role: Role }[] = [];
    for (let afterSlug = page.after?.[0]; ; ) {
      const rows = await repository.listTeamsWithRights(db, caller.subject, {
        limit: wanted,
        afterSlug,
      });
      for (const row of rows) {
        const { role, refusal } = standingOf(row, row, caller, this.#parts);
        // SECURITY: a team whose row does not count must not even stand in a cursor.
        if (role !== undefined) {
          const team = this.#seen(row);
          if (!team.intact) this.alarm(team, caller.requestId);
          found.push({ team, role });
        } else if (refusal === 'sealBroken')
          await audit.denial({
            caller,
            team: row,
            action: 'team.read',
            target: { type: 'team', id: row.slug },
            reason: refusal,
          });
      }
      if (found.length >= wanted || rows.length < wanted) return found.slice(0, wanted);
      afterSlug = rows.at(-1)?.slug;
    }
  }

  /**
   * Creates a team with its first key and its admins in one transaction. Throws slugTaken,
   * isAnEngine, limitReached.
   */
  async createTeam(
    caller: Caller,
    input: { slug: string; name: string; admins: readonly string[] },
    claim: Claim,
  ): Promise<SeenTeam> {
    const { db, audit, keyring, subjectBounds, subjects, tokenFormat } = this.#parts;
    demandName(input.name);
    if (input.admins.length > this.#membersMax) throw limitReached('members', this.#membersMax);
    for (const [index, sub] of input.admins.entries())
      demandBounds(subjectBounds, sub, input.slug, `/admins/${index}`);
    const id = newId<TeamId>();
    const at = this.#time();
    const team = { id, slug: input.slug };
    const made = { ...team, name: input.name, ...settingsAtFirst, tokenFormat, revision: 1 };
    const mac = teamMac(keyring, made);
    try {
      await db.transaction().execute(async (trx) => {
        await claim(trx, input.slug);
        await repository.insertTeam(trx, { ...made, mac, by: caller.subject, at });
        await this.#parts.insertFirstKey(trx, {
          team: id,
          format: tokenFormat,
          by: caller.subject,
          at,
        });
        const admins: SubjectId[] = [];
        // In one order for everybody: two creations that name the same people would otherwise wait
        // for each other.
        for (const sub of [...input.admins].sort()) {
          const subject = await subjects.ensure(trx, sub);
          const row = {
            team: id,
            slug: input.slug,
            subject,
            sub,
            role: 'admin' as const,
            actsForItself: false,
            revision: 1,
          };
          await repository.insertMember(trx, {
            ...row,
            seal: sealMembership(keyring, row),
            by: caller.subject,
            at,
          });
          admins.push(subject);
        }
        await audit.record(trx, {
          caller,
          team,
          action: 'team.create',
          target: { type: 'team', id },
          details: { admins },
        });
      });
    } catch (error) {
      if (isUniqueViolation(error, 'team_slug_key'))
        throw new AppError('slugTaken', 'A team has this slug; slugs are never given again.');
      throw asMemberError(error);
    }
    return {
      ...made,
      rowMac: mac,
      rowMacVersion: teamMacVersion,
      intact: true,
      createdAt: at,
      createdBy: caller.sub,
      updatedAt: at,
      updatedBy: caller.sub,
    };
  }

  /** The team as it is, for a repeated creation. */
  async getTeam(slug: string, caller: Caller): Promise<SeenTeam> {
    const row = await repository.findTeamWithRights(this.#parts.db, slug, caller.subject);
    if (row === undefined) throw notFound();
    return this.#seen(row);
  }

  /**
   * Changes the settings of the team; a new format counts from the next rotation on. Of a team
   * whose settings were changed past the service all have to be said. Throws preconditionFailed,
   * stateConflict.
   */
  async updateTeam(
    caller: Caller,
    team: TeamRef,
    input: Partial<Undefinable<TeamSettings>>,
    expected: ExpectedRevision,
  ): Promise<SeenTeam> {
    try {
      return await this.#parts.db
        .transaction()
        .execute((trx) => this.#update(trx, caller, team, input, expected));
    } catch (error) {
      if (!(error instanceof SettingsTampered)) throw error;
      await this.#parts.audit.denial({
        caller,
        team,
        action: 'team.manage',
        target: { type: 'team', id: team.id },
        reason: 'sealBroken',
      });
      throw new AppError(
        'stateConflict',
        `The settings of the team were changed outside the vault. Send all of them: ${protectedNames.join(', ')}.`,
      );
    }
  }

  async #update(
    trx: Trx,
    caller: Caller,
    { id, slug }: TeamRef,
    input: Partial<Undefinable<TeamSettings>>,
    expected: ExpectedRevision,
  ): Promise<SeenTeam> {
    const { keyring, audit, canShow } = this.#parts;
    const at = this.#time();
    const current = await this.#lock(trx, { id, slug }, expected);
    const isIntact = settingsCount(keyring, current);
    // SECURITY: what is not said is kept, and protected anew: only what the vault wrote is kept.
    if (!isIntact && protectedNames.some((name) => input[name] === undefined))
      throw new SettingsTampered();
    if (isIntact && isOfBefore(current)) await takeOver(trx, { keyring, audit }, current);
    const settings = {
      name: input.name ?? current.name,
      tokenFormat: input.tokenFormat ?? current.tokenFormat,
      rotateEveryDays:
        input.rotateEveryDays === undefined ? current.rotateEveryDays : input.rotateEveryDays,
      refuseExposedLeases: input.refuseExposedLeases ?? current.refuseExposedLeases,
      defaultDelivery: input.defaultDelivery ?? current.defaultDelivery,
      versionsKept: input.versionsKept ?? current.versionsKept,
    };
    // One that is there stays; what is new can be told from the others by its look.
    if (settings.name !== current.name) demandName(settings.name);
    const changed = settingNames.filter((name) => String(settings[name]) !== String(current[name]));
    if (isIntact && changed.length === 0) return this.#seen(current);
    const revision = isIntact ? current.revision + 1 : revisionOfReplacement();
    const next = { ...current, ...settings, id, slug, revision };
    const mac = teamMac(keyring, next);
    const shown = {
      ...next,
      rowMac: mac,
      rowMacVersion: teamMacVersion,
      intact: true,
      updatedAt: at,
      updatedBy: caller.sub,
    };
    if (!canShow.team(shown)) throw notFound();
    await repository.updateTeam(trx, { ...next, mac, by: caller.subject, at });
    await audit.record(trx, {
      caller,
      team: { id, slug },
      action: 'team.update',
      target: { type: 'team', id },
      details: isIntact ? { changed } : { changed: [...protectedNames], wasTampered: true },
    });
    return shown;
  }

  /**
   * Deletes a team without living credentials: it is gone at once, its rows after the wait. Throws
   * teamNotEmpty, preconditionFailed.
   */
  async deleteTeam(caller: Caller, team: TeamRef, expected: ExpectedRevision): Promise<void> {
    const at = this.#time();
    await this.#parts.db.transaction().execute(async (trx) => {
      await this.#lock(trx, team, expected);
      if ((await repository.countLivingCredentials(trx, team.id)) > 0) {
        throw new AppError('teamNotEmpty', 'Delete or move the credentials of the team first.');
      }
      await repository.markTeamDeleted(trx, team.id, { by: caller.subject, at });
      await this.#parts.audit.record(trx, {
        caller,
        team,
        action: 'team.delete',
        target: { type: 'team', id: team.id },
      });
    });
  }

  /** Members by sub; one more than the page, for the cursor. A tampered one raises the alarm. */
  async listMembers(team: TeamRef, page: Page, requestId: string): Promise<SeenMember[]> {
    const { db, audit } = this.#parts;
    const rows = await repository.listMembers(db, team.id, {
      limit: page.limit + 1,
      afterSub: page.after?.[0],
    });
    return rows.map((row) => {
      const intact = this.#sealHolds(team, row);
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
    const at = this.#time();
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
          const max = this.#membersMax;
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
          found !== undefined && !(this.#sealHolds(team, found) && canShow.member(found));
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
        const write = { ...sealed, seal: sealMembership(keyring, sealed), by: caller.subject, at };
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
          details: this.#sealHolds(team, member)
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
   * row that says admin, but a row that was changed past the service lets nobody in, nor does one of
   * a subject that its issuer keeps out. Admins leave one at a time, each under the team's lock.
   */
  async #keepAnAdmin(trx: Trx, team: TeamRef, leaving: SubjectId): Promise<void> {
    if ((await repository.lockTeam(trx, team.id)) === undefined) throw notFound();
    const admins = await repository.listAdmins(trx, team.id);
    const { subjectBounds } = this.#parts;
    const counts = (admin: MemberRow): boolean =>
      this.#sealHolds(team, admin) && subjectBounds.refusalIn(admin.sub, team.slug) === undefined;
    if (!admins.some((admin) => admin.subject !== leaving && counts(admin))) throw lastAdmin();
  }

  /** Raises the alarm about a team whose settings do not count. */
  alarm(team: TeamRef, requestId: string): void {
    this.#parts.audit.alarm({
      team,
      action: 'team.read',
      target: { type: 'team', id: team.id },
      reason: 'sealBroken',
      requestId,
    });
  }

  /** Whether the vault wrote this member's row; without that it lets nobody do anything. */
  #sealHolds(team: TeamRef, member: MemberRow): boolean {
    return membershipSealHolds(
      this.#parts.keyring,
      { ...member, team: team.id, slug: team.slug },
      member.seal,
    );
  }

  #seen(row: TeamRow): SeenTeam {
    return { ...row, intact: settingsCount(this.#parts.keyring, row) };
  }

  async #lock(trx: Trx, team: TeamRef, expected: ExpectedRevision): Promise<TeamRow> {
    const current = await repository.lockTeam(trx, team.id);
    if (current === undefined) throw notFound();
    checkRevision(expected, current.revision);
    return current;
  }

  get #membersMax(): number {
    return this.#parts.membersMax ?? growthLimits.members;
  }

  #time(): Date {
    return new Date(this.#parts.now());
  }
}

const lastAdmin = (): AppError => new AppError('lastAdmin', 'A team keeps at least one admin.');

/** What the constraints on members say. */
function asMemberError(error: unknown): unknown {
  if (isCheckViolation(error, 'membership_keep_an_admin')) return lastAdmin();
  if (isCheckViolation(error, 'membership_engine_role'))
    return new AppError('isAnEngine', 'An engine holds no other role, anywhere.');
  return error;
}
