// Whether the synchronous standby has what was written before. Its own commits a request waits for;
// what others wrote, and what the server stopped waiting for, a look at the rows does not tell.
import { sql } from 'kysely';
import { connectionsOf, type Db } from './client.ts';
import { timelineSql } from './connection.ts';
import { outsideRequests } from './effects.ts';
import { CommitUnknown } from './errors.ts';

/**
 * The history that a server writes: each promotion begins another one, in which what its
 * predecessor did not hand on has never been. Undefined while none was seen.
 */
export type Timeline = string | undefined;

/** Asks the primary to wait; of all who ask at once, one does. */
export class Standby {
  readonly #db: Db;
  #timeline: Timeline;
  #asking: Promise<string> | undefined;
  #next: Promise<string> | undefined;
  constructor({ db }: { db: Db }) {
    this.#db = db;
  }

  /** The timeline of the primary that said it last, to whichever statement. */
  get timeline(): Timeline {
    return connectionsOf.get(this.#db)?.timeline ?? this.#timeline;
  }

  /** Learns the timeline, and waits for nothing. */
  async look(): Promise<void> {
    const { rows } = await sql<{
      timeline: string;
    }>`select ${sql.raw(timelineSql)} as timeline`.execute(this.#db);
    if (rows[0] !== undefined) this.#note(rows[0].timeline);
  }

  /**
   * Returns when the standby has everything that was written before this was called. Throws
   * CommitUnknown when nobody can say so: the wait was given up, or the primary is another one than
   * it was at `since`, and what was seen may be of its predecessor.
   */
  async confirm(since: Timeline): Promise<void> {
    let timeline: string;
    try {
      timeline = await this.#join();
    } catch (cause) {
      throw new CommitUnknown({ cause });
    }
    if (timeline !== since) throw new CommitUnknown();
  }

  // The one that is under way may have been sent before what this caller saw was written.
  #join(): Promise<string> {
    this.#next ??= (this.#asking ?? Promise.resolve())
      .catch(() => undefined)
      .then(() => {
        this.#asking = this.#next;
        this.#next = undefined;
        return outsideRequests(() => this.#ask());
      });
    return this.#next;
  }

  // A commit waits for the standby only where it wrote something: a message in the log is the least
  // that there is, and no row of anybody's.
  async #ask(): Promise<string> {
    const { rows } = await sql<{ timeline: string }>`
      select ${sql.raw(timelineSql)} as timeline,
        pg_logical_emit_message(true, 'credential-vault', '')`.execute(this.#db);
    const timeline = rows[0]?.timeline;
    if (timeline === undefined) throw new TypeError('a statement without a row');
    this.#note(timeline);
    return timeline;
  }

  #note(timeline: string): void {
    this.#timeline = timeline;
    connectionsOf.get(this.#db)?.noteTimeline(timeline);
  }
}
