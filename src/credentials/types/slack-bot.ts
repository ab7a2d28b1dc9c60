import { defineType } from './define.ts';
import { optionalSecret, secret } from './fields.ts';

export const slackBot = defineType({
  name: 'slackBot',
  title: 'Slack bot',
  description: 'The token of a Slack app, and the secret with which Slack signs what it sends.',
  fields: {
    botToken: secret({ title: 'Bot token' }),
    signingSecret: optionalSecret({ title: 'Signing secret' }),
  },
  broker: {
    injection: { kind: 'bearer', field: 'botToken' },
    upstream: { kind: 'fixed', baseUrl: 'https://slack.com' },
  },
  // Slack answers 200 whatever the token is worth.
  test: {
    kind: 'http',
    method: 'POST',
    path: '/api/auth.test',
    refusal: { member: 'ok', by: 'false' },
  },
  aliases: {
    n8n: [
      { type: 'slackApi', fields: { accessToken: 'botToken', signatureSecret: 'signingSecret' } },
    ],
    env: [{ type: 'SLACK_BOT_TOKEN', fields: { value: 'botToken' } }],
  },
});
