import { defineType, secret, username } from './define.ts';

export const httpBasic = defineType({
  name: 'httpBasic',
  title: 'HTTP basic',
  description: 'User name and password of HTTP basic authentication.',
  fields: {
    username: username({ title: 'User name', optional: true }),
    password: secret({ title: 'Password' }),
  },
  broker: {
    injection: { kind: 'basic', usernameField: 'username', passwordField: 'password' },
    upstream: { kind: 'policy' },
  },
  aliases: {
    n8n: [
      { type: 'httpBasicAuth', fields: { user: 'username', password: 'password' } },
      {
        type: 'twilioApi',
        fields: { accountSid: 'username', authToken: 'password' },
        idle: { authType: ['authToken'] },
      },
    ],
    airflow: [{ type: 'http', fields: { login: 'username', password: 'password' } }],
  },
});
