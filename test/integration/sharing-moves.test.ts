// Acceptance: everything moves with its numbers and times, re-encrypted, and what others had ends;
// or nothing moves at all.
import { sql } from 'kysely';
import t, { type Test } from 'tap';
import { startAuthorizationServer } from '../helpers/authorization-server.ts';
import { askTicket } from '../helpers/broker.ts';
import { intrude, purge } from '../helpers/intruder.ts';
import {
  askLease,
  demand,
  openAnswer,
  registerEngine,
  rulesOf,
  storeOpenai,
} from '../helpers/leases.ts';
import { accept, events, keysOf, moveStage, offer, scan, versionsOf } from '../helpers/moves.ts';
import {
  begin,
  callbackOf,
  connect,
  leaseFields,
  oauthStage,
  storeOAuth,
} from '../helpers/oauth.ts';
import { typeSamples } from '../helpers/type-samples.ts';

const any = { 'if-match': '*' };

/** A connected account of payments; billing has an engine that may act for alice. */
async function accountStage(t: Test) {
  const server = await startAuthorizationServer(t);
  const stage = await oauthStage(t, server);
  const { vault } = stage;
  const bot = await registerEngine(vault, 'bot');
  await vault.team('billing', ['bella']);
  await vault.member('billing', 'bot', 'engine', 'bella');
  await vault.member('billing', 'alice', 'editor', 'bella');
  const { id } = await storeOAuth(stage, 'sheets');
  await connect(stage, id);
  return { server, stage, vault, bot, id };
}

t.test('a credential moves with all that it is, and what others had of it ends', async (t) => {
  const { vault, id, bot } = await moveStage(t);
  await vault.team('sales', ['sam']);
  const path = `/v1/credentials/${id}`;
  await demand(vault.call('alice', 'PUT', `${path}/grants/teams/sales`, { access: 'use' }), 200);
  await demand(vault.call('alice', 'PUT', `${path}/grants/subjects/nora`, { access: 'read' }), 200);
  const ticket = await demand(askTicket(vault, 'n8n', { id }), 201);
  await demand(askLease(vault, 'n8n', [{ id }]), 201);
  const seen = await demand(vault.call('alice', 'GET', path), 200);
  const before = await versionsOf(vault, id);
  const [paymentsKey, billingKey] = [
    (await keysOf(vault, 'payments'))[0]!,
    (await keysOf(vault, 'billing'))[0]!,
  ];
  const transfer = await offer(vault, id);
  const accepted = await accept(vault, transfer);
  t.match(accepted, {
    status: 200,
    headers: { etag: '"4"' },
    json: { credential: id, team: 'billing', name: 'moving', type: 'openai', revision: 4 },
  });

  const after = await versionsOf(vault, id);
  t.same(
    after.map(({ version, created_at, public_fields, policy, time }) => ({
      version,
      created_at,
      public_fields,
      policy,
      time,
    })),
    before.map(({ version, created_at, public_fields, policy, time }) => ({
      version,
      created_at,
      public_fields,
      policy,
      time,
    })),
    'numbers, times, policies, and the times within the tokens',
  );
  t.ok(
    after.every(
      ({ slug, data_key_id, token }, i) =>
        slug === 'billing' && data_key_id === billingKey && token !== before[i].token,
    ),
  );
  t.ok(
    after.every(({ key_history }) => key_history.join() === [paymentsKey, billingKey].join()),
    'the list of keys follows',
  );
  t.same(await scan(vault), []);
  const { revision, updatedAt, updatedBy, team, through, ...same } = await demand(
    vault.call('bella', 'GET', path),
    200,
  );
  const { revision: _, updatedAt: __, updatedBy: ___, team: ____, through: _____, ...was } = seen;
  t.same(same, was, 'policy, labels, version, creation');
  t.match(
    { revision, updatedBy, team, through },
    {
      revision: seen.revision + 1,
      updatedBy: 'bella',
      team: 'billing',
      through: [{ kind: 'membership', team: 'billing' }],
    },
  );
  t.match(
    (await openAnswer(vault, bot, await askLease(vault, 'bot', [{ id }], { onBehalfOf: 'bella' })))
      .credentials,
    [{ team: 'billing', fields: { apiKey: 'sk-third' } }],
  );
  await demand(vault.call('bella', 'POST', `${path}/versions/1/restore`), 200);
  t.match(
    (
      await openAnswer(
        vault,
        bot,
        await askLease(vault, 'bot', [{ team: 'billing', name: 'moving' }], {
          onBehalfOf: 'bella',
        }),
      )
    ).credentials,
    [{ fields: { apiKey: 'sk-first' } }],
  );

  for (const as of ['alice', 'sam', 'nora'])
    t.equal((await vault.call(as, 'GET', path)).status, 404, as);
  t.same(
    rulesOf(await askLease(vault, 'n8n', [{ id }])),
    ['/credentials/0 notFound'],
    'also what was leased before',
  );
  t.same(rulesOf(await askLease(vault, 'n8n', [{ team: 'payments', name: 'moving' }])), [
    '/credentials/0 notFound',
  ]);
  t.equal(
    (await vault.call('n8n', 'DELETE', `/v1/broker-tickets/${ticket.id}`)).status,
    404,
    'the ticket is gone',
  );
  t.same((await demand(vault.call('bella', 'GET', `${path}/grants`), 200)).items, []);
  t.same((await demand(vault.call('bella', 'GET', '/v1/teams/billing/transfers'), 200)).items, []);
  t.equal((await accept(vault, transfer)).status, 404);

  const [[source], [target]] = [
    await events(vault, 'payments', 'alice', 'transfer.accept'),
    await events(vault, 'billing', 'bella', 'transfer.accept'),
  ];
  t.match(source, {
    actor: 'bella',
    target: { id },
    key: null,
    details: {
      transfer: transfer.id,
      from: 'payments',
      to: 'billing',
      versions: 3,
      grants: 2,
      tickets: 1,
    },
    intact: true,
  });
  t.match(target, {
    actor: 'bella',
    target: { id },
    key: billingKey,
    details: { from: 'payments' },
    intact: true,
  });
  t.match(await events(vault, 'sales', 'sam', 'grant.remove'), [
    { details: { owner: 'payments', cause: 'transfer' } },
  ]);
  t.match(await events(vault, 'payments', 'alice', 'grant.remove'), [
    { details: { cause: 'transfer' } },
    { details: { cause: 'transfer' } },
  ]);
});

