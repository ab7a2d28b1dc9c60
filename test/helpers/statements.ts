// What a process sends to its databases: every statement of every connection, with its values.
import pg from 'pg';

/** A statement on its way. `name`: under which it is prepared; undefined where it is not. */
export interface SentStatement {
  readonly text: string;
  readonly values: readonly unknown[];
  readonly name: string | undefined;
}

/** Calls back for each statement that any connection of this process sends; the end of that. */
export function watchStatements(onSent: (statement: SentStatement) => void): () => void {
  const { query } = pg.Client.prototype;
  const watched = function (this: pg.Client, ...given: unknown[]): unknown {
    const [first, second] = given as [unknown, unknown];
    const config = (typeof first === 'string' ? { text: first } : first) as {
      text?: string;
      values?: unknown[];
      name?: string;
    };
    if (typeof config.text === 'string')
      onSent({
        text: config.text,
        values: config.values ?? (Array.isArray(second) ? second : []),
        name: config.name,
      });
    return (query as (...all: unknown[]) => unknown).apply(this, given);
  };
  pg.Client.prototype.query = watched as typeof query;
  return () => {
    pg.Client.prototype.query = query;
  };
}
