// Roles on real routes: what each role can do and cannot, what a stranger and an operator see, and
// that a change of role counts at the next request. The table is written out here and not taken
// from the source: a change of it has to be meant twice.
import t from 'tap';
import { registerEngine } from '../helpers/leases.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

const roles = ['viewer', 'editor', 'admin', 'auditor', 'engine'] as const;
type Call = (vault: TestVault, as: string, ids: Ids) => Promise<Answer>;
interface Ids {
  readonly credential: string;
  readonly key: string;
  fresh(): Promise<string>;
}

const openai = (name: string): object => ({ name, type: 'openai', fields: { apiKey: 'sk-roles' } });
let n = 0;
const any = { 'if-match': '*' };

/**
 * [what, what success looks like, who may: viewer editor admin auditor engine, how it is asked for]
 */
const table: readonly (readonly [string, number, string, Call])[] = [
  [
    'GET /v1/teams/{team}',
    200,
    'yes yes yes yes yes',
    (vault, as) => vault.call(as, 'GET', '/v1/teams/payments'),
  ],
  [
    'GET members',
    200,
    'yes yes yes yes yes',
    (vault, as) => vault.call(as, 'GET', '/v1/teams/payments/members'),
  ],
  [
    'PATCH /v1/teams/{team}',
    200,
    'no no yes no no',
    (vault, as) =>
      vault.call(as, 'PATCH', '/v1/teams/payments', { name: `Payments ${(n += 1)}` }, any),
  ],
  [
    'PUT member',
    200,
    'no no yes no no',
    (vault, as) =>
      vault.call(as, 'PUT', '/v1/teams/payments/members/nora', { role: 'viewer' }, any),
  ],
  [
    'DELETE member',
    204,
    'no no yes no no',
    (vault, as) => vault.call(as, 'DELETE', '/v1/teams/payments/members/nora', undefined, any),
  ],
  [
    'DELETE /v1/teams/{team}',
    409,
    'no no yes no no',
    (vault, as) => vault.call(as, 'DELETE', '/v1/teams/payments', undefined, any),
  ],
  [
    'GET team credentials',
    200,
    'yes yes yes yes yes',
    (vault, as) => vault.call(as, 'GET', '/v1/teams/payments/credentials'),
  ],
  [
    'GET credential',
    200,
    'yes yes yes yes yes',
    (vault, as, { credential }) => vault.call(as, 'GET', `/v1/credentials/${credential}`),
  ],
  [
    'GET versions',
    200,
    'yes yes yes yes yes',
    (vault, as, { credential }) => vault.call(as, 'GET', `/v1/credentials/${credential}/versions`),
  ],
  [
    'POST credential',
    201,
    'no yes yes no no',
    (vault, as) =>
      vault.call(as, 'POST', '/v1/teams/payments/credentials', openai(`made-${(n += 1)}`)),
  ],
  [
    'PATCH credential',
    200,
    'no yes yes no no',
    (vault, as, { credential }) =>
      vault.call(as, 'PATCH', `/v1/credentials/${credential}`, { description: `${(n += 1)}` }, any),
  ],
  [
    'disable',
    200,
    'no yes yes no no',
    async (vault, as, ids) =>
      vault.call(as, 'POST', `/v1/credentials/${await ids.fresh()}/disable`),
  ],
  [
    'enable',
    409,
    'no yes yes no no',
    (vault, as, { credential }) => vault.call(as, 'POST', `/v1/credentials/${credential}/enable`),
  ],
  [
    'DELETE credential',
    204,
    'no yes yes no no',
    async (vault, as, ids) =>
      vault.call(as, 'DELETE', `/v1/credentials/${await ids.fresh()}`, undefined, any),
  ],
  [
    'GET keys',
    200,
    'no no yes yes no',
    (vault, as) => vault.call(as, 'GET', '/v1/teams/payments/keys'),
  ],
  [
    'GET key',
    200,
    'no no yes yes no',
    (vault, as, { key }) => vault.call(as, 'GET', `/v1/teams/payments/keys/${key}`),
  ],
  [
    'GET rotations',
    200,
    'no no yes yes no',
    (vault, as) => vault.call(as, 'GET', '/v1/teams/payments/key-rotations'),
  ],
  [
    'POST retire',
    409,
    'no no yes no no',
    (vault, as, { key }) => vault.call(as, 'POST', `/v1/teams/payments/keys/${key}/retire`),
  ],
  [
    'GET audit events',
    200,
    'no no yes yes no',
    (vault, as) => vault.call(as, 'GET', '/v1/teams/payments/audit-events'),
  ],
  [
    'POST rotation',
    202,
    'no no yes no no',
    (vault, as) => vault.call(as, 'POST', '/v1/teams/payments/key-rotations'),
  ],
];

