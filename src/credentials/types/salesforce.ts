import { defineType } from './define.ts';
import { optionalSecret, moment, secret, instanceUrl } from './fields.ts';
import {
  clientId,
  fixedProviderFields,
  placeholderFields,
  scope,
  settingsFrom,
} from './oauth-fields.ts';

const { needs: _, ...domain } = placeholderFields.domain;

export const salesforce = defineType({
  name: 'salesforce',
  title: 'Salesforce',
  description: 'An account of Salesforce, by OAuth 2.0.',
  fields: {
    clientId,
    clientSecret: secret({ title: 'Client secret' }),
    accessToken: optionalSecret({ title: 'Access token', description: 'What to start with.' }),
    refreshToken: optionalSecret({ title: 'Refresh token', description: 'What to start with.' }),
    expiresAt: moment({ title: 'Expiry of the access token', optional: true }),
    scope,
    domain: {
      ...domain,
      title: 'Host of the log-in',
      description: 'It ends in .salesforce.com.',
      default: 'login.salesforce.com',
    },
    instanceUrl: instanceUrl({
      title: 'Instance URL',
      description:
        'As GET …/oauth shows it once an account is connected: its host ends in .salesforce.com.',
      under: '.salesforce.com',
    }),
    ...fixedProviderFields,
  },
  oauth: {
    provider: 'salesforce',
    expiryField: 'expiresAt',
    settings: (fields) => settingsFrom(fields),
  },
  broker: {
    injection: { kind: 'oauth' },
    upstream: { kind: 'optionalField', field: 'instanceUrl' },
  },
  noTest: 'GET …/oauth says what became of the last refresh.',
  aliases: {
    n8n: [
      {
        type: 'salesforceOAuth2Api',
        fields: {
          clientId: 'clientId',
          clientSecret: 'clientSecret',
          scope: 'scope',
          environment: {
            to: 'domain',
            words: { production: 'login.salesforce.com', sandbox: 'test.salesforce.com' },
          },
          'oauthTokenData.access_token': 'accessToken',
          'oauthTokenData.refresh_token': 'refreshToken',
          'oauthTokenData.instance_url': 'instanceUrl',
        },
      },
    ],
  },
});
