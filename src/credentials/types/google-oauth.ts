// What Google's types with an account of a person's have in common: the provider is always the same
// one, written out into each version.
import { type CredentialType, defineType } from './define.ts';
import { moment, optionalSecret, publicText, secret } from './fields.ts';
import { fixedProviderFields, settingsFrom } from './oauth-fields.ts';

/**
 * What 0.1 asked, whose versions have no endpoints. SECURITY: never changed: a stored client secret
 * follows no other one.
 */
const stored0_1 = {
  authorizationUrl: 'https://accounts.google.com/o/oauth2/v2/auth',
  tokenUrl: 'https://oauth2.googleapis.com/token',
  parameters: 'access_type=offline&prompt=consent', // without these Google sends a refresh token the first time only
  clientAuthentication: 'body',
} as const;

/** A type of Google's whose requests go to one API with one scope. */
export const googleOAuth = (of: {
  name: string;
  title: string;
  description: string;
  scope: string;
  baseUrl: string;
  heym: string;
  n8n: string;
}): CredentialType =>
  defineType({
    name: of.name,
    title: of.title,
    description: of.description,
    fields: {
      clientId: publicText({ title: 'Client ID' }),
      clientSecret: secret({ title: 'Client secret' }),
      accessToken: optionalSecret({ title: 'Access token', description: 'What to start with.' }),
      refreshToken: optionalSecret({ title: 'Refresh token', description: 'What to start with.' }),
      tokenExpiry: moment({ title: 'Expiry of the access token', optional: true }),
      scope: publicText({
        title: 'Scope',
        description: `When left out: ${of.scope}`,
        optional: true,
      }),
      ...fixedProviderFields,
    },
    noTest: 'GET …/oauth says what became of the last refresh.',
    oauth: {
      provider: 'google',
      expiryField: 'tokenExpiry',
      settings: (fields) => settingsFrom(fields, { ...stored0_1, scope: of.scope }),
    },
    broker: { injection: { kind: 'oauth' }, upstream: { kind: 'fixed', baseUrl: of.baseUrl } },
    aliases: {
      heym: [
        {
          type: of.heym,
          fields: {
            client_id: 'clientId',
            client_secret: 'clientSecret',
            access_token: 'accessToken',
            refresh_token: 'refreshToken',
            token_expiry: 'tokenExpiry',
            scope: 'scope',
          },
        },
      ],
      n8n: [
        {
          type: of.n8n,
          fields: {
            clientId: 'clientId',
            clientSecret: 'clientSecret',
            scope: 'scope',
            'oauthTokenData.access_token': 'accessToken',
            'oauthTokenData.refresh_token': 'refreshToken',
          },
        },
      ],
    },
  });
