import { defineType } from './define.ts';
import { host, optionalSecret, port, secret } from './fields.ts';

export const qdrant = defineType({
  name: 'qdrant',
  title: 'Qdrant',
  description: 'A Qdrant server, with the key of the service that makes its embeddings.',
  fields: {
    host: host({ title: 'Host' }),
    port: port(6333),
    apiKey: optionalSecret({ title: 'API key' }),
    embeddingApiKey: secret({ title: 'API key for embeddings' }),
  },
  broker: {
    injection: { kind: 'header', name: 'api-key', field: 'apiKey' },
    upstream: { kind: 'hostPort', hostField: 'host', portField: 'port' },
  },
  test: { kind: 'qdrant' },
  aliases: {
    heym: [
      {
        type: 'qdrant',
        fields: {
          qdrant_host: 'host',
          qdrant_port: 'port',
          qdrant_api_key: 'apiKey',
          openai_api_key: 'embeddingApiKey',
        },
      },
    ],
  },
});
