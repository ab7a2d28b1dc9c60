// Sharing: an admin lets another team, or somebody, read or use one credential. The credential
// stays its owner's, under the owner's key; what a grant is worth is decided where it is used
// (http/grants). Each change stands in both audit logs.
import type { Keyring } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import type { Subjects } from '../db/subjects.ts';
import type { GrantAccess, GranteeKind } from '../db/tables.ts';
import { grantsBetweenMax } from '../shared/limits.ts';
import { AppError, invalid, notFound } from '../shared/errors.ts';
import { growthLimits, limitReached } from '../shared/growth.ts';
import { type GrantId, newId, type SubjectId, type TeamId } from '../shared/ids.ts';
import {
  checkRevision,
  type ExpectedRevision,
  preconditionFailed,
  preconditionRequired,
  revisionOfReplacement,
} from '../shared/revisions.ts';
import { eventsOfEnd, eventsOfGrant } from './events.ts';
import { lockOwned } from './lock.ts';
import * as repository from './repository.ts';
import type { Page } from '../shared/paging.ts';
import {
  type Caller,
  verifyGrantRowMac,
  grantRowMac,
  verifyTeamRowMac,
  type SubjectBounds,
  demandBounds,
} from '../access/index.ts';
import { type AuditLog, credentialTarget } from '../audit/index.ts';
import type { CredentialRow } from '../credentials/index.ts';
import type { Grantee, SharedGrantRow } from './types.ts';

export interface SharingParts {
  readonly db: Db;
  readonly keyring: Keyring;
  /** What subjects may not, whatever a row says. */
  readonly subjectBounds: SubjectBounds;
  readonly audit: AuditLog;
  readonly subjects: Subjects;
  readonly now: () => number;
  /** Whether a row can be answered with; asked before a change of it commits. */
  readonly canShow: (row: SharedGrantRow) => boolean;
  /**
   * Whether a subject is an enabled engine; from the engines' service. Throws notAnEngine for a
   * disabled one.
   */
  readonly isEngine: (
    trx: Trx,
    subject: SubjectId,
    sub: string,
    caller: Caller,
  ) => Promise<boolean>;
  readonly grantsMax?: number | undefined;
  readonly betweenMax?: number;
}

/** A grant, and whether the vault wrote its row: without that it lets nobody do anything. */
export type SeenGrant = SharedGrantRow & { readonly intact: boolean };

/** What is asked of grants. */
export class SharingService {
  readonly #parts: SharingParts;
  constructor(parts: SharingParts) {
    this.#parts = parts;
  }

  /**
   * Grants of a credential, one more than the page, for the cursor. A tampered one raises the
   * alarm.
   */
  async listGrants(row: CredentialRow, page: Page, requestId: string): Promise<SeenGrant[]> {
    const { db, audit } = this.#parts;
    const grants = await repository.listGrants(db, row.id, {
      limit: page.limit + 1,
      after: page.after?.[0],
    });
    return grants.map((grant) => {
      const intact = this.#isIntact(grant, row);
      if (!intact)
        audit.alarm({
          team: { id: row.team, slug: row.slug },
          action: 'credential.manage',
          target: { type: 'grant', id: grant.id },
          reason: 'sealBroken',
          requestId,
        });
      return { ...grant, intact };
    });
  }

  /** Whether the vault wrote the grant, for the credential where it is. */
  #isIntact(grant: SharedGrantRow, { team }: CredentialRow): boolean {
    return grant.team === team && verifyGrantRowMac(this.#parts.keyring, grant, grant.seal);
  }

