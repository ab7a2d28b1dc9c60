import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const discord = defineType({
  name: 'discord',
  title: 'Discord webhook',
  description: 'An incoming webhook; the URL itself is the secret.',
  fields: { webhookUrl: secret({ title: 'Webhook URL' }) },
  noTest: 'A call would post a message.',
  broker: { injection: { kind: 'url', field: 'webhookUrl' }, upstream: { kind: 'secret' } },
  aliases: {
    heym: [{ type: 'discord', fields: { webhook_url: 'webhookUrl' } }],
    n8n: [{ type: 'discordWebhookApi', fields: { webhookUri: 'webhookUrl' } }],
    env: [{ type: 'DISCORD_WEBHOOK_URL', fields: { value: 'webhookUrl' } }],
  },
});
