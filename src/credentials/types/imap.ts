import { defineType, host, port, publicText, secret, toggle, username } from './define.ts';

export const imap = defineType({
  name: 'imap', title: 'IMAP', description: 'A log-in for reading mail.',
  fields: {
    host: host({ title: 'Host' }), port: port(993), username: username({ title: 'User name' }), password: secret({ title: 'Password' }),
    mailbox: publicText({ title: 'Mailbox', default: 'INBOX' }), useSsl: toggle({ title: 'TLS', default: true, destination: true }),
  },
});
