import { defineType } from './define.ts';
import { optionalSecret, secret } from './fields.ts';

export const telegram = defineType({
  name: 'telegram',
  title: 'Telegram bot',
  description: 'The token of a bot, and the one by which its webhook knows Telegram.',
  fields: {
    botToken: secret({ title: 'Bot token' }),
    secretToken: optionalSecret({ title: 'Secret token of the webhook' }),
  },
  broker: {
    injection: { kind: 'path', before: '/bot', field: 'botToken', after: '' },
    upstream: { kind: 'fixed', baseUrl: 'https://api.telegram.org' },
  },
  // A token that none could be is a path that there is not.
  test: { kind: 'http', method: 'GET', path: '/getMe', refused: [404] },
  aliases: {
    heym: [{ type: 'telegram', fields: { bot_token: 'botToken', secret_token: 'secretToken' } }],
    n8n: [{ type: 'telegramApi', fields: { accessToken: 'botToken' } }],
    env: [{ type: 'TELEGRAM_BOT_TOKEN', fields: { value: 'botToken' } }],
  },
});
