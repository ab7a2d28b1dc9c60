// Re-encrypts the tokens of one table under another key.
import type { Binding, WrappedDataKey } from '../crypto/index.ts';
import type { CredentialId, DataKeyId, RotationId, SubjectId, TeamId } from '../shared/ids.ts';
import type { DataKeyState } from '../db/tables.ts';
import type { Trx } from '../db/client.ts';
import type { CiphertextTable } from './tables/table.ts';

/**
 * How much of the tokens is in memory at once for one batch; one token is up to some hundred KiB
 * long.
 */
export const batchBytesMax = 8 * 1024 * 1024;

/** A rotation as the worker knows it. */
export interface RunningRotation {
  readonly id: RotationId;
  readonly team: TeamId;
  readonly slug: string;
  readonly startedBy: SubjectId | null;
  readonly isUrgent: boolean;
  readonly total: number;
  readonly createdAt: Date;
}

/**
 * A token to re-encrypt, locked, with the keys that open and seal it and the state of its own key.
 */
export interface TokenToMove {
  readonly binding: Binding;
  readonly token: string;
  readonly from: WrappedDataKey;
  readonly fromState: DataKeyState;
  readonly to: WrappedDataKey;
  /** How much of it is in memory. */
  readonly bytes: number;
}

export interface ReencryptedToken extends TokenToMove {
  readonly moved: string;
}

/**
 * Where the search for the next tokens begins: tables, keys and tokens are walked in their order.
 * Rows that were re-encrypted lie before it: reading past their remains gets slower and slower.
 */
export interface Position {
  readonly table: CiphertextTable;
  readonly key: DataKeyId;
  readonly credential: CredentialId;
  readonly version: number;
}

/** How many tokens are wanted, under which keys not, and from where on. */
export interface Quest {
  readonly limit: number;
  readonly passOver: readonly DataKeyId[];
  readonly after: Position | undefined;
}

/** How tokens of one table are found and stored. */
export interface Reencryptor {
  readonly table: CiphertextTable;
  /**
   * Locks tokens that nobody else holds at this moment, and reads the first of them, as many as may
   * be in memory at once; none when the rotation does not run any more.
   */
  readonly hold: (trx: Trx, rotation: RunningRotation, quest: Quest) => Promise<TokenToMove[]>;
  /**
   * Stores tokens under their new key; false, and then nothing must be kept, when that key is
   * active no more.
   */
  readonly store: (trx: Trx, tokens: readonly ReencryptedToken[]) => Promise<boolean>;
  /**
   * Names a token that did not open as a failure of the rotation; `isUndecryptable` marks the row.
   */
  readonly fail: (
    trx: Trx,
    rotation: RunningRotation,
    failure: { token: TokenToMove; isUndecryptable: boolean; at: Date },
  ) => Promise<void>;
}
