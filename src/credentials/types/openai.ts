import { defineType } from './define.ts';
import { secret, url } from './fields.ts';

/**
 * A base URL without the `/v1` that SDKs have at the end of theirs: requests through it have it.
 */
export const withoutVersion = (baseUrl: string): string =>
  /^(https?:\/\/[^/]+(?:\/.*)?)\/v1\/*$/.exec(baseUrl)?.[1] ?? baseUrl;

export const openai = defineType({
  name: 'openai',
  title: 'OpenAI',
  description: 'An API key of OpenAI or of a service that speaks its API.',
  fields: {
    apiKey: secret({ title: 'API key' }),
    baseUrl: {
      ...url({
        title: 'Base URL',
        description: 'Without the version: a `/v1` at its end is taken off.',
        default: 'https://api.openai.com',
      }),
      stored: (value) => (typeof value === 'string' ? withoutVersion(value) : value),
    },
  },
  broker: {
    injection: { kind: 'bearer', field: 'apiKey' },
    upstream: { kind: 'field', field: 'baseUrl' },
  },
  test: { kind: 'http', method: 'GET', path: '/v1/models' },
  aliases: {
    heym: [{ type: 'openai', fields: { api_key: 'apiKey', base_url: 'baseUrl' } }],
    n8n: [{ type: 'openAiApi', fields: { apiKey: 'apiKey', url: 'baseUrl' } }],
    env: [
      {
        type: 'OPENAI_API_KEY',
        fields: {
          value: 'apiKey',
          OPENAI_BASE_URL: 'baseUrl',
          OPENAI_API_BASE: 'baseUrl',
          OPENAI_API_BASE_URL: 'baseUrl',
          OPENAI_API_URL: 'baseUrl',
        },
      },
    ],
  },
});
