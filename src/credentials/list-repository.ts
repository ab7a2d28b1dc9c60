// Lists in SQL. First the ids of a page are found, by walking an index of each team; then what is told of them is read. Nothing walks
// further than it is told to, however little the filters let through.
import { type RawBuilder, sql } from 'kysely';
import type { Executor } from '../db/client.ts';
import { type GrantRow, grantsSql } from '../http/grants.ts';
import { rightsColumns, rightsJoin, type RightsRow } from '../http/rights.ts';
import type { CredentialId, SubjectId, TeamId } from '../shared/ids.ts';
import type { Beside, Condition } from './filters.ts';
import { columns, type CredentialRow, joins } from './repository.ts';
import { keyText, type Order, type Sort, type SortName, sorts } from './sorts.ts';

/** A row with its place in the list. */
export type PlacedRow = CredentialRow & { readonly sortKey: string; /** Those that concern the reader. */ readonly grants: readonly GrantRow[] | null };
/** What an editor's completion needs. */
export interface NameRow { readonly id: CredentialId; readonly slug: string; readonly name: string; readonly type: string; readonly sortKey: string }

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
}

/** Whether rows are looked at that do not stand in the list, so that the walk has to have an end. */
export const isFiltered = (search: Search): boolean => !knowsState(search) || leftOf(search).length > 0;
const knowsState = ({ sort, isDeleted }: Search): boolean => isDeleted || sorts[sort].isOfLiving;
/** What the order's index does not answer. */
const leftOf = ({ sort, conditions }: Search): readonly Condition[] => conditions.filter(({ servedBy }) => !servedBy.includes(sort));

const and = (conditions: readonly RawBuilder<unknown>[]): RawBuilder<unknown> => sql.join(conditions, sql` and `);
const idOf = ({ table }: Sort): RawBuilder<unknown> => (table === 'usage' ? sql`usage.credential_id` : sql`credential.id`);
const direction = (order: Order): RawBuilder<unknown> => sql.raw(order);
const stateOf = ({ isDeleted }: Search): RawBuilder<unknown> => (isDeleted ? sql`credential.state = 'deleted'` : sql`credential.state <> 'deleted'`);

/** Beyond a place, or up to one. */
function range(sort: Sort, operators: readonly [string, string], [key, id]: readonly string[]): RawBuilder<unknown> {
  const [whole, first] = [sql.raw(operators[0]), sql.raw(operators[1])];
  const at = sql`${key}::${sql.raw(sort.type)}`;
  // Said twice: the index on names ends with the name, and would not serve the pair.
  return sql`${sort.key} ${first} ${at} and (${sort.key}, ${idOf(sort)}) ${whole} (${at}, ${id}::uuid)`;
}

const sources = {
  credential: { from: sql`credential`, team: sql`credential.team_id` },
  usage: { from: sql`credential_usage usage`, team: sql`usage.team_id` },
} as const satisfies Record<Sort['table'], object>;

// One row by its key for each row that is walked. `offset 0` keeps the planner from reading the whole table instead, which it takes
// for cheaper as long as the table is small.
const credentialOf = (id: RawBuilder<unknown>): RawBuilder<unknown> => sql`
  cross join lateral (select credential.id, credential.name, credential.type, credential.labels, credential.state, credential.current_version, credential.expires_at, credential.due_at, credential.updated_at
    from credential where credential.id = ${id} offset 0) credential`;
const besides: Readonly<Record<Beside, RawBuilder<unknown>>> = {
  current: sql`cross join lateral (select current.key_history, current.undecryptable_at from credential_version current
    where current.credential_id = credential.id and current.version = credential.current_version offset 0) current`,
  usage: sql`cross join lateral (select usage.credential_id, usage.idle_since from credential_usage usage where usage.credential_id = credential.id offset 0) usage`,
};
const joinsFor = (conditions: readonly Condition[], ...more: readonly Beside[]): RawBuilder<unknown> =>
  sql.join([...new Set([...conditions.flatMap(({ beside }) => beside ?? []), ...more])].map((each) => besides[each]), sql` `);

