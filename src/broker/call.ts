// May this call go out? Asked anew at every call, of one moment, with nothing remembered from the
// ticket's making; and recorded, committed, before anything is dialled.
import { DecryptionFailed, type Keyring, type SecretFields } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { AppError } from '../shared/errors.ts';
import { type Addressable, isAt } from './addresses.ts';
import { mayBeRecorded, type RecordedCall, recordNotSent } from './corrections.ts';
import { type Early, eventOf, CallSnapshots, type CallSnapshot, limitsOf } from './snapshots.ts';
import { fieldsOf, tokenFieldsOf } from './fields.ts';
import { render, type Rendered } from './injection.ts';
import type { CallLimits } from './limits.ts';
import type { Outcomes } from './outcomes.ts';
import { checkRequest } from './policing.ts';
import { isTakenAt, type Places, placesOf, type Presented } from './ticket-extraction.ts';
import { isObjectStore } from './ranges.ts';
import { refusalOf } from './refusals.ts';
import * as repository from './repository.ts';
import type { TicketRow } from './repository.ts';
import { checkCall, isBehindPath, originText, rootOf, targetOf, upstreamPath } from './target.ts';
import { bundleOf, verifyTicketRowMac } from './tickets.ts';
import type { Admitted, Call } from './types.ts';
import { type Caller, callerOfTicket, type SubjectBounds } from '../access/index.ts';
import { type AuditLog, credentialTarget, eventsThrough } from '../audit/index.ts';
import {
  type AllFields,
  type CredentialType,
  type StoredTypes,
  type Policy,
  renewOnDefault,
} from '../credentials/index.ts';
import {
  oauthOfLease,
  decideAll,
  decideEngine,
  type Granted,
  markUndecryptable,
  openGranted,
  type UsageCounter,
} from '../leases/index.ts';
import { type AccessTokens, NoAccessToken } from '../oauth/index.ts';

export interface CallParts {
  readonly db: Db;
  readonly keyring: Keyring;
  /** What subjects may not, whatever a row says. */
  readonly subjectBounds: SubjectBounds;
  readonly audit: AuditLog;
  readonly now: () => number;
  readonly usage: Pick<UsageCounter, 'count'>;
  readonly limits: CallLimits;
  readonly accessTokens: Pick<AccessTokens, 'accessTokenFor'>;
  readonly types: Pick<StoredTypes, 'find'>;
  /** Takes what has to be corrected in the audit log while the database takes nothing. */
  readonly outcomes: Pick<Outcomes, 'add'>;
}

type Prepared = Pick<
  Admitted,
  | 'target'
  | 'isBehindPath'
  | 'isObjectStore'
  | 'rendered'
  | 'path'
  | 'root'
  | 'callPath'
  | 'renew'
  | 'renewOn'
> & { readonly places: Places };

/** What has to be undone of a call that fails before it goes out. */
interface PendingCall {
  recorded: RecordedCall | undefined;
  /** Gives back the place among the calls that run, once there is one. */
  leave: (() => void) | undefined;
}

/** The vault's own trouble, which says nothing about a right. */
const isAway = ({ code }: AppError): boolean =>
  code === 'internal' ||
  code === 'databaseUnavailable' ||
  code === 'commitUnknown' ||
  code === 'keyUnavailable';

const attemptsMax = 5;
const action = 'credential.use';

/** Decides on calls. */
export class Calls {
  readonly #parts: CallParts;
  readonly #snapshots: CallSnapshots;
  constructor(parts: CallParts) {
    this.#parts = parts;
    this.#snapshots = new CallSnapshots(parts);
  }

