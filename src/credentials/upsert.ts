// Storing by name, for infrastructure as code: made where there is none of the name, changed where
// there is one.
import { shownType } from './declared/names.ts';
import type { Role } from '../db/tables.ts';
import { AppError, invalid, notFound } from '../shared/errors.ts';
import type { ChangeParts } from './change.ts';
import { findCredentialByName } from './repository.ts';
import { verifyCredentialRowMac } from './row-mac.ts';
import type { CredentialInput, CredentialsService, OwningTeam } from './service.ts';
import { noClaim } from '../db/claims.ts';
import {
  type ExpectedRevision,
  preconditionFailed,
  preconditionRequired,
} from '../shared/revisions.ts';
import type { Caller } from '../access/index.ts';
import { credentialTarget } from '../audit/index.ts';
import type { CredentialRow } from './rows.ts';

export interface UpsertInput {
  readonly input: CredentialInput;
  readonly expected: ExpectedRevision | undefined;
  readonly isDryRun: boolean;
}
export interface Upserted {
  readonly action: 'created' | 'changed' | 'unchanged';
  readonly row: CredentialRow;
}

type UpsertParts = Pick<ChangeParts, 'db' | 'keyring' | 'audit' | 'now'>;

/** What is asked of credentials by their names. */
export class CredentialUpsert {
  readonly #parts: UpsertParts;
  readonly #service: CredentialsService;
  constructor(parts: UpsertParts, service: CredentialsService) {
    this.#parts = parts;
    this.#service = service;
  }

  /**
   * Stores the credential of this name, or changes the living one that has it: what is omitted
   * stays, secrets that are sent make a version, whether they are the same or not, because nobody
   * may learn that. `expected` is asked for only where there is one. Throws what creating and
   * changing throw, preconditionRequired, preconditionFailed, invalidRequest for another type.
   */
  async put(
    caller: Caller,
    team: OwningTeam,
    role: Role,
    { input, expected, isDryRun }: UpsertInput,
  ): Promise<Upserted> {
    const found = await this.#find(team, input.name);
    if (found === undefined) {
      if (expected !== undefined && expected !== 'any') throw preconditionFailed();
      try {
        return {
          action: 'created',
          row: await this.#service.createCredential(caller, team, input, noClaim, {
            isDryRun,
            namePointer: '/params/name',
          }),
        };
      } catch (error) {
        // Somebody else was faster, and what they made is named by its ETag like any other.
        if (error instanceof AppError && error.code === 'nameTaken' && expected === undefined)
          throw preconditionRequired();
        throw error;
      }
    }
    // SECURITY: what it says is compared with what was sent, and only the vault's word is.
    if (!verifyCredentialRowMac(this.#parts.keyring, found, found.seal)) {
      await this.#parts.audit.denial({
        caller,
        team,
        action: 'credential.write',
        target: credentialTarget(found.id),
        reason: 'sealBroken',
      });
      throw notFound();
    }
    if (expected === undefined) throw preconditionRequired();
    if (input.type !== shownType(found.type)) throw invalid('/type', 'immutable');
    const opened =
      input.publicFieldNames?.findIndex((name) => !Object.hasOwn(found.publicFields, name)) ?? -1;
    if (opened >= 0) throw invalid(`/publicFieldNames/${opened}`, 'immutable');
    const { fields, description, labels, expiresAt, rotateAfter, policy } = input;
    const row = await this.#service.updateCredential(
      caller,
      found,
      role,
      { fields, description, labels, expiresAt, rotateAfter, policy },
      expected,
      { isDryRun },
    );
    return { action: row.revision === found.revision ? 'unchanged' : 'changed', row };
  }

  #find(team: OwningTeam, name: string): Promise<CredentialRow | undefined> {
    return findCredentialByName(this.#parts.db, team.id, name, new Date(this.#parts.now()));
  }
}
