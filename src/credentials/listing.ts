// Lists of credentials: filters, keyset pages, and the seals of what is shown.
import { type RawBuilder, sql } from 'kysely';
import { credentialTarget } from '../audit/event.ts';
import type { Keyring } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { type Caller, isAllowed, type TeamRef } from '../http/access.ts';
import type { Page } from '../http/paging.ts';
import { standingOf } from '../http/rights.ts';
import type { TeamId } from '../shared/ids.ts';
import { type ProblemName, problemCondition } from './health.ts';
import { type CredentialRow, listCredentialsOfTeam, listCredentialsOfTeams, listTeamsWithRights, type ListQuery } from './repository.ts';
import { credentialSealHolds } from './seal.ts';

export interface CredentialFilters {
  readonly type?: string | undefined;
  /** Each as `key:value`. */
  readonly labels: readonly string[];
  readonly namePrefix?: string | undefined;
  readonly problem?: ProblemName | undefined;
  readonly isDeleted: boolean;
}

/** A listed row; `isShown` is false where its seal does not hold: it takes its place in the page and is left out. */
export interface ListedCredential { readonly row: CredentialRow; readonly isShown: boolean }

/** What a broken seal kept from being listed. */
export interface Hidden { readonly team: TeamRef; readonly target: { readonly type: string; readonly id: string } }

/** Rows of one authorised team, or of every team where the caller may read; one more than the page, for the cursor. */
export async function listCredentials(
  { db, keyring, now }: { db: Db; keyring: Keyring; now: () => number },
  input: { caller: Caller; team: TeamRef | undefined; filters: CredentialFilters; page: Page },
): Promise<{ listed: ListedCredential[]; hidden: Hidden[] }> {
  const at = new Date(now());
  const query: ListQuery = { limit: input.page.limit + 1, after: input.page.after, where: condition(input.filters, at), isDeleted: input.filters.isDeleted, now: at };
  const hidden: Hidden[] = [];
  let rows: CredentialRow[];
  if (input.team !== undefined) rows = await listCredentialsOfTeam(db, input.team.id, query);
  else {
    const readable = await findReadableTeams(db, keyring, input.caller, hidden);
    rows = readable.length === 0 ? [] : await listCredentialsOfTeams(db, readable, query);
  }
  const listed = rows.map((row) => ({ row, isShown: credentialSealHolds(keyring, row, row.seal) }));
  for (const { row, isShown } of listed) if (!isShown) hidden.push({ team: { id: row.team, slug: row.slug }, target: credentialTarget(row.id) });
  return { listed, hidden };
}

// SECURITY: rights come before the query and not after it. A row that is fetched and left out would still stand in the cursor.
async function findReadableTeams(db: Db, keyring: Keyring, { subject, sub }: Caller, hidden: Hidden[]): Promise<TeamId[]> {
  const readable: TeamId[] = [];
  for (const row of await listTeamsWithRights(db, subject)) {
    const { role, refusal } = standingOf(row, { team: row.id, slug: row.slug, subject, sub }, keyring);
    if (role !== undefined && isAllowed(role, 'credential.read')) readable.push(row.id);
    else if (refusal === 'sealBroken') hidden.push({ team: { id: row.id, slug: row.slug }, target: { type: 'team', id: row.slug } });
  }
  return readable;
}

/** The sort key of a row, for its cursor. */
export const sortKeyOf = (row: CredentialRow, isDeleted: boolean): readonly string[] => (isDeleted ? [row.id] : [row.name, row.id]);

function condition({ type, labels, namePrefix, problem }: CredentialFilters, now: Date): RawBuilder<unknown> {
  const conditions: RawBuilder<unknown>[] = [sql`true`];
  if (type !== undefined) conditions.push(sql`credential.type = ${type}`);
  for (const label of labels) {
    const colon = label.indexOf(':');
    conditions.push(sql`credential.labels @> ${JSON.stringify({ [label.slice(0, colon)]: label.slice(colon + 1) })}::jsonb`);
  }
  if (namePrefix !== undefined) {
    // A range and not a pattern: the index on names serves it, and no character of the prefix means anything.
    conditions.push(sql`credential.name collate "C" >= ${namePrefix}`);
    const end = afterPrefix(namePrefix);
    if (end !== undefined) conditions.push(sql`credential.name collate "C" < ${end}`);
  }
  if (problem !== undefined) conditions.push(problemCondition(problem, now));
  return sql.join(conditions, sql` and `);
}

/** The least text, by code point, that is beyond every text with this prefix; undefined when there is none. */
export function afterPrefix(prefix: string): string | undefined {
  const points = Array.from(prefix, (character) => character.codePointAt(0) ?? 0);
  for (let last = points.pop(); last !== undefined; last = points.pop()) {
    if (last === 0x10ffff) continue;
    return String.fromCodePoint(...points, last === 0xd7ff ? 0xe000 : last + 1);   // no text in UTF-8 has a surrogate
  }
  return undefined;
}
