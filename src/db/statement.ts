// Statements that are composed once and run often. Composing one from its fragments costs about as
// much as sending it; and only these are prepared, so that a server process keeps as many plans as
// the source has statements.
import { type CompiledQuery, type RawBuilder, sql } from 'kysely';
import { connectionsOf, type Executor } from './client.ts';
import { composedNames } from './statement-names.ts';

/**
 * A value that the planner does not see. Where it sees values it compares, at every run, what a
 * plan made for just these would cost; if that seems less, e.g. because a list is short or a range
 * narrow, the statement is planned anew each time, which takes longer than carrying it out. What
 * stays hidden is estimated alike at every run, and the statement is planned once.
 */
export const unseen = (value: unknown, type: string): RawBuilder<unknown> =>
  sql`(select ${value}::${sql.raw(type)})`;

/** Runs a statement; every parameter has to be given. */
export type Statement<P, Row> = (executor: Executor, parameters: P) => Promise<readonly Row[]>;

/**
 * A statement whose text is the same at every run. `compose` is called once, at the first run, and
 * puts `parameter(name)` wherever it would put a value; no value may stand in it directly.
 */
export function statement<P extends object, Row>(
  compose: (parameter: (name: keyof P & string) => RawBuilder<unknown>) => RawBuilder<Row>,
): Statement<P, Row> {
  const names: (keyof P & string)[] = [];
  const place = (name: keyof P & string): RawBuilder<unknown> => {
    if (!names.includes(name)) names.push(name);
    return sql.raw(`$${names.indexOf(name) + 1}`);
  };
  let composed: CompiledQuery<Row> | undefined;
  return async (executor, given) => {
    if (composed === undefined) {
      composed = compose(place).compile(executor);
      if (composed.parameters.length > 0)
        throw new TypeError('a statement that is composed once holds no values');
      composedNames.add(composed.sql);
    }
    const parameters = names.map((name) => given[name]);
    const connections = connectionsOf.get(executor);
    if (connections === undefined)
      return (await executor.executeQuery<Row>({ ...composed, parameters })).rows;
    const connection = await connections.connect();
    try {
      return (await connection.query(composed.sql, parameters)).rows as Row[];
    } finally {
      connection.release();
    }
  };
}
