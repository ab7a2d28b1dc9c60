// How many of a team's credentials have which problem. Each is counted by the small index of those
// that have it, so that a large team without problems is counted as fast as a small one; only
// `exposed`, where a key is marked that the team may have had, looks at every row.
import { type RawBuilder, sql } from 'kysely';
import type { Executor } from '../../db/client.ts';
import type { TeamId } from '../../shared/ids.ts';
import { mayBeExposed, type ProblemName, problemCondition, problemNames } from '../health.ts';

export interface ProblemCounts {
  readonly total: number;
  readonly problems: Readonly<Record<ProblemName, number>>;
}

/**
 * Counts the living credentials of a team. Row MACs are not verified: what is forged is counted,
 * and shown nowhere.
 */
export async function countProblems(
  executor: Executor,
  team: TeamId,
  now: Date,
): Promise<ProblemCounts> {
  const living = sql`credential.team_id = ${team} and credential.state <> 'deleted'`;
  const current = sql`join credential_version current on current.team_id = credential.team_id
    and current.credential_id = credential.id and current.version = credential.current_version`;
  const from: Readonly<Record<ProblemName, RawBuilder<unknown>>> = {
    disabled: sql`credential where credential.team_id = ${team} and`,
    undecryptable: sql`credential ${current} where ${living} and current.team_id = ${team} and`,
    exposed: sql`credential ${current} where ${living} and ${mayBeExposed(sql`${team}`)} and`,
    refreshFailed: sql`credential where ${living} and credential.id in (select held.credential_id
      from oauth_token held where held.team_id = ${team}
      and (held.failure is not null or not held.is_refreshable)) and`,
    notConnected: sql`credential ${current} where ${living} and current.team_id = ${team} and`,
    rejectedByUpstream: sql`credential
      where ${living} and credential.id in (select held.credential_id from oauth_token held
      where held.team_id = ${team} and held.rejected_at is not null) and`,
    expired: sql`credential where ${living} and`,
    expiring: sql`credential where ${living} and`,
    providerOutdated: sql`credential ${current} where ${living} and current.team_id = ${team} and`,
  };
  const counts = problemNames.map(
    (problem) =>
      sql`(select count(*) from ${from[problem]} ${problemCondition(problem, now)})
        as ${sql.ref(problem)}`,
  );
  const {
    rows: [row],
  } = await sql<Record<ProblemName | 'total', number>>`
    select (select count(*) from credential where ${living}) as total, ${sql.join(counts)}`.execute(
    executor,
  );
  if (row === undefined) throw new Error('a query of counts gives one row');
  const { total, ...problems } = row;
  return { total, problems };
}
