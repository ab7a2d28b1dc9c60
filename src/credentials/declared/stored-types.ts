// The type of a stored credential, declared ones included. A declared type is read from the
// database, so that what one replica was told the next request of another knows.
import type { Keyring } from '../../crypto/index.ts';
import type { Db, Executor, Trx } from '../../db/client.ts';
import { AppError, invalid } from '../../shared/errors.ts';
import { Recent } from '../../shared/recent.ts';
import { isDeclared, isDeclaredName, shownType } from './names.ts';
import { findDeclared, holdDeclared } from './repository.ts';
import { typeOfDeclared } from './rows.ts';
import { findType } from '../types/registry.ts';
import type { CredentialType } from '../types/define.ts';

const rememberedMax = 1_000;

/** A type with the name by which credentials of it are stored. */
export interface NamedType {
  readonly type: CredentialType;
  readonly storedName: string;
}

/**
 * The type of a credential's row, as it is declared now. Throws stateConflict where its declaration
 * is not there as the vault wrote it.
 */
export async function typeOfRow(
  keyring: Keyring,
  executor: Executor,
  storedName: string,
): Promise<CredentialType> {
  const type = isDeclared(storedName)
    ? await findDeclaredType(keyring, executor, storedName)
    : findType(storedName);
  if (type !== undefined) return type;
  if (!isDeclared(storedName)) throw invalid('/type', 'enum');
  throw new AppError(
    'stateConflict',
    'The declaration of its type was changed past the vault: have the platform operator put it ' +
      'back.',
  );
}

/** The type of a name for a credential that is made. Throws invalidRequest where there is none. */
export async function typeForNew(
  keyring: Keyring,
  executor: Executor,
  name: string,
): Promise<NamedType> {
  if (!isDeclaredName(name)) {
    const type = findType(name);
    if (type === undefined) throw invalid('/type', 'enum');
    return { type, storedName: name };
  }
  const row = await findDeclared(executor, name);
  const type = row === undefined ? undefined : typeOfDeclared(keyring, row);
  if (row === undefined || type === undefined) throw invalid('/type', 'unknownType');
  return { type, storedName: row.storedName };
}

/**
 * Holds the declaration of a new credential's type until it is stored. SECURITY: whether a type is
 * in use is asked under a lock that waits for this one. Throws stateConflict where it became
 * another.
 */
export async function holdType(trx: Trx, storedName: string): Promise<void> {
  if (!isDeclared(storedName)) return;
  if ((await holdDeclared(trx, shownType(storedName))) !== storedName)
    throw new AppError(
      'stateConflict',
      'The declaration of the type changed meanwhile; try again.',
    );
}

async function findDeclaredType(
  keyring: Keyring,
  executor: Executor,
  storedName: string,
): Promise<CredentialType | undefined> {
  const row = await findDeclared(executor, shownType(storedName));
  return row === undefined ? undefined : typeOfDeclared(keyring, row, storedName);
}

/**
 * Types for the use of stored values. A stored name has the digest of all by which they are sent,
 * so what was read once under it stays right for as long as there is a credential of that name.
 */
export class StoredTypes {
  readonly #parts: { readonly db: Db; readonly keyring: Keyring };
  readonly #recent = new Recent<string, CredentialType>(rememberedMax);
  constructor(parts: { readonly db: Db; readonly keyring: Keyring }) {
    this.#parts = parts;
  }

  /** The type of a row; undefined where there is none of that declaration. */
  async find(storedName: string): Promise<CredentialType | undefined> {
    if (!isDeclared(storedName)) return findType(storedName);
    const known = this.#recent.get(storedName);
    if (known !== undefined) return known;
    const { db, keyring } = this.#parts;
    const type = await findDeclaredType(keyring, db, storedName);
    if (type !== undefined) this.#recent.set(storedName, type);
    return type;
  }
}
