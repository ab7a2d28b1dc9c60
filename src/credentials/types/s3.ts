import { defineType } from './define.ts';
import { flag, optionalSecret, publicText, secret, url } from './fields.ts';

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
      description: "Of a store other than Amazon's.",
      optional: true,
    }),
    forcePathStyle: flag({ title: 'Bucket in the path' }),
  },
  broker: {
    injection: { kind: 'sigv4', service: 's3' },
    upstream: { kind: 'optionalField', field: 'endpoint' },
    objectStore: 'always',
  },
  // Most keys may not list buckets: that this is said shows that the key is known.
  test: {
    kind: 'http',
    method: 'GET',
    path: '/',
    baseUrl: 'https://s3.{region=us-east-1}.amazonaws.com',
    acceptedText: '<Code>AccessDenied</Code>',
  },
  aliases: {
    heym: [
      {
        type: 's3',
        fields: {
          aws_access_key_id: 'accessKeyId',
          aws_secret_access_key: 'secretAccessKey',
          aws_region: 'region',
          aws_session_token: 'sessionToken',
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
          forcePathStyle: 'forcePathStyle',
        },
      },
    ],
  },
});
