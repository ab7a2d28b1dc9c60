// What is wrong with a credential, computed in the query that reads it, so that filters and answers cannot disagree.
import { type RawBuilder, sql } from 'kysely';

/** Worst first: `health` is the first of them. */
export const problemNames = ['disabled', 'undecryptable', 'expired', 'expiring'] as const;
export type ProblemName = (typeof problemNames)[number];
export type Health = ProblemName | 'ok';

const expiringDays = 14;

/** The condition of one problem, over the aliases `credential` and `current`. */
export function problemCondition(problem: ProblemName, now: Date): RawBuilder<boolean> {
  switch (problem) {
    case 'disabled': return sql<boolean>`credential.state = 'disabled'`;
    case 'undecryptable': return sql<boolean>`current.undecryptable_at is not null`;
    case 'expired': return sql<boolean>`credential.expires_at <= ${now}`;
    case 'expiring': return sql<boolean>`(credential.expires_at > ${now} and credential.expires_at <= ${new Date(now.getTime() + expiringDays * 86_400_000)})`;
  }
}

/** The problems of a row as a text array, worst first. */
export function problemsColumn(now: Date): RawBuilder<string[]> {
  const cases = problemNames.map((problem) => sql`case when ${problemCondition(problem, now)} then ${sql.lit(problem)} end`);
  return sql<string[]>`array_remove(array[${sql.join(cases)}], null)`;
}

/** The worst of the problems. */
export const healthOf = (problems: readonly ProblemName[]): Health => problems[0] ?? 'ok';
