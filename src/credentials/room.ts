// How much room a team has for more: living credentials, all credentials, bytes. Counted in memory
// while a team is far from its bounds, which costs a write nothing; near them counted in the
// writer's own transaction, one writer of the team after the other. What is recorded may be too
// much (a replica died, rows were destroyed), which a recount finds; it is too little only by what
// replicas count within a second.
import type { Db, Trx } from '../db/client.ts';
import { Complaint } from '../shared/complaint.ts';
import type { TeamId } from '../shared/ids.ts';
import { type GrowthLimits, growthLimits, limitReached } from '../shared/growth.ts';
import { type PendingCount, type Held, Recounts } from './recount.ts';
import * as repository from './room-repository.ts';
import type { RecordedSize, Size } from './room-repository.ts';

/** What a write adds; what it takes away is negative. */
export type Growth = Partial<Size>;

/** Growth within one transaction. */
export interface Stay {
  /**
   * Waits for whoever else makes the team grow, where that matters: after the lock on a credential
   * and before the one on a key, as everybody does.
   */
  enter(): Promise<void>;
  /** Whether what is about to be pruned has to be known before. */
  isExact(): Promise<boolean>;
  /** To be called before the write. Throws limitReached. */
  grow(growth: Growth): Promise<void>;
}

export interface RoomParts {
  readonly db: Db;
  readonly now: () => number;
  readonly onError?: (error: Error) => void;
  readonly limits?: Pick<GrowthLimits, 'credentials' | 'ciphertextBytes'>;
  /** Up to so many rows a team is counted within a write. */
  readonly countedAtOnceMax?: number;
  /** Of a larger one so many rows at a time. */
  readonly pieceRows?: number;
}

/** What a transaction has found out and counted; `held` is undefined where it need not hold. */
interface Room {
  isEntered: boolean;
  counted: Size;
  held: Held | undefined;
  found: PendingCount | undefined;
}

const flushMs = 1_000;
const knownMsMax = 120_000;
const teamsMax = 10_000;
/** More than one write adds, and than replicas add within a second. */
const slack: Size = { living: 1_000, stored: 1_000, bytes: 64 * 1024 ** 2 };
const nothing: Size = { living: 0, stored: 0, bytes: 0 };

const sum = (a: Size, b: Growth): Size => ({
  living: a.living + (b.living ?? 0),
  stored: a.stored + (b.stored ?? 0),
  bytes: a.bytes + (b.bytes ?? 0),
});
const negated = (growth: Growth): Size => ({
  living: -(growth.living ?? 0),
  stored: -(growth.stored ?? 0),
  bytes: -(growth.bytes ?? 0),
});

/** What a token and the public fields beside it take. */
export const bytesOf = (version: { readonly token: string; readonly publicFields: object }) =>
  Buffer.byteLength(version.token) + Buffer.byteLength(JSON.stringify(version.publicFields));

/** Keeps teams within their bounds. */
export class TeamRoom {
  readonly #db: Db;
  readonly #onError: (error: Error) => void;
  readonly #max: Size;
  readonly #recounts: Recounts;
  /** What is recorded, with what is counted here and not written yet. */
  readonly #known = new Map<TeamId, { readonly size: Size; readonly at: number }>();
  #unwritten = new Map<TeamId, Size>();
  #timer: NodeJS.Timeout | undefined;
  #flushing: Promise<void> | undefined;
  readonly #waiting: Complaint;

