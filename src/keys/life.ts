// The life of a key besides rotation: retire, restore, destroy, compromise. A state changes only
// under `for update` on the key's row, taken in a statement of its own at READ COMMITTED: writers
// of tokens hold the share lock, so what they wrote is committed, and counted, before the state
// changes. The database's trigger knows the same arrows.
import { sql } from 'kysely';
import type { Keyring } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import { type DatabaseClock, vaultNow } from '../db/clock.ts';
import type { DataKeyState } from '../db/tables.ts';
import { AppError, notFound } from '../shared/errors.ts';
import { type DataKeyId, newId, type RotationId } from '../shared/ids.ts';
import { beginRotation, setLockTimeout, withKeyLock } from './changing.ts';
import * as repository from './repository.ts';
import * as rotationRepository from './rotation-repository.ts';
import type { KeyChange } from './repository.ts';
import { countTokensByTable } from './tables/counts.ts';
import type { Caller, TeamRef } from '../access/index.ts';
import type { AuditLog, EventInput } from '../audit/index.ts';
import type { KeyRow } from './types.ts';

export interface KeyLifeParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly now: () => number;
  /** Asked before anything is destroyed. */
  readonly clock: Pick<DatabaseClock, 'demandAgreement'>;
  /** Called when a rotation was started, so that this replica begins at once. */
  readonly wake: () => void;
}

export const destroyDaysMin = 7;
export const destroyDaysMax = 90;
const destroyBatch = 100;

/** Moves keys along the arrows of their life. */
export class KeyLifeService {
  readonly #parts: KeyLifeParts;
  constructor(parts: KeyLifeParts) {
    this.#parts = parts;
  }

