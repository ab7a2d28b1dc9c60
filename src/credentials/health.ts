// What is wrong with a credential, computed in the query that reads it, so that filters and answers
// cannot disagree.
import { type RawBuilder, sql } from 'kysely';
import { type CiphertextTable, ciphertextTables } from '../keys/index.ts';
import { oauthTokens } from '../keys/sql.ts';
import { oauthProviders } from './providers/catalogue.ts';
import { oauthTypeNames } from './types/registry.ts';
import { unknownMember } from '../shared/closed-sets.ts';

/** Worst first: `health` is the first of them. */
export const problemNames = [
  'disabled',
  'undecryptable',
  'exposed',
  'refreshFailed',
  'notConnected',
  'rejectedByUpstream',
  'expired',
  'expiring',
  'providerOutdated',
] as const;
export type ProblemName = (typeof problemNames)[number];
export type Health = ProblemName | 'ok';

const expiringHours = 14 * 24;
/** The time at which problems are looked at; in a composed statement, its place. */
type Now = Date | RawBuilder<unknown>;

/** The present revision of each entry of the catalogue. */
const revisions = JSON.stringify(
  Object.fromEntries(oauthProviders.map(({ name, revision }) => [name, revision])),
);

/** Whether any key of the vault is marked: asked once in a query, and mostly all that is asked. */
const isAnyMarked = sql`exists (select 1 from data_key where compromised_at is not null)`;
/** By the primary key: after the compromise of a root key every key of the vault may be marked. */
const holdsMarked = (history: RawBuilder<unknown>): RawBuilder<unknown> =>
  sql`exists (select 1 from data_key marked where marked.id = any (${history})
    and marked.compromised_at is not null)`;
/**
 * A condition on the row that a credential has in a table besides its versions; credentials of
 * types that have none there are not looked up. The row of one credential, where `exists` would let
 * the planner read all.
 */
function heldIn(table: CiphertextTable, condition: RawBuilder<unknown>): RawBuilder<boolean> {
  const isSo = sql<boolean>`
    coalesce((select ${condition} from ${sql.table(table.name)} held
      where held.credential_id = credential.id), false)`;
  switch (table.credentialTypes) {
    case 'every':
      return isSo;
    case 'oauth':
      return sql<boolean>`
  (credential.type in (${sql.join(oauthTypeNames.map((name) => sql.lit(name)))}) and ${isSo})`;
  }
  throw unknownMember(table.credentialTypes satisfies never);
}
const storedTokens = (condition: RawBuilder<unknown>): RawBuilder<boolean> =>
  heldIn(oauthTokens, condition);
const besideVersions = ciphertextTables.filter(({ rows }) => rows === 'one');

/**
 * Whether anything of a team may be exposed: one of its own keys is marked, or any at all and it
 * once received a credential from others, with the keys of these in its list.
 */
export const mayBeExposed = (team: RawBuilder<unknown>): RawBuilder<boolean> => sql<boolean>`
  (exists (select 1 from data_key marked where marked.team_id = ${team}
    and marked.compromised_at is not null)
    or ((select has_received from team receiver where receiver.id = ${team}) and ${isAnyMarked}))`;

/**
 * Whether a compromised key ever protected the values of the version with this history, or what is
 * held beside it.
 */
export const exposedSql = (history: RawBuilder<unknown>): RawBuilder<boolean> => {
  const conditions = [
    holdsMarked(history),
    ...besideVersions.map((table) => heldIn(table, holdsMarked(sql`held.key_history`))),
  ];
  return sql<boolean>`(${isAnyMarked} and (${sql.join(conditions, sql` or `)}))`;
};

/** The condition of one problem, over the aliases `credential` and `current`. */
export function problemCondition(problem: ProblemName, now: Now): RawBuilder<boolean> {
  switch (problem) {
    case 'disabled':
      return sql<boolean>`credential.state = 'disabled'`;
    case 'undecryptable':
      return sql<boolean>`current.undecryptable_at is not null`;
    case 'exposed':
      return exposedSql(sql`current.key_history`);
    // What cannot be made new by itself: refused for good, or over without a refresh token.
    case 'refreshFailed':
      return storedTokens(
        sql`(held.failure is not null or (held.token is not null and held.expires_at <= ${now}
          and not held.is_refreshable))`,
      );
    // Nobody connected an account, and the version brings no tokens that count.
    case 'notConnected':
      return sql<boolean>`
        (credential.type in (${sql.join(oauthTypeNames.map((name) => sql.lit(name)))})
          and current.public_fields ->> 'grant' is distinct from 'clientCredentials'
          and coalesce(
            (select held.token is null and not (held.takes_version and ${bringsTokens})
              from oauth_token held where held.credential_id = credential.id),
            not ${bringsTokens}))`;
    // Three fresh access tokens in a row were refused where they were used.
    case 'rejectedByUpstream':
      return storedTokens(sql`held.rejected_at is not null`);
    case 'expired':
      return sql<boolean>`credential.expires_at <= ${now}`;
    case 'expiring':
      return sql<boolean>`(credential.expires_at > ${now}
        and credential.expires_at <= ${now}::timestamptz +
        make_interval(hours => ${sql.lit(expiringHours)}))`;
    // What was written out of an entry of the catalogue is what an earlier revision of it said.
    case 'providerOutdated':
      return sql<boolean>`(credential.type
        in (${sql.join(oauthTypeNames.map((name) => sql.lit(name)))}) and coalesce(
        (current.public_fields -> 'providerRevision') <
          (${sql.lit(revisions)}::jsonb -> (current.public_fields ->> 'provider')), false))`;
  }
  throw unknownMember(problem satisfies never);
}

/** Whether the version has tokens to start with. */
const bringsTokens = sql`current.secret_field_names && array['accessToken', 'refreshToken']`;

/** The problems of a row as a text array, worst first. */
export function problemsColumn(now: Now): RawBuilder<string[]> {
  const cases = problemNames.map(
    (problem) => sql`case when ${problemCondition(problem, now)} then ${sql.lit(problem)} end`,
  );
  return sql<string[]>`array_remove(array[${sql.join(cases)}], null)`;
}

/** The worst of the problems. */
export const healthOf = (problems: readonly ProblemName[]): Health => problems[0] ?? 'ok';
