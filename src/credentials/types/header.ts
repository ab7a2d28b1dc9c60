import { defineType } from './define.ts';
import { headerName, secret } from './fields.ts';

export const header = defineType({
  name: 'header',
  title: 'HTTP header',
  description: 'A secret in a header of any name.',
  fields: { name: headerName({ title: 'Header name' }), value: secret({ title: 'Header value' }) },
  noTest: 'It says nothing of what it is for.',
  broker: {
    injection: { kind: 'namedHeader', nameField: 'name', field: 'value' },
    upstream: { kind: 'policy' },
  },
  aliases: {
    heym: [{ type: 'header', fields: { header_key: 'name', header_value: 'value' } }],
    n8n: [{ type: 'httpHeaderAuth', fields: { name: 'name', value: 'value' } }],
  },
});
