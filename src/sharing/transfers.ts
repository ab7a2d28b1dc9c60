// Transfer in two steps: an admin of the team that owns a credential offers it, an admin of the
// other team takes it. It moves whole, in one transaction, or stays. Each step stands in both audit
// logs.
import type { Keyring } from '../crypto/index.ts';
import type { Db, Executor, Trx } from '../db/client.ts';
import { transferDays } from '../shared/limits.ts';
import { AppError, forbidden, invalid, notFound } from '../shared/errors.ts';
import type { BudgetCounts } from '../shared/budget.ts';
import { Gate } from '../shared/gate.ts';
import { isId, newId, type TeamId, type TransferId } from '../shared/ids.ts';
import { ruleOfName } from '../shared/visible-names.ts';
import { eventsOfEnd, eventsOfTransfer } from './events.ts';
import { lockOwned } from './lock.ts';
import { findHeldTeam, holdTeam } from './repository.ts';
import { teamTampered } from './service.ts';
import * as repository from './transfer-repository.ts';
import { transferRowMac, verifyTransferRowMac } from './transfer-row-mac.ts';
import type { Claim } from '../db/claims.ts';
import type { Page } from '../shared/paging.ts';
import {
  type Caller,
  decide,
  type Decision,
  verifyGrantRowMac,
  type ResolvedResource,
  verifyTeamRowMac,
  type TeamRef,
} from '../access/index.ts';
import { type AuditLog, credentialTarget } from '../audit/index.ts';
import { moveTokens, UnmovableToken } from '../keys/index.ts';
import {
  bytesOfCredential,
  type CredentialRow,
  verifyCredentialRowMac,
  type CredentialsService,
  findActiveKey,
  type Growth,
  roomOf,
  credentialRowMac,
  type Stay,
  type TeamRoom,
  undecryptable,
  UndecryptableVersion,
  underActiveKey,
} from '../credentials/index.ts';
import type { TransferRow } from './types.ts';

export interface TransfersParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly now: () => number;
  /** The caller's effective role in a team. */
  readonly resolveTeam: (caller: Caller, slug: string) => Promise<ResolvedResource | undefined>;
  readonly credentials: Pick<CredentialsService, 'getCredential' | 'resolveCredential'>;
  readonly room?: TeamRoom | undefined;
}

const dayMs = 86_400_000;
const right = 'credential.manage';

/** What is asked of transfers. */
export class TransfersService {
  readonly #parts: TransfersParts;
  readonly #gate = new Gate<TeamId>({ atOnce: 1, waitingMax: 100, waitMs: 10_000 });
  constructor(parts: TransfersParts) {
    this.#parts = parts;
  }

  /** Takings over that wait for another one of their team. */
  get counts(): BudgetCounts {
    return this.#gate.counts;
  }

