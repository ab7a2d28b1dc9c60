import { defineType, secret } from './define.ts';

export const google = defineType({
  name: 'google', title: 'Google AI', description: 'An API key for Google\'s generative models.', fields: { apiKey: secret({ title: 'API key' }) },
});
