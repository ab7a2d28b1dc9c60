import { defineType, host, number, optionalSecret, port } from './define.ts';

export const redis = defineType({
  name: 'redis',
  title: 'Redis',
  description: 'A Redis server.',
  fields: {
    host: host({ title: 'Host' }),
    port: port(6379),
    password: optionalSecret({ title: 'Password' }),
    db: number({ title: 'Database', default: 0, min: 0, max: 65_535 }),
  },
  test: { kind: 'redis' },
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
        fields: { host: 'host', port: 'port', password: 'password', database: 'db' },
      },
    ],
    airflow: [
      {
        type: 'redis',
        fields: { host: 'host', port: 'port', password: 'password', 'extra.db': 'db' },
      },
    ],
  },
});
