// What the seal of a credential's row is over: everything mutable on which an answer "yes" rests.
import type { Keyring } from '../crypto/index.ts';
import type { CredentialState } from '../db/tables.ts';
import type { CredentialId, TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';

export interface SealedCredential {
  readonly id: CredentialId;
  readonly team: TeamId;
  readonly name: string;
  readonly type: string;
  readonly state: CredentialState;
  readonly version: number;
  readonly expiresAt: Date | null;
  readonly revision: number;
}

/** The seal of a credential's row. */
export const sealCredential = (keyring: Keyring, row: SealedCredential): Buffer => keyring.sealRow('credential', asJson(row));

/** Whether the vault wrote this row. */
export const credentialSealHolds = (keyring: Keyring, row: SealedCredential, seal: Buffer): boolean => keyring.verifyRow('credential', asJson(row), seal);

// Named one by one: rows carry more columns than the seal covers.
const asJson = ({ id, team, name, type, state, version, expiresAt, revision }: SealedCredential): JsonObject => ({
  id, team, name, type, state, version, expiresAt: expiresAt?.toISOString() ?? null, revision,
});
