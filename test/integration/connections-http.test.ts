// Testing a connection over HTTP: who may, what is sent where, what is said about it, what stands
// in the audit log.
import { randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import t, { type Test as Tap } from 'tap';
import { Egress } from '../../src/egress/index.ts';
import { egressTo, tlsUpstream, type Upstream } from '../helpers/egress.ts';
import { demand, registerEngine } from '../helpers/leases.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

t.setTimeout(120_000);

const canary = `sk-${randomBytes(24).toString('base64url')}`;
const okay = (...steps: string[]): object[] => steps.map((step) => ({ step, outcome: 'ok' }));

interface Stage {
  vault: TestVault;
  upstream: Upstream;
  id: string;
  seen: { url: string | undefined; key: string | undefined }[];
}

/**
 * A team in which somebody has each role, and a credential for a model server that takes the canary
 * and echoes every other key.
 */
async function setStage(t: Tap, respond: (path: string) => number = () => 200): Promise<Stage> {
  const seen: Stage['seen'] = [];
  const upstream = await tlsUpstream(t, 'models.test', (request, response) => {
    seen.push({ url: request.url, key: request.headers.authorization });
    const status =
      request.headers.authorization === `Bearer ${canary}` ? respond(request.url ?? '') : 401;
    response
      .writeHead(status, {
        location: 'https://elsewhere.test/',
        'x-echo': request.headers.authorization,
      })
      .end(JSON.stringify(request.headers));
  });
  const vault = await startVault(t, { egress: egressTo(t, [upstream]) });
  await vault.team('payments');
  for (const role of ['viewer', 'editor', 'auditor']) await vault.member('payments', role, role);
  const id = await store(vault, `${upstream.url}/v1`);
  return { vault, upstream, id, seen };
}

async function store(
  vault: TestVault,
  baseUrl: string,
  apiKey = canary,
  name = randomBytes(6).toString('hex'),
): Promise<string> {
  const { id } = (await demand(
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name,
      type: 'customLlm',
      fields: { baseUrl, apiKey },
    }),
    201,
  )) as { id: string };
  return id;
}
const test = (vault: TestVault, id: string, as: string | null = 'alice'): Promise<Answer> =>
  vault.call(as, 'POST', `/v1/credentials/${id}/test`);
const later = (vault: TestVault): void => {
  vault.clock.ms += 60_000;
};
const eventsOf = async (vault: TestVault): Promise<any[]> => {
  const { items } = (await demand(
    vault.call('alice', 'GET', '/v1/teams/payments/audit-events?limit=200'),
    200,
  )) as { items: any[] };
  return items.filter(({ action }) => /^credential\.test/.test(action)).reverse();
};

t.test('200: whoever may use it tests it; intent and outcome stand in the audit log', async (t) => {
  const { vault, id, seen } = await setStage(t);
  for (const who of ['alice', 'editor'])
    t.same(
      (await test(vault, id, who)).json,
      { ok: true, steps: okay('name', 'connect', 'tls', 'login') },
      who,
    );
  t.same(
    seen,
    [1, 2].map(() => ({ url: '/v1/models', key: `Bearer ${canary}` })),
  );
  const events = await eventsOf(vault);
  t.same(
    events.map(({ action, actor }) => `${actor} ${action}`),
    [
      'alice credential.test',
      'alice credential.tested',
      'editor credential.test',
      'editor credential.tested',
    ],
  );
  t.match(events[0], {
    target: { type: 'credential', id },
    decision: 'allow',
    details: { kind: 'http' },
    intact: true,
  });
  t.match(events[1], {
    target: { type: 'credential', id },
    details: { ok: true, step: 'login', outcome: 'ok' },
  });
});

