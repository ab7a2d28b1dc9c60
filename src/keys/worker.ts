// The worker of a replica: looks for rotations that run, whoever started them, and gives each in
// turn a turn. Any number of workers work on one rotation at once; one that dies leaves its batches
// undone and nothing else.
import { setImmediate as yieldToOthers, setTimeout as delay } from 'node:timers/promises';
import type { DataKeyId, RotationId } from '../shared/ids.ts';
import {
  type Batch,
  endIfDone,
  listRunningRotations,
  reencryptBatch,
  type Position,
  type RotationParts,
  type RunningRotation,
  settleTotal,
} from './rotation.ts';

export interface RotationWorkerParts extends RotationParts {
  /** Told once of each trouble, when it begins. */
  readonly onError: (error: Error) => void;
  readonly batchRows?: number;
  readonly pollMs?: number;
  /**
   * Whether requests are being answered at this moment: then batches are small, one at a time, and
   * the worker rests between them four times as long as one took.
   */
  readonly isForegroundBusy?: () => boolean;
  /** Waits; ends early when the signal says so. */
  readonly sleep?: (ms: number, signal: AbortSignal) => Promise<void>;
}

/** What keeps a rotation from going on, and until when it is let be. */
interface Trouble {
  readonly attempts: number;
  readonly until: number;
}

/**
 * One pass over the tokens of a rotation: how far it is, and the keys that did not unwrap with the
 * root keys that they need. It is kept for speed only; at its end a count decides whether the
 * rotation has ended, or another pass begins.
 */
interface Pass {
  after: Position | undefined;
  /** More tokens as long as the last ones were would be too much at once. */
  rowsMax: number;
  readonly passedOver: Map<DataKeyId, string>;
}

type Outcome = 'worked' | 'waiting' | 'idle';

const batchRowsDefault = 400; // some 30 ms: row locks and the key's share lock are held no longer
const batchRowsBusy = 50;
const turnMs = 250;
/** For so long a rotation is left to whoever started it, to be counted. */
const countedByStarterMs = 10_000;
const pollMsDefault = 1_000;
const waitingMs = 50;
/**
 * Rest for each time of work while requests are answered: a fifth of the time. At one for one,
 * reads were three times as slow at their p99.
 */
const restPerWork = 4;
const restMsMax = 200;
const backoffMsMax = 60_000;
const everyRotation = 'every rotation';

/** Re-encrypts tokens in the background. */
export class RotationWorker {
  readonly #parts: RotationWorkerParts;
  readonly #batchRows: number;
  readonly #pollMs: number;
  readonly #troubles = new Map<RotationId | typeof everyRotation, Trouble>();
  readonly #passes = new Map<RotationId, Pass>();
  #loop: Promise<void> | undefined;
  #isStopping = false;
  #isWoken = false;
  #isBusy = false;
  #endRest: (() => void) | undefined;

  constructor(parts: RotationWorkerParts) {
    this.#parts = parts;
    this.#batchRows = parts.batchRows ?? batchRowsDefault;
    this.#pollMs = parts.pollMs ?? pollMsDefault;
  }

  /** Begins to look for work. */
  start(): void {
    this.#loop ??= this.#run();
  }

  /** Finishes the batch that is being moved, and looks for no other. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    this.wake();
    await this.#loop;
  }

  /** Looks for work at once. */
  wake(): void {
    this.#isWoken = true;
    this.#endRest?.();
  }

