// The opening of a token whose use was granted, and what is done about one that does not open.
import { DecryptionFailed, type Keyring, type SecretFields } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import type { HangUp } from '../shared/hang-up.ts';
import { Pace } from '../shared/pace.ts';
import type { Granted, LeaseRefusal } from './decide.ts';
import * as repository from './repository.ts';
import { lengthOf, tooLarge } from './sealed.ts';
import { bytesPerTurn, leaseBytesMax, storedBytesOf } from './sizes.ts';
import type { Caller } from '../access/index.ts';
import { type AuditLog, credentialTarget } from '../audit/index.ts';
import { findType } from '../credentials/index.ts';

/** A credential as it is delivered; without secrets where the caller has them already. */
export type Opened = Granted & {
  readonly secrets: SecretFields | undefined;
  /** Names the access token, where one is leased. */
  readonly tokenId?: string;
};
/** One whose token does not open though its key does. */
export type Unopened = LeaseRefusal & { readonly failed: Granted };

/** The secrets of the version that was granted. Throws DecryptionFailed, KeyUnavailable. */
export function openGranted(keyring: Keyring, { row, version }: Granted): SecretFields {
  if (version.token === undefined) throw new TypeError('a token that was not read');
  const place = {
    team: row.team,
    credential: row.id,
    version: row.currentVersion,
    type: row.type,
    publicFields: version.publicFields,
    policy: version.policy,
    ...(row.content === undefined ? {} : { secretFields: row.content.secretFieldNames }),
  };
  return keyring.open(version.key, place, version.token);
}

/**
 * Opens what has to be sent, one after the other; others have their turn in between. A root key
 * that is not configured ends the request; a token that does not open refuses the credential.
 * Throws leaseRefused as soon as it is too large, requestTimeout when the caller has gone.
 */
export async function openAll<T extends LeaseRefusal>(
  keyring: Keyring,
  decisions: readonly (Granted | T)[],
  hangUp: HangUp | undefined,
): Promise<(Opened | Unopened | T)[]> {
  const pace = new Pace(bytesPerTurn);
  const opened: (Opened | Unopened | T)[] = [];
  let bytes = 0;
  for (const [position, decision] of decisions.entries()) {
    if ('rule' in decision) {
      opened.push(decision);
      continue;
    }
    const { row } = decision;
    const next = open(keyring, decision, position);
    opened.push(next);
    // What an access token is got with is not delivered.
    if ('secrets' in next && next.secrets !== undefined && findType(row.type)?.oauth === undefined)
      bytes += lengthOf(next.secrets);
    if (bytes > leaseBytesMax) throw tooLarge();
    if (pace.did(storedBytesOf(row))) {
      await pace.turn();
      hangUp?.demand();
    }
  }
  return opened;
}

function open(keyring: Keyring, granted: Granted, position: number): Opened | Unopened {
  const { row, isKnown } = granted;
  if (isKnown) return { ...granted, secrets: undefined };
  try {
    return { ...granted, secrets: openGranted(keyring, granted) };
  } catch (error) {
    if (!(error instanceof DecryptionFailed)) throw error;
    return {
      pointer: `/credentials/${position}`,
      rule: 'undecryptable',
      reason: 'undecryptable',
      team: { id: row.team, slug: row.slug },
      target: credentialTarget(row.id),
      failed: granted,
    };
  }
}

/**
 * The first time that a token does not open is a change of the version, and stands in the audit log
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
    await repository.updateUndecryptableUse(trx, {
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
