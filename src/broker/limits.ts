// How much goes through the broker for one credential, on this replica: at once, and a minute.
import { AppError } from '../shared/errors.ts';
import type { CredentialId } from '../shared/ids.ts';

const windowMs = 60_000;
const restingMax = 10_000;

interface Counts { running: number; startedAt: number; started: number }

/** Counts the calls of each credential. */
export class CallLimits {
  readonly #now: () => number;
  readonly #counts = new Map<CredentialId, Counts>();
  constructor(now: () => number) { this.#now = now; }

  /** Lets a call in and returns what is to be done at its end, once. Throws rateLimited. */
  enter(credential: CredentialId, { concurrency, requestsPerMinute }: { readonly concurrency: number; readonly requestsPerMinute: number }): () => void {
    const now = this.#now();
    const counts = this.#countsOf(credential, now);
    if (counts.running >= concurrency) throw tooMany(1);
    if (counts.started >= requestsPerMinute) throw tooMany(Math.max(1, Math.ceil((counts.startedAt + windowMs - now) / 1000)));
    counts.running += 1;
    counts.started += 1;
    let isRunning = true;
    return () => {
      if (isRunning) counts.running -= 1;
      isRunning = false;
    };
  }

  #countsOf(credential: CredentialId, now: number): Counts {
    const held = this.#counts.get(credential);
    if (held !== undefined) {
      if (now - held.startedAt >= windowMs) Object.assign(held, { startedAt: now, started: 0 });
      return held;
    }
    if (this.#counts.size >= restingMax) this.#forgetResting(now);
    const counts = { running: 0, startedAt: now, started: 0 };
    this.#counts.set(credential, counts);
    return counts;
  }

  // What runs is never forgotten: its end would be counted on something that nobody looks at any more.
  #forgetResting(now: number): void {
    for (const [credential, { running, startedAt }] of this.#counts) if (running === 0 && now - startedAt >= windowMs) this.#counts.delete(credential);
  }
}

const tooMany = (retryAfterSeconds: number): AppError => new AppError('rateLimited', 'Too many calls for this credential; wait as Retry-After says.', { retryAfterSeconds });
