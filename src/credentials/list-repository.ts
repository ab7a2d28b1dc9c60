// Lists in SQL. First the ids of a page are found, by walking an index of each team; then what is
// told of them is read. Nothing walks further than it is told to, however little the filters let
// through.
import { type RawBuilder, sql } from 'kysely';
import { contentBytes, upToBytes } from '../db/bytes.ts';
import type { Executor } from '../db/client.ts';
import { unseen } from '../db/statement.ts';
import { type GrantRow, grantsSql } from '../http/grants.ts';
import { pageItemsDefault, pageItemsMax } from '../http/limits.ts';
import { rightsColumns, rightsJoin, type RightsRow } from '../http/rights.ts';
import type { CredentialId, SubjectId, TeamId } from '../shared/ids.ts';
import type { Beside, Condition } from './filters.ts';
import { columns, type CredentialRow, joins } from './repository.ts';
import { keyText, type Order, type Sort, type SortName, sorts } from './sorts.ts';

/** A row with its place in the list. */
export type PlacedRow = CredentialRow & {
  readonly sortKey: string /** Those that concern the reader. */;
  readonly grants: readonly GrantRow[] | null;
  /** How many rows the page has, read or not. */
  readonly found: number;
};
/** What an editor's completion needs. */
export interface NameRow {
  readonly id: CredentialId;
  readonly slug: string;
  readonly name: string;
  readonly type: string;
  readonly sortKey: string;
}

export interface Search {
  /** Who reads. */
  readonly subject: SubjectId;
  readonly sort: SortName;
  readonly order: Order;
  /** The place of the last row before. */
  readonly after: readonly string[] | undefined;
  readonly limit: number;
  readonly isDeleted: boolean;
  readonly conditions: readonly Condition[];
  /** How many rows of each team are looked at, where more is asked of them than the index knows. */
  readonly walkedMax: number;
  /** How many bytes of content are read; one row at the least. */
  readonly bytesMax: number;
}

/**
 * Whether rows are looked at that do not stand in the list, so that the walk has to have an end.
 */
export const isFiltered = (search: Search): boolean =>
  !knowsState(search) || leftOf(search).length > 0;
const knowsState = ({ sort, isDeleted }: Search): boolean => isDeleted || sorts[sort].isOfLiving;
/** What the order's index does not answer. */
const leftOf = ({ sort, conditions }: Search): readonly Condition[] =>
  conditions.filter(({ servedBy }) => !servedBy.includes(sort));

const and = (conditions: readonly RawBuilder<unknown>[]): RawBuilder<unknown> =>
  sql.join(conditions, sql` and `);
const idOf = ({ table }: Sort): RawBuilder<unknown> =>
  table === 'usage' ? sql`usage.credential_id` : sql`credential.id`;
const direction = (order: Order): RawBuilder<unknown> => sql.raw(order);
const stateOf = ({ isDeleted }: Search): RawBuilder<unknown> =>
  isDeleted ? sql`credential.state = 'deleted'` : sql`credential.state <> 'deleted'`;
const limitOf = (rows: number): RawBuilder<unknown> => sql`limit ${unseen(rows, 'int')}`;
const idsOf = (ids: readonly string[]): RawBuilder<unknown> =>
  sql`unnest(${unseen(ids, 'uuid[]')})`;

/** Beyond a place, or up to one. */
function range(
  sort: Sort,
  operators: readonly [string, string],
  [key, id]: readonly string[],
): RawBuilder<unknown> {
  const [whole, first] = [sql.raw(operators[0]), sql.raw(operators[1])];
  const at = unseen(key, sort.type);
  // Said twice: the index on names ends with the name, and would not serve the pair.
  return sql`${sort.key} ${first} ${at} and (${sort.key}, ${idOf(sort)}) ${whole} (${at}, ${unseen(id, 'uuid')})`;
}
const beyond = ({ sort, order, after }: Search): readonly RawBuilder<unknown>[] =>
  after === undefined
    ? []
    : [range(sorts[sort], order === 'asc' ? ['>', '>='] : ['<', '<='], after)];

