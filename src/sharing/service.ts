// Sharing: an admin lets another team, or somebody, read or use one credential. The credential
// stays its owner's, under the owner's key; what a grant is worth is decided where it is used
// (http/grants). Each change stands in both trails.
import type { AuditLog } from '../audit/record.ts';
import { credentialTarget } from '../audit/event.ts';
import type { CredentialRow } from '../credentials/service.ts';
import type { Keyring } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import type { Subjects } from '../db/subjects.ts';
import type { GrantAccess, GranteeKind } from '../db/tables.ts';
import type { Caller } from '../http/access.ts';
import { grantSealHolds, sealGrant } from '../http/grants.ts';
import { grantsBetweenMax } from '../http/limits.ts';
import type { Page } from '../http/paging.ts';
import {
  checkRevision,
  type ExpectedRevision,
  preconditionFailed,
  preconditionRequired,
} from '../http/preconditions.ts';
import { type AppError, invalid, notFound } from '../shared/errors.ts';
import { growthLimits, limitReached } from '../shared/growth.ts';
import { type GrantId, newId, type SubjectId, type TeamId } from '../shared/ids.ts';
import { eventsOfGrant } from './events.ts';
import { lockOwned } from './lock.ts';
import * as repository from './repository.ts';
import type { Grantee, GrantRow } from './repository.ts';

export type { Grantee, GrantRow } from './repository.ts';
export { sealTransfer, type SealedTransfer, transferSealHolds } from './transfer-seal.ts';

export interface SharingParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly subjects: Subjects;
  readonly now: () => number;
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

/** What is asked of grants. */
export class SharingService {
  readonly #parts: SharingParts;
  constructor(parts: SharingParts) {
    this.#parts = parts;
  }

  /** Grants of a credential, one more than the page, for the cursor. */
  listGrants(row: CredentialRow, page: Page): Promise<GrantRow[]> {
    return repository.listGrants(
      this.#parts.db,
      { team: row.team, credential: row.id },
      { limit: page.limit + 1, after: page.after?.[0] },
    );
  }

  /** Whether the vault wrote this grant's row; without that it lets nobody do anything. */
  sealHolds(grant: GrantRow): boolean {
    return grantSealHolds(this.#parts.keyring, grant, grant.seal);
  }

  /**
   * Grants, or changes what was granted. `expected` is asked for only when there is a grant
   * already. Throws invalidRequest for the own team and for one that there is not, notAnEngine for
   * a disabled engine, preconditionRequired, preconditionFailed, limitReached.
   */
  async putGrant(
    caller: Caller,
    located: CredentialRow,
    to: Grantee,
    access: GrantAccess,
    expected: ExpectedRevision | undefined,
  ): Promise<GrantRow> {
    const {
      db,
      keyring,
      audit,
      now,
      grantsMax = growthLimits.grants,
      betweenMax = grantsBetweenMax,
    } = this.#parts;
    const at = new Date(now());
    return db.transaction().execute(async (trx) => {
      const row = await lockOwned(trx, keyring, located, at);
      const of = { team: row.team, credential: row.id };
      const { kind, grantee } = await this.#grantee(trx, caller, row, to);
      const before = await repository.findGrant(trx, of, to);
      if (before !== undefined) {
        if (expected === undefined) throw preconditionRequired();
        checkRevision(expected, before.revision);
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
        revision: (before?.revision ?? 0) + 1,
      };
      await repository.putGrant(trx, {
        ...sealed,
        seal: sealGrant(keyring, sealed),
        by: caller.subject,
        at,
      });
      const details = {
        grant: sealed.id,
        access,
        ...(before === undefined ? {} : { accessBefore: before.access }),
      };
      await audit.record(
        trx,
        ...eventsOfGrant(
          {
            caller,
            team: { id: row.team, slug: row.slug },
            action: before === undefined ? 'grant.add' : 'grant.change',
            target: credentialTarget(row.id),
            details,
          },
          sealed,
        ),
      );
      return (await repository.findGrant(trx, of, to)) ?? raise(notFound());
    });
  }

  /** Ends a grant; it counts at the next request. Throws notFound, preconditionFailed. */
  async removeGrant(
    caller: Caller,
    located: CredentialRow,
    to: Grantee,
    expected: ExpectedRevision,
  ): Promise<void> {
    const { db, keyring, audit, now } = this.#parts;
    await db.transaction().execute(async (trx) => {
      const row = await lockOwned(trx, keyring, located, new Date(now()));
      const grant = await repository.findGrant(trx, { team: row.team, credential: row.id }, to);
      if (grant === undefined) throw notFound();
      checkRevision(expected, grant.revision);
      if (!(await repository.deleteGrant(trx, grant.id))) throw notFound();
      const details = { grant: grant.id, accessBefore: grant.access };
      await audit.record(
        trx,
        ...eventsOfGrant(
          {
            caller,
            team: { id: row.team, slug: row.slug },
            action: 'grant.remove',
            target: credentialTarget(row.id),
            details,
          },
          grant,
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
      const subject = await this.#parts.subjects.ensure(trx, to.name);
      return {
        kind: (await this.#parts.isEngine(trx, subject, to.name, caller)) ? 'engine' : 'subject',
        grantee: subject,
      };
    }
    if (to.name === row.slug) throw invalid('/params/team', 'ownTeam');
    const team = await repository.holdTeam(trx, to.name);
    if (team === undefined) throw invalid('/params/team', 'unknownTeam');
    return { kind: 'team', grantee: team.id };
  }
}

function raise(error: AppError): never {
  throw error;
}