  async #run(): Promise<void> {
    while (!this.#isStopping) {
      const outcome = await this.#round();
      if (outcome !== 'worked')
        await this.#rest(outcome === 'waiting' ? Math.min(waitingMs, this.#pollMs) : this.#pollMs);
    }
  }

  /** One turn of each rotation. */
  async #round(): Promise<Outcome> {
    let best: Outcome = 'idle';
    const rotations = await this.#list();
    if (rotations === undefined) return 'idle';
    this.#forgetAllBut(new Set(rotations.map(({ id }) => id)));
    // A compromise goes before everything else, as long as there is something to do for it: one
    // that waits holds up nobody.
    for (const isUrgent of [true, false]) {
      for (const rotation of rotations.filter((each) => each.isUrgent === isUrgent)) {
        if (this.#isStopping) return best;
        const outcome = await this.#turn(rotation);
        if (outcome === 'worked' || best === 'idle') best = outcome;
        await yieldToOthers();
      }
      if (isUrgent && best === 'worked') return best;
    }
    return best;
  }

  async #list(): Promise<RunningRotation[] | undefined> {
    if (this.#isTroubled(everyRotation)) return undefined;
    try {
      const rotations = await listRunningRotations(this.#parts.db);
      this.#troubles.delete(everyRotation);
      return rotations;
    } catch (error) {
      this.#note(everyRotation, new Error('cannot list the running rotations', { cause: error }));
      return undefined;
    }
  }

  async #turn(rotation: RunningRotation): Promise<Outcome> {
    if (this.#isTroubled(rotation.id)) return 'idle';
    const pass = this.#passes.get(rotation.id) ?? {
      after: undefined,
      rowsMax: Number.POSITIVE_INFINITY,
      passedOver: new Map<DataKeyId, string>(),
    };
    this.#passes.set(rotation.id, pass);
    const isFromStart = pass.after === undefined;
    try {
      // The replica that started it may have died before it could. A count that takes too long
      // keeps no token from being re-encrypted.
      const isUncounted =
        rotation.total === 0 &&
        isFromStart &&
        rotation.createdAt.getTime() < this.#parts.now() - countedByStarterMs;
      if (isUncounted) await settleTotal(this.#parts.db, rotation.id).catch(() => undefined);
      const found = await this.#stretch(rotation, pass);
      if (found === 'more') return 'worked';
      const isEmpty = found === 'nothing' && isFromStart;
      if (pass.passedOver.size > 0 && !isEmpty) return 'worked';
      this.#passes.delete(rotation.id);
      if (pass.passedOver.size === 0)
        return (await endIfDone(this.#parts, rotation)) || !isEmpty ? 'worked' : 'waiting';
      this.#note(
        rotation.id,
        new Error(
          `rotation ${rotation.id} waits for root keys: ` +
            `${[...new Set(pass.passedOver.values())].join(', ')}`,
        ),
      );
    } catch (error) {
      this.#passes.delete(rotation.id); // what a failed batch let go lies before the position
      this.#note(rotation.id, new Error(`rotation ${rotation.id} is held up`, { cause: error }));
    }
    return 'idle';
  }

  /**
   * Batch after batch, until the pass finds no more or the others' turn has come. While the
   * database stores a batch, this process re-encrypts the next: at most two transactions are open.
   */
  async #stretch(rotation: RunningRotation, pass: Pass): Promise<'more' | 'last' | 'nothing'> {
    const end = performance.now() + turnMs;
    const open: Promise<Batch>[] = [];
    try {
      for (let isFirst = true; ; isFirst = false) {
        const began = performance.now();
        const batch = this.#batch(rotation, pass);
        open.push(batch.stored);
        const isFound = await batch.sealed;
        if (open.length > 1) await open.shift();
        if (!isFound) return isFirst ? 'nothing' : 'last';
        const isOver = this.#isStopping || performance.now() > end;
        // The throttle: a fifth of the time at the most, while requests are being answered and
        // nothing is urgent.
        this.#isBusy = !rotation.isUrgent && this.#parts.isForegroundBusy?.() === true;
        if (isOver || this.#isBusy) await Promise.all(open.splice(0));
        await (this.#isBusy
          ? this.#rest(Math.min((performance.now() - began) * restPerWork, restMsMax))
          : yieldToOthers());
        if (isOver) return 'more';
      }
    } finally {
      await Promise.allSettled(open);
    }
  }

  /**
   * Begins a batch. `sealed` says whether there is one, as soon as the next can begin; `stored` is
   * its end.
   */
  #batch(
    rotation: RunningRotation,
    pass: Pass,
  ): { sealed: Promise<boolean>; stored: Promise<Batch> } {
    const quest = {
      limit: Math.min(
        this.#isBusy ? batchRowsBusy : this.#batchRows,
        this.#batchRows,
        pass.rowsMax,
      ),
      passOver: [...pass.passedOver.keys()],
      after: pass.after,
    };
    const { promise, resolve } = Promise.withResolvers<boolean>();
    const stored = reencryptBatch(
      this.#parts,
      rotation,
      quest,
      ({ last, unavailable, rowsMax }) => {
        pass.after = last;
        pass.rowsMax = rowsMax;
        for (const [key, { fingerprint }] of unavailable) pass.passedOver.set(key, fingerprint);
        resolve(true);
      },
    ).then((batch) => {
      if (batch.moved > 0 || batch.failed > 0) this.#troubles.delete(rotation.id);
      if (batch.last === undefined) pass.after = undefined;
      return batch;
    });
    return {
      sealed: Promise.race([promise, stored.then(({ last }) => last !== undefined)]),
      stored,
    };
  }

  #forgetAllBut(running: ReadonlySet<string>): void {
    for (const id of this.#passes.keys()) if (!running.has(id)) this.#passes.delete(id);
    for (const id of this.#troubles.keys())
      if (id !== everyRotation && !running.has(id)) this.#troubles.delete(id);
  }

  #isTroubled(id: RotationId | typeof everyRotation): boolean {
    return performance.now() < (this.#troubles.get(id)?.until ?? 0);
  }

  /** Each attempt in a row doubles the time until the next; only the first is told. */
  #note(id: RotationId | typeof everyRotation, error: Error): void {
    const attempts = (this.#troubles.get(id)?.attempts ?? 0) + 1;
    this.#troubles.set(id, {
      attempts,
      until: performance.now() + Math.min(this.#pollMs * 2 ** Math.min(attempts, 16), backoffMsMax),
    });
    if (attempts === 1) this.#parts.onError(error);
  }

  async #rest(ms: number): Promise<void> {
    if (!this.#isWoken) {
      const ending = new AbortController();
      this.#endRest = () => {
        ending.abort();
      };
      await (this.#parts.sleep ?? sleep)(ms, ending.signal);
    }
    this.#endRest = undefined;
    this.#isWoken = false;
  }
}

async function sleep(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch((error: unknown) => {
    if (!signal.aborted) throw error;
  });
}
