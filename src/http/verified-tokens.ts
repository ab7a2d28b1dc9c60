// Tokens that were verified, so that the same one does not cost a signature at every request. What
// is remembered is what cannot change: the claims of these bytes, and the key under which they
// verified. Times, and whether that key still counts, are checked by the caller; a token itself is
// not kept, only its SHA-256.
import { hash } from 'node:crypto';
import { Recent } from '../shared/recent.ts';
import type { TokenFacts } from './access-token.ts';

/** A key that an issuer publishes; undefined where it is fixed by the configuration. */
export interface TokenKey {
  readonly kid: string | undefined;
  readonly algorithm: string;
  readonly pem: string;
}

export interface VerifiedToken {
  /**
   * Names the issuer: the text that names the entry holds `iss`, so that no two issuers share one.
   */
  readonly facts: TokenFacts;
  readonly key: TokenKey | undefined;
}

const tokensMax = 10_000;

/** Remembers verified tokens. */
export class VerifiedTokens {
  readonly #known = new Recent<string, VerifiedToken>(tokensMax);

  find(token: string): VerifiedToken | undefined {
    return this.#known.get(nameOf(token));
  }

  add(token: string, verified: VerifiedToken): void {
    this.#known.set(nameOf(token), verified);
  }
}

// SECURITY: over the whole text, its signature included: another signature is another token.
const nameOf = (token: string): string => hash('sha256', token, 'base64url');
