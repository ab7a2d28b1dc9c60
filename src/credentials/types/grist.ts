import { defineType } from './define.ts';
import { secret, url } from './fields.ts';

export const grist = defineType({
  name: 'grist',
  title: 'Grist',
  description: 'An API key of a Grist server.',
  fields: { apiKey: secret({ title: 'API key' }), serverUrl: url({ title: 'Server URL' }) },
  broker: {
    injection: { kind: 'bearer', field: 'apiKey' },
    upstream: { kind: 'field', field: 'serverUrl' },
  },
  test: { kind: 'http', method: 'GET', path: '/api/orgs' },
  aliases: {
    heym: [{ type: 'grist', fields: { api_key: 'apiKey', server_url: 'serverUrl' } }],
    n8n: [
      {
        type: 'gristApi',
        fields: { apiKey: 'apiKey', selfHostedUrl: 'serverUrl' },
        idle: { planType: ['selfHosted'] },
      },
    ],
  },
});
