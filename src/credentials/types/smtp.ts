import { defineType } from './define.ts';
import { host, oneOf, port, secret, username } from './fields.ts';

export const smtp = defineType({
  name: 'smtp',
  title: 'SMTP',
  description: 'A log-in for sending mail.',
  fields: {
    host: host({ title: 'Host' }),
    port: port(587),
    username: username({ title: 'User name' }),
    password: secret({ title: 'Password' }),
    tls: oneOf({
      title: 'TLS',
      description: 'When left out: from the start on port 465, else by STARTTLS.',
      values: ['implicit', 'startTls', 'none'],
      optional: true,
      destination: true,
    }),
  },
  test: { kind: 'smtp' },
  noBroker: 'SMTP is no HTTP.',
  aliases: {
    heym: [
      {
        type: 'smtp',
        fields: {
          smtp_server: 'host',
          smtp_port: 'port',
          smtp_email: 'username',
          smtp_password: 'password',
        },
      },
    ],
    n8n: [
      {
        type: 'smtp',
        fields: {
          host: 'host',
          port: 'port',
          user: 'username',
          password: 'password',
          secure: { to: 'tls', words: { true: 'implicit' } },
        },
        unfit: ['disableStartTls', 'hostName'],
      },
    ],
    airflow: [
      {
        type: 'smtp',
        fields: {
          host: 'host',
          port: 'port',
          login: 'username',
          password: 'password',
          'extra.disable_ssl': { to: 'tls', words: { true: 'startTls', false: 'implicit' } },
        },
        unfit: ['extra.disable_tls'],
      },
    ],
  },
});
