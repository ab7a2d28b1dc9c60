import { defineType } from './define.ts';
import { secret, url } from './fields.ts';

export const github = defineType({
  name: 'github',
  title: 'GitHub',
  description: 'A token of GitHub or of a GitHub Enterprise server.',
  fields: {
    apiKey: secret({ title: 'Token' }),
    baseUrl: url({ title: 'Base URL', default: 'https://api.github.com' }),
  },
  broker: {
    injection: { kind: 'bearer', field: 'apiKey' },
    upstream: { kind: 'field', field: 'baseUrl' },
  },
  // The token of an installation has no user and is answered with 403.
  test: { kind: 'http', method: 'GET', path: '/user', accepted: [403] },
  aliases: {
    heym: [{ type: 'github', fields: { api_key: 'apiKey', base_url: 'baseUrl' } }],
    n8n: [{ type: 'githubApi', fields: { accessToken: 'apiKey', server: 'baseUrl' } }],
    env: [
      { type: 'GITHUB_TOKEN', fields: { value: 'apiKey', GITHUB_API_URL: 'baseUrl' } },
      { type: 'GH_TOKEN', fields: { value: 'apiKey' } },
    ],
  },
});