  /**
   * decryptOnly → retired, of a key that no token needs. Throws keyStateConflict, keyInUse with the
   * counts, keyBusy, notFound.
   */
  retireKey(caller: Caller, team: TeamRef, id: DataKeyId, reason?: string): Promise<KeyRow> {
    return this.#move(
      { caller, team, id, from: 'decryptOnly', action: 'key.retire', reason },
      async (trx, at) => {
        await refuseWhileInUse(trx, team, id);
        return { state: 'retired', retired_at: at };
      },
    );
  }

  /** retired → decryptOnly: for a backup whose tokens need it. Throws keyStateConflict. */
  restoreKey(caller: Caller, team: TeamRef, id: DataKeyId, reason?: string): Promise<KeyRow> {
    return this.#move(
      { caller, team, id, from: 'retired', action: 'key.restore', reason },
      async () => ({ state: 'decryptOnly', retired_at: null }),
    );
  }

  /**
   * retired → destroyPending: its material goes when the days are over. Throws keyStateConflict.
   */
  scheduleDestroy(
    caller: Caller,
    team: TeamRef,
    id: DataKeyId,
    days: number,
    reason?: string,
  ): Promise<KeyRow> {
    return this.#move(
      {
        caller,
        team,
        id,
        from: 'retired',
        action: 'key.scheduleDestroy',
        reason,
        details: { days },
      },
      async () => ({
        state: 'destroyPending',
        destroy_scheduled_at: vaultNow,
        destroy_at: sql<Date>`${vaultNow} + make_interval(days => ${days}::int)`,
      }),
    );
  }

  /** destroyPending → retired. Throws keyStateConflict. */
  cancelDestroy(caller: Caller, team: TeamRef, id: DataKeyId, reason?: string): Promise<KeyRow> {
    return this.#move(
      { caller, team, id, from: 'destroyPending', action: 'key.cancelDestroy', reason },
      async () => ({
        state: 'retired',
        destroy_scheduled_at: null,
        destroy_at: null,
      }),
    );
  }

  /**
   * Marks a key compromised for ever, and moves whatever is under it at once: a rotation with
   * priority, unless one to another key runs already. Every credential whose value was ever under
   * it is `exposed` from then on. Throws keyStateConflict for a destroyed or a marked one.
   */
  async markCompromised(
    caller: Caller,
    team: TeamRef,
    id: DataKeyId,
    reason: string,
  ): Promise<KeyRow> {
    const { db, audit } = this.#parts;
    const at = new Date(this.#parts.now());
    await withKeyLock(db, async (trx) => {
      await setLockTimeout(trx);
      const key = await repository.lockKey(trx, team.id, id);
      if (key === undefined) throw notFound();
      if (key.state === 'destroyed' || key.compromisedAt !== null)
        throw stateConflict('The key is destroyed, or marked already.');
      await repository.updateKey(trx, team.id, id, {
        compromised_at: at,
        compromised_by: caller.subject,
        compromise_reason: reason,
      });
      await audit.record(trx, {
        caller,
        team,
        action: 'key.markCompromised',
        target: { type: 'key', id },
        key: id,
        details: { reason },
      });
      await this.#moveOff(trx, { caller, team, id, state: key.state, at });
    });
    this.#parts.wake();
    const row = await repository.findKey(db, team.id, id);
    if (row === undefined) throw notFound();
    return row;
  }

  /**
   * Destroys the keys whose time has come by the database's clock; each in a transaction of its
   * own, once, whichever replica is first. A key that cannot be destroyed keeps no other from it;
   * of such an AggregateError tells in the end. Throws ClockDiffers where something is due and the
   * clocks do not agree.
   */
  async destroyDue(): Promise<number> {
    const { db, clock } = this.#parts;
    let destroyed = 0;
    const failures: unknown[] = [];
    const due = await repository.listDestroyDue(db, destroyBatch);
    if (due.length > 0) await clock.demandAgreement();
    for (const { id, team, slug } of due) {
      try {
        if (await this.#destroy({ id: team, slug }, id)) destroyed += 1;
      } catch (error) {
        failures.push(new Error(`key ${id} cannot be destroyed`, { cause: error }));
      }
    }
    if (failures.length > 0)
      throw new AggregateError(failures, 'cannot destroy keys whose waiting time is over');
    return destroyed;
  }

  #destroy(team: TeamRef, id: DataKeyId): Promise<boolean> {
    return withKeyLock(this.#parts.db, async (trx) => {
      await setLockTimeout(trx);
      const key = await repository.lockKey(trx, team.id, id);
      // It may have been cancelled since it was listed, and scheduled anew.
      if (key?.state !== 'destroyPending' || !key.isDestroyDue) return false;
      // With this server, not with the one that was asked before: it may have lost its place.
      await this.#parts.clock.demandAgreement(trx);
      await refuseWhileInUse(trx, team, id);
      await repository.updateKey(trx, team.id, id, {
        state: 'destroyed',
        wrapped: null,
        destroyed_at: vaultNow,
      });
      await this.#parts.audit.record(trx, {
        caller: itself,
        team,
        action: 'key.destroy',
        target: { type: 'key', id },
        key: id,
      });
      return true;
    });
  }

  /**
   * A compromised key must not be where tokens go, nor stay where they are. Locks keys first, then
   * the rotation, as everybody does.
   */
  async #moveOff(
    trx: Trx,
    of: { caller: Caller; team: TeamRef; id: DataKeyId; state: DataKeyState; at: Date },
  ): Promise<void> {
    const { caller, team, id, state, at } = of;
    if (state !== 'active' && !(await repository.hasTokens(trx, team.id, id))) return;
    // nobody starts a rotation between our look and our own start
    if (state !== 'active') await repository.lockActiveKeyAlone(trx, team.id);
    const running = await rotationRepository.lockRunningRotation(trx, team.id);
    if (running !== undefined && state !== 'active') {
      await rotationRepository.makeUrgent(trx, running);
      return;
    }
    if (running !== undefined) {
      await rotationRepository.cancelRotation(trx, team.id, running, at);
      await this.#parts.audit.record(trx, {
        caller,
        team,
        action: 'key.rotationCancel',
        target: { type: 'rotation', id: running },
        reason: 'compromise',
      });
    }
    await beginRotation(this.#parts, trx, {
      id: newId<RotationId>(),
      team,
      caller,
      cause: 'compromise',
      at,
    });
  }

  async #move(
    of: {
      caller: Caller;
      team: TeamRef;
      id: DataKeyId;
      from: DataKeyState;
      action: string;
      reason: string | undefined;
      details?: Record<string, number>;
    },
    plan: (trx: Trx, at: Date) => Promise<KeyChange>,
  ): Promise<KeyRow> {
    const { caller, team, id, from, action } = of;
    return withKeyLock(this.#parts.db, async (trx) => {
      await setLockTimeout(trx);
      const key = await repository.lockKey(trx, team.id, id);
      if (key === undefined) throw notFound();
      if (key.state !== from) throw stateConflict(`The key has to be in state ${from}.`);
      await repository.updateKey(trx, team.id, id, await plan(trx, new Date(this.#parts.now())));
      await this.#parts.audit.record(trx, {
        caller,
        team,
        action,
        target: { type: 'key', id },
        key: id,
        details: { ...of.details, ...(of.reason === undefined ? {} : { reason: of.reason }) },
      });
      const row = await repository.findKey(trx, team.id, id);
      if (row === undefined) throw notFound();
      return row;
    });
  }
}

async function refuseWhileInUse(trx: Trx, team: TeamRef, id: DataKeyId): Promise<void> {
  const rows = await countTokensByTable(trx, { team: team.id, id });
  if (Object.values(rows).every((count) => count === 0)) return;
  throw new AppError(
    'keyInUse',
    'Tokens are still under this key: rotate, or remove what does not open.',
    { details: { rows } },
  );
}

const stateConflict = (message: string): AppError => new AppError('keyStateConflict', message);
const itself: EventInput['caller'] = { subject: null, requestId: 'keys', address: null };
