// What an engine gets of a credential whose tokens are stored: the public fields and an access
// token that is good. Never the refresh token, never the client secret.
import { Secret, type SecretFields } from '../crypto/index.ts';
import type { Granted } from './decide.ts';
import type { Caller } from '../access/index.ts';
import { findType, type Policy, type PublicFields, shownFields } from '../credentials/index.ts';
import { type AccessTokens, NoAccessToken, type OAuthCredential } from '../oauth/index.ts';

/** The current version that was granted, as tokens are asked for. */
export const oauthOfLease = ({ row, version }: Granted): OAuthCredential => ({
  team: row.team,
  slug: row.slug,
  id: row.id,
  type: row.type,
  version: row.currentVersion,
  publicFields: version.publicFields as PublicFields,
  policy: version.policy as unknown as Policy,
});

/**
 * What was opened, as it may be delivered; a credential without stored tokens as it is. `rejected`
 * names a token that an upstream refused. The refusal's rule where there is no token.
 */
export async function deliverable<
  T extends Granted & { readonly secrets: SecretFields | undefined },
>(
  accessTokens: Pick<AccessTokens, 'accessTokenFor'>,
  caller: Caller,
  opened: T,
  rejected: string | undefined,
): Promise<(T & { readonly tokenId?: string }) | NoAccessToken['rule']> {
  const type = findType(opened.row.type);
  const oauth = type?.oauth;
  if (oauth === undefined || opened.secrets === undefined) return opened;
  try {
    const { token, tokenId, expiresAt } = await accessTokens.accessTokenFor({
      credential: oauthOfLease(opened),
      secrets: opened.secrets,
      caller,
      rejected,
    });
    const { [oauth.expiryField]: _, ...publicFields } = shownFields(
      type,
      opened.version.publicFields as PublicFields,
    );
    return {
      ...opened,
      tokenId,
      version: {
        ...opened.version,
        publicFields: {
          ...publicFields,
          ...(expiresAt === undefined ? {} : { [oauth.expiryField]: expiresAt.toISOString() }),
        },
      },
      // SECURITY: exposed to stand alone in what is delivered: whatever else the version holds
      // stays behind.
      secrets: new Secret({ accessToken: token.expose() }),
    };
  } catch (error) {
    if (error instanceof NoAccessToken) return error.rule;
    throw error;
  }
}
