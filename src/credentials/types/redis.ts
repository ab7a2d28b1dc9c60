import { defineType, tlsField } from './define.ts';
import { flag, host, number, optionalSecret, port, username } from './fields.ts';

export const redis = defineType({
  name: 'redis',
  title: 'Redis',
  description: 'A Redis server.',
  fields: {
    host: host({ title: 'Host' }),
    port: port(6379),
    password: optionalSecret({ title: 'Password' }),
    username: username({ title: 'User name', optional: true }),
    tls: flag({ title: 'TLS', destination: true }),
    db: number({ title: 'Database', default: 0, min: 0, max: 65_535 }),
  },
  test: { kind: 'redis' },
  noBroker: 'Its protocol is no HTTP.',
  aliases: {
    heym: [
      {
        type: 'redis',
        fields: {
          redis_host: 'host',
          redis_port: 'port',
          redis_password: 'password',
          redis_db: 'db',
        },
      },
    ],
    n8n: [
      {
        type: 'redis',
        fields: {
          host: 'host',
          port: 'port',
          user: 'username',
          password: 'password',
          database: 'db',
          ssl: tlsField,
        },
        unfit: ['disableTlsVerification'],
      },
    ],
    airflow: [
      {
        type: 'redis',
        fields: {
          host: 'host',
          port: 'port',
          login: 'username',
          password: 'password',
          'extra.db': 'db',
          'extra.ssl': tlsField,
        },
      },
    ],
  },
});
