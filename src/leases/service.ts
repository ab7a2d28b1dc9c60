// Leases: credentials for an engine, sealed to its key. All that are asked for or none. What was
// opened leaves only if its record committed; what was recorded and did not leave, because it did
// not open after all, stands in the audit log as failed.
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Keyring } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import type { HangUp } from '../shared/hang-up.ts';
import { Budget, type BudgetCounts, type BudgetRoom } from '../shared/budget.ts';
import { AppError, forbidden } from '../shared/errors.ts';
import { type LeaseId, newId, type SubjectId } from '../shared/ids.ts';
import { inLanes } from '../shared/lanes.ts';
import { inTurns } from '../shared/pace.ts';
import {
  decideEngine,
  decideKey,
  decider,
  decideRights,
  type Recipient,
  type LeaseRefusal,
} from './decide.ts';
import { LeaseExpectations, type ExpectedLease, leasedOf } from './snapshots.ts';
import { markUndecryptable, openAll, type Opened, type Unopened } from './opening.ts';
import { deliverable } from './access-tokens.ts';
import { leaseAction, basisOf, eventsOf, type LeaseOrder } from './recording.ts';
import * as repository from './repository.ts';
import { LeaseSealer, payloadOf, sizeFault, tooLarge } from './sealed.ts';
import * as sizes from './sizes.ts';
import type { UsageCounter } from './usage.ts';
import type { FoundRow, LeaseQuery, RecipientRow, Reference } from './types.ts';
import type { Caller, OnBehalfOf, SubjectBounds } from '../access/index.ts';
import { type AuditLog, credentialTarget } from '../audit/index.ts';
import { findType } from '../credentials/index.ts';
import type { AccessTokens } from '../oauth/index.ts';

// What the broker's tickets rest on too.

export interface LeasesParts {
  readonly db: Db;
  readonly keyring: Keyring;
  /** What subjects may not, whatever a row says. */
  readonly subjectBounds: SubjectBounds;
  readonly audit: AuditLog;
  readonly usage: Pick<UsageCounter, 'count'>;
  readonly accessTokens: Pick<AccessTokens, 'accessTokenFor'>;
  readonly now: () => number;
  /** What leases are issued as: the vault's public URL. */
  readonly issuer: () => string;
  /** How many bytes, as stored, one engine may have open at once, and all together. */
  readonly openBytesMax?: { readonly engine: number; readonly all: number };
}

export interface LeaseInput {
  readonly references: readonly (Reference & { readonly knownVersion?: number | undefined })[];
  readonly purpose: string;
  readonly runId: string | undefined;
  readonly onBehalfOf: OnBehalfOf | undefined;
  readonly keyId: string | undefined;
  readonly ttlSeconds: number;
  /** Access tokens that an upstream refused, by the credential that they were leased for. */
  readonly rejected?: readonly { readonly id: string; readonly tokenId: string }[];
}

export interface Lease {
  readonly id: LeaseId;
  readonly expiresAt: Date;
  readonly sealed: string;
  readonly credentials: readonly {
    readonly row: FoundRow;
    readonly isKnown: boolean;
    /** Names the access token, where one is leased. */
    readonly tokenId: string | undefined;
  }[];
  /** To be called when the answer has left: until then its room is taken. */
  readonly leave: () => void;
}

/** One request for a lease. */
interface LeaseRequest extends LeaseOrder {
  readonly input: LeaseInput;
  readonly hangUp: HangUp | undefined;
  readonly now: number;
  readonly query: LeaseQuery;
}

/** What a statement found for a lease, and whether it recorded the lease. */
type Found = repository.Leasable & { readonly isRecorded: boolean };

const attemptsMax = 5;
const faultsMax = 100;
/** Of how many credentials of one lease access tokens are asked for at the same time. */
const accessTokensAtOnce = 10;

