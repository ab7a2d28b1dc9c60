// Tokens that were verified, so that the same one does not cost a signature at every request. What
// is remembered is what cannot change: the claims of these bytes, and the key under which they
// verified. Times, and whether that key still counts, are looked at by whoever asks; a token itself
// is not kept, only its SHA-256.
import { hash } from 'node:crypto';
import { Recent } from '../shared/recent.ts';

/** A key of the provider; undefined where the one key is fixed by the configuration. */
export interface TokenKey {
  readonly kid: string;
  readonly algorithm: string;
  readonly pem: string;
}

/** What is looked at of a token's claims. */
export interface TokenClaims {
  readonly sub: unknown;
  readonly iat: unknown;
  readonly exp: unknown;
  readonly nbf: unknown;
  readonly scope: unknown;
}

export interface VerifiedToken {
  readonly claims: TokenClaims;
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
