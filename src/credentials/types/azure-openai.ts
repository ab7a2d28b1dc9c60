import { defineType } from './define.ts';
import { plainText, secret, url } from './fields.ts';

/** The endpoint that a resource of this name has. */
const endpointOf = (resource: string): string | undefined =>
  /^[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?$/.test(resource)
    ? `https://${resource}.openai.azure.com`
    : undefined;
const segment = { form: /^[A-Za-z0-9._-]{1,100}$/, words: 'letters, digits, . _ -' };

export const azureOpenai = defineType({
  name: 'azureOpenai',
  title: 'Azure OpenAI',
  description: 'A key of an Azure OpenAI resource.',
  fields: {
    apiKey: secret({ title: 'API key' }),
    endpoint: url({ title: 'Endpoint' }),
    apiVersion: plainText({ title: 'API version', optional: true, ...segment }),
    deployment: plainText({ title: 'Deployment', optional: true, ...segment }),
  },
  broker: {
    injection: { kind: 'header', name: 'api-key', field: 'apiKey' },
    upstream: { kind: 'field', field: 'endpoint' },
  },
  test: {
    kind: 'http',
    method: 'GET',
    path: '/openai/models?api-version={apiVersion=2024-10-21}',
  },
  aliases: {
    n8n: [
      {
        type: 'azureOpenAiApi',
        fields: {
          apiKey: 'apiKey',
          endpoint: 'endpoint',
          resourceName: { to: 'endpoint', read: endpointOf, unless: 'endpoint' },
          apiVersion: 'apiVersion',
        },
      },
    ],
  },
});
