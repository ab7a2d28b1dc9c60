// Leases: credentials for an engine, sealed to its key. All that are asked for or none. What was
// opened leaves only if its record committed; what was recorded and did not leave, because it did
// not open after all, stands in the trail as failed.
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { AuditLog } from '../audit/record.ts';
import { credentialTarget, type EventInput, eventsThrough } from '../audit/event.ts';
import { DecryptionFailed, type Keyring, type SecretFields } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import type { Caller } from '../http/access.ts';
import type { OnBehalfOf } from '../http/authentication.ts';
import { typeNamed } from '../credentials/service.ts';
import type { AccessTokens } from '../oauth/service.ts';
import { AppError, forbidden } from '../shared/errors.ts';
import { type GrantId, type LeaseId, newId } from '../shared/ids.ts';
import {
  decideAll,
  decideEngine,
  decideKey,
  type Granted,
  type Recipient,
  type Refusal,
} from './decide.ts';
import { type Expected, Expectations, leasedOf } from './expectations.ts';
import { markUndecryptable, openGranted } from './opening.ts';
import { deliverable } from './access-tokens.ts';
import * as repository from './repository.ts';
import type { Basis, FoundRow, RecipientRow, Reference } from './repository.ts';
import { LeaseSealer, payloadOf } from './sealed.ts';
import type { UsageCounter } from './usage.ts';

// What the broker's tickets rest on too.
export {
  decideAll,
  decideEngine,
  type Granted,
  type Question,
  type Refusal,
  type Rule,
} from './decide.ts';
export { asOAuth } from './access-tokens.ts';
export { markUndecryptable, openGranted } from './opening.ts';
export type { UsageCounter } from './usage.ts';
export {
  type Basis,
  findLeasable,
  foundOf,
  type FoundRow,
  recordIfUnchanged,
  type RecipientRow,
  type Reference,
  useColumns,
  useJoins,
  type UseRow,
} from './repository.ts';

export interface LeasesParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly usage: Pick<UsageCounter, 'count'>;
  readonly accessTokens: Pick<AccessTokens, 'accessTokenFor'>;
  readonly now: () => number;
  /** What leases are issued as: the vault's public URL. */
  readonly issuer: () => string;
}

export interface LeaseInput {
  readonly references: readonly (Reference & { readonly knownVersion?: number | undefined })[];
  readonly purpose: string;
  readonly runId: string | undefined;
  readonly onBehalfOf: OnBehalfOf | undefined;
  readonly keyId: string | undefined;
  readonly ttlSeconds: number;
}

export interface Lease {
  readonly id: LeaseId;
  readonly expiresAt: Date;
  readonly sealed: string;
  readonly credentials: readonly { readonly row: FoundRow; readonly isKnown: boolean }[];
}

/** One request for a lease. */
interface Order {
  readonly id: LeaseId;
  readonly caller: Caller;
  readonly input: LeaseInput;
  readonly now: number;
}
type Opened = Granted & { readonly secrets: SecretFields | undefined };
type Unopened = Refusal & { readonly failed: Granted };

const attemptsMax = 5;
const faultsMax = 100;
const action = 'credential.lease';

/** What is asked of leases. */
export class LeasesService {
  readonly #parts: LeasesParts;
  readonly #sealer: LeaseSealer;
  readonly #expectations = new Expectations();
  constructor(parts: LeasesParts) {
    this.#parts = parts;
    this.#sealer = new LeaseSealer(parts.keyring);
  }

