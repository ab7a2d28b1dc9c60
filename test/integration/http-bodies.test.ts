// Bad bodies: refused with the place and the rule, never with the value; nothing is stored and
// nothing is logged of them.
import { brief } from '../helpers/faults.ts';
import { randomBytes } from 'node:crypto';
import t from 'tap';
import { startVault } from '../helpers/vault.ts';

const marker = `marker${randomBytes(8).toString('hex')}`;
const vault = await startVault(t);
await vault.team('payments');
const create = '/v1/teams/payments/credentials';
const good = { name: 'openai-prod', type: 'openai', fields: { apiKey: `sk-${marker}` } };
const stored = async (): Promise<unknown> => ({
  credentials: await vault.db.selectFrom('credential').select('name').execute(),
  tokens: await vault.db.selectFrom('credential_version').select('token').execute(),
  keys: await vault.db.selectFrom('idempotency_record').select('target_id').execute(),
});
const before = await stored();

interface Refusal {
  readonly status: number;
  readonly code: string;
  readonly errors?: readonly { pointer: string; rule: string }[];
}

/** Sends the body with and without an idempotency key: the refusal is the same. */
async function refused(
  test: Pick<typeof t, 'equal' | 'match' | 'same' | 'notOk'>,
  what: string,
  body: unknown,
  { status, code, errors }: Refusal,
  headers: Record<string, string> = {},
): Promise<void> {
  for (const more of [{}, { 'idempotency-key': randomBytes(8).toString('hex') }]) {
    const answer = await vault.call('alice', 'POST', create, body, { ...headers, ...more });
    test.equal(answer.status, status, what);
    test.match(
      answer,
      {
        headers: { 'content-type': 'application/problem+json' },
        json: {
          code,
          type: `urn:credential-vault:problem:${code}`,
          requestId: answer.headers['x-request-id'],
        },
      },
      what,
    );
    if (errors !== undefined) test.same(brief(answer.json.errors), errors, what);
    test.notOk(answer.text.includes(marker), `${what}: nothing of it comes back`);
  }
}

const text = (more: string): string => JSON.stringify(good).replace('{', `{${more},`);
const fault = (pointer: string, rule: string): Refusal => ({
  status: 400,
  code: 'invalidRequest',
  errors: [{ pointer, rule }],
});
const malformed = (rule?: string): Refusal => ({
  status: 400,
  code: 'malformedJson',
  ...(rule === undefined ? {} : { errors: [{ pointer: '', rule }] }),
});

t.test('a body that is not what JSON should be', async (test) => {
  for (const [what, body, refusal] of [
    ['an empty body', '', malformed()],
    ['white space', '  \n', malformed('json')],
    ['no JSON', `{"name": ${marker}}`, malformed('json')],
    ['half a body', JSON.stringify(good).slice(0, -2), malformed('json')],
    ['two bodies', JSON.stringify(good) + JSON.stringify(good), malformed('json')],
    ['a byte order mark', `\ufeff${JSON.stringify(good)}`, malformed('json')],
    [
      'bytes that are no UTF-8, in a secret',
      Buffer.from(JSON.stringify(good).replace('sk-', 'sk-\u00ff'), 'latin1'),
      malformed('utf8'),
    ],
    ['UTF-16', Buffer.from(JSON.stringify(good), 'utf16le'), malformed()],
    [
      'a nesting of 100,000',
      `{"fields":${'['.repeat(100_000)}${']'.repeat(100_000)}}`,
      malformed('depth'),
    ],
    ['a nesting that nobody closes', '{"a":'.repeat(60_000), malformed('depth')],
    ['a member twice', text('"name":"another"'), malformed('duplicateMember')],
    [
      'a secret twice',
      JSON.stringify(good).replace('"apiKey"', '"apiKey":"first","apiKey"'),
      malformed('duplicateMember'),
    ],
    ['a prototype', text('"__proto__":{"isOperator":true}'), fault('', 'memberName')],
    [
      'a prototype among the fields',
      JSON.stringify(good).replace('"apiKey"', '"__proto__":"x","apiKey"'),
      fault('/fields', 'memberName'),
    ],
    [
      'a constructor',
      text('"constructor":{"prototype":{"isOperator":true}}'),
      fault('/constructor', 'unknownField'),
    ],
    ['null', 'null', fault('', 'type:object')],
    ['a list', `[${JSON.stringify(good)}]`, fault('', 'type:object')],
    ['a text', JSON.stringify(marker), fault('', 'type:object')],
    ['a number', '7', fault('', 'type:object')],
  ] as const)
    await refused(test, what, body, refusal);
});

