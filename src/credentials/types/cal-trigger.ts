import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const calTrigger = defineType({
  name: 'calTrigger',
  title: 'Cal.com trigger',
  description: 'The secret with which Cal.com signs what it sends.',
  fields: { webhookSecret: secret({ title: 'Webhook secret' }) },
  noTest: 'It verifies what comes in; there is nothing to call.',
  noBroker: 'It verifies what comes in; there is nothing to call.',
  aliases: {
    heym: [{ type: 'cal_trigger', fields: { webhook_secret: 'webhookSecret' } }],
  },
});
