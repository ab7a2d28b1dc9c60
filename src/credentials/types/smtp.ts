import { defineType, host, port, secret, username } from './define.ts';

export const smtp = defineType({
  name: 'smtp',
  title: 'SMTP',
  description: 'A log-in for sending mail.',
  fields: {
    host: host({ title: 'Host' }),
    port: port(587),
    username: username({ title: 'User name' }),
    password: secret({ title: 'Password' }),
  },
  test: { kind: 'smtp' },
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
        fields: { host: 'host', port: 'port', user: 'username', password: 'password' },
        unfit: ['disableStartTls', 'hostName'],
      },
    ],
    airflow: [
      {
        type: 'smtp',
        fields: { host: 'host', port: 'port', login: 'username', password: 'password' },
        unfit: ['extra.disable_tls'],
      },
    ],
  },
});
