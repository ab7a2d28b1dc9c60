import { airflowTls, type CredentialType, defineType, type FieldSpec, tlsWords } from './define.ts';
import { host, optionalSecret, pem, port, publicText, toggle, username } from './fields.ts';

/** n8n's word asks for TLS where libpq's would take it or leave it. */
const n8nTls = { to: 'tls', words: { ...tlsWords, allow: true } };
type Aliases = NonNullable<CredentialType['aliases']>;

const database = (
  name: string,
  title: string,
  standardPort: number,
  aliases: Aliases,
  more: Readonly<Record<string, FieldSpec>> = {},
): CredentialType =>
  defineType({
    name,
    title,
    description: `A log-in to ${title}, by its parts or by a connection string, which is secret as a whole.`,
    fields: {
      host: host({ title: 'Host', optional: true }),
      port: port(standardPort),
      database: publicText({ title: 'Database', optional: true }),
      username: username({ title: 'User name', optional: true }),
      password: optionalSecret({ title: 'Password' }),
      tls: toggle({ title: 'TLS', default: true, destination: true }),
      connectionString: optionalSecret({ title: 'Connection string' }),
      ...more,
    },
    anyOf: ['host', 'connectionString'],
    noTest: `The vault does not speak the protocol of ${title}.`,
    noBroker: 'Its protocol is no HTTP.',
    aliases,
  });

export const postgres = database('postgres', 'PostgreSQL', 5432, {
  n8n: [
    {
      type: 'postgres',
      fields: {
        host: 'host',
        port: 'port',
        database: 'database',
        user: 'username',
        password: 'password',
        ssl: n8nTls,
      },
      absent: { tls: false },
      idle: { maxConnections: ['100'] },
      unfit: ['sshTunnel'],
    },
  ],
  airflow: [
    {
      type: 'postgres',
      fields: {
        host: 'host',
        port: 'port',
        schema: 'database',
        login: 'username',
        password: 'password',
        ...airflowTls,
      },
    },
  ],
  env: [
    { type: 'POSTGRES_URL', fields: { value: 'connectionString' } },
    { type: 'POSTGRESQL_URL', fields: { value: 'connectionString' } },
  ],
});
export const mysql = database(
  'mysql',
  'MySQL',
  3306,
  {
    n8n: [
      {
        type: 'mySql',
        fields: {
          host: 'host',
          port: 'port',
          database: 'database',
          user: 'username',
          password: 'password',
          ssl: n8nTls,
          caCertificate: 'ca',
          clientCertificate: 'clientCertificate',
          clientPrivateKey: 'clientKey',
        },
        absent: { tls: false },
        idle: { connectTimeout: ['10000'] },
        unfit: ['sshTunnel'],
      },
    ],
    airflow: [
      {
        type: 'mysql',
        fields: {
          host: 'host',
          port: 'port',
          schema: 'database',
          login: 'username',
          password: 'password',
          ...airflowTls,
        },
      },
    ],
    env: [{ type: 'MYSQL_URL', fields: { value: 'connectionString' } }],
  },
  {
    ca: pem({ title: 'Certificate authority', optional: true, destination: true }),
    clientCertificate: pem({ title: 'Client certificate', optional: true }),
    clientKey: optionalSecret({ title: 'Private key of the client certificate' }),
  },
);
export const mongodb = database('mongodb', 'MongoDB', 27_017, {
  n8n: [
    {
      type: 'mongoDb',
      fields: {
        host: 'host',
        port: 'port',
        database: 'database',
        user: 'username',
        password: 'password',
        connectionString: 'connectionString',
        tls: n8nTls,
      },
      absent: { tls: false },
      idle: { configurationType: ['values', 'connectionString'] },
      demands: ['connectionString', 'port'], // without either the host is looked up by SRV
    },
  ],
  airflow: [
    {
      type: 'mongo',
      fields: {
        host: 'host',
        port: 'port',
        schema: 'database',
        login: 'username',
        password: 'password',
        ...airflowTls,
      },
      absent: { tls: false },
      unfit: ['extra.srv'],
    },
  ],
  env: [
    { type: 'MONGODB_URI', fields: { value: 'connectionString' } },
    { type: 'MONGO_URL', fields: { value: 'connectionString' } },
  ],
});
