// What Google's types with an account of a person's have in common: the provider is always the same
// one.
import {
  type CredentialType,
  defineType,
  moment,
  optionalSecret,
  publicText,
  secret,
} from './define.ts';

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
    },
    oauth: {
      expiryField: 'tokenExpiry',
      settings: (fields) => ({
        grant: 'authorizationCode',
        authorizationUrl: 'https://accounts.google.com/o/oauth2/v2/auth',
        tokenUrl: 'https://oauth2.googleapis.com/token',
        clientId: String(fields['clientId']),
        scope: String(fields['scope'] ?? of.scope),
        parameters: 'access_type=offline&prompt=consent', // without these Google sends a refresh token the first time only
        clientAuthentication: 'body',
      }),
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
