import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const airtable = defineType({
  name: 'airtable',
  title: 'Airtable',
  description: 'A personal access token of Airtable.',
  fields: { token: secret({ title: 'Access token' }) },
  broker: {
    injection: { kind: 'bearer', field: 'token' },
    upstream: { kind: 'fixed', baseUrl: 'https://api.airtable.com' },
  },
  test: { kind: 'http', method: 'GET', path: '/v0/meta/whoami' },
  aliases: {
    n8n: [{ type: 'airtableTokenApi', fields: { accessToken: 'token' } }],
    env: [{ type: 'AIRTABLE_API_KEY', fields: { value: 'token' } }],
  },
});
