import { type CredentialType, defineType, host, optionalSecret, port, publicText, toggle, username } from './define.ts';

const database = (name: string, title: string, standardPort: number): CredentialType => defineType({
  name, title, description: `A log-in to ${title}, by its parts or by a connection string, which is secret as a whole.`,
  fields: {
    host: host({ title: 'Host', optional: true }), port: port(standardPort), database: publicText({ title: 'Database', optional: true }),
    username: username({ title: 'User name', optional: true }), password: optionalSecret({ title: 'Password' }), tls: toggle({ title: 'TLS', default: true, destination: true }),
    connectionString: optionalSecret({ title: 'Connection string' }),
  },
  anyOf: ['host', 'connectionString'],
});

export const postgres = database('postgres', 'PostgreSQL', 5432);
export const mysql = database('mysql', 'MySQL', 3306);
export const mongodb = database('mongodb', 'MongoDB', 27_017);