t.test('a key of the former team that becomes known still exposes what moved away', async (t) => {
  const { vault, id } = await moveStage(t);
  await demand(accept(vault, await offer(vault, id)), 200);
  const [key] = await keysOf(vault, 'payments');
  const problems = async (): Promise<string[]> =>
    (await demand(vault.call('bella', 'GET', `/v1/credentials/${id}`), 200)).problems;
  t.same(await problems(), []);
  await demand(
    vault.call('alice', 'POST', `/v1/teams/payments/keys/${key}/mark-compromised`, {
      reason: 'a laptop',
    }),
    200,
  );
  t.same(await problems(), ['exposed']);
  t.same(
    (
      await demand(vault.call('bella', 'GET', '/v1/teams/billing/credentials?problem=exposed'), 200)
    ).items.map((each: any) => each.id),
    [id],
  );
  await demand(
    vault.call('bella', 'PATCH', '/v1/teams/billing', { refuseExposedLeases: true }, any),
    200,
  );
  t.same(rulesOf(await askLease(vault, 'bot', [{ id }], { onBehalfOf: 'bella' })), [
    '/credentials/0 exposed',
  ]);
  await demand(
    vault.call(
      'bella',
      'PATCH',
      `/v1/credentials/${id}`,
      { fields: { apiKey: 'sk-newest-value' } },
      any,
    ),
    200,
  );
  t.same(await problems(), []);
});

