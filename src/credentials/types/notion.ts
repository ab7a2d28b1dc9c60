import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const notion = defineType({
  name: 'notion',
  title: 'Notion',
  description: 'The token of a Notion integration.',
  fields: { apiToken: secret({ title: 'API token' }) },
  broker: {
    injection: { kind: 'bearer', field: 'apiToken' },
    upstream: { kind: 'fixed', baseUrl: 'https://api.notion.com' },
  },
  test: {
    kind: 'http',
    method: 'GET',
    path: '/v1/users/me',
    headers: { 'notion-version': '2022-06-28' },
  },
  aliases: {
    heym: [
      { type: 'notion', fields: { api_token: 'apiToken' }, modes: { auth_mode: { token: [] } } },
    ],
    n8n: [{ type: 'notionApi', fields: { apiKey: 'apiToken' } }],
    env: [
      { type: 'NOTION_TOKEN', fields: { value: 'apiToken' } },
      { type: 'NOTION_API_KEY', fields: { value: 'apiToken' } },
    ],
  },
});
