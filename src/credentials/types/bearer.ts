import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const bearer = defineType({
  name: 'bearer',
  title: 'Bearer token',
  description: 'A token for the Authorization header.',
  fields: { token: secret({ title: 'Token' }) },
  noTest: 'It says nothing of what it is for.',
  broker: { injection: { kind: 'bearer', field: 'token' }, upstream: { kind: 'policy' } },
  aliases: {
    heym: [{ type: 'bearer', fields: { bearer_token: 'token' } }],
    n8n: [
      { type: 'httpBearerAuth', fields: { token: 'token' } },
      { type: 'whatsAppApi', fields: { accessToken: 'token' } },
    ],
  },
});
