// Why a token was refused: a closed list, for the log. The caller keeps the one answer, and no part
// of the token goes anywhere.

/**
 * `claim:NAME` names only what the vault or the configuration asks for, never what a token holds.
 * `type`: the header says that it is another kind of token than an access
 * token.
 */
export type TokenRefusalReason =
  | 'form'
  | 'size'
  | 'type'
  | 'algorithm'
  | 'key'
  | 'signature'
  | 'issuer'
  | 'audience'
  | 'expired'
  | 'notYet'
  | 'lifetime'
  | `claim:${string}`;

/** A token that is no access token for this vault, or not now. */
export class TokenRefused extends Error {
  override name = 'TokenRefused';
  readonly reason: TokenRefusalReason;
  constructor(reason: TokenRefusalReason) {
    super(`the token was refused: ${reason}`);
    this.reason = reason;
  }
}

/** The reason behind a refusal that was made of one; undefined where no token came. */
export const refusalReasonOf = (error: Error): TokenRefusalReason | undefined =>
  error.cause instanceof TokenRefused ? error.cause.reason : undefined;
