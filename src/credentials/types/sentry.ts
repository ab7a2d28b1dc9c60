import { defineType } from './define.ts';
import { secret, url } from './fields.ts';

export const sentry = defineType({
  name: 'sentry',
  title: 'Sentry',
  description: 'An auth token of Sentry.',
  fields: {
    apiToken: secret({ title: 'Auth token' }),
    baseUrl: url({ title: 'Base URL', default: 'https://sentry.io' }),
  },
  broker: {
    injection: { kind: 'bearer', field: 'apiToken' },
    upstream: { kind: 'field', field: 'baseUrl' },
  },
  test: { kind: 'http', method: 'GET', path: '/api/0/' },
  aliases: {
    heym: [{ type: 'sentry', fields: { api_token: 'apiToken', base_url: 'baseUrl' } }],
    n8n: [{ type: 'sentryIoApi', fields: { token: 'apiToken', url: 'baseUrl' } }],
    env: [{ type: 'SENTRY_AUTH_TOKEN', fields: { value: 'apiToken', SENTRY_URL: 'baseUrl' } }],
  },
});