const sources = {
  credential: { from: sql`credential`, team: sql`credential.team_id`, columns: sql`credential.*` },
  usage: {
    from: sql`credential_usage usage`,
    team: sql`usage.team_id`,
    columns: sql`usage.team_id, usage.credential_id as id`,
  },
} as const satisfies Record<Sort['table'], object>;

// One row by its key for each row that is walked, and the team first: a team's entries lie side by
// side in the index, those of one time do not. `offset 0` keeps the planner from reading the whole
// table instead, which it takes for cheaper as long as it is small.
const credentialOf = (alias: string): RawBuilder<unknown> => sql`
  cross join lateral (select * from credential where credential.team_id = ${sql.ref(alias)}.team_id and credential.id = ${sql.ref(alias)}.id offset 0) credential`;
/** A living team. */
const teamOf = (id: RawBuilder<unknown>): RawBuilder<unknown> => sql`
  cross join lateral (select team.id, team.slug from team where team.id = ${id} and team.deleted_at is null offset 0) team`;
const besides: Readonly<Record<Beside, RawBuilder<unknown>>> = {
  current: sql`cross join lateral (select current.key_history, current.undecryptable_at from credential_version current
    where current.team_id = credential.team_id and current.credential_id = credential.id and current.version = credential.current_version offset 0) current`,
  labels: sql`cross join lateral (select labelled.labels from credential labelled where labelled.team_id = credential.team_id and labelled.id = credential.id offset 0) labelled`,
  usage: sql`cross join lateral (select usage.credential_id, usage.idle_since from credential_usage usage where usage.team_id = credential.team_id and usage.credential_id = credential.id offset 0) usage`,
};
const joinsFor = (
  conditions: readonly Condition[],
  ...more: readonly Beside[]
): RawBuilder<unknown> =>
  sql.join(
    [...new Set([...conditions.flatMap(({ beside }) => beside ?? []), ...more])].map(
      (each) => besides[each],
    ),
    sql` `,
  );

/**
 * The rows of one team in the order of the index, filtered by what it knows, with their `key`;
 * those of `credential` with all their columns. Where no others are asked for than the index has,
 * the planner reads nothing else.
 */
function walk(
  team: RawBuilder<unknown>,
  search: Search,
  tail: RawBuilder<unknown>,
  upTo?: readonly string[],
): RawBuilder<unknown> {
  const { sort: name, order, conditions } = search;
  const sort = sorts[name];
  const source = sources[sort.table];
  const where = [
    sql`${source.team} = ${team}`,
    ...(knowsState(search) ? [stateOf(search)] : []),
    ...(sort.has === undefined ? [] : [sort.has]),
    ...conditions
      .filter(({ servedBy }) => servedBy.includes(name))
      .map((condition) => condition.sql),
    ...beyond(search),
    ...(upTo === undefined
      ? []
      : [range(sort, order === 'asc' ? ['<=', '<='] : ['>=', '>='], upTo)]),
  ];
  return sql`select ${source.columns}, ${sort.key} as key from ${source.from} where ${and(where)} order by ${sort.key} ${direction(order)}, ${idOf(sort)} ${direction(order)} ${tail}`;
}

const ordering = (alias: string, { order }: Search): RawBuilder<unknown> =>
  sql`order by ${sql.ref(alias)}.key ${direction(order)}, ${sql.ref(alias)}.id ${direction(order)}`;

/**
 * What is wanted of found rows: what says which they are, or all columns of `credential`; and their
 * `key`.
 */
type Wanted = 'places' | 'rows';

/** The rows of one team that stand in the list. */
function find(team: RawBuilder<unknown>, search: Search, wanted: Wanted): RawBuilder<unknown> {
  const isOfUses = sorts[search.sort].table === 'usage';
  const at = sql.ref(isOfUses ? 'walked' : 'credential');
  const rows = isOfUses ? sql`credential.*, walked.key` : sql`credential.*`;
  const columns = wanted === 'places' ? sql`${at}.id, ${at}.team_id, ${at}.key` : rows;
  if (!isFiltered(search))
    return sql`select ${columns} from (${walk(team, search, limitOf(search.limit))}) credential`;
  const left = leftOf(search);
  return sql`
    select ${columns} from (${walk(team, search, limitOf(search.walkedMax))}) ${at} ${isOfUses ? credentialOf('walked') : sql``} ${joinsFor(left)}
    where ${and([...(knowsState(search) ? [] : [stateOf(search)]), ...left.map((condition) => condition.sql)])} order by ${at}.key ${direction(search.order)}, ${at}.id ${direction(search.order)} ${limitOf(search.limit)}`;
}

