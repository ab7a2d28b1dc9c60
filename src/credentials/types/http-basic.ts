import { defineType } from './define.ts';
import { optionalSecret, username } from './fields.ts';

export const httpBasic = defineType({
  name: 'httpBasic',
  title: 'HTTP basic',
  description:
    'User name and password of HTTP basic authentication, or a key that stands where the user ' +
    'name does.',
  fields: {
    username: username({ title: 'User name', optional: true }),
    password: optionalSecret({ title: 'Password' }),
    apiKey: optionalSecret({
      title: 'API key',
      description: 'In place of the user name; a password is then seldom needed.',
    }),
  },
  anyOf: ['password', 'apiKey'],
  notBoth: ['username', 'apiKey'],
  noTest: 'It says nothing of what it is for.',
  broker: {
    injection: {
      kind: 'whenSet',
      field: 'apiKey',
      set: { kind: 'basicKey', field: 'apiKey', passwordField: 'password' },
      unset: { kind: 'basic', usernameField: 'username', passwordField: 'password' },
    },
    upstream: { kind: 'policy' },
  },
  aliases: {
    n8n: [{ type: 'httpBasicAuth', fields: { user: 'username', password: 'password' } }],
    airflow: [{ type: 'http', fields: { login: 'username', password: 'password' } }],
  },
});
