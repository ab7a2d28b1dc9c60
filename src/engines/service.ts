// Registered workflow engines: which subject is one, and to which public keys its leases are
// encrypted. All of it is the operator's. A change commits with its events: one of the vault's, and
// one in the trail of every team that the engine serves.
import { credentialTarget, type EventInput } from '../audit/event.ts';
import type { AuditLog } from '../audit/record.ts';
import type { Keyring } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import { isCheckViolation, isUniqueViolation } from '../db/errors.ts';
import type { Subjects } from '../db/subjects.ts';
import type { Caller } from '../http/access.ts';
import type { Claim } from '../http/idempotency.ts';
import { engineKeysMax } from '../http/limits.ts';
import type { Page } from '../http/paging.ts';
import { checkRevision, type ExpectedRevision } from '../http/preconditions.ts';
import { engineSealHolds, sealEngine } from '../http/rights.ts';
import { AppError, invalid, notFound } from '../shared/errors.ts';
import { type EngineId, isId, newId, type SubjectId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { type JwkInput, type PublicJwk, readPublicJwk } from './jwk.ts';
import * as repository from './repository.ts';
import type { EngineRow, EngineState } from './repository.ts';
import { sealEngineKey } from './seal.ts';

export type { JwkInput, PublicJwk } from './jwk.ts';
export type { EngineKeyRow, EngineRow, EngineState } from './repository.ts';
export { engineKeySealHolds, sealEngineKey, type SealedEngineKey } from './seal.ts';

export interface EnginesParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly subjects: Subjects;
  readonly now: () => number;
}

/** Thrown out of a transaction, so that it rolls back; never leaves this file. */
class SealBroken extends Error {}

/** What is asked of engines. */
export class EnginesService {
  readonly #parts: EnginesParts;
  constructor(parts: EnginesParts) {
    this.#parts = parts;
  }

  /**
   * Registers a subject as an engine. Throws subjectTaken, holdsARole, engineNameTaken,
   * invalidRequest for a key that is none.
   */
  async createEngine(
    caller: Caller,
    input: { name: string; subject: string; keys: readonly JwkInput[] },
    claim: Claim,
  ): Promise<EngineRow> {
    const { db, keyring, audit, subjects } = this.#parts;
    const keys = input.keys.map((key, index) => readKey(key, `/keys/${index}`));
    const twin = keys.findIndex(
      ({ kid }, index) => keys.findIndex((other) => other.kid === kid) < index,
    );
    if (twin >= 0) throw invalid(`/keys/${twin}`, 'unique');
    const id = newId<EngineId>();
    const at = this.#time();
    try {
      return await db.transaction().execute(async (trx) => {
        await claim(trx, id);
        const subject = await subjects.ensure(trx, input.subject);
        const seal = sealEngine(keyring, {
          id,
          subject,
          sub: input.subject,
          state: 'enabled',
          revision: 1,
        });
        await repository.insertEngine(trx, {
          id,
          subject,
          name: input.name,
          seal,
          by: caller.subject,
          at,
        });
        for (const key of keys)
          await this.#insertKey(trx, caller, { engine: id, ...key, revision: 1, at });
        await audit.record(trx, {
          caller,
          action: 'engine.create',
          target: { type: 'engine', id },
          details: { name: input.name, subject, kids: keys.map(({ kid }) => kid) },
        });
        return this.#get(trx, id);
      });
    } catch (error) {
      throw asEngineError(error);
    }
  }

  /** One engine. Throws notFound. */
  getEngine(id: string): Promise<EngineRow> {
    return this.#get(this.#parts.db, idOf(id));
  }

