// The statements that a piece of the vault sends, and how the database means to carry them out.
import { CompiledQuery } from 'kysely';
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
