import { defineType } from './define.ts';
import { host, port, publicText, secret, toggle, username } from './fields.ts';

export const imap = defineType({
  name: 'imap',
  title: 'IMAP',
  description: 'A log-in for reading mail.',
  fields: {
    host: host({ title: 'Host' }),
    port: port(993),
    username: username({ title: 'User name' }),
    password: secret({ title: 'Password' }),
    mailbox: publicText({ title: 'Mailbox', default: 'INBOX' }),
    useSsl: toggle({ title: 'TLS', default: true, destination: true }),
  },
  test: { kind: 'imap' },
  noBroker: 'IMAP is no HTTP.',
  aliases: {
    heym: [
      {
        type: 'imap',
        fields: {
          imap_host: 'host',
          imap_port: 'port',
          imap_username: 'username',
          imap_password: 'password',
          imap_mailbox: 'mailbox',
          imap_use_ssl: 'useSsl',
        },
      },
    ],
    n8n: [
      {
        type: 'imap',
        fields: {
          host: 'host',
          port: 'port',
          user: 'username',
          password: 'password',
          secure: 'useSsl',
        },
      },
    ],
    airflow: [
      {
        type: 'imap',
        fields: {
          host: 'host',
          port: 'port',
          login: 'username',
          password: 'password',
          'extra.use_ssl': 'useSsl',
        },
      },
    ],
  },
});
