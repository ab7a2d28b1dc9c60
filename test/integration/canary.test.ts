// No secret comes out: one is stored in every type of credential and sent in every wrong way, and
// then sought in every answer, log line, column and command line. The search proves itself on a
// control that must be found.
import { randomBytes, randomUUIDv7 } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { sql } from 'kysely';
import t, { type Test as Tap } from 'tap';
import { generateEngineKey } from '../../src/client/index.ts';
import { credentialTypes } from '../../src/credentials/types/registry.ts';
import { openDatabase } from '../../src/db/client.ts';
import { badBodies, badBytes, rawAnswer } from '../helpers/bad-requests.ts';
import { commandLines, everyColumn, formsOf, type Haystack, seek } from '../helpers/canary.ts';
import { testDatabase } from '../helpers/database.ts';
import { databaseProxy } from '../helpers/database-proxy.ts';
import { intrude } from '../helpers/intruder.ts';
import {
  askLease,
  demand,
  openAnswer,
  registerEngine,
  type TestEngine,
} from '../helpers/leases.ts';
import { until } from '../helpers/processes.ts';
import { deploy } from '../helpers/serve.ts';
import { openSecrets } from '../helpers/stored.ts';
import { secretOf, typeSamples } from '../helpers/type-samples.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';
import type { CredentialType } from '../../src/credentials/types/define.ts';

const canary = process.env['VAULT_TEST_CANARY'] ?? `canary-${randomBytes(16).toString('hex')}`;
const control = `control-${randomBytes(16).toString('hex')}`;
const any = { 'if-match': '*' };
const list = '/v1/teams/payments/credentials';

t.test('the search finds each form, wherever it stands', (t) => {
  for (const [name, form] of formsOf(control)) {
    t.ok(
      seek(formsOf(control), [{ place: 'here', text: `{"a":"${form.toUpperCase()}"}` }]).some(
        (found) => found.startsWith(`${name} in`),
      ),
      name,
    );
  }
  for (const before of ['', 'a', 'ab', 'user:']) {
    t.ok(
      seek(formsOf(control), [
        { place: 'here', text: Buffer.from(`${before}${control}@`).toString('base64') },
      ]).length > 0,
      `base64 behind ${before.length}`,
    );
  }
  t.same(seek(formsOf(canary), [{ place: 'here', text: control }]), []);
  t.end();
});