  /**
   * Lets a call out. One statement reads all that the decision rests on and, where the same ticket
   * was used before and nothing has changed since, records the call; otherwise a second one records
   * it if all of that still stands. Throws ticketInvalid, alike for whatever is the matter with the
   * ticket; brokerRefused with the rule, invalidUrl, unsupportedCall, rateLimited, keyUnavailable,
   * stateConflict.
   */
  async admit(call: Call): Promise<Admitted> {
    for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
      call.hangUp?.demand();
      const admitted = await this.#attempt(call);
      if (admitted !== undefined) return admitted;
    }
    throw new AppError('stateConflict', 'What the call rests on keeps changing; try again.', {
      retryAfterSeconds: 1,
    });
  }

  /**
   * Whether a call that was let out would be let out now, to the same target: the ticket, every
   * right, the policy. A refusal stands in the audit log as that of a call does. Throws what keeps
   * this from being known.
   */
  async stillStands(call: Call, { target }: Pick<Admitted, 'target'>): Promise<boolean> {
    try {
      const { row } = await this.#checkTicket(call, await this.#findTicket(call));
      const caller = callerOfTicket(row.engine, call);
      const granted = await this.#decide(row, caller);
      const type = await this.#parts.types.find(granted.row.type);
      const policy = granted.version.policy as unknown as Policy;
      if (type === undefined) return false;
      const shown = granted.version.publicFields as AllFields;
      const isBehind = isBehindPath(type, () =>
        targetOf(type, shown, policy, row.ticket.host ?? undefined),
      );
      checkCall(policy, call, isBehind);
      const fields = fieldsOf(granted, await this.#open(granted, caller));
      const now = targetOf(type, fields, policy, row.ticket.host ?? undefined);
      checkRequest(policy, { target: now, isObjectStore: false }, call);
      return originText(now.origin) === originText(target.origin);
    } catch (error) {
      if (isAway(refusalOf(error))) throw error;
      return false;
    }
  }

  async #attempt(call: Call): Promise<Admitted | undefined> {
    const early = await this.#snapshots.record(call);
    const pending: PendingCall = {
      recorded: early === undefined ? undefined : { event: early.event, grantPaths: [] },
      leave: early?.leave,
    };
    try {
      const admitted = await this.#decideAndRecord(call, early, pending);
      if (admitted === undefined) pending.leave?.();
      return admitted;
    } catch (error) {
      pending.leave?.();
      if (early !== undefined && call.presented !== undefined)
        this.#snapshots.forget(call.presented.hash);
      // SECURITY: the audit log says that the call went out; it must say too that it did not.
      if (pending.recorded !== undefined) await recordNotSent(this.#parts, pending.recorded, error);
      throw error;
    }
  }

  /**
   * Decides, renders, and records what is not recorded yet; undefined when that found something
   * changed.
   */
  async #decideAndRecord(
    call: Call,
    early: Early | undefined,
    pending: PendingCall,
  ): Promise<Admitted | undefined> {
    const found = early?.row ?? (await this.#findTicket(call));
    const { row, presented } = await this.#checkTicket(call, found);
    const caller = callerOfTicket(row.engine, call);
    const granted = await this.#decide(row, caller);
    const { row: credential, version, grantPaths } = granted;
    const team = { id: credential.team, slug: credential.slug };
    const policy = version.policy as unknown as Policy;
    const limits = early?.limits ?? limitsOf(policy);
    const enter = (): (() => void) =>
      (pending.leave ??= this.#parts.limits.enter(
        { credential: credential.id, team: credential.team },
        limits,
      ));
    const prepared = await this.#prepare(call, row, granted, policy, caller, enter);
    const done = (made: Pick<Admitted, 'limits' | 'event' | 'leave'>): Admitted => {
      this.#parts.usage.count(credential.id);
      const { slug, id } = credential;
      return { caller, presented, team: slug, credential: id, policy, ...prepared, ...made };
    };
    // SECURITY: it was recorded only if what was decided on here is, column by column, what its
    // event says.
    if (early !== undefined) return done({ limits, event: early.event, leave: early.leave });
    const { ticket, engine } = row;
    const expected: CallSnapshot = {
      basis: {
        ticket: ticket.id,
        ticketRevision: ticket.revision,
        engineRevision: engine.revision,
        team: credential.team,
        memberRevision: credential.rights.member_revision,
        behalfRevision: credential.behalfRights.member_revision,
        credentialRevision: credential.revision,
        version: credential.currentVersion,
        dataKey: version.key.id,
      },
      bundle: bundleOf(ticket),
      hash: ticket.hash,
      at: addressableOf(row),
      places: prepared.places,
      caller: { sub: caller.sub, subject: caller.subject },
      team,
      credential: credential.id,
      engine: engine.id,
      onBehalfOf: ticket.onBehalfOf,
      target: prepared.target,
      isBehindPath: prepared.isBehindPath,
      isObjectStore: prepared.isObjectStore,
      policy,
    };
    const leave = enter();
    const event = eventOf(call, expected);
    const events = eventsThrough(event, grantPaths);
    const recorded = { events: events.length, recorded: this.#parts.audit.values(events) };
    let isRecorded: boolean;
    try {
      isRecorded = await repository.recordCallIfUnchanged(
        this.#parts.db,
        expected.basis,
        grantPaths,
        recorded,
      );
    } catch (error) {
      if (mayBeRecorded(error)) pending.recorded = { event, grantPaths };
      throw error;
    }
    // SECURITY: without its record, or with anything changed that it rested on, nothing goes out.
    if (!isRecorded) return undefined;
    pending.recorded = { event, grantPaths };
    // SECURITY: a provider may be asked in between where tokens are stored: such a call is recorded
    // after that. Nor is one that took a grant remembered: the statement that expects asks for
    // memberships, not for grants.
    if (!version.isMarked && prepared.renew === undefined && grantPaths.length === 0)
      this.#snapshots.remember(expected);
    return done({ limits, event, leave });
  }

  async #findTicket({ presented }: Call): Promise<TicketRow | undefined> {
    return presented === undefined
      ? undefined
      : repository.findTicket(this.#parts.db, presented.hash);
  }

  /**
   * The ticket that the call presents, if it is good, and for what the call is addressed to.
   * Everything else is one answer.
   */
  async #checkTicket(
    { presented, requestId, address, at }: Call,
    row: TicketRow | undefined,
  ): Promise<{ readonly row: TicketRow; readonly presented: Presented }> {
    const { keyring, audit, now } = this.#parts;
    const refuse = (): AppError => {
      audit.failedLogIn({
        action,
        requestId,
        address,
        reason: presented === undefined ? null : 'ticket',
      });
      return new AppError('ticketInvalid', 'Send a valid ticket as the API key.');
    };
    if (row === undefined || presented === undefined) throw refuse();
    const { engine, ticket, found } = row;
    const caller = callerOfTicket(engine, { requestId, address });
    const deny = (reason: string): Promise<void> =>
      audit.denial({
        caller,
        team: undefined,
        action,
        target: { type: 'ticket', id: bundleOf(ticket) },
        reason,
      });
    // SECURITY: a ticket is good only as the vault wrote it: for this credential, engine and
    // person, until then.
    if (!verifyTicketRowMac(keyring, ticket, row.seal)) {
      await deny('sealBroken');
      throw refuse();
    }
    if (ticket.expiresAt.getTime() <= now()) throw refuse();
    // SECURITY: the ticket says the credential, and the address has to be the same one's at this
    // moment. What else there may be at the address is not looked up: nobody learns of it.
    if (!isAt(at, addressableOf(row))) {
      await deny('otherAddress');
      throw refuse();
    }
    const type = found === undefined ? undefined : await this.#parts.types.find(found.type);
    const places = type && placesOf(type, (found?.content?.publicFields ?? {}) as AllFields);
    if (places !== undefined && !isTakenAt(presented, places)) {
      await deny('ticketPlace');
      throw refuse();
    }
    const asker = decideEngine({ engine, key: undefined }, caller, keyring);
    if ('refusal' in asker) {
      await deny(asker.refusal);
      throw refuse();
    }
    return { row, presented };
  }

  /** The credential, if the engine and the person may still use it so. */
  async #decide(row: TicketRow, caller: Caller): Promise<Granted> {
    const { audit, now } = this.#parts;
    const [decision] = decideAll(
      [row.found],
      {
        caller,
        onBehalfOf: row.behalfSub,
        delivery: 'broker',
        knownVersions: [],
        now: new Date(now()),
      },
      this.#parts,
    );
    if (decision === undefined) throw new TypeError('one reference, one decision');
    if (!('rule' in decision)) return decision;
    await audit.denial({
      caller,
      team: decision.team,
      action,
      target: decision.target,
      reason: decision.reason,
      isHidden: decision.rule === 'notFound',
    });
    throw refusalOf(decision.rule);
  }

  /** Where it goes and what is put into it, by the current version. */
  async #prepare(
    call: Call,
    { ticket }: TicketRow,
    granted: Granted,
    policy: Policy,
    caller: Caller,
    enter: () => () => void,
  ): Promise<Prepared> {
    const { row } = granted;
    try {
      const type = await this.#parts.types.find(row.type);
      if (type === undefined) throw refusalOf('notBrokerable');
      const shown = granted.version.publicFields as AllFields;
      const isBehind = isBehindPath(type, () =>
        targetOf(type, shown, policy, ticket.host ?? undefined),
      );
      checkCall(policy, call, isBehind);
      const { fields, renew } = await this.#fieldsFor(call, type, granted, caller, enter);
      const target = targetOf(type, fields, policy, ticket.host ?? undefined);
      const isStore = isObjectStore(type, target.origin.host);
      checkRequest(policy, { target, isObjectStore: isStore }, call);
      const rendered = render(type, fields);
      return {
        places: placesOf(type, shown),
        target,
        isBehindPath: isBehind,
        isObjectStore: isStore,
        rendered,
        path: upstreamPath(target, call.pathAndQuery, (given) => rendered.path(given)),
        root: rootOf(target, (given) => rendered.path(given)),
        callPath: call.pathAndQuery.split('?', 1)[0]!,
        renew,
        renewOn: policy.renewOn ?? renewOnDefault,
      };
    } catch (error) {
      const refusal = refusalOf(error);
      if (refusal.code === 'brokerRefused' && refusal.errors?.[0]?.rule !== 'undecryptable') {
        await this.#parts.audit.denial({
          caller,
          team: { id: row.team, slug: row.slug },
          action,
          target: credentialTarget(row.id),
          reason: refusal.errors?.[0]?.rule ?? 'refused',
        });
      }
      throw refusal;
    }
  }

  /** What the call is rendered from. */
  async #fieldsFor(
    call: Call,
    type: CredentialType,
    granted: Granted,
    caller: Caller,
    enter: () => () => void,
  ): Promise<{ fields: AllFields; renew: Admitted['renew'] }> {
    const { accessTokens } = this.#parts;
    const secrets = await this.#open(granted, caller);
    if (type.oauth === undefined) return { fields: fieldsOf(granted, secrets), renew: undefined };
    // Who waits for a provider has a place, like everybody whose call is under way.
    enter();
    const use = { credential: oauthOfLease(granted), secrets, caller };
    const asked = accessTokens.accessTokenFor(use);
    const { token, tokenId } = await (call.hangUp?.race(asked) ?? asked);
    const renew = async (): Promise<Rendered | undefined> => {
      try {
        const next = await accessTokens.accessTokenFor({ ...use, rejected: tokenId });
        return render(type, tokenFieldsOf(granted, next.token));
      } catch (error) {
        if (error instanceof NoAccessToken) return undefined; // the upstream's own answer says it
        throw error;
      }
    };
    return { fields: tokenFieldsOf(granted, token), renew };
  }

  async #open(granted: Granted, caller: Caller): Promise<SecretFields> {
    const { keyring, audit } = this.#parts;
    try {
      return openGranted(keyring, granted);
    } catch (error) {
      if (!(error instanceof DecryptionFailed)) throw error;
      const { row, version } = granted;
      if (version.isMarked)
        await audit.denial({
          caller,
          team: { id: row.team, slug: row.slug },
          action,
          target: credentialTarget(row.id),
          reason: 'undecryptable',
        });
      else await markUndecryptable(this.#parts, caller, action, granted);
      throw refusalOf('undecryptable');
    }
  }
}

/** What the ticket's address can be now. A name is nobody's once its credential is deleted. */
const addressableOf = ({ ticket, found }: TicketRow): Addressable => ({
  ticket: ticket.id,
  credential: ticket.credential,
  named:
    found === undefined || found.state === 'deleted'
      ? undefined
      : { team: found.slug, name: found.name },
});
