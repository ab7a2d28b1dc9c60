// An issuer whose subjects are kept to some teams: outside of these no row lets them do anything,
// whoever wrote it and whenever.
import t from 'tap';
import { roles } from '../../src/access/roles.ts';
import type { Issuer } from '../../src/access/issuers.ts';
import { fixedKey } from '../../src/access/verifying-keys.ts';
import { startBroker } from '../helpers/broker.ts';
import { committedDocument } from '../helpers/documented-answers.ts';
import { startFilled } from '../helpers/filled-team.ts';
import { audience, forge, keyPair } from '../helpers/identity.ts';
import { issuerWith } from '../helpers/issuers.ts';
import { askLease, demand, registerEngine, rulesOf, storeOpenai } from '../helpers/leases.ts';
import { operationsOf } from '../helpers/openapi.ts';
import type { Answer, TestVault } from '../helpers/vault.ts';

const key = keyPair('EdDSA');

/** An issuer whose bounds are set while the vault runs, as a restart with another file does. */
function heym(): Issuer & { teams: readonly string[] | undefined } {
  return {
    ...issuerWith({
      issuer: 'https://heym.test',
      audiences: [audience],
      keys: { kind: 'fixed', keys: [fixedKey(key.verifier)] },
      subjectPrefix: 'heym:',
    }),
    teams: undefined,
  };
}

const as = (
  vault: TestVault,
  sub: string,
  method: string,
  url: string,
  body?: unknown,
): Promise<Answer> => {
  const at = Math.floor((Date.now() + vault.clock.ms) / 1000);
  const token = forge(
    key,
    { alg: key.alg },
    {
      iss: 'https://heym.test',
      aud: audience,
      sub,
      iat: at,
      exp: at + 600,
    },
  );
  return vault.call(null, method, url, body, { authorization: `Bearer ${token}`, 'if-match': '*' });
};

t.test('whatever the row says: every operation, every role, every grant', async (t) => {
  const issuer = heym();
  const { vault, fill, parts } = await startFilled(t, { moreIssuers: [issuer] });
  const credential = parts['id']!;
  const callers: string[] = [];
  for (const role of roles) {
    const sub = `heym:${role}`;
    if (role === 'engine') await registerEngine(vault, sub);
    await vault.member('payments', sub, role);
    callers.push(role);
  }
  for (const access of ['read', 'use'] as const) {
    await demand(
      vault.call('alice', 'PUT', `/v1/credentials/${credential}/grants/subjects/heym%3A${access}`, {
        access,
      }),
      200,
    );
    await vault.team(`outside-${access}`, [`heym:by-team-${access}`]);
    await demand(
      vault.call('alice', 'PUT', `/v1/credentials/${credential}/grants/teams/outside-${access}`, {
        access,
      }),
      200,
    );
    callers.push(access, `by-team-${access}`);
  }
  // A team of theirs that something was granted to: what is another's stays another's.
  await vault.team('heym-a', ['heym:member', 'heym-admin']);
  await demand(
    vault.call('alice', 'PUT', `/v1/credentials/${credential}/grants/teams/heym-a`, {
      access: 'use',
    }),
    200,
  );
  callers.push('member');

  // And of theirs something that was granted to another's team, in which some of them are.
  const theirs = await storeOpenai(vault, 'heym-a', 'own', 'sk-test', {}, 'heym-admin');
  await demand(
    vault.call('heym-admin', 'PUT', `/v1/credentials/${theirs.id}/grants/teams/outside-use`, {
      access: 'use',
    }),
    200,
  );
  const byTeam = (): Promise<Answer> =>
    as(vault, 'by-team-use', 'GET', `/v1/credentials/${theirs.id}`);
  t.equal((await byTeam()).status, 200);

  t.equal((await as(vault, 'admin', 'GET', '/v1/teams/payments')).status, 200, 'a right is one');
  t.equal((await as(vault, 'member', 'GET', `/v1/credentials/${credential}`)).status, 200);
  issuer.teams = ['heym-*'];
  t.equal((await byTeam()).status, 404, 'by a team that they are kept out of');
  let requests = 0;
  for (const { path, method, operation } of operationsOf(committedDocument)) {
    const action = String(operation['x-action']);
    if (action === 'public' || action === 'authenticated') continue;
    const isTeams = path.startsWith('/v1/teams/{team}') || path.startsWith('/v1/credentials/{id}');
    const url = fill({ url: path.replaceAll(/\{(\w+)\}/g, ':$1') } as never);
    for (const caller of callers) {
      if (!isTeams && method !== 'GET') continue;
      requests += 1;
      const answer = await as(vault, caller, method, url, method === 'GET' ? undefined : '{');
      const what = `${String(operation['operationId'])} as ${caller}`;
      if (isTeams) t.equal(answer.status, 404, `${what}: ${answer.text}`);
      else t.ok([200, 403].includes(answer.status), `${what}: ${answer.status}`);
      if (answer.status === 200 && method === 'GET')
        t.notOk(answer.text.includes(credential), `${what}: nothing of it is listed`);
    }
  }
  t.ok(requests > 400, `${requests} requests`);
  for (const caller of callers) {
    const whoami = await as(vault, caller, 'GET', '/v1/whoami');
    t.notOk(whoami.text.includes('payments'), `${caller} is not told of the team`);
    for (const url of ['/v1/teams', '/v1/credentials', '/v1/credentials/shared']) {
      const answer = await as(vault, caller, 'GET', url);
      t.notOk(answer.text.includes(credential), `${caller} at ${url}`);
      t.notOk(answer.text.includes('"payments"'), `${caller} at ${url}`);
    }
  }
  t.equal(
    (await as(vault, 'member', 'GET', '/v1/teams/heym-a')).status,
    200,
    'their own they have',
  );
});

