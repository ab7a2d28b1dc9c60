// Registered workflow engines: which subject is one, and to which public keys its leases are
// encrypted. All of it is the operator's. A change commits with its events: one of the vault's, and
// one in the audit log of every team that the engine serves.
import type { Keyring } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import { isCheckViolation, isUniqueViolation } from '../db/errors.ts';
import type { Subjects } from '../db/subjects.ts';
import { engineKeysMax } from '../shared/limits.ts';
import { AppError, invalid, notFound } from '../shared/errors.ts';
import { type EngineId, isId, newId, type SubjectId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { demandName } from '../shared/visible-names.ts';
import { type JwkInput, type PublicJwk, readPublicJwk } from './jwk.ts';
import * as repository from './repository.ts';
import { verifyEngineKeyRowMac, engineKeyRowMac } from './row-mac.ts';
import type { Claim } from '../db/claims.ts';
import type { Page } from '../shared/paging.ts';
import { checkRevision, type ExpectedRevision } from '../shared/revisions.ts';
import {
  type Caller,
  verifyEngineRowMac,
  verifyGrantRowMac,
  verifyMembershipRowMac,
  engineRowMac,
  type SubjectBounds,
} from '../access/index.ts';
import {
  type AlarmReason,
  type AuditLog,
  credentialTarget,
  type EventInput,
} from '../audit/index.ts';
import type { EngineKeyRow, EngineRow, EngineState } from './types.ts';

export interface EnginesParts {
  readonly db: Db;
  readonly keyring: Keyring;
  /** What subjects may not, whatever a row says. */
  readonly subjectBounds: SubjectBounds;
  readonly audit: AuditLog;
  readonly subjects: Subjects;
  readonly now: () => number;
  /** Whether a row can be answered with; asked before a change of it commits. */
  readonly canShow: (row: EngineRow) => boolean;
}

/** Thrown out of a transaction, so that it rolls back; never leaves this file. */
class RowTampered extends Error {
  readonly reason: AlarmReason;
  constructor(reason: AlarmReason) {
    super('a row was changed past the service');
    this.reason = reason;
  }
}

/** An engine, and whether the vault wrote its registration: without that it is none. */
export type SeenEngine = EngineRow & { readonly intact: boolean };

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
  ): Promise<SeenEngine> {
    const { db, keyring, subjectBounds, audit, subjects } = this.#parts;
    demandName(input.name);
    if (!subjectBounds.isKnown(input.subject)) throw invalid('/subject', 'issuer');
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
        const seal = engineRowMac(keyring, {
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
        return { ...(await this.#get(trx, id)), intact: true };
      });
    } catch (error) {
      throw asEngineError(error);
    }
  }

  /** One engine, without the keys that were put to it past the service. Throws notFound. */
  async getEngine(id: string, requestId: string): Promise<SeenEngine> {
    return this.#seen(await this.#get(this.#parts.db, idOf(id)), requestId);
  }

  /**
   * Engines by name; one more than the page, for the cursor. A tampered one raises the alarm, as do
   * keys that were put to it past the service, which are left out.
   */
  async listEngines(page: Page, requestId: string): Promise<SeenEngine[]> {
    const rows = await repository.listEngines(this.#parts.db, {
      limit: page.limit + 1,
      afterName: page.after?.[0],
    });
    return rows.map((row) => this.#seen(row, requestId));
  }

  #seen(row: EngineRow, requestId: string): SeenEngine {
    const intact = verifyEngineRowMac(this.#parts.keyring, row, row.seal);
    const keys = row.keys.filter((key) => this.#keyHolds(key));
    if (!intact || keys.length < row.keys.length)
      this.#parts.audit.alarm({
        team: undefined,
        action: 'engine.manage',
        target: { type: 'engine', id: row.id },
        reason: 'sealBroken',
        requestId,
      });
    return { ...row, keys, intact };
  }

  #keyHolds({ engine, kid, jwk, revision, seal }: EngineKeyRow): boolean {
    return verifyEngineKeyRowMac(
      this.#parts.keyring,
      { engine, kid, jwk: jwk as unknown as JsonObject, revision },
      seal,
    );
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
  ): Promise<SeenEngine> {
    return this.#change(caller, 'engine.update', id, expected, async (trx, engine) => {
      const name = input.name ?? engine.name;
      if (name !== engine.name) demandName(name);
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
      const { keyring } = this.#parts;
      // SECURITY: in a team's log stands what the vault knows, and no row that somebody else wrote
      // says that the engine was in the team.
      await this.#record(
        trx,
        caller,
        engine,
        'engine.delete',
        verifyEngineRowMac(keyring, engine, engine.seal)
          ? { name: engine.name, subject: engine.subject }
          : { subject: engine.subject, wasTampered: true },
      );
      await this.#parts.audit.record(
        trx,
        ...teams
          .filter((held) =>
            verifyMembershipRowMac(
              keyring,
              { ...held, team: held.id, subject: engine.subject, sub: engine.sub, role: 'engine' },
              held.seal,
            ),
          )
          .map(
            ({ id: team, slug }): EventInput => ({
              caller,
              team: { id: team, slug },
              action: 'member.remove',
              target: { type: 'subject', id: engine.subject },
              details: { roleBefore: 'engine' },
            }),
          ),
      );
      const granted = await repository.deleteGrantsOfEngine(trx, engine.subject);
      await this.#parts.audit.record(
        trx,
        ...granted
          .filter(({ grant, seal }) =>
            verifyGrantRowMac(
              keyring,
              { ...grant, kind: 'engine', grantee: engine.subject, name: engine.sub },
              seal,
            ),
          )
          .map(
            ({ grant }): EventInput => ({
              caller,
              team: { id: grant.team, slug: grant.slug },
              action: 'grant.remove',
              target: credentialTarget(grant.credential),
              details: { grant: grant.id, grantee: engine.subject, reason: 'engineDeleted' },
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
  ): Promise<SeenEngine> {
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
      const key = engine.keys.find((each) => each.kid === kid);
      if (key === undefined) throw notFound();
      // What somebody else put there is no key of the engine's: it may always go.
      const own = engine.keys.filter((each) => this.#keyHolds(each));
      if (own.length === 1 && own.includes(key))
        throw new AppError('stateConflict', 'An engine keeps at least one key.');
      await repository.deleteEngineKey(trx, engine.id, kid);
      await this.#renew(trx, caller, engine, engine);
      await this.#record(trx, caller, engine, 'engine.key.remove', { kid });
    });
  }

  /**
   * Whether an engine is registered for the subject; its row MAC is verified wherever it is allowed
   * something.
   */
  hasEngine(subject: SubjectId): Promise<boolean> {
    return repository.hasEngine(this.#parts.db, subject);
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
   * Whether the subject is an enabled engine whose row MAC verifies. It stays so to the end of the
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
    if (!verifyEngineRowMac(this.#parts.keyring, { ...row, subject, sub }, row.seal)) {
      await this.#denyTampered(caller, 'team.manage', row.id, 'sealBroken');
      return false;
    }
    return row.state === 'enabled';
  }

  /** Runs a change on a locked engine whose row MAC verifies. */
  async #change(
    caller: Caller,
    action: string,
    id: string,
    expected: ExpectedRevision,
    change: (trx: Trx, engine: EngineRow) => Promise<void>,
  ): Promise<SeenEngine> {
    const engineId = idOf(id);
    try {
      return await this.#parts.db.transaction().execute(async (trx) => {
        if (!(await repository.lockEngine(trx, engineId))) throw notFound();
        const engine = await this.#get(trx, engineId);
        checkRevision(expected, engine.revision);
        // SECURITY: a change renews the row MAC; without this it would protect whatever somebody
        // wrote past the service.
        if (!verifyEngineRowMac(this.#parts.keyring, engine, engine.seal))
          throw new RowTampered('sealBroken');
        await change(trx, engine);
        const after = await this.#get(trx, engineId);
        const keys = after.keys.filter((key) => this.#keyHolds(key));
        const shown = { ...after, keys, intact: true };
        if (!this.#parts.canShow(shown)) throw new RowTampered('rowUnreadable');
        return shown;
      });
    } catch (error) {
      if (!(error instanceof RowTampered)) throw asEngineError(error);
      await this.#denyTampered(caller, action, engineId, error.reason);
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

  /** Grows the revision and computes the row MAC. */
  async #renew(
    trx: Trx,
    caller: Caller,
    engine: EngineRow,
    next: { name: string; state: EngineState },
  ): Promise<{ revision: number; at: Date }> {
    const at = this.#time();
    const revision = engine.revision + 1;
    const seal = engineRowMac(this.#parts.keyring, {
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
    const seal = engineKeyRowMac(this.#parts.keyring, {
      engine: key.engine,
      kid: key.kid,
      jwk: { ...key.jwk },
      revision: key.revision,
    });
    await repository.insertEngineKey(trx, { ...key, seal, by: caller.subject });
  }

  /** The vault's event, and the same in the audit log of every team that the engine serves. */
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

  #denyTampered(caller: Caller, action: string, id: EngineId, reason: AlarmReason): Promise<void> {
    return this.#parts.audit.denial({
      caller,
      team: undefined,
      action,
      target: { type: 'engine', id },
      reason,
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
