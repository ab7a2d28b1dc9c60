// What a body goes through on its way out: the form's guard, where the policy needs one, and a look
// for the ticket, which some clients put into their bodies too.
import { type FormGuard, guardFor } from './form-guard.ts';
import type { Whereabouts } from './named.ts';
import { BrokerRefusal } from './refusal.ts';
import type { Policy } from '../credentials/index.ts';

/** The guard for a body with these headers. Throws as `guardFor` does. */
export function bodyGuard(
  policy: Policy,
  where: Whereabouts,
  rawHeaders: readonly string[],
  ticket: string,
): FormGuard {
  const form = guardFor(policy, where, rawHeaders);
  const own = new TicketGuard(ticket);
  if (form === undefined) return own;
  return {
    push: (chunk) => form.push(own.push(chunk)),
    end: () => Buffer.concat([form.push(own.end()), form.end()]),
  };
}

const nothing = Buffer.alloc(0);

/**
 * Ends a call whose body holds the ticket, before any of that goes out. Only what may be the
 * beginning of one waits for what follows it.
 */
class TicketGuard implements FormGuard {
  readonly #ticket: Buffer;
  #held: Buffer = nothing;

  constructor(ticket: string) {
    this.#ticket = Buffer.from(ticket, 'latin1');
  }

  /** Throws BrokerRefusal `ticket`. */
  push(chunk: Buffer): Buffer {
    const joined = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    // SECURITY: a ticket that an upstream reads is one that it can use.
    if (joined.includes(this.#ticket)) throw new BrokerRefusal('ticket');
    const passes = joined.length - this.#beginning(joined);
    this.#held = Buffer.from(joined.subarray(passes));
    return joined.subarray(0, passes);
  }

  end(): Buffer {
    const rest = this.#held;
    this.#held = nothing;
    return rest;
  }

  /** How many bytes at the end are the ticket's first ones. */
  #beginning(bytes: Buffer): number {
    const first = this.#ticket[0]!;
    const start = Math.max(0, bytes.length - this.#ticket.length + 1);
    for (let at = bytes.indexOf(first, start); at >= 0; at = bytes.indexOf(first, at + 1)) {
      const length = bytes.length - at;
      if (bytes.compare(this.#ticket, 0, length, at) === 0) return length;
    }
    return 0;
  }
}