  /**
   * Offers a credential to another team, for a week. Throws invalidRequest for the own team and for
   * one that there is not, stateConflict while an offer is open.
   */
  async offerTransfer(
    caller: Caller,
    resolved: CredentialRow,
    toSlug: string,
    claim: Claim,
  ): Promise<TransferRow> {
    const { db, keyring, audit } = this.#parts;
    const at = this.#time();
    return db.transaction().execute(async (trx) => {
      const row = await lockOwned(trx, keyring, resolved, at);
      if (toSlug === row.slug) throw invalid('/team', 'ownTeam');
      demandNameFit(row.name);
      const target = await findHeldTeam(trx, toSlug);
      if (target === undefined) throw invalid('/team', 'unknownTeam');
      // SECURITY: the row MAC says that this id has this name: the vault has to have written that.
      if (!verifyTeamRowMac(keyring, target)) {
        audit.alarm({
          team: target,
          action: right,
          target: { type: 'team', id: target.id },
          reason: 'sealBroken',
          requestId: caller.requestId,
        });
        throw teamTampered();
      }
      const before = await repository.findTransferOf(trx, row.id);
      if (before !== undefined) {
        const open = await repository.findTransfer(trx, before);
        if (open !== undefined && this.#isGood(open, at))
          throw new AppError(
            'stateConflict',
            'There is an open offer of this credential; end it first.',
          );
        await repository.deleteTransfer(trx, before);
      }
      const offer = {
        id: newId<TransferId>(),
        team: row.team,
        slug: row.slug,
        credential: row.id,
        to: target.id,
        toSlug: target.slug,
        expiresAt: new Date(at.getTime() + transferDays * dayMs),
        revision: 1,
      };
      await claim(trx, offer.id);
      await repository.insertTransfer(trx, {
        ...offer,
        seal: transferRowMac(keyring, offer),
        by: caller.subject,
        at,
      });
      await audit.record(trx, ...eventsOfTransfer(caller, offer, { action: 'transfer.offer' }));
      return (await repository.findTransfer(trx, offer.id)) ?? raise(notFound());
    });
  }

  /** An open offer, for whom it was made by. Throws notFound. */
  async getTransfer(id: string): Promise<TransferRow> {
    const row = isId<TransferId>(id)
      ? await repository.findTransfer(this.#parts.db, id)
      : undefined;
    if (row === undefined || !this.#isGood(row, this.#time())) throw notFound();
    return row;
  }

  /**
   * Open offers of a team and to it; one more than the page. `isShown` is false where a row MAC
   * does not verify, which is reported.
   */
  async listTransfers(
    caller: Caller,
    team: TeamRef,
    page: Page,
  ): Promise<{ row: TransferRow; isShown: boolean }[]> {
    const { db, audit } = this.#parts;
    const now = this.#time();
    const rows = await repository.listTransfers(db, team.id, {
      limit: page.limit + 1,
      after: page.after?.[0],
      now,
    });
    const listed = rows.map((row) => ({ row, isShown: this.#isGood(row, now) }));
    for (const { row, isShown } of listed) {
      if (!isShown)
        await audit.denial({
          caller,
          team,
          action: right,
          target: { type: 'transfer', id: row.id },
          reason: 'sealBroken',
        });
    }
    return listed;
  }

  /**
   * Takes an offered credential over. Ends its grants, tickets and offers; every version and the
   * stored tokens are re-encrypted under the key of the new team, or nothing changes. Throws
   * notFound, forbidden, nameTaken, undecryptable, keyUnavailable, keyBusy, rateLimited while
   * others of the team are, stateConflict, limitReached.
   */
  async acceptTransfer(caller: Caller, id: string, claim: Claim): Promise<CredentialRow> {
    const { row: offer, target } = await this.#authorise(
      caller,
      id,
      ({ target }) => target.kind === 'allow',
    );
    const source = { id: offer.team, slug: offer.slug };
    // Each holds a connection for as long as the credential is large.
    const leave = await this.#gate.enter(target.id);
    if (leave === undefined)
      throw new AppError(
        'rateLimited',
        'Other credentials are being taken over; wait as Retry-After says.',
        { retryAfterSeconds: 5 },
      );
    try {
      const room = roomOf(this.#parts);
      const moves = await growthOf(this.#parts.db, offer);
      const row = await underActiveKey(() =>
        room.transaction(
          target.id,
          (trx, stay) => this.#accept(trx, stay, caller, { offer, target, claim }),
          { expected: moves },
        ),
      );
      room.give(source.id, moves);
      return row;
    } catch (error) {
      if (!(error instanceof UnmovableToken)) throw error;
      const { table, number, key } = error;
      const cause =
        table.rows === 'versions'
          ? await undecryptable(
              this.#parts,
              caller,
              source,
              offer.credential,
              new UndecryptableVersion(number, key),
              'transfer.accept',
            )
          : error.cause;
      throw new AppError('undecryptable', table.transfer.undecryptable, { cause });
    } finally {
      leave();
    }
  }

  /**
   * The credential that was taken over, for a repeated acceptance: for whoever may manage it still.
   */
  async getAccepted(caller: Caller, id: string): Promise<CredentialRow> {
    const resolved = await this.#parts.credentials.resolveCredential(caller, id);
    if (resolved === undefined || decide(resolved, right).kind !== 'allow') throw notFound();
    return resolved.resource;
  }

  /**
   * Ends an open offer: declined by the team that it is to, or withdrawn by the one that it is of.
   * Throws notFound, forbidden.
   */
  async declineTransfer(caller: Caller, id: string): Promise<void> {
    const { row, isOwn } = await this.#authorise(
      caller,
      id,
      ({ source, target }) => source.kind === 'allow' || target.kind === 'allow',
    );
    const { db, audit } = this.#parts;
    await db.transaction().execute(async (trx) => {
      if (!(await repository.deleteTransfer(trx, row.id))) throw notFound();
      await audit.record(
        trx,
        ...eventsOfTransfer(caller, row, {
          action: isOwn ? 'transfer.withdraw' : 'transfer.decline',
        }),
      );
    });
  }

  async #accept(
    trx: Trx,
    stay: Stay,
    caller: Caller,
    { offer, target, claim }: { offer: TransferRow; target: TeamRef; claim: Claim },
  ): Promise<CredentialRow> {
    const { keyring, audit, credentials } = this.#parts;
    const at = this.#time();
    const isThere = await repository.lockToMove(trx, offer);
    const held = isThere ? await repository.findTransfer(trx, offer.id) : undefined;
    // SECURITY: all of it may have changed since it was looked at; the row MACs of offer and
    // credential count now.
    if (
      held === undefined ||
      !this.#isGood(held, at) ||
      held.to !== target.id ||
      (await holdTeam(trx, target.slug)) === undefined
    )
      throw notFound();
    const { offered } = held;
    demandNameFit(offered.name);
    const key = await findActiveKey(trx, target.id);
    if (key === undefined) throw notFound();
    await claim(trx, offered.id);
    await stay.grow(await growthOf(trx, held));
    const { grants, tickets } = await repository.endUses(trx, offered.id);
    const next = { ...offered, team: target.id, revision: offered.revision + 1 };
    await repository.moveCredential(trx, {
      id: next.id,
      from: held.team,
      to: target.id,
      revision: next.revision,
      seal: credentialRowMac(keyring, next),
      by: caller.subject,
      at,
    });
    const move = { credential: next.id, type: next.type, from: held.team, to: target.id, key, at };
    const { versions } = await moveTokens(trx, keyring, move);
    await repository.deleteTransfer(trx, held.id);
    await repository.settleMove(trx);
    const source = { id: held.team, slug: held.slug };
    await audit.record(
      trx,
      ...eventsOfTransfer(caller, held, {
        action: 'transfer.accept',
        key: key.id,
        credentialVersion: next.version,
        details: { versions, grants: grants.length, tickets },
      }),
      ...grants.flatMap((grant) =>
        eventsOfEnd(
          {
            caller,
            team: source,
            action: 'grant.remove',
            target: credentialTarget(next.id),
            details: { grant: grant.id, cause: 'transfer' },
          },
          grant,
          verifyGrantRowMac(
            keyring,
            { ...grant, team: source.id, slug: source.slug, credential: next.id },
            grant.seal,
          ),
        ),
      ),
    );
    return credentials.getCredential(target, next.id, trx);
  }

  /** An offer for those who may do something with it; one answer for whoever may not know of it. */
  async #authorise(
    caller: Caller,
    id: string,
    isEnough: (of: { source: Decision; target: Decision }) => boolean,
  ): Promise<{ row: TransferRow; target: TeamRef; isOwn: boolean }> {
    const { db, audit, resolveTeam } = this.#parts;
    const row = isId<TransferId>(id) ? await repository.findTransfer(db, id) : undefined;
    const decisionIn = async (slug: string | undefined): Promise<Decision> =>
      decide(slug === undefined ? undefined : await resolveTeam(caller, slug), right);
    const [source, target] = [await decisionIn(row?.slug), await decisionIn(row?.toSlug)];
    const isBroken = row !== undefined && !this.#rowMacsVerify(row);
    const isOpen = row !== undefined && row.expiresAt > this.#time();
    if (row !== undefined && isOpen && !isBroken && isEnough({ source, target }))
      return { row, target: { id: row.to, slug: row.toSlug }, isOwn: source.kind === 'allow' };
    const isHidden = !isOpen || isBroken || (source.kind === 'hide' && target.kind === 'hide');
    const reason = isBroken ? 'sealBroken' : isHidden ? 'noSuchThing' : 'role';
    await audit.denial({
      caller,
      team: row === undefined ? undefined : { id: row.team, slug: row.slug },
      action: right,
      target: { type: 'transfer', id: row?.id ?? 'unknown' },
      reason,
      isHidden,
    });
    throw isHidden ? notFound() : forbidden();
  }

  /** Open, and as the vault wrote it, the credential too. */
  #isGood(row: TransferRow, now: Date): boolean {
    return row.expiresAt > now && this.#rowMacsVerify(row);
  }

  #rowMacsVerify(row: TransferRow): boolean {
    return (
      verifyTransferRowMac(this.#parts.keyring, row, row.seal) &&
      verifyCredentialRowMac(this.#parts.keyring, row.offered, row.credentialMac)
    );
  }

  #time(): Date {
    return new Date(this.#parts.now());
  }
}

/** What an offered credential brings along. */
const growthOf = async (
  executor: Executor,
  { team, credential }: Pick<TransferRow, 'team' | 'credential'>,
): Promise<Growth> => ({
  living: 1,
  stored: 1,
  bytes: await bytesOfCredential(executor, team, credential),
});

function raise(error: AppError): never {
  throw error;
}

/** To the team that gets it a name is one given anew, and looks like no other there. */
function demandNameFit(name: string): void {
  if (ruleOfName(name) !== undefined)
    throw new AppError(
      'stateConflict',
      'The name of the credential cannot be told from others by its look: rename it first.',
    );
}
