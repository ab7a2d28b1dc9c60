import { defineType } from './define.ts';
import { jsonText, plainText, publicText } from './fields.ts';

export const modelRouter = defineType({
  name: 'modelRouter',
  title: 'Model router',
  description: 'Which model answers what, by ids of other credentials; it has no secret.',
  fields: {
    decisionCredential: plainText({
      title: 'Credential that decides',
      form: /^[A-Za-z0-9-]{1,64}$/,
      words: 'the id of a credential',
      optional: true,
    }),
    decisionModel: publicText({ title: 'Model that decides', optional: true }),
    routingInstructions: publicText({ title: 'Routing instructions', optional: true }),
    options: jsonText({
      title: 'Options',
      description:
        'A JSON list of objects with id, label, credential_id, model, criteria and is_default.',
      optional: true,
    }),
  },
  noTest: 'It names other credentials: test those.',
  noBroker: 'It has no secret.',
  aliases: {
    heym: [
      {
        type: 'model_router',
        fields: {
          decision_credential_id: 'decisionCredential',
          decision_model: 'decisionModel',
          routing_instructions: 'routingInstructions',
          options: 'options',
        },
      },
    ],
  },
});
