// The time that the vault goes by is the database's, one for all replicas. What is destroyed,
// purged or forgotten is decided in SQL, by `vault_now()`; everything else reads this clock, which
// is kept to it. A replica whose own clock differs does nothing that cannot be undone: nobody knows
// which of the two is wrong.
import { sql, type RawBuilder } from 'kysely';
import type { Db, Executor } from './client.ts';

/** The database's clock, in a statement. */
export const vaultNow: RawBuilder<Date> = sql<Date>`vault_now()`;

/** A moment that lies so many days in the past, or hours, by the database's clock. */
export const vaultAgo = (ago: { days: number } | { hours: number }): RawBuilder<Date> =>
  'days' in ago
    ? sql<Date>`vault_now() - make_interval(days => ${ago.days}::int)`
    : sql<Date>`vault_now() - make_interval(hours => ${ago.hours}::int)`;

/**
 * How far this replica's clock is ahead of the database's: within these bounds, which lie as far
 * apart as the question took.
 */
export interface ClockDifference {
  readonly atLeastMs: number;
  readonly atMostMs: number;
}

/** The clocks differ by more than what may be: nothing is destroyed, purged or forgotten. */
export class ClockDiffers extends Error {
  override name = 'ClockDiffers';
}

/** The database answered too slowly to say whether the clocks differ. */
export class ClockUncertain extends Error {
  override name = 'ClockUncertain';
}

/** Beyond this a replica destroys, purges and forgets nothing. */
export const agreementMs = 2_000;
/** Beyond this a replica is not ready. */
const readyDifferenceMs = 30_000;
const attemptsMax = 3;
/** So long readiness waits for a comparison. */
const patienceMs = 1_000;
/** A round trip as quick as this is not worth asking again for. */
const quickMs = 200;
/** By so much the two clocks of a process may part before the database is asked again at once. */
const strayMs = 1_000;

export interface ClockParts {
  readonly db: Db;
  /** This replica's clock: milliseconds since 1970. */
  readonly wallMs?: () => number;
  /** Runs evenly, whatever happens to the other one. */
  readonly steadyMs?: () => number;
}

/** Keeps to the database's clock. Before the first `measure` it goes by the replica's own. */
export class DatabaseClock {
  readonly #db: Db;
  readonly #wallMs: () => number;
  readonly #steadyMs: () => number;
  /** What the database's clock is ahead of the steady one. */
  #aheadMs: number;
  #measured: { readonly wallMs: number; readonly steadyMs: number } | undefined;
  #difference: ClockDifference | undefined;
  #isAsking = false;

  constructor({ db, wallMs = Date.now, steadyMs = () => performance.now() }: ClockParts) {
    this.#db = db;
    this.#wallMs = wallMs;
    this.#steadyMs = steadyMs;
    this.#aheadMs = wallMs() - steadyMs();
  }

  /** The database's time, in milliseconds since 1970, to within a round trip. */
  readonly now = (): number => {
    const steadyMs = this.#steadyMs();
    this.#noticeLeap(steadyMs);
    return steadyMs + this.#aheadMs;
  };

  /** The replica's own clock, for statements that ask both. */
  readonly own = (): number => this.#wallMs();

  /** How far the clocks differed when they were compared last. */
  get difference(): ClockDifference | undefined {
    return this.#difference;
  }

  /** Whether the clocks were certain to agree when they were compared last. */
  get isAgreed(): boolean {
    return this.#difference !== undefined && isWithin(this.#difference, agreementMs);
  }

  /**
   * Compares the clocks, and sets this one. On a connection that is there already, so that only the
   * round trip counts; a slow one is asked again, and never passes for a wrong clock: it leaves the
   * bounds far apart.
   */
  measure(executor?: Executor): Promise<ClockDifference> {
    return executor === undefined
      ? this.#db.connection().execute((connection) => this.#compare(connection))
      : this.#compare(executor);
  }

