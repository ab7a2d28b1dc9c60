// Types of a platform's own: who declares them, what is refused, what a stored secret may rely on,
// and that everything that works with a type of the vault's works with them, on every replica.
import { randomBytes } from 'node:crypto';
import { sql } from 'kysely';
import t, { type Test as Tap } from 'tap';
import { verifyAll } from '../../src/integrity/verify.ts';
import { brief } from '../helpers/faults.ts';
import { startBroker } from '../helpers/broker.ts';
import { purge } from '../helpers/intruder.ts';
import { askLease, demand, openAnswer } from '../helpers/leases.ts';
import { openSecrets } from '../helpers/stored.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

t.setTimeout(180_000);

const any = { 'if-match': '*' };
const path = '/v1/credential-types/acme.crm';
const secretField = { name: 'apiKey', title: 'API key', class: 'secret', isRequired: true };
const server = {
  name: 'server',
  title: 'Server',
  class: 'public',
  form: 'httpsUrl',
  isRequired: true,
};
const crm = {
  title: 'Acme CRM',
  description: 'An API key of Acme.',
  fields: [
    secretField,
    server,
    { name: 'region', title: 'Region', class: 'public', form: 'text', isRequired: false },
  ],
  injection: { kind: 'header', field: 'apiKey', name: 'X-Acme-Key' },
  upstream: { kind: 'field', field: 'server' },
  test: { method: 'GET', path: '/v1/me', accepted: [403], refusal: { member: 'ok', by: 'false' } },
};
const note = { name: 'note', title: 'Note', class: 'public', form: 'text', isRequired: false };
const more = { name: 'pin', title: 'PIN', class: 'secret', isRequired: false };

const put = (
  vault: TestVault,
  declaration: object,
  headers: Record<string, string> = any,
  as: string | null = 'operator',
  at = path,
): Promise<Answer> => vault.call(as, 'PUT', at, declaration, headers);
const declare = (vault: TestVault, declaration: object = crm): Promise<any> =>
  demand(put(vault, declaration, {}), 200);
const create = (
  vault: TestVault,
  fields: object,
  more: object = {},
  as = 'alice',
): Promise<Answer> =>
  vault.call(as, 'POST', '/v1/teams/payments/credentials', {
    name: randomBytes(6).toString('hex'),
    type: 'acme.crm',
    fields,
    ...more,
  });
const faultsOf = ({ status, json }: Answer): string[] => [
  String(status),
  ...brief(json.errors ?? []).map(({ pointer, rule }) => `${pointer} ${rule}`),
];
const apiKey = 'acme-0123456789abcdef';
const at = { server: 'https://crm.test' };

/** A vault with a team, and another replica on the same database. */
async function replicas(t: Tap): Promise<{ vault: TestVault; other: TestVault }> {
  const vault = await startVault(t);
  await vault.team('payments');
  const { databaseUrl: url, db, rootKey } = vault;
  return { vault, other: await startVault(t, { database: { url, db }, rootKey }) };
}

