// Lists of credentials: whose, which, in what order, and the row MACs of what is shown. A page is
// found by indexes; where the filters ask more than they know, a bounded number of rows is looked
// at, and the page ends there, full or not.
import type { Keyring } from '../../crypto/index.ts';
import type { Db } from '../../db/client.ts';
import { pageBytesMax } from '../../shared/limits.ts';
import type { CredentialId, TeamId } from '../../shared/ids.ts';
import { conditionsOf, type CredentialFilters } from './filters.ts';
import * as repository from './repository.ts';
import type { Search } from './repository.ts';
import { countProblems, type ProblemCounts } from './problem-counts.ts';
import { verifyListedRowMac } from '../row-mac.ts';
import { comparePlaces, type Order, type SortName } from './sorts.ts';
import type { Page } from '../../shared/paging.ts';
import { isFiltered, type NameRow, type PlacedRow } from './sql.ts';
import {
  type Caller,
  isAllowed,
  listGrantsTo,
  type ResolvedResource,
  noGrantPaths,
  effectiveRoleOf,
  type TeamRef,
  grantPathFor,
  grantPathsOf,
  type SubjectBounds,
} from '../../access/index.ts';
import { type AuditLog, credentialTarget } from '../../audit/index.ts';
import type { CredentialRow } from '../rows.ts';

/** How far a page looks, where it has to look. */
export interface Bounds {
  /** How many rows in all; each team gives at least a page. */
  readonly walkedRowsMax: number;
  /** Up to how many ids that an index found are read, instead of walking. */
  readonly fewMax: number;
  /** How many bytes of content. */
  readonly bytesMax: number;
}
const usualBounds: Bounds = { walkedRowsMax: 5_000, fewMax: 500, bytesMax: pageBytesMax };

/** What a list is to hold, and in what order. */
export interface Listing {
  readonly filters: CredentialFilters;
  readonly sort: SortName;
  readonly order: Order /** Only what is shared: with the team, or with the caller by any grant. */;
  readonly isShared?: boolean;
}

/**
 * A listed row and by which ways; `isShown` is false where its row MAC does not verify: it takes
 * its place in the page and is left out.
 */
export interface ListedCredential {
  readonly row: CredentialRow;
  readonly resolved: Pick<ResolvedResource, 'role' | 'grantPaths'>;
  readonly isShown: boolean;
  readonly place: readonly string[];
}

/**
 * Found rows, one more than the page if there are so many; `end` is where the search ended before
 * that, with more behind it.
 */
export interface Found<T> {
  readonly rows: readonly T[];
  readonly end: readonly string[] | undefined;
}

/**
 * What somebody may list: all of these teams, and these credentials of others; and where the caller
 * is a member.
 */
interface Reach {
  readonly memberOf: readonly TeamId[];
  readonly teams: readonly TeamId[];
  readonly shared: ReadonlyMap<CredentialId, TeamId>;
}

/** What a tampered row kept from being listed. */
interface Hidden {
  readonly team: TeamRef;
  readonly target: { readonly type: string; readonly id: string };
}

export interface ListParts {
  readonly db: Db;
  readonly keyring: Keyring;
  /** What subjects may not, whatever a row says. */
  readonly subjectBounds: SubjectBounds;
  readonly audit: AuditLog;
  readonly now: () => number;
  readonly bounds?: Partial<Bounds>;
}

/** Asks for many credentials at once. */
export class CredentialLists {
  readonly #parts: ListParts;
  readonly #bounds: Bounds;
  constructor(parts: ListParts) {
    this.#parts = parts;
    this.#bounds = { ...usualBounds, ...parts.bounds };
  }

  /**
   * Credentials of one authorised team, or all that the caller may read; or what is shared of them.
   * What a tampered row hides is reported.
   */
  async list(
    caller: Caller,
    team: TeamRef | undefined,
    listing: Listing,
    page: Page,
  ): Promise<Found<ListedCredential>> {
    const { keyring } = this.#parts;
    const hidden: Hidden[] = [];
    const reach = await this.#reachOf(caller, team, listing, hidden);
    const { rows, end } = await this.#findAll(caller, reach, listing, page);
    const memberOf = new Set(reach.memberOf);
    const listed = rows.map((row) => {
      const isVerified = verifyListedRowMac(keyring, row, row.seal);
      const grantPaths =
        row.state === 'deleted'
          ? noGrantPaths
          : grantPathsOf(
              row.grants,
              { team: row.team, slug: row.slug, credential: row.id },
              caller,
              this.#parts,
            );
      const isOwn = memberOf.has(row.team);
      if (!isVerified)
        hidden.push({ team: { id: row.team, slug: row.slug }, target: credentialTarget(row.id) });
      // SECURITY: a grant may have gone since it was looked for.
      return {
        row,
        resolved: { role: isOwn ? ('viewer' as const) : undefined, grantPaths },
        isShown: isVerified && (isOwn || grantPathFor(grantPaths, 'credential.read') !== undefined),
        place: placeOf(row),
      };
    });
    await this.#report(caller, hidden);
    return { rows: listed, end };
  }

