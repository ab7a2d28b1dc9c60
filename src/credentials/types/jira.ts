import { defineType } from './define.ts';
import { secret, url, username } from './fields.ts';

export const jira = defineType({
  name: 'jira',
  title: 'Jira',
  description: 'An API token of a Jira account, or an access token of a Jira server.',
  fields: {
    email: username({
      title: 'E-mail',
      description: 'Left out for a personal access token of Data Center.',
      optional: true,
    }),
    apiToken: secret({ title: 'API token' }),
    baseUrl: url({ title: 'Base URL' }),
  },
  broker: {
    injection: {
      kind: 'whenSet',
      field: 'email',
      set: { kind: 'basic', usernameField: 'email', passwordField: 'apiToken' },
      unset: { kind: 'bearer', field: 'apiToken' },
    },
    upstream: { kind: 'field', field: 'baseUrl' },
  },
  test: { kind: 'http', method: 'GET', path: '/rest/api/2/myself' },
  aliases: {
    heym: [
      {
        type: 'jira',
        fields: { email: 'email', api_token: 'apiToken', api_key: 'apiToken', base_url: 'baseUrl' },
      },
    ],
    n8n: [
      {
        type: 'jiraSoftwareCloudApi',
        fields: { email: 'email', apiToken: 'apiToken', domain: 'baseUrl' },
      },
    ],
  },
});
