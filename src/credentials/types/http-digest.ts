import { defineType } from './define.ts';
import { secret, username } from './fields.ts';

export const httpDigest = defineType({
  name: 'httpDigest',
  title: 'HTTP digest',
  description: 'User name and password of HTTP digest authentication.',
  fields: {
    username: username({ title: 'User name', optional: true }),
    password: secret({ title: 'Password' }),
  },
  noTest: 'It says nothing of what it is for.',
  noBroker: "The answer to a challenge is the engine's to make.",
  aliases: {
    n8n: [{ type: 'httpDigestAuth', fields: { user: 'username', password: 'password' } }],
  },
});
