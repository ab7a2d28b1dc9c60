// Changing a credential: what is kept, what is cleared, what makes a version, and that no stored
// secret follows a destination or a policy that its writer did not know.
import t from 'tap';
import { credentialTypes, findType } from '../../src/credentials/types/registry.ts';
import { openSecrets, openVersions } from '../helpers/stored.ts';
import { anotherValue, freeFields, secretOf, typeSamples } from '../helpers/type-samples.ts';
import { type Answer, startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const hidden = 'kept-secret-value';

t.test('changing credentials', async (t) => {
  const vault = await startVault(t);
  const { call } = vault;
  await vault.team('payments');
  await vault.member('payments', 'ed', 'editor');
  let n = 0;
  const make = async (type: string, fields: object, more: object = {}): Promise<string> => {
    const answer = await call('alice', 'POST', '/v1/teams/payments/credentials', {
      name: `c${(n += 1)}`,
      type,
      fields,
      ...more,
    });
    if (answer.status !== 201) throw new Error(answer.text);
    return answer.json.id;
  };
  const patch = (id: string, body: object, ifMatch = '*', as = 'ed'): Promise<Answer> =>
    call(as, 'PATCH', `/v1/credentials/${id}`, body, { 'if-match': ifMatch });
  const get = async (id: string): Promise<any> =>
    (await call('ed', 'GET', `/v1/credentials/${id}`)).json;

  t.test('428, 412, and an ETag that grows by every change and by nothing else', async (t) => {
    const id = await make('openai', { apiKey: 'a' });
    t.equal((await call('ed', 'PATCH', `/v1/credentials/${id}`, { description: 'x' })).status, 428);
    t.equal((await call('ed', 'DELETE', `/v1/credentials/${id}`)).status, 428);
    t.equal((await patch(id, { description: 'x' }, '"2"')).status, 412);
    const first = await patch(id, { description: 'x' }, '"1"');
    t.match(
      [first.status, first.headers['etag'], first.json],
      [200, '"2"', { revision: 2, version: 1, description: 'x', updatedBy: 'ed' }],
    );
    for (const nothing of [
      {},
      { description: 'x' },
      { name: first.json.name },
      { labels: {} },
      { labels: null },
      { fields: {} },
      { expiresAt: null },
      { rotateAfter: null },
      { policy: { delivery: ['lease'], allowedHosts: [] } },
      { fields: { baseUrl: 'https://api.openai.com' } },
      { fields: { baseUrl: null } },
    ]) {
      const same = await patch(id, nothing, '"2"');
      t.match(
        [same.status, same.headers['etag'], same.json],
        [200, '"2"', { version: 1, updatedAt: first.json.updatedAt }],
        JSON.stringify(nothing),
      );
    }
    const changes: readonly (readonly [object, object])[] = [
      [{ name: 'renamed' }, { name: 'renamed', version: 1 }],
      [{ labels: { env: 'prod' } }, { labels: { env: 'prod' }, version: 1 }],
      [{ labels: null }, { labels: {} }],
      [{ description: null }, { description: null }],
      [
        { expiresAt: '2099-01-31T00:00:00+02:00' },
        { expiresAt: '2099-01-30T22:00:00.000Z', version: 1 },
      ],
      [{ expiresAt: null }, { expiresAt: null }],
      [
        { rotateAfter: '2099-01-31T00:00:00+02:00' },
        { rotateAfter: '2099-01-30T22:00:00.000Z', version: 1, health: 'ok' },
      ],
      [{ rotateAfter: null }, { rotateAfter: null }],
      [{ fields: { apiKey: 'a' } }, { version: 2 }],
      [{ policy: { delivery: [], allowedHosts: [] } }, { version: 3, policy: { delivery: [] } }],
    ];
    let revision = 2;
    for (const [change, expected] of changes) {
      const answer = await patch(id, change, `"${revision}"`);
      t.match(
        [answer.status, answer.headers['etag'], answer.json],
        [200, `"${(revision += 1)}"`, expected],
        JSON.stringify(change),
      );
    }
    t.match(
      (await patch(id, { type: 'google' })).json,
      { errors: [{ pointer: '/type', rule: 'unknownField' }] },
      'the type never changes',
    );
    t.match((await patch(id, { publicFieldNames: ['apiKey'] })).json, {
      errors: [{ pointer: '/publicFieldNames', rule: 'unknownField' }],
    });
    const before = await get(id);
    await call('alice', 'POST', '/v1/teams/payments/key-rotations');
    vault.start();
    const { until } = await import('../helpers/processes.ts');
    await until(
      async () =>
        (await call('alice', 'GET', '/v1/teams/payments/key-rotations')).json.items[0]?.state ===
        'completed',
    );
    t.strictSame(
      await get(id),
      before,
      're-encryption changes neither ETag nor version nor updatedAt',
    );
  });

  t.test("taken names are refused, one's own is not", async (t) => {
    const [one, other] = [
      await make('openai', { apiKey: 'a' }),
      await make('openai', { apiKey: 'a' }),
    ];
    const { name } = await get(other);
    t.equal((await patch(one, { name })).json.code, 'nameTaken');
    t.equal((await patch(one, { name, fields: { apiKey: 'b' } })).json.code, 'nameTaken');
    t.match(await get(one), { revision: 1, version: 1 }, 'nothing of it happened');
    t.strictSame(await openSecrets(vault, one), { apiKey: 'a' });
  });

  t.test('omitted keeps, null clears, a value replaces; what is required stays', async (t) => {
    const id = await make(
      'custom',
      { a: 'A', b: 'B', c: 'C', region: 'eu' },
      { publicFieldNames: ['region'] },
    );
    await patch(id, { fields: { b: 'B2', d: 'D' } });
    t.strictSame(await openSecrets(vault, id), { a: 'A', b: 'B2', c: 'C', d: 'D' });
    await patch(id, { fields: { a: null } });
    t.strictSame(await openSecrets(vault, id), { b: 'B2', c: 'C', d: 'D' });
    t.strictSame((await get(id)).secretFields, ['b', 'c', 'd']);
    const { version } = await get(id);
    t.match(
      (await patch(id, { fields: { ghost: null } })).json,
      { version },
      'clearing what is not there is no change',
    );
    await patch(id, { fields: { b: null, c: null, d: null } });
    t.strictSame([await openSecrets(vault, id), (await get(id)).secretFields], [{}, []]);
    t.match((await patch(id, { fields: { region: null } })).json, {
      errors: [{ pointer: '/fields', rule: 'min', min: 1 }],
    });
    const openai = await make('openai', { apiKey: 'a', baseUrl: 'https://eu.example.com' });
    t.match((await patch(openai, { fields: { apiKey: null } })).json, {
      code: 'invalidRequest',
      errors: [{ pointer: '/fields/apiKey', rule: 'required' }],
    });
    const smtp = await make('smtp', { host: 'a', username: 'u', password: 'p' });
    t.match((await patch(smtp, { fields: { host: null, password: 'q' } })).json, {
      errors: [{ pointer: '/fields/host', rule: 'required' }],
    });
    t.match(
      (await patch(smtp, { fields: { port: 'x', password: '***', nothing: 1 } })).json.errors
        .map(({ pointer, rule }: any) => `${pointer} ${rule}`)
        .sort(),
      ['/fields/nothing unknownField', '/fields/password mask', '/fields/port type'],
    );
    const redis = await make('redis', { host: 'r', password: 'p' });
    t.match(
      (await patch(redis, { fields: { password: null } })).json,
      { secretFields: [], version: 2 },
      'an optional secret can go',
    );
    t.match((await patch(redis, { fields: { db: 3 } })).json, {
      publicFields: { db: 3, host: 'r', port: 6379 },
    });
    t.match(
      (await patch(redis, { fields: { db: null } })).json,
      { publicFields: { db: 0 } },
      'null asks for the default',
    );
  });

  t.test('the class of a field never changes', async (t) => {
    const id = await make(
      'custom',
      { token: hidden, region: 'eu' },
      { publicFieldNames: ['region'] },
    );
    const made = await patch(id, { fields: { token: 'B', region: 'us', extra: 'C' } });
    t.match(
      made.json,
      { publicFields: { region: 'us' }, secretFields: ['extra', 'token'] },
      'a field that comes later is secret',
    );
    await patch(id, { fields: { token: null } });
    const again = await patch(id, { fields: { token: 'D' } });
    t.match(
      again.json.secretFields,
      ['extra', 'token'],
      'also one that was cleared and comes back',
    );
    await patch(id, { fields: { region: null, token: 'E', extra: 'F' } });
    t.match(
      (await patch(id, { fields: { region: 'eu' } })).json,
      { secretFields: ['extra', 'region', 'token'], publicFields: {} },
      'what was public and comes back is secret',
    );
    t.equal((await patch(id, { fields: { region: 7 } })).status, 400);
  });

  t.test('fields that are free are fields that there are', async (t) => {
    const open = credentialTypes.flatMap(({ name, fields }) =>
      Object.entries(fields)
        .filter(([, field]) => field.class === 'public')
        .map(([field]) => `${name}.${field}`),
    );
    t.strictSame(
      [...freeFields].filter((field) => !open.includes(field)),
      [],
    );
  });
  const changes = Object.entries(typeSamples).flatMap(([type, sample]) => {
    const fields = {
      ...Object.fromEntries(
        Object.keys(sample.secret).map((name) => [name, secretOf(type, name, hidden)]),
      ),
      ...sample.public,
    };
    // What the vault writes out of a provider's entry is changed otherwise: oauth-providers.test.ts.
    const isSent = (field: string): boolean => {
      const { isWritten, needs } = findType(type)?.fields[field] ?? {};
      return isWritten !== true && needs === undefined;
    };
    const all = Object.entries({ ...sample.filled, ...sample.public });
    return all
      .filter(([field]) => isSent(field))
      .map(([field, value]) => ({
        type,
        fields,
        field,
        value: anotherValue(value),
        isDestination: !freeFields.has(`${type}.${field}`),
      }));
  });
  for (const { type, fields, field, value, isDestination } of [
    ...changes,
    {
      type: 'custom',
      fields: { a: hidden, b: hidden, url: 'https://a.test' },
      field: 'url',
      value: null,
      isDestination: true,
    },
  ]) {
    t.test(
      `${type}.${field} → ${JSON.stringify(value)} ${isDestination ? 'demands all secrets' : 'is free'}`,
      async (t) => {
        const id = await make(
          type,
          fields,
          type === 'custom'
            ? {
                publicFieldNames: Object.entries(fields).flatMap(([name, held]) =>
                  held === hidden ? [] : [name],
                ),
              }
            : {},
        );
        const secrets = Object.entries(fields)
          .flatMap(([name, held]) => (held === secretOf(type, name, hidden) ? [name] : []))
          .sort();
        const answer = await patch(id, { fields: { [field]: value } });
        if (!isDestination) {
          t.match(
            [answer.status, answer.json.publicFields[field], answer.json.version],
            [200, value, 2],
          );
          return t.strictSame(
            await openSecrets(vault, id),
            Object.fromEntries(secrets.map((name) => [name, secretOf(type, name, hidden)])),
          );
        }
        if (secrets.length === 0)
          return t.match(
            [answer.status, answer.json.version],
            [200, 2],
            'nothing is kept that could follow',
          );
        t.equal(answer.status, 422);
        t.match(answer.json, {
          code: 'secretRequired',
          errors: secrets.map((name) => ({ pointer: `/fields/${name}`, rule: 'secretRequired' })),
        });
        if (secrets.length > 1)
          t.equal(
            (
              await patch(id, {
                fields: {
                  [field]: value,
                  [secrets[0] ?? '']: secretOf(type, secrets[0] ?? '', 'new'),
                },
              })
            ).json.errors.length,
            secrets.length - 1,
            'each of them',
          );
        t.match(await get(id), { revision: 1, version: 1 });
        const all = Object.fromEntries(secrets.map((name) => [name, secretOf(type, name, 'new')]));
        // Where the vault itself sends to is an admin's to say.
        if (type === 'webhook')
          t.match(await patch(id, { fields: { [field]: value, ...all } }), {
            status: 403,
            json: { code: 'forbidden' },
          });
        const moved = await patch(
          id,
          { fields: { [field]: value, ...all } },
          '*',
          type === 'webhook' ? 'alice' : 'ed',
        );
        t.match([moved.status, moved.json.version], [200, 2]);
        t.strictSame(await openSecrets(vault, id), all);
        t.strictSame(
          (await openVersions(vault, id))[0]?.fields,
          Object.fromEntries(secrets.map((name) => [name, secretOf(type, name, hidden)])),
          'the old version keeps its own',
        );
      },
    );
  }

  t.test(
    'a wider policy demands all secrets, a narrower one is free, and so is the way back only with secrets',
    async (t) => {
      const id = await make(
        'openai',
        { apiKey: hidden },
        { policy: { delivery: ['lease'], allowedHosts: ['a.example.com', 'b.example.com'] } },
      );
      const set = (body: object): Promise<Answer> =>
        call('alice', 'PATCH', `/v1/credentials/${id}`, body, any);
      const wider = [
        { delivery: ['lease'], allowedHosts: ['a.example.com', 'b.example.com', 'evil.test'] },
        { delivery: ['lease'], allowedHosts: ['*.example.com'] },
        { delivery: [], allowedHosts: ['evil.test'] },
      ];
      for (const policy of wider)
        t.equal((await set({ policy })).json.code, 'secretRequired', JSON.stringify(policy));
      t.match(
        (await set({ policy: { delivery: ['lease'], allowedHosts: ['a.example.com'] } })).json,
        { version: 2, policy: { allowedHosts: ['a.example.com'] } },
      );
      t.match((await set({ policy: { delivery: [], allowedHosts: [] } })).json, { version: 3 });
      t.strictSame(await openSecrets(vault, id), { apiKey: hidden }, 'the secret came along');
      t.equal(
        (await set({ policy: { delivery: ['lease'], allowedHosts: [] } })).json.code,
        'secretRequired',
        'a delivery is added',
      );
      t.equal(
        (
          await set({
            policy: { delivery: ['lease'], allowedHosts: ['a.example.com'] },
            fields: { apiKey: 'new' },
          })
        ).status,
        200,
      );
    },
  );

  t.test('a secret that was cleared in the same request does not come along', async (t) => {
    const id = await make('redis', { host: 'a', password: hidden });
    t.equal((await patch(id, { fields: { host: 'b', password: null } })).status, 200);
    t.strictSame(await openSecrets(vault, id), {});
  });

  t.test(
    'what a merge cannot know: version numbers grow by one and are listed in pages',
    async (t) => {
      const id = await make('bearer', { token: 'v1' });
      for (let version = 2; version <= 7; version += 1)
        await patch(id, { fields: { token: `v${version}` } });
      const seen: number[] = [];
      for (let cursor = ''; ; ) {
        const page = (await call('ed', 'GET', `/v1/credentials/${id}/versions?limit=3${cursor}`))
          .json;
        seen.push(...page.items.map(({ version }: { version: number }) => version));
        if (page.nextCursor === null) break;
        cursor = `&cursor=${page.nextCursor}`;
      }
      t.strictSame(seen, [7, 6, 5, 4, 3, 2, 1]);
      t.strictSame(
        (await openVersions(vault, id)).map(({ fields }) => fields['token']),
        ['v1', 'v2', 'v3', 'v4', 'v5', 'v6', 'v7'],
      );
      const other = await make('bearer', { token: 'x' });
      const { nextCursor } = (await call('ed', 'GET', `/v1/credentials/${id}/versions?limit=1`))
        .json;
      t.equal(
        (await call('ed', 'GET', `/v1/credentials/${other}/versions?cursor=${nextCursor}`)).json
          .code,
        'invalidCursor',
        'a cursor is good for its own list',
      );
    },
  );
});
