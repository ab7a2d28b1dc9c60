// Tickets for the broker: leave for an engine to use credentials for a while without holding them.
// What a ticket allows is decided again at every call (./call.ts); this is who gets some. How they
// go on and end is in ./ticket-life.ts.
import { sql } from 'kysely';
import { DecryptionFailed, type Keyring, type SecretFields } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { AppError, forbidden, type InputFault } from '../shared/errors.ts';
import { type EngineId, newId, type SubjectId, type TicketId } from '../shared/ids.ts';
import { pageBytesMax, ticketSecondsDefault } from '../shared/limits.ts';
import type { Addresses } from './addresses.ts';
import { limitsOf } from './snapshots.ts';
import { fieldsOf } from './fields.ts';
import { decideWanted, type Granted, type Rule, type Wanted } from './references.ts';
import { BrokerRefusal } from './refusal.ts';
import * as repository from './repository.ts';
import { hostOfTicket, targetOf } from './target.ts';
import { newTicket, type TicketMacFields, ticketRowMac } from './tickets.ts';
import type { Caller, ResolvedResource, OnBehalfOf, SubjectBounds } from '../access/index.ts';
import { type AuditLog, credentialTarget, type EventInput, eventsThrough } from '../audit/index.ts';
import {
  type AllFields,
  type CredentialType,
  injectionFaults,
  type Policy,
  type PublicFields,
  shownFieldsOf,
  type StoredTypes,
} from '../credentials/index.ts';
import {
  basisOf,
  decideEngine,
  markUndecryptable,
  openGranted,
  recordIfUnchanged,
  storedBytesOf,
} from '../leases/index.ts';

export interface BrokerParts {
  readonly db: Db;
  readonly keyring: Keyring;
  /** What subjects may not, whatever a row says. */
  readonly subjectBounds: SubjectBounds;
  readonly audit: AuditLog;
  readonly now: () => number;
  readonly types: Pick<StoredTypes, 'find'>;
  /** The caller's effective role in a team. */
  readonly resolveTeam: (caller: Caller, slug: string) => Promise<ResolvedResource | undefined>;
  /** Where callers reach the broker; undefined where it is off. */
  readonly brokerUrl: () => string | undefined;
  readonly addresses: Addresses;
}

export interface TicketsInput {
  readonly wanted: readonly Wanted[];
  /** One credential was asked for without a list: pointers say so. */
  readonly isAlone: boolean;
  readonly purpose: string;
  readonly runId: string | undefined;
  /** As long as the policies give without a word, where it is left out. */
  readonly ttlSeconds: number | undefined;
}

/** Tickets that one id extends and ends. */
export interface Bundle {
  readonly id: TicketId;
  readonly expiresAt: Date;
  readonly credentials: readonly {
    readonly row: Granted['row'];
    readonly publicFields: PublicFields;
    readonly ticket: string;
    readonly baseUrl: string;
    readonly hostUrl: string | undefined;
  }[];
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
/** What is left of a decision when its secrets have been looked at. */
interface Chosen {
  readonly granted: Granted & { readonly secrets: SecretFields | undefined };
  readonly publicFields: PublicFields;
  readonly host: string | null;
}
/** The engine that asks. */
export type Asker = { readonly id: EngineId; readonly revision: number; readonly kid: string };

const attemptsMax = 5;
const faultsMax = 100;
const action = 'ticket.create';

/** What is asked of new tickets. */
export class BrokerService {
  readonly #parts: BrokerParts;
  constructor(parts: BrokerParts) {
    this.#parts = parts;
  }

  /**
   * Makes a ticket for each credential, or none; recorded in the same statement, only if all that
   * they rest on still stands then. Throws forbidden for a caller who is no enabled engine,
   * brokerOff, ticketRefused with a fault for each that is refused, keyUnavailable, stateConflict.
   */
  async createTickets(caller: Caller, input: TicketsInput): Promise<Bundle> {
    for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
      const made = await this.#attempt(caller, input);
      if (made !== undefined) return made;
    }
    throw new AppError('stateConflict', 'What was asked for keeps changing; try again.', {
      retryAfterSeconds: 1,
    });
  }

