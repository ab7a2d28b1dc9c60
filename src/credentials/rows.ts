// Rows of credentials and of their versions, as they are read.
import type { PublicFields } from './public-values.ts';
import type { Policy } from './policy.ts';
import type { ProblemName } from './health.ts';
import type { CredentialState, LivingState } from '../db/tables.ts';
import type { CredentialId, TeamId } from '../shared/ids.ts';

export interface CredentialRow {
  readonly id: CredentialId;
  readonly team: TeamId;
  readonly slug: string;
  readonly name: string;
  readonly type: string;
  readonly description: string | null;
  readonly labels: Readonly<Record<string, string>>;
  readonly state: CredentialState;
  readonly stateBefore: LivingState | null;
  readonly version: number;
  readonly expiresAt: Date | null;
  readonly rotateAfter: Date | null;
  readonly revision: number;
  readonly seal: Buffer;
  readonly publicFields: PublicFields;
  readonly secretFieldNames: readonly string[];
  readonly policy: Policy;
  readonly problems: ProblemName[];
  readonly useCount: number | null;
  readonly lastUsedAt: Date | null;
  readonly deletedAt: Date | null;
  readonly createdAt: Date;
  readonly createdBy: string;
  readonly updatedAt: Date;
  readonly updatedBy: string;
}

export interface VersionRow {
  readonly version: number;
  readonly publicFields: PublicFields;
  readonly secretFieldNames: string[];
  readonly policy: Policy;
  readonly isUndecryptable: boolean;
  readonly createdAt: Date;
  readonly createdBy: string;
}
