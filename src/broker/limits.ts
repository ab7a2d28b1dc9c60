// How much goes through the broker on this replica: for one credential at once and a minute, for
// one team and in all at once.
import type { BudgetCounts } from '../shared/budget.ts';
import { AppError } from '../shared/errors.ts';
import type { CredentialId, TeamId } from '../shared/ids.ts';

const windowMs = 60_000;
const restingMax = 10_000;

interface Counts {
  running: number;
  startedAt: number;
  started: number;
}

/** Counts calls. */
export class CallLimits {
  readonly #now: () => number;
  readonly #callsMax: number;
  readonly #counts = new Map<CredentialId, Counts>();
  readonly #runningOf = new Map<TeamId, number>();
  #running = 0;
  #refused = 0;
  /**
   * `callsMax` is how many calls may run at once; one team has half of them at the most, so that
   * its streams do not stop everybody else's.
   */
  constructor(now: () => number, callsMax: number) {
    this.#now = now;
    this.#callsMax = callsMax;
  }

  /** Calls that run, how many may, and how often one was refused. */
  get counts(): BudgetCounts {
    return { inUse: this.#running, max: this.#callsMax, refused: this.#refused };
  }

  /** Lets a call in and returns what is to be done at its end, once. Throws rateLimited. */
  enter(
    { credential, team }: { readonly credential: CredentialId; readonly team: TeamId },
    {
      concurrency,
      requestsPerMinute,
    }: { readonly concurrency: number; readonly requestsPerMinute: number },
  ): () => void {
    const now = this.#now();
    const counts = this.#countsOf(credential, now);
    if (counts.running >= concurrency) throw this.#tooMany('for this credential', 1);
    if (counts.started >= requestsPerMinute)
      throw this.#tooMany(
        'for this credential',
        Math.max(1, Math.ceil((counts.startedAt + windowMs - now) / 1000)),
      );
    const ofTeam = this.#runningOf.get(team) ?? 0;
    if (ofTeam >= Math.ceil(this.#callsMax / 2)) throw this.#tooMany('for this team', 1);
    if (this.#running >= this.#callsMax) throw this.#tooMany('at this moment', 1);
    this.#running += 1;
    this.#runningOf.set(team, ofTeam + 1);
    counts.running += 1;
    counts.started += 1;
    let isRunning = true;
    return () => {
      if (!isRunning) return;
      isRunning = false;
      counts.running -= 1;
      this.#running -= 1;
      const left = this.#runningOf.get(team)! - 1;
      if (left === 0) this.#runningOf.delete(team);
      else this.#runningOf.set(team, left);
    };
  }

  #tooMany(where: string, retryAfterSeconds: number): AppError {
    this.#refused += 1;
    return new AppError('rateLimited', `Too many calls ${where}; wait as Retry-After says.`, {
      retryAfterSeconds,
    });
  }

  #countsOf(credential: CredentialId, now: number): Counts {
    const held = this.#counts.get(credential);
    if (held !== undefined) {
      // A clock that was set back ends the minute, which would otherwise last as long as it was
      // set.
      if (now < held.startedAt || now - held.startedAt >= windowMs)
        Object.assign(held, { startedAt: now, started: 0 });
      return held;
    }
    if (this.#counts.size >= restingMax) this.#forgetResting(now);
    const counts = { running: 0, startedAt: now, started: 0 };
    this.#counts.set(credential, counts);
    return counts;
  }

  // What runs is never forgotten: its end would be counted on something that nobody looks at any
  // more.
  #forgetResting(now: number): void {
    for (const [credential, { running, startedAt }] of this.#counts)
      if (running === 0 && (now < startedAt || now - startedAt >= windowMs))
        this.#counts.delete(credential);
  }
}
