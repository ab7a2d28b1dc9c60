// The teams' active keys, remembered for a minute, so that storing a credential does not ask for
// its key first. What is remembered is a wrapped key, never leave to use it: the write finds it
// active in its own statement, or nothing is written.
import type { WrappedDataKey } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import type { TeamId } from '../shared/ids.ts';
import type { TeamRoom } from './room.ts';
import { findActiveKeyAndSize } from './room-repository.ts';

const ageMsMax = 60_000;
const teamsMax = 1_000;

/** Finds the key that seals a team's tokens, as it was at most a minute ago. */
export class ActiveKeys {
  readonly #db: Db;
  readonly #now: () => number;
  readonly #room: TeamRoom;
  readonly #known = new Map<TeamId, { readonly key: WrappedDataKey; readonly at: number }>();

  constructor({ db, now, room }: { db: Db; now: () => number; room: TeamRoom }) {
    this.#db = db;
    this.#now = now;
    this.#room = room;
  }

  /** Undefined when the team has none. */
  async find(team: TeamId): Promise<WrappedDataKey | undefined> {
    const known = this.#known.get(team);
    if (known !== undefined && Math.abs(this.#now() - known.at) < ageMsMax) return known.key;
    const at = this.#now();
    const found = await findActiveKeyAndSize(this.#db, team);
    this.forget(team);
    if (found === undefined) return undefined;
    this.#room.learn(team, found.size);
    this.#remember(team, { key: found.key, at });
    return found.key;
  }

  /** To be called when a write was refused because its key is not active any more. */
  forget(team: TeamId): void {
    this.#known.delete(team);
  }

  #remember(team: TeamId, known: { readonly key: WrappedDataKey; readonly at: number }): void {
    for (const [oldest] of this.#known) {
      if (this.#known.size < teamsMax) break;
      this.#known.delete(oldest);
    }
    this.#known.set(team, known);
  }
}