  /**
   * Names of the same, for completion. No decision rests on one: row MACs are verified where a
   * credential is read or used.
   */
  async listNames(
    caller: Caller,
    team: TeamRef | undefined,
    listing: Listing,
    page: Page,
  ): Promise<Found<NameRow>> {
    const { db } = this.#parts;
    const hidden: Hidden[] = [];
    const { teams, shared } = await this.#reachOf(caller, team, listing, hidden);
    await this.#report(caller, hidden);
    const search = this.#searchOf(caller, teams, { ...listing, sort: 'name' }, page, this.#time());
    const own =
      teams.length === 0
        ? nothing
        : await this.#upToEnd(teams, search, await repository.listNames(db, teams, search));
    return shared.size === 0
      ? own
      : merged(
          own,
          { rows: await repository.listNamesOf(db, [...shared.keys()], search), end: undefined },
          search,
        );
  }

  /** How many living credentials a team has, and how many of them have each problem. */
  countProblems(team: TeamRef): Promise<ProblemCounts> {
    return countProblems(this.#parts.db, team.id, this.#time());
  }

  /** What is shared is found by the grants, whole, and put in its place among the rest. */
  async #findAll(
    caller: Caller,
    { teams, shared }: Reach,
    listing: Listing,
    page: Page,
  ): Promise<Found<PlacedRow>> {
    const now = this.#time();
    const search = this.#searchOf(caller, teams, listing, page, now);
    const own = teams.length === 0 ? nothing : await this.#find(teams, search, now);
    return shared.size === 0
      ? own
      : merged(
          own,
          wholeOf(
            await repository.listCredentialsOf(
              this.#parts.db,
              [...shared.keys()],
              [...new Set(shared.values())],
              search,
              now,
            ),
          ),
          search,
        );
  }

