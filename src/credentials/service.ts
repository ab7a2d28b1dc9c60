// Credentials: what people do with them. Secrets come in and are sealed; none comes out here. Every change commits with its
// audit event; whatever is written lands under the team's active key or not at all.
import type { AuditLog } from '../audit/record.ts';
import { credentialTarget } from '../audit/event.ts';
import { DecryptionFailed, type Keyring, Secret, type SecretFields, type WrappedDataKey } from '../crypto/index.ts';
import type { Db, Trx } from '../db/client.ts';
import { isCheckViolation, isUniqueViolation } from '../db/errors.ts';
import type { Caller, Located, TeamRef } from '../http/access.ts';
import { type Claim, isNoClaim } from '../http/idempotency.ts';
import type { Page } from '../http/paging.ts';
import { checkRevision, type ExpectedRevision } from '../http/preconditions.ts';
import { standingOf } from '../http/rights.ts';
import { AppError, invalid, notFound } from '../shared/errors.ts';
import { type CredentialId, isId, newId, type TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { applyFields, defaultPolicy, demandAllSecrets, type FieldsInput, isWider, type Policy, readNewFields, type SecretValues } from './fields.ts';
import { type CredentialFilters, listCredentials, type ListedCredential } from './listing.ts';
import * as repository from './repository.ts';
import type { CredentialRow, CredentialWrite, VersionRow } from './repository.ts';
import { credentialSealHolds, sealCredential } from './seal.ts';
import { type CredentialType, findType } from './types/registry.ts';

export type { CredentialRow, VersionRow } from './repository.ts';
export { credentialSealHolds, sealCredential, type SealedCredential } from './seal.ts';
export { type CredentialFilters, sortKeyOf } from './listing.ts';

export interface CredentialsParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly now: () => number;
}

export interface CredentialInput {
  readonly name: string;
  readonly type: string;
  readonly fields: FieldsInput;
  readonly publicFieldNames?: readonly string[] | undefined;
  readonly description?: string | null | undefined;
  readonly labels?: Readonly<Record<string, string>> | null | undefined;
  readonly expiresAt?: Date | null | undefined;
  readonly policy?: Policy | undefined;
}

/** Omitted = keep, null = clear. */
export interface CredentialChange {
  readonly name?: string | undefined;
  readonly fields?: FieldsInput | undefined;
  readonly description?: string | null | undefined;
  readonly labels?: Readonly<Record<string, string>> | null | undefined;
  readonly expiresAt?: Date | null | undefined;
  readonly policy?: Policy | undefined;
}

const attemptsMax = 5;

