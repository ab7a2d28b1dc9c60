// The opening of a token whose use was granted, and what is done about one that does not open.
import type { AuditLog } from '../audit/record.ts';
import { credentialTarget } from '../audit/event.ts';
import type { Keyring, SecretFields } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import type { Caller } from '../http/access.ts';
import type { Granted } from './decide.ts';
import * as repository from './repository.ts';

/** The secrets of the version that was granted. Throws DecryptionFailed, KeyUnavailable. */
export function openGranted(keyring: Keyring, { row, version }: Granted): SecretFields {
  const place = {
    team: row.team,
    credential: row.id,
    version: row.currentVersion,
    type: row.type,
    publicFields: version.publicFields,
    policy: version.policy,
  };
  return keyring.open(version.key, place, version.token);
}

/**
 * The first time that a token does not open is a change of the version, and stands in the trail
 * with its key.
 */
export async function markUndecryptable(
  { db, audit, now }: { db: Db; audit: AuditLog; now: () => number },
  caller: Caller,
  action: string,
  { row, version }: Granted,
): Promise<void> {
  const at = new Date(now());
  await db.transaction().execute(async (trx) => {
    await repository.markUndecryptable(trx, {
      team: row.team,
      id: row.id,
      version: row.currentVersion,
      dataKey: version.key.id,
      at,
    });
    await audit.record(trx, {
      caller,
      team: { id: row.team, slug: row.slug },
      action,
      target: credentialTarget(row.id),
      decision: 'deny',
      reason: 'undecryptable',
      key: version.key.id,
      credentialVersion: row.currentVersion,
    });
  });
}
