import { defineType, secret, url, username } from './define.ts';

export const jira = defineType({
  name: 'jira',
  title: 'Jira',
  description: 'An API token of a Jira account.',
  fields: {
    email: username({ title: 'E-mail' }),
    apiToken: secret({ title: 'API token' }),
    baseUrl: url({ title: 'Base URL' }),
  },
  broker: {
    injection: { kind: 'basic', usernameField: 'email', passwordField: 'apiToken' },
    upstream: { kind: 'field', field: 'baseUrl' },
  },
  test: { kind: 'http', method: 'GET', path: '/rest/api/3/myself' },
  aliases: {
    heym: [
      { type: 'jira', fields: { email: 'email', api_token: 'apiToken', base_url: 'baseUrl' } },
    ],
    n8n: [
      {
        type: 'jiraSoftwareCloudApi',
        fields: { email: 'email', apiToken: 'apiToken', domain: 'baseUrl' },
      },
    ],
  },
});
