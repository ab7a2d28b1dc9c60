// Takes the tokens of a credential to another team: opened under the former team's keys and sealed
// under the new team's active one, each under its binding, with its number and its time. No
// plaintext leaves the keyring.
import { sql } from 'kysely';
import { DecryptionFailed, type Keyring, type WrappedDataKey } from '../../crypto/index.ts';
import { upToBytes } from '../../db/bytes.ts';
import type { Trx } from '../../db/client.ts';
import { AppError } from '../../shared/errors.ts';
import type { CredentialId, DataKeyId, TeamId } from '../../shared/ids.ts';
import { inTurns } from '../../shared/pace.ts';
import { ciphertextTables } from './list.ts';
import { type BoundRow, boundColumns, type CiphertextTable, placeOf, readBytes } from './table.ts';

/** A credential between two teams; `key` is the active one of the new team. */
export interface Move {
  readonly credential: CredentialId;
  readonly type: string;
  readonly from: TeamId;
  readonly to: TeamId;
  readonly key: WrappedDataKey;
  readonly at: Date;
}

/** A token that did not open when its credential was to move. */
export class UnmovableToken extends Error {
  readonly table: CiphertextTable;
  readonly number: number;
  /**
   * Undefined where the token's key is in no state to open anything: that says nothing about the
   * token.
   */
  readonly key: DataKeyId | undefined;
  constructor(
    table: CiphertextTable,
    number: number,
    key: DataKeyId | undefined,
    options?: ErrorOptions,
  ) {
    super('a stored token does not open', options);
    this.name = 'UnmovableToken';
    this.table = table;
    this.number = number;
    this.key = key;
  }
}

/** A row with the key that it is under; no key where that is in no state to open it. */
export interface MovableRow extends Omit<BoundRow, 'team' | 'credential' | 'type'> {
  /** Null in a row that stands for a token that is not there yet. */
  readonly token: string | null;
  readonly busyUntil: Date | null;
  /** How much of it is read and written. */
  readonly bytes: number;
  readonly key: WrappedDataKey | undefined;
}

// A token is up to some hundred KiB long, and a team may keep a thousand versions.
const rowsPerBatch = 20;
const batchBytes = 2 * 1024 * 1024;
/** What one transaction moves of one table. */
const movedBytesMax = 128 * 1024 * 1024;
const bytesPerTurn = 64 * 1024;

/**
 * Moves the tokens of every table; how many versions there were. What hangs on the versions goes
 * before them. Throws as `moveTokensOf` does.
 */
export async function moveTokens(
  trx: Trx,
  keyring: Keyring,
  move: Move,
): Promise<{ readonly versions: number }> {
  let versions = 0;
  for (const table of ciphertextTables.toReversed()) {
    const moved = await moveTokensOf(trx, keyring, table, move);
    if (table.rows === 'versions') versions = moved;
  }
  return { versions };
}

/**
 * Moves the tokens of one table; how many rows there were. Throws stateConflict, before anything is
 * opened, where they are too large together, and while a row is busy: what comes then must find its
 * place. Throws UnmovableToken, KeyUnavailable.
 */
export async function moveTokensOf(
  trx: Trx,
  keyring: Keyring,
  table: CiphertextTable,
  move: Move,
  bytesMax = movedBytesMax,
): Promise<number> {
  const { credential, from, to, key, at } = move;
  const { busyUntil, tooLarge } = table.transfer;
  if ((await findMovableBytes(trx, table, { team: from, credential })) > bytesMax)
    throw new AppError('stateConflict', tooLarge);
  let moved = 0;
  for (let after: number | undefined; ; ) {
    const batch = await listMovable(trx, table, {
      team: from,
      credential,
      after,
      limit: rowsPerBatch,
      bytesMax: batchBytes,
    });
    const last = batch.at(-1);
    if (last === undefined) return moved;
    if (
      busyUntil !== undefined &&
      batch.some((row) => row.busyUntil !== null && row.busyUntil > at)
    )
      throw new AppError('stateConflict', busyUntil.refusal, { retryAfterSeconds: 1 });
    const tokens = await inTurns(batch, (row) => rehomed(keyring, table, row, move), {
      bytesOf: ({ bytes }) => bytes,
      bytesPerTurn,
    });
    await storeMoved(trx, table, {
      from,
      to,
      credential,
      key: key.id,
      numbers: batch.map(({ number }) => number),
      tokens,
    });
    moved += batch.length;
    after = last.number;
  }
}

function rehomed(
  keyring: Keyring,
  table: CiphertextTable,
  row: MovableRow,
  { credential, type, from, key }: Move,
): string | null {
  if (row.token === null) return null;
  if (row.key === undefined) throw new UnmovableToken(table, row.number, undefined);
  try {
    const binding = placeOf(table, { ...row, team: from, credential, type });
    return keyring.rehome(row.key, key, binding, row.token);
  } catch (error) {
    throw error instanceof DecryptionFailed
      ? new UnmovableToken(table, row.number, row.key.id, { cause: error })
      : error;
  }
}

