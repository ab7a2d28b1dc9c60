import { refined } from '../../shared/refine.ts';
import { defineType } from './define.ts';
import { httpsUrl, optionalSecret, secret, secretValue } from './fields.ts';

const prefix = 'whsec_';
const bytesMin = 24;
const bytesMax = 64;

/** A secret as the standard-webhooks specification writes it. */
const signingSecret = refined(
  secretValue.regex(/^whsec_[A-Za-z0-9+/]{32,88}={0,2}$/, 'whsec_ and base64'),
  {
    rule: 'signingSecret',
    says: '`whsec_` and 24 to 64 bytes in canonical base64.',
    check: (text) => {
      const bytes = Buffer.from(text.slice(prefix.length), 'base64');
      return (
        bytes.length >= bytesMin &&
        bytes.length <= bytesMax &&
        bytes.toString('base64') === text.slice(prefix.length)
      );
    },
  },
);

export const webhook = defineType({
  name: 'webhook',
  title: 'Webhook',
  description:
    'Where the vault sends notifications, signed as the standard-webhooks specification says.',
  isForVault: true,
  fields: {
    url: httpsUrl({ title: 'URL' }),
    secret: {
      ...secret({
        title: 'Signing secret',
        description: '`whsec_` and 24 to 64 random bytes in base64; the receiver has the same.',
      }),
      schema: signingSecret,
    },
    previousSecret: {
      ...optionalSecret({
        title: 'Signing secret before',
        description: 'Signs as well, until every receiver has the other one.',
      }),
      schema: signingSecret,
    },
  },
  noTest: 'POST …/webhooks/{id}/test sends a notification.',
  noBroker: 'The vault itself uses it.',
});