t.test('a body of another type or size', async (test) => {
  const unsupported = { status: 415, code: 'unsupportedMediaType' };
  for (const type of [
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/xml',
    'application/jsonx',
    'text/json',
    marker,
    'application/json; charset=utf-16',
    'application/json; charset=latin1',
    'application/',
    '/',
    '',
  ]) {
    await refused(test, `as ${type}`, JSON.stringify(good), unsupported, { 'content-type': type });
  }
  await refused(test, 'compressed', JSON.stringify(good), unsupported, {
    'content-encoding': 'gzip',
  });
  await refused(
    test,
    'of a megabyte',
    { ...good, description: 'x'.repeat(1024 * 1024) },
    { status: 413, code: 'payloadTooLarge' },
  );
  await refused(test, 'of a byte too many', JSON.stringify(good).padEnd(512 * 1024 + 1), {
    status: 413,
    code: 'payloadTooLarge',
  });
  const short = await vault.app.inject({
    method: 'POST',
    url: create,
    payload: JSON.stringify(good),
    headers: {
      authorization: `Bearer ${await vault.token('alice')}`,
      'content-type': 'application/json',
      'content-length': '10',
    },
  });
  test.match(
    { status: short.statusCode, code: short.json<{ code: string }>().code },
    { status: 400, code: 'malformedHttp' },
    'longer than it says',
  );
  for (const type of [
    'application/json',
    'application/json; charset=utf-8',
    'application/json;charset="UTF-8"',
    'APPLICATION/JSON',
  ]) {
    const answer = await vault.call('alice', 'POST', create, '{}', { 'content-type': type });
    test.equal(answer.json.code, 'invalidRequest', `${type} is read`);
  }
});

t.test('members that the operation does not know, or that are of the wrong kind', async (test) => {
  const many = Object.fromEntries(Array.from({ length: 65 }, (_, n) => [`f${n}`, 'x']));
  for (const [what, body, refusal] of [
    [
      'an unknown member',
      { ...good, includeSecrets: true },
      fault('/includeSecrets', 'unknownField'),
    ],
    [
      'an unknown member whose name is no plain name',
      { ...good, [`${marker} <script>`]: 1 },
      fault('', 'unknownField'),
    ],
    [
      'an unknown field',
      { ...good, fields: { ...good.fields, apikey: marker } },
      fault('/fields/apikey', 'unknownField'),
    ],
    [
      'a field whose name is no plain name',
      { ...good, fields: { ...good.fields, [`${marker}/../x`]: marker } },
      fault('/fields', 'name'),
    ],
    ['no name', { ...good, name: undefined }, fault('/name', 'required')],
    ['a name that is null', { ...good, name: null }, fault('/name', 'type:string')],
    ['a name that is a list', { ...good, name: [marker] }, fault('/name', 'type:string')],
    ['a type that nobody knows', { ...good, type: marker }, fault('/type', 'enum')],
    ['a type named like a method', { ...good, type: 'constructor' }, fault('/type', 'enum')],
    ['fields in a list', { ...good, fields: [marker] }, fault('/fields', 'type:object')],
    [
      'a secret that is a list',
      { ...good, fields: { apiKey: [marker] } },
      fault('/fields/apiKey', 'type:string|number|boolean|null'),
    ],
    [
      'a secret that is an object',
      { ...good, fields: { apiKey: { value: marker } } },
      fault('/fields/apiKey', 'type:string|number|boolean|null'),
    ],
    [
      'a secret that is a number',
      { ...good, fields: { apiKey: 7 } },
      fault('/fields/apiKey', 'type:string'),
    ],
    [
      'a secret that is true',
      { ...good, fields: { apiKey: true } },
      fault('/fields/apiKey', 'type:string'),
    ],
    ['an empty secret', { ...good, fields: { apiKey: '' } }, fault('/fields/apiKey', 'min:1')],
    ['a mask', { ...good, fields: { apiKey: '••••••••' } }, fault('/fields/apiKey', 'mask')],
    ['a mask of stars', { ...good, fields: { apiKey: '***' } }, fault('/fields/apiKey', 'mask')],
    [
      'a mask behind a letter',
      { ...good, fields: { apiKey: 'a***' } },
      fault('/fields/apiKey', 'mask'),
    ],
    ['nothing to see', { ...good, fields: { apiKey: '\u202e' } }, fault('/fields/apiKey', 'blank')],
    [
      'a secret with a NUL',
      { ...good, fields: { apiKey: `${marker}\0` } },
      fault('/fields/apiKey', 'nul'),
    ],
    [
      'a secret with a lone surrogate',
      JSON.stringify(good).replace('sk-', 'sk-\\ud800'),
      fault('/fields/apiKey', 'loneSurrogate'),
    ],
    [
      'a secret of 64 KiB and a byte',
      { ...good, fields: { apiKey: 'x'.repeat(64 * 1024 + 1) } },
      fault('/fields/apiKey', 'max:65536'),
    ],
    [
      'a secret of 64 KiB in characters of four bytes',
      { ...good, fields: { apiKey: '😀'.repeat(20_000) } },
      fault('/fields/apiKey', 'maxBytes:65536'),
    ],
    ['65 fields', { ...good, type: 'custom', fields: many }, fault('/fields', 'max:64')],
    [
      'a port of 1e400',
      '{"name":"mail","type":"smtp","fields":{"host":"mail.test","port":1e400,"username":"u","password":"p"}}',
      fault('/fields/port', 'inexactNumber'),
    ],
    [
      'a port whose digits would be cut off',
      '{"name":"mail","type":"smtp","fields":{"host":"mail.test","port":25.00000000000000001,"username":"u","password":"p"}}',
      fault('/fields/port', 'inexactNumber'),
    ],
    [
      'a bound of 2^53 and a fraction',
      text(
        '"policy":{"delivery":[],"allowedHosts":[],"limits":{"requestBytes":9007199254740991.4}}',
      ),
      fault('/policy/limits/requestBytes', 'inexactNumber'),
    ],
    [
      'a bound of twenty digits',
      text(
        '"policy":{"delivery":[],"allowedHosts":[],"limits":{"requestBytes":12345678901234567890}}',
      ),
      fault('/policy/limits/requestBytes', 'inexactNumber'),
    ],
    [
      'a number of many digits where no number may stand',
      text('"labels":[{"a":[0,1e999]}]'),
      fault('/labels/0/a/1', 'inexactNumber'),
    ],
    [
      'one below a name that is no plain name',
      text(`"labels":{"${marker} <":12345678901234567890}`),
      fault('/labels', 'inexactNumber'),
    ],
    [
      'a port with a fraction',
      '{"name":"mail","type":"smtp","fields":{"host":"mail.test","port":25.5,"username":"u","password":"p"}}',
      fault('/fields/port', 'type:string|integer|boolean|null'),
    ],
    [
      'a time that is none',
      { ...good, expiresAt: marker },
      { status: 400, code: 'invalidRequest' },
    ],
    ['labels in a list', { ...good, labels: [marker] }, fault('/labels', 'type:object')],
  ] as const)
    await refused(test, what, body, refusal);
});

