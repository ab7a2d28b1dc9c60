import { defineType } from './define.ts';
import { secret, url } from './fields.ts';

export const customLlm = defineType({
  name: 'customLlm',
  title: 'Custom LLM',
  description: "A model server of one's own.",
  fields: {
    baseUrl: url({
      title: 'Base URL',
      description: 'Complete, as an SDK takes it: with its version, if it has one.',
    }),
    apiKey: secret({ title: 'API key' }),
  },
  broker: {
    injection: { kind: 'bearer', field: 'apiKey' },
    upstream: { kind: 'field', field: 'baseUrl' },
  },
  test: { kind: 'http', method: 'GET', path: '/models' },
  aliases: {
    heym: [{ type: 'custom', fields: { base_url: 'baseUrl', api_key: 'apiKey' } }],
  },
});