  /**
   * Leases every credential that is named, or none. One statement reads all that the decision rests
   * on and, where the same was leased before and nothing has changed since, records it. Otherwise a
   * second one records it if all of that still stands; when something has changed between them, it
   * starts again. Throws forbidden for a caller who is no enabled engine, leaseRefused with a fault
   * for each reference that is refused, keyUnavailable, stateConflict.
   */
  async createLease(caller: Caller, input: LeaseInput): Promise<Lease> {
    for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
      const lease = await this.#attempt(caller, input);
      if (lease !== undefined) return lease;
    }
    throw new AppError('stateConflict', 'What was asked for keeps changing; try again.', {
      retryAfterSeconds: 1,
    });
  }

  async #attempt(caller: Caller, input: LeaseInput): Promise<Lease | undefined> {
    const { db, audit } = this.#parts;
    const order = { id: newId<LeaseId>(), caller, input, now: this.#parts.now() };
    const query = {
      subject: caller.subject,
      references: input.references.map(asReference),
      onBehalfOf: input.onBehalfOf?.sub,
      keyId: input.keyId,
    };
    const expected = this.#expectations.find(query);
    if (expected === undefined)
      return this.#deliver(order, query, {
        ...(await repository.findLeasable(db, query)),
        isRecorded: false,
      });
    const events = eventsOf(order, expected);
    const found = await repository.findAndRecord(
      db,
      query,
      expected,
      new Date(order.now),
      audit.values(events),
    );
    try {
      return await this.#deliver(order, query, found);
    } catch (error) {
      this.#expectations.forget(query);
      // The trail says that it was leased; it must say too that nothing left.
      if (found.isRecorded)
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
  }

  /**
   * Decides, opens, seals, and records what is not recorded yet; undefined when that found
   * something changed.
   */
  async #deliver(
    { id, caller, input, now }: Order,
    query: repository.LeaseQuery,
    found: repository.Leasable & { readonly isRecorded: boolean },
  ): Promise<Lease | undefined> {
    const { db, keyring, audit, usage, issuer } = this.#parts;
    const recipient = await this.#recipientOf(caller, found.recipient);
    const question = {
      caller,
      onBehalfOf: input.onBehalfOf?.sub,
      delivery: 'lease' as const,
      knownVersions: input.references.map(({ knownVersion }) => knownVersion),
      now: new Date(now),
    };
    const decisions = decideAll(found.found, question, keyring).map((decision, position) =>
      'rule' in decision ? decision : this.#open(decision, position),
    );
    const readable = decisions.filter((decision) => 'secrets' in decision);
    if ('rule' in recipient || readable.length < decisions.length) {
      throw await this.#refuse(caller, [
        ...('rule' in recipient ? [recipient] : []),
        ...decisions.filter((decision) => 'rule' in decision),
      ]);
    }
    const isHeld = readable.some(({ row }) => typeNamed(row.type).oauth !== undefined);
    const opened = isHeld ? await this.#withAccessTokens(caller, readable) : readable;
    const issuedAt = Math.floor(now / 1000);
    const expiresAt = issuedAt + input.ttlSeconds;
    const payload = payloadOf({
      id,
      issuer: issuer(),
      audience: caller.sub,
      issuedAt,
      expiresAt,
      credentials: opened,
    });
    const done = (sealed: string): Lease => {
      for (const { row } of opened) usage.count(row.id);
      return {
        id,
        expiresAt: new Date(expiresAt * 1000),
        sealed,
        credentials: opened.map(({ row, isKnown }) => ({ row, isKnown })),
      };
    };
    // SECURITY: it is recorded only if what was decided on and opened here is, row by row, what its
    // events say.
    if (found.isRecorded) return done(this.#sealer.seal(payload, recipient));
    const made = { recipient, leased: opened.map(leasedOf) };
    // Side by side; nothing is answered before both are done. A record without an answer says more
    // than happened, never less.
    const [isRecorded, sealed] = await Promise.all([
      repository.recordIfUnchanged(db, basisOf(caller, recipient, opened), (onlyIf) =>
        audit.parts(eventsOf({ id, caller, input, now }, made), onlyIf),
      ),
      this.#sealWhileRecording(payload, recipient),
    ]);
    // SECURITY: without its record, or with anything changed that it rested on, nothing that was
    // opened leaves.
    if (!isRecorded) return undefined;
    // A provider may be asked in between: of such a lease the record comes after it.
    // SECURITY: nor is one that took a grant: the statement that expects asks for memberships, not
    // for grants.
    if (isHeld || made.leased.some(({ ways }) => ways.length > 0)) this.#expectations.forget(query);
    else this.#expectations.remember(query, made);
    return done(sealed);
  }

  /**
   * Sealing takes this thread: the statement that records is sent first, so that the database works
   * meanwhile.
   */
  async #sealWhileRecording(payload: Buffer, recipient: Recipient): Promise<string> {
    await nextTurn();
    return this.#sealer.seal(payload, recipient);
  }

  /** The engine and its key, or the refusal of the key. Throws forbidden. */
  async #recipientOf(caller: Caller, row: RecipientRow): Promise<Recipient | Refusal> {
    const { keyring, audit } = this.#parts;
    const engine = decideEngine(row, caller, keyring);
    if ('refusal' in engine) {
      await audit.denial({
        caller,
        team: undefined,
        action,
        target: { type: 'engine', id: row.engine?.id ?? 'unknown' },
        reason: engine.refusal,
      });
      throw forbidden();
    }
    const key = decideKey(row, engine.id, keyring);
    return 'rule' in key ? key : { ...engine, ...key };
  }

  /**
   * Opens what has to be sent. A root key that is not configured ends the request; a token that
   * does not open refuses the credential.
   */
  #open(granted: Granted, position: number): Opened | Unopened {
    const { row, isKnown } = granted;
    if (isKnown) return { ...granted, secrets: undefined };
    try {
      return { ...granted, secrets: openGranted(this.#parts.keyring, granted) };
    } catch (error) {
      if (!(error instanceof DecryptionFailed)) throw error;
      return {
        pointer: `/credentials/${position}`,
        rule: 'undecryptable',
        reason: 'undecryptable',
        team: { id: row.team, slug: row.slug },
        target: credentialTarget(row.id),
        failed: granted,
      };
    }
  }

  /**
   * The same with access tokens in place of what they were got with. Nobody is asked for one before
   * all else is granted.
   */
  async #withAccessTokens(caller: Caller, opened: readonly Opened[]): Promise<Opened[]> {
    const answers = await Promise.all(
      opened.map((each) => deliverable(this.#parts.accessTokens, caller, each)),
    );
    const refusals = answers.flatMap((answer, position): Refusal[] => {
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
  async #refuse(caller: Caller, refusals: readonly (Refusal | Unopened)[]): Promise<AppError> {
    for (const refusal of refusals) {
      if ('failed' in refusal && !refusal.failed.version.isMarked)
        await markUndecryptable(this.#parts, caller, action, refusal.failed);
      else
        await this.#parts.audit.denial({
          caller,
          team: refusal.team,
          action,
          target: refusal.target,
          reason: refusal.reason,
          isHidden: refusal.rule === 'notFound',
        });
    }
    const errors = refusals.map(({ pointer, rule }) => ({ pointer, rule })).slice(0, faultsMax);
    return new AppError('leaseRefused', 'Not all of this can be leased, so nothing is.', {
      errors,
    });
  }
}

const asReference = (each: LeaseInput['references'][number]): Reference =>
  'id' in each ? { id: each.id } : { team: each.team, name: each.name };

/** Every row that was decided on, at its revision: what recording rests on. */
export function basisOf(
  caller: Caller,
  { id, revision, kid }: Pick<Recipient, 'id' | 'revision' | 'kid'>,
  opened: readonly Opened[],
): Basis {
  const members = new Map<string, Basis['members'][number]>();
  for (const { row } of opened) {
    const held = [
      [caller.subject, row.rights.member_revision],
      [row.behalfSubject, row.behalfRights.member_revision],
    ] as const;
    for (const [subject, memberRevision] of held) {
      if (subject !== null && memberRevision !== null)
        members.set(`${row.team} ${subject}`, {
          team: row.team,
          subject,
          revision: memberRevision,
        });
    }
  }
  const grants = new Map<GrantId, Basis['grants'][number]>();
  for (const { grant, revision, team, subject } of opened.flatMap(({ ways }) => ways)) {
    grants.set(grant, { id: grant, revision });
    if (team !== undefined)
      members.set(`${team.id} ${subject}`, {
        team: team.id,
        subject,
        revision: team.memberRevision,
      });
  }
  return {
    engine: { id, revision, kid },
    members: [...members.values()],
    grants: [...grants.values()],
    credentials: opened.map(({ row, version, secrets }) => ({
      id: row.id,
      revision: row.revision,
      version: row.currentVersion,
      dataKey: version.key.id,
      isMarked: version.isMarked && secrets !== undefined,
    })),
  };
}

/**
 * One event for each credential in the trail of its owner, and the same in those of the teams by
 * whose grants it was leased.
 */
function eventsOf({ id, caller, input }: Order, { recipient, leased }: Expected): EventInput[] {
  return leased.flatMap((each, position) =>
    eventsThrough(
      {
        caller,
        team: { id: each.team, slug: each.slug },
        action,
        target: credentialTarget(each.id),
        key: each.dataKey,
        credentialVersion: each.version,
        details: {
          lease: id,
          engine: recipient.id,
          kid: recipient.kid,
          purpose: input.purpose,
          ...(input.runId === undefined ? {} : { runId: input.runId }),
          ...(each.behalfSubject === null
            ? {}
            : { onBehalfOf: each.behalfSubject, isProven: input.onBehalfOf?.isProven === true }),
          isNotModified: input.references[position]?.knownVersion === each.version,
          ttlSeconds: input.ttlSeconds,
        },
      },
      each.ways,
    ),
  );
}
