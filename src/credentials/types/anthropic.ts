import { defineType, secret } from './define.ts';

export const anthropic = defineType({
  name: 'anthropic', title: 'Anthropic', description: 'An API key of Anthropic.', fields: { apiKey: secret({ title: 'API key' }) },
});
