// May this call go out? Asked anew at every call, of one moment, with nothing remembered from the
// ticket's making; and recorded, committed, before anything is dialled.
import { DecryptionFailed, type Keyring, type SecretFields } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { AppError } from '../shared/errors.ts';
import { isId, type TicketId } from '../shared/ids.ts';
import { mayBeRecorded, type RecordedCall, recordNotSent } from './corrections.ts';
import { type Early, eventOf, Expectations, type Expected, limitsOf } from './expectations.ts';
import { fieldsOf, tokenFieldsOf } from './fields.ts';
import { render, type Rendered } from './injection.ts';
import type { CallLimits } from './limits.ts';
import type { Outcomes } from './outcomes.ts';
import { checkRequest } from './policing.ts';
import { isObjectStore } from './ranges.ts';
import { refusalOf } from './refusals.ts';
import * as repository from './repository.ts';
import type { TicketRow } from './repository.ts';
import { checkCall, originText, rootOf, targetOf, upstreamPath } from './target.ts';
import { isTicket, ticketSealHolds } from './tickets.ts';
import type { Admitted, Call } from './types.ts';
import { type Caller, callerOfTicket, type SubjectBounds } from '../access/index.ts';
import { type AuditLog, credentialTarget, eventsThrough } from '../audit/index.ts';
import {
  type AllFields,
  type CredentialType,
  findType,
  type Policy,
  renewOnDefault,
} from '../credentials/index.ts';
import {
  asOAuth,
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
  /** Takes what has to be corrected in the trail while the database takes nothing. */
  readonly outcomes: Pick<Outcomes, 'add'>;
}

type Prepared = Pick<
  Admitted,
  'target' | 'isObjectStore' | 'rendered' | 'path' | 'root' | 'callPath' | 'renew' | 'renewOn'
>;

