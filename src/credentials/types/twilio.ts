import { defineType } from './define.ts';
import { optionalSecret, plainText } from './fields.ts';

const sid = { form: /^[A-Za-z0-9]{1,64}$/, words: 'letters and digits' };

export const twilio = defineType({
  name: 'twilio',
  title: 'Twilio',
  description: "An account's token, or an API key with its secret.",
  fields: {
    accountSid: plainText({ title: 'Account SID', ...sid }),
    authToken: optionalSecret({ title: 'Auth token' }),
    apiKeySid: plainText({ title: 'API key SID', optional: true, ...sid }),
    apiKeySecret: optionalSecret({ title: 'API key secret' }),
  },
  anyOf: ['authToken', 'apiKeySecret'],
  faults: (_fields, isSet) =>
    isSet('apiKeySid') === isSet('apiKeySecret')
      ? []
      : [
          {
            pointer: `/fields/${isSet('apiKeySid') ? 'apiKeySecret' : 'apiKeySid'}`,
            rule: 'required',
          },
        ],
  broker: {
    injection: {
      kind: 'whenSet',
      field: 'apiKeySecret',
      set: { kind: 'basic', usernameField: 'apiKeySid', passwordField: 'apiKeySecret' },
      unset: { kind: 'basic', usernameField: 'accountSid', passwordField: 'authToken' },
    },
    upstream: { kind: 'fixed', baseUrl: 'https://api.twilio.com' },
  },
  test: { kind: 'http', method: 'GET', path: '/2010-04-01/Accounts/{accountSid}.json' },
  aliases: {
    n8n: [
      {
        type: 'twilioApi',
        fields: {
          accountSid: 'accountSid',
          authToken: 'authToken',
          apiKeySid: 'apiKeySid',
          apiKeySecret: 'apiKeySecret',
        },
        modes: {
          authType: { authToken: ['apiKeySid', 'apiKeySecret'], apiKey: ['authToken'] },
        },
      },
    ],
  },
});
