import { airflowTls, defineType, tlsField } from './define.ts';
import { host, port, publicText, secret, toggle, username } from './fields.ts';

export const mssql = defineType({
  name: 'mssql',
  title: 'Microsoft SQL Server',
  description: 'A log-in to Microsoft SQL Server.',
  fields: {
    host: host({ title: 'Host' }),
    port: port(1433),
    database: publicText({ title: 'Database', optional: true }),
    username: username({ title: 'User name' }),
    password: secret({ title: 'Password' }),
    tls: toggle({ title: 'TLS', default: true, destination: true }),
  },
  noTest: 'The vault does not speak TDS.',
  noBroker: 'Its protocol is no HTTP.',
  aliases: {
    n8n: [
      {
        type: 'microsoftSql',
        fields: {
          server: 'host',
          port: 'port',
          database: 'database',
          user: 'username',
          password: 'password',
          tls: tlsField,
        },
        idle: { connectTimeout: ['15000'], requestTimeout: ['15000'], tdsVersion: ['7_4'] },
        unfit: ['domain'],
      },
    ],
    airflow: [
      {
        type: 'mssql',
        fields: {
          host: 'host',
          port: 'port',
          schema: 'database',
          login: 'username',
          password: 'password',
          ...airflowTls,
          'extra.encrypt': tlsField,
        },
      },
    ],
  },
});
