import { defineType } from './define.ts';
import { url } from './fields.ts';

export const flaresolverr = defineType({
  name: 'flaresolverr',
  title: 'FlareSolverr',
  description: 'Where a FlareSolverr server listens; it has no secret.',
  fields: { url: url({ title: 'URL' }) },
  noTest: 'It has no secret, and nothing to log in to.',
  noBroker: 'It has no secret.',
  aliases: {
    heym: [{ type: 'flaresolverr', fields: { flaresolverr_url: 'url' } }],
  },
});
