// Grants: what one gives is the grant and the role in the receiving team, as a table; who may give
// them; what stands in which audit log.
import { randomBytes } from 'node:crypto';
import t, { type Test as Tap } from 'tap';
import { askTicket } from '../helpers/broker.ts';
import {
  askLease,
  demand,
  openAnswer,
  registerEngine,
  rulesOf,
  storeOpenai,
  type TestEngine,
} from '../helpers/leases.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const canary = `sk-${randomBytes(24).toString('hex')}`;
const both = { policy: { delivery: ['lease', 'broker'], allowedHosts: [] } };

interface Stage {
  readonly vault: TestVault;
  readonly id: string;
  readonly engine: TestEngine;
  share(to: string, access: string): Promise<any>;
  unshare(to: string): Promise<void>;
}

/**
 * `payments` (alice) owns a credential; `sales` (bella) has one of each role and the engine `bot`.
 */
async function setStage(t: Tap): Promise<Stage> {
  const vault = await startVault(t, { growthLimits: { grants: 100 } });
  await vault.team('payments');
  await vault.team('sales', ['bella']);
  const engine = await registerEngine(vault, 'bot');
  for (const [sub, role] of [
    ['vera', 'viewer'],
    ['eddie', 'editor'],
    ['audrey', 'auditor'],
    ['bot', 'engine'],
  ] as const)
    await vault.member('sales', sub, role, 'bella');
  const { id } = await storeOpenai(vault, 'payments', 'shared', canary, both);
  const url = (to: string): string => `/v1/credentials/${id}/grants/${to}`;
  return {
    vault,
    id,
    engine,
    share: (to, access) => demand(vault.call('alice', 'PUT', url(to), { access }, any), 200),
    unshare: async (to) => {
      await demand(vault.call('alice', 'DELETE', url(to), undefined, any), 204);
    },
  };
}

/** What an answer comes to: let through, refused, or nothing there. */
const outcomeOf = ({ status, json }: Answer): string =>
  status < 300 || ['notTestable', 'rateLimited', 'stateConflict'].includes(json?.code)
    ? 'yes'
    : status === 403
      ? 'no'
      : status === 404
        ? 'hidden'
        : json.code === 'leaseRefused' || json.code === 'ticketRefused'
          ? String(rulesOf(json === undefined ? ({ json: {} } as Answer) : ({ json } as Answer)))
          : `${status} ${json?.code}`;

