// What a stored token is bound to: to its row and sequence, to the client that it was given to, to
// the policy under which it was got.
import type { Binding } from '../crypto/index.ts';
import type { CredentialId, TeamId } from '../shared/ids.ts';
import type { JsonObject } from '../shared/json.ts';
import type { Policy, PublicFields } from '../credentials/index.ts';
import { oauthPlace } from '../keys/index.ts';

export interface TokenSetBinding {
  readonly team: TeamId;
  readonly credential: CredentialId;
  readonly sequence: number;
  readonly type: string;
  readonly client: JsonObject;
  readonly policy: JsonObject;
}

/**
 * The binding of a stored token: a version's token does not open here, nor a stored one as a
 * version.
 */
export const tokenSetBinding = ({ sequence, client, ...row }: TokenSetBinding): Binding =>
  oauthPlace({ ...row, number: sequence, publicFields: client });

/**
 * A credential's current version, as the statement that read it found it: its row MAC was verified,
 * its key is in a state that opens.
 */
export interface OAuthCredential {
  readonly team: TeamId;
  readonly slug: string;
  readonly id: CredentialId;
  readonly type: string;
  readonly version: number;
  readonly publicFields: PublicFields;
  readonly policy: Policy;
}
