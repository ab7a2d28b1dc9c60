import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const slackTrigger = defineType({
  name: 'slackTrigger',
  title: 'Slack trigger',
  description: 'The secret with which Slack signs what it sends.',
  fields: { signingSecret: secret({ title: 'Signing secret' }) },
  noTest: 'It verifies what comes in; there is nothing to call.',
  noBroker: 'It verifies what comes in; there is nothing to call.',
  aliases: {
    heym: [{ type: 'slack_trigger', fields: { signing_secret: 'signingSecret' } }],
    env: [{ type: 'SLACK_SIGNING_SECRET', fields: { value: 'signingSecret' } }],
  },
});