t.test('such a subject is not let in elsewhere', async (t) => {
  const issuer = heym();
  const { vault, parts } = await startFilled(t, { moreIssuers: [issuer] });
  issuer.teams = ['heym-*'];
  await vault.team('heym-a', ['heym:ann']);
  const id = parts['id']!;
  const refused = (answer: Answer, pointer: string, what: string): void => {
    t.match(
      answer,
      { status: 422, json: { code: 'issuerTeams', errors: [{ pointer, rule: 'issuerTeams' }] } },
      what,
    );
  };
  refused(
    await vault.call('alice', 'PUT', '/v1/teams/payments/members/heym%3Acfo', { role: 'viewer' }),
    '/params/subject',
    'as a member',
  );
  refused(
    await vault.call('alice', 'PUT', `/v1/credentials/${id}/grants/subjects/heym%3Acfo`, {
      access: 'read',
    }),
    '/params/subject',
    'by a grant',
  );
  refused(
    await vault.call('operator', 'POST', '/v1/teams', {
      slug: 'elsewhere',
      name: 'x',
      admins: ['alice', 'heym:cfo'],
    }),
    '/admins/1',
    'as the first admin',
  );
  t.equal(
    (await vault.call('heym:ann', 'GET', '/v1/teams/heym-a')).status,
    401,
    "and the people's issuer does not speak of her",
  );
  t.equal(
    (await as(vault, 'ann', 'PUT', '/v1/teams/heym-a/members/heym%3Abob', { role: 'editor' }))
      .status,
    200,
    'in their own teams they are',
  );
});

t.test('nor may anybody be let in of whom no token can speak', async (t) => {
  const { vault, parts } = await startFilled(t, {
    moreIssuers: [{ ...heym(), subjectPattern: 'u-*' }],
  });
  const id = parts['id']!;
  for (const [method, url, body, pointer] of [
    ['PUT', '/v1/teams/payments/members/heym%3Acfo', { role: 'viewer' }, '/params/subject'],
    [
      'PUT',
      `/v1/credentials/${id}/grants/subjects/heym%3Acfo`,
      { access: 'use' },
      '/params/subject',
    ],
  ] as const)
    t.match(await vault.call('alice', method, url, body), {
      status: 400,
      json: { code: 'invalidRequest', errors: [{ pointer, rule: 'issuer' }] },
    });
  t.match(
    await vault.call('operator', 'POST', '/v1/engines', {
      name: 'an engine',
      subject: 'heym:cfo',
      keys: [(await import('../../src/client/index.ts')).generateEngineKey().publicJwk],
    }),
    { status: 400, json: { errors: [{ pointer: '/subject', rule: 'issuer' }] } },
  );
});

