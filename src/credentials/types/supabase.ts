import { defineType } from './define.ts';
import { publicText, secret, url } from './fields.ts';

export const supabase = defineType({
  name: 'supabase',
  title: 'Supabase',
  description: 'The key of a Supabase project.',
  fields: {
    url: url({ title: 'Project URL' }),
    key: secret({ title: 'Key' }),
    schema: publicText({ title: 'Schema', default: 'public' }),
  },
  broker: {
    injection: {
      kind: 'headers',
      headers: [
        { name: 'apikey', field: 'key' },
        { name: 'Authorization', field: 'key', scheme: 'Bearer' },
      ],
    },
    upstream: { kind: 'field', field: 'url' },
  },
  test: { kind: 'http', method: 'GET', path: '/rest/v1/' },
  aliases: {
    heym: [
      {
        type: 'supabase',
        fields: {
          supabase_url: 'url',
          supabase_key: 'key',
          supabase_schema: 'schema',
          url: 'url',
          key: 'key',
          schema: 'schema',
        },
      },
    ],
    n8n: [{ type: 'supabaseApi', fields: { host: 'url', serviceRole: 'key' } }],
  },
});