t.test('the platform operator declares a type; everybody reads it, on every replica', async (t) => {
  const { vault, other } = await replicas(t);
  t.equal((await put(vault, crm, {}, null)).status, 401);
  for (const who of ['alice', 'stranger']) {
    t.equal((await put(vault, crm, {}, who)).status, 403, who);
    t.equal((await vault.call(who, 'DELETE', path, undefined, any)).status, 403, who);
  }
  t.equal((await create(vault, { apiKey, ...at })).status, 400, 'nothing of it is there yet');
  const made = await put(vault, crm, {});
  t.match([made.status, made.headers['etag']], [200, '"1"']);
  t.match(made.json, {
    name: 'acme.crm',
    declaration: crm,
    publicFields: ['server', 'region'],
    createdBy: 'operator',
  });
  // At the next request of another replica.
  const { items } = await demand(other.call('stranger', 'GET', '/v1/credential-types'), 200);
  const listed = items.at(-1);
  t.match(listed, {
    name: 'acme.crm',
    declaration: crm,
    revision: 1,
    isTestable: true,
    isInjectable: true,
    target: 'fields',
  });
  t.same(
    listed.fields.map((each: any) => [each.name, each.class, each.isDestination]),
    [
      ['apiKey', 'secret', false],
      ['server', 'public', true],
      ['region', 'public', false],
    ],
  );
  t.match(await demand(other.call('stranger', 'GET', path), 200), {
    $id: 'urn:credential-vault:type:acme.crm',
    properties: { apiKey: { writeOnly: true }, server: { format: 'uri' } },
    required: ['apiKey', 'server'],
  });
  const credential = await demand(create(other, { apiKey, ...at }), 201);
  t.match(credential, { type: 'acme.crm', publicFields: at, secretFields: ['apiKey'] });
  t.same(await openSecrets(vault, credential.id), { apiKey });
  t.equal((await vault.call('operator', 'GET', '/v1/credential-types/no.such')).status, 404);

  t.equal((await put(vault, crm, {})).status, 428, 'If-Match is needed of what is there');
  t.equal((await put(vault, crm, { 'if-match': '"7"' })).status, 412);
  t.equal((await put(vault, crm, any, 'operator', '/v1/credential-types/no.such')).status, 412);
  t.equal((await put(vault, crm)).json.revision, 1, 'the same is no change');
  const events = await sql<{ action: string; target: string; details: any }>`
    select action, target_id as target, details from audit_event where target_type = 'credentialType' order by at`.execute(
    vault.db,
  );
  t.match(events.rows, [
    {
      action: 'credentialType.declare',
      target: 'acme.crm',
      details: { revision: 1, publicFields: ['server', 'region'], secretFields: ['apiKey'] },
    },
  ]);
});

