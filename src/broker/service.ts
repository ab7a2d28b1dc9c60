// Tickets for the broker: leave for an engine to use one credential for a while without holding it.
// What a ticket allows is decided again at every call (./call.ts); this is who gets one.
import { sql } from 'kysely';
import { DecryptionFailed, type Keyring, type SecretFields } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { AppError, forbidden, notFound } from '../shared/errors.ts';
import { type EngineId, isId, newId, type SubjectId, type TicketId } from '../shared/ids.ts';
import { fieldsOf } from './fields.ts';
import { BrokerRefusal } from './refusal.ts';
import * as repository from './repository.ts';
import { hasOwnTarget, targetOf } from './target.ts';
import { newTicket, type SealedTicket, sealTicket } from './tickets.ts';
import {
  type Caller,
  decide,
  type Located,
  type OnBehalfOf,
  type SubjectBounds,
} from '../access/index.ts';
import { type AuditLog, credentialTarget, eventsThrough } from '../audit/index.ts';
import {
  type AllFields,
  type CredentialType,
  faultsForBroker,
  type Policy,
  type StoredTypes,
} from '../credentials/index.ts';
import {
  basisOf,
  decideAll,
  decideEngine,
  findLeasable,
  type Granted,
  markUndecryptable,
  openGranted,
  recordIfUnchanged,
  type Reference,
  type Rule,
} from '../leases/index.ts';

export interface BrokerParts {
  readonly db: Db;
  readonly keyring: Keyring;
  /** What subjects may not, whatever a row says. */
  readonly subjectBounds: SubjectBounds;
  readonly audit: AuditLog;
  readonly now: () => number;
  readonly types: Pick<StoredTypes, 'find'>;
  /** The caller's standing in a team. */
  readonly locateTeam: (caller: Caller, slug: string) => Promise<Located | undefined>;
  /** Where callers reach the broker; undefined where it is off. */
  readonly brokerUrl: () => string | undefined;
}

export interface TicketInput {
  readonly credential: Reference;
  readonly purpose: string;
  readonly runId: string | undefined;
  readonly onBehalfOf: OnBehalfOf | undefined;
  readonly host: string | undefined;
  readonly ttlSeconds: number;
}
export interface Ticket {
  readonly id: TicketId;
  readonly ticket: string;
  readonly baseUrl: string;
  readonly expiresAt: Date;
}

/**
 * Beside the rules of leases: the type or the value is not fit for the broker, the host is not
 * said, or not one of the policy's.
 */
type TicketRule = Rule | 'notBrokerable' | 'hostRequired' | 'hostNotAllowed';

interface Refused {
  readonly pointer: string;
  readonly rule: TicketRule;
  readonly reason: string;
}
type Asker = { readonly id: EngineId; readonly revision: number; readonly kid: string };

const attemptsMax = 5;
const action = 'ticket.create';

/** What is asked of tickets. */
export class BrokerService {
  readonly #parts: BrokerParts;
  constructor(parts: BrokerParts) {
    this.#parts = parts;
  }

