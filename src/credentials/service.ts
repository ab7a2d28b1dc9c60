// Credentials: what people do with them. Secrets come in and are sealed; none comes out here. Every
// change commits with its audit event; whatever is written lands under the team's active key or not
// at all.
import type { Keyring, SecretFields } from '../crypto/index.ts';
import type { Db, Executor, Trx } from '../db/client.ts';
import { isCheckViolation, isUniqueViolation } from '../db/errors.ts';
import type { Delivery, Role } from '../db/tables.ts';
import { AppError, notFound } from '../shared/errors.ts';
import { type CredentialId, isId, newId } from '../shared/ids.ts';
import { demandName } from '../shared/visible-names.ts';
import { ActiveKeys } from './active-keys.ts';
import { checkInjectable } from './injectable.ts';
import { changeCredential, demandManage, openSecrets, Undone } from './change.ts';
import { type FieldsInput, isWider, readNewFields } from './fields.ts';
import { checkPolicy, isWiderPolicy, type Policy, policyOf } from './policy.ts';
import * as repository from './repository.ts';
import type { CredentialWrite } from './repository.ts';
import { findProvider as findEntry } from './providers/catalogue.ts';
import type { OAuthProvider } from './providers/define.ts';
import { type Discovered, issuerToDiscover, type Providers } from './providers/write-out.ts';
import { isDeclared } from './declared/names.ts';
import { holdType, typeForNew, typeOfRow } from './declared/stored-types.ts';
import { lacksAccount } from './stored-tokens.ts';
import { verifyCredentialRowMac, credentialRowMac } from './row-mac.ts';
import { type InUse, openForUse, type Use } from './use.ts';
import { bytesOf, roomOf, type TeamRoom } from './room.ts';
import { sameFields, sealVersion, underActiveKey, writeNextVersion } from './versions.ts';
import { type Claim, isNoClaim } from '../db/claims.ts';
import { faultsIn } from '../shared/input-faults.ts';
import type { ExpectedRevision } from '../shared/revisions.ts';
import type { PublicFields } from './public-values.ts';
import type { CredentialType } from './types/define.ts';
import {
  type Caller,
  type ResolvedResource,
  noGrantPaths,
  effectiveRoleOf,
  type TeamRef,
  type GrantPath,
  grantPathsOf,
  type SubjectBounds,
} from '../access/index.ts';
import { type AuditLog, credentialTarget, type EventInput } from '../audit/index.ts';
import type { CredentialRow, VersionRow } from './rows.ts';

export interface CredentialsParts {
  readonly db: Db;
  readonly keyring: Keyring;
  /** What subjects may not, whatever a row says. */
  readonly subjectBounds: SubjectBounds;
  readonly audit: AuditLog;
  readonly now: () => number;
  /** How much room teams have; without it the usual bounds count. */
  readonly room?: TeamRoom | undefined;
  /** Whether a row can be answered with; asked before a change of it commits. */
  readonly canShow: (row: CredentialRow) => boolean;
  /** What `provider` is looked up in; the catalogue without it. */
  readonly findProvider?: (name: string) => OAuthProvider | undefined;
  /** Reads the document of an issuer, for a team. */
  readonly discover?: (issuer: string, team: string) => Promise<Discovered>;
}

/** A team as far as a new credential needs to know it. */
export interface OwningTeam extends TeamRef {
  readonly defaultDelivery: readonly Delivery[];
  /** Whether its settings count. */
  readonly intact: boolean;
}

export interface CredentialInput {
  readonly name: string;
  readonly type: string;
  readonly fields: FieldsInput;
  readonly publicFieldNames?: readonly string[] | undefined;
  readonly description?: string | null | undefined;
  readonly labels?: Readonly<Record<string, string>> | null | undefined;
  readonly expiresAt?: Date | null | undefined;
  readonly rotateAfter?: Date | null | undefined;
  readonly policy?: Policy | undefined;
}

