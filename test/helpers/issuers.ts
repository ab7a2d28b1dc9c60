// Issuers of tests: one as the variables for one describe it, and several as a file does.
import type { TokenType } from '../../src/access/issuers.ts';
import { type Issuer, issuerOf, usualRules } from '../../src/access/issuers.ts';
import { fixedKey } from '../../src/access/verifying-keys.ts';

/** How the tokens of one issuer are verified. */
export interface Verification {
  readonly issuer: string;
  readonly audience: string;
  readonly source:
    | { readonly jwksUrl: string }
    | { readonly publicKey: string }
    | { readonly secret: string };
  readonly types?: readonly TokenType[];
}

/** The one issuer of a vault without a file of issuers. */
export const oneIssuer = ({ issuer, audience, source, types }: Verification): Issuer =>
  issuerOf({
    issuer,
    audience,
    types,
    keys:
      'jwksUrl' in source
        ? { kind: 'jwksUrl', url: source.jwksUrl }
        : 'publicKey' in source
          ? { kind: 'fixed', keys: [fixedKey(source.publicKey)] }
          : { kind: 'secret', secret: source.secret },
  });

/** An issuer of a file, with what its entry does not say as usual. */
export const issuerWith = (
  entry: Pick<Issuer, 'issuer' | 'audiences' | 'keys'> & Partial<Issuer>,
): Issuer => ({ ...usualRules, ...entry });