  async #find(all: readonly TeamId[], search: Search, now: Date): Promise<Found<PlacedRow>> {
    const { db } = this.#parts;
    const asked = search.conditions.flatMap(({ ofTeam }) => ofTeam ?? []);
    const teams = asked.length === 0 ? all : await repository.listTeamsConcerned(db, all, asked);
    if (teams.length === 0) return nothing;
    const few = isFiltered(search) ? await this.#findFew(teams, search) : undefined;
    if (few !== undefined)
      return few.length === 0
        ? nothing
        : wholeOf(await repository.listCredentialsOf(db, few, teams, search, now));
    const rows = await repository.listCredentials(db, teams, search, now);
    return this.#upToEnd(teams, search, rows, cutOf(rows));
  }

  #searchOf(
    { subject }: Caller,
    teams: readonly TeamId[],
    { filters, sort, order }: Listing,
    { limit, after }: Page,
    now: Date,
  ): Search {
    const walkedMax = Math.max(
      limit + 1,
      Math.floor(this.#bounds.walkedRowsMax / Math.max(1, teams.length)),
    );
    return {
      subject,
      sort,
      order,
      after,
      limit: limit + 1,
      isDeleted: filters.isDeleted,
      conditions: conditionsOf(filters, now),
      walkedMax,
      bytesMax: this.#bounds.bytesMax,
    };
  }

  /** What was found, up to where the search ended, or was cut because what it found is so long. */
  async #upToEnd<T extends Placed>(
    teams: readonly TeamId[],
    search: Search,
    rows: readonly T[],
    cut?: readonly string[],
  ): Promise<Found<T>> {
    const last = rows.length < search.limit && cut === undefined ? undefined : rows.at(-1);
    if (!isFiltered(search) || (last !== undefined && teams.length === 1))
      return { rows, end: cut };
    // What lies beyond the end of one team's walk may be preceded by what was not looked at there.
    const end = await repository.findEndOfWalk(
      this.#parts.db,
      teams,
      search,
      last === undefined ? undefined : placeOf(last),
    );
    return { rows: upTo(end, rows, search), end: end ?? cut };
  }

  /**
   * The ids that an index finds for one of the conditions which the order's own does not know, if
   * they are few.
   */
  async #findFew(
    teams: readonly TeamId[],
    { sort, isDeleted, conditions }: Search,
  ): Promise<CredentialId[] | undefined> {
    if (isDeleted) return undefined;
    for (const { few, servedBy } of conditions) {
      if (few === undefined || servedBy.includes(sort)) continue;
      const ids = await repository.findFew(this.#parts.db, teams, few, this.#bounds.fewMax + 1);
      if (ids.length <= this.#bounds.fewMax) return ids;
    }
    return undefined;
  }

  // SECURITY: rights come before the query and not after it. A row that is fetched and left out
  // would still stand in the cursor.
  async #reachOf(
    caller: Caller,
    team: TeamRef | undefined,
    { filters, isShared = false }: Listing,
    hidden: Hidden[],
  ): Promise<Reach> {
    const memberOf =
      team !== undefined && !isShared ? [team.id] : await this.#teamsOf(caller, hidden);
    // A deleted credential exists for its team only.
    if ((team !== undefined && !isShared) || filters.isDeleted)
      return { memberOf, teams: memberOf, shared: new Map() };
    const shared = new Map<CredentialId, TeamId>();
    for (const { owned, row } of await listGrantsTo(this.#parts.db, caller.subject, team?.id)) {
      const grantPaths = grantPathsOf([row], owned, caller, this.#parts);
      if (grantPaths.isBroken)
        hidden.push({
          team: { id: owned.team, slug: owned.slug },
          target: credentialTarget(owned.credential),
        });
      else if (
        grantPathFor(grantPaths, 'credential.read') !== undefined &&
        (isShared || !memberOf.includes(owned.team))
      )
        shared.set(owned.credential, owned.team);
    }
    return { memberOf, teams: isShared ? [] : memberOf, shared };
  }

  async #teamsOf(caller: Caller, hidden: Hidden[]): Promise<readonly TeamId[]> {
    const readable: TeamId[] = [];
    for (const row of await repository.listTeamsToSearch(this.#parts.db, caller.subject)) {
      const { role, refusal } = effectiveRoleOf(row, row, caller, this.#parts);
      if (role !== undefined && isAllowed(role, 'credential.read')) readable.push(row.id);
      else if (refusal === 'sealBroken')
        hidden.push({
          team: { id: row.id, slug: row.slug },
          target: { type: 'team', id: row.slug },
        });
    }
    return readable;
  }

  async #report(caller: Caller, hidden: readonly Hidden[]): Promise<void> {
    for (const { team, target } of hidden)
      await this.#parts.audit.denial({
        caller,
        team,
        action: 'credential.read',
        target,
        reason: 'sealBroken',
      });
  }

  #time(): Date {
    return new Date(this.#parts.now());
  }
}

const nothing = { rows: [], end: undefined };
type Placed = Pick<PlacedRow, 'id' | 'sortKey'>;
const placeOf = ({ sortKey, id }: Placed): readonly string[] => [sortKey, id];
const upTo = <T extends Placed>(
  end: readonly string[] | undefined,
  rows: readonly T[],
  { order }: Search,
): readonly T[] =>
  end === undefined ? rows : rows.filter((row) => comparePlaces(placeOf(row), end, order) <= 0);

/** Where a page ends because there is more behind it than may be read at once. */
function cutOf(rows: readonly PlacedRow[]): readonly string[] | undefined {
  const last = rows.at(-1);
  return last !== undefined && rows.length < last.found ? placeOf(last) : undefined;
}
/** What was found whole, as far as it was read. */
const wholeOf = (rows: readonly PlacedRow[]): Found<PlacedRow> => ({ rows, end: cutOf(rows) });

/** What was found in teams, and what was found beside it, in one order, as far as both were. */
function merged<T extends Placed>(own: Found<T>, others: Found<T>, search: Search): Found<T> {
  const end = earlier(own.end, others.end, search);
  const rows = [...upTo(end, own.rows, search), ...upTo(end, others.rows, search)]
    .sort((a, b) => comparePlaces(placeOf(a), placeOf(b), search.order))
    .slice(0, search.limit);
  return { rows, end: rows.length === search.limit ? undefined : end };
}

function earlier(
  a: readonly string[] | undefined,
  b: readonly string[] | undefined,
  { order }: Search,
): readonly string[] | undefined {
  if (a === undefined || b === undefined) return a ?? b;
  return comparePlaces(a, b, order) <= 0 ? a : b;
}
