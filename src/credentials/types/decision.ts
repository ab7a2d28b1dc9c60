import { defineType } from './define.ts';
import { optionalSecret, url } from './fields.ts';

export const decision = defineType({
  name: 'decision',
  title: 'Decision model',
  description: 'A server of a model that decides; it may be without a key.',
  fields: {
    baseUrl: url({
      title: 'Base URL',
      description: 'Complete, as an SDK takes it: with its version, if it has one.',
    }),
    apiKey: optionalSecret({ title: 'API key' }),
  },
  broker: {
    injection: { kind: 'bearer', field: 'apiKey' },
    upstream: { kind: 'field', field: 'baseUrl' },
  },
  test: { kind: 'http', method: 'GET', path: '/models' },
  aliases: {
    heym: [{ type: 'decision', fields: { base_url: 'baseUrl', api_key: 'apiKey' } }],
  },
});