/** What has to be undone of a call that fails before it goes out. */
interface Standing {
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
  readonly #expectations: Expectations;
  constructor(parts: CallParts) {
    this.#parts = parts;
    this.#expectations = new Expectations(parts);
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
   * right, the policy. A refusal stands in the trail as that of a call does. Throws what keeps this
   * from being known.
   */
  async stillStands(call: Call, { target }: Pick<Admitted, 'target'>): Promise<boolean> {
    try {
      const row = await this.#checkTicket(call, await this.#findTicket(call));
      const caller = callerOfTicket(row.engine, call);
      const granted = await this.#decide(row, caller);
      const type = findType(granted.row.type);
      const policy = granted.version.policy as unknown as Policy;
      if (type === undefined) return false;
      checkCall(policy, call);
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
    const early = await this.#expectations.record(call);
    const standing: Standing = {
      recorded: early === undefined ? undefined : { event: early.event, ways: [] },
      leave: early?.leave,
    };
    try {
      const admitted = await this.#decideAndRecord(call, early, standing);
      if (admitted === undefined) standing.leave?.();
      return admitted;
    } catch (error) {
      standing.leave?.();
      if (early !== undefined) this.#expectations.forget(call.id);
      // SECURITY: the trail says that the call went out; it must say too that it did not.
      if (standing.recorded !== undefined)
        await recordNotSent(this.#parts, standing.recorded, error);
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
    standing: Standing,
  ): Promise<Admitted | undefined> {
    const row = await this.#checkTicket(call, early?.row ?? (await this.#findTicket(call)));
    const caller = callerOfTicket(row.engine, call);
    const granted = await this.#decide(row, caller);
    const { row: credential, version, ways } = granted;
    const team = { id: credential.team, slug: credential.slug };
    const policy = version.policy as unknown as Policy;
    const limits = early?.limits ?? limitsOf(policy);
    const enter = (): (() => void) =>
      (standing.leave ??= this.#parts.limits.enter(
        { credential: credential.id, team: credential.team },
        limits,
      ));
    const prepared = await this.#prepare(call, row, granted, policy, caller, enter);
    const done = (made: Pick<Admitted, 'limits' | 'event' | 'leave'>): Admitted => {
      this.#parts.usage.count(credential.id);
      const { slug, id } = credential;
      return { caller, team: slug, credential: id, policy, ...prepared, ...made };
    };
    // SECURITY: it was recorded only if what was decided on here is, column by column, what its
    // event says.
    if (early !== undefined) return done({ limits, event: early.event, leave: early.leave });
    const { ticket, engine } = row;
    const expected: Expected = {
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
      hash: ticket.hash,
      caller: { sub: caller.sub, subject: caller.subject },
      team,
      credential: credential.id,
      engine: engine.id,
      onBehalfOf: ticket.onBehalfOf,
      target: prepared.target,
      isObjectStore: prepared.isObjectStore,
      policy,
    };
    const leave = enter();
    const event = eventOf(call, expected);
    const events = eventsThrough(event, ways);
    const recorded = { events: events.length, recorded: this.#parts.audit.values(events) };
    let isRecorded: boolean;
    try {
      isRecorded = await repository.recordCallIfUnchanged(
        this.#parts.db,
        expected.basis,
        ways,
        recorded,
      );
    } catch (error) {
      if (mayBeRecorded(error)) standing.recorded = { event, ways };
      throw error;
    }
    // SECURITY: without its record, or with anything changed that it rested on, nothing goes out.
    if (!isRecorded) return undefined;
    standing.recorded = { event, ways };
    // SECURITY: a provider may be asked in between where tokens are held: of such a call the record
    // comes after it. Nor is one that took a grant remembered: the statement that expects asks for
    // memberships, not for grants.
    if (!version.isMarked && prepared.renew === undefined && ways.length === 0)
      this.#expectations.remember(ticket.id, expected);
    return done({ limits, event, leave });
  }

  async #findTicket({ id, ticket }: Call): Promise<TicketRow | undefined> {
    return ticket !== undefined && isId<TicketId>(id)
      ? await repository.findTicket(this.#parts.db, id)
      : undefined;
  }

  /**
   * The ticket of the path, if the call presents it and it is good. Everything else is one answer.
   */
  async #checkTicket(
    { ticket: text, requestId, address }: Call,
    row: TicketRow | undefined,
  ): Promise<TicketRow> {
    const { keyring, audit, now } = this.#parts;
    const refuse = (): AppError => {
      audit.failedLogIn({
        action,
        requestId,
        address,
        reason: text === undefined ? null : 'ticket',
      });
      return new AppError('ticketInvalid', 'Send a valid ticket as the API key.');
    };
    if (row === undefined || text === undefined || !isTicket(text, row.ticket.hash)) throw refuse();
    const { engine } = row;
    const caller = callerOfTicket(engine, { requestId, address });
    const deny = (reason: string): Promise<void> =>
      audit.denial({
        caller,
        team: undefined,
        action,
        target: { type: 'ticket', id: row.ticket.id },
        reason,
      });
    // SECURITY: a ticket is good only as the vault wrote it: for this credential, engine and
    // person, until then.
    if (!ticketSealHolds(keyring, row.ticket, row.seal)) {
      await deny('sealBroken');
      throw refuse();
    }
    if (row.ticket.expiresAt.getTime() <= now()) throw refuse();
    const asker = decideEngine({ engine, key: undefined }, caller, keyring);
    if ('refusal' in asker) {
      await deny(asker.refusal);
      throw refuse();
    }
    return row;
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
      const type = findType(row.type);
      if (type === undefined) throw refusalOf('notBrokerable');
      checkCall(policy, call);
      const { fields, renew } = await this.#fieldsFor(call, type, granted, caller, enter);
      const target = targetOf(type, fields, policy, ticket.host ?? undefined);
      const isStore = isObjectStore(type, target.origin.host);
      checkRequest(policy, { target, isObjectStore: isStore }, call);
      const rendered = render(type, fields);
      return {
        target,
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
    const use = { credential: asOAuth(granted), secrets, caller };
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
