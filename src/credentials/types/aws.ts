import { defineType } from './define.ts';
import { optionalSecret, publicText, secret } from './fields.ts';

export const aws = defineType({
  name: 'aws',
  title: 'AWS',
  description: 'An access key of Amazon Web Services.',
  fields: {
    accessKeyId: publicText({ title: 'Access key id' }),
    secretAccessKey: secret({ title: 'Secret access key' }),
    sessionToken: optionalSecret({ title: 'Session token' }),
    region: publicText({
      title: 'Region',
      optional: true,
      description: 'Counts where the host names none.',
    }),
  },
  noTest: 'Which service it is for is not known.',
  broker: { injection: { kind: 'sigv4' }, upstream: { kind: 'policy' }, objectStore: 'byHost' },
  aliases: {
    n8n: [
      {
        type: 'aws',
        fields: {
          accessKeyId: 'accessKeyId',
          secretAccessKey: 'secretAccessKey',
          sessionToken: 'sessionToken',
          region: 'region',
        },
      },
    ],
    airflow: [
      {
        type: 'aws',
        fields: {
          login: 'accessKeyId',
          password: 'secretAccessKey',
          'extra.region_name': 'region',
          'extra.aws_session_token': 'sessionToken',
        },
      },
    ],
  },
});
