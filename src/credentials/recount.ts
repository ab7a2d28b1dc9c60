// Counts of what teams really hold: small teams within the write that asks, large ones beside it,
// piece by piece, one team at a time. What is recorded drifts upwards: a replica that dies does not
// take back what it did not write, and retention destroys rows without saying so.
import type { Db, Trx } from '../db/client.ts';
import type { TeamId } from '../shared/ids.ts';
import * as repository from './room-repository.ts';
import type { RecordedSize, Size } from './room-repository.ts';

export interface RecountsParts {
  readonly db: Db;
  readonly now: () => number;
  readonly onError: (error: Error) => void;
  readonly onCounted: (team: TeamId, recorded: RecordedSize) => void;
  readonly countedAtOnceMax?: number | undefined;
  readonly pieceRows?: number | undefined;
}

/** A locked size; what was never counted has no bound. */
export interface Held {
  readonly size: RecordedSize;
  readonly isCounted: boolean;
}

/** A count within a transaction, to be settled where the transaction does not stay. */
export interface PendingCount {
  readonly before: RecordedSize;
  readonly counted: Size;
  readonly at: Date;
}

const hourMs = 3_600_000;
const dueMs = 24 * hourMs;
const dueNearMs = hourMs;
const dueFullMs = hourMs / 6;
const countedAtOnceDefault = 20_000;
const pieceRowsDefault = 10_000;
const waitingMax = 1_000;
const restsMax = 10_000;
/** A caller who asks in a loop for what has no room is not to keep the database counting. */
const restMsMin = 1_000;
const restFactor = 20;

/** Counts teams. */
export class Recounts {
  readonly #parts: RecountsParts;
  readonly #atOnceMax: number;
  readonly #restUntil = new Map<TeamId, number>();
  readonly #waiting = new Set<TeamId>();
  #running: Promise<void> | undefined;
  #isStopping = false;
  constructor(parts: RecountsParts) {
    this.#parts = parts;
    this.#atOnceMax = parts.countedAtOnceMax ?? countedAtOnceDefault;
  }

  /**
   * The size of a team, locked; counted where that never happened. A large team that was never
   * counted has no bound until it is, which is to begin once the transaction is over.
   */
  async hold(trx: Trx, team: TeamId): Promise<Held> {
    const size = await repository.lockSize(trx, team);
    if (size.countedAt !== null) return { size, isCounted: true };
    const counted = await repository.countSmall(trx, team, this.#atOnceMax);
    if (counted === undefined) return { size, isCounted: false };
    const at = this.#time();
    await repository.writeSize(trx, team, counted, at);
    return { size: { ...counted, countedAt: at }, isCounted: true };
  }

  /**
   * Counts a locked team that seems full; undefined where that was done a moment ago, or is done
   * beside the write because there is much to count.
   */
  async recount(trx: Trx, team: TeamId, before: RecordedSize): Promise<PendingCount | undefined> {
    const since = performance.now();
    if (since < (this.#restUntil.get(team) ?? 0)) return undefined;
    const at = this.#time();
    const isSmall = before.stored <= this.#atOnceMax;
    const counted = isSmall ? await repository.countSmall(trx, team, this.#atOnceMax) : undefined;
    const until = performance.now();
    if (this.#restUntil.size >= restsMax) this.#restUntil.clear();
    this.#restUntil.set(team, until + Math.max(restMsMin, restFactor * (until - since)));
    if (counted !== undefined) return { before, counted, at };
    this.#countIfOlder(team, before, dueFullMs);
    return undefined;
  }

  /** Records a count whose transaction was rolled back. */
  async settle(team: TeamId, { before, counted, at }: PendingCount): Promise<void> {
    const recorded = await repository.settleCount(this.#parts.db, team, before, counted, at);
    if (recorded !== undefined) this.#parts.onCounted(team, recorded);
  }

  /** Counts beside everything else what has not been counted for long. */
  countIfDue(team: TeamId, recorded: RecordedSize, { isNear }: { isNear: boolean }): void {
    this.#countIfOlder(team, recorded, isNear ? dueNearMs : dueMs);
  }

  #countIfOlder(team: TeamId, { countedAt }: RecordedSize, ms: number): void {
    if (this.#parts.now() - (countedAt?.getTime() ?? 0) > ms) this.countBeside(team);
  }

  /** Waits for the piece that is being counted. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#running;
  }

  /** Counts a team beside everything else. */
  countBeside(team: TeamId): void {
    if (this.#isStopping || this.#waiting.size >= waitingMax) return;
    this.#waiting.add(team);
    this.#running ??= this.#countWaiting().finally(() => {
      this.#running = undefined;
    });
  }

  async #countWaiting(): Promise<void> {
    for (const team of this.#waiting) {
      if (this.#isStopping) return;
      try {
        await this.#countTeam(team);
      } catch (error) {
        this.#parts.onError(
          new Error(`team ${team} could not be counted; it is tried again`, { cause: error }),
        );
      }
      this.#waiting.delete(team);
    }
  }

  async #countTeam(team: TeamId): Promise<void> {
    const { db, pieceRows = pieceRowsDefault } = this.#parts;
    const before = await repository.findSize(db, team);
    if (before === undefined) return;
    const at = this.#time();
    let [living, stored, bytes] = [0, 0, 0];
    for (const table of repository.countedTables) {
      let after: Pick<repository.Counted, 'last' | 'lastVersion'> = {
        last: undefined,
        lastVersion: 0,
      };
      do {
        if (this.#isStopping) return;
        const piece = await repository.countNext(db, table, team, after, pieceRows);
        living += piece.size.living;
        stored += piece.size.stored;
        bytes += piece.size.bytes;
        after = piece;
      } while (after.last !== undefined);
    }
    await this.settle(team, { before, counted: { living, stored, bytes }, at });
  }

  #time(): Date {
    return new Date(this.#parts.now());
  }
}
