import { defineType, host, port, secret, username } from './define.ts';

export const smtp = defineType({
  name: 'smtp', title: 'SMTP', description: 'A log-in for sending mail.',
  fields: { host: host({ title: 'Host' }), port: port(587), username: username({ title: 'User name' }), password: secret({ title: 'Password' }) },
});