t.test('who may do what by a grant to their team: roles × access × actions', async (t) => {
  const { vault, id, share, unshare } = await setStage(t);
  const path = `/v1/credentials/${id}`;
  const actions: Readonly<Record<string, (as: string) => Promise<Answer>>> = {
    read: (as) => vault.call(as, 'GET', path),
    versions: (as) => vault.call(as, 'GET', `${path}/versions`),
    test: (as) => vault.call(as, 'POST', `${path}/test`),
    write: (as) => vault.call(as, 'PATCH', path, { description: 'x' }, any),
    fields: (as) => vault.call(as, 'PATCH', path, { fields: { apiKey: 'sk-other' } }, any),
    delete: (as) => vault.call(as, 'DELETE', path, undefined, any),
    restore: (as) => vault.call(as, 'POST', `${path}/restore`),
    restoreVersion: (as) => vault.call(as, 'POST', `${path}/versions/1/restore`),
    disable: (as) => vault.call(as, 'POST', `${path}/disable`),
    grants: (as) => vault.call(as, 'GET', `${path}/grants`),
    grant: (as) => vault.call(as, 'PUT', `${path}/grants/subjects/mallory`, { access: 'use' }),
    oauth: (as) => vault.call(as, 'POST', `${path}/oauth/authorizations`),
    lease: (as) => askLease(vault, as, [{ id }], { onBehalfOf: 'eddie' }),
    leaseByName: (as) =>
      askLease(vault, as, [{ team: 'payments', name: 'shared' }], { onBehalfOf: 'eddie' }),
    ticket: (as) => askTicket(vault, as, { id }, { onBehalfOf: 'eddie' }),
  };
  const refusedAll = {
    write: 'no',
    fields: 'no',
    delete: 'no',
    restore: 'no',
    restoreVersion: 'no',
    disable: 'no',
    grants: 'no',
    grant: 'no',
    oauth: 'no',
  };
  const person = { ...refusedAll, lease: 'no', leaseByName: 'no', ticket: 'no' };
  const nobody = {
    ...Object.fromEntries(Object.keys(actions).map((action) => [action, 'hidden'])),
    lease: 'no',
    leaseByName: 'no',
    ticket: 'no',
  };
  const notFound = {
    lease: '/credentials/0 notFound',
    leaseByName: '/credentials/0 notFound',
    ticket: '/credential notFound',
  };
  const expected: Readonly<Record<string, Readonly<Record<string, object>>>> = {
    none: {
      vera: nobody,
      eddie: nobody,
      bella: nobody,
      audrey: nobody,
      bot: { ...nobody, ...notFound },
      mallory: nobody,
    },
    read: {
      vera: { read: 'yes', versions: 'yes', test: 'no', ...person },
      eddie: { read: 'yes', versions: 'yes', test: 'no', ...person },
      bella: { read: 'yes', versions: 'yes', test: 'no', ...person },
      audrey: { read: 'yes', versions: 'yes', test: 'no', ...person },
      bot: { read: 'yes', versions: 'yes', test: 'no', ...refusedAll, ...notFound },
      mallory: nobody,
    },
    use: {
      vera: { read: 'yes', versions: 'yes', test: 'no', ...person },
      eddie: { read: 'yes', versions: 'yes', test: 'yes', ...person },
      bella: { read: 'yes', versions: 'yes', test: 'yes', ...person },
      audrey: { read: 'yes', versions: 'yes', test: 'no', ...person },
      bot: {
        read: 'yes',
        versions: 'yes',
        test: 'no',
        ...refusedAll,
        lease: 'yes',
        leaseByName: 'yes',
        ticket: 'yes',
      },
      mallory: nobody,
    },
  };
  for (const [access, people] of Object.entries(expected)) {
    if (access === 'none') await share('teams/sales', 'read').then(() => unshare('teams/sales'));
    else await share('teams/sales', access);
    for (const [sub, wanted] of Object.entries(people)) {
      vault.clock.ms += 61_000;
      const got: Record<string, string> = {};
      for (const [action, ask] of Object.entries(actions)) got[action] = outcomeOf(await ask(sub));
      t.strictSame(got, wanted, `${access}: ${sub}`);
    }
  }
});