t.test(
  'what a provider gives after its claim was over follows the credential to its new team',
  async (t) => {
    const { server, stage, vault, bot, id } = await accountStage(t);
    vault.clock.ms += 7_200_000;
    server.behaviour.onToken = async () => {
      server.behaviour.onToken = undefined;
      vault.clock.ms += 600_000;
      await demand(accept(vault, await offer(vault, id)), 200);
    };
    t.same(
      rulesOf(await askLease(vault, 'n8n', [{ id }])),
      ['/credentials/0 notConnected'],
      'nobody of the former team has it',
    );
    t.same(rulesOf(await askLease(vault, 'n8n', [{ id }])), ['/credentials/0 notFound']);
    t.equal(
      (await leaseFields({ ...stage, engine: bot }, id))['accessToken'],
      server.given.accessTokens[1],
    );
    t.equal(server.asked['refresh_token'], 1, 'asked once: the refresh token was good once');
    t.match(
      await vault.db.selectFrom('oauth_token').select(['sequence', 'data_key_id']).execute(),
      [{ sequence: 2, data_key_id: (await keysOf(vault, 'billing'))[0] }],
    );
    t.match(await events(vault, 'billing', 'bella', 'oauth.refresh'), [
      { target: { id }, intact: true },
    ]);
    t.same(await scan(vault), []);
    vault.clock.ms += 7_200_000;
    t.equal(
      (await leaseFields({ ...stage, engine: bot }, id))['accessToken'],
      server.given.accessTokens[2],
      'and the new refresh token is the one that is held',
    );

    await t.test('of one that is gone by then nothing is kept', async (t) => {
      const { id: gone } = await storeOAuth(stage, 'gone');
      await connect(stage, gone);
      vault.clock.ms += 7_200_000;
      server.behaviour.onToken = async () => {
        server.behaviour.onToken = undefined;
        await purge(vault.db, gone);
      };
      t.same(rulesOf(await askLease(vault, 'n8n', [{ id: gone }])), [
        '/credentials/0 notConnected',
      ]);
    });
  },
);

t.test(
  'a connected account moves along, with its own list of keys; what was begun ends; a refresh is waited for',
  async (t) => {
    const { server, stage, vault, bot, id } = await accountStage(t);
    const begun = await begin(stage, id);
    const held = async (): Promise<any> =>
      vault.db
        .selectFrom('oauth_token')
        .select(['sequence', 'token', 'data_key_id', 'key_history', 'connected_at'])
        .executeTakeFirstOrThrow();
    const before = await held();
    const transfer = await offer(vault, id);
    await sql`update oauth_token set claim_id = '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d', claimed_until = now() + interval '1 minute'`.execute(
      vault.db,
    );
    t.match(await accept(vault, transfer), { status: 409, json: { code: 'stateConflict' } });
    t.same((await held()).token, before.token);
    await sql`update oauth_token set claim_id = null, claimed_until = null`.execute(vault.db);
    await demand(accept(vault, transfer), 200);
    const after = await held();
    t.match(after, {
      sequence: before.sequence,
      connected_at: before.connected_at,
      key_history: [...(await keysOf(vault, 'payments')), ...(await keysOf(vault, 'billing'))],
      data_key_id: (await keysOf(vault, 'billing'))[0],
    });
    t.not(after.token, before.token);
    t.same(await scan(vault), []);
    t.equal(
      (await leaseFields({ ...stage, engine: bot }, id))['accessToken'],
      server.given.accessTokens[0],
    );
    t.equal(
      (
        await vault.call(
          'alice',
          'POST',
          '/v1/oauth/callbacks',
          callbackOf(await server.visit(begun.authorizationUrl)),
        )
      ).status,
      400,
      'what was begun for the other team',
    );
    vault.clock.ms += 7_200_000;
    t.equal(
      (await leaseFields({ ...stage, engine: bot }, id))['accessToken'],
      server.given.accessTokens[1],
      'and is refreshed there',
    );
    const [key] = await keysOf(vault, 'payments');
    await demand(
      vault.call('alice', 'POST', `/v1/teams/payments/keys/${key}/mark-compromised`, {
        reason: 'x',
      }),
      200,
    );
    t.ok(
      (await demand(vault.call('bella', 'GET', `/v1/credentials/${id}`), 200)).problems.includes(
        'exposed',
      ),
    );

    await t.test('an account that does not open holds it back', async (t) => {
      const { id: other } = await storeOAuth(stage, 'other');
      await connect(stage, other);
      const transfer = await offer(vault, other);
      await intrude(
        vault.db,
        `update oauth_token set token = (select token from oauth_token where credential_id = '${id}') where credential_id = '${other}'`,
      );
      t.match(await accept(vault, transfer), { status: 409, json: { code: 'undecryptable' } });
      t.equal((await vault.call('alice', 'GET', `/v1/credentials/${other}`)).json.team, 'payments');
    });

    await t.test('one that was never connected moves without', async (t) => {
      const { id: bare } = await storeOAuth(stage, 'bare');
      await demand(accept(vault, await offer(vault, bare)), 200);
      t.same(
        (await scan(vault)).filter(({ fault }) => fault !== 'tokenDoesNotOpen'),
        [],
      );
    });
  },
);