t.test('400: what no declaration may say', async (t) => {
  const vault = await startVault(t);
  for (const name of [
    'acme',
    'Acme.crm',
    'acme..crm',
    '.acme',
    'acme.',
    'acme.crm-',
    `a.${'b'.repeat(60)}`,
  ])
    t.equal(
      (await put(vault, crm, {}, 'operator', `/v1/credential-types/${name}`)).status,
      400,
      name,
    );
  const withHeader = (name: string): object => ({
    ...crm,
    injection: { kind: 'header', field: 'apiKey', name },
  });
  for (const name of [
    ...['Host', 'Connection', 'Transfer-Encoding', 'Content-Length', 'content-type', 'Cookie'],
    ...['X-Forwarded-For', 'X-HTTP-Method-Override', 'X-Original-URL', 'Range', 'Expect', 'TE'],
    ...[
      'Upgrade',
      'Forwarded',
      'Via',
      'X-Real-IP',
      'Destination',
      'X-Copy-From',
      'Accept-Encoding',
    ],
  ])
    t.same(
      faultsOf(await put(vault, withHeader(name), {})),
      ['400', '/injection/name headerTaken'],
      name,
    );
  for (const name of ['x_forwarded_for', 'X.Api', 'X Y', 'X-Key\r\nHost', ''])
    t.equal((await put(vault, withHeader(name), {})).status, 400, JSON.stringify(name));
  for (const text of ['a\u202eb', 'a\nb', '<b>', 'x'.repeat(201), '', 'a\u200bb'])
    t.equal((await put(vault, { ...crm, title: text }, {})).status, 400, JSON.stringify(text));
  const fields = (...all: object[]): object => ({ ...crm, fields: all });
  for (const [declaration, ...faults] of [
    [fields(secretField), '/upstream/field notInFields'],
    [fields(secretField, secretField, server), '/fields/1/name unique'],
    [fields({ ...secretField, form: 'text' }, server), '/fields/0/form publicOnly'],
    [
      fields({ ...secretField, isRequired: false, default: 'x' }, server),
      '/fields/0/default publicOnly',
    ],
    [fields(secretField, { ...server, default: 'https://a.test' }), '/fields/1/isRequired notWith'],
    [fields({ ...secretField, isDestination: true }, server), '/fields/0/isDestination publicOnly'],
    [
      fields({ ...secretField, class: 'public', form: 'text' }, server),
      '/injection/field fieldUnfit',
    ],
    [
      fields(secretField, { ...server, form: undefined }),
      '/fields/1/form required',
      '/upstream/field fieldUnfit',
    ],
    [fields(secretField, { ...server, form: 'text' }), '/upstream/field fieldUnfit'],
    [fields(secretField, { ...server, isRequired: false }), '/upstream/field fieldUnfit'],
    [fields(secretField, server, { ...note, name: '__proto__' }), '/fields/2/name memberName'],
    [fields(secretField, server, { ...note, name: 'toString' }), '/fields/2/name memberName'],
    [fields(secretField, server, { ...note, form: 'choice' }), '/fields/2/choices required'],
    [fields(secretField, server, { ...note, choices: ['a'] }), '/fields/2/choices choiceOnly'],
    [
      fields(secretField, server, { ...note, form: 'port', default: 70_000 }),
      '/fields/2/default max:65535',
    ],
    [
      { ...crm, injection: { kind: 'bearer' }, upstream: crm.upstream },
      '/injection/field required',
    ],
    [
      { ...crm, injection: { kind: 'bearer', field: 'apiKey', name: 'X' } },
      '/injection/name unknownField',
    ],
    [{ ...crm, injection: undefined }, '/injection required', '/test needsInjection'],
    [{ ...crm, upstream: undefined }, '/upstream required'],
    [{ ...crm, upstream: { kind: 'secret' } }, '/upstream/kind fieldUnfit', '/test fieldUnfit'],
    [{ ...crm, upstream: { kind: 'policy' } }, '/test fieldUnfit'],
    [
      { ...crm, upstream: { kind: 'fixed', baseUrl: 'https://127.0.0.1' } },
      '/upstream/baseUrl plainHttpsUrl',
    ],
    [
      { ...crm, upstream: { kind: 'fixed', baseUrl: 'https://a.test/../x' } },
      '/upstream/baseUrl plainHttpsUrl',
    ],
    [{ ...crm, test: { method: 'GET', path: '/a/../b' } }, '/test/path dotSegment'],
    [{ ...crm, test: { method: 'GET', path: '/{apiKey}' } }, '/test/path fieldUnfit'],
    [{ ...crm, test: { method: 'GET', path: '/{region}' } }, '/test/path fieldUnfit'],
    [{ ...crm, test: { method: 'GET', path: '/{nothing}' } }, '/test/path notInFields'],
    [
      { ...crm, injection: { kind: 'path', field: 'apiKey', before: '/a/..' } },
      '/injection/before dotSegment',
    ],
    [{ ...crm, pattern: '(a+)+$' }, '/pattern unknownField'],
    [fields({ ...secretField, pattern: '(a+)+$' }, server), '/fields/0/pattern unknownField'],
  ] as const) {
    const answer = await put(vault, declaration, {});
    t.same(faultsOf(answer), ['400', ...faults], JSON.stringify(declaration).slice(0, 300));
  }
  t.same(await sql`select 1 from credential_type`.execute(vault.db).then(({ rows }) => rows), []);
});