t.test('a grant to a person, and to an engine', async (t) => {
  const { vault, id, engine, share, unshare } = await setStage(t);
  const path = `/v1/credentials/${id}`;
  const reads = async (as: string): Promise<number> => (await vault.call(as, 'GET', path)).status;
  const tests = async (as: string): Promise<number> =>
    (await vault.call(as, 'POST', `${path}/test`)).status;
  t.same([await reads('nora'), await tests('nora')], [404, 404]);
  t.match(await share('subjects/nora', 'read'), {
    kind: 'subject',
    subject: 'nora',
    team: null,
    access: 'read',
    intact: true,
    revision: 1,
  });
  t.same([await reads('nora'), await tests('nora')], [200, 403]);
  t.match(await share('subjects/nora', 'use'), { access: 'use', revision: 2 });
  t.not(await tests('nora'), 403, 'use lets her test it');
  t.equal(
    (await vault.call('nora', 'POST', '/v1/leases', { credentials: [{ id }], purpose: 'x' }))
      .status,
    403,
    'people never lease',
  );

  const lone = await registerEngine(vault, 'lone');
  t.match(rulesOf(await askLease(vault, 'lone', [{ id }], { onBehalfOf: 'nora' })), [
    '/credentials/0 notFound',
  ]);
  t.match(await share('subjects/lone', 'read'), { kind: 'engine', subject: 'lone' });
  t.match(rulesOf(await askLease(vault, 'lone', [{ id }], { onBehalfOf: 'nora' })), [
    '/credentials/0 notFound',
  ]);
  await share('subjects/lone', 'use');
  const opened = await openAnswer(
    vault,
    lone,
    await askLease(vault, 'lone', [{ id }], { onBehalfOf: 'nora' }),
  );
  t.equal(
    (opened.credentials[0] as { fields?: Record<string, unknown> } | undefined)?.fields?.['apiKey'],
    canary,
  );
  t.match(
    rulesOf(await askLease(vault, 'lone', [{ id }], { onBehalfOf: null })),
    ['/credentials/0 onBehalfOfRequired'],
    'nobody has set that it acts for itself',
  );
  t.match(rulesOf(await askLease(vault, 'lone', [{ id }], { onBehalfOf: 'lone' })), [
    '/credentials/0 onBehalfOfRefused',
  ]);
  for (const [sub, why] of [
    ['eddie', 'a member of no team that has it'],
    ['mallory', 'nobody'],
  ] as const)
    t.match(
      rulesOf(await askLease(vault, 'lone', [{ id }], { onBehalfOf: sub })),
      ['/credentials/0 onBehalfOfRefused'],
      why,
    );
  t.equal(
    (await askLease(vault, 'lone', [{ id }], { onBehalfOf: 'alice' })).status,
    201,
    'a member of the owner',
  );
  await share('subjects/nora', 'read');
  t.match(
    rulesOf(await askLease(vault, 'lone', [{ id }], { onBehalfOf: 'nora' })),
    ['/credentials/0 onBehalfOfRefused'],
    'read is not use',
  );

  await t.test("what was given to a person is no engine's, should they become one", async (t) => {
    await share('subjects/nora', 'use');
    await registerEngine(vault, 'nora');
    t.equal(await reads('nora'), 404);
    t.match(rulesOf(await askLease(vault, 'nora', [{ id }], { onBehalfOf: 'alice' })), [
      '/credentials/0 notFound',
    ]);
    t.match(await share('subjects/nora', 'use'), { kind: 'engine' });
    t.equal((await askLease(vault, 'nora', [{ id }], { onBehalfOf: 'alice' })).status, 201);
  });

  await t.test(
    'an engine that is disabled has nothing, and is given nothing; one that is deleted loses its grants',
    async (t) => {
      await demand(
        vault.call('operator', 'PATCH', `/v1/engines/${lone.id}`, { state: 'disabled' }, any),
        200,
      );
      t.equal(await reads('lone'), 404);
      t.equal((await askLease(vault, 'lone', [{ id }])).status, 403);
      t.match(
        await vault.call('alice', 'PUT', `${path}/grants/subjects/lone`, { access: 'read' }, any),
        { status: 409, json: { code: 'notAnEngine' } },
      );
      await demand(
        vault.call('operator', 'PATCH', `/v1/engines/${lone.id}`, { state: 'enabled' }, any),
        200,
      );
      t.equal(await reads('lone'), 200);
      const { items: before } = await demand(
        vault.call('alice', 'GET', '/v1/teams/payments/audit-events?action=engine.update'),
        200,
      );
      t.equal(
        before.length,
        2,
        'what becomes of the engine stands in the audit log of whoever granted to it',
      );
      await demand(vault.call('operator', 'DELETE', `/v1/engines/${lone.id}`, undefined, any), 204);
      t.equal(await reads('lone'), 404);
      await registerEngine(vault, 'lone');
      t.equal(await reads('lone'), 404, 'registered again it begins with nothing');
      t.match(
        (
          await demand(
            vault.call('alice', 'GET', '/v1/teams/payments/audit-events?action=grant.remove'),
            200,
          )
        ).items,
        [{ details: { grantee: 'lone', reason: 'engineDeleted' } }],
      );
    },
  );

  await t.test(
    'a member without the right in the team that owns it has more by a grant',
    async (t) => {
      await vault.member('payments', 'victor', 'viewer');
      t.equal(await tests('victor'), 403);
      await share('subjects/victor', 'use');
      t.not(await tests('victor'), 403);
      t.equal((await vault.call('victor', 'PATCH', path, { description: 'x' }, any)).status, 403);
      t.equal((await askLease(vault, 'nora', [{ id }], { onBehalfOf: 'victor' })).status, 201);
      await unshare('subjects/victor');
      t.equal(await tests('victor'), 403);
    },
  );
  t.equal(engine.sub, 'bot');
});

