// What moves with a credential to another team: every version and the stored tokens, opened under
// the former team's keys and sealed under the new team's active one, each under its binding, with
// its number and its time. No plaintext leaves the keyring.
import { DecryptionFailed, type Keyring, type WrappedDataKey } from '../crypto/index.ts';
import type { Trx } from '../db/client.ts';
import { AppError } from '../shared/errors.ts';
import type { CredentialId, TeamId } from '../shared/ids.ts';
import { inTurns } from '../shared/pace.ts';
import { UndecryptableVersion } from '../credentials/index.ts';
import { tokenSetBinding } from '../oauth/index.ts';
import * as repository from './transfer-repository.ts';

/** A credential between two teams; `key` is the active one of the new team. */
export interface Move {
  readonly credential: CredentialId;
  readonly type: string;
  readonly from: TeamId;
  readonly to: TeamId;
  readonly key: WrappedDataKey;
  readonly at: Date;
}

// A token is up to some hundred KiB long, and a team may keep a thousand versions.
const versionsPerBatch = 20;
const batchBytes = 2 * 1024 * 1024;
/** What one transaction moves. */
export const movedBytesMax = 128 * 1024 * 1024;
const bytesPerTurn = 64 * 1024;

/**
 * Moves every version; how many. Throws stateConflict, before anything is opened, where they are
 * too large together; UndecryptableVersion, KeyUnavailable.
 */
export async function moveVersions(
  trx: Trx,
  keyring: Keyring,
  { credential, type, from, to, key }: Move,
  bytesMax = movedBytesMax,
): Promise<number> {
  if ((await repository.findHeldBytes(trx, { team: from, credential })) > bytesMax)
    throw new AppError(
      'stateConflict',
      'Its versions are too large together to be moved at once: its team has to destroy ' +
        'earlier ones first.',
    );
  let moved = 0;
  for (let after = 0; ; ) {
    const batch = await repository.listHeldVersions(trx, {
      team: from,
      credential,
      after,
      limit: versionsPerBatch,
      bytesMax: batchBytes,
    });
    const last = batch.at(-1);
    if (last === undefined) return moved;
    const move = (held: repository.HeldVersion): string => {
      if (held.key === undefined) throw new UndecryptableVersion(held.version, undefined);
      try {
        return keyring.rehome(
          held.key,
          key,
          {
            team: from,
            credential,
            version: held.version,
            type,
            publicFields: held.publicFields,
            policy: held.policy,
            secretFields: held.secretFields,
          },
          held.token,
        );
      } catch (error) {
        throw error instanceof DecryptionFailed
          ? new UndecryptableVersion(held.version, held.key.id)
          : error;
      }
    };
    const tokens = await inTurns(batch, move, { bytesOf: ({ bytes }) => bytes, bytesPerTurn });
    await repository.storeVersions(trx, {
      from,
      to,
      credential,
      key: key.id,
      versions: batch.map(({ version }) => version),
      tokens,
    });
    moved += batch.length;
    after = last.version;
  }
}

/**
 * Moves the stored tokens. Throws stateConflict while they are being refreshed: what the provider
 * gives then must find its place. Throws undecryptable.
 */
export async function moveAccount(
  trx: Trx,
  keyring: Keyring,
  { credential, type, from, to, key, at }: Move,
): Promise<void> {
  const held = await repository.findAccount(trx, { team: from, credential });
  if (held === undefined) return;
  if (held.claimedUntil !== null && held.claimedUntil > at)
    throw new AppError('stateConflict', 'The account is being refreshed; try again.', {
      retryAfterSeconds: 1,
    });
  await repository.storeAccount(trx, {
    from,
    to,
    credential,
    key: key.id,
    token:
      held.token === null
        ? undefined
        : rehomed(
            keyring,
            held.key,
            { ...held, token: held.token },
            { credential, type, from, key },
          ),
  });
}

function rehomed(
  keyring: Keyring,
  from: WrappedDataKey | undefined,
  held: repository.HeldAccount & { readonly token: string },
  move: Pick<Move, 'credential' | 'type' | 'from' | 'key'>,
): string {
  const undecryptable = (cause?: unknown): AppError =>
    new AppError('undecryptable', 'The connected account does not open: connect it again first.', {
      cause,
    });
  if (from === undefined) throw undecryptable();
  try {
    return keyring.rehome(
      from,
      move.key,
      tokenSetBinding({
        team: move.from,
        credential: move.credential,
        sequence: held.sequence,
        type: move.type,
        client: held.client,
        policy: held.policy,
      }),
      held.token,
    );
  } catch (error) {
    throw error instanceof DecryptionFailed ? undecryptable(error) : error;
  }
}
