import { defineType } from './define.ts';
import { optionalSecret, plainText, publicText, username } from './fields.ts';

export const snowflake = defineType({
  name: 'snowflake',
  title: 'Snowflake',
  description: 'A log-in to Snowflake, by password or by key pair.',
  fields: {
    account: plainText({
      title: 'Account',
      description: 'The identifier that the host begins with, such as acme-main.',
      form: /^[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$/,
      words: 'letters, digits, . _ -',
      destination: true,
    }),
    username: username({ title: 'User name' }),
    password: optionalSecret({ title: 'Password' }),
    privateKey: optionalSecret({ title: 'Private key' }),
    passphrase: optionalSecret({ title: 'Passphrase of the private key' }),
    warehouse: publicText({ title: 'Warehouse', optional: true }),
    role: publicText({ title: 'Role', optional: true }),
    database: publicText({ title: 'Database', optional: true }),
    schema: publicText({ title: 'Schema', optional: true }),
  },
  anyOf: ['password', 'privateKey'],
  noTest: 'The log-in and the token that is signed with the key pair are of its own drivers.',
  noBroker: "The token is its drivers' to sign.",
  aliases: {
    n8n: [
      {
        type: 'snowflake',
        fields: {
          account: 'account',
          username: 'username',
          password: 'password',
          privateKey: 'privateKey',
          passphrase: 'passphrase',
          warehouse: 'warehouse',
          role: 'role',
          database: 'database',
          schema: 'schema',
        },
        modes: {
          authentication: { password: ['privateKey', 'passphrase'], keyPair: ['password'] },
        },
      },
    ],
    airflow: [
      {
        type: 'snowflake',
        fields: {
          login: 'username',
          password: 'password',
          schema: 'schema',
          'extra.account': 'account',
          'extra.warehouse': 'warehouse',
          'extra.role': 'role',
          'extra.database': 'database',
        },
        // The password opens the private key then; and a region is a part of the host.
        unfit: [
          'extra.private_key_file',
          'extra.private_key_content',
          'extra.authenticator',
          'extra.region',
          'extra.host',
          'extra.insecure_mode',
        ],
      },
    ],
  },
});
