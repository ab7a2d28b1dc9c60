// What happens to keys by itself: rotations that a compromise or a team's policy asks for, and the
// destruction of keys whose waiting time is over. Runs on every replica; the lock on the active key
// and the partial unique index let each be done once. What fails for one team keeps no other from
// its turn.
import type { Trx } from '../db/client.ts';
import { isUniqueViolation } from '../db/errors.ts';
import type { RotationCause } from '../db/tables.ts';
import { AppError } from '../shared/errors.ts';
import { newId, type RotationId, type TeamId } from '../shared/ids.ts';
import { Periodic } from '../shared/periodic.ts';
import { beginRotation, withKeyLock } from './changing.ts';
import type { KeyLifeParts, KeyLifeService } from './life.ts';
import { verifyTeamRowMac, type TeamRef } from '../access/index.ts';
import type { EventInput } from '../audit/index.ts';
import * as repository from './repository.ts';
import * as rotationRepository from './rotation-repository.ts';

export interface KeySchedulerParts extends KeyLifeParts {
  readonly life: KeyLifeService;
  readonly onError: (error: Error) => void;
  readonly everyMs?: number;
}

const everyMsDefault = 60_000;
const teamsPerPage = 50;

/** Looks every minute. */
export class KeyScheduler {
  readonly #parts: KeySchedulerParts;
  readonly #periodic: Periodic;
  constructor(parts: KeySchedulerParts) {
    this.#parts = parts;
    this.#periodic = new Periodic({
      run: () => this.run(),
      everyMs: parts.everyMs ?? everyMsDefault,
      onFailure: (cause) => {
        parts.onError(
          new Error('the search for due keys failed; it is tried again in a minute', { cause }),
        );
      },
    });
  }

  start(): void {
    this.#periodic.start();
  }

  /** Waits for a run that is under way. */
  stop(): Promise<void> {
    return this.#periodic.stop();
  }

  /**
   * Looks at once, e.g. after keys were marked compromised; again when a look is under way, which
   * may have passed them by.
   */
  wake(): void {
    this.#periodic.wake();
  }

  /**
   * One look: starts every rotation that is due, destroys what is due. Throws an AggregateError of
   * what failed, when the rest is done.
   */
  async run(): Promise<{ rotations: number; destroyed: number }> {
    const { db, life } = this.#parts;
    const failures: unknown[] = [];
    const attempt = async <T>(act: () => Promise<T>, otherwise: T): Promise<T> =>
      act().catch((error: unknown) => {
        failures.push(error);
        return otherwise;
      });
    await attempt(() => rotationRepository.makeCompromisedUrgent(db), undefined);
    const rotations =
      (await this.#drain(
        () => attempt(() => rotationRepository.listCompromiseDue(db, teamsPerPage), []),
        ({ team, slug, isActive, running }) =>
          attempt(() => this.#moveOff({ id: team, slug }, isActive, running), false),
      )) +
      (await this.#drain(
        () => attempt(() => this.#listPolicyDue(), []),
        (team) =>
          attempt(
            () =>
              this.#rotate(team, 'policy', async (trx) => {
                const settings = await rotationRepository.findPolicyDue(trx, team.id);
                return settings !== undefined && verifyTeamRowMac(this.#parts.keyring, settings);
              }),
            false,
          ),
      ));
    if (rotations > 0) this.#parts.wake();
    const destroyed = await attempt(() => life.destroyDue(), 0);
    if (failures.length > 0) throw new AggregateError(failures, 'some due keys failed');
    return { rotations, destroyed };
  }

  /**
   * A page of teams that are due by a policy that an admin has set. One whose settings were changed
   * past the service raises the alarm, and is passed over.
   */
  async #listPolicyDue(): Promise<TeamRef[]> {
    const { db, audit, keyring } = this.#parts;
    for (let after: TeamId | undefined; ; ) {
      const page = await rotationRepository.listPolicyDue(db, { limit: teamsPerPage, after });
      const due = page.filter((team) => {
        if (verifyTeamRowMac(keyring, team)) return true;
        audit.alarm({
          team,
          action: 'key.rotate',
          target: { type: 'team', id: team.id },
          reason: 'sealBroken',
          requestId: itself.requestId,
        });
        return false;
      });
      after = page.at(-1)?.id;
      if (due.length > 0 || page.length < teamsPerPage) return due;
    }
  }

  /**
   * Page after page, as long as something of a page could be begun: what was begun is not due any
   * more.
   */
  async #drain<T>(
    list: () => Promise<readonly T[]>,
    begin: (due: T) => Promise<boolean>,
  ): Promise<number> {
    for (let begun = 0; ; ) {
      const before = begun;
      const page = await list();
      for (const due of page) if (!this.#periodic.isStopping && (await begin(due))) begun += 1;
      if (page.length < teamsPerPage || begun === before) return begun;
    }
  }

  /** A rotation to a compromised key is of no use: it ends, and one to a fresh key begins. */
  async #moveOff(team: TeamRef, isActive: boolean, running: RotationId | null): Promise<boolean> {
    const { db, audit, now } = this.#parts;
    if (isActive && running !== null) {
      await db
        .transaction()
        .setIsolationLevel('read committed')
        .execute(async (trx) => {
          if (
            !(await repository.isActiveCompromised(trx, team.id)) ||
            !(await rotationRepository.cancelRotation(trx, team.id, running, new Date(now())))
          )
            return;
          await audit.record(trx, {
            caller: itself,
            team,
            action: 'key.rotationCancel',
            target: { type: 'rotation', id: running },
            reason: 'compromise',
          });
        });
    }
    return this.#rotate(team, 'rootCompromise', (trx) =>
      isActive ? repository.isActiveCompromised(trx, team.id) : Promise.resolve(true),
    );
  }

  /**
   * Begins a rotation unless another replica was faster; `isDue` is asked again once the active key
   * is locked.
   */
  async #rotate(
    team: TeamRef,
    cause: RotationCause,
    isDue: (trx: Trx) => Promise<boolean>,
  ): Promise<boolean> {
    const at = new Date(this.#parts.now());
    try {
      return await withKeyLock(
        this.#parts.db,
        async (trx) =>
          (await beginRotation(this.#parts, trx, {
            id: newId<RotationId>(),
            team,
            caller: itself,
            cause,
            at,
            onceLocked: () => isDue(trx),
          })) !== undefined,
      );
    } catch (error) {
      const isTwin =
        isUniqueViolation(error, 'key_rotation_one_running') ||
        (error instanceof AppError &&
          (error.code === 'rotationRunning' || error.code === 'keyBusy'));
      if (isTwin) return false;
      throw error;
    }
  }
}

const itself: EventInput['caller'] = { subject: null, requestId: 'keys', address: null };