/** One search in each of the living teams, merged. */
const findInTeams = (
  teams: readonly TeamId[],
  search: Search,
  inTeam: RawBuilder<unknown>,
): RawBuilder<unknown> => sql`
  select found.* from ${idsOf(teams)} as readable (id) ${teamOf(sql`readable.id`)} cross join lateral (${inTeam}) found
  ${ordering('found', search)} ${limitOf(search.limit)}`;

/**
 * What is told of what was found: rows of `credential` with their `key`. That these are few is all
 * that the planner is to know.
 */
async function readFound(
  executor: Executor,
  credential: RawBuilder<unknown>,
  search: Search,
  now: Date,
): Promise<PlacedRow[]> {
  const few = sql.lit((search.limit <= pageItemsDefault + 1 ? pageItemsDefault : pageItemsMax) + 1);
  const all = sql`
    select ${columns(unseen(now, 'timestamptz'))}, ${keyText(sorts[search.sort], sql`credential.key`)} as "sortKey", ${grantsSql(sql`${search.subject}::uuid`)} as grants,
      credential.key, ${contentBytes('current')} as bytes
    from (select * from (${credential}) found limit ${few}) credential ${teamOf(sql`credential.team_id`)} ${joins}`;
  const order = sql`key ${direction(search.order)}, id ${direction(search.order)}`;
  const { rows } = await sql<PlacedRow>`${upToBytes(all, order, search.bytesMax)}`.execute(
    executor,
  );
  return rows;
}

/** A page of one team, or of several, each of which gives at most a page. */
export async function listCredentials(
  executor: Executor,
  teams: readonly TeamId[],
  search: Search,
  now: Date,
): Promise<PlacedRow[]> {
  // Whole rows at once where all that are read stand in the list, or are read anyway; else places,
  // for which an index may do.
  const wanted =
    teams.length === 1 && (leftOf(search).length === 0 || sorts[search.sort].table === 'usage')
      ? 'rows'
      : 'places';
  const found =
    teams.length === 1
      ? find(unseen(teams[0], 'uuid'), search, wanted)
      : findInTeams(teams, search, find(sql`team.id`, search, wanted));
  return readFound(
    executor,
    wanted === 'rows'
      ? found
      : sql`select credential.*, found.key from (${found}) found ${credentialOf('found')}`,
    search,
    now,
  );
}

/** A page of those of these ids that stand in the list. */
export async function listCredentialsOf(
  executor: Executor,
  ids: readonly CredentialId[],
  teams: readonly TeamId[],
  search: Search,
  now: Date,
): Promise<PlacedRow[]> {
  const sort = sorts[search.sort];
  const where = [
    sql`credential.team_id in (select ${idsOf(teams)})`,
    stateOf(search),
    ...(sort.has === undefined ? [] : [sort.has]),
    ...search.conditions.map((condition) => condition.sql),
    ...beyond(search),
  ];
  const found = sql`
    select credential.*, ${sort.key} as key from ${idsOf(ids)} as wanted (id) cross join lateral (select * from credential where credential.id = wanted.id offset 0) credential
    ${joinsFor(search.conditions, ...(sort.table === 'usage' ? ['usage' as const] : []))}
    where ${and(where)} order by ${sort.key} ${direction(search.order)}, ${idOf(sort)} ${direction(search.order)} ${limitOf(search.limit)}`;
  return readFound(executor, found, search, now);
}

/** Those of the teams in which the conditions may hold for anything. */
export async function listTeamsConcerned(
  executor: Executor,
  teams: readonly TeamId[],
  asked: readonly RawBuilder<unknown>[],
): Promise<TeamId[]> {
  const { rows } = await sql<{
    id: TeamId;
  }>`select team.id from ${idsOf(teams)} as team (id) where ${and(asked)}`.execute(executor);
  return rows.map(({ id }) => id);
}

