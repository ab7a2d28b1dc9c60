// A policy that names no hosts is the one that names none, stored and bound in the same form.
import t from 'tap';
import { startVault } from '../helpers/vault.ts';

t.test(
  'a policy without allowedHosts is stored, answered and compared as one with none',
  async (t) => {
    const { call } = await startVault(t);
    const made = await call('operator', 'POST', '/v1/teams', {
      slug: 'payments',
      name: 'Payments',
      admins: ['alice'],
    });
    t.equal(made.status, 201);
    const create = (name: string, policy: object) =>
      call('alice', 'POST', '/v1/teams/payments/credentials', {
        name,
        type: 'openai',
        fields: { apiKey: 'sk-of-the-test' },
        policy,
      });
    const without = await create('without', { delivery: ['broker'] });
    const withNone = await create('with', { delivery: ['broker'], allowedHosts: [] });
    t.equal(without.status, 201);
    t.same(without.json.policy, withNone.json.policy);
    t.same(without.json.policy, { delivery: ['broker'], allowedHosts: [] });
    const { id } = withNone.json;
    const patched = await call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { policy: { delivery: ['broker'] } },
      { 'if-match': '*' },
    );
    t.equal(patched.status, 200, 'it is no wider, and asks for no secret');
    t.same(patched.json.policy, withNone.json.policy);
    const bulk = await call('alice', 'POST', '/v1/teams/payments/credentials/bulk', {
      items: [{ op: 'update', id, revision: '*', policy: { delivery: ['broker'] } }],
    });
    t.equal(bulk.json.results[0].status, 200);
  },
);
