// Sends what waits in the outbox, on every replica: a bounded number at a time, never more than one
// to a webhook and two of a team, so that a receiver which does not answer holds up nobody else.
import { setTimeout as delay } from 'node:timers/promises';
import { newId, type TeamId } from '../shared/ids.ts';
import { type Claimed, claimWebhooks } from './claims.ts';
import { attemptMs, deliverNext, type DeliveryParts } from './delivery.ts';

export interface DelivererParts extends DeliveryParts {
  /** Told of what is not the receiver's trouble, when it begins. */
  readonly onError: (error: Error) => void;
  readonly pollMs?: number;
}

const pollMsDefault = 1_000;
const concurrency = 16;
const perTeam = 2;
/**
 * A claim that outlives this was of a process that is gone: longer than an attempt, and the writing
 * around it.
 */
const claimMs = attemptMs * 4;

/** Looks for webhooks with something due. */
export class Deliverer {
  readonly #parts: DelivererParts;
  readonly #underWay = new Map<Promise<void>, TeamId>();
  #loop: Promise<void> | undefined;
  #stopping = new AbortController();
  #rest = new AbortController();
  #isFailing = false;
  constructor(parts: DelivererParts) {
    this.#parts = parts;
  }

  start(): void {
    this.#loop ??= this.#run();
  }

  /** Waits for the attempts that are under way. */
  async stop(): Promise<void> {
    this.#stopping.abort();
    this.wake();
    await this.#loop;
    await Promise.all(this.#underWay.keys());
  }

  /** Looks at once. */
  wake(): void {
    this.#rest.abort();
  }

  async #run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      this.#rest = new AbortController();
      const claimed = await this.#claim();
      for (const webhook of claimed) this.#begin(webhook);
      if (claimed.length === 0)
        await delay(this.#parts.pollMs ?? pollMsDefault, undefined, {
          signal: this.#rest.signal,
        }).catch(() => undefined);
    }
  }

  async #claim(): Promise<Claimed[]> {
    const { db, now } = this.#parts;
    const limit = concurrency - this.#underWay.size;
    if (limit <= 0) return [];
    try {
      const at = now();
      const claimed = await claimWebhooks(db, {
        claim: newId(),
        limit,
        busyTeams: this.#busyTeams(),
        at: new Date(at),
        until: new Date(at + claimMs),
      });
      this.#isFailing = false;
      return claimed;
    } catch (error) {
      this.#note(new Error('cannot read the notifications to deliver', { cause: error }));
      return [];
    }
  }

  #begin(webhook: Claimed): void {
    const attempt: Promise<void> = deliverNext(this.#parts, webhook)
      .catch((error: unknown) => {
        this.#note(new Error('cannot attempt a notification; it is tried again', { cause: error }));
      })
      .finally(() => {
        this.#underWay.delete(attempt);
        this.wake();
      });
    this.#underWay.set(attempt, webhook.team);
  }

  #busyTeams(): TeamId[] {
    const counts = new Map<TeamId, number>();
    for (const team of this.#underWay.values()) counts.set(team, (counts.get(team) ?? 0) + 1);
    return [...counts].filter(([, count]) => count >= perTeam).map(([team]) => team);
  }

  #note(error: Error): void {
    if (!this.#isFailing) this.#parts.onError(error);
    this.#isFailing = true;
  }
}