/** What is asked of credentials. */
export class CredentialsService {
  readonly #parts: CredentialsParts;
  constructor(parts: CredentialsParts) { this.#parts = parts; }

  /** The credential of a path with the caller's standing in its team, for the authorization hook. Deleted ones are hidden. */
  async locateCredential(caller: Caller, id: string): Promise<Located<CredentialRow> | undefined> {
    if (!isId<CredentialId>(id)) return undefined;
    const row = await repository.findCredentialWithRights(this.#parts.db, id, caller.subject, this.#time());
    if (row === undefined) return undefined;
    const team = { id: row.team, slug: row.slug };
    if (!credentialSealHolds(this.#parts.keyring, row, row.seal)) return { team, role: undefined, refusal: 'sealBroken', thing: row };
    const standing = standingOf(row, { team: row.team, slug: row.slug, subject: caller.subject, sub: caller.sub }, this.#parts.keyring);
    if (standing.role !== undefined && row.state === 'deleted') return { team, role: undefined, refusal: 'deleted', thing: row };
    return { team, role: standing.role, refusal: standing.refusal, thing: row };
  }

  /** One credential as it is now. Throws notFound. */
  async getCredential(team: TeamRef, id: string): Promise<CredentialRow> {
    const row = isId<CredentialId>(id) ? await repository.findCredential(this.#parts.db, team.id, id, this.#time()) : undefined;
    if (row === undefined || row.state === 'deleted') throw notFound();
    return row;
  }

  /** A page of credentials, one more than asked for. What a broken seal hides is reported. */
  async listCredentials(caller: Caller, team: TeamRef | undefined, filters: CredentialFilters, page: Page): Promise<ListedCredential[]> {
    const listed = await listCredentials(this.#parts, { caller, team, filters, page });
    for (const { row, isSealBroken } of listed) {
      if (!isSealBroken) continue;
      await this.#parts.audit.denial({
        caller, team: { id: row.team, slug: row.slug }, action: 'credential.read', target: credentialTarget(row.id), reason: 'sealBroken',
      });
    }
    return listed;
  }

  /** Versions, newest first; one more than the page. */
  listVersions(row: CredentialRow, page: { limit: number; before: number | undefined }): Promise<VersionRow[]> {
    return repository.listVersions(this.#parts.db, row.team, row.id, { limit: page.limit + 1, before: page.before });
  }

  /** Stores a credential. Throws invalidRequest, nameTaken, notFound (the team went away). */
  async createCredential(caller: Caller, team: TeamRef, input: CredentialInput, claim: Claim): Promise<CredentialRow> {
    const type = typeNamed(input.type);
    const { publicFields, secrets } = readNewFields(type, input.fields, input.publicFieldNames ?? []);
    const policy = input.policy ?? defaultPolicy;
    const id = newId<CredentialId>();
    const at = this.#time();
    const sealed = {
      id, team: team.id, name: input.name, type: type.name, state: 'enabled' as const, version: 1, expiresAt: input.expiresAt ?? null, revision: 1,
    };
    const write: CredentialWrite = {
      ...sealed, seal: sealCredential(this.#parts.keyring, sealed), description: input.description ?? null, labels: input.labels ?? {}, by: caller.subject, at,
    };
    const secretFieldNames = Object.keys(secrets).sort();
    await this.#underActiveKey(async () => {
      const key = await this.#activeKey(team.id);
      const place = { team: team.id, credential: id, version: 1, type: type.name, publicFields, policy: asJson(policy) };
      const token = this.#parts.keyring.seal(key, place, new Secret(secrets));
      const version = { team: team.id, credential: id, version: 1, key: key.id, token, secretFieldNames, publicFields, policy, by: caller.subject, at };
      const recorded = this.#parts.audit.parts([{
        caller, team, action: 'credential.create', target: credentialTarget(id), key: key.id, credentialVersion: 1, details: { type: type.name },
      }]);
      const insert = async (executor: Db | Trx): Promise<void> => {
        if (!await repository.insertCredential(executor, write, version, recorded)) throw notFound();
      };
      if (isNoClaim(claim)) await insert(this.#parts.db);
      else await this.#parts.db.transaction().execute(async (trx) => { await claim(trx, id); await insert(trx); });
    });
    return {
      ...sealed, seal: write.seal, slug: team.slug, description: write.description, labels: write.labels, publicFields, secretFieldNames, policy,
      problems: [], useCount: null, lastUsedAt: null, deletedAt: null, createdAt: at, createdBy: caller.sub, updatedAt: at, updatedBy: caller.sub,
      ...(write.expiresAt === null ? {} : { problems: (await this.getCredential(team, id)).problems }),
    };
  }

  /**
   * Changes a credential. Fields or policy make a version; the rest does not, and never decrypts. Throws preconditionFailed,
   * invalidRequest, secretRequired, undecryptable, nameTaken.
   */
  async updateCredential(caller: Caller, located: CredentialRow, change: CredentialChange, expected: ExpectedRevision): Promise<CredentialRow> {
    return this.#change(caller, located, expected, async (trx, row) => {
      const changed = changedNames(row, change);
      const version = await this.#nextVersion(trx, caller, row, change);
      if (changed.length === 0 && version === undefined) return undefined;
      return {
        action: 'credential.update',
        write: {
          name: change.name ?? row.name,
          description: change.description === undefined ? row.description : change.description,
          labels: change.labels === undefined ? row.labels : change.labels ?? {},
          expiresAt: change.expiresAt === undefined ? row.expiresAt : change.expiresAt,
          version: row.version + (version === undefined ? 0 : 1),
        },
        details: { changed: [...changed, ...(version?.changed ?? [])] },
        ...(version === undefined ? {} : { key: version.key }),
      };
    });
  }

  /** Deletes a credential softly: its name is free at once, its rows go after the retention time. Never decrypts. */
  async deleteCredential(caller: Caller, located: CredentialRow, expected: ExpectedRevision): Promise<void> {
    await this.#change(caller, located, expected, async () => ({ action: 'credential.delete', write: { state: 'deleted' } }));
  }

  /** Enables or disables a credential. Throws stateConflict when it is so already. */
  async setState(caller: Caller, located: CredentialRow, state: 'enabled' | 'disabled', claim: Claim): Promise<CredentialRow> {
    return this.#change(caller, located, 'any', async (trx, row) => {
      await claim(trx, row.id);
      if (row.state === state) throw new AppError('stateConflict', `The credential is ${state} already.`);
      return { action: state === 'enabled' ? 'credential.enable' : 'credential.disable', write: { state } };
    });
  }

  /** The one way to change a credential's row: lock, seal, revision, write, event, in one transaction. */
  async #change(
    caller: Caller, located: CredentialRow, expected: ExpectedRevision,
    plan: (trx: Trx, row: CredentialRow) => Promise<Plan | undefined>,
  ): Promise<CredentialRow> {
    const { db, keyring, audit } = this.#parts;
    const team = { id: located.team, slug: located.slug };
    try {
      return await this.#underActiveKey(() => db.transaction().execute(async (trx) => {
        const at = this.#time();
        const row = await repository.lockCredential(trx, located.team, located.id, at);
        // SECURITY: the row may have changed since the hook looked at it; its seal counts now.
        if (row === undefined || row.state === 'deleted' || !credentialSealHolds(keyring, row, row.seal)) throw notFound();
        checkRevision(expected, row.revision);
        const planned = await plan(trx, row);
        if (planned === undefined) return row;
        const next = { ...row, ...planned.write, revision: row.revision + 1 };
        await repository.updateCredential(trx, { ...next, seal: sealCredential(keyring, next), by: caller.subject, at });
        await audit.record(trx, {
          caller, team, action: planned.action, target: credentialTarget(row.id), credentialVersion: next.version,
          ...(planned.key === undefined ? {} : { key: planned.key.id }), ...(planned.details === undefined ? {} : { details: planned.details }),
        });
        if (next.state === 'deleted') return row;
        const after = await repository.findCredential(trx, row.team, row.id, at);
        if (after === undefined) throw notFound();
        return after;
      }));
    } catch (error) {
      if (error instanceof UndecryptableVersion) {
        await repository.markUndecryptable(db, located.team, located.id, error.version, this.#time());
        throw new AppError('undecryptable', 'The stored value does not open: send all secret fields to repair it.', { cause: error });
      }
      throw error;
    }
  }

  /** Writes the version that a change of fields or policy asks for; undefined when it asks for none. */
  async #nextVersion(trx: Trx, caller: Caller, row: CredentialRow, change: CredentialChange): Promise<{ key: WrappedDataKey; changed: string[] } | undefined> {
    const type = typeNamed(row.type);
    const policy = change.policy ?? row.policy;
    const fields = applyFields(type, row, change.fields ?? {});
    const isPolicyChanged = JSON.stringify(asJson(policy)) !== JSON.stringify(asJson(row.policy));
    const isPublicChanged = !sameFields(fields.publicFields, row.publicFields);
    const changed = [...Object.keys(fields.secrets), ...fields.cleared];
    if (!isPolicyChanged && !isPublicChanged && changed.length === 0) return undefined;
    // SECURITY: a stored secret never follows a destination or a policy that its writer did not know.
    if (isWider(type, row, { publicFields: fields.publicFields, policy })) demandAllSecrets(fields.kept);
    const kept = fields.kept.length === 0 ? {} : await this.#keep(trx, row, fields.kept);
    const secrets = { ...kept, ...fields.secrets };
    const key = await repository.lockActiveKey(trx, row.team);
    if (key === undefined) throw new KeyMoved();
    const version = row.version + 1;
    const place = { team: row.team, credential: row.id, version, type: type.name, publicFields: fields.publicFields, policy: asJson(policy) };
    await repository.insertVersion(trx, {
      team: row.team, credential: row.id, version, key: key.id, token: this.#parts.keyring.seal(key, place, new Secret(secrets)),
      secretFieldNames: Object.keys(secrets).sort(), publicFields: fields.publicFields, policy, by: caller.subject, at: this.#time(),
    });
    return { key, changed: [...changed.map((name) => `fields.${name}`), ...(isPublicChanged ? ['publicFields'] : []), ...(isPolicyChanged ? ['policy'] : [])] };
  }

  /** The stored values of the fields that a merge keeps. */
  async #keep(trx: Trx, row: CredentialRow, names: readonly string[]): Promise<SecretValues> {
    const held = await repository.findToken(trx, row.team, row.id, row.version);
    if (held === undefined) throw new UndecryptableVersion(row.version);
    const place = { team: row.team, credential: row.id, version: row.version, type: row.type, publicFields: row.publicFields, policy: asJson(row.policy) };
    let stored: SecretFields;
    try {
      stored = this.#parts.keyring.open(held.key, place, held.token);
    } catch (error) {
      if (error instanceof DecryptionFailed) throw new UndecryptableVersion(row.version);
      throw error;
    }
    const values = stored.expose();
    return Object.fromEntries(names.map((name): [string, string] => {
      const value = values[name];
      if (value === undefined) throw new UndecryptableVersion(row.version);
      return [name, value];
    }));
  }

  async #activeKey(team: TeamId): Promise<WrappedDataKey> {
    const key = await repository.findActiveKey(this.#parts.db, team);
    if (key === undefined) throw notFound();
    return key;
  }

  /** Runs a write again when the team's key was rotated under it. */
  async #underActiveKey<T>(write: () => Promise<T>): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await write();
      } catch (error) {
        if (isUniqueViolation(error, 'credential_living_name')) throw new AppError('nameTaken', 'A credential of the team has this name.');
        const isMoved = error instanceof KeyMoved || isCheckViolation(error, 'token_needs_active_key');
        if (!isMoved || attempt >= attemptsMax) throw error;
      }
    }
  }

  #time(): Date { return new Date(this.#parts.now()); }
}