  /**
   * Whether a replica may serve with the difference there is. A database that answers slowly, or
   * not at all, says nothing about it: then what was found last counts.
   */
  async isNearEnough(): Promise<boolean> {
    let timer: NodeJS.Timeout | undefined;
    const tooSlow = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, patienceMs);
    });
    await Promise.race([this.measure().catch(() => undefined), tooSlow]);
    clearTimeout(timer);
    return this.#difference === undefined || !isBeyond(this.#difference, readyDifferenceMs);
  }

  /**
   * Throws ClockDiffers or ClockUncertain unless the clocks are certain to agree. Asked in the
   * transaction that destroys, so that the clock asked is that of the server that does it.
   */
  async demandAgreement(executor?: Executor): Promise<void> {
    const difference = await this.measure(executor);
    if (isWithin(difference, agreementMs)) return;
    if (isBeyond(difference, agreementMs)) throw new ClockDiffers(describe(difference));
    throw new ClockUncertain(
      'the database answers too slowly to compare the clocks: nothing is destroyed, purged or ' +
        'forgotten',
    );
  }

  async #compare(executor: Executor): Promise<ClockDifference> {
    let best: (ClockDifference & { readonly tookMs: number }) | undefined;
    for (let attempt = 0; attempt < attemptsMax || best === undefined; attempt += 1) {
      const wallMs = this.#wallMs();
      const beganMs = this.#steadyMs();
      const { rows } = await sql<{
        ms: number;
      }>`select extract(epoch from vault_now())::float8 * 1000 as ms`.execute(executor);
      const tookMs = this.#steadyMs() - beganMs;
      const theirMs = rows[0]?.ms;
      if (theirMs === undefined) throw new TypeError('a statement without a row');
      // The server looked at its clock at some moment of the round trip, and nobody knows at which.
      this.#keepTo(theirMs - beganMs - tookMs, theirMs - beganMs);
      this.#measured = { wallMs, steadyMs: beganMs };
      const [atLeastMs, atMostMs] = [wallMs - theirMs, wallMs + tookMs - theirMs];
      if (best === undefined || tookMs < best.tookMs) best = { atLeastMs, atMostMs, tookMs };
      if (tookMs <= quickMs) break;
    }
    this.#difference = { atLeastMs: best.atLeastMs, atMostMs: best.atMostMs };
    return this.#difference;
  }

  // What fits stays as it is: a clock that is right is not moved to and fro by each question.
  #keepTo(leastMs: number, mostMs: number): void {
    this.#aheadMs = Math.min(Math.max(this.#aheadMs, leastMs), mostMs);
  }

  // A process that was halted, or a clock that was set: which of the two clocks is right is the
  // database's to say.
  #noticeLeap(steadyMs: number): void {
    if (this.#measured === undefined || this.#isAsking) return;
    const passedMs = this.#wallMs() - this.#measured.wallMs;
    if (Math.abs(passedMs - (steadyMs - this.#measured.steadyMs)) <= strayMs) return;
    this.#isAsking = true;
    void this.measure()
      .catch(() => undefined) // whoever needs the database meets the same, and tells
      .finally(() => {
        this.#isAsking = false;
      });
  }
}

/** Certain to be no further apart than this. */
export const isWithin = ({ atLeastMs, atMostMs }: ClockDifference, limitMs: number): boolean =>
  atLeastMs >= -limitMs && atMostMs <= limitMs;

/** Certain to be further apart than this. */
export const isBeyond = ({ atLeastMs, atMostMs }: ClockDifference, limitMs: number): boolean =>
  atLeastMs > limitMs || atMostMs < -limitMs;

function describe({ atLeastMs, atMostMs }: ClockDifference): string {
  const seconds = Math.round((atLeastMs + atMostMs) / 200) / 10;
  return (
    `the clock of this replica is ${Math.abs(seconds)} s ${seconds > 0 ? 'ahead of' : 'behind'} ` +
    `the database's: nothing is destroyed, purged or forgotten until they agree to ` +
    `${agreementMs / 1000} s`
  );
}
