// The opening of a credential for one use by the vault itself: what is opened is what the row says
// at that moment, and the use is recorded in the same transaction, before anything is done with it.
import type { SecretFields } from '../crypto/index.ts';
import { AppError, notFound } from '../shared/errors.ts';
import type { JsonObject } from '../shared/json.ts';
import { type ChangeParts, undecryptable } from './change.ts';
import * as repository from './repository.ts';
import { verifyCredentialRowMac } from './row-mac.ts';
import { openStored, UndecryptableVersion } from './versions.ts';
import { holdGrant, type GrantPath } from '../access/index.ts';
import { credentialTarget, type EventInput, eventsThrough } from '../audit/index.ts';
import type { CredentialRow } from './rows.ts';

/** A credential opened for a use, as it was when that was recorded. */
export interface InUse {
  readonly row: CredentialRow;
  readonly secrets: SecretFields;
}

/**
 * How a use stands in the audit log; `demand` throws when the row as it is then is not to be used
 * so.
 */
export interface Use {
  readonly action: string;
  readonly details: JsonObject;
  readonly demand?: (row: CredentialRow) => void;
}

/**
 * Opens the current version and records that, or does neither. Throws notFound, stateConflict
 * (disabled, expired), undecryptable, keyUnavailable, and what the use demands.
 */
export async function openForUse(
  parts: Pick<ChangeParts, 'db' | 'keyring' | 'audit' | 'now'>,
  caller: EventInput['caller'],
  resolved: Pick<CredentialRow, 'id' | 'team' | 'slug'>,
  event: Use,
  grantPath?: GrantPath,
): Promise<InUse> {
  const { db, keyring, audit } = parts;
  const team = { id: resolved.team, slug: resolved.slug };
  try {
    return await db.transaction().execute(async (trx) => {
      const at = new Date(parts.now());
      const row = await repository.lockCredential(trx, resolved.team, resolved.id, at);
      // SECURITY: the row may have changed since the hook looked at it; its row MAC counts now.
      if (
        row === undefined ||
        row.state === 'deleted' ||
        !verifyCredentialRowMac(keyring, row, row.seal)
      )
        throw notFound();
      // SECURITY: and the grant may have gone.
      if (grantPath !== undefined && !(await holdGrant(trx, grantPath))) throw notFound();
      if (row.state !== 'enabled')
        throw new AppError('stateConflict', 'The credential is disabled.');
      if (row.expiresAt !== null && row.expiresAt <= at)
        throw new AppError('stateConflict', 'The credential has expired.');
      event.demand?.(row);
      const held = await repository.findToken(trx, row.team, row.id, row.version);
      const secrets = openStored(keyring, row, held);
      if (held === undefined) throw new UndecryptableVersion(row.version, undefined);
      await audit.record(
        trx,
        ...eventsThrough(
          {
            caller,
            team,
            action: event.action,
            target: credentialTarget(row.id),
            key: held.key.id,
            credentialVersion: row.version,
            details: event.details,
          },
          grantPath === undefined ? [] : [grantPath],
        ),
      );
      return { row, secrets };
    });
  } catch (error) {
    throw await undecryptable(parts, caller, team, resolved.id, error, event.action);
  }
}