t.test('on behalf of such a person nothing is leased elsewhere', async (t) => {
  const issuer = heym();
  const { vault } = await startFilled(t, { moreIssuers: [issuer] });
  await vault.member('payments', 'heym:ed', 'editor');
  const { id } = await storeOpenai(vault, 'payments', 'both', 'sk-test-0123456789', {
    policy: { delivery: ['lease', 'broker'], allowedHosts: [] },
  });
  const lease = (): Promise<Answer> => askLease(vault, 'n8n', [{ id }], { onBehalfOf: 'heym:ed' });
  const ticket = (): Promise<Answer> =>
    vault.call('n8n', 'POST', '/v1/broker-tickets', {
      credential: { id },
      purpose: 'x',
      onBehalfOf: 'heym:ed',
    });
  t.equal((await lease()).status, 201);
  t.equal((await lease()).status, 201, 'remembered');
  t.equal((await ticket()).status, 201);
  issuer.teams = ['heym-*'];
  t.same(rulesOf(await lease()), ['/credentials/0 onBehalfOfRefused'], 'also what was remembered');
  t.match((await ticket()).json, { code: 'ticketRefused' });
  // The person's own token makes it no better.
  const at = Math.floor((Date.now() + vault.clock.ms) / 1000);
  const claims = { iss: 'https://heym.test', aud: audience, sub: 'ed', iat: at, exp: at + 600 };
  t.same(
    rulesOf(
      await askLease(vault, 'n8n', [{ id }], {
        onBehalfOf: null,
        subjectToken: forge(key, { alg: key.alg }, claims),
      }),
    ),
    ['/credentials/0 onBehalfOfRefused'],
  );
});

t.test('an engine of such an issuer leases nothing elsewhere', async (t) => {
  const issuer = heym();
  const { vault, parts } = await startFilled(t, { moreIssuers: [issuer] });
  await registerEngine(vault, 'heym:engine');
  await vault.member('payments', 'heym:engine', 'engine', 'alice', { actsForItself: true });
  const body = { credentials: [{ id: parts['id']! }], purpose: 'x' };
  t.equal((await as(vault, 'engine', 'POST', '/v1/leases', body)).status, 201);
  t.equal((await as(vault, 'engine', 'POST', '/v1/leases', body)).status, 201);
  issuer.teams = ['heym-*'];
  t.same(rulesOf(await as(vault, 'engine', 'POST', '/v1/leases', body)), [
    '/credentials/0 notFound',
  ]);
});

t.test('a ticket that is there already lets nothing through any more', async (t) => {
  for (const who of ['engine', 'person', 'nobody of theirs'] as const) {
    const issuer = heym();
    const stage = await startBroker(
      t,
      (_request, response) => {
        response.end('ok');
      },
      { vault: { moreIssuers: [issuer] } },
    );
    const { vault, credential: id } = stage;
    await vault.member('payments', 'heym:ed', 'editor');
    await registerEngine(vault, 'heym:engine');
    await vault.member('payments', 'heym:engine', 'engine');
    const body = {
      credential: { id },
      purpose: 'x',
      onBehalfOf: who === 'person' ? 'heym:ed' : 'alice',
    };
    const ticket = await demand(
      who === 'engine'
        ? as(vault, 'engine', 'POST', '/v1/broker-tickets', body)
        : vault.call('n8n', 'POST', '/v1/broker-tickets', body),
      201,
    );
    const call = async (): Promise<number> => (await stage.call('GET', '/', { ticket })).status;
    t.equal(await call(), 200, who);
    t.equal(await call(), 200, `${who}, remembered`);
    issuer.teams = ['heym-*'];
    const isStopped = who !== 'nobody of theirs';
    t.equal(await call(), isStopped ? 403 : 200, `${who}: kept to other teams`);
    t.equal(await call(), isStopped ? 403 : 200, `${who}: and so it stays`);
  }
});

t.test('an admin who counts for nothing is not the one that a team keeps', async (t) => {
  const issuer = heym();
  const { vault } = await startFilled(t, { moreIssuers: [issuer] });
  await vault.member('payments', 'heym:boss', 'admin');
  issuer.teams = ['heym-*'];
  t.match(
    await vault.call('alice', 'DELETE', '/v1/teams/payments/members/alice', undefined, {
      'if-match': '*',
    }),
    { status: 409, json: { code: 'lastAdmin' } },
  );
  t.equal(
    (
      await vault.call('alice', 'DELETE', '/v1/teams/payments/members/heym%3Aboss', undefined, {
        'if-match': '*',
      })
    ).status,
    204,
    'and can be taken out',
  );
});
