// Teams: who owns. Every change commits with its audit event.
import { demandName } from '../shared/visible-names.ts';
import type { Trx } from '../db/client.ts';
import { isUniqueViolation } from '../db/errors.ts';
import type { Role, TokenFormatColumn } from '../db/tables.ts';
import { AppError, notFound } from '../shared/errors.ts';
import { limitReached } from '../shared/growth.ts';
import { newId, type SubjectId, type TeamId } from '../shared/ids.ts';
import {
  checkRevision,
  type ExpectedRevision,
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
  type ResolvedResource,
  type MacedTeam,
  membershipRowMac,
  verifyTeamRowMac,
  effectiveRoleOf,
  teamRowMac,
  teamMacVersion,
  type TeamRef,
  demandBounds,
} from '../access/index.ts';
import { asMemberError, membersMaxOf, type MembersParts, MembersService } from './members.ts';
import { slugForm } from '../shared/patterns.ts';

export interface TeamsParts extends MembersParts {
  readonly tokenFormat: TokenFormatColumn;
  /** Whether a row can be answered with. */
  readonly canShow: MembersParts['canShow'] & { readonly team: (row: SeenTeam) => boolean };
  /** Makes a team's first data key; from the keys' service. */
  readonly insertFirstKey: (
    trx: Trx,
    key: { team: TeamId; format: TokenFormatColumn; by: SubjectId; at: Date },
  ) => Promise<void>;
}

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
  /** What is asked of their members. */
  readonly members: MembersService;
  constructor(parts: TeamsParts) {
    this.#parts = parts;
    this.members = new MembersService(parts);
  }

  /** The team of a path with the caller's effective role in it, for the authorization hook. */
  async resolveTeam(caller: Caller, slug: string): Promise<ResolvedResource<SeenTeam> | undefined> {
    if (!slugForm.test(slug)) return undefined;
    const row = await repository.findTeamWithRights(this.#parts.db, slug, caller.subject);
    if (row === undefined) return undefined;
    const effectiveRole = effectiveRoleOf(row, row, caller, this.#parts);
    return {
      team: { id: row.id, slug: row.slug },
      role: effectiveRole.role,
      refusal: effectiveRole.refusal,
      resource: this.#seen(row),
    };
  }

  /**
   * The teams in which the caller's role counts, one more than the page, for the cursor. What a
   * tampered row hides is reported.
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
        const { role, refusal } = effectiveRoleOf(row, row, caller, this.#parts);
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
    const membersMax = membersMaxOf(this.#parts);
    demandName(input.name);
    if (input.admins.length > membersMax) throw limitReached('members', membersMax);
    for (const [index, sub] of input.admins.entries())
      demandBounds(subjectBounds, sub, input.slug, `/admins/${index}`);
    const id = newId<TeamId>();
    const at = this.#time();
    const team = { id, slug: input.slug };
    const made = { ...team, name: input.name, ...settingsAtFirst, tokenFormat, revision: 1 };
    const mac = teamRowMac(keyring, made);
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
            seal: membershipRowMac(keyring, row),
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
        `The settings of the team were changed outside the vault. Send all of them: ` +
          `${protectedNames.join(', ')}.`,
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
    const isIntact = verifyTeamRowMac(keyring, current);
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
    const mac = teamRowMac(keyring, next);
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

  #seen(row: TeamRow): SeenTeam {
    return { ...row, intact: verifyTeamRowMac(this.#parts.keyring, row) };
  }

  async #lock(trx: Trx, team: TeamRef, expected: ExpectedRevision): Promise<TeamRow> {
    const current = await repository.lockTeam(trx, team.id);
    if (current === undefined) throw notFound();
    checkRevision(expected, current.revision);
    return current;
  }

  #time(): Date {
    return new Date(this.#parts.now());
  }
}
