// Keeps whoever has no valid token from filling the disk: of one origin and one reason ten records
// a minute, then one a minute that says how many it stands for; of all origins together no more
// than an attack from many of them may cost. Counts live in this replica.
import { networkOf } from '../shared/network.ts';
import { DenialCeiling } from './denial-ceiling.ts';

/** A token or ticket that let nobody in. */
export interface FailedLogIn {
  readonly action: string;
  readonly requestId: string;
  readonly address: string | null;
  /** From a closed list; null where no token came. */
  readonly reason: string | null;
}

/** A failed log-in as it is written; with `count`, the last of so many. */
export type CountedLogIn = FailedLogIn & { readonly count: number };

const windowMs = 60_000;
const originsMax = 250;
/** Records of single log-ins a minute, whoever they come from. */
const singlesMax = 600;
/** Stands for every origin that there was no room for. */
const elsewhere = 'elsewhere';
const ofMany = { address: null, reason: null } as const;

/** Decides which failed log-ins are written one by one, and counts the others. */
export class FailedLogIns {
  readonly #now: () => number;
  readonly #write: (failed: CountedLogIn) => void;
  readonly #ceiling: DenialCeiling<FailedLogIn>;
  #windowAt = Number.NEGATIVE_INFINITY;
  #singles = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor({ now, write }: { now: () => number; write: (failed: CountedLogIn) => void }) {
    this.#now = now;
    this.#write = write;
    this.#ceiling = new DenialCeiling(now, { keysMax: originsMax, otherwise: elsewhere });
  }

  /** Writes it, or counts it; never throws, never waits. */
  take(failed: FailedLogIn): void {
    const { address, reason } = failed;
    const origin = `${reason ?? ''} ${address === null ? '' : networkOf(address)}`;
    if (this.#ceiling.admit(origin, failed, { hasRoom: this.#hasRoom() })) {
      this.#singles += 1;
      this.#write({ ...failed, count: 1 });
      return;
    }
    this.#timer ??= setTimeout(() => {
      this.#summarise({ all: false });
    }, windowMs).unref();
  }

  /** Writes what was only counted. */
  stop(): void {
    this.#summarise({ all: true });
  }

  #hasRoom(): boolean {
    const now = this.#now();
    if (now < this.#windowAt || now - this.#windowAt >= windowMs) {
      this.#windowAt = now;
      this.#singles = 0;
    }
    return this.#singles < singlesMax;
  }

  #summarise({ all }: { all: boolean }): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    for (const suppressed of this.#ceiling.overdue({ all })) {
      const { key, last, count } = suppressed;
      this.#write({ ...last, ...(key === elsewhere ? ofMany : {}), count });
      this.#ceiling.settle(suppressed);
    }
    if (!all && this.#ceiling.isWaiting)
      this.#timer = setTimeout(() => {
        this.#summarise({ all: false });
      }, windowMs).unref();
  }
}