t.test('on whose behalf: by membership, by a grant to their team, to themselves', async (t) => {
  const { vault, id, share, unshare } = await setStage(t);
  await vault.team('third', ['theo']);
  await share('teams/sales', 'use');
  const refused = async (sub: string): Promise<string[]> =>
    rulesOf(await askLease(vault, 'bot', [{ id }], { onBehalfOf: sub }));
  t.same(await refused('eddie'), []);
  t.same(await refused('alice'), [], 'an admin of the owner');
  t.same(
    await refused('vera'),
    ['/credentials/0 onBehalfOfRefused'],
    'a viewer of the receiving team',
  );
  t.same(await refused('theo'), ['/credentials/0 onBehalfOfRefused']);
  await share('teams/third', 'read');
  t.same(await refused('theo'), ['/credentials/0 onBehalfOfRefused'], 'read is not use');
  await share('teams/third', 'use');
  t.same(await refused('theo'), []);
  await unshare('teams/third');
  t.same(await refused('theo'), ['/credentials/0 onBehalfOfRefused']);
  t.same(rulesOf(await askLease(vault, 'bot', [{ id }], { onBehalfOf: null })), [
    '/credentials/0 onBehalfOfRequired',
  ]);
  await vault.member('sales', 'bot', 'engine', 'bella', { actsForItself: true });
  t.same(
    rulesOf(await askLease(vault, 'bot', [{ id }], { onBehalfOf: null })),
    [],
    'the receiving team lets its engine act for itself',
  );
});

