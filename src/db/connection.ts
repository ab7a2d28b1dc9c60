// One connection: pg's client with a time limit that the server and this process both keep, named
// statements, and an honest word about what was kept. It sends no start-up parameter but
// application_name, so that a transaction-pooling proxy can stand in between.
import pg from 'pg';
import { currentEffects, type Effects, kindOf } from './effects.ts';
import { CommitUnknown, endsSession, isServerGone, sqlState, StatementTimeout } from './errors.ts';
import type { StatementNames } from './statement-names.ts';

/** How connections of one database behave. */
export interface ConnectionSettings {
  readonly statementTimeoutMs: number;
  /** Undefined where a proxy does not keep prepared statements apart. */
  readonly names: Pick<StatementNames, 'of'> | undefined;
  /** Called once when the server says that it is no primary (any more). */
  readonly onServerGone: () => void;
  /** Told of the timeline that the server writes, as often as it says so. */
  readonly onTimeline: (timeline: string) => void;
}

/**
 * The timeline that a primary writes: each promotion begins another one, in which what its
 * predecessor did not hand on has never been. Null on a standby.
 */
export const timelineSql =
  'case when not pg_is_in_recovery() then left(pg_walfile_name(pg_current_wal_insert_lsn()), ' +
  '8) end';

/** What is known of a statement before its answer. */
interface Sent {
  readonly text: string;
  readonly isCommit: boolean;
  readonly isAlone: boolean;
  readonly isIntoTheVoid: boolean;
  readonly at: number;
}

interface WithStatus {
  /** What the server said last: idle, in a transaction, in one that failed. */
  getTransactionStatus(): 'I' | 'T' | 'E' | null;
}

const isOpen = (status: 'I' | 'T' | 'E' | null): boolean => status === 'T' || status === 'E';

/** What opens, divides or gives up a transaction says nothing of what is stored. */
const framing = /^(begin|start transaction|rollback|savepoint|release)\b/;

// The server's limit comes first and leaves the connection usable; the client's is for a server
// that does not answer at all.
const answerGraceMs = 2_000;
const idleInTransactionMs = 60_000;

/**
 * A pg.Client. After an unanswered statement or a lost socket every later call fails with the first
 * error, so that kysely's rollback does not hide it.
 */
export class Connection extends pg.Client {
  readonly #settings: ConnectionSettings;
  readonly #begin: string;
  #lost: Error | undefined;
  #isDead = false;
  #isGone = false;
  #isCommitting = false;
  #isNotAwaited = false;
  /** Of the open transaction: whether something in it may have written, and whether it did. */
  #mayHaveWritten = false;
  #hasTakenPart = false;
  /** What the server wrote when it was asked last: at its verification, and by each transaction. */
  #timeline: string | undefined;