t.test('a number that is written in another way is the same number', async (test) => {
  for (const port of ['465', '465.0', '4.65e2', '46500E-2', '0.465e+3']) {
    const answer = await vault.call(
      'alice',
      'POST',
      create,
      `{"name":null,"type":"smtp","fields":{"host":"mail.test","port":${port},"username":"u","password":"p"}}`,
    );
    test.same(brief(answer.json.errors), [{ pointer: '/name', rule: 'type:string' }], port);
  }
});

t.test('a refused value is one fault', async (test) => {
  for (const [what, fields, errors] of [
    ['a mask', { token: '***' }, [{ pointer: '/fields/token', rule: 'mask' }]],
    ['nothing', { token: '' }, [{ pointer: '/fields/token', rule: 'min:1' }]],
    ['none', {}, [{ pointer: '/fields', rule: 'min:1' }]],
    ['null', { token: null }, [{ pointer: '/fields', rule: 'min:1' }]],
  ] as const)
    await refused(
      test,
      what,
      { name: 'c', type: 'custom', fields },
      { status: 400, code: 'invalidRequest', errors },
    );
});

t.test('a name is what it looks like', async (test) => {
  for (const name of [
    '',
    ' ',
    ' a',
    'a ',
    'a\u00a0',
    'a\nb',
    'a\tb',
    'a\0b',
    'a\u0085b',
    'a\u2028b',
    'a\u202eb',
    'a\u2066b',
    'a\u200bb',
    'a\u200db',
    '\ufeffa',
    'a\u00adb',
    'a\ufff9b',
    'x'.repeat(101),
  ]) {
    const answer = await vault.call('alice', 'POST', create, { ...good, name });
    test.match(
      answer,
      { status: 400, json: { errors: [{ pointer: '/name' }] } },
      encodeURIComponent(name),
    );
  }
  for (const [member, value] of [
    ['description', 'a\u202eb'],
    ['description', 'a\0'],
    ['labels', { env: 'a\u2067b' }],
    ['labels', { env: 'a\nb' }],
  ] as const) {
    test.equal(
      (await vault.call('alice', 'POST', create, { ...good, [member]: value })).status,
      400,
      `${member} ${encodeURIComponent(JSON.stringify(value))}`,
    );
  }
});

