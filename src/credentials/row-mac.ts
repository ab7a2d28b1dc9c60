// What the row MAC of a credential's row covers: everything on which an answer "yes" rests, and
// where its current version lets a secret go. The latter is in the token too, but replacing all
// secrets opens no token: without the row MAC a new secret would follow a destination that somebody
// wrote past the service.
import type { Keyring } from '../crypto/index.ts';
import type { CredentialState, LivingState } from '../db/tables.ts';
import type { CredentialId, TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import { isTime } from '../shared/times.ts';
import type { Policy } from './policy.ts';
import type { PublicFields } from './public-values.ts';

export interface CredentialMacFields {
  readonly id: CredentialId;
  readonly team: TeamId;
  readonly name: string;
  readonly type: string;
  readonly state: CredentialState;
  /**
   * What a deleted one comes back to; null for a living one, and then no part of what the row MAC
   * covers.
   */
  readonly stateBefore: LivingState | null;
  readonly version: number;
  readonly expiresAt: Date | null;
  readonly revision: number;
  /** These three as the current version has them. */
  readonly publicFields: PublicFields;
  readonly policy: Policy;
  readonly secretFieldNames: readonly string[];
}

/** The row MAC of a credential. */
export const credentialRowMac = (keyring: Keyring, row: CredentialMacFields): Buffer =>
  keyring.rowMac('credential', asJson(row));

/** Whether the vault wrote this row and what its current version says. */
export const verifyCredentialRowMac = (
  keyring: Keyring,
  row: CredentialMacFields,
  seal: Buffer,
): boolean => hasTime(row) && keyring.verifyRowMac('credential', asJson(row), seal);

/** The same for a row of a list. */
export const verifyListedRowMac = (
  keyring: Keyring,
  row: CredentialMacFields,
  seal: Buffer,
): boolean => hasTime(row) && keyring.verifyRowMac('credential', asJson(row), seal, true);

const hasTime = ({ expiresAt }: CredentialMacFields): boolean =>
  expiresAt === null || isTime(expiresAt);

// Named one by one, in the order of the canonical form: rows carry more columns than the row MAC
// covers. The policy goes in as it stands, members that nobody knows included.
const asJson = ({
  id,
  team,
  name,
  type,
  state,
  stateBefore,
  version,
  expiresAt,
  revision,
  publicFields,
  policy,
  secretFieldNames,
}: CredentialMacFields): JsonObject => ({
  expiresAt: expiresAt?.toISOString() ?? null,
  id,
  name,
  policy: policy as unknown as JsonObject,
  publicFields,
  revision,
  secretFields: secretFieldNames,
  state,
  ...(stateBefore === null ? {} : { stateBefore }),
  team,
  type,
  version,
});