/** The rows of one team in the order of the index, filtered by what it knows. */
function walk(team: RawBuilder<unknown>, search: Search, { columns: wanted, tail, upTo }: { columns: RawBuilder<unknown>; tail: RawBuilder<unknown>; upTo?: readonly string[] | undefined }): RawBuilder<unknown> {
  const { sort: name, order, after, conditions } = search;
  const sort = sorts[name];
  const source = sources[sort.table];
  const where = [
    sql`${source.team} = ${team}`, ...(knowsState(search) ? [stateOf(search)] : []), ...(sort.has === undefined ? [] : [sort.has]),
    ...conditions.filter(({ servedBy }) => servedBy.includes(name)).map((condition) => condition.sql),
    ...(after === undefined ? [] : [range(sort, order === 'asc' ? ['>', '>='] : ['<', '<='], after)]),
    ...(upTo === undefined ? [] : [range(sort, order === 'asc' ? ['<=', '<='] : ['>=', '>='], upTo)]),
  ];
  return sql`select ${wanted} from ${source.from} where ${and(where)} ${ordering(search)} ${tail}`;
}

function ordering({ sort: name, order }: Search): RawBuilder<unknown> {
  const sort = sorts[name];
  return sql`order by ${sort.key} ${direction(order)}, ${idOf(sort)} ${direction(order)}`;
}

/** The ids of one team that stand in the list, with their keys. */
function find(team: RawBuilder<unknown>, search: Search): RawBuilder<unknown> {
  const sort = sorts[search.sort];
  const limit = sql`limit ${search.limit}`;
  if (!isFiltered(search)) return walk(team, search, { columns: sql`credential.id, ${sort.key} as key`, tail: limit });
  const walked = walk(team, search, { columns: sql`${idOf(sort)} as id, ${sort.key} as key`, tail: sql`limit ${search.walkedMax}` });
  const left = leftOf(search);
  return sql`
    select walked.id, walked.key from (${walked}) walked ${credentialOf(sql`walked.id`)} ${joinsFor(left)}
    where ${and([stateOf(search), ...left.map((condition) => condition.sql)])} order by walked.key ${direction(search.order)}, walked.id ${direction(search.order)} ${limit}`;
}

/** One search in each of the living teams, merged. */
const findInTeams = (teams: readonly TeamId[], search: Search, inTeam: RawBuilder<unknown>): RawBuilder<unknown> => sql`
  select found.* from unnest(${teams}::uuid[]) as readable (id) join team on team.id = readable.id and team.deleted_at is null cross join lateral (${inTeam}) found
  order by found.key ${direction(search.order)}, found.id ${direction(search.order)} limit ${search.limit}`;

/** What is told of what was found. */
async function readFound(executor: Executor, found: RawBuilder<unknown>, { sort, order, subject }: Search, now: Date): Promise<PlacedRow[]> {
  const { rows } = await sql<PlacedRow>`
    select ${columns(now)}, ${keyText(sorts[sort], sql`found.key`)} as "sortKey", ${grantsSql(sql`${subject}::uuid`)} as grants
    from (${found}) found join credential on credential.id = found.id join team on team.id = credential.team_id ${joins}
    order by found.key ${direction(order)}, found.id ${direction(order)}`.execute(executor);
  return rows;
}

/** A page of one team, or of several, each of which gives at most a page. */
export async function listCredentials(executor: Executor, teams: readonly TeamId[], search: Search, now: Date): Promise<PlacedRow[]> {
  return readFound(executor, teams.length === 1 ? find(sql`${teams[0]}::uuid`, search) : findInTeams(teams, search, find(sql`team.id`, search)), search, now);
}

/** A page of those of these ids that stand in the list. */
export async function listCredentialsOf(executor: Executor, ids: readonly CredentialId[], teams: readonly TeamId[], search: Search, now: Date): Promise<PlacedRow[]> {
  const sort = sorts[search.sort];
  const where = [
    sql`credential.id = any(${ids}::uuid[])`, sql`credential.team_id = any(${teams}::uuid[])`, stateOf(search), ...(sort.has === undefined ? [] : [sort.has]),
    ...search.conditions.map((condition) => condition.sql), ...(search.after === undefined ? [] : [range(sort, search.order === 'asc' ? ['>', '>='] : ['<', '<='], search.after)]),
  ];
  const found = sql`
    select credential.id, ${sort.key} as key from credential ${joinsFor(search.conditions, ...(sort.table === 'usage' ? ['usage' as const] : []))}
    where ${and(where)} ${ordering(search)} limit ${search.limit}`;
  return readFound(executor, found, search, now);
}

