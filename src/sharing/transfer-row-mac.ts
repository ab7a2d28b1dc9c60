// What the row MAC of an offer covers: who gives what to whom, until when. Slugs are in it because
// callers name teams by them.
import type { Keyring } from '../crypto/index.ts';
import type { CredentialId, TeamId, TransferId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { isTime } from '../shared/times.ts';

export interface TransferMacFields {
  readonly id: TransferId;
  readonly team: TeamId;
  readonly slug: string;
  readonly credential: CredentialId;
  readonly to: TeamId;
  readonly toSlug: string;
  readonly expiresAt: Date;
  readonly revision: number;
}

/** The row MAC of an offer. */
export const transferRowMac = (keyring: Keyring, row: TransferMacFields): Buffer =>
  keyring.rowMac('credential_transfer', asJson(row));
/** Whether the vault wrote this offer's row. */
export const verifyTransferRowMac = (
  keyring: Keyring,
  row: TransferMacFields,
  seal: Buffer,
): boolean =>
  isTime(row.expiresAt) && keyring.verifyRowMac('credential_transfer', asJson(row), seal);

// Named one by one: rows carry more columns than the row MAC covers.
const asJson = ({
  id,
  team,
  slug,
  credential,
  to,
  toSlug,
  expiresAt,
  revision,
}: TransferMacFields): JsonObject => ({
  credential,
  expiresAt: expiresAt.toISOString(),
  id,
  revision,
  slug,
  team,
  to,
  toSlug,
});
