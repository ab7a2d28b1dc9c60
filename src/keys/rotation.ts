// One batch of a rotation, and its end. A batch is one short transaction: hold, re-encrypt, store,
// count; whatever cuts it off leaves each token whole, under the one key or the other.
import { setImmediate as yieldToOthers } from 'node:timers/promises';
import { DecryptionFailed, type Keyring, KeyUnavailable } from '../crypto/index.ts';
import type { Db } from '../db/client.ts';
import { isCheckViolation } from '../db/errors.ts';
import type { DataKeyId } from '../shared/ids.ts';
import {
  countBatch,
  countLeft,
  endRotation,
  listRunningRotations,
  lockRunning,
  planByIndex,
  settleTotal,
} from './moving.ts';
import { reencryptors } from './tables/moving.ts';
import type { CiphertextTable } from './tables/table.ts';
import {
  batchBytesMax,
  type TokenToMove,
  type ReencryptedToken,
  type Reencryptor,
  type Position,
  type Quest,
  type RunningRotation,
} from './mover.ts';
import type { AuditLog, EventInput } from '../audit/index.ts';

export { listRunningRotations, settleTotal, type Position, type RunningRotation };

export interface RotationParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly now: () => number;
}

/**
 * What became of a batch: tokens moved or named as failures, keys that could not be unwrapped
 * (their tokens were let be), and the last token that it saw.
 */
export interface Batch {
  readonly moved: number;
  readonly failed: number;
  readonly unavailable: ReadonlyMap<DataKeyId, KeyUnavailable>;
  readonly last: Position | undefined;
  /** How many tokens as long as these may be in memory at once. */
  readonly rowsMax: number;
}

/**
 * What is known of a batch as soon as its tokens are re-encrypted, and only the database has to do
 * with it any more.
 */
export type Sealed = Pick<Batch, 'unavailable' | 'last' | 'rowsMax'>;

const uninterruptedMsMax = 0.5;
const nothing: Batch = {
  moved: 0,
  failed: 0,
  unavailable: new Map(),
  last: undefined,
  rowsMax: Number.POSITIVE_INFINITY,
};

/**
 * Thrown out of a batch's transaction when the rotation was cancelled meanwhile, or its key left;
 * never leaves this file.
 */
class RotationStopped extends Error {}

/**
 * Moves up to `limit` tokens in one transaction. Nothing is kept of a batch whose rotation does not
 * run any more at its end. `onSealed` is told of tokens that were found, once: whoever has time for
 * the next batch can begin it then.
 */
export async function reencryptBatch(
  parts: RotationParts,
  rotation: RunningRotation,
  quest: Quest,
  onSealed: (batch: Sealed) => void = () => undefined,
): Promise<Batch> {
  const { after } = quest;
  const begun = reencryptors.findIndex(({ table }) => table === after?.table);
  for (const reencryptor of reencryptors.slice(Math.max(0, begun))) {
    try {
      const result = await reencryptBatchOf(
        parts,
        rotation,
        { ...quest, after: after?.table === reencryptor.table ? after : undefined, reencryptor },
        onSealed,
      );
      if (result !== nothing) return result;
    } catch (error) {
      // The same, where the key left while the store waited for it.
      if (error instanceof RotationStopped || isCheckViolation(error, 'token_needs_active_key'))
        return nothing;
      throw error;
    }
  }
  return nothing;
}

/**
 * Ends the rotation if all that is left are its failures. "No row came back" is not "done": the
 * count waits for nobody, but sees what others hold. It holds up nobody either, and is true for
 * good: nothing is ever written under a key that is not active. False when somebody still holds
 * tokens, or the rotation has ended already.
 */
export async function endIfDone(
  { db, audit, now }: RotationParts,
  rotation: RunningRotation,
): Promise<boolean> {
  const { left, failed } = await countLeft(db, rotation);
  if (left > failed) return false;
  return db
    .transaction()
    .setIsolationLevel('read committed')
    .execute(async (trx) => {
      if (!(await lockRunning(trx, rotation))) return false;
      const state = failed === 0 ? 'completed' : 'completedWithFailures';
      const { total, done, toKey } = await endRotation(trx, rotation, {
        state,
        at: new Date(now()),
        failed,
      });
      await audit.record(trx, {
        ...eventOf(rotation),
        action: 'key.rotationEnd',
        target: { type: 'rotation', id: rotation.id },
        key: toKey,
        details: { state, total, done, failed },
      });
      return true;
    });
}

