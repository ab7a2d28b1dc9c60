// Lists of credentials: whose, which, in what order, and the seals of what is shown. A page is found by indexes; where the filters ask
// more than they know, a bounded number of rows is looked at, and the page ends there, full or not.
import type { AuditLog } from '../audit/record.ts';
import { credentialTarget } from '../audit/event.ts';
import type { Keyring } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { type Caller, isAllowed, type TeamRef } from '../http/access.ts';
import type { Page } from '../http/paging.ts';
import { standingOf } from '../http/rights.ts';
import type { CredentialId, TeamId } from '../shared/ids.ts';
import { conditionsOf, type CredentialFilters } from './filters.ts';
import type { CredentialRow } from './repository.ts';
import * as repository from './list-repository.ts';
import { isFiltered, type NameRow, type PlacedRow, type Search } from './list-repository.ts';
import { countProblems, type ProblemCounts } from './problem-counts.ts';
import { credentialSealHolds } from './seal.ts';
import { comparePlaces, type Order, type SortName } from './sorts.ts';

export type { NameRow } from './list-repository.ts';

/** How far a page looks, where it has to look. */
export interface Bounds {
  /** How many rows in all; each team gives at least a page. */
  readonly walkedRowsMax: number;
  /** Up to how many ids that an index found are read, instead of walking. */
  readonly fewMax: number;
}
const usualBounds: Bounds = { walkedRowsMax: 5_000, fewMax: 500 };

/** What a list is to hold, and in what order. */
export interface Listing { readonly filters: CredentialFilters; readonly sort: SortName; readonly order: Order }

/** A listed row; `isShown` is false where its seal does not hold: it takes its place in the page and is left out. */
export interface ListedCredential { readonly row: CredentialRow; readonly isShown: boolean; readonly place: readonly string[] }

/** Found rows, one more than the page if there are so many; `end` is where the search ended before that, with more behind it. */
export interface Found<T> { readonly rows: readonly T[]; readonly end: readonly string[] | undefined }

/** What a broken seal kept from being listed. */
interface Hidden { readonly team: TeamRef; readonly target: { readonly type: string; readonly id: string } }

export interface ListParts { readonly db: Db; readonly keyring: Keyring; readonly audit: AuditLog; readonly now: () => number; readonly bounds?: Bounds }

/** Asks for many credentials at once. */
export class CredentialLists {
  readonly #parts: ListParts;
  readonly #bounds: Bounds;
  constructor(parts: ListParts) {
    this.#parts = parts;
    this.#bounds = parts.bounds ?? usualBounds;
  }

  /** Credentials of one authorised team, or of every team where the caller may read. What a broken seal hides is reported. */
  async list(caller: Caller, team: TeamRef | undefined, listing: Listing, page: Page): Promise<Found<ListedCredential>> {
    const hidden: Hidden[] = [];
    const teams = await this.#teamsOf(caller, team, hidden);
    const { rows, end } = teams.length === 0 ? { rows: [], end: undefined } : await this.#find(teams, listing, page);
    const listed = rows.map((row) => ({ row, isShown: credentialSealHolds(this.#parts.keyring, row, row.seal), place: [row.sortKey, row.id] }));
    for (const { row, isShown } of listed) if (!isShown) hidden.push({ team: { id: row.team, slug: row.slug }, target: credentialTarget(row.id) });
    await this.#report(caller, hidden);
    return { rows: listed, end };
  }

  /** Names of the same, for completion. No decision rests on one: seals are asked where a credential is read or used. */
  async listNames(caller: Caller, team: TeamRef | undefined, { filters, order }: Listing, page: Page): Promise<readonly NameRow[]> {
    const hidden: Hidden[] = [];
    const teams = await this.#teamsOf(caller, team, hidden);
    await this.#report(caller, hidden);
    if (teams.length === 0) return [];
    return repository.listNames(this.#parts.db, teams, {
      sort: 'name', order, after: page.after, limit: page.limit + 1, isDeleted: false, conditions: conditionsOf(filters, this.#time()), walkedMax: 0,
    });
  }

  /** How many living credentials a team has, and how many of them have each problem. */
  countProblems(team: TeamRef): Promise<ProblemCounts> {
    return countProblems(this.#parts.db, team.id, this.#time());
  }

  async #find(teams: readonly TeamId[], { filters, sort, order }: Listing, page: Page): Promise<Found<PlacedRow>> {
    const { db } = this.#parts;
    const now = this.#time();
    const limit = page.limit + 1;
    const search: Search = {
      sort, order, after: page.after, limit, isDeleted: filters.isDeleted, conditions: conditionsOf(filters, now), walkedMax: Math.max(limit, Math.floor(this.#bounds.walkedRowsMax / teams.length)),
    };
    if (!isFiltered(search)) return { rows: await repository.listCredentials(db, teams, search, now), end: undefined };
    const few = await this.#findFew(teams, search);
    if (few !== undefined) return { rows: few.length === 0 ? [] : await repository.listCredentialsOf(db, few, teams, search, now), end: undefined };
    const rows = await repository.listCredentials(db, teams, search, now);
    const last = rows.length < limit ? undefined : placeOf(rows.at(-1));
    if (last !== undefined && teams.length === 1) return { rows, end: undefined };
    // What lies beyond the end of one team's walk may be preceded by what was not looked at there.
    const end = await repository.findEndOfWalk(db, teams, search, last);
    if (end === undefined) return { rows, end };
    return { rows: rows.filter((row) => comparePlaces(placeOf(row) ?? [], end, order) <= 0), end };
  }

  /** The ids that an index finds for one of the conditions which the order's own does not know, if they are few. */
  async #findFew(teams: readonly TeamId[], { sort, isDeleted, conditions }: Search): Promise<CredentialId[] | undefined> {
    if (isDeleted) return undefined;
    for (const { few, servedBy } of conditions) {
      if (few === undefined || servedBy.includes(sort)) continue;
      const ids = await repository.findFew(this.#parts.db, teams, few, this.#bounds.fewMax + 1);
      if (ids.length <= this.#bounds.fewMax) return ids;
    }
    return undefined;
  }

  // SECURITY: rights come before the query and not after it. A row that is fetched and left out would still stand in the cursor.
  async #teamsOf({ subject, sub }: Caller, team: TeamRef | undefined, hidden: Hidden[]): Promise<readonly TeamId[]> {
    if (team !== undefined) return [team.id];
    const readable: TeamId[] = [];
    for (const row of await repository.listTeamsWithRights(this.#parts.db, subject)) {
      const { role, refusal } = standingOf(row, { team: row.id, slug: row.slug, subject, sub }, this.#parts.keyring);
      if (role !== undefined && isAllowed(role, 'credential.read')) readable.push(row.id);
      else if (refusal === 'sealBroken') hidden.push({ team: { id: row.id, slug: row.slug }, target: { type: 'team', id: row.slug } });
    }
    return readable;
  }

  async #report(caller: Caller, hidden: readonly Hidden[]): Promise<void> {
    for (const { team, target } of hidden) await this.#parts.audit.denial({ caller, team, action: 'credential.read', target, reason: 'sealBroken' });
  }

  #time(): Date { return new Date(this.#parts.now()); }
}

const placeOf = (row: PlacedRow | undefined): readonly string[] | undefined => (row === undefined ? undefined : [row.sortKey, row.id]);
