import { defineType } from './define.ts';
import { host, optionalSecret, port, publicText, toggle, username } from './fields.ts';

export const clickhouse = defineType({
  name: 'clickhouse',
  title: 'ClickHouse',
  description: 'A log-in to a ClickHouse server over HTTP.',
  fields: {
    host: host({ title: 'Host' }),
    port: port(8443),
    username: username({ title: 'User name', default: 'default' }),
    password: optionalSecret({ title: 'Password' }),
    database: publicText({ title: 'Database', default: 'default' }),
    secure: toggle({ title: 'TLS', default: true, destination: true }),
  },
  broker: {
    injection: {
      kind: 'headers',
      headers: [
        { name: 'X-ClickHouse-User', field: 'username' },
        { name: 'X-ClickHouse-Key', field: 'password', isOptional: true },
      ],
    },
    upstream: {
      kind: 'hostPort',
      hostField: 'host',
      portField: 'port',
      secureField: 'secure',
    },
  },
  test: { kind: 'http', method: 'GET', path: '/?query=SELECT%201' },
  aliases: {
    heym: [
      {
        type: 'clickhouse',
        fields: {
          host: 'host',
          port: 'port',
          username: 'username',
          password: 'password',
          database: 'database',
          secure: 'secure',
        },
      },
    ],
  },
});