/** Omitted = keep, null = clear. */
export interface CredentialChange {
  readonly name?: string | undefined;
  readonly fields?: FieldsInput | undefined;
  readonly description?: string | null | undefined;
  readonly labels?: Readonly<Record<string, string>> | null | undefined;
  readonly expiresAt?: Date | null | undefined;
  readonly rotateAfter?: Date | null | undefined;
  readonly policy?: Policy | undefined;
}

/** What is asked of credentials. */
export class CredentialsService {
  readonly #parts: CredentialsParts;
  readonly #room: TeamRoom;
  readonly #activeKeys: ActiveKeys;
  constructor(parts: CredentialsParts) {
    this.#parts = parts;
    this.#room = roomOf(parts);
    this.#activeKeys = new ActiveKeys({ ...parts, room: this.#room });
  }

  /**
   * The credential of a path with the caller's effective role in its team, for the authorization
   * hook. Deleted ones are hidden.
   */
  async resolveCredential(
    caller: Caller,
    id: string,
  ): Promise<ResolvedResource<CredentialRow> | undefined> {
    const resolved = await this.resolveAnyCredential(caller, id);
    if (resolved?.role !== undefined && resolved.resource.state === 'deleted')
      return { ...resolved, role: undefined, refusal: 'deleted' };
    return resolved;
  }

