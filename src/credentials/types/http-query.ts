import { defineType } from './define.ts';
import { parameterName, secret } from './fields.ts';

export const httpQuery = defineType({
  name: 'httpQuery',
  title: 'HTTP query parameter',
  description: 'A secret in a query parameter of any name.',
  fields: {
    name: parameterName({ title: 'Parameter name' }),
    value: secret({ title: 'Parameter value' }),
  },
  noTest: 'It says nothing of what it is for.',
  broker: {
    injection: { kind: 'query', nameField: 'name', field: 'value' },
    upstream: { kind: 'policy' },
  },
  aliases: {
    n8n: [{ type: 'httpQueryAuth', fields: { name: 'name', value: 'value' } }],
  },
});