  /** Engines by name; one more than the page, for the cursor. */
  listEngines(page: Page): Promise<EngineRow[]> {
    return repository.listEngines(this.#parts.db, {
      limit: page.limit + 1,
      afterName: page.after?.[0],
    });
  }

  /**
   * Renames, enables or disables; a disabled engine is refused at its next request. Throws
   * engineNameTaken, preconditionFailed, stateConflict.
   */
  async updateEngine(
    caller: Caller,
    id: string,
    input: { name?: string | undefined; state?: EngineState | undefined },
    expected: ExpectedRevision,
  ): Promise<EngineRow> {
    return this.#change(caller, 'engine.update', id, expected, async (trx, engine) => {
      const name = input.name ?? engine.name;
      const state = input.state ?? engine.state;
      const changed = [
        ...(name === engine.name ? [] : ['name']),
        ...(state === engine.state ? [] : ['state']),
      ];
      if (changed.length === 0) return;
      await this.#renew(trx, caller, engine, { name, state });
      await this.#record(trx, caller, engine, 'engine.update', { changed, state });
    });
  }

  /**
   * Removes the registration, its keys and the engine's memberships. Throws notFound,
   * preconditionFailed.
   */
  async deleteEngine(caller: Caller, id: string, expected: ExpectedRevision): Promise<void> {
    const engineId = idOf(id);
    await this.#parts.db.transaction().execute(async (trx) => {
      if (!(await repository.lockEngine(trx, engineId))) throw notFound();
      const engine = await this.#get(trx, engineId);
      checkRevision(expected, engine.revision);
      const teams = await repository.listTeamsOfEngine(trx, engine.subject);
      await this.#record(trx, caller, engine, 'engine.delete', {
        name: engine.name,
        subject: engine.subject,
      });
      await this.#parts.audit.record(
        trx,
        ...teams.map(
          (team): EventInput => ({
            caller,
            team,
            action: 'member.remove',
            target: { type: 'subject', id: engine.subject },
            details: { roleBefore: 'engine' },
          }),
        ),
      );
      const granted = await repository.deleteGrantsOfEngine(trx, engine.subject);
      await this.#parts.audit.record(
        trx,
        ...granted.map(
          ({ id: grant, credential, team }): EventInput => ({
            caller,
            team,
            action: 'grant.remove',
            target: credentialTarget(credential),
            details: { grant, grantee: engine.subject, reason: 'engineDeleted' },
          }),
        ),
      );
      // Memberships first: their trigger asks for the registration only when a role is given.
      await repository.deleteMembershipsOfEngine(trx, engine.subject);
      await repository.deleteEngine(trx, engineId);
    });
  }

  /**
   * Registers one more key; leases go to the newest unless the engine names another. Throws
   * engineKeyTaken, stateConflict, invalidRequest.
   */
  async addEngineKey(
    caller: Caller,
    id: string,
    input: JwkInput,
    claim: Claim,
  ): Promise<EngineRow> {
    const key = readKey(input, '/key');
    return this.#change(caller, 'engine.key.add', id, 'any', async (trx, engine) => {
      await claim(trx, engine.id);
      if (engine.keys.some(({ kid }) => kid === key.kid)) throw keyTaken();
      if (engine.keys.length >= engineKeysMax)
        throw new AppError('stateConflict', `An engine has at most ${engineKeysMax} keys.`);
      const { revision, at } = await this.#renew(trx, caller, engine, engine);
      await this.#insertKey(trx, caller, { engine: engine.id, ...key, revision, at });
      await this.#record(trx, caller, engine, 'engine.key.add', { kid: key.kid });
    });
  }

  /** Removes a key; the last one stays. Throws notFound, preconditionFailed, stateConflict. */
  async removeEngineKey(
    caller: Caller,
    id: string,
    kid: string,
    expected: ExpectedRevision,
  ): Promise<void> {
    await this.#change(caller, 'engine.key.remove', id, expected, async (trx, engine) => {
      if (!engine.keys.some((key) => key.kid === kid)) throw notFound();
      if (engine.keys.length === 1)
        throw new AppError('stateConflict', 'An engine keeps at least one key.');
      await repository.deleteEngineKey(trx, engine.id, kid);
      await this.#renew(trx, caller, engine, engine);
      await this.#record(trx, caller, engine, 'engine.key.remove', { kid });
    });
  }

  /**
   * What a subject is: nobody's engine, or one that is enabled. Throws notAnEngine for one that is
   * not. It stays so to the end of the transaction.
   */
  async isEngine(trx: Trx, subject: SubjectId, sub: string, caller: Caller): Promise<boolean> {
    if ((await repository.holdEngineOf(trx, subject)) === undefined) return false;
    if (await this.isEnabledEngine(trx, subject, sub, caller)) return true;
    throw new AppError('notAnEngine', 'The engine is disabled.');
  }

  /**
   * Whether the subject is an enabled engine whose seal holds. It stays so to the end of the
   * transaction.
   */
  async isEnabledEngine(
    trx: Trx,
    subject: SubjectId,
    sub: string,
    caller: Caller,
  ): Promise<boolean> {
    const row = await repository.holdEngineOf(trx, subject);
    if (row === undefined) return false;
    if (!engineSealHolds(this.#parts.keyring, { ...row, subject, sub }, row.seal)) {
      await this.#denySealBroken(caller, 'team.manage', row.id);
      return false;
    }
    return row.state === 'enabled';
  }

  /** Runs a change on a locked engine whose seal holds. */
  async #change(
    caller: Caller,
    action: string,
    id: string,
    expected: ExpectedRevision,
    change: (trx: Trx, engine: EngineRow) => Promise<void>,
  ): Promise<EngineRow> {
    const engineId = idOf(id);
    try {
      return await this.#parts.db.transaction().execute(async (trx) => {
        if (!(await repository.lockEngine(trx, engineId))) throw notFound();
        const engine = await this.#get(trx, engineId);
        checkRevision(expected, engine.revision);
        // SECURITY: a change renews the seal; without this it would seal whatever somebody wrote
        // past the service.
        if (!engineSealHolds(this.#parts.keyring, engine, engine.seal)) throw new SealBroken();
        await change(trx, engine);
        return this.#get(trx, engineId);
      });
    } catch (error) {
      if (!(error instanceof SealBroken)) throw asEngineError(error);
      await this.#denySealBroken(caller, action, engineId);
      throw new AppError(
        'stateConflict',
        'The registration was changed outside the vault; delete it and register the engine again.',
      );
    }
  }

  async #get(executor: Db | Trx, id: EngineId): Promise<EngineRow> {
    const engine = await repository.findEngine(executor, id);
    if (engine === undefined) throw notFound();
    return engine;
  }

  /** Grows the revision and seals it. */
  async #renew(
    trx: Trx,
    caller: Caller,
    engine: EngineRow,
    next: { name: string; state: EngineState },
  ): Promise<{ revision: number; at: Date }> {
    const at = this.#time();
    const revision = engine.revision + 1;
    const seal = sealEngine(this.#parts.keyring, {
      id: engine.id,
      subject: engine.subject,
      sub: engine.sub,
      state: next.state,
      revision,
    });
    await repository.updateEngine(trx, {
      id: engine.id,
      name: next.name,
      state: next.state,
      revision,
      seal,
      by: caller.subject,
      at,
    });
    return { revision, at };
  }

  async #insertKey(
    trx: Trx,
    caller: Caller,
    key: { engine: EngineId; kid: string; jwk: PublicJwk; revision: number; at: Date },
  ): Promise<void> {
    const seal = sealEngineKey(this.#parts.keyring, {
      engine: key.engine,
      kid: key.kid,
      jwk: { ...key.jwk },
      revision: key.revision,
    });
    await repository.insertEngineKey(trx, { ...key, seal, by: caller.subject });
  }

  /** The vault's event, and the same in the trail of every team that the engine serves. */
  async #record(
    trx: Trx,
    caller: Caller,
    engine: EngineRow,
    action: string,
    details: JsonObject,
  ): Promise<void> {
    const target = { type: 'engine', id: engine.id };
    const teams = await repository.listTeamsServed(trx, engine.subject);
    await this.#parts.audit.record(
      trx,
      { caller, action, target, details },
      ...teams.map((team): EventInput => ({ caller, team, action, target, details })),
    );
  }

  #denySealBroken(caller: Caller, action: string, id: EngineId): Promise<void> {
    return this.#parts.audit.denial({
      caller,
      team: undefined,
      action,
      target: { type: 'engine', id },
      reason: 'sealBroken',
    });
  }

  #time(): Date {
    return new Date(this.#parts.now());
  }
}

function idOf(text: string): EngineId {
  if (!isId<EngineId>(text)) throw notFound();
  return text;
}

function readKey(input: JwkInput, pointer: string): { kid: string; jwk: PublicJwk } {
  const read = readPublicJwk(input);
  if ('fault' in read) throw invalid(pointer, read.fault);
  return read;
}

const keyTaken = (): AppError => new AppError('engineKeyTaken', 'The engine has this key already.');

/** What the constraints on engines say. */
function asEngineError(error: unknown): unknown {
  if (isUniqueViolation(error, 'engine_subject_key'))
    return new AppError('subjectTaken', 'The subject is an engine already.');
  if (isUniqueViolation(error, 'engine_name_key'))
    return new AppError('engineNameTaken', 'An engine has this name.');
  if (isUniqueViolation(error, 'engine_key_pkey')) return keyTaken();
  if (isCheckViolation(error, 'engine_subject_is_no_person')) {
    return new AppError(
      'holdsARole',
      'The subject holds a role in a team; an engine holds none but its own.',
    );
  }
  return error;
}
