import { defineType, secret } from './define.ts';

export const bearer = defineType({
  name: 'bearer',
  title: 'Bearer token',
  description: 'A token for the Authorization header.',
  fields: { token: secret({ title: 'Token' }) },
  broker: { injection: { kind: 'bearer', field: 'token' }, upstream: { kind: 'policy' } },
  aliases: {
    heym: [{ type: 'bearer', fields: { bearer_token: 'token' } }],
    n8n: [
      { type: 'httpBearerAuth', fields: { token: 'token' } },
      { type: 'stripeApi', fields: { secretKey: 'token' } },
      { type: 'slackApi', fields: { accessToken: 'token' } },
      { type: 'airtableTokenApi', fields: { accessToken: 'token' } },
      { type: 'hubspotAppToken', fields: { appToken: 'token' } },
      { type: 'whatsAppApi', fields: { accessToken: 'token' } },
    ],
  },
});
