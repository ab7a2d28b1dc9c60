import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const google = defineType({
  name: 'google',
  title: 'Google AI',
  description: "An API key for Google's generative models.",
  fields: { apiKey: secret({ title: 'API key' }) },
  broker: {
    injection: { kind: 'header', name: 'x-goog-api-key', field: 'apiKey' },
    upstream: { kind: 'fixed', baseUrl: 'https://generativelanguage.googleapis.com' },
  },
  test: { kind: 'http', method: 'GET', path: '/v1beta/models' },
  aliases: {
    heym: [{ type: 'google', fields: { api_key: 'apiKey' } }],
    n8n: [{ type: 'googlePalmApi', fields: { apiKey: 'apiKey' } }],
    env: [
      { type: 'GEMINI_API_KEY', fields: { value: 'apiKey' } },
      { type: 'GOOGLE_API_KEY', fields: { value: 'apiKey' } },
    ],
  },
});
