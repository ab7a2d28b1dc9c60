// Unwrapped data keys, for at most a minute and at most so many. It holds bytes, never permission.
import type { DataKeyId, TeamId } from '../shared/ids.ts';
import type { FernetKey, TokenFormat } from './fernet.ts';
import type { Wrapped } from './root-keys/root-keys.ts';

export const keyCacheAgeMsMax = 60_000;

/** A data key as its row holds it. */
export interface WrappedDataKey extends Wrapped {
  readonly id: DataKeyId;
  readonly team: TeamId;
  readonly version: number;
  readonly format: TokenFormat;
}

interface Entry {
  readonly key: FernetKey;
  readonly held: WrappedDataKey;
  readonly loadedAt: number;
}

/** Least recently used first out. Age counts from loading, not from use. */
export class KeyCache {
  readonly #entries = new Map<DataKeyId, Entry>();
  readonly #entriesMax: number;
  readonly #now: () => number;

  constructor(entriesMax: number, now: () => number) {
    this.#entriesMax = entriesMax;
    this.#now = now;
  }

  /** The key, if it was unwrapped from this very row within the last minute. */
  find(held: WrappedDataKey): FernetKey | undefined {
    const entry = this.#entries.get(held.id);
    if (entry === undefined) return undefined;
    this.#entries.delete(held.id);
    // SECURITY: what is in the cache speaks only for the row that it was made from, and only for a
    // minute.
    if (!this.#isFresh(entry) || !isSameRow(entry.held, held)) return undefined;
    this.#entries.set(held.id, entry);
    return entry.key;
  }

  add(held: WrappedDataKey, key: FernetKey): void {
    for (const [id, entry] of this.#entries) if (!this.#isFresh(entry)) this.#entries.delete(id);
    this.#entries.delete(held.id);
    this.#entries.set(held.id, {
      key,
      held: { ...held, wrapped: Buffer.from(held.wrapped) },
      loadedAt: this.#now(),
    });
    for (const [oldest] of this.#entries) {
      if (this.#entries.size <= this.#entriesMax) break;
      this.#entries.delete(oldest);
    }
  }

  clear(): void {
    this.#entries.clear();
  }

  /** A clock that was set back makes an entry stale, not young. */
  #isFresh({ loadedAt }: Entry): boolean {
    const age = this.#now() - loadedAt;
    return age >= 0 && age < keyCacheAgeMsMax;
  }
}

function isSameRow(a: WrappedDataKey, b: WrappedDataKey): boolean {
  return (
    a.id === b.id && // SECOND LINE: an entry is found by its id
    a.team === b.team &&
    a.version === b.version &&
    a.format === b.format &&
    a.rootFingerprint === b.rootFingerprint &&
    a.wrapped.equals(b.wrapped)
  );
}
