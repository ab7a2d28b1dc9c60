import { defineType, secret } from './define.ts';

export const linear = defineType({
  name: 'linear', title: 'Linear', description: 'A personal API key of Linear.', fields: { apiKey: secret({ title: 'API key' }) },
  broker: { injection: { kind: 'header', name: 'Authorization', field: 'apiKey' }, upstream: { kind: 'fixed', baseUrl: 'https://api.linear.app' } },
});
