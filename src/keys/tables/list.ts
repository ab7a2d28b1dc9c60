// The one list of tables that hold ciphertexts. A table joins it by a descriptor of its own beside
// this file and a line here; everything that walks the tables takes it in.
import { credentialVersions } from './credential-version.ts';
import { oauthTokens } from './oauth-token.ts';
import type { CiphertextTable } from './table.ts';

/** In the order in which rotations and `verify` walk them. */
export const ciphertextTables: readonly CiphertextTable[] = [credentialVersions, oauthTokens];
