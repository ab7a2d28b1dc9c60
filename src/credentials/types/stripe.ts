import { defineType } from './define.ts';
import { secret } from './fields.ts';

export const stripe = defineType({
  name: 'stripe',
  title: 'Stripe',
  description: 'A secret or restricted key of Stripe.',
  fields: { apiKey: secret({ title: 'API key' }) },
  broker: {
    injection: { kind: 'bearer', field: 'apiKey' },
    upstream: { kind: 'fixed', baseUrl: 'https://api.stripe.com' },
  },
  // A restricted key without the right to read the balance is answered with 403.
  test: { kind: 'http', method: 'GET', path: '/v1/balance', accepted: [403] },
  aliases: {
    n8n: [{ type: 'stripeApi', fields: { secretKey: 'apiKey' } }],
    env: [
      { type: 'STRIPE_SECRET_KEY', fields: { value: 'apiKey' } },
      { type: 'STRIPE_API_KEY', fields: { value: 'apiKey' } },
    ],
  },
});
