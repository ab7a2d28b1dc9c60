// What is looked for in answers, kept from one call to the next: compiling it for a long secret
// costs more than the rest of a call. SECURITY: it holds secrets in the clear, so it is bound as
// unwrapped keys are: at most a minute old, at most so many, and gone with the version it is for.
import type { CredentialId } from '../../shared/ids.ts';
import { Sought } from './sought.ts';

const ageMsMax = 60_000;
const sweepMs = 10_000;
const entriesMax = 1_000;
const bytesMax = 64 * 1024 * 1024;

interface Entry {
  readonly sought: Sought;
  readonly madeAt: number;
}

/** Compiled values by credential; those of its current version. */
export class Redactors {
  readonly #now: () => number;
  readonly #bounds: { readonly entries: number; readonly bytes: number };
  /** The one used last stands last. */
  readonly #entries = new Map<CredentialId, Entry>();
  #bytes = 0;
  #timer: NodeJS.Timeout | undefined;

  /** `now` counts milliseconds and never goes back. */
  constructor(
    now: () => number = () => performance.now(),
    bounds: { readonly entries: number; readonly bytes: number } = {
      entries: entriesMax,
      bytes: bytesMax,
    },
  ) {
    this.#now = now;
    this.#bounds = bounds;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** What is looked for after a call with these values of the credential. */
  soughtFor(credential: CredentialId, values: readonly string[]): Sought {
    const known = this.#entries.get(credential);
    const isGood =
      known !== undefined &&
      this.#now() - known.madeAt < ageMsMax &&
      isSame(known.sought.values, values);
    // SECURITY: what was made for other values (another version, a token that was made new) finds
    // nothing of these, and is not to be kept.
    this.#drop(credential);
    const entry = isGood ? known : { sought: Sought.of([...values]), madeAt: this.#now() };
    this.#entries.set(credential, entry);
    this.#bytes += entry.sought.byteLength;
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#bounds.entries && this.#bytes <= this.#bounds.bytes) break;
      this.#drop(oldest);
    }
    this.#timer ??= setInterval(() => {
      this.sweep();
    }, sweepMs).unref();
    return entry.sought;
  }

  /** Lets go of what is too old; done by itself, used or not. */
  sweep(): void {
    for (const [credential, { madeAt }] of this.#entries)
      if (this.#now() - madeAt >= ageMsMax) this.#drop(credential);
    if (this.#entries.size > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #drop(credential: CredentialId): void {
    const entry = this.#entries.get(credential);
    if (entry === undefined) return;
    this.#entries.delete(credential);
    this.#bytes -= entry.sought.byteLength;
  }
}

const isSame = (a: readonly string[], b: readonly string[]): boolean =>
  a.length === b.length && a.every((value, i) => value === b[i]);
