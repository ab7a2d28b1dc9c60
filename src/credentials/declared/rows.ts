// A declared type as a row, and what its MAC is over: all of it. Whoever could change one would say
// which fields are public, and where secrets go.
import type { Keyring } from '../../crypto/index.ts';
import type { JsonObject } from '../../shared/json.ts';
import { buildType } from './build.ts';
import { type Declaration, declarationJson, storedNameOf } from './declaration.ts';
import type { CredentialType } from '../types/define.ts';

export interface ProtectedType {
  readonly name: string;
  readonly id: string;
  readonly storedName: string;
  readonly declaration: Declaration;
  readonly revision: number;
}
export interface DeclaredRow extends ProtectedType {
  readonly rowMac: Buffer;
  readonly createdAt: Date;
  readonly createdBy: string;
  readonly updatedAt: Date;
  readonly updatedBy: string;
}

/** The MAC of a row. */
export const declaredMac = (keyring: Keyring, row: ProtectedType): Buffer =>
  keyring.rowMac('credential_type', asJson(row));

/** Whether the vault wrote this row. */
export const declaredMacHolds = (keyring: Keyring, row: ProtectedType, rowMac: Buffer): boolean =>
  keyring.verifyRowMac('credential_type', asJson(row), rowMac);

/**
 * The type that a row declares, for credentials that name it so; undefined where the vault did not
 * write it. SECURITY: an earlier row put back is another declaration than the one that the
 * credentials name, and so is none of theirs.
 */
export function typeOfDeclared(
  keyring: Keyring,
  row: DeclaredRow,
  storedName: string = row.storedName,
): CredentialType | undefined {
  const isIts =
    declaredMacHolds(keyring, row, row.rowMac) &&
    storedNameOf(row.name, row.id, row.declaration) === storedName;
  return isIts ? buildType(row.name, row.declaration) : undefined;
}

const asJson = ({ name, id, storedName, declaration, revision }: ProtectedType): JsonObject => ({
  declaration: declarationJson(declaration),
  id,
  name,
  revision,
  storedName,
});