/**
 * Locks the rows of a locked credential that somebody else may write without a lock on it. Versions
 * need none: whoever makes or destroys one locks the credential, and a rotation changes no value.
 */
export async function lockTokens(trx: Trx, credential: CredentialId): Promise<void> {
  for (const { name, rows } of ciphertextTables)
    if (rows === 'one')
      await sql`
        select 1 from ${sql.table(name)} where credential_id = ${credential} for update`.execute(
        trx,
      );
}

/**
 * Lets tokens follow their credential later in this transaction, and forgets the failures of
 * rotations of its former team.
 */
export async function releaseTokens(
  trx: Trx,
  { team, credential }: { team: TeamId; credential: CredentialId },
): Promise<void> {
  const constraints = ciphertextTables.map(({ name }) => sql.ref(`${name}_credential_fkey`));
  await sql`set constraints ${sql.join(constraints)} deferred`.execute(trx);
  for (const { failures, rows } of ciphertextTables)
    await sql`
      delete from ${sql.table(failures)} where credential_id = ${credential}
        ${rows === 'versions' ? sql`and team_id = ${team}` : sql``}`.execute(trx);
}

/** How much there is to move with a credential: its tokens, and what they are bound to. */
export async function findMovableBytes(
  trx: Trx,
  table: CiphertextTable,
  of: { team: TeamId; credential: CredentialId },
): Promise<number> {
  const { rows } = await sql<{ bytes: number }>`
    select coalesce(sum(${readBytes(table, 'held')}), 0)::bigint as bytes
    from ${sql.table(table.name)} held
    where held.team_id = ${of.team} and held.credential_id = ${of.credential}`.execute(trx);
  return rows[0]?.bytes ?? 0;
}

type MovableColumns = Omit<MovableRow, 'key'> & {
  readonly keyId: DataKeyId | null;
  readonly keyVersion: number;
  readonly format: WrappedDataKey['format'];
  readonly rootFingerprint: string;
  readonly wrapped: Buffer;
};

/**
 * The next rows of a locked credential, as its former team has them: up to `limit`, and no more
 * than may be in memory at once; one at the least, as long as there is one.
 */
export async function listMovable(
  trx: Trx,
  table: CiphertextTable,
  of: {
    team: TeamId;
    credential: CredentialId;
    after: number | undefined;
    limit: number;
    bytesMax: number;
  },
): Promise<MovableRow[]> {
  const number = sql.ref(`held.${table.number}`);
  const { busyUntil } = table.transfer;
  const next = sql`
    select held.token, ${boundColumns(table, 'held')},
      ${busyUntil === undefined ? sql`null::timestamptz` : sql.ref(`held.${busyUntil.column}`)}
        as "busyUntil",
      data_key.id as "keyId", data_key.version as "keyVersion", data_key.format,
      data_key.root_fingerprint as "rootFingerprint", data_key.wrapped,
      coalesce(${readBytes(table, 'held')}, 0) as bytes
    from ${sql.table(table.name)} held
    left join data_key on data_key.id = held.data_key_id and data_key.team_id = held.team_id
      and data_key.state in ('active', 'decryptOnly')
    where held.team_id = ${of.team} and held.credential_id = ${of.credential}
      and ${of.after === undefined ? sql`true` : sql`${number} > ${of.after}`}
    order by ${number} limit ${of.limit}`;
  const { rows } = await sql<MovableColumns>`${upToBytes(next, sql`number`, of.bytesMax)}`.execute(
    trx,
  );
  return rows.map(({ keyId, keyVersion, format, rootFingerprint, wrapped, ...row }) => ({
    ...row,
    key:
      keyId === null
        ? undefined
        : { id: keyId, team: of.team, version: keyVersion, format, rootFingerprint, wrapped },
  }));
}

/**
 * Stores rows under the key of their new team; one without a token only changes its team. What
 * opened is not undecryptable, whatever was thought of it before.
 */
export async function storeMoved(
  trx: Trx,
  { name, number, undecryptable }: CiphertextTable,
  of: {
    from: TeamId;
    to: TeamId;
    credential: CredentialId;
    key: DataKeyId;
    numbers: readonly number[];
    tokens: readonly (string | null)[];
  },
): Promise<void> {
  const isOf = sql`held.team_id = ${of.from} and held.credential_id = ${of.credential}
      and held.${sql.ref(number)} = moved.number`;
  const moved = sql`unnest(${of.numbers}::int[], ${of.tokens}::text[]) as moved (number, token)`;
  await sql`
    update ${sql.table(name)} held
    set team_id = ${of.to}, token = moved.token, data_key_id = ${of.key}, ${undecryptable.clear}
    from ${moved} where ${isOf} and moved.token is not null`.execute(trx);
  if (of.tokens.includes(null))
    await sql`
      update ${sql.table(name)} held set team_id = ${of.to}
      from ${moved} where ${isOf} and moved.token is null`.execute(trx);
}
