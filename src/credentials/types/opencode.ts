import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const opencode = defineType({
  name: 'opencode',
  title: 'OpenCode',
  description: 'An API key of OpenCode.',
  fields: { apiKey: secret({ title: 'API key' }) },
  noTest: 'No base URL is known.',
  noBroker: 'No base URL is known: an engine leases it.',
  aliases: { heym: [{ type: 'opencode', fields: { api_key: 'apiKey' } }] },
});
