// Rows of grants and transfers, as they are read.
import type { TransferMacFields } from './transfer-row-mac.ts';
import type { CredentialMacFields } from '../credentials/index.ts';
import type { GrantMacFields } from '../access/index.ts';

/** Whom a grant is to, as the path says it. */
export type Grantee =
  | { readonly kind: 'team'; readonly name: string }
  | { readonly kind: 'subject'; readonly name: string };

export interface SharedGrantRow extends GrantMacFields {
  readonly seal: Buffer;
  readonly createdAt: Date;
  readonly createdBy: string;
  readonly updatedAt: Date;
  readonly updatedBy: string;
}

/** An offer between living teams, with the credential as far as it is shown. */
export interface TransferRow extends TransferMacFields {
  readonly seal: Buffer;
  readonly createdAt: Date;
  readonly createdBy: string;
  readonly offered: CredentialMacFields;
  readonly credentialMac: Buffer;
}