interface Plan {
  readonly action: string;
  readonly write: Partial<Pick<CredentialWrite, 'name' | 'description' | 'labels' | 'state' | 'expiresAt' | 'version'>>;
  readonly key?: WrappedDataKey;
  readonly details?: JsonObject;
}

/** The active key went while a write was under way; the write starts again. */
class KeyMoved extends Error {}

/** A version whose token did not open though its key did. */
class UndecryptableVersion extends Error {
  readonly version: number;
  constructor(version: number) {
    super('a stored version does not open');
    this.name = 'UndecryptableVersion';
    this.version = version;
  }
}

function typeNamed(name: string): CredentialType {
  const type = findType(name);
  if (type === undefined) throw invalid('/type', 'enum');
  return type;
}

const asJson = ({ delivery, allowedHosts }: Policy): JsonObject => ({ delivery: [...delivery], allowedHosts: [...allowedHosts] });

function sameFields(a: Readonly<Record<string, unknown>>, b: Readonly<Record<string, unknown>>): boolean {
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => Object.hasOwn(b, name) && a[name] === b[name]);
}

/** Which of the columns without a version the change touches. */
function changedNames(row: CredentialRow, change: CredentialChange): string[] {
  const changed: string[] = [];
  if (change.name !== undefined && change.name !== row.name) changed.push('name');
  if (change.description !== undefined && change.description !== row.description) changed.push('description');
  if (change.labels !== undefined && !sameFields(change.labels ?? {}, row.labels)) changed.push('labels');
  if (change.expiresAt !== undefined && change.expiresAt?.getTime() !== row.expiresAt?.getTime()) changed.push('expiresAt');
  return changed;
}
