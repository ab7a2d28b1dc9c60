// The credential that is shared or offered, held: grants and offers of one credential change one at
// a time, and not while it changes.
import type { Keyring } from '../crypto/index.ts';
import type { Trx } from '../db/client.ts';
import { notFound } from '../shared/errors.ts';
import {
  type CredentialRow,
  verifyCredentialRowMac,
  lockCredential,
} from '../credentials/index.ts';

/** Locks a living credential; its row as it is then. Throws notFound. */
export async function lockOwned(
  trx: Trx,
  keyring: Keyring,
  resolved: Pick<CredentialRow, 'team' | 'id'>,
  at: Date,
): Promise<CredentialRow> {
  const row = await lockCredential(trx, resolved.team, resolved.id, at);
  // SECURITY: the row may have changed since the hook looked at it; its row MAC counts now.
  if (
    row === undefined ||
    row.state === 'deleted' ||
    !verifyCredentialRowMac(keyring, row, row.seal)
  )
    throw notFound();
  return row;
}
