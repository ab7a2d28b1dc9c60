import { defineType, tlsField } from './define.ts';
import { flag, host, port, publicText, secret, username } from './fields.ts';

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
    tls: flag({ title: 'TLS', destination: true }),
  },
  test: { kind: 'rabbitmq' },
  noBroker: 'Its protocol is no HTTP.',
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
          ssl: tlsField,
        },
        unfit: ['passwordless'],
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