t.test('a type in use takes fields that harm nothing, and no other change', async (t) => {
  const { vault, other } = await replicas(t);
  await declare(vault);
  const { id } = await demand(create(vault, { apiKey, ...at }), 201);
  const changed = {
    title: { ...crm, title: 'Other' },
    'public secret': {
      ...crm,
      fields: [secretField, server, { ...crm.fields[2], isRequired: true }],
    },
    'a field less': { ...crm, fields: [secretField, server] },
    'another class': {
      ...crm,
      fields: [secretField, server, { ...more, name: 'region', title: 'Region' }],
    },
    injection: { ...crm, injection: { kind: 'bearer', field: 'apiKey' } },
    upstream: { ...crm, upstream: { kind: 'fixed', baseUrl: 'https://evil.test' } },
    test: { ...crm, test: { method: 'GET', path: '/other' } },
    'no test': { ...crm, test: undefined },
    'a required field': { ...crm, fields: [...crm.fields, { ...note, isRequired: true }] },
    'a default': { ...crm, fields: [...crm.fields, { ...note, default: 'x' }] },
    'a destination': { ...crm, fields: [...crm.fields, { ...note, isDestination: true }] },
    'a host': { ...crm, fields: [...crm.fields, { ...note, form: 'host' }] },
    'named by the test': {
      ...crm,
      fields: [...crm.fields, { ...note, isRequired: true }],
      test: { ...crm.test, path: '/{note}' },
    },
  };
  const refuseAll = async (why: string): Promise<void> => {
    for (const [what, declaration] of Object.entries(changed))
      t.match(
        (await put(other, declaration)).json,
        { status: 409, code: 'stateConflict' },
        `${why}: ${what}`,
      );
    t.match(
      (await vault.call('operator', 'DELETE', path, undefined, any)).json,
      { status: 409, code: 'stateConflict' },
      why,
    );
  };
  await refuseAll('in use');

  const added = { ...crm, fields: [...crm.fields, note, more] };
  t.equal((await demand(put(other, added), 200)).revision, 2);
  const patch = (body: object): Promise<Answer> =>
    vault.call('alice', 'PATCH', `/v1/credentials/${id}`, body, any);
  t.match(
    await demand(patch({ name: 'renamed' }), 200),
    { version: 1, publicFields: at },
    'a rename writes nothing',
  );
  t.same((await demand(vault.call('alice', 'GET', `/v1/credentials/${id}`), 200)).publicFields, at);
  t.match(await demand(patch({ fields: { note: 'hello' } }), 200), {
    version: 2,
    publicFields: { ...at, note: 'hello' },
  });
  t.match(await demand(patch({ fields: { pin: '1234' } }), 200), {
    version: 3,
    secretFields: ['apiKey', 'pin'],
  });
  t.same(await openSecrets(vault, id), { apiKey, pin: '1234' });
  t.match((await patch({ fields: { server: 'https://evil.test' } })).json, {
    status: 422,
    code: 'secretRequired',
  });
  await demand(vault.call('alice', 'POST', `/v1/credentials/${id}/versions/1/restore`), 200);
  t.match((await patch({ fields: { nope: 'x' } })).json.errors, [{ pointer: '/fields/nope' }]);

  // Deleted ones and offered ones count, for as long as their rows are there.
  await vault.team('others', ['olga']);
  await demand(
    vault.call('alice', 'POST', `/v1/credentials/${id}/transfers`, { team: 'others' }),
    201,
  );
  changed['a field less'] = { ...crm, fields: [secretField, server, note, more] };
  await refuseAll('offered');
  await demand(vault.call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any), 204);
  await refuseAll('deleted');
  await sql`delete from credential_transfer`.execute(vault.db);
  await purge(vault.db, id);
  t.equal((await put(vault, changed.upstream)).status, 200, 'nobody uses it any more');
  t.equal((await vault.call('operator', 'DELETE', path, undefined, any)).status, 204);
  t.equal((await vault.call('operator', 'DELETE', path, undefined, any)).status, 404);
  t.equal((await create(vault, { apiKey })).status, 400);
});

