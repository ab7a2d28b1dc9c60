import { defineType, secret } from './define.ts';

export const bearer = defineType({
  name: 'bearer', title: 'Bearer token', description: 'A token for the Authorization header.', fields: { token: secret({ title: 'Token' }) },
  broker: { injection: { kind: 'bearer', field: 'token' }, upstream: { kind: 'policy' } },
});