  constructor(config: pg.ClientConfig, settings: ConnectionSettings) {
    super(config);
    this.#settings = settings;
    this.#begin = `; set local statement_timeout = ${settings.statementTimeoutMs};
      set local idle_in_transaction_session_timeout = ${idleInTransactionMs};
      select ${timelineSql} as timeline`;
    // Without a listener the loss of a connection in use ends the process; the statement that was
    // running reports the error.
    this.on('error', () => {
      this.#isDead = true;
    });
    // The commit is durable here but was not awaited on the synchronous standby. A statement on its
    // own commits too, hence the routine.
    this.on('notice', (notice) => {
      if (notice.code === '01000' && (this.#isCommitting || notice.routine === 'SyncRepWaitForLSN'))
        this.#isNotAwaited = true;
    });
  }

  /** Keeps what the server says of itself. */
  noteTimeline(timeline: string | null): void {
    this.#timeline = timeline ?? undefined;
    if (timeline !== null) this.#settings.onTimeline(timeline);
  }

  /** Whether this connection must not go back to the pool. */
  get isSpent(): boolean {
    return this.#isDead || this.#isGone || this.#lost !== undefined;
  }

  // pg's overloads; kysely calls the form (text, values), everything else goes through untouched.
  // biome-ignore lint/suspicious/noExplicitAny: pg's overloads have no common type
  override query(config: any, values?: any, callback?: any): any {
    if (typeof config !== 'string' || typeof values === 'function' || callback !== undefined)
      return super.query(config, values, callback);
    return this.#run(config, (values as unknown[] | undefined) ?? []);
  }

  async #run(text: string, values: unknown[]): Promise<pg.QueryResult> {
    const effects = currentEffects();
    const sent: Sent = {
      text,
      isCommit: text === 'commit',
      // Outside a transaction a statement commits by itself.
      isAlone: !isOpen((this as unknown as WithStatus).getTransactionStatus()),
      // What a connection is given that is gone already reaches nobody.
      isIntoTheVoid: this.#isDead,
      at: effects?.mark() ?? 0,
    };
    this.#isCommitting = sent.isCommit;
    this.#isNotAwaited = false;
    const timer = setTimeout(
      () => this.#abandon(),
      this.#settings.statementTimeoutMs + answerGraceMs,
    );
    try {
      const result = await this.#send(text, values);
      if (this.#isNotAwaited) throw new CommitUnknown();
      if (effects !== undefined) this.#note(effects, sent, result);
      return result;
    } catch (error) {
      const judged = this.#judge(error, sent);
      if (effects !== undefined) {
        effects.saw();
        if (judged instanceof CommitUnknown) effects.wrote();
      }
      throw judged;
    } finally {
      clearTimeout(timer);
      this.#isCommitting = false;
    }
  }

  /** Tells the request what this statement did. */
  #note(
    effects: Effects,
    { text, isCommit, isAlone, at }: Sent,
    { rowCount, rows }: pg.QueryResult,
  ): void {
    if (isCommit) {
      if (this.#mayHaveWritten) effects.wrote();
      if (this.#hasTakenPart && this.#isOfRequest(effects)) effects.covered(at);
    }
    if (isAlone || isCommit) this.#mayHaveWritten = this.#hasTakenPart = false;
    if (isCommit || framing.test(text)) return;
    const kind = kindOf(text);
    // A statement that comes back with rows even where it wrote nothing says so itself.
    const isDone = (rows[0] as { is_recorded?: boolean } | undefined)?.is_recorded !== false;
    const hasTakenPart = kind.writesWhereItFinds && (rowCount ?? 0) > 0 && isDone;
    if (!isAlone) {
      this.#mayHaveWritten ||= kind.mayWrite;
      this.#hasTakenPart ||= hasTakenPart;
      effects.saw();
      return;
    }
    if (kind.mayWrite) effects.wrote();
    if (hasTakenPart && this.#isOfRequest(effects)) effects.covered(at);
    else effects.saw();
  }

  // A commit on the server that took over says nothing of what was seen on the one before it.
  #isOfRequest({ timeline }: Effects): boolean {
    return timeline === this.#timeline;
  }

  async #send(text: string, values: unknown[]): Promise<pg.QueryResult> {
    if (values.length === 0) {
      // One round trip: the limits ride along with the statement that opens the transaction.
      if (text === 'begin' || text.startsWith('start transaction')) {
        const results = (await this.#answerTo({
          text: text + this.#begin,
        })) as unknown as pg.QueryResult<{ timeline: string | null }>[];
        this.noteTimeline(results.at(-1)?.rows[0]?.timeline ?? null);
        return results[0]!;
      }
      return this.#answerTo({ text });
    }
    const name = this.#settings.names?.of(text);
    return this.#answerTo(name === undefined ? { text, values } : { name, text, values });
  }

  // A promise of our own around pg's callback: answers given by the promise that pg makes live on
  // until the next full collection, and copying them makes each small collection some thirty times
  // as long.
  #answerTo(query: pg.QueryConfig): Promise<pg.QueryResult> {
    return new Promise((resolve, reject) => {
      void super.query(query, (error: Error | null, result: pg.QueryResult) => {
        if (error) reject(error);
        else resolve(result);
      });
    });
  }

  /** The error that says what is known of the statement: that it failed, or nothing. */
  #judge(error: unknown, sent: Sent): unknown {
    const isDead = this.#isDead;
    if (!isDead && isServerGone(error)) {
      this.#isGone = true;
      this.#settings.onServerGone();
    }
    const isEnding = endsSession(error);
    if (!isDead && !isEnding) return error;
    const cause = (isDead ? this.#lost : undefined) ?? error;
    // What the server has refused, it has undone.
    const isRefused = sqlState(error) !== undefined && !isEnding;
    const isUnknown =
      !isRefused &&
      !sent.isIntoTheVoid &&
      !(cause instanceof CommitUnknown) &&
      (sent.isCommit || (sent.isAlone && kindOf(sent.text).mayWrite));
    this.#lost = (isUnknown ? new CommitUnknown({ cause }) : cause) as Error;
    this.#isGone = true;
    return this.#lost;
  }

  #abandon(): void {
    this.#lost = new StatementTimeout();
    this.#isDead = true;
    cancelOnServer(this);
    this.connection.stream.destroy();
  }
}

interface Wire {
  connect(port: number | string, host?: string): void;
  cancel(processId: number, secretKey: number): void;
  end(): void;
  readonly stream: { destroy(): void; once(event: 'close', listener: () => void): void };
  once(event: string, listener: () => void): void;
  on(event: string, listener: () => void): void;
}

// The server would go on with the statement, and with its locks, until it next writes to the
// socket. Best effort: a second connection carries the request.
function cancelOnServer(client: pg.Client): void {
  const { processID, secretKey } = client as unknown as {
    processID: number | null;
    secretKey: number | null;
  };
  if (processID === null || secretKey === null) return;
  const wire = new pg.Connection({
    ssl: client.ssl,
  } as unknown as pg.ConnectionConfig) as unknown as Wire;
  const send = (): void => {
    wire.cancel(processID, secretKey);
    wire.end();
  };
  wire.once('connect', send);
  wire.once('sslconnect', send);
  wire.on('error', () => undefined); // the connection is given up either way
  // A server that does not answer does not say good-bye either: the end of the process would wait
  // for it.
  const timer = setTimeout(() => wire.stream.destroy(), answerGraceMs);
  wire.stream.once('close', () => {
    clearTimeout(timer);
  });
  if (client.host.startsWith('/')) wire.connect(`${client.host}/.s.PGSQL.${client.port}`);
  else wire.connect(client.port, client.host);
}
