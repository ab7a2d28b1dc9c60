import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const pgvector = defineType({
  name: 'pgvector',
  title: 'PGVector',
  description: "The key for the embeddings of a vector store in the platform's own database.",
  fields: { embeddingApiKey: secret({ title: 'API key for embeddings' }) },
  broker: {
    injection: { kind: 'bearer', field: 'embeddingApiKey' },
    upstream: { kind: 'fixed', baseUrl: 'https://api.openai.com' },
  },
  test: { kind: 'http', method: 'GET', path: '/v1/models' },
  aliases: {
    heym: [{ type: 'pgvector', fields: { openai_api_key: 'embeddingApiKey' } }],
  },
});