t.test('what was stored and what was sent comes out nowhere', async (t) => {
  const vault = await startVault(t);
  vault.start();
  await vault.team('payments');
  for (const [sub, role] of [
    ['eddie', 'editor'],
    ['vera', 'viewer'],
    ['audrey', 'auditor'],
  ] as const)
    await vault.member('payments', sub, role);
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const stored = await storeEveryType(vault);

  await t.test('every type, used for all that a credential is for', async (t) => {
    await useAll(t, vault, engine, stored);
  });
  await t.test('bad requests of every kind', async (t) => {
    await sendBadly(t, vault, stored[0]!.id);
  });
  await t.test('failures of what is below', async (t) => {
    await failBelow(t, vault, stored);
  });

  const haystacks: Haystack[] = [
    ...vault.answers.map((text, index) => ({
      place: `answer ${index}: ${text.slice(0, 3)}`,
      text,
    })),
    { place: 'the log', text: vault.logs.join('') },
    ...(await everyColumn(vault.db)),
    {
      place: 'openapi.yaml',
      text: readFileSync(join(import.meta.dirname, '../../openapi.yaml'), 'utf8'),
    },
    commandLines(),
  ];
  t.ok(
    vault.answers.length > 250 && vault.logs.length > 250,
    `there is enough to search: ${vault.answers.length} answers, ${vault.logs.length} lines`,
  );
  await t.test('the control is found', async (t) => {
    const found = seek(new Map([['control', control]]), haystacks);
    t.ok(
      found.some((place) => place.startsWith('control in answer')),
      'in answers',
    );
    t.ok(found.includes('control in table credential'), 'in a column');
    t.ok(found.includes('control in table audit_event'), 'in the details of an event');
    const { requestId } = JSON.parse(
      vault.answers.findLast((text) => text.startsWith('400'))!.split('\n')[1]!,
    ) as { requestId: string };
    t.same(
      seek(
        new Map([['request', requestId]]),
        haystacks.filter(({ place }) => place === 'the log'),
      ).length,
      1,
      'in the log',
    );
  });
  await t.test('the secret is not', async (t) => {
    t.same(seek(formsOf(canary), haystacks), []);
    t.same(seek(formsOf(vault.rootKey), haystacks), [], 'nor is the root key');
    t.same(
      seek(formsOf(Buffer.from(vault.rootKey, 'base64').toString('latin1')), haystacks),
      [],
      'nor are its bytes',
    );
    // Leases are meant to come out, tokens at rest are meant to be in their column, and the
    // document shows examples of both.
    const others = haystacks
      .filter(({ place, text }) => place !== 'openapi.yaml' && !text.includes('"openapi":"3.1'))
      .map(({ place, text }) => ({ place, text: text.replaceAll(/"sealed":"[^"]*"/g, '') }));
    const placesOf = (pattern: RegExp): string[] =>
      others.filter(({ text }) => pattern.test(text)).map(({ place }) => place);
    t.same(placesOf(/(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{10}/), [], 'nor is any token of a caller');
    t.same(
      placesOf(/(?<![A-Za-z0-9_-])gAAAAA[A-Za-z0-9_-]{10}/),
      ['table credential_version'],
      'tokens at rest stay at rest',
    );
  });
});

t.test('a process in production writes none of it either', async (t) => {
  const { url: databaseUrl, db } = await testDatabase(t);
  const deployment = deploy(t, databaseUrl);
  const process = await deployment.start({ LOG_LEVEL: 'trace' });
  const answers: string[] = [];
  const call: Call = async (as, method, url, body, headers) => {
    const answer = await process.call(as, method, url, body, headers);
    answers.push(JSON.stringify([answer.status, Object.fromEntries(answer.headers), answer.json]));
    return answer;
  };
  t.equal(
    (
      await call('operator', 'POST', '/v1/teams', {
        slug: 'payments',
        name: 'Payments',
        admins: ['alice'],
      })
    ).status,
    201,
  );
  t.equal(
    (
      await call('alice', 'POST', list, {
        name: 'openai',
        type: 'openai',
        description: control,
        fields: { apiKey: canary },
      })
    ).status,
    201,
  );
  for (const [what, body] of badBodies(canary)) {
    if (typeof body !== 'string')
      t.ok((await call('alice', 'POST', list, body)).status >= 400, what);
  }
  for (const bytes of badBytes(canary, list, deployment.token('alice')))
    answers.push(await rawAnswer(process.port, bytes));
  process.child.kill('SIGTERM');
  await process.ended;
  const haystacks = [
    ...answers.map((text, index) => ({ place: `answer ${index}`, text })),
    { place: 'its output', text: process.output() },
    { place: 'its errors', text: process.errors() },
    ...(await everyColumn(db)),
  ];
  t.ok(process.output().split('\n').length > 30, 'it wrote a log');
  t.match(seek(new Map([['control', control]]), haystacks), [/answer/, /table credential$/]);
  t.same(seek(formsOf(canary), haystacks), []);
});

interface Stored {
  readonly id: string;
  readonly type: CredentialType;
  readonly secrets: readonly string[];
}
type Call = (
  as: string | null,
  method: string,
  url: string,
  body?: unknown,
  headers?: Record<string, string>,
) => Promise<{ status: number }>;

/**
 * One credential of every type, each secret field holding the canary; every request is made twice
 * with one idempotency key.
 */
async function storeEveryType(vault: TestVault): Promise<Stored[]> {
  const stored: Stored[] = [];
  for (const type of credentialTypes) {
    const fields = Object.entries(type.fields);
    const secrets =
      type.isOpen === true
        ? ['password', 'other']
        : fields.flatMap(([name, field]) => (field.class === 'secret' ? [name] : []));
    const open = type.isOpen === true ? {} : (typeSamples[type.name]?.public ?? {});
    const body = {
      name: `${type.name} of all`,
      type: type.name,
      description: control,
      fields: {
        ...open,
        ...valuesOf(secrets, canary, type),
        ...(type.isOpen === true ? { note: control } : {}),
      },
      ...(type.isOpen === true ? { publicFieldNames: ['note'] } : {}),
      ...(type.isForVault === true ? { policy: { delivery: ['lease'], allowedHosts: [] } } : {}),
    };
    const first = await demand(
      vault.call('alice', 'POST', list, body, { 'idempotency-key': `${canary}-${type.name}` }),
      201,
    );
    const second = await demand(
      vault.call('alice', 'POST', list, body, { 'idempotency-key': `${canary}-${type.name}` }),
      201,
    );
    if (second.id !== first.id) throw new Error('the second request made another');
    stored.push({ id: first.id, type, secrets });
  }
  return stored;
}

const valuesOf = (
  names: readonly string[],
  value: string,
  { name: type }: CredentialType,
): Record<string, string> =>
  Object.fromEntries(names.map((name) => [name, secretOf(type, name, value)]));

/** What an engine gets of them: where tokens are stored, the access token alone. */
const leased = (type: CredentialType, secrets: readonly string[]): readonly string[] =>
  type.oauth === undefined ? secrets : secrets.filter((name) => name === 'accessToken');

async function useAll(
  t: Tap,
  vault: TestVault,
  engine: TestEngine,
  stored: readonly Stored[],
): Promise<void> {
  const patch = (id: string, body: unknown) =>
    vault.call('eddie', 'PATCH', `/v1/credentials/${id}`, body, any);
  const lease = async (id: string): Promise<Readonly<Record<string, unknown>>> => {
    const {
      credentials: [leased],
    } = await openAnswer(
      vault,
      engine,
      await askLease(vault, 'n8n', [{ id }], {
        purpose: control,
        runId: control,
        subjectToken: await vault.token('alice', { jti: canary }),
      }),
    );
    return leased !== undefined && !leased.notModified ? leased.fields : {};
  };
  for (const { id, type, secrets } of stored) {
    t.match(
      await lease(id),
      valuesOf(leased(type, secrets), canary, type),
      `${type.name}: what is stored is the secret`,
    );
    await demand(patch(id, { name: `${type.name} renamed`, labels: { env: 'test' } }), 200);
    await demand(patch(id, { fields: valuesOf(secrets.slice(0, 1), `${canary}-next`, type) }), 200);
    t.match(
      await lease(id),
      valuesOf(leased(type, secrets.slice(0, 1)), `${canary}-next`, type),
      `${type.name}: and the next one`,
    );
    t.match(
      await openSecrets(vault, id),
      valuesOf(secrets.slice(1), canary, type),
      `${type.name}: a merge keeps the others`,
    );
    const wider = { policy: { delivery: ['lease'], allowedHosts: ['elsewhere.example'] } };
    t.equal(
      (await patch(id, { ...wider, fields: valuesOf(secrets, canary, type) })).status,
      403,
      `${type.name}: wider by an editor`,
    );
    if (secrets.length > 0)
      t.equal(
        (await vault.call('alice', 'PATCH', `/v1/credentials/${id}`, wider, any)).status,
        422,
        `${type.name}: wider without the secrets`,
      );
    await demand(
      vault.call(
        'alice',
        'PATCH',
        `/v1/credentials/${id}`,
        { ...wider, fields: valuesOf(secrets, canary, type) },
        any,
      ),
      200,
    );
    t.equal(
      (
        await vault.call(
          'vera',
          'PATCH',
          `/v1/credentials/${id}`,
          { fields: valuesOf(secrets, canary, type) },
          any,
        )
      ).status,
      403,
    );
    t.equal(
      (
        await vault.call(
          'stranger',
          'PATCH',
          `/v1/credentials/${id}`,
          { fields: valuesOf(secrets, canary, type) },
          any,
        )
      ).status,
      404,
    );
    await demand(vault.call('eddie', 'POST', `/v1/credentials/${id}/disable`), 200);
    t.equal((await askLease(vault, 'n8n', [{ id }])).status, 422);
    await demand(vault.call('eddie', 'POST', `/v1/credentials/${id}/enable`), 200);
    for (const path of ['', '/versions', '/versions?limit=1'])
      await demand(vault.call('vera', 'GET', `/v1/credentials/${id}${path}`), 200);
    await demand(vault.call('vera', 'GET', `/v1/credential-types/${type.name}`), 200);
  }
  const {
    items: [{ id: oldKey }],
  } = await demand(vault.call('alice', 'GET', '/v1/teams/payments/keys'), 200);
  const { id: rotation } = await demand(
    vault.call('alice', 'POST', '/v1/teams/payments/key-rotations'),
    202,
  );
  const of = `/v1/teams/payments/key-rotations/${rotation}`;
  await until(async () => (await vault.call('alice', 'GET', of)).json.state === 'completed');
  await demand(vault.call('alice', 'POST', `/v1/teams/payments/keys/${oldKey}/retire`), 200);
  for (const { id, secrets, type } of stored)
    t.match(
      await lease(id),
      valuesOf(leased(type, secrets), canary, type),
      `${type.name}: after the rotation`,
    );
  await demand(
    vault.call('operator', 'POST', `/v1/engines/${engine.id}/keys`, {
      key: generateEngineKey('P-256').publicJwk,
    }),
    201,
  );
  await vault.call('eddie', 'DELETE', `/v1/credentials/${stored.at(-1)!.id}`, undefined, any);
  for (const [as, url] of [
    ['vera', list],
    ['vera', `${list}?limit=1`],
    ['vera', `${list}?type=openai&label=env:test&namePrefix=o`],
    ['vera', `${list}?deleted=true`],
    ['vera', '/v1/credentials'],
    ['vera', '/v1/credential-types'],
    ['alice', '/v1/whoami'],
    ['alice', '/v1/teams'],
    ['alice', '/v1/teams/payments'],
    ['alice', '/v1/teams/payments/members'],
    ['audrey', '/v1/teams/payments/keys'],
    ['audrey', `/v1/teams/payments/keys/${oldKey}`],
    ['audrey', '/v1/teams/payments/key-rotations'],
    ['audrey', of],
    ['audrey', '/v1/teams/payments/audit-events?limit=200'],
    ['operator', '/v1/engines'],
    ['operator', `/v1/engines/${engine.id}`],
    [null, '/.well-known/jwks.json'],
    [null, '/openapi.json'],
    [null, '/docs'],
    [null, '/healthz'],
    [null, '/readyz'],
  ] as const)
    t.equal((await vault.call(as, 'GET', url)).status, 200, url);
}

async function sendBadly(t: Tap, vault: TestVault, id: string): Promise<void> {
  const refused = async (what: string, answer: Promise<{ status: number }>): Promise<void> => {
    const { status } = await answer;
    t.ok(status >= 400 && status < 500, `${what}: ${status}`);
  };
  const alice = (
    method: string,
    url: string,
    body?: unknown,
    headers?: Record<string, string>,
  ): Promise<{ status: number }> => vault.call('alice', method, url, body, headers);
  const wrapped = encodeURIComponent(canary);
  for (const [what, body] of badBodies(canary)) {
    await refused(what, alice('POST', list, body));
    await refused(`${what}, with a key`, alice('POST', list, body, { 'idempotency-key': canary }));
    if (!/missing|that is none/.test(what))
      await refused(`${what}, as a change`, alice('PATCH', `/v1/credentials/${id}`, body, any));
  }
  for (const [what, type] of [
    ['text', 'text/plain'],
    ['a form', 'application/x-www-form-urlencoded'],
    ['parts', 'multipart/form-data; boundary=x'],
    ['another charset', 'application/json; charset=utf-16'],
    ['its own type', `application/${canary}`],
  ] as const) {
    await refused(
      what,
      alice('POST', list, `{"fields":{"apiKey":"${canary}"}}`, { 'content-type': type }),
    );
  }
  await refused('compressed', alice('POST', list, canary, { 'content-encoding': 'gzip' }));
  for (const [method, url, body] of [
    ['POST', '/v1/leases', { credentials: [{ id: canary }], purpose: 'p' }],
    ['POST', '/v1/leases', { credentials: [{ team: 'payments', name: canary }], purpose: 'p' }],
    [
      'POST',
      '/v1/leases',
      { credentials: [{ id }], purpose: `${canary}\u0000`, runId: `${canary}\n` },
    ],
    ['POST', '/v1/leases', { credentials: [{ id }], purpose: 'p', subjectToken: canary }],
    [
      'POST',
      '/v1/leases',
      { credentials: [{ id }], purpose: 'p', subjectToken: `${canary}.${canary}.${canary}` },
    ],
    ['POST', '/v1/leases', { credentials: [{ id }], purpose: 'p', keyId: canary }],
    ['PUT', '/v1/teams/payments/members/bob', { role: canary }],
    ['PUT', '/v1/teams/payments/members/bob', { role: 'viewer', [canary]: canary }],
    ['PUT', `/v1/teams/payments/members/${wrapped}`, { role: 'nonsense' }],
    ['DELETE', `/v1/teams/payments/members/${wrapped}`, undefined],
    ['PATCH', '/v1/teams/payments', { name: `${canary}\u0000` }],
    ['GET', `/v1/${wrapped}`, undefined],
    ['GET', `/v1/teams/${wrapped}`, undefined],
    ['GET', `/v1/credentials/${wrapped}`, undefined],
    ['GET', `/v1/credential-types/${wrapped}`, undefined],
    ['GET', `/v1/teams/payments/keys/${wrapped}`, undefined],
    ['POST', `/v1/teams/payments/key-rotations/${wrapped}/cancel`, undefined],
    ['GET', `/v1/teams/${wrapped}%zz`, undefined],
    ['GET', `/v1/teams/${wrapped.repeat(50)}`, undefined],
    ['GET', `/%00${wrapped}`, undefined],
    ['OPTIONS', `/v1/credentials/${wrapped}`, undefined],
    ['PUT', `/v1/credentials/${wrapped}`, canary],
    ...[
      `${wrapped}=1`,
      `cursor=${wrapped}`,
      `limit=${wrapped}`,
      `type=${wrapped}`,
      `problem=${wrapped}`,
      `label=${wrapped}`,
      `deleted=${wrapped}`,
      `namePrefix=${wrapped}%00`,
      `access_token=${wrapped}`,
      `namePrefix=x&namePrefix=${wrapped}`,
    ].map((query) => ['GET', `${list}?${query}`, undefined] as const),
  ] as const) {
    for (const as of method === 'POST' && url === '/v1/leases'
      ? ['n8n', 'alice']
      : ['alice', 'stranger', null])
      await refused(`${method} ${url.slice(0, 80)}`, vault.call(as, method, url, body, any));
  }
  for (const body of [
    { slug: `${canary}!`, name: 'x', admins: ['alice'] },
    { slug: 'xx', name: `${canary}\u0000`, admins: ['alice'] },
    { slug: 'xx', name: 'x', admins: [`${canary} `] },
    { slug: 'xx', name: 'x', admins: ['alice'], [canary]: canary },
  ])
    await refused('a team', vault.call('operator', 'POST', '/v1/teams', body));
  const { publicJwk } = generateEngineKey();
  for (const key of [
    { ...publicJwk, d: canary },
    { ...publicJwk, x: canary },
    { ...publicJwk, [canary]: canary },
    { ...publicJwk, kid: canary },
    { kty: 'oct', k: canary },
    canary,
  ]) {
    await refused(
      'an engine',
      vault.call('operator', 'POST', '/v1/engines', { name: 'x', subject: 'x', keys: [key] }),
    );
  }
  const authorizations = [
    `Bearer ${canary}`,
    `Bearer ${canary}.${canary}.${canary}`,
    `Basic ${Buffer.from(`u:${canary}`).toString('base64')}`,
    canary,
    `Bearer ${(await vault.token('alice')).slice(0, -8)}${canary.slice(-8)}`,
  ];
  for (const authorization of authorizations)
    await refused('a token', vault.call(null, 'GET', '/v1/whoami', undefined, { authorization }));
  await refused(
    'a stale tag',
    alice('DELETE', `/v1/credentials/${id}`, undefined, { 'if-match': `"${canary}"` }),
  );
  await refused(
    'a key for idempotency',
    alice('POST', list, {}, { 'idempotency-key': `${canary} ${canary}` }),
  );
  // Headers that the vault does not read, and claims that it does not know: the answer is good, and
  // nothing of them is kept.
  const strangers = Object.fromEntries(
    [
      'x-request-id',
      'user-agent',
      'cookie',
      'x-forwarded-for',
      'forwarded',
      'referer',
      'origin',
      'accept',
      'traceparent',
      'x-api-key',
      canary,
    ].map((name) => [name, canary]),
  );
  t.equal((await vault.call('alice', 'GET', '/v1/whoami', undefined, strangers)).status, 200);
  const authorization = `Bearer ${await vault.token('alice', { email: canary, scope: canary, jti: canary, name: { deep: canary } })}`;
  t.equal((await vault.call(null, 'GET', '/v1/whoami', undefined, { authorization })).status, 200);
  await refused(
    'a subject that is none',
    vault.call(null, 'GET', '/v1/whoami', undefined, {
      authorization: `Bearer ${await vault.token(`${canary} `)}`,
    }),
  );

  const port = Number(new URL(await vault.app.listen({ port: 0, host: '127.0.0.1' })).port);
  for (const bytes of badBytes(canary, list, await vault.token('alice')))
    vault.answers.push(await rawAnswer(port, bytes));
}

async function failBelow(t: Tap, vault: TestVault, stored: readonly Stored[]): Promise<void> {
  const [first, second] = stored;
  const good = (name: string): object => ({
    name,
    type: 'openai',
    description: control,
    fields: { apiKey: canary },
  });
  const one = async (
    status: number,
    what: string,
    answer: Promise<{ status: number; text: string }>,
  ): Promise<void> => {
    const { status: got, text } = await answer;
    t.equal(got, status, `${what}: ${text}`);
  };
  const create = (of: TestVault = vault): Promise<{ status: number; text: string }> =>
    of.call('alice', 'POST', list, good(randomUUIDv7()));
  await sql`alter table credential_version add constraint never check (secret_field_names <> '{apiKey}') not valid`.execute(
    vault.db,
  );
  await one(500, 'a constraint', create());
  await sql`alter table credential_version drop constraint never`.execute(vault.db);
  await sql`create function tell() returns trigger language plpgsql as $$ begin raise exception 'all of it: %', to_jsonb(new) using detail = to_jsonb(new)::text, hint = new.token; end $$`.execute(
    vault.db,
  );
  await sql`create trigger tell before insert on credential_version for each row execute function tell()`.execute(
    vault.db,
  );
  await one(500, 'a trigger that tells all it knows', create());
  await sql`drop trigger tell on credential_version`.execute(vault.db);

  const proxy = await databaseProxy(t, vault.databaseUrl);
  const database = openDatabase({
    url: `postgresql://vault@127.0.0.1:${proxy.port}/${new URL(vault.databaseUrl).pathname.slice(1)}`,
    statementTimeoutMs: 300,
    onError: () => undefined,
  });
  t.teardown(() => database.close());
  const through = await startVault(t, {
    database: { url: vault.databaseUrl, db: database.db },
    rootKey: vault.rootKey,
  });
  for (const [what, harm] of [
    ['cut', proxy.cutAnswerTo],
    ['silent', proxy.swallow],
  ] as const) {
    harm('insert into credential');
    await one(503, `the line to the database, ${what} at the insert`, create(through));
    harm('insert into credential_version');
    await one(
      503,
      `the line to the database, ${what} in a change`,
      through.call(
        'alice',
        'PATCH',
        `/v1/credentials/${first!.id}`,
        { fields: valuesOf(first!.secrets, canary, first!.type) },
        any,
      ),
    );
  }
  await intrude(
    vault.db,
    `update credential_version set token = (select token from credential_version where credential_id = '${first!.id}' limit 1) where credential_id = '${second!.id}'`,
  );
  await one(422, 'a token of another credential', askLease(vault, 'n8n', [{ id: second!.id }]));
  await one(
    200,
    'which all its secrets repair',
    vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${second!.id}`,
      { fields: valuesOf(second!.secrets, canary, second!.type) },
      any,
    ),
  );
  await vault.team('locked');
  await intrude(
    vault.db,
    `insert into root_key (fingerprint, canary) values ('0123456789abcdef', '\\x00') on conflict do nothing`,
    `update data_key set root_fingerprint = '0123456789abcdef'`,
  );
  vault.keyring.forget();
  await one(
    503,
    'a key whose root key is not there',
    vault.call('alice', 'POST', '/v1/teams/locked/credentials', good('n')),
  );
  await one(503, 'nor for a lease', askLease(vault, 'n8n', [{ id: first!.id }]));
  vault.answers.push(...through.answers);
  vault.logs.push(...through.logs);
}
