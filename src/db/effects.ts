// What the statements of one request did, as far as its answer must know: whether something may
// have been written before something else failed, and whether the answer rests on what it saw
// after its own last commit. The statements of a request are told from those of others by the
// asynchronous context in which they run.
import { AsyncLocalStorage } from 'node:async_hooks';
import { Recent } from '../shared/recent.ts';
import { mayWrite, writesWhereItFinds } from './writing.ts';

const storage = new AsyncLocalStorage<Effects | undefined>();
const kinds = new Recent<string, Kind>(1_000);

interface Kind {
  readonly mayWrite: boolean;
  readonly writesWhereItFinds: boolean;
}

/** The effects of the request in whose context this runs, if anybody keeps them. */
export const currentEffects = (): Effects | undefined => storage.getStore();

/** Runs what serves several requests, and counts as an effect of none. */
export const outsideRequests = <T>(run: () => T): T => storage.run(undefined, run);

/** Kept while a request is worked on that may change something. */
export class Effects {
  readonly #whole: Effects | undefined;
  /**
   * The timeline of the primary when the request began: what is written in another one says nothing
   * of what was seen in this.
   */
  readonly timeline: string | undefined;
  // Whatever a request is answered, it rests on something: what others looked up for it counts too.
  #step = 1;
  #seenAt = 1;
  #coveredUpTo = 0;
  #hasWritten = false;
  #isOperating = false;

  constructor({ timeline, whole }: { timeline: string | undefined; whole?: Effects }) {
    this.timeline = timeline;
    this.#whole = whole;
  }

  /**
   * The effects of one of several things that the request is about: what it saw and did counts for
   * the request too, what it has written is its own.
   */
  part(): Effects {
    return new Effects({ timeline: this.timeline, whole: this });
  }

  /** Runs what belongs to the request. */
  run<T>(run: () => T): T {
    return storage.run(this, run);
  }

  /** Whether a statement that may have written was carried out, or may have been. */
  get hasWritten(): boolean {
    return this.#hasWritten;
  }

  /**
   * Whether no commit of the request's own came after what it saw last. A commit that waits for the
   * synchronous standby waits for all that was written before it, whoever wrote it.
   */
  get isUncovered(): boolean {
    return this.#seenAt > this.#coveredUpTo;
  }

  /** Whether the request was let through to its operation. */
  get isOperating(): boolean {
    return this.#isOperating;
  }

  /** What was written before the operation itself begins is not what its caller asks after. */
  beginOperation(): void {
    this.#isOperating = true;
    this.#hasWritten = false;
  }

  /** A moment, to be handed back to `covered`. */
  mark(): number {
    if (this.#whole !== undefined) return this.#whole.mark();
    this.#step += 1;
    return this.#step;
  }

  /** A statement came back, or was refused because of what is there. */
  saw(): void {
    if (this.#whole !== undefined) this.#whole.saw();
    else this.#seenAt = this.mark();
  }

  /** Something that may have written is being carried out, or may have been. */
  wrote(): void {
    this.#hasWritten = true;
    this.#whole?.wrote();
  }

  /** A commit that was sent at that moment took effect, and waited as commits wait. */
  covered(since: number): void {
    if (this.#whole !== undefined) this.#whole.covered(since);
    else this.#coveredUpTo = Math.max(this.#coveredUpTo, since);
  }
}

/** The kind of a statement; texts come again. */
export function kindOf(text: string): Kind {
  const known = kinds.get(text);
  if (known !== undefined) return known;
  const kind = { mayWrite: mayWrite(text), writesWhereItFinds: writesWhereItFinds(text) };
  kinds.set(text, kind);
  return kind;
}
