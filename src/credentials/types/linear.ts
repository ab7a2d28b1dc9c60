import { defineType, secret } from './define.ts';

export const linear = defineType({
  name: 'linear',
  title: 'Linear',
  description: 'A personal API key of Linear.',
  fields: { apiKey: secret({ title: 'API key' }) },
  broker: {
    injection: { kind: 'header', name: 'Authorization', field: 'apiKey' },
    upstream: { kind: 'fixed', baseUrl: 'https://api.linear.app' },
  },
  aliases: {
    heym: [{ type: 'linear', fields: { api_key: 'apiKey' }, idle: { auth_mode: ['api_key'] } }],
    n8n: [{ type: 'linearApi', fields: { apiKey: 'apiKey' } }],
    env: [{ type: 'LINEAR_API_KEY', fields: { value: 'apiKey' } }],
  },
});