t.test('whether a type is in use is asked once the credentials under way are stored', async (t) => {
  const { vault } = await replicas(t);
  await declare(vault);
  const { id } = await demand(create(vault, { apiKey, ...at }), 201);
  const [row] = (
    await sql<{ type: string }>`select type from credential where id = ${id}`.execute(vault.db)
  ).rows;
  await sql`update credential set type = 'custom' where id = ${id}`.execute(vault.db);
  const { promise: held, resolve: go } = Promise.withResolvers<void>();
  const { promise: isHeld, resolve: tell } = Promise.withResolvers<void>();
  const storing = vault.db.transaction().execute(async (trx) => {
    await sql`select 1 from credential_type where name = 'acme.crm' for share`.execute(trx);
    tell();
    await held;
    await sql`update credential set type = ${row?.type} where id = ${id}`.execute(trx);
  });
  await isHeld;
  const changing = put(vault, {
    ...crm,
    upstream: { kind: 'fixed', baseUrl: 'https://evil.test' },
  });
  const removing = vault.call('operator', 'DELETE', path, undefined, any);
  // Both wait for a lock: what they would have answered without one is there by then.
  const waiting = async (): Promise<number> =>
    (
      await sql<{ count: number }>`
        select count(*)::int as count from pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'`.execute(vault.db)
    ).rows[0]?.count ?? 0;
  const settled = Promise.race([changing, removing]).then(() => true);
  while ((await waiting()) < 2)
    if (await Promise.race([settled, new Promise((resolve) => setImmediate(resolve, false))]))
      break;
  go();
  await storing;
  t.equal((await changing).status, 409);
  t.equal((await removing).status, 409);
});

t.test('a declaration put back, or tampered, opens nothing and sends nothing', async (t) => {
  const { vault, other } = await replicas(t);
  await declare(vault, { ...crm, upstream: { kind: 'fixed', baseUrl: 'https://evil.test' } });
  const [before] = (await sql<any>`select * from credential_type`.execute(vault.db)).rows;
  // Declared otherwise between two stores, as may be while nobody uses it.
  await demand(put(vault, crm), 200);
  const { id } = await demand(create(vault, { apiKey, ...at }), 201);
  const [now] = (await sql<any>`select * from credential_type`.execute(vault.db)).rows;
  const patch = (body: object): Promise<Answer> =>
    other.call('alice', 'PATCH', `/v1/credentials/${id}`, body, any);
  const write = async (row: any): Promise<void> => {
    await sql`update credential_type set id = ${row.id}, stored_name = ${row.stored_name},
      declaration = ${JSON.stringify(row.declaration)}::jsonb, revision = ${row.revision}, row_mac = ${row.row_mac}`.execute(
      vault.db,
    );
  };
  const tampered = (declaration: object): any => ({ ...now, declaration });
  for (const [what, row, isListed] of [
    ['the row of before', before, true],
    [
      'public fields',
      tampered({ ...crm, fields: [{ ...secretField, class: 'public', form: 'text' }, server] }),
      false,
    ],
    [
      'another upstream',
      tampered({ ...crm, upstream: { kind: 'fixed', baseUrl: 'https://evil.test' } }),
      false,
    ],
    ['another revision', { ...now, revision: 9 }, false],
  ] as const) {
    await write(row);
    const { items } = await demand(other.call('alice', 'GET', '/v1/credential-types'), 200);
    t.equal(
      items.some((each: any) => each.declaration !== null),
      isListed,
      what,
    );
    for (const fields of [{ apiKey: 'another-0123456789' }, { region: 'eu' }])
      t.match((await patch({ fields })).json, { status: 409, code: 'stateConflict' }, what);
    t.match(
      (await other.call('alice', 'POST', `/v1/credentials/${id}/test`)).json,
      { status: 422, code: 'notTestable' },
      what,
    );
    if (!isListed) {
      t.equal((await create(other, { apiKey, ...at })).status, 400, what);
      const found: any[] = [];
      await verifyAll(vault, {
        onFinding: (finding) => {
          found.push(finding);
        },
        isStopping: () => false,
      });
      t.ok(JSON.stringify(found).includes('credential_type'), `${what}: verify finds it`);
    }
  }
  await write(now);
  t.match(await demand(patch({ fields: { region: 'eu' } }), 200), { version: 2 });
  // A credential's row that names another declaration is not the vault's.
  await sql`update credential set type = ${before.stored_name} where id = ${id}`.execute(vault.db);
  t.equal((await other.call('alice', 'GET', `/v1/credentials/${id}`)).status, 404);
});

