import { defineType } from './define.ts';
import { optionalSecret, pem, secret } from './fields.ts';

export const tlsClient = defineType({
  name: 'tlsClient',
  title: 'TLS client certificate',
  description: 'A certificate with its private key, for servers that ask for one.',
  fields: {
    certificate: pem({ title: 'Certificate', optional: true }),
    privateKey: secret({ title: 'Private key' }),
    passphrase: optionalSecret({ title: 'Passphrase' }),
    ca: pem({ title: 'Certificate authority', optional: true }),
  },
  noTest: 'It says nothing of what it is for.',
  noBroker: "It is shown in the handshake of TLS, which is the engine's to do.",
});
