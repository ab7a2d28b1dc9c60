import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const sendgrid = defineType({
  name: 'sendgrid',
  title: 'SendGrid',
  description: 'An API key of SendGrid.',
  fields: { apiKey: secret({ title: 'API key' }) },
  broker: {
    injection: { kind: 'bearer', field: 'apiKey' },
    upstream: { kind: 'fixed', baseUrl: 'https://api.sendgrid.com' },
  },
  test: { kind: 'http', method: 'GET', path: '/v3/scopes' },
  aliases: {
    n8n: [{ type: 'sendGridApi', fields: { apiKey: 'apiKey' } }],
    env: [{ type: 'SENDGRID_API_KEY', fields: { value: 'apiKey' } }],
  },
});
