// The statements that a piece of the vault sends, and how the database means to carry them out.
import { CompiledQuery } from 'kysely';
import pg from 'pg';
import type { Db } from '../src/db/client.ts';

/** A database that notes each statement on its way. */
export function noting(db: Db): { readonly db: Db; readonly statements: CompiledQuery[] } {
  const statements: CompiledQuery[] = [];
  const real = db.getExecutor();
  const noted = {
    transformQuery: real.transformQuery.bind(real),
    compileQuery: real.compileQuery.bind(real),
    executeQuery: (query: CompiledQuery) => {
      statements.push(query);
      return real.executeQuery(query);
    },
  };
  const through = { getExecutor: () => noted, executeQuery: noted.executeQuery };
  return { db: through as unknown as Db, statements };
}

/** The plan of a statement with its values; with `analyze` after carrying it out. */
export async function explain(
  db: Db,
  { sql, parameters }: CompiledQuery,
  options = 'costs off',
): Promise<string> {
  const { rows } = await db.executeQuery<{ 'QUERY PLAN': string }>(
    CompiledQuery.raw(`explain (${options}) ${sql}`, [...parameters]),
  );
  return rows.map((row) => row['QUERY PLAN']).join('\n');
}

/** The large tables that the plan reads from end to end. */
export const scannedWhole = (plan: string): string[] =>
  [...plan.matchAll(/Seq Scan on (credential|credential_version|credential_usage)\b/g)].map(
    ([, table]) => table!,
  );
/** The indexes that it reads. */
export const indexesOf = (plan: string): string[] => [
  ...new Set([...plan.matchAll(/(?:using|Index Scan on) (\w+)/g)].map(([, index]) => index!)),
];

/** A statement on its way. */
export interface SentStatement {
  readonly text: string;
  readonly values: readonly unknown[];
  /** Under which it is prepared; undefined where it is not. */
  readonly name: string | undefined;
  /** What the planner was told before in the same transaction. */
  readonly planning: string;
}

/** Calls back for each statement that any connection of this process sends; the end of that. */
export function watchStatements(onSent: (statement: SentStatement) => void): () => void {
  const { query } = pg.Client.prototype;
  const planningOf = new WeakMap<pg.Client, string>();
  const watched = function (this: pg.Client, ...given: unknown[]): unknown {
    const [first, second] = given as [unknown, unknown];
    const { text, values, name } = (typeof first === 'string' ? { text: first } : first) as {
      text?: string;
      values?: unknown[];
      name?: string;
    };
    if (typeof text === 'string') {
      if (/^(begin|start transaction|commit|rollback)/.test(text)) planningOf.delete(this);
      if (text.startsWith('set local enable_')) planningOf.set(this, text);
      onSent({
        text,
        values: values ?? (Array.isArray(second) ? second : []),
        name,
        planning: planningOf.get(this) ?? '',
      });
    }
    return (query as (...all: unknown[]) => unknown).apply(this, given);
  };
  pg.Client.prototype.query = watched as typeof query;
  return () => {
    pg.Client.prototype.query = query;
  };
}

/** A step of a plan, as PostgreSQL says it in JSON. */
export interface PlanNode {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Index Name'?: string;
  readonly 'Plan Rows': number;
  readonly 'Total Cost': number;
  readonly Plans?: readonly PlanNode[];
}

/** Whether the planner has a say in it. */
export const isPlanned = (text: string): boolean =>
  /^\s*(with|select|insert|update|delete|\()/i.test(text);

/**
 * The plan of a statement on this connection: for any values where it is prepared, else for those
 * that it came with.
 */
export async function planOf(client: pg.Client, sent: SentStatement): Promise<PlanNode> {
  const { text, values, name, planning } = sent;
  const explained = async (statement: string, given: readonly unknown[]): Promise<PlanNode> => {
    const { rows } = await client.query(`explain (format json) ${statement}`, [...given]);
    return (rows[0] as { 'QUERY PLAN': [{ Plan: PlanNode }] })['QUERY PLAN'][0].Plan;
  };
  await client.query('begin');
  try {
    if (planning !== '') await client.query(planning);
    if (name === undefined) return await explained(text, values);
    await client.query('set local plan_cache_mode = force_generic_plan');
    await client.query(`prepare explained as ${text}`);
    return await explained(`execute explained (${values.map(() => 'null').join(', ')})`, []);
  } finally {
    await client.query('rollback');
    await client.query('deallocate all');
  }
}

/** A plan and all that is in it. */
export const nodesOf = (plan: PlanNode): PlanNode[] => [
  plan,
  ...(plan.Plans ?? []).flatMap((each) => nodesOf(each)),
];