t.test('nothing was stored, and the log has nothing of it', async (test) => {
  test.same(await stored(), before);
  test.notOk(vault.logs.join('').includes(marker));
  test.notOk(
    vault.logs.some((line) => line.includes('requestFailed')),
    'none of it was a failure of the vault',
  );
});

t.test('what only looks dangerous is kept to the byte', async (test) => {
  for (const [n, apiKey] of [
    '<script>',
    '${x}',
    '%00',
    '\\u0000',
    '-----BEGIN KEY-----\r\nx\r\n',
    ' both sides ',
    '\ufeffmark',
    'e\u0301 and é',
    '😀',
    '\u202ex',
    'x'.repeat(64 * 1024),
    '**',
    'a*',
  ].entries()) {
    const answer = await vault.call('alice', 'POST', create, {
      ...good,
      name: `kept-${n}`,
      fields: { apiKey },
    });
    test.equal(answer.status, 201, JSON.stringify(apiKey.slice(0, 20)));
  }
  const odd = { constructor: 'c', toString: 't', hasOwnProperty: 'h', valueOf: 'v', then: 'p' };
  const custom = await vault.call('alice', 'POST', create, {
    name: 'odd',
    type: 'custom',
    fields: odd,
  });
  test.same(
    custom.json.secretFields,
    Object.keys(odd).sort(),
    'fields named like methods are fields',
  );
});

t.test(
  'an operation that takes no body refuses one, and does not mind its absence',
  async (test) => {
    const {
      json: { id },
    } = await vault.call('alice', 'POST', create, { ...good, name: 'switch' });
    const url = `/v1/credentials/${id}/disable`;
    test.match(await vault.call('alice', 'POST', url, { force: true }), {
      status: 400,
      json: { code: 'invalidRequest', errors: [{ pointer: '/force', rule: 'unknownField' }] },
    });
    test.match(await vault.call('alice', 'POST', url, marker, { 'content-type': 'text/plain' }), {
      status: 415,
    });
    test.equal(
      (await vault.call('alice', 'POST', url, '', { 'content-type': 'application/json' })).status,
      200,
      'an empty one, said to be JSON',
    );
    test.equal(
      (await vault.call('alice', 'POST', `/v1/credentials/${id}/enable`)).status,
      200,
      'none',
    );
    test.equal(
      (
        await vault.call(
          'alice',
          'DELETE',
          `/v1/credentials/${id}`,
          { force: true },
          { 'if-match': '*' },
        )
      ).status,
      400,
    );
    test.equal(
      (
        await vault.call('alice', 'DELETE', `/v1/credentials/${id}`, '', {
          'if-match': '*',
          'content-type': 'application/json',
        })
      ).status,
      204,
    );
  },
);

t.test('times are kept to the millisecond', async (test) => {
  for (const [n, [written, kept]] of [
    ['2099-01-31T00:00:00.1239999Z', '2099-01-31T00:00:00.123Z'],
    ['2099-01-31T00:00:00.99999999999Z', '2099-01-31T00:00:00.999Z'],
    ['2099-01-31T01:00:00.5+01:00', '2099-01-31T00:00:00.500Z'],
    ['2099-01-31T00:00:00Z', '2099-01-31T00:00:00.000Z'],
  ].entries() as Iterable<[number, [string, string]]>) {
    const made = await vault.call('alice', 'POST', create, {
      ...good,
      name: `timed-${n}`,
      expiresAt: written,
    });
    test.match(made, { status: 201, json: { expiresAt: kept } }, written);
    const read = await vault.call('alice', 'GET', `/v1/credentials/${made.json.id}`);
    test.equal(read.json.expiresAt, kept);
  }
});

t.test('where a body may be left out, null is no body and no absence either', async (test) => {
  const id = '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d';
  const all = vault.app.operations.filter(
    ({ method, body, isBodyOptional }) =>
      method !== 'GET' && (body === undefined || isBodyOptional === true),
  );
  test.ok(all.length >= 20, 'there are some');
  const { json: own } = await vault.call('alice', 'POST', create, { ...good, name: 'nulled' });
  for (const { method, url, operationId, access } of all) {
    const isOperators = typeof access === 'object' && 'operator' in access;
    const path = url
      .replace(':team', 'payments')
      .replace(':id', url.startsWith('/v1/credentials/') ? own.id : id)
      .replaceAll(/:[a-z]+/gi, id);
    const answer = await vault.call(isOperators ? 'operator' : 'alice', method, path, 'null', {
      'if-match': '*',
    });
    if ([403, 404].includes(answer.status)) continue; // before a body is read
    test.match(
      answer,
      { status: 400, json: { errors: [{ pointer: '', rule: 'type', allowed: ['object'] }] } },
      operationId,
    );
  }
});