t.test('broker, test, lease, lists, history and rotation work as with every type', async (t) => {
  const seen: { key: unknown; url: string | undefined }[] = [];
  let answer = '{"ok":true}';
  const stage = await startBroker(t, (request, response) => {
    seen.push({ key: request.headers['x-acme-key'], url: request.url });
    response.setHeader('content-type', 'application/json').end(answer);
  });
  const { vault, upstream, engine } = stage;
  await declare(vault);
  const { id } = await demand(
    create(
      vault,
      { apiKey, server: `https://${upstream.host}:${upstream.port}/base` },
      { name: 'crm', policy: { delivery: ['lease', 'broker'], allowedHosts: [] } },
    ),
    201,
  );
  const ticket = await stage.newTicket({}, id);
  const called = await stage.call('GET', '/contacts?page=2', {
    ticket,
    headers: { 'x-acme-key': 'of the caller', x_acme_key: 'the same' },
  });
  t.match([called.status, called.text], [200, answer]);
  t.same(seen, [{ key: apiKey, url: '/base/contacts?page=2' }]);
  const test = (): Promise<any> =>
    demand(vault.call('alice', 'POST', `/v1/credentials/${id}/test`), 200);
  t.equal((await test()).ok, true);
  answer = '{"ok":false}';
  t.match((await test()).steps.at(-1), { step: 'login', outcome: 'refused' });
  t.match(
    (await create(vault, { apiKey: 'short', ...at }, { policy: { delivery: ['broker'] } })).json
      .errors,
    [{ pointer: '/fields/apiKey', rule: 'minBytes' }],
  );

  const lease = await openAnswer(vault, engine, await askLease(vault, 'n8n', [{ id }]));
  t.match(lease.credentials[0], { type: 'acme.crm', fields: { apiKey } });
  for (const list of ['/v1/credentials', '/v1/teams/payments/credentials']) {
    const { items } = await demand(vault.call('alice', 'GET', `${list}?type=acme.crm`), 200);
    t.match(items, [{ id, type: 'acme.crm' }], list);
    const names = await demand(vault.call('alice', 'GET', `${list}?type=acme.crm&view=names`), 200);
    t.match(names.items, [{ id, type: 'acme.crm' }], `${list} names`);
  }
  t.same(
    (await demand(vault.call('alice', 'GET', '/v1/credentials?type=acme.other'), 200)).items,
    [],
  );

  const update = { fields: { region: 'eu' } };
  await demand(vault.call('alice', 'PATCH', `/v1/credentials/${id}`, update, any), 200);
  await demand(vault.call('alice', 'POST', `/v1/credentials/${id}/versions/1/restore`), 200);
  await demand(vault.call('alice', 'POST', '/v1/teams/payments/key-rotations', {}), 202);
  t.same(await openSecrets(vault, id), { apiKey });
  const byName = { type: 'acme.crm', fields: { region: 'us' } };
  t.match(
    await demand(
      vault.call('alice', 'PUT', '/v1/teams/payments/credentials/crm', byName, any),
      200,
    ),
    { action: 'changed', credential: { type: 'acme.crm' } },
  );
  const other = { ...byName, type: 'openai' };
  t.equal(
    (await vault.call('alice', 'PUT', '/v1/teams/payments/credentials/crm', other, any)).status,
    400,
  );
  const exported = (await vault.call('alice', 'GET', '/v1/teams/payments/export')).text;
  t.match(exported, /"type":"acme\.crm"/);
  for (const text of [...vault.answers, ...vault.logs]) t.notMatch(text, /acme\.crm#/);
});
