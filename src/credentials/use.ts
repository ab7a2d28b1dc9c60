// The opening of a credential for one use by the vault itself: what is opened is what the row says
// at that moment, and the use is recorded in the same transaction, before anything is done with it.
import { credentialTarget, type EventInput, eventsThrough } from '../audit/event.ts';
import type { SecretFields } from '../crypto/index.ts';
import type { Way } from '../access/decide.ts';
import { holdGrant } from '../access/grants.ts';
import { AppError, notFound } from '../shared/errors.ts';
import type { JsonObject } from '../shared/json.ts';
import { type ChangeParts, undecryptable } from './change.ts';
import * as repository from './repository.ts';
import type { CredentialRow } from './repository.ts';
import { credentialSealHolds } from './seal.ts';
import { openHeld, UndecryptableVersion } from './versions.ts';

/** A credential opened for a use, as it was when that was recorded. */
export interface InUse {
  readonly row: CredentialRow;
  readonly secrets: SecretFields;
}

/**
 * How a use stands in the trail; `demand` throws when the row as it is then is not to be used so.
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
  located: Pick<CredentialRow, 'id' | 'team' | 'slug'>,
  event: Use,
  way?: Way,
): Promise<InUse> {
  const { db, keyring, audit } = parts;
  const team = { id: located.team, slug: located.slug };
  try {
    return await db.transaction().execute(async (trx) => {
      const at = new Date(parts.now());
      const row = await repository.lockCredential(trx, located.team, located.id, at);
      // SECURITY: the row may have changed since the hook looked at it; its seal counts now.
      if (
        row === undefined ||
        row.state === 'deleted' ||
        !credentialSealHolds(keyring, row, row.seal)
      )
        throw notFound();
      // SECURITY: and the grant may have gone.
      if (way !== undefined && !(await holdGrant(trx, way))) throw notFound();
      if (row.state !== 'enabled')
        throw new AppError('stateConflict', 'The credential is disabled.');
      if (row.expiresAt !== null && row.expiresAt <= at)
        throw new AppError('stateConflict', 'The credential has expired.');
      event.demand?.(row);
      const held = await repository.findToken(trx, row.team, row.id, row.version);
      const secrets = openHeld(keyring, row, held);
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
          way === undefined ? [] : [way],
        ),
      );
      return { row, secrets };
    });
  } catch (error) {
    throw await undecryptable(parts, caller, team, located.id, error, event.action);
  }
}