  /** The same, with deleted ones. */
  async resolveAnyCredential(
    caller: Caller,
    id: string,
  ): Promise<ResolvedResource<CredentialRow> | undefined> {
    if (!isId<CredentialId>(id)) return undefined;
    const row = await repository.findCredentialWithRights(
      this.#parts.db,
      id,
      caller.subject,
      this.#time(),
    );
    if (row === undefined) return undefined;
    const team = { id: row.team, slug: row.slug };
    if (!verifyCredentialRowMac(this.#parts.keyring, row, row.seal))
      return { team, role: undefined, refusal: 'sealBroken', resource: row };
    const effectiveRole = effectiveRoleOf(row, team, caller, this.#parts);
    // SECURITY: a deleted credential exists for its team only.
    const grantPaths =
      row.state === 'deleted'
        ? noGrantPaths
        : grantPathsOf(
            row.grants,
            { team: row.team, slug: row.slug, credential: row.id },
            caller,
            this.#parts,
          );
    return {
      team,
      role: effectiveRole.role,
      refusal: effectiveRole.refusal,
      resource: row,
      grantPaths,
    };
  }

  /**
   * One credential as it is now; a tampered one is not there, and raises the alarm. Throws
   * notFound.
   */
  async getCredential(
    team: TeamRef,
    id: string,
    executor: Executor = this.#parts.db,
    requestId = 'unknown',
  ): Promise<CredentialRow> {
    const row = isId<CredentialId>(id)
      ? await repository.findCredential(executor, team.id, id, this.#time())
      : undefined;
    if (row === undefined) throw notFound();
    if (!verifyCredentialRowMac(this.#parts.keyring, row, row.seal)) {
      this.#parts.audit.alarm({
        team,
        action: 'credential.read',
        target: credentialTarget(row.id),
        reason: 'sealBroken',
        requestId,
      });
      throw notFound();
    }
    if (row.state === 'deleted') throw notFound();
    return row;
  }

  /**
   * Opens a credential for one use by the vault itself, recorded as `event`; of another team's by a
   * grant path. Throws notFound, stateConflict, undecryptable, keyUnavailable, and what the use
   * demands.
   */
  openForUse(
    caller: EventInput['caller'],
    resolved: Pick<CredentialRow, 'id' | 'team' | 'slug'>,
    event: Use,
    grantPath: GrantPath | undefined,
  ): Promise<InUse> {
    return openForUse(this.#parts, caller, resolved, event, grantPath);
  }

  /** How many bytes are stored of the current versions of these credentials of the team, by id. */
  storedSizes(team: TeamRef, ids: readonly string[]): Promise<ReadonlyMap<string, number>> {
    return repository.findStoredSizes(
      this.#parts.db,
      team.id,
      ids.filter((id) => isId<CredentialId>(id)),
    );
  }

  /**
   * Versions, newest first; one more than the page, or fewer with the last of them in `end` where
   * there are more than may be read at once.
   */
  async listVersions(
    row: CredentialRow,
    page: { limit: number; before: number | undefined },
  ): Promise<{ rows: readonly VersionRow[]; end: number | undefined }> {
    const rows = await repository.listVersions(this.#parts.db, row.team, row.id, {
      limit: page.limit + 1,
      before: page.before,
    });
    const last = rows.at(-1);
    return { rows, end: last !== undefined && rows.length < last.found ? last.version : undefined };
  }

  /**
   * Stores a credential; without a policy with the team's default. A dry run makes it and takes it
   * back. Throws invalidRequest, nameTaken, limitReached, notFound (the team went away),
   * stateConflict (its settings do not count).
   */
  async createCredential(
    caller: Caller,
    team: OwningTeam,
    input: CredentialInput,
    claim: Claim,
    { isDryRun = false, namePointer = '/name' } = {},
  ): Promise<CredentialRow> {
    const { db, keyring, audit } = this.#parts;
    demandName(input.name, namePointer);
    const { type, storedName } = await typeForNew(keyring, db, input.type);
    const { publicFields, secrets } = readNewFields(
      type,
      input.fields,
      input.publicFieldNames ?? [],
      await this.#providersFor(type, {}, input.fields, team),
    );
    const policy = input.policy ?? policyOf(await this.#defaultDelivery(caller, team, type));
    checkPolicy(type, policy);
    checkInjectable(type, policy, { ...publicFields, ...secrets });
    const secretFieldNames = Object.keys(secrets).sort();
    const at = this.#time();
    const sealed = {
      id: newId<CredentialId>(),
      team: team.id,
      name: input.name,
      type: storedName,
      state: 'enabled' as const,
      version: 1,
      expiresAt: input.expiresAt ?? null,
      revision: 1,
      publicFields,
      policy,
      secretFieldNames,
      stateBefore: null,
    };
    const { id } = sealed;
    const write: CredentialWrite = {
      ...sealed,
      seal: credentialRowMac(keyring, sealed),
      description: input.description ?? null,
      labels: input.labels ?? {},
      rotateAfter: input.rotateAfter ?? null,
      by: caller.subject,
      at,
    };
    await underActiveKey(
      async () => {
        const key = await this.#activeKeys.find(team.id);
        if (key === undefined) throw notFound();
        const version = sealVersion(keyring, key, {
          team: team.id,
          credential: id,
          version: 1,
          type: storedName,
          publicFields,
          policy,
          secrets,
          keyHistory: [],
          by: caller.subject,
          at,
        });
        const recorded = audit.values([
          {
            caller,
            team,
            action: 'credential.create',
            target: credentialTarget(id),
            key: key.id,
            credentialVersion: 1,
            details: { type: type.name },
          },
        ]);
        const insert = async (executor: Db | Trx): Promise<void> => {
          if (!(await repository.insertCredential(executor, write, version, recorded)))
            throw notFound();
        };
        const isPlain = !isDryRun && isNoClaim(claim) && !isDeclared(storedName);
        const growth = { living: 1, stored: 1, bytes: bytesOf(version) };
        if (isPlain && this.#room.take(team.id, growth)) {
          await insert(db).catch((error: unknown) => {
            // After any other error it is not known whether it is there.
            if (isRefusal(error)) this.#room.give(team.id, growth);
            throw error;
          });
          return;
        }
        await this.#room
          .transaction(team.id, async (trx, stay) => {
            await claim(trx, id);
            await holdType(trx, storedName);
            await stay.grow(growth);
            await insert(trx);
            if (isDryRun) throw new Undone();
          })
          .catch((error: unknown) => {
            if (!(error instanceof Undone)) throw error;
          });
      },
      () => {
        this.#activeKeys.forget(team.id);
      },
    );
    return {
      ...sealed,
      seal: write.seal,
      slug: team.slug,
      description: write.description,
      labels: write.labels,
      rotateAfter: write.rotateAfter,
      problems: lacksAccount(type, publicFields, secretFieldNames) ? ['notConnected'] : [],
      useCount: null,
      lastUsedAt: null,
      deletedAt: null,
      createdAt: at,
      createdBy: caller.sub,
      updatedAt: at,
      updatedBy: caller.sub,
      ...(write.expiresAt === null || isDryRun
        ? {}
        : { problems: (await this.getCredential(team, id)).problems }),
    };
  }

  /** What a credential of the type may be used for that is stored without a policy. */
  async #defaultDelivery(
    caller: Caller,
    team: OwningTeam,
    type: CredentialType,
  ): Promise<readonly Delivery[]> {
    if (type.isForVault === true) return [];
    // SECURITY: what engines get is an admin's to say, not whoever's who writes to the database.
    if (!team.intact) {
      await this.#parts.audit.denial({
        caller,
        team,
        action: 'credential.write',
        target: { type: 'team', id: team.id },
        reason: 'sealBroken',
      });
      throw new AppError(
        'stateConflict',
        'The settings of the team were changed outside the vault: send a policy, or have an ' +
          'admin send the settings again.',
      );
    }
    return team.defaultDelivery.filter(
      (delivery) => delivery !== 'broker' || type.broker !== undefined,
    );
  }

  /**
   * Changes a credential. Fields or policy make a version; the rest does not, and never decrypts. A
   * wider policy, and another destination of what the vault itself uses, need `credential.manage`.
   * Throws preconditionFailed, invalidRequest, forbidden, secretRequired, undecryptable, nameTaken,
   * limitReached.
   */
  async updateCredential(
    caller: Caller,
    resolved: CredentialRow,
    role: Role,
    change: CredentialChange,
    expected: ExpectedRevision,
    { isDryRun = false } = {},
  ): Promise<CredentialRow> {
    const { policy } = change;
    const type = await typeOfRow(this.#parts.keyring, this.#parts.db, resolved.type);
    if (policy !== undefined) checkPolicy(type, policy);
    // Before there is a transaction: somebody else's server is not waited for in one.
    const providers = await this.#providersFor(
      type,
      resolved.publicFields,
      change.fields ?? {},
      resolved,
    );
    return changeCredential(
      this.#parts,
      caller,
      resolved,
      expected,
      async (trx, row, at, stay) => {
        // SECURITY: against the row as it is now: the policy may have been narrowed since the hook
        // looked at it.
        if (policy !== undefined && isWiderPolicy(row.policy, policy)) demandManage(role);
        if (change.name !== undefined && change.name !== row.name) demandName(change.name);
        const changed = changedNames(row, change);
        const version = await writeNextVersion(
          this.#parts.keyring,
          trx,
          row,
          { ...change, providers },
          { by: caller.subject, at, stay },
        );
        // SECURITY: what an entry of the catalogue says anew is taken over without the secrets by
        // an admin only.
        if (version?.isAdoption === true) demandManage(role);
        // SECURITY: where the vault sends what it tells of a team is an admin's to say, whoever
        // else may replace the secret.
        if (version !== undefined && type.isForVault === true && isWider(type, row, version))
          demandManage(role);
        if (changed.length === 0 && version === undefined) return undefined;
        return {
          action: 'credential.update',
          write: {
            name: change.name ?? row.name,
            description: change.description === undefined ? row.description : change.description,
            labels: change.labels === undefined ? row.labels : (change.labels ?? {}),
            expiresAt: change.expiresAt === undefined ? row.expiresAt : change.expiresAt,
            rotateAfter: change.rotateAfter === undefined ? row.rotateAfter : change.rotateAfter,
            ...(version === undefined
              ? {}
              : {
                  version: version.version,
                  publicFields: version.publicFields,
                  policy: version.policy,
                  secretFieldNames: version.secretFieldNames,
                }),
          },
          details: { changed: [...changed, ...(version?.changed ?? [])] },
          ...(version === undefined ? {} : { key: version.key }),
        };
      },
      { isDryRun },
    );
  }

  /**
   * Deletes a credential softly: its name is free at once, its rows go after the retention time.
   * Never decrypts.
   */
  async deleteCredential(
    caller: Caller,
    resolved: CredentialRow,
    expected: ExpectedRevision,
  ): Promise<void> {
    await changeCredential(this.#parts, caller, resolved, expected, async (_trx, { state }) => ({
      action: 'credential.delete',
      write: { state: 'deleted', stateBefore: state === 'disabled' ? state : 'enabled' },
    }));
  }

  /** Enables or disables a credential. Throws stateConflict when it is so already. */
  async setState(
    caller: Caller,
    resolved: CredentialRow,
    state: 'enabled' | 'disabled',
    claim: Claim,
  ): Promise<CredentialRow> {
    return changeCredential(this.#parts, caller, resolved, 'any', async (trx, row) => {
      await claim(trx, row.id);
      if (row.state === state)
        throw new AppError('stateConflict', `The credential is ${state} already.`);
      return {
        action: state === 'enabled' ? 'credential.enable' : 'credential.disable',
        write: { state },
      };
    });
  }

  /**
   * The secrets of the current version, for the vault's own use in the caller's name. Throws
   * undecryptable, KeyUnavailable.
   */
  openSecrets(caller: Caller, row: CredentialRow): Promise<SecretFields> {
    return openSecrets(this.#parts, caller, row);
  }

  /** The catalogue, with the document of the issuer where the change asks for one. */
  async #providersFor(
    type: CredentialType,
    stored: PublicFields,
    fields: FieldsInput,
    team: Pick<TeamRef, 'slug'>,
  ): Promise<Providers> {
    const { findProvider: find = findEntry, discover } = this.#parts;
    const issuer =
      type.oauth === undefined ? undefined : issuerToDiscover(stored, fields, { find });
    const field = type.fields['issuer'];
    const isAsked =
      issuer !== undefined &&
      field !== undefined &&
      discover !== undefined &&
      faultsIn(field.schema, issuer, '').length === 0;
    return isAsked
      ? { find, discovered: new Map([[issuer, await discover(issuer, team.slug)]]) }
      : { find };
  }

  #time(): Date {
    return new Date(this.#parts.now());
  }
}