  /**
   * Makes a ticket, recorded in the same statement, only if all that it rests on still stands then.
   * Throws forbidden for a caller who is no enabled engine, brokerOff, ticketRefused with the rule,
   * keyUnavailable, stateConflict.
   */
  async createTicket(caller: Caller, input: TicketInput): Promise<Ticket> {
    for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
      const made = await this.#attempt(caller, input);
      if (made !== undefined) return made;
    }
    throw new AppError('stateConflict', 'What was asked for keeps changing; try again.', {
      retryAfterSeconds: 1,
    });
  }

  /**
   * Ends a ticket: for the engine that made it, and for admins of the credential's team. Throws
   * notFound, forbidden.
   */
  async deleteTicket(caller: Caller, id: string): Promise<void> {
    const { db, audit, locateTeam } = this.#parts;
    const row = isId<TicketId>(id) ? await repository.findTicket(db, id) : undefined;
    const { found } = row ?? {};
    const team = found === undefined ? undefined : { id: found.team, slug: found.slug };
    // Nobody gains anything by ending a ticket, so the engine's own needs no more than his name on
    // it.
    const isOwn = row?.engine.subject === caller.subject;
    const decision = decide(
      team === undefined ? undefined : await locateTeam(caller, team.slug),
      'credential.manage',
    );
    if (row === undefined || found === undefined || (decision.kind !== 'allow' && !isOwn)) {
      const reason = decision.kind === 'allow' ? 'noSuchThing' : decision.reason;
      const isHidden = decision.kind !== 'refuse';
      await audit.denial({
        caller,
        team,
        action: 'ticket.delete',
        target: { type: 'ticket', id: row?.ticket.id ?? 'unknown' },
        reason,
        isHidden,
      });
      throw isHidden ? notFound() : forbidden();
    }
    await db.transaction().execute(async (trx) => {
      if (!(await repository.deleteTicket(trx, row.ticket.id))) throw notFound();
      await audit.record(trx, {
        caller,
        team,
        action: 'ticket.delete',
        target: credentialTarget(found.id),
        details: { ticket: row.ticket.id },
      });
    });
  }

  async #attempt(caller: Caller, input: TicketInput): Promise<Ticket | undefined> {
    const { db, keyring, audit } = this.#parts;
    const now = new Date(this.#parts.now());
    const { recipient, found } = await findLeasable(db, {
      subject: caller.subject,
      references: [input.credential],
      onBehalfOf: input.onBehalfOf?.sub,
      keyId: undefined,
    });
    const engine = decideEngine(recipient, caller, keyring);
    if ('refusal' in engine || recipient.key === undefined) {
      await audit.denial({
        caller,
        team: undefined,
        action,
        target: { type: 'engine', id: recipient.engine?.id ?? 'unknown' },
        reason: 'refusal' in engine ? engine.refusal : 'noSuchKey',
      });
      throw forbidden();
    }
    const url = this.#parts.brokerUrl();
    if (url === undefined) throw new AppError('brokerOff', 'The broker is not turned on here.');
    const [decision] = decideAll(
      found,
      { caller, onBehalfOf: input.onBehalfOf?.sub, delivery: 'broker', knownVersions: [], now },
      this.#parts,
    );
    if (decision === undefined) throw new TypeError('one reference, one decision');
    if ('rule' in decision) {
      await audit.denial({
        caller,
        team: decision.team,
        action,
        target: decision.target,
        reason: decision.reason,
        isHidden: decision.rule === 'notFound',
      });
      throw refused(
        decision.rule,
        decision.rule.startsWith('onBehalfOf') ? '/onBehalfOf' : '/credential',
      );
    }
    const secrets = await this.#open(caller, decision);
    const type = await this.#parts.types.find(decision.row.type);
    const chosen = chooseHost(type, decision, fieldsOf(decision, secrets), input.host);
    if ('rule' in chosen) {
      await this.#deny(caller, decision, chosen.reason);
      throw refused(chosen.rule, chosen.pointer);
    }
    return this.#insert(
      caller,
      input,
      { ...engine, kid: recipient.key.kid },
      { ...decision, secrets },
      { host: chosen.host, url, now },
    );
  }

  async #insert(
    caller: Caller,
    input: TicketInput,
    engine: Asker,
    opened: Granted & { readonly secrets: SecretFields },
    { host, url, now }: { host: string | null; url: string; now: Date },
  ): Promise<Ticket | undefined> {
    const { db, keyring, audit } = this.#parts;
    const { row, version } = opened;
    const { text, hash } = newTicket();
    const ticket: SealedTicket = {
      id: newId<TicketId>(),
      hash,
      credential: row.id,
      engine: engine.id,
      onBehalfOf: row.behalfSubject,
      host,
      expiresAt: new Date(now.getTime() + input.ttlSeconds * 1000),
      revision: 1,
    };
    const event = {
      caller,
      team: { id: row.team, slug: row.slug },
      action,
      target: credentialTarget(row.id),
      key: version.key.id,
      credentialVersion: row.currentVersion,
      details: {
        ticket: ticket.id,
        engine: engine.id,
        purpose: input.purpose,
        ...(input.runId === undefined ? {} : { runId: input.runId }),
        ...behalfDetails(row.behalfSubject, input.onBehalfOf),
        ...(host === null ? {} : { host }),
        ttlSeconds: input.ttlSeconds,
      },
    };
    const isRecorded = await recordIfUnchanged(
      db,
      basisOf(caller, engine, [opened]),
      (onlyIf) => sql`${audit.parts(eventsThrough(event, opened.ways), onlyIf)},
      ticketed as (${repository.insertTicketSql(ticket, sealTicket(keyring, ticket), now, onlyIf)})`,
    );
    if (!isRecorded) return undefined;
    return {
      id: ticket.id,
      ticket: text,
      baseUrl: `${url}/broker/${ticket.id}/`,
      expiresAt: ticket.expiresAt,
    };
  }

  async #open(caller: Caller, granted: Granted): Promise<SecretFields> {
    try {
      return openGranted(this.#parts.keyring, granted);
    } catch (error) {
      if (!(error instanceof DecryptionFailed)) throw error;
      if (granted.version.isMarked) await this.#deny(caller, granted, 'undecryptable');
      else await markUndecryptable(this.#parts, caller, action, granted);
      throw refused('undecryptable', '/credential');
    }
  }

  #deny(caller: Caller, { row }: Granted, reason: string): Promise<void> {
    return this.#parts.audit.denial({
      caller,
      team: { id: row.team, slug: row.slug },
      action,
      target: credentialTarget(row.id),
      reason,
    });
  }
}

const refused = (rule: TicketRule, pointer: string): AppError =>
  new AppError('ticketRefused', 'The credential cannot be used through the broker like this.', {
    errors: [{ pointer, rule }],
  });

const behalfDetails = (
  subject: SubjectId | null,
  onBehalfOf: OnBehalfOf | undefined,
): { onBehalfOf?: SubjectId; isProven?: boolean } =>
  subject === null ? {} : { onBehalfOf: subject, isProven: onBehalfOf?.isProven === true };

/** The host that the ticket is for, null for the type's own destination; or why there is none. */
function chooseHost(
  type: CredentialType | undefined,
  { version }: Granted,
  fields: AllFields,
  host: string | undefined,
): { readonly host: string | null } | Refused {
  const notBrokerable: Refused = {
    pointer: '/credential',
    rule: 'notBrokerable',
    reason: 'notBrokerable',
  };
  if (type?.broker === undefined || faultsForBroker(type, fields).length > 0) return notBrokerable;
  try {
    const { origin } = targetOf(type, fields, version.policy as unknown as Policy, host);
    return {
      // SECURITY: without a target of its own the ticket is for this host, whatever the policy says
      // later.
      host: host !== undefined || !hasOwnTarget(type, fields) ? origin.host : null,
    };
  } catch (error) {
    if (!(error instanceof BrokerRefusal)) throw error;
    if (error.reason !== 'host') return notBrokerable;
    const rule = host === undefined ? 'hostRequired' : 'hostNotAllowed';
    return { pointer: '/host', rule, reason: rule };
  }
}
