// Lists, asked of the database. What people look at most, all of a team or of all their teams by
// name or by the last change, are statements that are composed once; with filters there are too
// many forms to keep.
import { type RawBuilder, sql } from 'kysely';
import type { Executor } from '../../db/client.ts';
import { type Statement, statement, unseen } from '../../db/statement.ts';
import { pageItemsDefault } from '../../shared/limits.ts';
import type { CredentialId, SubjectId, TeamId } from '../../shared/ids.ts';
import {
  and,
  type Asked,
  beyond,
  direction,
  findInTeams,
  idOf,
  idsOf,
  joinsFor,
  leftOf,
  limitOf,
  type NameRow,
  ordering,
  pageSql,
  type PlacedRow,
  readFound,
  stateOf,
  teamOf,
  walk,
} from './sql.ts';
import { keyText, type Order, type SortName, sorts } from './sorts.ts';
import type { RightsRow } from '../../access/index.ts';
import { rightsColumns, rightsJoin } from '../../access/sql.ts';

/** What a list is asked for, with the values of one request. */
export interface Search extends Asked {
  readonly subject: SubjectId;
  readonly after: readonly string[] | undefined;
  readonly limit: number;
  readonly walkedMax: number;
  readonly bytesMax: number;
}

const isShort = ({ limit }: Search): boolean => limit <= pageItemsDefault + 1;

interface PageParameters {
  readonly subject: SubjectId;
  readonly teams: TeamId | readonly TeamId[] | undefined;
  readonly now: Date;
  readonly limit: number;
  readonly bytesMax: number;
  readonly afterKey: string | undefined;
  readonly afterId: string | undefined;
}
interface PageForm {
  readonly sort: SortName;
  readonly order: Order;
  readonly isNext: boolean;
  readonly isOneTeam: boolean;
  readonly isShort: boolean;
}
const nameOf = ({ sort, order, isNext, isOneTeam, isShort }: PageForm): string =>
  [sort, order, isNext, isOneTeam, isShort].join();
const eitherWay = [true, false] as const;
const usualPages: ReadonlyMap<string, Statement<PageParameters, PlacedRow>> = new Map(
  (
    [
      ['name', 'asc'],
      ['updatedAt', 'desc'],
    ] as const
  ).flatMap(([sort, order]) =>
    eitherWay.flatMap((isNext) =>
      eitherWay.flatMap((isOneTeam) =>
        eitherWay.map((isShort) => {
          const form = { sort, order, isNext, isOneTeam, isShort };
          return [nameOf(form), usualPage(form)] as const;
        }),
      ),
    ),
  ),
);

/** A page of all living credentials in an order whose index has nothing else. */
function usualPage(form: PageForm): Statement<PageParameters, PlacedRow> {
  const { sort, order, isNext } = form;
  return statement((parameter) =>
    pageSql(
      parameter('teams'),
      {
        sort,
        order,
        subject: parameter('subject'),
        after: isNext ? [parameter('afterKey'), parameter('afterId')] : undefined,
        limit: parameter('limit'),
        isDeleted: false,
        conditions: [],
        walkedMax: undefined,
        bytesMax: parameter('bytesMax'),
      },
      parameter('now'),
      form,
    ),
  );
}

/** A page of one team, or of several, each of which gives at most a page. */
export async function listCredentials(
  executor: Executor,
  teams: readonly TeamId[],
  search: Search,
  now: Date,
): Promise<readonly PlacedRow[]> {
  const form = {
    sort: search.sort,
    order: search.order,
    isNext: search.after !== undefined,
    isOneTeam: teams.length === 1,
    isShort: isShort(search),
  };
  const asked = form.isOneTeam ? teams[0] : teams;
  const usual =
    search.isDeleted || search.conditions.length > 0 ? undefined : usualPages.get(nameOf(form));
  if (usual !== undefined) {
    const { subject, limit, bytesMax, after: [afterKey, afterId] = [] } = search;
    return usual(executor, { subject, teams: asked, now, limit, bytesMax, afterKey, afterId });
  }
  return (await pageSql(asked, search, now, form).execute(executor)).rows;
}

/** A page of those of these ids that stand in the list. */
export async function listCredentialsOf(
  executor: Executor,
  ids: readonly CredentialId[],
  teams: readonly TeamId[],
  search: Search,
  now: Date,
): Promise<readonly PlacedRow[]> {
  const sort = sorts[search.sort];
  const where = [
    sql`credential.team_id in (select ${idsOf(teams)})`,
    stateOf(search),
    ...(sort.has === undefined ? [] : [sort.has]),
    ...search.conditions.map((condition) => condition.sql),
    ...beyond(search),
  ];
  const found = sql`
    select credential.*, ${sort.key} as key from ${idsOf(ids)} as wanted (id)
      cross join lateral (select * from credential
      where credential.id = wanted.id offset 0) credential
    ${joinsFor(search.conditions, ...(sort.table === 'usage' ? ['usage' as const] : []))}
    where ${and(where)} order by ${sort.key} ${direction(search.order)},
      ${idOf(sort)} ${direction(search.order)} ${limitOf(search.limit)}`;
  const shape = { isShort: isShort(search) };
  return (await readFound(found, search, now, shape).execute(executor)).rows;
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
    select found.id from ${idsOf(teams)} as team (id)
      cross join lateral (${few} ${limitOf(limit)}) found ${limitOf(limit)}`.execute(executor);
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
    select ${keyText(sort, sql`found.key`)} as key, found.id
      from (${findInTeams(
        teams,
        { ...search, limit: 1 },
        sql`select last.id, last.key
      from (${last}) last`,
      )}) found`.execute(executor);
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
    ${
      left.length === 0
        ? sql``
        : sql`where ${and(left.map((condition) => condition.sql))}
      ${ordering('credential', search)} ${limitOf(search.limit)}`
    }`;
  const { rows } = await sql<NameRow>`
    select found.id, team.slug, found.key as name, found.type, found.key as "sortKey"
    from ${idsOf(teams)} as readable (id) ${teamOf(sql`readable.id`)}
      cross join lateral (${names}) found
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
    from ${idsOf(ids)} as wanted (id)
      cross join lateral (select * from credential
      where credential.id = wanted.id offset 0) credential
    ${teamOf(sql`credential.team_id`)} where ${and(where)}
    order by credential.name collate "C" ${direction(search.order)},
      credential.id ${direction(search.order)} ${limitOf(search.limit)}`.execute(executor);
  return rows;
}

const teamsWithRights = statement<{ subject: SubjectId }, { id: TeamId; slug: string } & RightsRow>(
  (parameter) => {
    const who = unseen(parameter('subject'), 'uuid');
    return sql`
    select team.id, team.slug, ${rightsColumns}
      from membership own ${teamOf(sql`own.team_id`)} ${rightsJoin(who)}
      where own.subject_id = ${who}`;
  },
);

/** The living teams in which the subject has a membership row, with what it is worth. */
export function listTeamsToSearch(
  executor: Executor,
  subject: SubjectId,
): Promise<readonly ({ readonly id: TeamId; readonly slug: string } & RightsRow)[]> {
  return teamsWithRights(executor, { subject });
}