/** The ids for which a condition may hold, by its index; at most so many. */
export async function findFew(executor: Executor, teams: readonly TeamId[], few: RawBuilder<unknown>, limit: number): Promise<CredentialId[]> {
  const { rows } = await sql<{ id: CredentialId }>`
    select found.id from unnest(${teams}::uuid[]) as team (id) cross join lateral (${few} limit ${limit}) found limit ${limit}`.execute(executor);
  return rows.map(({ id }) => id);
}

/** The first place at which the walk through some team ended, up to a place; undefined where every team was walked to its end, or that far. */
export async function findEndOfWalk(executor: Executor, teams: readonly TeamId[], search: Search, upTo: readonly string[] | undefined): Promise<readonly string[] | undefined> {
  const sort = sorts[search.sort];
  const last = walk(sql`team.id`, search, { columns: sql`${idOf(sort)} as id, ${sort.key} as key`, tail: sql`offset ${search.walkedMax - 1} limit 1`, upTo });
  const { rows: [row] } = await sql<{ key: string; id: string }>`
    select ${keyText(sort, sql`found.key`)} as key, found.id from (${findInTeams(teams, { ...search, limit: 1 }, last)}) found`.execute(executor);
  return row === undefined ? undefined : [row.key, row.id];
}

/** Names and no more, from the index on names. Of the filters only what stands in it: the prefix and the type. */
export async function listNames(executor: Executor, teams: readonly TeamId[], search: Search): Promise<NameRow[]> {
  const left = leftOf(search);
  const tail = sql`limit ${left.length === 0 ? search.limit : search.walkedMax}`;
  const walked = walk(sql`team.id`, search, { columns: sql`credential.id, credential.name collate "C" as key, credential.type`, tail });
  const names = left.length === 0 ? walked : sql`
    select credential.id, credential.key, credential.type from (${walked}) credential where ${and(left.map((condition) => condition.sql))}
    order by credential.key ${direction(search.order)}, credential.id ${direction(search.order)} limit ${search.limit}`;
  const { rows } = await sql<NameRow>`
    select found.id, team.slug, found.key as name, found.type, found.key as "sortKey"
    from unnest(${teams}::uuid[]) as readable (id) join team on team.id = readable.id and team.deleted_at is null cross join lateral (${names}) found
    order by found.key ${direction(search.order)}, found.id ${direction(search.order)} limit ${search.limit}`.execute(executor);
  return rows;
}

/** Names of those of these ids that stand in the list. */
export async function listNamesOf(executor: Executor, ids: readonly CredentialId[], { after, order, limit, conditions }: Search): Promise<NameRow[]> {
  const where = [sql`credential.id = any(${ids}::uuid[])`, sql`credential.state <> 'deleted'`, ...conditions.map((condition) => condition.sql),
    ...(after === undefined ? [] : [range(sorts.name, order === 'asc' ? ['>', '>='] : ['<', '<='], after)])];
  const { rows } = await sql<NameRow>`
    select credential.id, team.slug, credential.name, credential.type, credential.name as "sortKey"
    from credential join team on team.id = credential.team_id and team.deleted_at is null where ${and(where)}
    order by credential.name collate "C" ${direction(order)}, credential.id ${direction(order)} limit ${limit}`.execute(executor);
  return rows;
}

/** The living teams in which the subject has a membership row, with what it is worth. */
export async function listTeamsWithRights(executor: Executor, subject: SubjectId): Promise<({ readonly id: TeamId; readonly slug: string } & RightsRow)[]> {
  const { rows } = await sql<{ id: TeamId; slug: string } & RightsRow>`
    select team.id, team.slug, ${rightsColumns} from team ${rightsJoin(subject)}
    where team.deleted_at is null and member.subject_id is not null`.execute(executor);
  return rows;
}