  constructor(parts: RoomParts) {
    const { db, now, onError = () => undefined, limits = growthLimits } = parts;
    this.#db = db;
    this.#onError = onError;
    this.#waiting = new Complaint(onError);
    this.#max = {
      living: limits.credentials,
      stored: 2 * limits.credentials,
      bytes: limits.ciphertextBytes,
    };
    this.#recounts = new Recounts({
      db,
      now,
      onError,
      countedAtOnceMax: parts.countedAtOnceMax,
      pieceRows: parts.pieceRows,
      onCounted: (team, recorded) => {
        this.#remember(team, recorded);
      },
    });
  }

  /** Writes every second from now on. */
  start(): void {
    this.#timer ??= setInterval(() => {
      void this.flush();
    }, flushMs).unref();
  }

  /** Writes what is left and stops. */
  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    await this.#recounts.stop();
    await this.#flushing;
    await this.flush();
  }

  /** To be told what is recorded of a team, by whoever reads it along with something else. */
  learn(team: TeamId, recorded: RecordedSize | undefined): void {
    if (recorded === undefined || recorded.countedAt === null) return;
    this.#remember(team, recorded);
    this.#recounts.countIfDue(team, recorded, { isNear: !this.#isFar(recorded) });
  }

  /**
   * Counts what is about to be written, if the team is known to be far from its bounds; false where
   * that has to be looked at in a transaction. To be given back if nothing was written.
   */
  take(team: TeamId, growth: Growth): boolean {
    const known = this.#fresh(team);
    if (known === undefined || !this.#isFar(sum(known, growth))) return false;
    if (this.#unwritten.size >= teamsMax && !this.#unwritten.has(team)) return false;
    this.#count(team, growth);
    return true;
  }

  /** What was taken and is not there, or not there any more. */
  give(team: TeamId, growth: Growth): void {
    this.#count(team, negated(growth));
  }

  /**
   * A transaction in which the team may grow; `expected` is how much, where it may be more than a
   * request holds. Throws what `write` throws.
   */
  async transaction<T>(
    team: TeamId,
    write: (trx: Trx, stay: Stay) => Promise<T>,
    { expected = nothing }: { expected?: Growth } = {},
  ): Promise<T> {
    const room: Room = { isEntered: false, counted: nothing, held: undefined, found: undefined };
    try {
      const result = await this.#db.transaction().execute((trx) => {
        const enter = async (): Promise<void> => {
          if (room.isEntered) return;
          if (!(await this.#isFree(trx, team, expected)))
            room.held = await this.#recounts.hold(trx, team);
          room.isEntered = true;
        };
        return write(trx, {
          enter,
          isExact: async () => {
            await enter();
            return room.held !== undefined;
          },
          grow: async (growth) => {
            await enter();
            if (room.held === undefined) room.counted = sum(room.counted, growth);
            else room.held = await this.#growHeld(trx, team, room, room.held, growth);
          },
        });
      });
      // Only once it is committed: a team must not seem to have room that it has not.
      if (room.counted !== nothing) this.#count(team, room.counted);
      if (room.held?.isCounted === true) this.#remember(team, room.held.size);
      else if (room.held !== undefined) this.#recounts.countBeside(team);
      return result;
    } catch (error) {
      if (room.found !== undefined)
        await this.#recounts.settle(team, room.found).catch((cause: unknown) => {
          this.#onError(new Error('cannot record a count', { cause }));
        });
      throw error;
    }
  }

  /** Writes what was counted so far; never throws. */
  async flush(): Promise<void> {
    this.#flushing ??= this.#write().finally(() => {
      this.#flushing = undefined;
    });
    await this.#flushing;
  }

  async #isFree(trx: Trx, team: TeamId, expected: Growth): Promise<boolean> {
    if (this.#fresh(team) === undefined) this.learn(team, await repository.findSize(trx, team));
    const known = this.#fresh(team);
    return known !== undefined && this.#isFar(sum(known, expected));
  }

  async #growHeld(
    trx: Trx,
    team: TeamId,
    room: Room,
    { size, isCounted }: Held,
    growth: Growth,
  ): Promise<Held> {
    let next = sum(size, growth);
    // What is counted here and not written yet counts for the bound, and not for the record.
    let all = sum(next, this.#unwritten.get(team) ?? nothing);
    if (isCounted && room.found === undefined && this.#reached(all, growth) !== undefined) {
      room.found = await this.#recounts.recount(trx, team, size);
      if (room.found !== undefined) all = next = sum(room.found.counted, growth);
    }
    const reached = isCounted ? this.#reached(all, growth) : undefined;
    if (reached !== undefined) throw reached;
    await repository.writeSize(trx, team, next, room.found?.at);
    return { size: { ...next, countedAt: room.found?.at ?? size.countedAt }, isCounted };
  }

  /** The bound beyond which growth would lead; whatever else is beyond one stays as it is. */
  #reached(next: Size, growth: Growth): Error | undefined {
    const { living, stored, bytes } = this.#max;
    if ((growth.living ?? 0) > 0 && next.living > living)
      return limitReached('credentials', living);
    if ((growth.stored ?? 0) > 0 && next.stored > stored)
      return limitReached('storedCredentials', stored);
    if ((growth.bytes ?? 0) > 0 && next.bytes > bytes)
      return limitReached('ciphertextBytes', bytes);
    return undefined;
  }

  #isFar(size: Size): boolean {
    const most = sum(size, slack);
    return (
      most.living <= this.#max.living &&
      most.stored <= this.#max.stored &&
      most.bytes <= this.#max.bytes
    );
  }

  #fresh(team: TeamId): Size | undefined {
    const known = this.#known.get(team);
    return known !== undefined && performance.now() - known.at < knownMsMax
      ? known.size
      : undefined;
  }

  #remember(team: TeamId, recorded: Size): void {
    this.#known.delete(team);
    for (const [oldest] of this.#known) {
      if (this.#known.size < teamsMax) break;
      this.#known.delete(oldest);
    }
    this.#known.set(team, {
      size: sum(recorded, this.#unwritten.get(team) ?? nothing),
      at: performance.now(),
    });
  }

  #count(team: TeamId, growth: Growth): void {
    this.#unwritten.set(team, sum(this.#unwritten.get(team) ?? nothing, growth));
    const known = this.#known.get(team);
    if (known !== undefined) this.#known.set(team, { ...known, size: sum(known.size, growth) });
  }

  async #write(): Promise<void> {
    if (this.#unwritten.size === 0) return;
    const deltas = this.#unwritten;
    this.#unwritten = new Map();
    try {
      for (const { team, ...recorded } of await repository.addSizes(this.#db, deltas))
        this.learn(team, recorded);
      this.#waiting.settle();
    } catch (error) {
      for (const [team, delta] of deltas)
        this.#unwritten.set(team, sum(this.#unwritten.get(team) ?? nothing, delta));
      this.#waiting.raise(`sizes are waiting (${deltas.size})`, error);
    }
  }
}

const rooms = new WeakMap<Db, TeamRoom>();

/** The room that parts hold; otherwise the one of their database, with the usual bounds. */
export function roomOf({
  room,
  db,
  now,
}: {
  readonly room?: TeamRoom | undefined;
  readonly db: Db;
  readonly now: () => number;
}): TeamRoom {
  if (room !== undefined) return room;
  const usual = rooms.get(db) ?? new TeamRoom({ db, now });
  rooms.set(db, usual);
  return usual;
}
