// Lists of credentials: filters, keyset pages, and the seals of what is shown.
import { type RawBuilder, sql } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { type Caller, isAllowed, type TeamRef } from '../http/access.ts';
import type { Page } from '../http/paging.ts';
import { standingOf } from '../http/rights.ts';
import { type ProblemName, problemCondition } from './health.ts';
import { type CredentialRow, type ListQuery, listCredentialsOfSubject, listCredentialsOfTeam } from './repository.ts';
import { credentialSealHolds } from './seal.ts';

export interface CredentialFilters {
  readonly type?: string | undefined;
  /** Each as `key:value`. */
  readonly labels: readonly string[];
  readonly namePrefix?: string | undefined;
  readonly problem?: ProblemName | undefined;
  readonly isDeleted: boolean;
}

/** A listed row; `isShown` is false where a seal does not hold or no role counts: it takes its place in the page and is left out. */
export interface ListedCredential { readonly row: CredentialRow; readonly isShown: boolean; readonly isSealBroken: boolean }

/** Rows of one authorised team, or of every team where the caller may read; one more than the page, for the cursor. */
export async function listCredentials(
  { db, keyring, now }: { db: Db; keyring: Keyring; now: () => number },
  input: { caller: Caller; team: TeamRef | undefined; filters: CredentialFilters; page: Page },
): Promise<ListedCredential[]> {
  const at = new Date(now());
  const query: ListQuery = { limit: input.page.limit + 1, after: input.page.after, where: condition(input.filters, at), isDeleted: input.filters.isDeleted, now: at };
  if (input.team !== undefined) {
    const rows = await listCredentialsOfTeam(db, input.team.id, query);
    return rows.map((row) => shown(row, credentialSealHolds(keyring, row, row.seal)));
  }
  const { subject, sub } = input.caller;
  const rows = await listCredentialsOfSubject(db, subject, query);
  return rows.map((row) => {
    const { role, refusal } = standingOf(row, { team: row.team, slug: row.slug, subject, sub }, keyring);
    if (role === undefined || !isAllowed(role, 'credential.read')) return { row, isShown: false, isSealBroken: refusal === 'sealBroken' };
    return shown(row, credentialSealHolds(keyring, row, row.seal));
  });
}

const shown = (row: CredentialRow, sealHolds: boolean): ListedCredential => ({ row, isShown: sealHolds, isSealBroken: !sealHolds });

/** The sort key of a row, for its cursor. */
export const sortKeyOf = (row: CredentialRow, isDeleted: boolean): readonly string[] => (isDeleted ? [row.id] : [row.name, row.id]);

function condition({ type, labels, namePrefix, problem }: CredentialFilters, now: Date): RawBuilder<unknown> {
  const conditions: RawBuilder<unknown>[] = [sql`true`];
  if (type !== undefined) conditions.push(sql`credential.type = ${type}`);
  if (labels.length > 0) {
    const wanted = Object.fromEntries(labels.map((label) => [label.slice(0, label.indexOf(':')), label.slice(label.indexOf(':') + 1)]));
    conditions.push(sql`credential.labels @> ${JSON.stringify(wanted)}::jsonb`);
  }
  if (namePrefix !== undefined) {
    // A range and not a pattern: the index on names serves it, and no character of the prefix means anything.
    conditions.push(sql`credential.name collate "C" >= ${namePrefix} and credential.name collate "C" < ${`${namePrefix}\u{10ffff}`}`);
  }
  if (problem !== undefined) conditions.push(problemCondition(problem, now));
  return sql.join(conditions, sql` and `);
}
