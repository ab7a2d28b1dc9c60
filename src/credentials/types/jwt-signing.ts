import { defineType } from './define.ts';
import { optionalSecret, oneOf, publicText } from './fields.ts';

export const jwtSigning = defineType({
  name: 'jwtSigning',
  title: 'JWT signing key',
  description: 'What a workflow signs JSON web tokens with: a shared secret or a private key.',
  fields: {
    algorithm: oneOf({
      title: 'Algorithm',
      values: [
        'HS256',
        'HS384',
        'HS512',
        'RS256',
        'RS384',
        'RS512',
        'PS256',
        'PS384',
        'PS512',
        'ES256',
        'ES384',
        'ES512',
        'EdDSA',
      ],
      default: 'HS256',
    }),
    secret: optionalSecret({ title: 'Shared secret' }),
    privateKey: optionalSecret({ title: 'Private key' }),
    keyId: publicText({ title: 'Key id', optional: true }),
  },
  anyOf: ['secret', 'privateKey'],
  noTest: 'Nothing is called with it.',
  noBroker: "Tokens are signed with it, which is the engine's to do.",
});