  /**
   * Grants, or changes what was granted. `expected` is asked for only when there is a grant
   * already. Throws invalidRequest for the own team and for one that there is not, notAnEngine for
   * a disabled engine, preconditionRequired, preconditionFailed, limitReached.
   */
  async putGrant(
    caller: Caller,
    resolved: CredentialRow,
    to: Grantee,
    access: GrantAccess,
    expected: ExpectedRevision | undefined,
  ): Promise<SharedGrantRow> {
    const {
      db,
      keyring,
      audit,
      now,
      canShow,
      grantsMax = growthLimits.grants,
      betweenMax = grantsBetweenMax,
    } = this.#parts;
    const at = new Date(now());
    return db.transaction().execute(async (trx) => {
      const row = await lockOwned(trx, keyring, resolved, at);
      const of = { team: row.team, credential: row.id };
      const { kind, grantee } = await this.#grantee(trx, caller, row, to);
      const found = await repository.findGrant(trx, row.id, to);
      // SECURITY: what the vault did not write is replaced, not continued: nothing of it is
      // protected anew.
      const isTampered = found !== undefined && !(this.#isIntact(found, row) && canShow(found));
      const before = isTampered ? undefined : found;
      if (found !== undefined) {
        if (expected === undefined) throw preconditionRequired();
        checkRevision(expected, found.revision);
      } else {
        if (expected !== undefined && expected !== 'any') throw preconditionFailed();
        if ((await repository.countGrants(trx, row.id, grantsMax)) >= grantsMax)
          throw limitReached('grants', grantsMax);
        // SECURITY: what is given without asking must not make the lists of whoever gets it slow.
        if (
          (await repository.countGrantsBetween(trx, row.team, { kind, grantee }, betweenMax)) >=
          betweenMax
        )
          throw limitReached('grantsBetween', betweenMax);
      }
      const sealed = {
        id: before?.id ?? newId<GrantId>(),
        ...of,
        slug: row.slug,
        kind,
        grantee,
        name: to.name,
        access,
        revision: isTampered ? revisionOfReplacement() : (before?.revision ?? 0) + 1,
      };
      if (isTampered && !(await repository.deleteGrant(trx, found.id))) throw preconditionFailed();
      await repository.putGrant(trx, {
        ...sealed,
        seal: grantRowMac(keyring, sealed),
        by: caller.subject,
        at,
      });
      const details = {
        grant: sealed.id,
        access,
        ...(before === undefined ? {} : { accessBefore: before.access }),
        ...(isTampered ? { wasTampered: true } : {}),
      };
      await audit.record(
        trx,
        ...eventsOfGrant(
          {
            caller,
            team: { id: row.team, slug: row.slug },
            action: found === undefined ? 'grant.add' : 'grant.change',
            target: credentialTarget(row.id),
            details,
          },
          sealed,
        ),
      );
      return (await repository.findGrant(trx, row.id, to)) ?? raise(notFound());
    });
  }

  /** Ends a grant; it counts at the next request. Throws notFound, preconditionFailed. */
  async removeGrant(
    caller: Caller,
    resolved: CredentialRow,
    to: Grantee,
    expected: ExpectedRevision,
  ): Promise<void> {
    const { db, keyring, audit, now } = this.#parts;
    await db.transaction().execute(async (trx) => {
      const row = await lockOwned(trx, keyring, resolved, new Date(now()));
      const grant = await repository.findGrant(trx, row.id, to);
      if (grant === undefined) throw notFound();
      checkRevision(expected, grant.revision);
      if (!(await repository.deleteGrant(trx, grant.id))) throw notFound();
      await audit.record(
        trx,
        ...eventsOfEnd(
          {
            caller,
            team: { id: row.team, slug: row.slug },
            action: 'grant.remove',
            target: credentialTarget(row.id),
            details: { grant: grant.id },
          },
          grant,
          this.#isIntact(grant, row),
        ),
      );
    });
  }

  async #grantee(
    trx: Trx,
    caller: Caller,
    row: CredentialRow,
    to: Grantee,
  ): Promise<{ kind: GranteeKind; grantee: TeamId | SubjectId }> {
    if (to.kind === 'subject') {
      demandBounds(this.#parts.subjectBounds, to.name, row.slug, '/params/subject');
      const subject = await this.#parts.subjects.ensure(trx, to.name);
      return {
        kind: (await this.#parts.isEngine(trx, subject, to.name, caller)) ? 'engine' : 'subject',
        grantee: subject,
      };
    }
    if (to.name === row.slug) throw invalid('/params/team', 'ownTeam');
    const team = await repository.findHeldTeam(trx, to.name);
    if (team === undefined) throw invalid('/params/team', 'unknownTeam');
    // SECURITY: the row MAC says that this id has this name: the vault has to have written that.
    if (!verifyTeamRowMac(this.#parts.keyring, team)) {
      this.#parts.audit.alarm({
        team,
        action: 'credential.manage',
        target: { type: 'team', id: team.id },
        reason: 'sealBroken',
        requestId: caller.requestId,
      });
      throw teamTampered();
    }
    return { kind: 'team', grantee: team.id };
  }
}

/** The row of the team that something is to go to was changed past the service. */
export const teamTampered = (): AppError =>
  new AppError(
    'stateConflict',
    'The other team was changed outside the vault: its admins have to send its settings again.',
  );

function raise(error: AppError): never {
  throw error;
}