t.test('roles', async (t) => {
  const vault = await startVault(t);
  await vault.team('payments');
  await registerEngine(vault, 'role-engine');
  for (const role of roles) await vault.member('payments', `role-${role}`, role);
  const store = async (name: string): Promise<string> =>
    (await vault.call('alice', 'POST', '/v1/teams/payments/credentials', openai(name))).json
      .id as string;
  const ids: Ids = {
    credential: await store('the-one'),
    key: (await vault.call('alice', 'GET', '/v1/teams/payments/keys')).json.items[0].id,
    fresh: () => store(`fresh-${(n += 1)}`),
  };
  const gone = '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d';
  const bodyOf = ({ json }: Answer): object => ({ ...json, requestId: '' });

  for (const [what, status, may, call] of table) {
    t.test(what, async (t) => {
      for (const [index, role] of roles.entries()) {
        const isAllowed = may.split(' ')[index] === 'yes';
        vault.clock.ms += 61_000;
        const answer = await call(vault, `role-${role}`, ids);
        t.equal(answer.status, isAllowed ? status : 403, `${role}: ${answer.text.slice(0, 200)}`);
        if (!isAllowed) t.equal(answer.json.code, 'forbidden');
        if (what === 'DELETE member' || what === 'POST rotation')
          await vault.db
            .updateTable('key_rotation')
            .set({ state: 'cancelled', ended_at: new Date() })
            .where('state', '=', 'running')
            .execute();
        if (what === 'DELETE member') await vault.member('payments', 'nora', 'viewer');
      }
      const stranger = await call(vault, 'stranger', ids);
      t.equal(stranger.status, 404);
      const missing = await call(
        {
          ...vault,
          call: (as, method, url, body, headers) =>
            vault.call(
              as,
              method,
              url
                .replace('/payments', '/no-such-team')
                .replace(/credentials\/[0-9a-f-]{36}/, `credentials/${gone}`),
              body,
              headers,
            ),
        },
        'stranger',
        ids,
      );
      t.strictSame(
        bodyOf(stranger),
        bodyOf(missing),
        'a stranger cannot tell it from what does not exist',
      );
      const operator = await call(vault, 'operator', ids);
      t.equal(operator.status, 404, 'an operator has no role in a team');
      t.equal(
        (
          await call(
            {
              ...vault,
              call: (_as, method, url, body, headers) =>
                vault.call(null, method, url, body, headers),
            },
            '',
            ids,
          )
        ).status,
        401,
      );
    });
  }

  t.test('credential.use and credential.lease', async (t) => {
    const lease = (as: string, onBehalfOf: string): Promise<Answer> =>
      vault.call(as, 'POST', '/v1/leases', {
        credentials: [{ id: ids.credential }],
        purpose: 'roles',
        onBehalfOf,
      });
    for (const [role, expected] of [
      ['viewer', 422],
      ['editor', 201],
      ['admin', 201],
      ['auditor', 422],
      ['engine', 422],
    ] as const) {
      t.equal(
        (await lease('role-engine', `role-${role}`)).status,
        expected,
        `on behalf of the ${role}`,
      );
    }
    for (const role of ['viewer', 'editor', 'admin', 'auditor'])
      t.equal(
        (await lease(`role-${role}`, 'role-admin')).status,
        403,
        `people never lease: ${role}`,
      );
  });

  t.test("operator actions are the operator's, whatever one is in a team", async (t) => {
    const calls = [
      ['POST', '/v1/teams', { slug: 'other-team', name: 'x', admins: ['x'] }],
      ['GET', '/v1/engines', undefined],
      ['POST', '/v1/engines', {}],
    ] as const;
    for (const [method, url, body] of calls) {
      for (const as of ['alice', 'role-engine', 'stranger'])
        t.equal((await vault.call(as, method, url, body)).status, 403, `${as} ${method} ${url}`);
    }
    t.equal((await vault.call('operator', 'GET', '/v1/engines')).status, 200);
    const scoped = await vault.app.inject({
      method: 'GET',
      url: '/v1/engines',
      headers: {
        authorization: `Bearer ${await vault.token('ops', { scope: 'read vault:operate' })}`,
      },
    });
    t.equal(scoped.statusCode, 200, 'the scope makes an operator too');
    const near = await vault.app.inject({
      method: 'GET',
      url: '/v1/engines',
      headers: { authorization: `Bearer ${await vault.token('ops', { scope: 'vault:operate2' })}` },
    });
    t.equal(near.statusCode, 403);
  });

  t.test('a change of role counts at the next request', async (t) => {
    const read = async (): Promise<number> =>
      (await vault.call('paul', 'GET', `/v1/credentials/${ids.credential}`)).status;
    const write = async (): Promise<number> =>
      (
        await vault.call(
          'paul',
          'PATCH',
          `/v1/credentials/${ids.credential}`,
          { description: `${(n += 1)}` },
          any,
        )
      ).status;
    t.strictSame([await read(), await write()], [404, 404]);
    await vault.member('payments', 'paul', 'viewer');
    t.strictSame([await read(), await write()], [200, 403]);
    await vault.member('payments', 'paul', 'editor');
    t.strictSame([await read(), await write()], [200, 200]);
    await vault.call('alice', 'DELETE', '/v1/teams/payments/members/paul', undefined, any);
    t.strictSame([await read(), await write()], [404, 404]);
  });
});