t.test('who may share, with whom, and how it is said', async (t) => {
  const { vault, id, share } = await setStage(t);
  const url = (to = ''): string => `/v1/credentials/${id}/grants${to}`;
  await vault.member('payments', 'pete', 'editor');
  const put = (
    as: string,
    to: string,
    body: object = { access: 'use' },
    headers: Record<string, string> = {},
  ): Promise<Answer> => vault.call(as, 'PUT', url(to), body, headers);
  t.match(await put('pete', '/teams/sales'), { status: 403 });
  t.match(await put('bella', '/teams/sales'), { status: 404 });
  t.match(await put('operator', '/teams/sales'), { status: 404 });
  t.match(await put('alice', '/teams/payments'), {
    status: 400,
    json: { code: 'invalidRequest', errors: [{ pointer: '/params/team', rule: 'ownTeam' }] },
  });
  t.match(await put('alice', '/teams/nowhere'), {
    status: 400,
    json: { errors: [{ pointer: '/params/team', rule: 'unknownTeam' }] },
  });
  t.match(await put('alice', '/teams/sales', { access: 'write' }), { status: 400 });
  t.match(await put('alice', '/teams/sales', { access: 'use' }, { 'if-match': '"1"' }), {
    status: 412,
  });
  const made = await put('alice', '/teams/sales');
  t.match(made, {
    status: 200,
    headers: { etag: '"1"' },
    json: {
      kind: 'team',
      team: 'sales',
      subject: null,
      access: 'use',
      intact: true,
      createdBy: 'alice',
    },
  });
  t.match(await put('alice', '/teams/sales', { access: 'read' }), { status: 428 });
  t.match(await put('alice', '/teams/sales', { access: 'read' }, { 'if-match': '"2"' }), {
    status: 412,
  });
  t.match(await put('alice', '/teams/sales', { access: 'read' }, { 'if-match': '"1"' }), {
    status: 200,
    json: { id: made.json.id, access: 'read', revision: 2 },
  });
  await share('subjects/nora', 'read');
  const listed = await demand(vault.call('alice', 'GET', url('?limit=1')), 200);
  t.match(listed.items, [{ team: 'sales', access: 'read', intact: true }]);
  t.match(
    await demand(vault.call('alice', 'GET', url(`?limit=1&cursor=${listed.nextCursor}`)), 200),
    { items: [{ subject: 'nora' }], nextCursor: null },
  );
  t.match(
    await vault.call('bella', 'GET', url()),
    { status: 403 },
    "to whom else it is granted is the owner's affair",
  );
  t.match(await vault.call('alice', 'DELETE', url('/teams/sales')), { status: 428 });
  t.match(
    await vault.call('alice', 'DELETE', url('/teams/sales'), undefined, { 'if-match': '"1"' }),
    { status: 412 },
  );
  t.match(
    await vault.call('alice', 'DELETE', url('/teams/sales'), undefined, { 'if-match': '"2"' }),
    { status: 204 },
  );
  t.match(await vault.call('alice', 'DELETE', url('/teams/sales'), undefined, any), {
    status: 404,
  });
  t.match(await vault.call('alice', 'DELETE', url('/subjects/nobody'), undefined, any), {
    status: 404,
  });
  t.match(
    await vault.call('alice', 'GET', `/v1/credentials/${id}`),
    { json: { revision: 1 } },
    'sharing changes no credential',
  );

  await t.test('a credential has a bounded number of grants', async (t) => {
    for (let i = 0; i < 99; i += 1) await share(`subjects/person-${i}`, 'read');
    t.match(await put('alice', '/subjects/one-more'), {
      status: 409,
      json: { code: 'limitReached', limit: 'grants', max: 100 },
    });
    t.match(
      await put('alice', '/subjects/nora', { access: 'use' }, any),
      { status: 200 },
      'one that is there can be changed',
    );
  });
});

t.test('both audit logs say what was shared and used, and by which grant', async (t) => {
  const { vault, id, share, unshare } = await setStage(t);
  const { id: grant } = await share('teams/sales', 'read');
  await share('teams/sales', 'use');
  await demand(askLease(vault, 'bot', [{ id }], { onBehalfOf: 'eddie', purpose: 'quarter' }), 201);
  await demand(askTicket(vault, 'bot', { id }, { onBehalfOf: 'eddie' }), 201);
  await vault.call('eddie', 'POST', `/v1/credentials/${id}/test`);
  await unshare('teams/sales');
  const auditLog = async (team: string, admin: string): Promise<any[]> =>
    (
      await demand(
        vault.call(admin, 'GET', `/v1/teams/${team}/audit-events?target=${id}&limit=200`),
        200,
      )
    ).items.reverse();
  const [owner, receiver] = [await auditLog('payments', 'alice'), await auditLog('sales', 'bella')];
  const seen = [
    'grant.add',
    'grant.change',
    'credential.lease',
    'ticket.create',
    'credential.test',
    'credential.tested',
    'grant.remove',
  ];
  t.same(
    owner.map(({ action }) => action),
    ['credential.create', ...seen],
  );
  t.same(
    receiver.map(({ action }) => action),
    seen,
  );
  for (const { details, action } of owner.slice(1))
    t.match(
      details,
      action.startsWith('grant.')
        ? { grant, kind: 'team', sharedWith: 'sales' }
        : { grants: [grant], sharedWith: ['sales'] },
      action,
    );
  for (const { details, action, key } of receiver) {
    t.match(
      details,
      action.startsWith('grant.')
        ? { grant, owner: 'payments' }
        : { grants: [grant], owner: 'payments' },
      action,
    );
    t.equal(key, null, 'keys never cross a team');
  }
  t.ok([...owner, ...receiver].every(({ intact }) => intact));
  t.match(receiver[2], {
    actor: 'bot',
    onBehalfOf: 'eddie',
    purpose: 'quarter',
    credentialVersion: 1,
    decision: 'allow',
  });
  t.match(owner[2].details, { access: 'use', accessBefore: 'read' });
});