/** What is asked of leases. */
export class LeasesService {
  readonly #parts: LeasesParts;
  readonly #sealer: LeaseSealer;
  readonly #snapshots = new LeaseExpectations();
  /** What is open, or on its way to an engine. */
  readonly #open: Budget<SubjectId>;
  constructor(parts: LeasesParts) {
    this.#parts = parts;
    this.#sealer = new LeaseSealer(parts.keyring);
    this.#open = new Budget({
      what: 'leased',
      keyMax: parts.openBytesMax?.engine ?? sizes.openBytesMaxEngine,
      max: parts.openBytesMax?.all ?? sizes.openBytesMax,
    });
  }

  /** Bytes that are leased at this moment, and how often there was no room. */
  get counts(): BudgetCounts {
    return this.#open.counts;
  }

  /**
   * Leases every credential that is named, or none. One statement reads all that the decision rests
   * on and, where the same was leased before and nothing has changed since, records it. Otherwise a
   * second one records it if all of that still stands; when something has changed between them, it
   * starts again. Of a lease that is not small the first one reads sizes only. The lease has room
   * in memory until `leave` is called. Throws forbidden for a caller who is no enabled engine,
   * leaseRefused with a fault for each reference that is refused, rateLimited where there is no
   * room, requestTimeout when the caller has gone, keyUnavailable, stateConflict.
   */
  async createLease(caller: Caller, input: LeaseInput, hangUp?: HangUp): Promise<Lease> {
    for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
      hangUp?.demand();
      const lease = await this.#attempt(caller, input, hangUp);
      if (lease !== undefined) return lease;
    }
    throw new AppError('stateConflict', 'What was asked for keeps changing; try again.', {
      retryAfterSeconds: 1,
    });
  }

  async #attempt(
    caller: Caller,
    input: LeaseInput,
    hangUp: HangUp | undefined,
  ): Promise<Lease | undefined> {
    const request: LeaseRequest = {
      id: newId<LeaseId>(),
      caller,
      input,
      hangUp,
      now: this.#parts.now(),
      query: {
        subject: caller.subject,
        references: input.references.map(asReference),
        onBehalfOf: input.onBehalfOf?.sub,
        keyId: input.keyId,
        knownVersions: input.references.map(({ knownVersion }) => knownVersion),
      },
    };
    const isReported = (input.rejected?.length ?? 0) > 0;
    const expected = isReported ? undefined : this.#snapshots.find(request.query);
    if (expected !== undefined) return this.#again(request, expected);
    const found = await repository.findLeasable(this.#parts.db, request.query, sizes.smallBytesMax);
    return this.#take(request, { ...found, isRecorded: false });
  }

  /** The same was leased before: the statement that reads records it too, if all of that stands. */
  async #again(request: LeaseRequest, expected: ExpectedLease): Promise<Lease | undefined> {
    const { db, audit } = this.#parts;
    const { caller, query } = request;
    const events = eventsOf(request, expected);
    const place = this.#open.enter(caller.subject, expected.bytes);
    let found: Found | undefined;
    try {
      found = await repository.findAndRecord(
        db,
        query,
        expected,
        sizes.smallBytesMax,
        new Date(request.now),
        audit.values(events),
      );
      if (found.isRecorded) return await this.#deliver(request, found, place);
    } catch (error) {
      place.leave();
      this.#snapshots.forget(query);
      // The audit log says that it was leased; it must say too that nothing left.
      if (found?.isRecorded === true)
        await audit.record(
          db,
          ...events.map((event) => ({
            ...event,
            action: 'lease.failed',
            decision: 'deny' as const,
            reason: 'notDelivered',
          })),
        );
      throw error;
    }
    place.leave();
    this.#snapshots.forget(query);
    return this.#take(request, found);
  }

  async #take(request: LeaseRequest, found: Found): Promise<Lease | undefined> {
    if (found.isWithheld) return this.#large(request, found);
    const place = this.#open.enter(request.caller.subject, 0);
    return leaving(place, () => this.#deliver(request, found, place));
  }

  /**
   * A lease of which only sizes were read. Who may not know of a credential learns nothing of its
   * size: what is asked is the size of what this engine may have.
   */
  async #large(request: LeaseRequest, { recipient, found }: Found): Promise<Lease | undefined> {
    const { db } = this.#parts;
    const { caller, query } = request;
    const engine = await this.#recipientOf(caller, recipient);
    const hidden = decideRights(found, caller, this.#parts);
    const refusals = [
      ...('rule' in engine ? [engine] : []),
      ...hidden.filter((refusal) => refusal !== undefined),
    ];
    const isWanted = hidden.map((refusal) => refusal === undefined);
    const wanted = found.filter(
      (row, position) => row !== undefined && isWanted[position] === true,
    );
    const bytes = sum(wanted.map((row) => sizes.storedBytesOf(row!)));
    const payload = sum(wanted.map((row) => sizes.payloadBytesMin(row!)));
    // SECURITY: nothing of it is read, and nothing opened.
    if (bytes > sizes.storedBytesMax || payload > sizes.leaseBytesMax)
      throw await this.#refuse(caller, refusals, true);
    // What is refused anyway is looked at further only where that costs little.
    if (refusals.length > 0 && bytes > sizes.smallBytesMax)
      throw await this.#refuse(caller, refusals);
    const place = this.#open.enter(caller.subject, bytes);
    return leaving(place, async () => {
      const read = await repository.findLeasable(db, { ...query, isWanted }, bytes);
      // Something has grown, or may be known by now.
      const isOther =
        read.isWithheld ||
        decideRights(read.found, caller, this.#parts).some(
          (refusal, position) => refusal === undefined && isWanted[position] !== true,
        );
      return isOther ? undefined : this.#deliver(request, { ...read, isRecorded: false }, place);
    });
  }

  /**
   * Decides, opens, seals, and records what is not recorded yet; undefined when that found
   * something changed.
   */
  async #deliver(
    request: LeaseRequest,
    found: Found,
    place: BudgetRoom,
  ): Promise<Lease | undefined> {
    const { db, audit, usage, issuer } = this.#parts;
    const { id, caller, input, now, query } = request;
    const recipient = await this.#recipientOf(caller, found.recipient);
    const opened = await this.#openFor(request, recipient, found, place);
    if ('rule' in recipient) throw new TypeError('a refused key is a refused lease');
    checkRejected(input.rejected ?? [], opened);
    const hasStoredTokens = opened.some(({ row }) => findType(row.type)?.oauth !== undefined);
    const credentials = hasStoredTokens ? await this.#withAccessTokens(request, opened) : opened;
    const issuedAt = Math.floor(now / 1000);
    const expiresAt = issuedAt + input.ttlSeconds;
    const payload = payloadOf({
      id,
      issuer: issuer(),
      audience: caller.sub,
      issuedAt,
      expiresAt,
      credentials,
    });
    const done = (sealed: string): Lease => {
      for (const { row } of credentials) usage.count(row.id);
      return {
        id,
        expiresAt: new Date(expiresAt * 1000),
        sealed,
        credentials: credentials.map(({ row, isKnown, tokenId }) => ({ row, isKnown, tokenId })),
        leave: place.leave,
      };
    };
    // SECURITY: it is recorded only if what was decided on and opened here is, row by row, what its
    // events say.
    if (found.isRecorded) return done(this.#sealer.seal(payload, recipient));
    const bytes = sum(credentials.map(({ row }) => sizes.storedBytesOf(row)));
    const made = { recipient, leased: credentials.map(leasedOf), bytes };
    // Side by side; nothing is answered before both are done. A record without an answer says more
    // than happened, never less.
    const [isRecorded, sealed] = await Promise.all([
      repository.recordIfUnchanged(db, basisOf(caller, recipient, credentials), (onlyIf) =>
        audit.parts(eventsOf(request, made), onlyIf),
      ),
      this.#sealWhileRecording(payload, recipient),
    ]);
    // SECURITY: without its record, or with anything changed that it rested on, nothing that was
    // opened leaves.
    if (!isRecorded) return undefined;
    // A provider may be asked in between: of such a lease the record comes after it.
    // SECURITY: nor is one that took a grant: the statement that expects asks for memberships, not
    // for grants.
    const isExpectable =
      !hasStoredTokens &&
      bytes <= sizes.smallBytesMax &&
      made.leased.every(({ grantPaths }) => grantPaths.length === 0);
    if (isExpectable) this.#snapshots.remember(query, made);
    else this.#snapshots.forget(query);
    return done(sealed);
  }

  /** Everything that was found, opened, once it has its room. Throws leaseRefused, rateLimited. */
  async #openFor(
    { caller, input, now, hangUp }: LeaseRequest,
    recipient: Recipient | LeaseRefusal,
    { found }: Found,
    place: BudgetRoom,
  ): Promise<readonly Opened[]> {
    const { keyring } = this.#parts;
    const question = {
      caller,
      onBehalfOf: input.onBehalfOf?.sub,
      delivery: 'lease' as const,
      knownVersions: input.references.map(({ knownVersion }) => knownVersion),
      now: new Date(now),
    };
    const decisions = await inTurns(found, decider(question, this.#parts), {
      bytesOf: (row) => (row === undefined ? 0 : sizes.storedBytesOf(row)),
      bytesPerTurn: sizes.bytesPerTurn,
    });
    const granted = decisions.filter((decision) => 'version' in decision);
    const isRefused = 'rule' in recipient || granted.length < decisions.length;
    const bytes = sum(granted.map(({ row }) => sizes.storedBytesOf(row)));
    place.resize(bytes);
    const opened =
      isRefused && bytes > sizes.smallBytesMax
        ? decisions.filter((decision) => 'rule' in decision)
        : await openAll(keyring, decisions, hangUp);
    const readable = opened.filter((each) => 'secrets' in each);
    if (isRefused || readable.length < decisions.length) {
      throw await this.#refuse(caller, [
        ...('rule' in recipient ? [recipient] : []),
        ...opened.filter((each) => 'rule' in each),
      ]);
    }
    return readable;
  }

  /**
   * Encrypting the lease takes this thread: the statement that records is sent first, so that the
   * database works meanwhile.
   */
  async #sealWhileRecording(payload: Buffer, recipient: Recipient): Promise<string> {
    await nextTurn();
    return this.#sealer.seal(payload, recipient);
  }

  /** The engine and its key, or the refusal of the key. Throws forbidden. */
  async #recipientOf(caller: Caller, row: RecipientRow): Promise<Recipient | LeaseRefusal> {
    const { keyring, audit } = this.#parts;
    const engine = decideEngine(row, caller, keyring);
    if ('refusal' in engine) {
      await audit.denial({
        caller,
        team: undefined,
        action: leaseAction,
        target: { type: 'engine', id: row.engine?.id ?? 'unknown' },
        reason: engine.refusal,
      });
      throw forbidden();
    }
    const key = decideKey(row, engine.id, keyring);
    return 'rule' in key ? key : { ...engine, ...key };
  }

  /**
   * The same with access tokens in place of what they were got with. Nobody is asked for one before
   * all else is granted.
   */
  async #withAccessTokens(
    { caller, input, hangUp }: LeaseRequest,
    opened: readonly Opened[],
  ): Promise<Opened[]> {
    const { accessTokens } = this.#parts;
    const rejected = new Map(input.rejected?.map(({ id, tokenId }) => [id, tokenId]));
    const asked = inLanes(opened, accessTokensAtOnce, (each) => {
      hangUp?.demand();
      return deliverable(accessTokens, caller, each, rejected.get(each.row.id));
    });
    const answers = await (hangUp?.race(asked) ?? asked);
    const refusals = answers.flatMap((answer, position): LeaseRefusal[] => {
      const { row } = opened[position]!;
      if (typeof answer !== 'string') return [];
      return [
        {
          pointer: `/credentials/${position}`,
          rule: answer,
          reason: answer,
          team: { id: row.team, slug: row.slug },
          target: credentialTarget(row.id),
        },
      ];
    });
    if (refusals.length > 0) throw await this.#refuse(caller, refusals);
    return answers.filter((answer) => typeof answer !== 'string');
  }

  /** Records every refusal and makes the one error of all of them. */
  async #refuse(
    caller: Caller,
    refusals: readonly (LeaseRefusal | Unopened)[],
    isTooLarge = false,
  ): Promise<AppError> {
    for (const refusal of refusals) {
      if ('failed' in refusal && !refusal.failed.version.isMarked)
        await markUndecryptable(this.#parts, caller, leaseAction, refusal.failed);
      else
        await this.#parts.audit.denial({
          caller,
          team: refusal.team,
          action: leaseAction,
          target: refusal.target,
          reason: refusal.reason,
          isHidden: refusal.rule === 'notFound',
        });
    }
    const errors = refusals.map(({ pointer, rule }) => ({ pointer, rule })).slice(0, faultsMax);
    if (isTooLarge) return tooLarge([sizeFault, ...errors.slice(0, faultsMax - 1)]);
    return new AppError('leaseRefused', 'Not all of this can be leased, so nothing is.', {
      errors,
    });
  }
}

/** A report is of a token that this lease is about: a mistake in it is said, not passed over. */
function checkRejected(
  rejected: NonNullable<LeaseInput['rejected']>,
  granted: readonly Opened[],
): void {
  const errors = rejected.flatMap(({ id }, at) =>
    granted.some(({ row }) => row.id === id && findType(row.type)?.oauth !== undefined)
      ? []
      : [{ pointer: `/rejected/${at}/id`, rule: 'notInLease' as const }],
  );
  if (errors.length > 0)
    throw new AppError('leaseRefused', 'A rejected token belongs to none of these credentials.', {
      errors,
    });
}

const asReference = (each: LeaseInput['references'][number]): Reference =>
  'id' in each ? { id: each.id } : { team: each.team, name: each.name };

/** Gives the room back unless there is a lease to hold it. */
async function leaving(
  place: BudgetRoom,
  lease: () => Promise<Lease | undefined>,
): Promise<Lease | undefined> {
  let isMade = false;
  try {
    const made = await lease();
    isMade = made !== undefined;
    return made;
  } finally {
    if (!isMade) place.leave();
  }
}

const sum = (amounts: readonly number[]): number =>
  amounts.reduce((total, amount) => total + amount, 0);
