// The SQL of lists, composed from what is asked. First the ids of a page are found, by walking an
// index of each team; then what is told of them is read. Nothing walks further than it is told to,
// however little the filters let through.
import { type RawBuilder, sql } from 'kysely';
import { contentBytes, upToBytes } from '../../db/bytes.ts';
import { unseen } from '../../db/statement.ts';
import { pageItemsDefault, pageItemsMax } from '../../shared/limits.ts';
import type { CredentialId } from '../../shared/ids.ts';
import type { Beside, Condition } from './filters.ts';
import { columns, joins } from '../repository.ts';
import { keyText, type Order, type Sort, type SortName, sorts } from './sorts.ts';
import type { GrantRow } from '../../access/index.ts';
import { grantsSql } from '../../access/sql.ts';
import type { CredentialRow } from '../rows.ts';

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

/** What a list is asked for. Values may be those of one request, or the places of such. */
export interface Asked {
  /** Who reads. */
  readonly subject: unknown;
  readonly sort: SortName;
  readonly order: Order;
  /** The place of the last row before. */
  readonly after: readonly unknown[] | undefined;
  readonly limit: unknown;
  readonly isDeleted: boolean;
  readonly conditions: readonly Condition[];
  /** How many rows of each team are looked at, where more is asked of them than the index knows. */
  readonly walkedMax: unknown;
  /** How many bytes of content are read; one row at the least. */
  readonly bytesMax: unknown;
}

/**
 * Whether rows are looked at that do not stand in the list, so that the walk has to have an end.
 */
export const isFiltered = (search: Asked): boolean =>
  !knowsState(search) || leftOf(search).length > 0;
const knowsState = ({ sort, isDeleted }: Asked): boolean => isDeleted || sorts[sort].isOfLiving;
/** What the order's index does not answer. */
export const leftOf = ({ sort, conditions }: Asked): readonly Condition[] =>
  conditions.filter(({ servedBy }) => !servedBy.includes(sort));

export const and = (conditions: readonly RawBuilder<unknown>[]): RawBuilder<unknown> =>
  sql.join(conditions, sql` and `);
export const idOf = ({ table }: Sort): RawBuilder<unknown> =>
  table === 'usage' ? sql`usage.credential_id` : sql`credential.id`;
export const direction = (order: Order): RawBuilder<unknown> => sql.raw(order);
export const stateOf = ({ isDeleted }: Asked): RawBuilder<unknown> =>
  isDeleted ? sql`credential.state = 'deleted'` : sql`credential.state <> 'deleted'`;
export const limitOf = (rows: unknown): RawBuilder<unknown> => sql`limit ${unseen(rows, 'int')}`;
export const idsOf = (ids: unknown): RawBuilder<unknown> => sql`unnest(${unseen(ids, 'uuid[]')})`;

/** Beyond a place, or up to one. */
export function range(
  sort: Sort,
  operators: readonly [string, string],
  [key, id]: readonly unknown[],
): RawBuilder<unknown> {
  const [whole, first] = [sql.raw(operators[0]), sql.raw(operators[1])];
  const at = unseen(key, sort.type);
  // Said twice: the index on names ends with the name, and would not serve the pair.
  return sql`${sort.key} ${first} ${at}
    and (${sort.key}, ${idOf(sort)}) ${whole} (${at}, ${unseen(id, 'uuid')})`;
}
export const beyond = ({ sort, order, after }: Asked): readonly RawBuilder<unknown>[] =>
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
export const credentialOf = (alias: string): RawBuilder<unknown> => sql`
  cross join lateral (select * from credential where credential.team_id = ${sql.ref(alias)}.team_id
    and credential.id = ${sql.ref(alias)}.id offset 0) credential`;
/** A living team. */
export const teamOf = (id: RawBuilder<unknown>): RawBuilder<unknown> => sql`
  cross join lateral (select team.id, team.slug from team where team.id = ${id}
    and team.deleted_at is null offset 0) team`;