t.test(
  '200: what the other side says about a log-in is one word, and nothing that it sent',
  async (t) => {
    let status = 200;
    const { vault, upstream, id } = await setStage(t, () => status);
    for (const [answered, outcome] of [
      [401, 'refused'],
      [403, 'refused'],
      [400, 'refused'],
      [404, 'unexpected'],
      [500, 'unexpected'],
      [429, 'unexpected'],
      [302, 'unexpected'],
      [307, 'unexpected'],
    ] as const) {
      status = answered;
      later(vault);
      const { json, text } = await test(vault, id);
      t.same(
        json,
        { ok: false, steps: [...okay('name', 'connect', 'tls'), { step: 'login', outcome }] },
        String(answered),
      );
      t.notMatch(text, /elsewhere|models\.test/);
    }
    const wrong = await store(vault, `${upstream.url}/v1`, `${canary}-wrong`);
    later(vault);
    t.same((await test(vault, wrong)).json.steps.at(-1), { step: 'login', outcome: 'refused' });
    for (const place of [
      ...vault.answers,
      ...vault.logs,
      JSON.stringify(
        await vault.db
          .selectFrom('audit_event')
          .select(sql<string>`audit_event::text`.as('row'))
          .execute(),
      ),
    ])
      t.notOk(place.includes(canary));
  },
);

t.test(
  '200: a target that may not be reached and a name that does not exist look the same; the other steps are told apart',
  async (t) => {
    const { vault, upstream } = await setStage(t);
    const wrongName = await tlsUpstream(
      t,
      'models.test',
      (_request, response) => {
        response.end();
      },
      { names: ['other.test'] },
    );
    const silent = await tlsUpstream(t, 'models.test', () => undefined);
    const inside = new Egress({
      allow: [],
      own: () => [],
      resolve: async (name) => (name === 'inside.test' ? ['127.0.0.1'] : []),
    });
    const other = await startVault(t, { egress: inside });
    await other.team('payments');
    const bodies = await Promise.all(
      ['inside.test', 'unknown.test', '127.0.0.1', '169.254.169.254', 'localhost'].map(
        async (host) =>
          (await test(other, await store(other, `https://${host}:${upstream.port}`))).text,
      ),
    );
    t.same(new Set(bodies), new Set(['{"ok":false,"steps":[{"step":"name","outcome":"failed"}]}']));

    const reachable = egressTo(
      t,
      [
        upstream,
        { ...wrongName, certificate: upstream.certificate },
        silent,
        { host: 'models.test', port: 1 },
      ],
      { headersMs: 1_500 },
    );
    const third = await startVault(t, { egress: reachable });
    await third.team('payments');
    const steps = async (url: string): Promise<object[]> =>
      (await test(third, await store(third, url))).json.steps;
    t.same(await steps('https://models.test:1'), [
      ...okay('name'),
      { step: 'connect', outcome: 'failed' },
    ]);
    t.same(await steps(wrongName.url), [
      ...okay('name', 'connect'),
      { step: 'tls', outcome: 'failed' },
    ]);
    t.same(await steps(silent.url), [
      ...okay('name', 'connect', 'tls'),
      { step: 'login', outcome: 'timeout' },
    ]);
    void vault;
  },
);

t.test('400: the caller supplies nothing', async (t) => {
  const { vault, id, seen } = await setStage(t);
  for (const body of [
    { host: 'evil.test' },
    { fields: { apiKey: 'x' } },
    { baseUrl: 'https://evil.test' },
  ])
    t.equal((await vault.call('alice', 'POST', `/v1/credentials/${id}/test`, body)).status, 400);
  t.same(seen, []);
});

t.test('401, 403 and 404: nobody else has anything dialled', async (t) => {
  const { vault, id, seen } = await setStage(t);
  await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  await vault.team('others', ['olga']);
  t.equal((await test(vault, id, null)).status, 401);
  for (const who of ['viewer', 'auditor', 'n8n'])
    t.equal((await test(vault, id, who)).status, 403, who);
  for (const who of ['olga', 'operator', 'stranger'])
    t.equal((await test(vault, id, who)).status, 404, who);
  await demand(
    vault.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, { 'if-match': '*' }),
    204,
  );
  t.equal((await test(vault, id)).status, 404, 'deleted');
  t.same(seen, []);
  t.same(
    await eventsOf(vault).then((events) => events.filter(({ decision }) => decision === 'allow')),
    [],
  );
});

