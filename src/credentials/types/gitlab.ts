import { defineType } from './define.ts';
import { secret, url } from './fields.ts';

export const gitlab = defineType({
  name: 'gitlab',
  title: 'GitLab',
  description: 'An access token of GitLab or of a GitLab server.',
  fields: {
    token: secret({ title: 'Access token' }),
    baseUrl: url({ title: 'Base URL', default: 'https://gitlab.com' }),
  },
  broker: {
    injection: { kind: 'header', name: 'PRIVATE-TOKEN', field: 'token' },
    upstream: { kind: 'field', field: 'baseUrl' },
  },
  test: { kind: 'http', method: 'GET', path: '/api/v4/user' },
  aliases: {
    n8n: [{ type: 'gitlabApi', fields: { accessToken: 'token', server: 'baseUrl' } }],
    env: [{ type: 'GITLAB_TOKEN', fields: { value: 'token', GITLAB_URL: 'baseUrl' } }],
  },
});
