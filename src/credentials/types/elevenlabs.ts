import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const elevenlabs = defineType({
  name: 'elevenlabs',
  title: 'ElevenLabs',
  description: 'An API key of ElevenLabs.',
  fields: { apiKey: secret({ title: 'API key' }) },
  broker: {
    injection: { kind: 'header', name: 'xi-api-key', field: 'apiKey' },
    upstream: { kind: 'fixed', baseUrl: 'https://api.elevenlabs.io' },
  },
  test: { kind: 'http', method: 'GET', path: '/v1/user' },
  aliases: {
    heym: [{ type: 'elevenlabs', fields: { api_key: 'apiKey' } }],
    n8n: [{ type: 'elevenLabsApi', fields: { xiApiKey: 'apiKey' } }],
    env: [{ type: 'ELEVENLABS_API_KEY', fields: { value: 'apiKey' } }],
  },
});
