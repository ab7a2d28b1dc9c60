// How tickets go on and end. One id stands for all tickets of a bundle.
import { sql } from 'kysely';
import { AppError, forbidden, type InputFault, notFound } from '../shared/errors.ts';
import { isId, type TicketId } from '../shared/ids.ts';
import { decideWanted, type Granted } from './references.ts';
import * as repository from './repository.ts';
import type { BundledTicket } from './repository.ts';
import {
  type Asker,
  type BrokerParts,
  refused,
  ticketSecondsOf,
  withoutContent,
} from './service.ts';
import { madeAtOf, ticketRowMac, verifyTicketRowMac } from './tickets.ts';
import { type Caller, decide, type TeamRef } from '../access/index.ts';
import { credentialTarget, eventsThrough } from '../audit/index.ts';
import { basisOf, decideEngine, recordIfUnchanged } from '../leases/index.ts';

const attemptsMax = 5;
const isAllOf = (held: readonly BundledTicket[], { subject }: Caller): boolean =>
  held.length > 0 && held.every((each) => each.subject === subject);
const noDecision = { kind: 'hide', reason: 'noSuchThing' } as const;

/** A denial on its way to the audit log. */
class Denied extends Error {
  readonly reason: string;
  readonly team: TeamRef | undefined;
  readonly error: AppError;
  constructor(reason: string, team: TeamRef | undefined, error: AppError) {
    super('a denial');
    this.reason = reason;
    this.team = team;
    this.error = error;
  }
}

/** What is asked of tickets that there are. */
export class TicketLife {
  readonly #parts: BrokerParts;
  constructor(parts: BrokerParts) {
    this.#parts = parts;
  }