const besides: Readonly<Record<Beside, RawBuilder<unknown>>> = {
  current: sql`cross join lateral (select current.key_history, current.undecryptable_at
    from credential_version current
    where current.team_id = credential.team_id and current.credential_id = credential.id
      and current.version = credential.current_version offset 0) current`,
  // Never together with the one above: a list asks for one problem.
  fields: sql`cross join lateral (select current.public_fields, current.secret_field_names
    from credential_version current
    where current.team_id = credential.team_id and current.credential_id = credential.id
      and current.version = credential.current_version offset 0) current`,
  labels: sql`cross join lateral (select labelled.labels from credential labelled
    where labelled.team_id = credential.team_id and labelled.id = credential.id offset 0) labelled`,
  usage: sql`cross join lateral (select usage.credential_id, usage.idle_since
    from credential_usage usage where usage.team_id = credential.team_id
    and usage.credential_id = credential.id offset 0) usage`,
};
export const joinsFor = (
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
export function walk(
  team: RawBuilder<unknown>,
  search: Asked,
  tail: RawBuilder<unknown>,
  upTo?: readonly unknown[],
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
  return sql`select ${source.columns}, ${sort.key} as key from ${source.from} where ${and(where)}
    order by ${sort.key} ${direction(order)}, ${idOf(sort)} ${direction(order)} ${tail}`;
}

export const ordering = (alias: string, { order }: Asked): RawBuilder<unknown> =>
  sql`order by ${sql.ref(alias)}.key ${direction(order)}, ${sql.ref(alias)}.id ${direction(order)}`;

/**
 * What is wanted of found rows: what says which they are, or all columns of `credential`; and their
 * `key`.
 */
type Wanted = 'places' | 'rows';

/** The rows of one team that stand in the list. */
export function find(
  team: RawBuilder<unknown>,
  search: Asked,
  wanted: Wanted,
): RawBuilder<unknown> {
  const isOfUses = sorts[search.sort].table === 'usage';
  const at = sql.ref(isOfUses ? 'walked' : 'credential');
  const rows = isOfUses ? sql`credential.*, walked.key` : sql`credential.*`;
  const columns = wanted === 'places' ? sql`${at}.id, ${at}.team_id, ${at}.key` : rows;
  if (!isFiltered(search))
    return sql`select ${columns} from (${walk(team, search, limitOf(search.limit))}) credential`;
  const left = leftOf(search);
  const conditions = [
    ...(knowsState(search) ? [] : [stateOf(search)]),
    ...left.map((condition) => condition.sql),
  ];
  return sql`
    select ${columns}
      from (${walk(team, search, limitOf(search.walkedMax))}) ${at}
      ${isOfUses ? credentialOf('walked') : sql``} ${joinsFor(left)}
    where ${and(conditions)}
    order by ${at}.key ${direction(search.order)}, ${at}.id ${direction(search.order)}
      ${limitOf(search.limit)}`;
}

/** One search in each of the living teams, merged. */
export const findInTeams = (
  teams: unknown,
  search: Asked,
  inTeam: RawBuilder<unknown>,
): RawBuilder<unknown> => sql`
  select found.* from ${idsOf(teams)} as readable (id) ${teamOf(sql`readable.id`)}
    cross join lateral (${inTeam}) found
  ${ordering('found', search)} ${limitOf(search.limit)}`;

/**
 * What is told of what was found: rows of `credential` with their `key`. Whether these are few is
 * all that the planner is to know.
 */
export function readFound(
  credential: RawBuilder<unknown>,
  search: Asked,
  now: unknown,
  { isShort }: { isShort: boolean },
): RawBuilder<PlacedRow> {
  const few = sql.lit((isShort ? pageItemsDefault : pageItemsMax) + 1);
  const all = sql`
    select ${columns(unseen(now, 'timestamptz'))},
      ${keyText(sorts[search.sort], sql`credential.key`)} as "sortKey",
      ${grantsSql(sql`${search.subject}::uuid`)} as grants,
      credential.key, ${contentBytes('current')} as bytes
    from (select * from (${credential}) found
      limit ${few}) credential ${teamOf(sql`credential.team_id`)} ${joins}`;
  const order = sql`key ${direction(search.order)}, id ${direction(search.order)}`;
  return sql<PlacedRow>`${upToBytes(all, order, search.bytesMax)}`;
}

/**
 * A page of one team, or of several, each of which gives at most a page. `teams` is then all of
 * their ids, otherwise the one.
 */
export function pageSql(
  teams: unknown,
  search: Asked,
  now: unknown,
  { isShort, isOneTeam }: { isShort: boolean; isOneTeam: boolean },
): RawBuilder<PlacedRow> {
  // Whole rows at once where all that are read stand in the list, or are read anyway; else places,
  // for which an index may do.
  const wanted =
    isOneTeam && (leftOf(search).length === 0 || sorts[search.sort].table === 'usage')
      ? 'rows'
      : 'places';
  const found = isOneTeam
    ? find(unseen(teams, 'uuid'), search, wanted)
    : findInTeams(teams, search, find(sql`team.id`, search, wanted));
  return readFound(
    wanted === 'rows'
      ? found
      : sql`select credential.*, found.key from (${found}) found ${credentialOf('found')}`,
    search,
    now,
    { isShort },
  );
}
