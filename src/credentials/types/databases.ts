import {
  type CredentialType,
  defineType,
  host,
  optionalSecret,
  port,
  publicText,
  tlsWords,
  toggle,
  username,
} from './define.ts';

const tls = { to: 'tls', words: tlsWords };
/** n8n's word asks for TLS where libpq's would take it or leave it. */
const n8nTls = { to: 'tls', words: { ...tlsWords, allow: true } };
const airflowTls = Object.fromEntries(
  ['sslmode', 'ssl_mode', 'ssl-mode', 'ssl', 'tls', 'use_ssl', 'useSSL', 'usessl'].map((name) => [
    `extra.${name}`,
    tls,
  ]),
);

type Aliases = NonNullable<CredentialType['aliases']>;

const database = (
  name: string,
  title: string,
  standardPort: number,
  aliases: Aliases,
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
    },
    anyOf: ['host', 'connectionString'],
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
export const mysql = database('mysql', 'MySQL', 3306, {
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
});
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
