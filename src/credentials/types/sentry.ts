import { defineType, secret, url } from './define.ts';

export const sentry = defineType({
  name: 'sentry', title: 'Sentry', description: 'An auth token of Sentry.',
  fields: { apiToken: secret({ title: 'Auth token' }), baseUrl: url({ title: 'Base URL', default: 'https://sentry.io' }) },
  broker: { injection: { kind: 'bearer', field: 'apiToken' }, upstream: { kind: 'field', field: 'baseUrl' } },
  test: { kind: 'http', method: 'GET', path: '/api/0/organizations/' },
});
