import { defineType, secret } from './define.ts';

export const slackTrigger = defineType({
  name: 'slackTrigger', title: 'Slack trigger', description: 'The secret with which Slack signs what it sends.', fields: { signingSecret: secret({ title: 'Signing secret' }) },
});