/** The ids for which a condition may hold, by its index; at most so many. */
export async function findFew(
  executor: Executor,
  teams: readonly TeamId[],
  few: RawBuilder<unknown>,
  limit: number,
): Promise<CredentialId[]> {
  const { rows } = await sql<{ id: CredentialId }>`
    select found.id from ${idsOf(teams)} as team (id) cross join lateral (${few} ${limitOf(limit)}) found ${limitOf(limit)}`.execute(
    executor,
  );
  return rows.map(({ id }) => id);
}

/**
 * The first place at which the walk through some team ended, up to a place; undefined where every
 * team was walked to its end, or that far.
 */
export async function findEndOfWalk(
  executor: Executor,
  teams: readonly TeamId[],
  search: Search,
  upTo: readonly string[] | undefined,
): Promise<readonly string[] | undefined> {
  const sort = sorts[search.sort];
  const last = walk(
    sql`team.id`,
    search,
    sql`offset ${unseen(search.walkedMax - 1, 'int')} limit 1`,
    upTo,
  );
  const {
    rows: [row],
  } = await sql<{ key: string; id: string }>`
    select ${keyText(sort, sql`found.key`)} as key, found.id from (${findInTeams(teams, { ...search, limit: 1 }, sql`select last.id, last.key from (${last}) last`)}) found`.execute(
    executor,
  );
  return row === undefined ? undefined : [row.key, row.id];
}

/**
 * Names and no more, from the index on names. Of the filters only what stands in it: the prefix and
 * the type.
 */
export async function listNames(
  executor: Executor,
  teams: readonly TeamId[],
  search: Search,
): Promise<NameRow[]> {
  const left = leftOf(search);
  const walked = walk(
    sql`team.id`,
    search,
    limitOf(left.length === 0 ? search.limit : search.walkedMax),
  );
  const names = sql`
    select credential.id, credential.key, credential.type from (${walked}) credential
    ${left.length === 0 ? sql`` : sql`where ${and(left.map((condition) => condition.sql))} ${ordering('credential', search)} ${limitOf(search.limit)}`}`;
  const { rows } = await sql<NameRow>`
    select found.id, team.slug, found.key as name, found.type, found.key as "sortKey"
    from ${idsOf(teams)} as readable (id) ${teamOf(sql`readable.id`)} cross join lateral (${names}) found
    ${ordering('found', search)} ${limitOf(search.limit)}`.execute(executor);
  return rows;
}

/** Names of those of these ids that stand in the list. */
export async function listNamesOf(
  executor: Executor,
  ids: readonly CredentialId[],
  search: Search,
): Promise<NameRow[]> {
  const where = [
    sql`credential.state <> 'deleted'`,
    ...search.conditions.map((condition) => condition.sql),
    ...beyond({ ...search, sort: 'name' }),
  ];
  const { rows } = await sql<NameRow>`
    select credential.id, team.slug, credential.name, credential.type, credential.name as "sortKey"
    from ${idsOf(ids)} as wanted (id) cross join lateral (select * from credential where credential.id = wanted.id offset 0) credential
    ${teamOf(sql`credential.team_id`)} where ${and(where)}
    order by credential.name collate "C" ${direction(search.order)}, credential.id ${direction(search.order)} ${limitOf(search.limit)}`.execute(
    executor,
  );
  return rows;
}

/** The living teams in which the subject has a membership row, with what it is worth. */
export async function listTeamsWithRights(
  executor: Executor,
  subject: SubjectId,
): Promise<({ readonly id: TeamId; readonly slug: string } & RightsRow)[]> {
  const who = unseen(subject, 'uuid');
  const { rows } = await sql<{ id: TeamId; slug: string } & RightsRow>`
    select team.id, team.slug, ${rightsColumns} from membership own ${teamOf(sql`own.team_id`)} ${rightsJoin(who)} where own.subject_id = ${who}`.execute(
    executor,
  );
  return rows;
}