type Times<T> = {
  readonly expiresAt?: T | null | undefined;
  readonly rotateAfter?: T | null | undefined;
};
/** The times of a request; what was left out stays left out. */
export const timesOf = ({ expiresAt, rotateAfter }: Times<string>): Times<Date> => ({
  ...(expiresAt === undefined ? {} : { expiresAt: timeOf(expiresAt) }),
  ...(rotateAfter === undefined ? {} : { rotateAfter: timeOf(rotateAfter) }),
});

const timeOf = (text: string | null): Date | null => (text === null ? null : new Date(text));

/** Whether it says that nothing was written. */
const isRefusal = (error: unknown): boolean =>
  error instanceof AppError ||
  isUniqueViolation(error, 'credential_living_name') ||
  isCheckViolation(error, 'token_needs_active_key');

/** Which of the columns without a version the change touches. */
function changedNames(row: CredentialRow, change: CredentialChange): string[] {
  const changed: string[] = [];
  if (change.name !== undefined && change.name !== row.name) changed.push('name');
  if (change.description !== undefined && change.description !== row.description)
    changed.push('description');
  if (change.labels !== undefined && !sameFields(change.labels ?? {}, row.labels))
    changed.push('labels');
  if (change.expiresAt !== undefined && change.expiresAt?.getTime() !== row.expiresAt?.getTime())
    changed.push('expiresAt');
  if (
    change.rotateAfter !== undefined &&
    change.rotateAfter?.getTime() !== row.rotateAfter?.getTime()
  )
    changed.push('rotateAfter');
  return changed;
}
