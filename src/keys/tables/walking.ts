// Reads the tokens of a table one after the other, with what opens each of them.
import { sql } from 'kysely';
import type { WrappedDataKey } from '../../crypto/index.ts';
import type { Executor } from '../../db/client.ts';
import type { DataKeyState } from '../../db/tables.ts';
import { type BoundRow, boundColumns, type CiphertextTable } from './table.ts';

/** A token, and the key that it is under, in whatever state that is. */
export interface TokenInTable extends BoundRow {
  /** The row's key, as text. */
  readonly row: string;
  readonly token: string;
  readonly state: DataKeyState | null;
  readonly keyId: WrappedDataKey['id'];
  readonly keyVersion: number;
  readonly format: WrappedDataKey['format'];
  readonly root: string;
  readonly wrapped: Buffer;
}

/** Up to `limit` tokens after this one, in the order of the table's primary key. */
export async function listStoredTokens(
  executor: Executor,
  table: CiphertextTable,
  after: TokenInTable | undefined,
  limit: number,
): Promise<readonly TokenInTable[]> {
  const number = sql.ref(`held.${table.number}`);
  const isNumbered = table.rows === 'versions';
  const order = isNumbered
    ? sql`held.team_id, held.credential_id, ${number}`
    : sql`held.credential_id`;
  const binding =
    after === undefined
      ? sql`true`
      : isNumbered
        ? sql`(${order}) > (${after.team}::uuid, ${after.credential}::uuid, ${after.number}::int)`
        : sql`held.credential_id > ${after.credential}::uuid`;
  const { rows } = await sql<TokenInTable>`
    select ${
      isNumbered
        ? sql`held.credential_id || '/' ||
      ${number}`
        : sql`held.credential_id::text`
    } as row,
      held.token, held.team_id as team, held.credential_id as credential, credential.type,
      ${boundColumns(table, 'held')},
      data_key.state, data_key.id as "keyId", data_key.version as "keyVersion", data_key.format,
      data_key.root_fingerprint as root, data_key.wrapped
    from ${sql.table(table.name)} held
    left join credential on credential.id = held.credential_id
    left join data_key on data_key.id = held.data_key_id
    where held.token is not null and ${binding} order by ${order} limit ${limit}`.execute(executor);
  return rows;
}
