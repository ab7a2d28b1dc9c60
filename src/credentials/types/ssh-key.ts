import { defineType } from './define.ts';
import { host, optionalSecret, port, secret, username } from './fields.ts';

export const sshKey = defineType({
  name: 'sshKey',
  title: 'SSH key',
  description: 'A private key for SSH.',
  fields: {
    host: host({ title: 'Host', optional: true }),
    port: port(22),
    username: username({ title: 'User name', optional: true }),
    privateKey: secret({ title: 'Private key' }),
    passphrase: optionalSecret({ title: 'Passphrase' }),
  },
  noTest: 'The vault does not speak SSH.',
  noBroker: 'SSH is no HTTP.',
  aliases: {
    n8n: [
      {
        type: 'sshPrivateKey',
        fields: {
          host: 'host',
          port: 'port',
          username: 'username',
          privateKey: 'privateKey',
          passphrase: 'passphrase',
        },
      },
    ],
    airflow: [
      {
        type: 'ssh',
        fields: {
          host: 'host',
          port: 'port',
          login: 'username',
          'extra.private_key': 'privateKey',
          'extra.private_key_passphrase': 'passphrase',
        },
      },
    ],
  },
});
