import { defineType } from './define.ts';
import { oneOf, optionalSecret, pem, plainText, publicText, toggle } from './fields.ts';
import { tlsField } from './define.ts';
import { username } from './fields.ts';

const broker = '(?:[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?|\\[[0-9a-fA-F:.]{2,45}\\])';
const mechanisms = {
  plain: 'plain',
  'scram-sha-256': 'scram-sha-256',
  'scram-sha-512': 'scram-sha-512',
} as const;
const mechanism = { to: 'saslMechanism', words: mechanisms };
const brokers = {
  to: 'brokers',
  read: (text: string): string => text.replaceAll(/\s*,\s*/g, ',').trim(),
};

export const kafka = defineType({
  name: 'kafka',
  title: 'Kafka',
  description: 'The brokers of a Kafka cluster, and a log-in to them.',
  fields: {
    brokers: plainText({
      title: 'Brokers',
      description: 'Each as host:port, with commas between.',
      form: new RegExp(`^${broker}:[0-9]{1,5}(?:,${broker}:[0-9]{1,5}){0,49}$`),
      words: 'host:port, with commas between',
      destination: true,
    }),
    clientId: publicText({ title: 'Client ID', optional: true }),
    saslMechanism: oneOf({
      title: 'SASL mechanism',
      values: ['plain', 'scram-sha-256', 'scram-sha-512'],
      optional: true,
      destination: true,
    }),
    username: username({ title: 'User name', optional: true }),
    password: optionalSecret({ title: 'Password' }),
    tls: toggle({ title: 'TLS', default: true, destination: true }),
    ca: pem({ title: 'Certificate authority', optional: true, destination: true }),
  },
  test: { kind: 'kafka' },
  noBroker: 'Its protocol is no HTTP.',
  aliases: {
    n8n: [
      {
        type: 'kafka',
        fields: {
          brokers,
          clientId: 'clientId',
          ssl: tlsField,
          username: 'username',
          password: 'password',
          saslMechanism: mechanism,
        },
        modes: {
          authentication: { true: [], false: ['username', 'password', 'saslMechanism'] },
        },
      },
    ],
    airflow: [
      {
        type: 'kafka',
        fields: {
          'extra.bootstrap.servers': brokers,
          'extra.client.id': 'clientId',
          'extra.security.protocol': {
            to: 'tls',
            words: { plaintext: false, ssl: true, sasl_plaintext: false, sasl_ssl: true },
          },
          'extra.sasl.mechanism': mechanism,
          'extra.sasl.mechanisms': mechanism,
          'extra.sasl.username': 'username',
          'extra.sasl.password': 'password',
          'extra.ssl.ca.pem': 'ca',
        },
        absent: { tls: false },
      },
    ],
  },
});