t.test('409: what is disabled, expired or does not open is not used', async (t) => {
  const { vault, id, upstream, seen } = await setStage(t);
  await demand(vault.call('alice', 'POST', `/v1/credentials/${id}/disable`), 200);
  t.match((await test(vault, id)).json, { status: 409, code: 'stateConflict' });
  const { id: expiring } = (await demand(
    vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: 'expiring',
      type: 'customLlm',
      fields: { baseUrl: upstream.url, apiKey: canary },
      expiresAt: new Date(Date.now() + 30_000).toISOString(),
    }),
    201,
  )) as { id: string };
  later(vault);
  t.match((await test(vault, expiring)).json, { status: 409, code: 'stateConflict' });
  const broken = await store(vault, upstream.url);
  await sql`update credential_version set token = overlay(token placing 'AAAA' from 60) where credential_id = ${broken}`.execute(
    vault.db,
  );
  t.match((await test(vault, broken)).json, { status: 409, code: 'undecryptable' });
  t.same(
    (
      (await demand(vault.call('alice', 'GET', `/v1/credentials/${broken}`), 200)) as {
        problems: string[];
      }
    ).problems,
    ['undecryptable'],
  );
  t.same(seen, []);
});

t.test(
  '422 for a type without a test, 429 for the eleventh in a minute, a team apart',
  async (t) => {
    const { vault, id, upstream } = await setStage(t);
    const { id: bearer } = (await demand(
      vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
        name: 'b',
        type: 'bearer',
        fields: { token: 't-12345678' },
      }),
      201,
    )) as { id: string };
    t.match((await test(vault, bearer)).json, { status: 422, code: 'notTestable' });
    const second = await store(vault, upstream.url);
    for (let count = 0; count < 10; count += 1)
      t.equal(
        (await test(vault, count % 2 === 0 ? id : second, count % 3 === 0 ? 'alice' : 'editor'))
          .status,
        200,
      );
    const refused = await test(vault, id);
    t.match(refused.json, { status: 429, code: 'rateLimited' });
    t.ok(Number(refused.headers['retry-after']) >= 1);
    await vault.team('others');
    const { id: theirs } = (await demand(
      vault.call('alice', 'POST', '/v1/teams/others/credentials', {
        name: 'm',
        type: 'customLlm',
        fields: { baseUrl: upstream.url, apiKey: canary },
      }),
      201,
    )) as { id: string };
    t.equal((await test(vault, theirs)).status, 200);
    later(vault);
    t.equal((await test(vault, id)).status, 200);
  },
);

t.test(
  'nothing is dialled before the intent stands in the audit log, nor without it',
  async (t) => {
    const { vault, id, seen } = await setStage(t);
    const waiting: Promise<unknown>[] = [];
    const upstream = await tlsUpstream(t, 'late.test', (_request, response) => {
      waiting.push(
        sql<{ action: string }>`select action from audit_event where action like 'credential.test%'`
          .execute(vault.db)
          .then(({ rows }) => {
            response.end();
            return rows;
          }),
      );
    });
    const watching = await startVault(t, {
      egress: egressTo(t, [upstream]),
      database: { url: vault.databaseUrl, db: vault.db },
      rootKey: vault.rootKey,
    });
    t.equal((await test(watching, await store(watching, upstream.url))).json.ok, true);
    t.same(
      await waiting[0],
      [{ action: 'credential.test' }],
      'when the other side is asked, it is there',
    );
    await sql`alter table audit_event add constraint no_tests check (action <> 'credential.test') not valid`.execute(
      vault.db,
    );
    t.equal((await test(vault, id)).status, 500);
    t.same(seen, []);
  },
);
