import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const slack = defineType({
  name: 'slack',
  title: 'Slack webhook',
  description: 'An incoming webhook; the URL itself is the secret.',
  fields: { webhookUrl: secret({ title: 'Webhook URL' }) },
  noTest: 'A call would post a message.',
  broker: { injection: { kind: 'url', field: 'webhookUrl' }, upstream: { kind: 'secret' } },
  aliases: {
    heym: [{ type: 'slack', fields: { webhook_url: 'webhookUrl' } }],
    env: [{ type: 'SLACK_WEBHOOK_URL', fields: { value: 'webhookUrl' } }],
  },
});