async function reencryptBatchOf(
  { db, keyring, audit, now }: RotationParts,
  rotation: RunningRotation,
  { reencryptor, ...quest }: Quest & { reencryptor: Reencryptor },
  onSealed: (batch: Sealed) => void,
): Promise<Batch> {
  const { table } = reencryptor;
  return db
    .transaction()
    .setIsolationLevel('read committed')
    .execute(async (trx) => {
      await planByIndex(trx);
      const held = await reencryptor.hold(trx, rotation, quest);
      const last = positionOf(table, held.at(-1));
      if (held.length === 0) return nothing;
      const rowsMax = rowsWithin(batchBytesMax, held);
      const { moved, failed, unavailable } = await reencrypt(keyring, held);
      onSealed({ unavailable, last, rowsMax });
      if (moved.length === 0 && failed.length === 0)
        return { moved: 0, failed: 0, unavailable, last, rowsMax };
      const at = new Date(now());
      if (moved.length > 0 && !(await reencryptor.store(trx, moved))) throw new RotationStopped();
      for (const failure of failed) await reencryptor.fail(trx, rotation, { ...failure, at });
      await audit.record(
        trx,
        ...failed.map(
          ({ token: { binding, from } }): EventInput => ({
            ...eventOf(rotation),
            action: 'key.rotationRowFailed',
            target: { type: 'credential', id: binding.credential },
            key: from.id,
            ...(table.rows === 'versions'
              ? { credentialVersion: binding.version, details: { rotation: rotation.id } }
              : { details: { rotation: rotation.id, table: table.name } }),
          }),
        ),
      );
      if (!(await countBatch(trx, rotation, { done: moved.length, at })))
        throw new RotationStopped();
      return { moved: moved.length, failed: failed.length, unavailable, last, rowsMax };
    });
}

interface Reencrypted {
  readonly moved: ReencryptedToken[];
  readonly failed: { token: TokenToMove; isUndecryptable: boolean }[];
  readonly unavailable: Map<DataKeyId, KeyUnavailable>;
}

/** Re-encrypts what it can; others get the process every few milliseconds. */
async function reencrypt(keyring: Keyring, held: readonly TokenToMove[]): Promise<Reencrypted> {
  const result: Reencrypted = { moved: [], failed: [], unavailable: new Map() };
  let since = performance.now();
  for (const token of held) {
    const { from, to, binding } = token;
    try {
      // SECURITY: a token under a key that has left is not opened, however it came there.
      if (token.fromState !== 'decryptOnly') result.failed.push({ token, isUndecryptable: false });
      else result.moved.push({ ...token, moved: keyring.reseal(from, to, binding, token.token) });
    } catch (error) {
      if (error instanceof KeyUnavailable) result.unavailable.set(from.id, error);
      else if (error instanceof DecryptionFailed)
        result.failed.push({ token, isUndecryptable: true });
      else throw error;
    }
    if (performance.now() - since > uninterruptedMsMax) {
      await yieldToOthers();
      since = performance.now();
    }
  }
  return result;
}

function rowsWithin(bytesMax: number, held: readonly TokenToMove[]): number {
  const bytes = held.reduce((sum, each) => sum + each.bytes, 0);
  return Math.max(1, Math.floor((bytesMax * held.length) / Math.max(1, bytes)));
}

function positionOf(table: CiphertextTable, held: TokenToMove | undefined): Position | undefined {
  return held === undefined
    ? undefined
    : {
        table,
        key: held.from.id,
        credential: held.binding.credential,
        version: held.binding.version,
      };
}

/**
 * Who stands for what a rotation does: the subject who started it, or nobody where the vault did.
 */
function eventOf(rotation: RunningRotation): Pick<EventInput, 'caller' | 'team'> {
  return {
    caller: { subject: rotation.startedBy, requestId: `rotation:${rotation.id}`, address: null },
    team: { id: rotation.team, slug: rotation.slug },
  };
}
