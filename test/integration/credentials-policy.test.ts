// The policy of a credential: what it holds, who may widen it, and what a team sets for those
// stored without one.
import t from 'tap';
import { sql } from 'kysely';
import { openSecrets } from '../helpers/stored.ts';
import { type Answer, startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };

t.test('policies', async (t) => {
  const vault = await startVault(t);
  const { call } = vault;
  await vault.team('payments');
  await vault.member('payments', 'ed', 'editor');
  const make = (who: string, name: string, more: object = {}): Promise<Answer> =>
    call(who, 'POST', '/v1/teams/payments/credentials', {
      name,
      type: 'openai',
      fields: { apiKey: `secret-of-${name.replaceAll(' ', '-')}` },
      ...more,
    });

  t.test('come back as they were sent, in the credential and in its version', async (t) => {
    for (const [i, policy] of [
      { delivery: ['broker'], allowedHosts: [] },
      {
        delivery: ['broker', 'lease'],
        allowedHosts: ['*.example.com'],
        methods: ['GET', 'POST'],
        pathPrefixes: ['/v1/chat', '/v1/models/'],
        limits: { concurrency: 4, responseBytes: 1_000 },
      },
      { delivery: [], allowedHosts: [], limits: {} },
    ].entries()) {
      const { status, json } = await make('ed', `kept-${i}`, { policy });
      t.equal(status, 201);
      t.strictSame(json.policy, policy);
      t.strictSame(
        (await call('ed', 'GET', `/v1/credentials/${json.id}/versions`)).json.items[0].policy,
        policy,
      );
      t.strictSame(
        await openSecrets(vault, json.id),
        { apiKey: `secret-of-kept-${i}` },
        'and are bound into the token as they are',
      );
    }
  });

  t.test('are widened by an admin with the secrets, by an editor not at all', async (t) => {
    const narrow = {
      delivery: ['broker'],
      allowedHosts: [],
      methods: ['GET'],
      pathPrefixes: ['/v1'],
      limits: { concurrency: 2 },
    };
    const {
      json: { id },
    } = await make('ed', 'narrow', { policy: narrow });
    const set = (who: string, body: object): Promise<Answer> =>
      call(who, 'PATCH', `/v1/credentials/${id}`, body, any);
    const denials = async (): Promise<number> =>
      (
        await sql<{ n: number }>`
      select count(*) as n from audit_event where action = 'credential.manage' and decision = 'deny' and reason = 'role' and target_id = ${id}`.execute(
          vault.db,
        )
      ).rows[0]!.n;
    const wider = [
      { ...narrow, delivery: ['broker', 'lease'] },
      { ...narrow, allowedHosts: ['evil.test'] },
      { ...narrow, methods: ['GET', 'POST'] },
      { ...narrow, pathPrefixes: ['/'] },
      { ...narrow, pathPrefixes: ['/v1', '/v2'] },
      { ...narrow, limits: { concurrency: 3 } },
      { ...narrow, limits: {} },
      { delivery: ['broker'], allowedHosts: [] },
    ];
    for (const [i, policy] of wider.entries()) {
      t.equal(
        (await set('ed', { policy, fields: { apiKey: 'a-new-secret' } })).status,
        403,
        `an editor: ${JSON.stringify(policy)}`,
      );
      t.equal(await denials(), i + 1, 'and it stands in the audit log');
      t.match(
        (await set('alice', { policy })).json,
        { code: 'secretRequired', errors: [{ pointer: '/fields/apiKey' }] },
        `without the secret: ${JSON.stringify(policy)}`,
      );
    }
    t.strictSame(await openSecrets(vault, id), { apiKey: 'secret-of-narrow' });
    t.equal(
      (
        await set('ed', {
          policy: { ...narrow, pathPrefixes: ['/v1/chat'], limits: { concurrency: 1 } },
        })
      ).status,
      200,
      "narrowing is an editor's, without the secret",
    );
    t.equal(
      (await set('ed', { policy: narrow, fields: { apiKey: 'a-new-secret' } })).status,
      403,
      'and there is no way back for them',
    );
    t.equal(
      (await set('alice', { policy: narrow, fields: { apiKey: 'a-new-secret' } })).status,
      200,
    );
    t.strictSame(await openSecrets(vault, id), { apiKey: 'a-new-secret' });
  });

  t.test("of credentials that are stored without one are the team's", async (t) => {
    t.strictSame((await call('alice', 'GET', '/v1/teams/payments')).json.defaultDelivery, [
      'lease',
    ]);
    t.equal(
      (await call('ed', 'PATCH', '/v1/teams/payments', { defaultDelivery: ['broker'] }, any))
        .status,
      403,
    );
    t.strictSame(
      (await call('alice', 'PATCH', '/v1/teams/payments', { defaultDelivery: ['broker'] }, any))
        .json.defaultDelivery,
      ['broker'],
    );
    t.strictSame((await make('ed', 'by default')).json.policy, {
      delivery: ['broker'],
      allowedHosts: [],
    });
    t.strictSame(
      (await make('ed', 'by word', { policy: { delivery: ['lease'], allowedHosts: [] } })).json
        .policy.delivery,
      ['lease'],
    );
    const smtp = {
      type: 'smtp',
      fields: { host: 'mail.example.com', username: 'u', password: 'p' },
    };
    t.strictSame(
      (await make('ed', 'mail', smtp)).json.policy.delivery,
      [],
      'what the broker cannot use is used in no way until somebody says so',
    );
    for (const defaultDelivery of [['reveal'], ['lease', 'lease'], 'lease', null]) {
      t.equal(
        (await call('alice', 'PATCH', '/v1/teams/payments', { defaultDelivery }, any)).status,
        400,
        JSON.stringify(defaultDelivery),
      );
    }
  });
});
