import { defineType } from './define.ts';
import { publicText, secret, username } from './fields.ts';

export const googleServiceAccount = defineType({
  name: 'googleServiceAccount',
  title: 'Google service account',
  description: 'The key of a service account of Google Cloud.',
  fields: {
    clientEmail: username({ title: 'Client e-mail' }),
    privateKey: secret({ title: 'Private key' }),
    projectId: publicText({ title: 'Project id', optional: true }),
    scopes: publicText({ title: 'Scopes', description: 'Separated by blanks.', optional: true }),
  },
  noTest: "A token would have to be signed first, which is the engine's to do.",
  noBroker: "A token has to be signed with the key, which is the engine's to do.",
  aliases: {
    n8n: [{ type: 'googleApi', fields: { email: 'clientEmail', privateKey: 'privateKey' } }],
  },
});
