import { defineType, host, port, publicText, secret, toggle, username } from './define.ts';

export const clickhouse = defineType({
  name: 'clickhouse',
  title: 'ClickHouse',
  description: 'A log-in to a ClickHouse server over HTTP.',
  fields: {
    host: host({ title: 'Host' }),
    port: port(8443),
    username: username({ title: 'User name', default: 'default' }),
    password: secret({ title: 'Password' }),
    database: publicText({ title: 'Database', default: 'default' }),
    secure: toggle({ title: 'TLS', default: true, destination: true }),
  },
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
