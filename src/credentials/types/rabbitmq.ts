import { defineType, host, port, publicText, secret, username } from './define.ts';

export const rabbitmq = defineType({
  name: 'rabbitmq',
  title: 'RabbitMQ',
  description: 'A log-in to a RabbitMQ server.',
  fields: {
    host: host({ title: 'Host' }),
    port: port(5672),
    username: username({ title: 'User name' }),
    password: secret({ title: 'Password' }),
    vhost: publicText({ title: 'Virtual host', default: '/' }),
  },
  aliases: {
    heym: [
      {
        type: 'rabbitmq',
        fields: {
          rabbitmq_host: 'host',
          rabbitmq_port: 'port',
          rabbitmq_username: 'username',
          rabbitmq_password: 'password',
          rabbitmq_vhost: 'vhost',
        },
      },
    ],
    n8n: [
      {
        type: 'rabbitmq',
        fields: {
          hostname: 'host',
          port: 'port',
          username: 'username',
          password: 'password',
          vhost: 'vhost',
        },
      },
    ],
    airflow: [
      {
        type: 'amqp',
        fields: {
          host: 'host',
          port: 'port',
          login: 'username',
          password: 'password',
          schema: 'vhost',
        },
      },
    ],
  },
});