  async #attempt(caller: Caller, input: TicketsInput): Promise<Bundle | undefined> {
    const { db, keyring, audit } = this.#parts;
    const now = new Date(this.#parts.now());
    const decided = await decideWanted(db, input.wanted, { caller, now }, this.#parts);
    const { recipient } = decided;
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
    if (this.#parts.brokerUrl() === undefined)
      throw new AppError('brokerOff', 'The broker is not turned on here.');
    const chosen = await this.#chooseAll(caller, input, decided.decisions);
    const seconds = secondsOf(input, chosen);
    return this.#insert(caller, input, { ...engine, kid: recipient.key.kid }, chosen, {
      now,
      seconds,
    });
  }

  /** Every credential with the host that its calls go to. Throws ticketRefused. */
  async #chooseAll(
    caller: Caller,
    { wanted, isAlone }: TicketsInput,
    decisions: Awaited<ReturnType<typeof decideWanted>>['decisions'],
  ): Promise<Chosen[]> {
    const { audit } = this.#parts;
    const chosen: Chosen[] = [];
    const faults: (InputFault & { readonly at: number })[] = [];
    const seen = new Set<string>();
    let bytes = 0;
    for await (const [at, decision] of decisions) {
      const refuse = (rule: TicketRule, member = ''): void => {
        const alone = rule.startsWith('onBehalfOf') ? '/onBehalfOf' : member || '/credential';
        faults.push({ at, pointer: isAlone ? alone : `/credentials/${at}${member}`, rule });
      };
      if ('rule' in decision) {
        await audit.denial({
          caller,
          team: decision.team,
          action,
          target: decision.target,
          reason: decision.reason,
          isHidden: decision.rule === 'notFound',
        });
        refuse(decision.rule);
        continue;
      }
      bytes += storedBytesOf(decision.row);
      const secrets = await this.#open(caller, decision);
      const choice =
        secrets === undefined
          ? ({ pointer: '', rule: 'undecryptable', reason: '' } as const)
          : chooseHost(
              await this.#parts.types.find(decision.row.type),
              decision,
              fieldsOf(decision, secrets),
              wanted[at]!.host,
            );
      if ('rule' in choice) {
        if (choice.reason !== '') await this.#deny(caller, decision, choice.reason);
        refuse(choice.rule, choice.pointer);
        continue;
      }
      // For two persons, or two hosts, a credential has two tickets.
      const key = [decision.row.id, decision.row.behalfSubject, choice.host].join(' ');
      if (seen.has(key)) {
        await this.#deny(caller, decision, 'duplicate');
        refuse('duplicate');
        continue;
      }
      seen.add(key);
      chosen[at] = {
        granted: withoutContent(decision, secrets),
        publicFields: decision.version.publicFields as PublicFields,
        host: choice.host,
      };
    }
    // The answer names the public fields of all of them.
    if (faults.length === 0 && wanted.length > 1 && bytes > pageBytesMax)
      throw refused([{ pointer: '/credentials', rule: 'size' }]);
    if (faults.length > 0)
      throw refused(
        faults
          .sort((a, b) => a.at - b.at)
          .slice(0, faultsMax)
          .map(({ pointer, rule }) => ({ pointer, rule })),
      );
    return chosen;
  }

  async #insert(
    caller: Caller,
    input: TicketsInput,
    engine: Asker,
    chosen: readonly Chosen[],
    { now, seconds }: { now: Date; seconds: number },
  ): Promise<Bundle | undefined> {
    const { db, keyring, audit, addresses } = this.#parts;
    const expiresAt = new Date(now.getTime() + seconds * 1000);
    const bundle = newId<TicketId>();
    const made = chosen.map(({ granted: { row }, host }) => {
      const { text, hash } = newTicket();
      const ticket: TicketMacFields = {
        // A ticket by itself has the bundle's id: by it a replica of the release before ends it.
        id: chosen.length === 1 ? bundle : newId<TicketId>(),
        bundle,
        hash,
        credential: row.id,
        engine: engine.id,
        onBehalfOf: row.behalfSubject,
        host,
        expiresAt,
        revision: 1,
        createdAt: now,
      };
      return { text, ticket, seal: ticketRowMac(keyring, ticket) };
    });
    const events = chosen.flatMap(({ granted: { row, version, grantPaths }, host }, at) =>
      eventsThrough(
        {
          caller,
          team: { id: row.team, slug: row.slug },
          action,
          target: credentialTarget(row.id),
          key: version.key.id,
          credentialVersion: row.currentVersion,
          details: {
            ticket: bundle,
            engine: engine.id,
            purpose: input.purpose,
            ...(input.runId === undefined ? {} : { runId: input.runId }),
            ...behalfDetails(row.behalfSubject, input.wanted[at]!.onBehalfOf),
            ...(host === null ? {} : { host }),
            ttlSeconds: seconds,
          },
        } satisfies EventInput,
        grantPaths,
      ),
    );
    const isRecorded = await recordIfUnchanged(
      db,
      basisOf(
        caller,
        engine,
        chosen.map(({ granted }) => granted),
      ),
      (onlyIf) => sql`${audit.parts(events, onlyIf)},
      ticketed as (${repository.insertTicketsSql(made, onlyIf)})`,
    );
    if (!isRecorded) return undefined;
    return {
      id: bundle,
      expiresAt,
      credentials: chosen.map(({ granted: { row }, publicFields }, at) => ({
        row,
        publicFields: shownFieldsOf(row.type, publicFields),
        ticket: made[at]!.text,
        baseUrl: addresses.baseUrl({ id: row.id, team: row.slug, name: row.name }),
        hostUrl: addresses.hostUrl(row.id),
      })),
    };
  }

  /** The secrets, or undefined where they do not open, which is recorded. */
  async #open(caller: Caller, granted: Granted): Promise<SecretFields | undefined> {
    try {
      return openGranted(this.#parts.keyring, granted);
    } catch (error) {
      if (!(error instanceof DecryptionFailed)) throw error;
      if (granted.version.isMarked) await this.#deny(caller, granted, 'undecryptable');
      else await markUndecryptable(this.#parts, caller, action, granted);
      return undefined;
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

/** Why there are no tickets. */
export const refused = (errors: readonly InputFault[]): AppError =>
  new AppError('ticketRefused', 'The credential cannot be used through the broker like this.', {
    errors,
  });

/** How long tickets for these may live from their making. */
export const ticketSecondsOf = (
  all: readonly { readonly version: { readonly policy: unknown } }[],
): number =>
  Math.min(...all.map(({ version }) => limitsOf(version.policy as Policy).ticketSeconds));

/** How long these tickets live. Throws ticketRefused where that is longer than a policy gives. */
function secondsOf({ ttlSeconds }: TicketsInput, chosen: readonly Chosen[]): number {
  const max = ticketSecondsOf(chosen.map(({ granted }) => granted));
  if (ttlSeconds === undefined) return Math.min(ticketSecondsDefault, max);
  if (ttlSeconds > max) throw refused([{ pointer: '/ttlSeconds', rule: 'max', max }]);
  return ttlSeconds;
}

/**
 * What recording and answering need of it: of a hundred, tokens and fields would be many. Of a
 * version that is marked, what opened heals the mark.
 */
export const withoutContent = (granted: Granted, secrets?: SecretFields): Chosen['granted'] => ({
  ...granted,
  row: { ...granted.row, content: undefined, version: undefined },
  version: { ...granted.version, token: undefined },
  secrets: granted.version.isMarked ? secrets : undefined,
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
    pointer: '',
    rule: 'notBrokerable',
    reason: 'notBrokerable',
  };
  if (type?.broker === undefined || injectionFaults(type, fields).length > 0) return notBrokerable;
  try {
    const target = targetOf(type, fields, version.policy as unknown as Policy, host);
    return { host: hostOfTicket(target, host) };
  } catch (error) {
    if (!(error instanceof BrokerRefusal)) throw error;
    if (error.reason !== 'host') return notBrokerable;
    const rule = host === undefined ? 'hostRequired' : 'hostNotAllowed';
    return { pointer: '/host', rule, reason: rule };
  }
}
