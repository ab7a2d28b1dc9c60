// Rows of keys and rotations, as they are read.
import type { DataKeyState, TokenFormatColumn } from '../db/tables.ts';
import type { CredentialId, DataKeyId } from '../shared/ids.ts';

export interface KeyRow {
  readonly id: DataKeyId;
  readonly version: number;
  readonly state: DataKeyState;
  readonly format: TokenFormatColumn;
  readonly fingerprint: string;
  readonly rootFingerprint: string;
  readonly rows: number;
  /** Every root key that ever wrapped it, in order: a backup may hold it under each of them. */
  readonly rootFingerprints: readonly string[];
  readonly createdAt: Date;
  readonly createdBy: string | null;
  readonly demotedAt: Date | null;
  readonly retiredAt: Date | null;
  readonly compromisedAt: Date | null;
  readonly compromiseReason: string | null;
  readonly destroyAt: Date | null;
  readonly destroyedAt: Date | null;
  /** When the team's policy asks for the next rotation; only of an active key. */
  readonly rotateAt: Date | null;
}

/** `version` is null where it is the OAuth tokens stored for the credential. */
export interface RotationFailure {
  readonly credential: CredentialId;
  readonly version: number | null;
}
