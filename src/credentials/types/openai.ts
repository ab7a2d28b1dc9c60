import { defineType, secret, url } from './define.ts';

export const openai = defineType({
  name: 'openai',
  title: 'OpenAI',
  description: 'An API key of OpenAI or of a service that speaks its API.',
  fields: {
    apiKey: secret({ title: 'API key' }),
    baseUrl: url({ title: 'Base URL', default: 'https://api.openai.com' }),
  },
  broker: {
    injection: { kind: 'bearer', field: 'apiKey' },
    upstream: { kind: 'field', field: 'baseUrl' },
  },
  test: { kind: 'http', method: 'GET', path: '/v1/models' },
  aliases: {
    heym: [{ type: 'openai', fields: { api_key: 'apiKey', base_url: 'baseUrl' } }],
    n8n: [{ type: 'openAiApi', fields: { apiKey: 'apiKey', url: 'baseUrl' } }],
    env: [{ type: 'OPENAI_API_KEY', fields: { value: 'apiKey' } }],
  },
});
