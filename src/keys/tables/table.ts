// What the vault has to know of a table that holds ciphertexts. Whatever walks such tables takes it
// from here: counting, rotating, retiring, verifying, exporting, transferring, exposure and sizes.
import { type RawBuilder, sql } from 'kysely';
import type { Binding } from '../../crypto/index.ts';
import type { CredentialId, TeamId } from '../../shared/ids.ts';
import type { JsonObject } from '../../shared/json.ts';

/**
 * A table with one Fernet token a row. Every such table has the columns `team_id`, `credential_id`,
 * `data_key_id`, `token` and `key_history`, and the foreign key `<name>_credential_fkey`, which
 * deletes with the credential and can be deferred; test/contract/ciphertext-tables.test.ts holds it
 * against the schema.
 */
export interface CiphertextTable {
  readonly name: string;
  /**
   * `versions`: any number for a credential, told apart by `number`, which is the version that
   * answers and events name. `one`: at most one for a credential; `number` grows with each value.
   */
  readonly rows: 'versions' | 'one';
  readonly number: string;
  /** Columns that a token is bound to besides its team, its credential, its number and its key. */
  readonly binding: {
    readonly publicFields: string;
    readonly policy: string;
    /**
     * Compared with the fields when a token is opened; undefined where the row does not name them.
     */
    readonly secretFields: string | undefined;
    /**
     * SECURITY: appended to the credential's type, and different in each table: no token of one
     * table opens in a row of another. No name of a type has a slash.
     */
    readonly typeSuffix: '' | `/${string}`;
  };
  /** How a row remembers that its token did not open, over the alias `held`. */
  readonly undecryptable: {
    readonly set: (at: Date) => RawBuilder<unknown>;
    /** Where it may be set: an earlier mark stays. */
    readonly isUnset: RawBuilder<unknown>;
    readonly clear: RawBuilder<unknown>;
  };
  /**
   * The table that names the tokens that did not open during a rotation: `rotation_id`,
   * `credential_id` and `at`, of versions also `team_id` and the number.
   */
  readonly failures: string;
  /** The credentials that may have a row; others are not looked up when exposure is asked for. */
  readonly credentialTypes: 'every' | 'oauth';
  /** As SQL: what a row counts for in its team's size. */
  readonly storedBytes: RawBuilder<number>;
  readonly transfer: {
    /** While the time in this column has not come, the row does not move. */
    readonly busyUntil: { readonly column: string; readonly refusal: string } | undefined;
    /** Refuses more than one transaction moves. */
    readonly tooLarge: string;
    /** Refuses a token that does not open. */
    readonly undecryptable: string;
  };
  /**
   * How its rows are exported: as a kind of line that `exports/` spells out, or by what stands
   * here.
   */
  readonly exported: SpelledKind | DescribedKind;
}

export interface SpelledKind {
  readonly spelled: 'version' | 'connection';
}

/** A kind of line with the credential, the number, the key, its history, and the members named. */
export interface DescribedKind {
  readonly spelled: undefined;
  /** The value of `kind`, in camelCase. */
  readonly kind: string;
  /** The name of its schema in openapi.yaml. */
  readonly schema: string;
  readonly description: string;
  readonly members: Readonly<
    Record<string, { readonly column: string; readonly form: ExportForm }>
  >;
}

/** What a member of a described kind may be. */
export type ExportForm = 'count' | 'flag' | 'time' | 'timeOrNull';

/** A row, as far as its token is bound to it. */
export interface BoundRow {
  readonly team: TeamId;
  readonly credential: CredentialId;
  readonly number: number;
  readonly type: string;
  readonly publicFields: JsonObject;
  readonly policy: JsonObject;
  readonly secretFields?: readonly string[] | null;
}

/** Where the token of a row belongs. */
export const placeOf = (
  { binding }: Pick<CiphertextTable, 'binding'>,
  { team, credential, number, type, publicFields, policy, secretFields }: BoundRow,
): Binding => ({
  team,
  credential,
  version: number,
  type: `${type}${binding.typeSuffix}`,
  publicFields,
  policy,
  // SECURITY: left out only where the table has no such column; null there is a list that fits
  // nothing.
  ...(binding.secretFields === undefined ? {} : { secretFields: secretFields ?? [] }),
});

/** As SQL: the columns of `BoundRow` that lie in the table, of the alias. */
export const boundColumns = (
  { number, binding: { publicFields, policy, secretFields } }: CiphertextTable,
  alias: string,
): RawBuilder<unknown> => sql`
  ${sql.ref(`${alias}.${number}`)} as number,
    ${sql.ref(`${alias}.${publicFields}`)} as "publicFields",
  ${sql.ref(`${alias}.${policy}`)} as policy,
  ${secretFields === undefined ? sql`null::text[]` : sql.ref(`${alias}.${secretFields}`)}
    as "secretFields"`;

/** As SQL: how much of a row is in memory when it is read, of an alias with the table's columns. */
export const readBytes = (
  { binding: { publicFields, policy } }: CiphertextTable,
  alias: string,
): RawBuilder<number> => sql<number>`
  octet_length(${sql.ref(`${alias}.token`)})
    + octet_length(${sql.ref(`${alias}.${publicFields}`)}::text)
    + octet_length(${sql.ref(`${alias}.${policy}`)}::text)`;
