import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const linear = defineType({
  name: 'linear',
  title: 'Linear',
  description: 'A personal API key of Linear.',
  fields: { apiKey: secret({ title: 'API key' }) },
  broker: {
    injection: { kind: 'header', name: 'Authorization', field: 'apiKey' },
    upstream: { kind: 'fixed', baseUrl: 'https://api.linear.app' },
  },
  test: {
    kind: 'http',
    method: 'POST',
    path: '/graphql',
    body: { query: '{ viewer { id } }' },
    refusal: { member: 'errors', by: 'presence' },
  },
  aliases: {
    heym: [
      { type: 'linear', fields: { api_key: 'apiKey' }, modes: { auth_mode: { api_key: [] } } },
    ],
    n8n: [{ type: 'linearApi', fields: { apiKey: 'apiKey' } }],
    env: [{ type: 'LINEAR_API_KEY', fields: { value: 'apiKey' } }],
  },
});
