import { defineType } from './define.ts';
import { moment, oneOf, optionalSecret, url } from './fields.ts';
import {
  clientId,
  endpointFields,
  faultsOfRequests,
  placeholderFields,
  providerFields,
  requestFields,
  scope,
  settingsFrom,
} from './oauth-fields.ts';

export const oauth2 = defineType({
  name: 'oauth2',
  title: 'OAuth 2.0',
  description: 'Tokens of any provider: a person authorizes, or the client asks for itself.',
  fields: {
    grant: oneOf({
      title: 'Grant',
      values: ['authorizationCode', 'clientCredentials'],
      default: 'authorizationCode',
    }),
    ...providerFields,
    ...placeholderFields,
    ...endpointFields,
    clientId,
    clientSecret: optionalSecret({ title: 'Client secret' }),
    scope,
    clientAuthentication: oneOf({
      title: 'Client authentication',
      values: ['header', 'body'],
      default: 'header',
    }),
    issuer: url({
      title: 'Issuer',
      description: 'What the provider calls itself; its answers then have to say it (RFC 9207).',
      optional: true,
    }),
    ...requestFields,
    accessToken: optionalSecret({ title: 'Access token', description: 'What to start with.' }),
    refreshToken: optionalSecret({ title: 'Refresh token', description: 'What to start with.' }),
    expiresAt: moment({ title: 'Expiry of the access token', optional: true }),
  },
  anyOf: ['tokenUrl', 'provider'],
  faults: faultsOfRequests,
  noTest: 'GET …/oauth says what became of the last refresh.',
  oauth: { settings: (fields) => settingsFrom(fields), expiryField: 'expiresAt' },
  broker: { injection: { kind: 'oauth' }, upstream: { kind: 'policy' } },
  aliases: {
    n8n: [
      {
        type: 'oAuth2Api',
        fields: {
          grantType: 'grant',
          clientId: 'clientId',
          clientSecret: 'clientSecret',
          accessTokenUrl: 'tokenUrl',
          authUrl: 'authorizationUrl',
          scope: 'scope',
          authQueryParameters: 'parameters',
          authentication: 'clientAuthentication',
          'oauthTokenData.access_token': 'accessToken',
          'oauthTokenData.refresh_token': 'refreshToken',
        },
      },
    ],
  },
});
