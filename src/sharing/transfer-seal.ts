// What the seal of an offer is over: who gives what to whom, until when. Slugs are in it because
// callers name teams by them.
import type { Keyring } from '../crypto/index.ts';
import type { CredentialId, TeamId, TransferId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { isTime } from '../shared/times.ts';

export interface SealedTransfer {
  readonly id: TransferId;
  readonly team: TeamId;
  readonly slug: string;
  readonly credential: CredentialId;
  readonly to: TeamId;
  readonly toSlug: string;
  readonly expiresAt: Date;
  readonly revision: number;
}

/** The seal of an offer's row. */
export const sealTransfer = (keyring: Keyring, row: SealedTransfer): Buffer =>
  keyring.sealRow('credential_transfer', asJson(row));
/** Whether the vault wrote this offer's row. */
export const transferSealHolds = (keyring: Keyring, row: SealedTransfer, seal: Buffer): boolean =>
  isTime(row.expiresAt) && keyring.verifyRow('credential_transfer', asJson(row), seal);

// Named one by one: rows carry more columns than the seal covers.
const asJson = ({
  id,
  team,
  slug,
  credential,
  to,
  toSlug,
  expiresAt,
  revision,
}: SealedTransfer): JsonObject => ({
  credential,
  expiresAt: expiresAt.toISOString(),
  id,
  revision,
  slug,
  team,
  to,
  toSlug,
});
