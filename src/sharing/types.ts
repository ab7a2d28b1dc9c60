// Rows of grants and transfers, as they are read.
import type { SealedTransfer } from './transfer-seal.ts';
import type { SealedCredential } from '../credentials/index.ts';
import type { SealedGrant } from '../access/index.ts';

/** Whom a grant is to, as the path says it. */
export type Grantee =
  | { readonly kind: 'team'; readonly name: string }
  | { readonly kind: 'subject'; readonly name: string };

export interface SharedGrantRow extends SealedGrant {
  readonly seal: Buffer;
  readonly createdAt: Date;
  readonly createdBy: string;
  readonly updatedAt: Date;
  readonly updatedBy: string;
}

/** An offer between living teams, with the credential as far as it is shown. */
export interface TransferRow extends SealedTransfer {
  readonly seal: Buffer;
  readonly createdAt: Date;
  readonly createdBy: string;
  readonly offered: SealedCredential;
  readonly credentialSeal: Buffer;
}
