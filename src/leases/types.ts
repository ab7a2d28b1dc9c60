// What a lease or a ticket asks for, and what it finds.
import type { CredentialId, EngineId, SubjectId, TeamId } from '../shared/ids.ts';
import type { CredentialState, LivingState } from '../db/tables.ts';
import type { WrappedDataKey } from '../crypto/index.ts';
import type { JsonObject } from '../shared/json.ts';
import type { GrantRow, RightsRow, TeamSettingsRow } from '../access/index.ts';
import type { Policy, PublicFields } from '../credentials/index.ts';
/** One credential that is asked for: by id, or by team and name. */
export type Reference =
  | { readonly id: CredentialId }
  | { readonly team: string; readonly name: string };

/** The caller's registration and the key that a lease would go to. */
export interface RecipientRow {
  readonly engine:
    | {
        readonly id: EngineId;
        readonly state: 'enabled' | 'disabled';
        readonly revision: number;
        readonly seal: Buffer;
      }
    | undefined;
  readonly key:
    | {
        readonly kid: string;
        readonly jwk: JsonObject;
        readonly revision: number;
        readonly seal: Buffer;
      }
    | undefined;
}

/**
 * What a reference found. `version` is undefined where the current version or its key is missing or
 * retired.
 */
export interface FoundRow {
  readonly team: TeamId;
  readonly slug: string;
  readonly rights: RightsRow;
  readonly behalfSubject: SubjectId | null;
  readonly behalfRights: RightsRow;
  /** Grants that concern the caller, and the person on whose behalf. */
  readonly grants: readonly GrantRow[] | null;
  readonly behalfGrants: readonly GrantRow[] | null;
  readonly id: CredentialId;
  readonly name: string;
  readonly type: string;
  readonly state: CredentialState;
  readonly stateBefore: LivingState | null;
  readonly currentVersion: number;
  readonly expiresAt: Date | null;
  readonly revision: number;
  readonly seal: Buffer;
  /** What the current version says beside its token; undefined where there is no such version. */
  readonly content:
    | {
        readonly publicFields: PublicFields;
        readonly policy: Policy;
        readonly secretFieldNames: readonly string[];
      }
    | undefined;
  readonly version: LeasedVersionRow | undefined;
  /** How much there is to read of it, in bytes as stored: asked before anything is read. */
  readonly size: { readonly token: number; readonly content: number };
}

export interface LeasedVersionRow {
  /** Undefined where it was not asked for: the caller has this version already. */
  readonly token: string | undefined;
  readonly publicFields: JsonObject;
  readonly policy: JsonObject;
  readonly isMarked: boolean;
  readonly key: WrappedDataKey;
  /** Of a version that is exposed: whose it is, which says whether it may be used all the same. */
  readonly exposedTeam: TeamSettingsRow | undefined;
}

export interface LeaseQuery {
  readonly subject: SubjectId;
  readonly references: readonly Reference[];
  readonly onBehalfOf: string | undefined;
  readonly keyId: string | undefined;
  /** Versions that the caller has already, by position: their tokens are not read. */
  readonly knownVersions?: readonly (number | undefined)[];
  /** Of which references the content is wanted, by position; of all where it is left out. */
  readonly isWanted?: readonly boolean[];
}
