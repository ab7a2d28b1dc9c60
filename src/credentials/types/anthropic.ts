import { defineType } from './define.ts';
import { secret, url } from './fields.ts';

export const anthropic = defineType({
  name: 'anthropic',
  title: 'Anthropic',
  description: 'An API key of Anthropic or of a service that speaks its API.',
  fields: {
    apiKey: secret({ title: 'API key' }),
    baseUrl: url({ title: 'Base URL', default: 'https://api.anthropic.com' }),
  },
  broker: {
    injection: {
      kind: 'header',
      name: 'x-api-key',
      field: 'apiKey',
      also: { 'anthropic-version': '2023-06-01' },
    },
    upstream: { kind: 'field', field: 'baseUrl' },
  },
  test: { kind: 'http', method: 'GET', path: '/v1/models' },
  aliases: {
    heym: [{ type: 'anthropic', fields: { api_key: 'apiKey' } }],
    n8n: [{ type: 'anthropicApi', fields: { apiKey: 'apiKey', url: 'baseUrl' } }],
    env: [
      {
        type: 'ANTHROPIC_API_KEY',
        fields: { value: 'apiKey', ANTHROPIC_BASE_URL: 'baseUrl', ANTHROPIC_API_URL: 'baseUrl' },
      },
    ],
  },
});
