// The outbox: what is to be told is written down where it happens, in the transaction of what it
// tells of, and sent later by whichever replica comes to it. What happened is learnt from the audit
// log's own door: nothing is told that does not stand there.
import { sql } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import { writeApart } from '../db/batches.ts';
import type { Executor } from '../db/client.ts';
import { isForeignKeyViolation } from '../db/errors.ts';
import { newId, type NotificationId } from '../shared/ids.ts';
import { describe, noticeOf } from './event-mapping.ts';
import * as repository from './repository.ts';
import { type Notice, notificationRowMac } from './types.ts';
import type { EventInput } from '../audit/index.ts';

/** So many messages wait for one webhook at the most. */
export const pendingMax = 1_000;

export interface OutboxParts {
  readonly keyring: Keyring;
  readonly now: () => number;
  /** Told how many messages do not fit and were lost. */
  readonly onError: (error: Error) => void;
}

/** Writes what is to be sent. */
export class Outbox {
  readonly #keyring: Keyring;
  readonly #now: () => number;
  readonly #onError: (error: Error) => void;
  constructor({ keyring, now, onError }: OutboxParts) {
    this.#keyring = keyring;
    this.#now = now;
    this.#onError = onError;
  }

  /**
   * Tells what these events of the audit log mean for somebody outside, on the executor on which
   * they were recorded.
   */
  readonly tell = async (executor: Executor, events: readonly EventInput[]): Promise<void> => {
    const at = new Date(this.#now());
    const mapped = events.flatMap((event) => noticeOf(event, at) ?? []);
    if (mapped.length === 0) return;
    const subscribed = await repository.listSubscribed(executor, [
      ...new Set(mapped.map(({ team }) => team.id)),
    ]);
    const wanted = mapped.filter(({ team, type }) =>
      subscribed.some((each) => each.team === team.id && each.events.includes(type)),
    );
    const notices: Notice[] = [];
    for (const each of wanted)
      notices.push(...[(await describe(executor, this.#keyring, each)) ?? []].flat());
    if (notices.length > 0)
      await this.#write(executor, notices, subscribed, { isRefusalKept: true });
  };

  /**
   * Puts notices into the outbox, for every webhook of their team that asks for them and has room.
   * Returns how many messages that made.
   */
  async put(executor: Executor, notices: readonly Notice[]): Promise<number> {
    if (notices.length === 0) return 0;
    return this.#write(
      executor,
      notices,
      await repository.listSubscribed(executor, [...new Set(notices.map(({ team }) => team.id))]),
      { isRefusalKept: false },
    );
  }

  /** Puts one notice into the outbox of one webhook, whatever it asks for. */
  async putFor(
    executor: Executor,
    webhook: repository.SubscribedRow['webhook'],
    notice: Notice,
  ): Promise<NotificationId> {
    const row = this.#sealed(notice, webhook, false);
    await repository.insertNotifications(executor, [row]);
    return row.id;
  }

  /**
   * What happens once and finds no room is kept as failed, to be seen; what comes by time is found
   * again. A message that does not fit is lost alone: it undoes nothing of what it tells of.
   */
  async #write(
    executor: Executor,
    notices: readonly Notice[],
    subscribed: readonly repository.SubscribedRow[],
    { isRefusalKept }: { isRefusalKept: boolean },
  ): Promise<number> {
    const wanted = subscribed
      .flatMap(({ webhook, team, events, pending }) =>
        notices
          .filter((notice) => notice.team.id === team && events.includes(notice.type))
          .map((notice, index) => ({ notice, webhook, isRefused: pending + index >= pendingMax })),
      )
      .filter(({ isRefused }) => !isRefused || isRefusalKept);
    if (wanted.length === 0) return 0;
    let made = 0;
    const { lost, left, cause } = await writeApart(wanted, async (some) => {
      const rows = some.map(({ notice, webhook, isRefused }) =>
        this.#sealed(notice, webhook, isRefused),
      );
      try {
        made += await apart(executor, () => repository.insertNotifications(executor, rows));
      } catch (error) {
        // Its webhook was removed meanwhile, and what waits for it ends with it.
        if (some.length > 1 || !isForeignKeyViolation(error)) throw error;
      }
    });
    if (lost.length > 0)
      this.#onError(new Error(`${lost.length} messages do not fit and were lost`, { cause }));
    if (left.length > 0) throw cause;
    return made;
  }

  #sealed(
    { team, type, subject, dueAt, data }: Notice,
    webhook: repository.SubscribedRow['webhook'],
    isRefused: boolean,
  ): repository.NotificationWrite {
    const row = {
      id: newId<NotificationId>(),
      webhook,
      team: team.id,
      type,
      subjectType: subject.type,
      subjectId: subject.id,
      dueAt,
      at: new Date(this.#now()),
      data: { team: team.slug, ...data },
    };
    // SECURITY: without its row MAC whoever writes to the database would have the vault sign
    // messages of their own.
    return { ...row, seal: notificationRowMac(this.#keyring, row), isRefused };
  }
}

/** Runs a statement that may fail in a transaction that goes on all the same. */
async function apart<T>(executor: Executor, run: () => Promise<T>): Promise<T> {
  if (!executor.isTransaction) return run();
  await sql`savepoint outbox`.execute(executor);
  try {
    const result = await run();
    await sql`release savepoint outbox`.execute(executor);
    return result;
  } catch (error) {
    await sql`rollback to savepoint outbox`.execute(executor);
    throw error;
  }
}
