import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const cohere = defineType({
  name: 'cohere',
  title: 'Cohere',
  description: 'An API key of Cohere.',
  fields: { apiKey: secret({ title: 'API key' }) },
  broker: {
    injection: { kind: 'bearer', field: 'apiKey' },
    upstream: { kind: 'fixed', baseUrl: 'https://api.cohere.com' },
  },
  test: { kind: 'http', method: 'GET', path: '/v1/models' },
  aliases: {
    heym: [{ type: 'cohere', fields: { api_key: 'apiKey' } }],
    n8n: [{ type: 'cohereApi', fields: { apiKey: 'apiKey' } }],
    env: [{ type: 'COHERE_API_KEY', fields: { value: 'apiKey' } }],
  },
});
