// The credential that is shared or offered, held: grants and offers of one credential change one at
// a time, and not while it changes.
import type { Keyring } from '../crypto/index.ts';
import type { Trx } from '../db/client.ts';
import { notFound } from '../shared/errors.ts';
import { type CredentialRow, credentialSealHolds, lockCredential } from '../credentials/index.ts';

/** Locks a living credential; its row as it is then. Throws notFound. */
export async function lockOwned(
  trx: Trx,
  keyring: Keyring,
  located: Pick<CredentialRow, 'team' | 'id'>,
  at: Date,
): Promise<CredentialRow> {
  const row = await lockCredential(trx, located.team, located.id, at);
  // SECURITY: the row may have changed since the hook looked at it; its seal counts now.
  if (row === undefined || row.state === 'deleted' || !credentialSealHolds(keyring, row, row.seal))
    throw notFound();
  return row;
}
