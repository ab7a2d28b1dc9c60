// Storing and reading: every type, secrets to the byte, and what is refused with its place and its
// rule, never its value.
import { briefRule } from '../helpers/faults.ts';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import t from 'tap';
import { credentialTypes } from '../../src/credentials/types/registry.ts';
import { openSecrets, openVersions } from '../helpers/stored.ts';
import { anotherValue, secretOf, typeSamples } from '../helpers/type-samples.ts';
import { type Answer, startVault, type TestVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const kib64 = 64 * 1024;
const create = (
  vault: TestVault,
  body: object,
  headers?: Record<string, string>,
): Promise<Answer> => vault.call('alice', 'POST', '/v1/teams/payments/credentials', body, headers);
const faults = ({ json }: Answer): string[] =>
  (json.errors ?? []).map(
    (fault: Parameters<typeof briefRule>[0]) => `${fault.pointer} ${briefRule(fault)}`,
  );

t.test('storing credentials', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments');

  t.test(
    'every type is stored, read, listed, changed, disabled, enabled and deleted',
    async (t) => {
      t.strictSame(
        Object.keys(typeSamples).sort(),
        credentialTypes.map(({ name }) => name).sort(),
        'every type has a sample',
      );
      for (const { name: type } of credentialTypes) {
        await t.test(type, async (t) => {
          const sample = typeSamples[type] ?? { secret: {}, public: {} };
          const made = await create(vault, {
            name: type,
            type,
            fields: { ...sample.secret, ...sample.public },
            ...(type === 'custom' ? { publicFieldNames: Object.keys(sample.public) } : {}),
          });
          t.equal(made.status, 201, made.text);
          const { id } = made.json;
          t.match(
            [made.headers['etag'], made.headers['location']],
            ['"1"', `/v1/credentials/${id}`],
          );
          const publicFields = { ...sample.filled, ...sample.public };
          t.strictSame(made.json.publicFields, publicFields);
          t.strictSame(made.json.secretFields, Object.keys(sample.secret).sort());
          t.match(made.json, {
            team: 'payments',
            name: type,
            type,
            health: 'ok',
            problems: [],
            version: 1,
            revision: 1,
            useCount: 0,
            lastUsedAt: null,
            createdBy: 'alice',
            labels: {},
          });
          const read = await call('alice', 'GET', `/v1/credentials/${id}`);
          const seen = {
            ...made.json,
            through: [{ kind: 'membership', team: 'payments', access: null }],
          };
          t.strictSame(
            [read.json, read.headers['etag']],
            [seen, '"1"'],
            'what is read is what was answered',
          );
          const listed = (await call('alice', 'GET', `/v1/teams/payments/credentials?type=${type}`))
            .json.items;
          t.strictSame(listed, [seen], 'and what is listed');
          t.strictSame(await openSecrets(vault, id), sample.secret);
          const disabled = await call('alice', 'POST', `/v1/credentials/${id}/disable`);
          t.match(
            [
              disabled.status,
              disabled.json.health,
              disabled.json.problems,
              disabled.headers['etag'],
            ],
            [200, 'disabled', ['disabled'], '"2"'],
          );
          t.equal(
            (await call('alice', 'POST', `/v1/credentials/${id}/disable`)).json.code,
            'stateConflict',
          );
          t.match((await call('alice', 'POST', `/v1/credentials/${id}/enable`)).json, {
            health: 'ok',
            revision: 3,
            version: 1,
          });
          const [first] = Object.keys(sample.secret);
          const [open, held] = Object.entries(publicFields)[0] ?? ['', ''];
          const change =
            first === undefined
              ? { [open]: anotherValue(held) }
              : { [first]: secretOf(type, first, 'a new value') };
          const changed = await call(
            'alice',
            'PATCH',
            `/v1/credentials/${id}`,
            { fields: change },
            { 'if-match': '"3"' },
          );
          const after = { ...publicFields, ...(first === undefined ? change : {}) };
          t.match(
            [changed.status, changed.json],
            [200, { version: 2, revision: 4, publicFields: after }],
          );
          const secrets = { ...sample.secret, ...(first === undefined ? {} : change) };
          t.strictSame(await openSecrets(vault, id), secrets);
          t.strictSame(
            (await openVersions(vault, id)).map(({ fields }) => fields),
            [sample.secret, secrets],
            'a version never changes',
          );
          t.match((await call('alice', 'GET', `/v1/credentials/${id}/versions`)).json.items, [
            { version: 2, isCurrent: true, publicFields: after },
            { version: 1, isCurrent: false },
          ]);
          t.equal(
            (
              await call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, {
                'if-match': '"4"',
              })
            ).status,
            204,
          );
          for (const [method, url] of [
            ['GET', ''],
            ['GET', '/versions'],
            ['PATCH', ''],
            ['DELETE', ''],
            ['POST', '/enable'],
          ] as const) {
            t.equal(
              (
                await call(
                  'alice',
                  method,
                  `/v1/credentials/${id}${url}`,
                  method === 'PATCH' ? {} : undefined,
                  any,
                )
              ).status,
              404,
              `${method} ${url}`,
            );
          }
        });
      }
    },
  );

  t.test('a name that was deleted is free at once', async (t) => {
    t.equal(
      (await create(vault, { name: 'openai', type: 'openai', fields: { apiKey: 'x' } })).status,
      201,
    );
    t.equal(
      (await create(vault, { name: 'openai', type: 'bearer', fields: { token: 'x' } })).json.code,
      'nameTaken',
    );
    t.equal(
      (await create(vault, { name: 'OpenAI', type: 'bearer', fields: { token: 'x' } })).status,
      201,
      'names differ by case',
    );
  });

  t.test('a secret is stored to the byte', async (t) => {
    const { privateKey } = generateKeyPairSync('rsa', {
      modulusLength: 2048,
      privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
      publicKeyEncoding: { type: 'spki', format: 'pem' },
    });
    const values = {
      pem: privateKey,
      pemCrlf: privateKey.replaceAll('\n', '\r\n'),
      trailing: 'x\n',
      leading: '\n x',
      blanks: '  x  ',
      tab: '\tx\t',
      emoji: '🔑👩‍👩‍👧‍👦',
      bom: '\ufeffx',
      nfd: 'e\u0301',
      nfc: '\u00e9',
      controls: '\u0001\u001f\u007f\u0085\u2028\u2029',
      quotes: '"\\\'`${}',
      html: '</script>',
      json: '{"a":1}',
      twoStars: '**',
      starsAndMore: '***x',
      dots: '...',
      zero: '0',
      noncharacter: '\uffff\u{10ffff}',
      exact: randomBytes(kib64 / 2).toString('hex'),
      exactTwo: 'é'.repeat(kib64 / 2),
      exactFour: '🔑'.repeat(kib64 / 4),
    };
    for (const [name, value] of Object.entries(values)) {
      const made = await create(vault, {
        name: `bytes-${name}`,
        type: 'custom',
        fields: { value },
      });
      t.equal(made.status, 201, `${name}: ${made.text.slice(0, 200)}`);
      const stored = (await openSecrets(vault, made.json.id))['value'] ?? '';
      t.ok(Buffer.from(stored).equals(Buffer.from(value)), name);
    }
  });

  t.test(
    '400: what is no secret is refused, by place and rule, and nothing is stored',
    async (t) => {
      const before = await db
        .selectFrom('credential')
        .select((select) => select.fn.countAll<number>().as('n'))
        .executeTakeFirstOrThrow();
      const long = 'x'.repeat(kib64 + 1);
      const refused: readonly (readonly [string, unknown, string])[] = [
        ['empty', '', '/fields/apiKey min:1'],
        ['three stars', '***', '/fields/apiKey mask'],
        ['many stars', '*'.repeat(64), '/fields/apiKey mask'],
        ['bullets', '•••', '/fields/apiKey mask'],
        ['circles', '●●●', '/fields/apiKey mask'],
        ['mixed', '*•●*', '/fields/apiKey mask'],
        ['blanks', '   ', '/fields/apiKey blank'],
        ['a tab', '\t', '/fields/apiKey blank'],
        ['a placeholder', '<your-api-key>', '/fields/apiKey placeholder'],
        ['a reference', 'op://vault/item/field', '/fields/apiKey reference'],
        ['NUL', 'a\u0000b', '/fields/apiKey nul'],
        ['lone high surrogate', 'a\ud800', '/fields/apiKey loneSurrogate'],
        ['lone low surrogate', '\udc00a', '/fields/apiKey loneSurrogate'],
        ['64 KiB and a byte', long, `/fields/apiKey max:${kib64}`],
        [
          '64 KiB and a byte of UTF-8',
          `${'é'.repeat(kib64 / 2)}x`,
          `/fields/apiKey maxBytes:${kib64}`,
        ],
        ['a number', 7, '/fields/apiKey type:string'],
        ['a boolean', true, '/fields/apiKey type:string'],
        ['null', null, '/fields/apiKey required'],
        ['a list', ['x'], '/fields/apiKey'],
        ['an object', { x: 'x' }, '/fields/apiKey'],
      ];
      for (const [what, apiKey, fault] of refused) {
        const answer = await create(vault, { name: 'refused', type: 'openai', fields: { apiKey } });
        t.equal(answer.status, 400, `${what}: ${answer.text.slice(0, 300)}`);
        t.ok(
          faults(answer).some((each) => each.startsWith(fault)),
          `${what}: ${faults(answer).join()}`,
        );
        t.notMatch(answer.text, /\*\*\*|•|●|xxxx|éé/, 'never the value');
      }
      const others: readonly (readonly [object, string])[] = [
        [{ fields: {} }, '/fields/apiKey required'],
        [{ fields: { apiKey: 'x', extra: 'y' } }, '/fields/extra unknownField'],
        [{ fields: { apiKey: 'x', toString: 'y' } }, '/fields/toString unknownField'],
        [{ fields: { apiKey: 'x', 'a b': 'y' } }, '/fields name'],
        [{ type: 'nothing' }, '/type enum'],
        [{ type: 'constructor' }, '/type enum'],
        [{ publicFieldNames: ['apiKey'] }, '/publicFieldNames customOnly'],
        [{ fields: { apiKey: 'x', baseUrl: null } }, ''],
        [{ name: '' }, '/name'],
        [{ name: 'a\nb' }, '/name'],
        [{ name: ' a' }, '/name'],
        [{ name: 'x'.repeat(101) }, '/name'],
        [{ description: 'a\u0000' }, '/description'],
        [{ labels: { Env: 'x' } }, '/labels'],
        [{ labels: { env: 'a\nb' } }, '/labels/env'],
        [
          { labels: Object.fromEntries(Array.from({ length: 33 }, (_, i) => [`l${i}`, 'x'])) },
          '/labels',
        ],
        [{ expiresAt: 'tomorrow' }, '/expiresAt'],
        [{ expiresAt: '0000-01-01T00:00:00Z' }, '/expiresAt'],
        [{ expiresAt: '9999-12-31T23:59:59-14:00' }, '/expiresAt'],
        [{ expiresAt: 7 }, '/expiresAt'],
        [{ rotateAfter: 'tomorrow' }, '/rotateAfter'],
        [{ rotateAfter: '9999-12-31T23:59:59-14:00' }, '/rotateAfter'],
        [{ policy: { delivery: ['reveal'], allowedHosts: [] } }, '/policy/delivery/0'],
        [{ policy: { delivery: ['lease', 'lease'], allowedHosts: [] } }, '/policy/delivery unique'],
        [
          {
            type: 'smtp',
            fields: { host: 'h', username: 'u', password: 'x' },
            policy: { delivery: ['lease', 'broker'], allowedHosts: [] },
          },
          '/policy/delivery/1 notForType',
        ],
        ...['v1', '/v1/../x', '/v1//x', '/v1%2e', '/v1?x', '/v1#x', '/v1\\x', '/ v1', '/v1\n'].map(
          (prefix): [object, string] => [
            { policy: { delivery: [], allowedHosts: [], pathPrefixes: [prefix] } },
            '/policy/pathPrefixes/0',
          ],
        ),
        [{ policy: { delivery: [], allowedHosts: [], methods: ['CONNECT'] } }, '/policy/methods/0'],
        [
          { policy: { delivery: [], allowedHosts: [], limits: { concurrency: 0 } } },
          '/policy/limits/concurrency',
        ],
        [{ policy: { delivery: [], allowedHosts: ['HTTP://x'] } }, '/policy/allowedHosts/0'],
        [{ type: 'postgres', fields: { password: 'x' } }, '/fields/host requiredAnyOf'],
        [{ type: 'jwtSigning', fields: {} }, '/fields/secret requiredAnyOf'],
        [
          { type: 'jwtSigning', fields: { algorithm: 'none', secret: 'x' } },
          '/fields/algorithm enum',
        ],
        [
          { type: 'tlsClient', fields: { privateKey: 'x', certificate: 'no certificate' } },
          '/fields/certificate',
        ],
        [{ type: 'discordTrigger', fields: { publicKey: 'a\nb' } }, '/fields/publicKey'],
        [{ id: '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d' }, '/id unknownField'],
        [{ state: 'disabled' }, '/state unknownField'],
        ...[
          'https://a b',
          'https://a\n',
          '\thttps://a',
          'https://a\u0000',
          'https://a/\ud800',
          'https:\\\\a',
          'ftp://a',
          'https://u:p@a',
          'https://a?q=1',
          'https://a#f',
          'https://',
          'javascript:x',
          `https://a/${'x'.repeat(2048)}`,
        ].map((baseUrl): [object, string] => [
          { fields: { apiKey: 'x', baseUrl } },
          '/fields/baseUrl',
        ]),
      ];
      for (const [change, fault] of others) {
        const answer = await create(vault, {
          name: 'refused',
          type: 'openai',
          fields: { apiKey: 'x' },
          ...change,
        });
        if (fault === '') {
          t.equal(answer.status, 201, 'null asks for the default');
          continue;
        }
        t.equal(
          answer.status,
          400,
          `${JSON.stringify(change).slice(0, 90)}: ${answer.text.slice(0, 200)}`,
        );
        t.ok(
          faults(answer).some((each) => each.startsWith(fault)),
          `${JSON.stringify(change).slice(0, 60)}: ${faults(answer).join()}`,
        );
      }
      for (const raw of [
        '{"name":"p","type":"custom","fields":{"__proto__":"x"}}',
        '{"name":"p","type":"custom","fields":{"a":"x"},"__proto__":{}}',
        '[]',
        'null',
        '"x"',
        '{',
        '',
      ]) {
        const answer = await vault.call(
          'alice',
          'POST',
          '/v1/teams/payments/credentials',
          Buffer.from(raw),
          { 'content-type': 'application/json' },
        );
        t.equal(answer.status, 400, raw);
      }
      const after = await db
        .selectFrom('credential')
        .select((select) => select.fn.countAll<number>().as('n'))
        .executeTakeFirstOrThrow();
      t.equal(after.n, before.n + 1);
    },
  );

  t.test(
    'custom: names that objects have by themselves, public values of every kind, and the limit of fields',
    async (t) => {
      const fields = {
        constructor: 'a',
        toString: 'b',
        hasOwnProperty: 'c',
        valueOf: 'd',
        _x: 'e',
        'a.b-c': 'f',
        count: 7,
        negative: -7,
        zero: 0,
        isOn: false,
        empty: '',
        stars: '***',
      };
      const publicFieldNames = ['count', 'negative', 'zero', 'isOn', 'empty', 'stars', 'valueOf'];
      const made = await create(vault, { name: 'odd', type: 'custom', fields, publicFieldNames });
      t.equal(made.status, 201, made.text);
      t.strictSame(made.json.secretFields, [
        '_x',
        'a.b-c',
        'constructor',
        'hasOwnProperty',
        'toString',
      ]);
      t.strictSame(
        { ...made.json.publicFields },
        { count: 7, negative: -7, zero: 0, isOn: false, empty: '', stars: '***', valueOf: 'd' },
      );
      t.strictSame(
        { ...(await openSecrets(vault, made.json.id)) },
        { constructor: 'a', toString: 'b', hasOwnProperty: 'c', _x: 'e', 'a.b-c': 'f' },
      );
      const merged = await call(
        'alice',
        'PATCH',
        `/v1/credentials/${made.json.id}`,
        { fields: { toString: 'B' } },
        any,
      );
      t.equal(merged.status, 200, merged.text);
      t.strictSame(
        { ...(await openSecrets(vault, made.json.id)) },
        { constructor: 'a', toString: 'B', hasOwnProperty: 'c', _x: 'e', 'a.b-c': 'f' },
        'a merge keeps the others',
      );

      const bad: readonly (readonly [object, string])[] = [
        [{ fields: { a: 7 } }, '/fields/a type:string'],
        [{ fields: { a: false } }, '/fields/a type:string'],
        [{ fields: {} }, '/fields min:1'],
        [{ fields: { a: null } }, '/fields min:1'],
        [{ fields: { a: 'x' }, publicFieldNames: ['b'] }, '/publicFieldNames/0 notInFields'],
        [{ fields: { a: 'x' }, publicFieldNames: ['a', 'a'] }, '/publicFieldNames unique'],
        [{ fields: { a: 1.5 }, publicFieldNames: ['a'] }, '/fields/a'],
        [{ fields: { a: 2 ** 53 }, publicFieldNames: ['a'] }, '/fields/a'],
        [{ fields: { a: 'x\n' }, publicFieldNames: ['a'] }, '/fields/a pattern'],
        [{ fields: { a: 'x'.repeat(2049) }, publicFieldNames: ['a'] }, '/fields/a max:2048'],
        [
          { fields: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`f${i}`, 'x'])) },
          '/fields max:64',
        ],
      ];
      for (const [change, fault] of bad) {
        const answer = await create(vault, { name: 'bad', type: 'custom', ...change });
        t.equal(answer.status, 400, `${fault}: ${answer.text.slice(0, 200)}`);
        t.ok(
          faults(answer).some((each) => each.startsWith(fault)),
          `${fault}: ${faults(answer).join()}`,
        );
      }
      t.equal(
        (
          await create(vault, {
            name: 'many',
            type: 'custom',
            fields: Object.fromEntries(Array.from({ length: 64 }, (_, i) => [`f${i}`, 'x'])),
          })
        ).status,
        201,
      );
    },
  );

  t.test(
    'Idempotency-Key: a repeated creation stores once and answers with the credential as it is now',
    async (t) => {
      const body = {
        name: 'once',
        type: 'bearer',
        fields: { token: 'abc' },
        expiresAt: '2099-01-01T00:00:00Z',
      };
      const answers = await Promise.all(
        [1, 2, 3, 4].map(() => create(vault, body, { 'idempotency-key': 'k' })),
      );
      t.strictSame(
        answers.map(({ status }) => status),
        [201, 201, 201, 201],
      );
      t.equal(new Set(answers.map(({ json }) => json.id)).size, 1);
      const { id } = answers[0]?.json;
      await call('alice', 'PATCH', `/v1/credentials/${id}`, { description: 'changed' }, any);
      t.match((await create(vault, body, { 'idempotency-key': 'k' })).json, {
        id,
        description: 'changed',
        revision: 2,
      });
      t.equal(
        (await create(vault, { ...body, fields: { token: 'abd' } }, { 'idempotency-key': 'k' }))
          .json.code,
        'idempotencyKeyReused',
      );
      await call('alice', 'DELETE', `/v1/credentials/${id}`, undefined, any);
      t.equal(
        (await create(vault, body, { 'idempotency-key': 'k' })).status,
        404,
        'what it made is gone',
      );
      const disable = (): Promise<Answer> =>
        call('alice', 'POST', `/v1/credentials/${twice.json.id}/disable`, undefined, {
          'idempotency-key': 'd',
        });
      const twice = await create(vault, { ...body, name: 'twice' });
      t.strictSame([(await disable()).status, (await disable()).status], [200, 200]);
    },
  );

  t.test('20 at once under one name: one is stored', async (t) => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) =>
        create(vault, { name: 'contested', type: 'bearer', fields: { token: `t${i}` } }),
      ),
    );
    t.equal(answers.filter(({ status }) => status === 201).length, 1);
    t.equal(answers.filter(({ json }) => json.code === 'nameTaken').length, 19);
  });

  t.test('in a team whose format is fernet-256 the same holds', async (t) => {
    const other = await startVault(t, { tokenFormat: 'fernet-256' });
    await other.team('payments');
    const made = await create(other, { name: 'x', type: 'bearer', fields: { token: '🔑\r\n' } });
    t.strictSame(await openSecrets(other, made.json.id), { token: '🔑\r\n' });
    t.match((await openVersions(other, made.json.id))[0]?.token, /^QQ/);
  });
});