t.test("a receiver of the team's notifications is none any more when it has moved", async (t) => {
  const { vault } = await moveStage(t);
  const { public: open, secret } = typeSamples['webhook']!;
  const { id } = await demand(
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: 'receiver',
      type: 'webhook',
      fields: { ...open, ...secret },
    }),
    201,
  );
  await demand(
    vault.call('alice', 'PUT', `/v1/teams/payments/webhooks/${id}`, { events: ['key.overdue'] }),
    200,
  );
  await demand(vault.call('alice', 'POST', `/v1/teams/payments/webhooks/${id}/test`), 202);
  await demand(accept(vault, await offer(vault, id)), 200);
  for (const table of ['webhook', 'notification'] as const)
    t.equal((await vault.db.selectFrom(table).select('team_id').execute()).length, 0, table);
  t.same(await scan(vault), []);
});

t.test(
  'refused, and nothing has changed: a name that is taken, a version that does not open, a key that is away',
  async (t) => {
    const { vault, id } = await moveStage(t);
    await demand(
      vault.call('alice', 'PUT', `/v1/credentials/${id}/grants/subjects/nora`, { access: 'read' }),
      200,
    );
    await demand(askTicket(vault, 'n8n', { id }), 201);
    const transfer = await offer(vault, id);
    const state = async (): Promise<unknown> => [
      (await sql`select * from credential order by id`.execute(vault.db)).rows,
      (
        await sql`select team_id, credential_id, version, data_key_id, token, key_history from credential_version order by credential_id, version`.execute(
          vault.db,
        )
      ).rows,
      (await sql`select * from credential_grant`.execute(vault.db)).rows,
      (await sql`select * from broker_ticket`.execute(vault.db)).rows,
      (await sql`select * from credential_transfer`.execute(vault.db)).rows,
    ];
    const refused = async (code: string, status: number): Promise<void> => {
      const before = await state();
      t.match(await accept(vault, transfer), { status, json: { code } });
      t.same(await state(), before, `${code}: nothing has changed`);
      t.same(
        (await events(vault, 'billing', 'bella', 'transfer.accept')).filter(
          ({ decision }: any) => decision === 'allow',
        ),
        [],
      );
    };
    const clash = await storeOpenai(vault, 'billing', 'moving', 'sk-other', {}, 'bella');
    await refused('nameTaken', 409);
    await demand(
      vault.call('bella', 'PATCH', `/v1/credentials/${clash.id}`, { name: 'other' }, any),
      200,
    );
    const token = async (version: number): Promise<string> =>
      (await versionsOf(vault, id))[version - 1].token;
    for (const version of [1, 3]) {
      const [good, bad] = [await token(version), await token(2)];
      await intrude(
        vault.db,
        `update credential_version set token = '${bad}' where credential_id = '${id}' and version = ${version}`,
      );
      await refused('undecryptable', 409);
      t.match(await events(vault, 'payments', 'alice', 'transfer.accept'), [
        { decision: 'deny', reason: 'undecryptable', credentialVersion: version },
      ]);
      await intrude(
        vault.db,
        `update credential_version set token = '${good}', undecryptable_at = null where credential_id = '${id}' and version = ${version}`,
        `delete from audit_event where reason = 'undecryptable'`,
      );
    }
    await intrude(
      vault.db,
      `update data_key set state = 'retired' where team_id = (select team_id from credential where id = '${id}')`,
    );
    await refused('undecryptable', 409);
    await intrude(vault.db, `update data_key set state = 'active' where state = 'retired'`);
    const roots = (
      await sql<{
        id: string;
        root: string;
      }>`select id, root_fingerprint as root from data_key`.execute(vault.db)
    ).rows;
    await intrude(
      vault.db,
      `insert into root_key (fingerprint, canary) values ('00000000000000ff', '\\x00')`,
      `update data_key set root_fingerprint = '00000000000000ff', root_history = root_history || '00000000000000ff'::text where team_id = (select id from team where slug = 'billing')`,
    );
    vault.keyring.forget();
    await refused('keyUnavailable', 503);
    for (const { id: key, root } of roots)
      await intrude(
        vault.db,
        `update data_key set root_fingerprint = '${root}' where id = '${key}'`,
      );
    await demand(accept(vault, transfer), 200);
    t.same(
      (await scan(vault)).filter(({ table }) => table !== 'root_key'),
      [],
    );
  },
);