t.test('a credential tells by which ways you know of it', async (t) => {
  const { vault, id, share } = await setStage(t);
  const through = async (as: string): Promise<object> =>
    (await demand(vault.call(as, 'GET', `/v1/credentials/${id}`), 200)).through;
  t.same(await through('alice'), [{ kind: 'membership', team: 'payments', access: null }]);
  await share('teams/sales', 'read');
  await share('subjects/eddie', 'use');
  await vault.member('payments', 'eddie', 'viewer');
  t.same(await through('eddie'), [
    { kind: 'membership', team: 'payments', access: null },
    { kind: 'grant', team: null, access: 'use' },
    { kind: 'grant', team: 'sales', access: 'read' },
  ]);
  t.same(await through('vera'), [{ kind: 'grant', team: 'sales', access: 'read' }]);
});

t.test('what is deleted is shared with nobody, and restored with everybody it was', async (t) => {
  const { vault, id, share } = await setStage(t);
  await share('teams/sales', 'use');
  await demand(vault.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any), 204);
  t.equal((await vault.call('eddie', 'GET', `/v1/credentials/${id}`)).status, 404);
  t.equal((await vault.call('bella', 'POST', `/v1/credentials/${id}/restore`)).status, 404);
  t.same(rulesOf(await askLease(vault, 'bot', [{ id }], { onBehalfOf: 'eddie' })), [
    '/credentials/0 notFound',
  ]);
  t.equal(
    (
      await vault.call(
        'alice',
        'PUT',
        `/v1/credentials/${id}/grants/teams/sales`,
        { access: 'read' },
        any,
      )
    ).status,
    404,
  );
  await demand(vault.call('alice', 'POST', `/v1/credentials/${id}/restore`), 200);
  t.equal((await vault.call('eddie', 'GET', `/v1/credentials/${id}`)).status, 200);
});

t.test('revocation counts at the next request, whatever was made before', async (t) => {
  const { vault, id, share, unshare } = await setStage(t);
  const lease = async (): Promise<number> =>
    (await askLease(vault, 'bot', [{ id }], { onBehalfOf: 'eddie' })).status;
  await share('teams/sales', 'use');
  for (let i = 0; i < 3; i += 1) t.equal(await lease(), 201, 'also one that was asked for before');
  const gone: readonly (readonly [
    what: string,
    act: () => Promise<unknown>,
    undo: () => Promise<unknown>,
  ])[] = [
    ['the grant is removed', () => unshare('teams/sales'), () => share('teams/sales', 'use')],
    [
      'the grant is narrowed',
      () => share('teams/sales', 'read'),
      () => share('teams/sales', 'use'),
    ],
    [
      'the engine leaves the receiving team',
      () =>
        demand(vault.call('bella', 'DELETE', '/v1/teams/sales/members/bot', undefined, any), 204),
      () => vault.member('sales', 'bot', 'engine', 'bella'),
    ],
    [
      'the person loses their role there',
      () => vault.member('sales', 'eddie', 'viewer', 'bella'),
      () => vault.member('sales', 'eddie', 'editor', 'bella'),
    ],
    [
      'the credential is disabled',
      () => demand(vault.call('alice', 'POST', `/v1/credentials/${id}/disable`), 200),
      () => demand(vault.call('alice', 'POST', `/v1/credentials/${id}/enable`), 200),
    ],
    [
      'the receiving team is deleted',
      () => demand(vault.call('bella', 'DELETE', '/v1/teams/sales', undefined, any), 204),
      async () => undefined,
    ],
  ];
  for (const [what, act, undo] of gone) {
    await act();
    t.equal(await lease(), 422, what);
    await undo();
    if (!what.includes('team is deleted')) t.equal(await lease(), 201, `${what}, and comes back`);
  }
});
