import { defineType, optionalSecret, publicText, secret, url } from './define.ts';

export const s3 = defineType({
  name: 's3',
  title: 'S3',
  description: 'An access key of Amazon S3 or of a store that speaks its API.',
  fields: {
    accessKeyId: publicText({ title: 'Access key id' }),
    secretAccessKey: secret({ title: 'Secret access key' }),
    region: publicText({
      title: 'Region',
      optional: true,
      description: 'Counts where the host names none.',
    }),
    sessionToken: optionalSecret({ title: 'Session token' }),
    endpoint: url({
      title: 'Endpoint',
      optional: true,
      description: "Of a store that is not Amazon's; without it a host of the policy.",
    }),
  },
  broker: {
    injection: { kind: 'sigv4', service: 's3' },
    upstream: { kind: 'field', field: 'endpoint', isOptional: true },
    objectStore: 'always',
  },
  aliases: {
    heym: [
      {
        type: 's3',
        fields: {
          access_key_id: 'accessKeyId',
          secret_access_key: 'secretAccessKey',
          region: 'region',
          session_token: 'sessionToken',
        },
      },
    ],
    n8n: [
      {
        type: 's3',
        fields: {
          accessKeyId: 'accessKeyId',
          secretAccessKey: 'secretAccessKey',
          region: 'region',
          endpoint: 'endpoint',
        },
      },
    ],
  },
});