  /**
   * Ends tickets: for the engine that made them all of them, for admins those of their team's
   * credentials. Throws notFound, forbidden.
   */
  async deleteTickets(caller: Caller, id: string): Promise<void> {
    const { db, audit } = this.#parts;
    const ended = await this.#orDenial(caller, 'ticket.delete', id, async () =>
      this.#manageable(caller, await this.#find(id)),
    );
    await db.transaction().execute(async (trx) => {
      const deleted = await repository.deleteTickets(
        trx,
        ended.map(({ ticket }) => ticket.id),
      );
      if (deleted.length === 0) throw notFound();
      await audit.record(
        trx,
        ...ended
          .filter(({ ticket }) => deleted.includes(ticket.id))
          .map(({ ticket, team }) => ({
            caller,
            team,
            action: 'ticket.delete',
            target: credentialTarget(ticket.credential),
            details: { ticket: id },
          })),
      );
    });
  }

  /**
   * Has tickets end `ttlSeconds` from now, for the engine that made them, if all that they rest on
   * still stands and no policy gives less from their making. Throws notFound, also for those that
   * have ended; forbidden, ticketRefused, keyUnavailable, stateConflict.
   */
  async extendTickets(
    caller: Caller,
    id: string,
    ttlSeconds: number,
  ): Promise<{ readonly id: string; readonly expiresAt: Date }> {
    for (let attempt = 0; attempt < attemptsMax; attempt += 1) {
      const expiresAt = await this.#orDenial(caller, 'ticket.extend', id, () =>
        this.#extend(caller, id, ttlSeconds),
      );
      if (expiresAt !== undefined) return { id, expiresAt };
    }
    throw new AppError('stateConflict', 'What was asked for keeps changing; try again.', {
      retryAfterSeconds: 1,
    });
  }

  async #extend(caller: Caller, id: string, ttlSeconds: number): Promise<Date | undefined> {
    const { db, keyring, audit } = this.#parts;
    const now = new Date(this.#parts.now());
    const held = await this.#find(id);
    if (!isAllOf(held, caller)) {
      const [first] = await this.#manageable(caller, held);
      throw new Denied('notItsEngine', first?.team, forbidden());
    }
    // SECURITY: verified before it is protected anew.
    if (held.some(({ ticket, seal }) => !verifyTicketRowMac(keyring, ticket, seal)))
      throw new Denied('sealBroken', held[0]?.team, notFound());
    // SECURITY: what has ended stays ended, whether its row is still there or not.
    if (held.some(({ ticket }) => ticket.expiresAt <= now))
      throw new Denied('expired', held[0]?.team, notFound());
    const { engine, granted } = await this.#decideAgain(caller, held, now);
    const madeAt = Math.min(...held.map(({ ticket }) => madeAtOf(ticket).getTime()));
    const end = madeAt + ticketSecondsOf(granted) * 1000;
    const max = Math.max(0, Math.floor((end - now.getTime()) / 1000));
    if (ttlSeconds > max) throw refused([{ pointer: '/ttlSeconds', rule: 'max', max }]);
    const expiresAt = new Date(now.getTime() + ttlSeconds * 1000);
    const written = held.map(({ ticket }) => {
      const next = { ...ticket, expiresAt, revision: ticket.revision + 1 };
      return { ticket: next, seal: ticketRowMac(keyring, next) };
    });
    const events = granted.flatMap(({ row, version, grantPaths }) =>
      eventsThrough(
        {
          caller,
          team: { id: row.team, slug: row.slug },
          action: 'ticket.extend',
          target: credentialTarget(row.id),
          key: version.key.id,
          credentialVersion: row.currentVersion,
          details: { ticket: id, engine: engine.id, ttlSeconds },
        },
        grantPaths,
      ),
    );
    return db.transaction().execute(async (trx) => {
      // SECURITY: what somebody has ended or extended meanwhile is looked at again.
      const locked = await repository.lockTickets(
        trx,
        held.map(({ ticket }) => ticket),
      );
      if (locked !== held.length) return undefined;
      const isRecorded = await recordIfUnchanged(
        trx,
        basisOf(
          caller,
          engine,
          granted.map((each) => ({ ...each, secrets: undefined })),
        ),
        (onlyIf) => sql`${audit.parts(events, onlyIf)},
        extended as (${repository.extendTicketsSql(written, onlyIf)})`,
      );
      return isRecorded ? expiresAt : undefined;
    });
  }

  /** The rights of the engine and of the persons, as they are now. Throws ticketRefused. */
  async #decideAgain(
    caller: Caller,
    held: readonly BundledTicket[],
    now: Date,
  ): Promise<{ readonly engine: Asker; readonly granted: readonly Granted[] }> {
    const { db, keyring, audit } = this.#parts;
    const wanted = held.map(({ ticket, behalfSub }) => ({
      reference: { id: ticket.credential },
      onBehalfOf: behalfSub === undefined ? undefined : { sub: behalfSub, isProven: false },
      host: undefined,
    }));
    const { recipient, decisions } = await decideWanted(db, wanted, { caller, now }, this.#parts);
    const engine = decideEngine(recipient, caller, keyring);
    if ('refusal' in engine) throw new Denied(engine.refusal, undefined, forbidden());
    if (recipient.key === undefined) throw new Denied('noSuchKey', undefined, forbidden());
    const granted: Granted[] = [];
    const faults: InputFault[] = [];
    for await (const [at, decision] of decisions) {
      // SECURITY: the person is the ticket's, and not who has the name now.
      const isOther =
        'version' in decision && decision.row.behalfSubject !== held[at]!.ticket.onBehalfOf;
      if (!isOther && 'version' in decision) {
        granted[at] = withoutContent(decision);
        continue;
      }
      const { team, ticket } = held[at]!;
      const refusal =
        'rule' in decision
          ? decision
          : ({ rule: 'onBehalfOfRefused', reason: 'onBehalfOfUnknown' } as const);
      await audit.denial({
        caller,
        team,
        action: 'ticket.extend',
        target: credentialTarget(ticket.credential),
        reason: refusal.reason,
        isHidden: refusal.rule === 'notFound',
      });
      faults.push({ pointer: `/credentials/${at}`, rule: refusal.rule });
    }
    if (faults.length > 0) throw refused(faults);
    return { engine: { ...engine, kid: recipient.key.kid }, granted };
  }

  async #find(id: string): Promise<readonly BundledTicket[]> {
    return isId<TicketId>(id) ? repository.findBundle(this.#parts.db, id) : [];
  }

  /** Those that the caller may end. Throws Denied where there are none. */
  async #manageable(
    caller: Caller,
    held: readonly BundledTicket[],
  ): Promise<readonly BundledTicket[]> {
    // Nobody gains anything by ending a ticket, so the engine's own need no more than its name on
    // them.
    if (isAllOf(held, caller)) return held;
    const slugs = new Set(held.flatMap(({ team }) => team?.slug ?? []));
    const decisions = new Map<string, ReturnType<typeof decide>>();
    for (const slug of slugs)
      decisions.set(slug, decide(await this.#parts.resolveTeam(caller, slug), 'credential.manage'));
    const of = ({ team }: BundledTicket): ReturnType<typeof decide> | typeof noDecision =>
      (team && decisions.get(team.slug)) ?? noDecision;
    const allowed = held.filter((each) => of(each).kind === 'allow');
    if (allowed.length > 0) return allowed;
    const known = held.find((each) => of(each).kind === 'refuse') ?? held[0];
    const decision = known === undefined ? noDecision : of(known);
    const reason = decision.kind === 'allow' ? 'noSuchThing' : decision.reason;
    throw new Denied(reason, known?.team, decision.kind === 'refuse' ? forbidden() : notFound());
  }

  async #orDenial<T>(
    caller: Caller,
    action: string,
    id: string,
    act: () => Promise<T>,
  ): Promise<T> {
    try {
      return await act();
    } catch (error) {
      if (!(error instanceof Denied)) throw error;
      await this.#parts.audit.denial({
        caller,
        team: error.team,
        action,
        target: { type: 'ticket', id: isId(id) ? id : 'unknown' },
        reason: error.reason,
        isHidden: error.error.code === 'notFound',
      });
      throw error.error;
    }
  }
}
