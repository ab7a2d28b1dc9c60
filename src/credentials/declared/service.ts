// Types of a platform's own: declared, changed and removed by the platform operator, who sees no
// credential of them. What of a type a stored secret rests on does not change while one does.
import { randomUUID } from 'node:crypto';
import type { Keyring } from '../../crypto/index.ts';
import type { Db, Trx } from '../../db/client.ts';
import { AppError, notFound } from '../../shared/errors.ts';
import {
  checkRevision,
  type ExpectedRevision,
  preconditionFailed,
  preconditionRequired,
} from '../../shared/revisions.ts';
import { faultsOfDefaults } from './build.ts';
import {
  type Declaration,
  faultsOfDeclaration,
  isOnlyMore,
  isSame,
  storedNameOf,
} from './declaration.ts';
import { isDeclaredName } from './names.ts';
import * as repository from './repository.ts';
import { declaredMac, declaredMacHolds, type DeclaredRow, typeOfDeclared } from './rows.ts';
import type { Caller } from '../../access/index.ts';
import type { AuditLog } from '../../audit/index.ts';

/** So many types a platform may have of its own. */
export const declaredTypesMax = 200;

export interface DeclaredTypesParts {
  readonly db: Db;
  readonly keyring: Keyring;
  readonly audit: AuditLog;
  readonly now: () => number;
  /** Whether an injection may set a header of the name: the broker's own rules, folded. */
  readonly isHeaderFree: (name: string) => boolean;
}

const target = (name: string): { type: string; id: string } => ({
  type: 'credentialType',
  id: name,
});

/** What is asked of declared types. */
export class DeclaredTypes {
  readonly #parts: DeclaredTypesParts;
  constructor(parts: DeclaredTypesParts) {
    this.#parts = parts;
  }

  /** Those that the vault wrote, by name; a tampered one is left out and raises the alarm. */
  async listTypes(requestId: string): Promise<DeclaredRow[]> {
    const rows = await repository.listDeclared(this.#parts.db, declaredTypesMax);
    return rows.filter((row) => this.#isIntact(row, requestId));
  }

  /** One of them. Throws notFound. */
  async getType(name: string, requestId: string): Promise<DeclaredRow> {
    const row = isDeclaredName(name)
      ? await repository.findDeclared(this.#parts.db, name)
      : undefined;
    if (row === undefined || !this.#isIntact(row, requestId)) throw notFound();
    return row;
  }

  /**
   * Declares a type, or declares it otherwise. Throws invalidRequest, preconditionRequired,
   * preconditionFailed, limitReached, stateConflict for anything but free fields more of a type
   * that is in use.
   */
  async putType(
    caller: Caller,
    name: string,
    declaration: Declaration,
    expected: ExpectedRevision | undefined,
  ): Promise<DeclaredRow> {
    const errors = faultsOfDeclaration(declaration, this.#parts.isHeaderFree);
    if (errors.length === 0) errors.push(...faultsOfDefaults(declaration));
    if (errors.length > 0)
      throw new AppError('invalidRequest', 'The declaration breaks a rule.', {
        errors: errors.slice(0, 100),
      });
    return this.#parts.db.transaction().execute(async (trx) => {
      await repository.lockAllDeclared(trx);
      await repository.lockDeclared(trx, name);
      const before = await repository.findDeclared(trx, name);
      if (before === undefined) {
        if (expected !== undefined) throw preconditionFailed();
        if (await repository.areDeclared(trx, declaredTypesMax))
          throw new AppError('limitReached', `At most ${declaredTypesMax} types of your own.`);
        return this.#write(trx, caller, 'credentialType.declare', {
          name,
          declaration,
          id: randomUUID(),
          revision: 1,
        });
      }
      if (expected === undefined) throw preconditionRequired();
      checkRevision(expected, before.revision);
      const isIntact = typeOfDeclared(this.#parts.keyring, before) !== undefined;
      if (isIntact && isSame(before.declaration, declaration)) return before;
      const isMore = isIntact && isOnlyMore(before.declaration, declaration);
      if (!isMore && (await repository.isDeclaredInUse(trx, name))) throw inUse();
      return this.#write(trx, caller, 'credentialType.change', {
        name,
        declaration,
        // SECURITY: what is not the same and more is another type, though the name is the same.
        id: isMore ? before.id : randomUUID(),
        revision: before.revision + 1,
      });
    });
  }

  /**
   * Removes a type that no credential is of. Throws notFound, preconditionFailed, stateConflict.
   */
  async deleteType(caller: Caller, name: string, expected: ExpectedRevision): Promise<void> {
    await this.#parts.db.transaction().execute(async (trx) => {
      await repository.lockDeclared(trx, name);
      const row = await repository.findDeclared(trx, name);
      if (row === undefined) throw notFound();
      checkRevision(expected, row.revision);
      if (await repository.isDeclaredInUse(trx, name)) throw inUse();
      await repository.deleteDeclared(trx, name);
      await this.#parts.audit.record(trx, {
        caller,
        action: 'credentialType.delete',
        target: target(name),
        details: { revision: row.revision },
      });
    });
  }

  async #write(
    trx: Trx,
    caller: Caller,
    action: 'credentialType.declare' | 'credentialType.change',
    given: Pick<DeclaredRow, 'name' | 'id' | 'declaration' | 'revision'>,
  ): Promise<DeclaredRow> {
    const { keyring, audit, now } = this.#parts;
    const { name, id, declaration, revision } = given;
    const row = { ...given, storedName: storedNameOf(name, id, declaration) };
    await repository.writeDeclared(trx, {
      ...row,
      rowMac: declaredMac(keyring, row),
      by: caller.subject,
      at: new Date(now()),
    });
    const namesOf = (kind: 'public' | 'secret'): string[] =>
      declaration.fields.filter((field) => field.class === kind).map((field) => field.name);
    await audit.record(trx, {
      caller,
      action,
      target: target(name),
      details: {
        revision,
        publicFields: namesOf('public'),
        secretFields: namesOf('secret'),
        digest: row.storedName.slice(name.length + 1),
      },
    });
    const written = await repository.findDeclared(trx, name);
    if (written === undefined) throw notFound();
    return written;
  }

  #isIntact(row: DeclaredRow, requestId: string): boolean {
    if (declaredMacHolds(this.#parts.keyring, row, row.rowMac)) return true;
    this.#parts.audit.alarm({
      team: undefined,
      action: 'credentialType.manage',
      target: target(row.name),
      reason: 'sealBroken',
      requestId,
    });
    return false;
  }
}

const inUse = (): AppError =>
  new AppError(
    'stateConflict',
    'Credentials are of this type, deleted ones among them: only fields may be added that are ' +
      'optional, without a default, no destination and not named by injection, upstream or test.',
  );
