import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const jungleGrid = defineType({
  name: 'jungleGrid',
  title: 'Jungle Grid',
  description: 'An API key of Jungle Grid.',
  fields: { apiKey: secret({ title: 'API key' }) },
  noTest: 'No base URL is known.',
  noBroker: 'No base URL is known: an engine leases it.',
  aliases: { heym: [{ type: 'jungle_grid', fields: { api_key: 'apiKey' } }] },
});
