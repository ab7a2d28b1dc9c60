import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const hubspot = defineType({
  name: 'hubspot',
  title: 'HubSpot',
  description: 'The access token of a private app of HubSpot.',
  fields: { accessToken: secret({ title: 'Access token' }) },
  broker: {
    injection: { kind: 'bearer', field: 'accessToken' },
    upstream: { kind: 'fixed', baseUrl: 'https://api.hubapi.com' },
  },
  test: { kind: 'http', method: 'GET', path: '/account-info/v3/details' },
  aliases: {
    n8n: [{ type: 'hubspotAppToken', fields: { appToken: 'accessToken' } }],
    env: [{ type: 'HUBSPOT_ACCESS_TOKEN', fields: { value: 'accessToken' } }],
  },
});
