// What a call with the same ticket rested on the last time, so that the next one is a single round
// trip: its event is made over what is expected, and the statement that reads records it if it
// finds just that. Ids and revisions only, the ticket's hash, and the policy, which belongs to a
// version and never changes; no right and no secret is remembered, and nothing is decided here.
import type { CredentialId, EngineId, SubjectId, TicketId } from '../shared/ids.ts';
import { type Addressable, isAt } from './addresses.ts';
import { type CorrectionParts, mayBeRecorded, recordNotSent } from './corrections.ts';
import type { CallLimits } from './limits.ts';
import { pathShown } from './path-shown.ts';
import { checkRequest } from './policing.ts';
import { isTakenAt, type Places } from './ticket-extraction.ts';
import { BrokerRefusal } from './refusal.ts';
import * as repository from './repository.ts';
import { checkCall, type Target } from './target.ts';
import type { Admitted, Call } from './types.ts';
import type { Caller, TeamRef } from '../access/index.ts';
import { credentialTarget, type EventInput } from '../audit/index.ts';
import { limitDefaults, type Policy } from '../credentials/index.ts';

/** Everything that the event of a call says beyond what is in the call, and what the ticket was. */
export interface CallSnapshot {
  readonly basis: repository.CallBasis;
  /** What the API names the ticket by. */
  readonly bundle: TicketId;
  readonly hash: Buffer;
  readonly at: Addressable;
  readonly places: Places;
  readonly isBehindPath: boolean;
  readonly caller: Pick<Caller, 'sub' | 'subject'>;
  readonly team: TeamRef;
  readonly credential: CredentialId;
  readonly engine: EngineId;
  readonly onBehalfOf: SubjectId | null;
  readonly target: Target;
  readonly isObjectStore: boolean;
  readonly policy: Policy;
}

/**
 * A call that stands in the audit log before it was decided: it goes out only if it is decided so
 * after all.
 */
export interface Early {
  readonly row: repository.TicketRow;
  readonly event: EventInput;
  readonly limits: Admitted['limits'];
  readonly leave: () => void;
}

export interface CallSnapshotsParts extends CorrectionParts {
  readonly now: () => number;
  readonly limits: CallLimits;
}

const ticketsMax = 20_000;

/** Remembers by the ticket's hash; the oldest out first. */
export class CallSnapshots {
  readonly #parts: CallSnapshotsParts;
  readonly #known = new Map<string, CallSnapshot>();
  constructor(parts: CallSnapshotsParts) {
    this.#parts = parts;
  }

  /**
   * Reads what the call rests on and records the call, if nothing has changed since the last one;
   * undefined when there is more to it. Throws rateLimited.
   */
  async record(call: Call): Promise<Early | undefined> {
    const { db, audit, now } = this.#parts;
    const { presented } = call;
    const expected = presented && this.#known.get(keyOf(presented.hash));
    // What is refused, or sent wrongly, takes the slow path.
    if (
      presented === undefined ||
      expected === undefined ||
      !isAt(call.at, expected.at) ||
      !isTakenAt(presented, expected.places) ||
      !isCallable(expected, call)
    )
      return undefined;
    const event = eventOf(call, expected);
    const limits = limitsOf(expected.policy);
    const leave = this.#parts.limits.enter(
      { credential: expected.credential, team: expected.team.id },
      limits,
    );
    try {
      const { row, isRecorded } = await repository.findTicketAndRecord(
        db,
        {
          ...expected.basis,
          hash: expected.hash,
          credential: expected.credential,
          onBehalfOf: expected.onBehalfOf,
          now: new Date(now()),
        },
        audit.values([event]),
      );
      if (isRecorded && row !== undefined) return { row, event, limits, leave };
    } catch (error) {
      leave();
      if (mayBeRecorded(error)) await recordNotSent(this.#parts, { event, grantPaths: [] }, error);
      throw error;
    }
    leave();
    this.#known.delete(keyOf(presented.hash));
    return undefined;
  }

  /** The next call with the ticket is decided before it is recorded. */
  forget(hash: Buffer): void {
    this.#known.delete(keyOf(hash));
  }

  remember(expected: CallSnapshot): void {
    const key = keyOf(expected.hash);
    this.#known.delete(key);
    this.#known.set(key, expected);
    for (const oldest of this.#known.keys()) {
      if (this.#known.size <= ticketsMax) break;
      this.#known.delete(oldest);
    }
  }
}

const keyOf = (hash: Buffer): string => hash.toString('latin1');

/** The event of a call. */
export function eventOf(
  call: Call,
  { caller, team, credential, engine, onBehalfOf, target, policy, basis, bundle }: CallSnapshot,
): EventInput {
  return {
    caller: { ...caller, requestId: call.requestId, address: call.address },
    team,
    action: 'credential.use',
    target: credentialTarget(credential),
    key: basis.dataKey,
    credentialVersion: basis.version,
    details: {
      ticket: bundle,
      engine,
      ...(onBehalfOf === null ? {} : { onBehalfOf }),
      method: call.method,
      host: target.origin.host,
      path: pathShown(call.pathAndQuery, policy.pathPrefixes),
      ...(call.isUpgrade === 'webSocket' ? { webSocket: true } : {}),
    },
  };
}

export const limitsOf = (policy: Policy): Admitted['limits'] =>
  ({ ...limitDefaults, ...policy.limits }) as Admitted['limits'];

function isCallable(expected: CallSnapshot, call: Call): boolean {
  try {
    checkCall(expected.policy, call, expected.isBehindPath);
    checkRequest(expected.policy, expected, call);
    return true;
  } catch (error) {
    if (!(error instanceof BrokerRefusal)) throw error;
    return false; // the slow path says why
  }
}
