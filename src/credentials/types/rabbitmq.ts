import { defineType, host, port, publicText, secret, username } from './define.ts';

export const rabbitmq = defineType({
  name: 'rabbitmq', title: 'RabbitMQ', description: 'A log-in to a RabbitMQ server.',
  fields: {
    host: host({ title: 'Host' }), port: port(5672), username: username({ title: 'User name' }), password: secret({ title: 'Password' }),
    vhost: publicText({ title: 'Virtual host', default: '/' }),
  },
});
