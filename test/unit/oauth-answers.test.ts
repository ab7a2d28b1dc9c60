// What token endpoints answer, and what the vault makes of it.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync } from 'node:zlib';
import t from 'tap';
import { Secret } from '../../src/crypto/index.ts';
import { type Issued, readAnswer, type Reading } from '../../src/oauth/answer.ts';
import { ProviderRefused, ProviderUnavailable } from '../../src/oauth/failures.ts';

const at = Date.parse('2026-11-30T12:00:00Z');
const cases = JSON.parse(
  readFileSync(join(import.meta.dirname, '../vectors/oauth/token-answers.json'), 'utf8'),
);

/** What an answer comes to, in words. */
type Outcome =
  | { access?: string; refresh?: string; seconds?: number; failure?: string; instance?: string }
  | string;
function outcomeOf(
  body: unknown,
  {
    status = 200,
    headers = {},
    others = [],
    ...reading
  }: { status?: number; headers?: Record<string, string>; others?: string[] } & Partial<
    Omit<Reading, 'others'>
  > = {},
): Outcome {
  const bytes = Buffer.isBuffer(body)
    ? body
    : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
  let issued: Issued;
  try {
    issued = readAnswer(
      { status, headers: new Headers(headers), body: bytes },
      { tokenPath: undefined, instance: undefined, others: new Secret(others), at, ...reading },
    );
  } catch (error) {
    if (error instanceof ProviderUnavailable) return 'unavailable';
    if (error instanceof ProviderRefused) return error.reason;
    throw error;
  }
  const { accessToken, refreshToken } = issued.tokens.expose();
  return {
    ...(accessToken === undefined ? {} : { access: accessToken }),
    ...(refreshToken === undefined ? {} : { refresh: refreshToken }),
    ...(issued.expiresAt === undefined
      ? {}
      : { seconds: (issued.expiresAt.getTime() - at) / 1000 }),
    ...(issued.failure === undefined ? {} : { failure: issued.failure }),
    ...(issued.instanceUrl === undefined ? {} : { instance: issued.instanceUrl }),
  };
}

t.test('the grants that providers send', async (t) => {
  for (const { name, status, body, right } of cases.grants) {
    const outcome = outcomeOf(body, { status });
    if (typeof right === 'string') continue;
    t.strictSame(
      outcome,
      {
        access: right.accessToken,
        ...(right.refreshToken === undefined || right.refreshToken === 'unchanged'
          ? {}
          : { refresh: right.refreshToken }),
        ...(right.expiresInSeconds === undefined
          ? body.expires_in === undefined
            ? {}
            : { seconds: body.expires_in }
          : { seconds: right.expiresInSeconds }),
      },
      name,
    );
  }
  const [session, nested] = cases.grants.filter(
    ({ right }: { right: unknown }) => typeof right === 'string',
  );
  t.strictSame(outcomeOf(session.body), {
    access: 'sf-session-1-abcdef',
    refresh: 'sf-refresh-0000001',
  });
  t.equal(outcomeOf(nested.body), 'accessTokenMissing', 'named, where nobody said where it stands');
  t.strictSame(outcomeOf(nested.body, { tokenPath: 'authed_user.access_token' }), {
    access: 'xoxp-0123456789',
  });
});

t.test('the refusals that providers send', async (t) => {
  for (const { name, status, body } of cases.refusals.slice(0, 3))
    t.equal(outcomeOf(body, { status }), 'refused', name);
  for (const status of [408, 425, 429, 500, 502, 503, 504, 302, 304])
    t.equal(outcomeOf(cases.refusals[3].body, { status }), 'unavailable', String(status));
  for (const status of [400, 401, 403, 422])
    for (const body of ['', '<html>no</html>', '{', '[]', '{}', '"no"', 'null', { error: null }])
      t.equal(outcomeOf(body, { status }), 'refused', `${status} ${JSON.stringify(body)}`);
  for (const [status, body, right] of [
    [400, { error: 'invalid_grant' }, 'invalid_grant'],
    [401, { error: 'invalid_client', error_description: 'x' }, 'invalid_client'],
    [400, 'error=invalid_scope', 'invalid_scope'],
    [404, { error: 'gone' }, 'refused'],
    [404, '<html>not here</html>', 'unavailable'],
    [400, { error: 'temporarily_unavailable' }, 'unavailable'],
    [400, { error: 'slow_down' }, 'unavailable'],
    [200, { error: 'invalid_grant' }, 'invalid_grant'],
    [200, { ok: false, error: 'token_revoked' }, 'refused'],
    [200, { error: { code: 190 } }, 'refused'],
    [200, 'error=bad_verification_code&error_description=old', 'refused'],
    [200, {}, 'accessTokenMissing'],
    [200, { access_token: '' }, 'accessTokenMissing'],
    [200, { access_token: null, expires_in: 1 }, 'accessTokenMissing'],
    [200, { access_token: 12345678 }, 'accessTokenMissing'],
    [200, { access_token: ['a'] }, 'accessTokenMissing'],
    [200, '<html>maintenance</html>', 'unavailable'],
    [200, '', 'unavailable'],
    [204, '', 'unavailable'],
    [200, '[{"access_token":"tok-0123456789"}]', 'unavailable'],
  ] as const)
    t.equal(outcomeOf(body, { status }), right, `${status} ${JSON.stringify(body)}`);
  t.strictSame(
    outcomeOf({ error: 'odd', access_token: 'tok-0123456789' }),
    { access: 'tok-0123456789' },
    'an access token in a 2xx is a grant, whatever stands beside it',
  );
});

const whole = { access_token: 'tok-0123456789', refresh_token: 'ref-0123456789', expires_in: 3600 };
const right = { access: 'tok-0123456789', refresh: 'ref-0123456789', seconds: 3600 };

t.test('no member that is not needed is judged', async (t) => {
  for (const more of [
    { token_type: undefined },
    { token_type: '' },
    { token_type: 'bot' },
    { token_type: ['bearer'] },
    { token_type: { kind: 1 } },
    { token_type: 7 },
    { scope: ['a', 'b'] },
    { scope: { a: true } },
    { scope: null },
    { scope: '' },
    { id_token: 'no token at all' },
    { id_token: '' },
    { error: '' },
    { error: null },
    { authorization_details: 'x', refresh_token_expires_in: 'soon' },
    { constructor: 1, toString: 2, hasOwnProperty: 3 },
  ])
    t.strictSame(outcomeOf({ ...whole, ...more }), right, JSON.stringify(more));
  for (const status of [200, 201, 202, 203, 206, 299])
    t.strictSame(outcomeOf(whole, { status }), right, String(status));
  t.strictSame(
    outcomeOf(`{"id":1,"id":2,${JSON.stringify(whole).slice(1)}`),
    right,
    'a repeated id',
  );
  t.strictSame(outcomeOf(`{"__proto__":{"a":1},${JSON.stringify(whole).slice(1)}`), right);
});

t.test('a lifetime is a number or its text, within bounds; else none was said', async (t) => {
  const { expires_in: _, ...rest } = whole;
  for (const [said, seconds] of [
    [3600, 3600],
    ['3600', 3600],
    [' 3599 ', 3599],
    [3600.5, 3600.5],
    [1, 60],
    [59, 60],
    [1e300, 315_360_000],
    ['99999999999', 315_360_000],
    [0, undefined],
    ['0', undefined],
    [-1, undefined],
    ['1e309', undefined],
    ['soon', undefined],
    ['', undefined],
    [null, undefined],
    [{}, undefined],
    [[3600], undefined],
    [true, undefined],
  ] as const)
    t.strictSame(
      outcomeOf({ ...rest, expires_in: said }),
      {
        access: right.access,
        refresh: right.refresh,
        ...(seconds === undefined ? {} : { seconds }),
      },
      JSON.stringify(said),
    );
  t.strictSame(outcomeOf('{"access_token":"tok-0123456789","expires_in":1e309}'), {
    access: 'tok-0123456789',
  });
});

t.test('in whatever dress', async (t) => {
  const json = JSON.stringify(whole);
  const form = new URLSearchParams({ ...whole, expires_in: '3600', scope: 'a b' }).toString();
  for (const [what, body, headers] of [
    ['a form', form, { 'content-type': 'application/x-www-form-urlencoded' }],
    ['a form called text', form, { 'content-type': 'text/plain' }],
    ['a form called JSON', `${form}\n`, { 'content-type': 'application/json' }],
    ['JSON called HTML', json, { 'content-type': 'text/html' }],
    ['JSON without a type', json, {}],
    ['with blanks around', ` \r\n${json}\n\n`, {}],
    ['with a mark', `\ufeff${json}`, {}],
    ['in UTF-16', Buffer.from(`\ufeff${json}`, 'utf16le'), {}],
    ['in UTF-16, the other way', Buffer.from(`\ufeff${json}`, 'utf16le').swap16(), {}],
    ['gzip', gzipSync(json), { 'content-encoding': 'gzip' }],
    ['gzip in capitals', gzipSync(json), { 'content-encoding': 'GZIP' }],
    ['x-gzip', gzipSync(json), { 'content-encoding': 'x-gzip' }],
    ['gzip and identity', gzipSync(json), { 'content-encoding': 'identity, gzip' }],
    ['gzip with a mark', gzipSync(`\ufeff${json}`), { 'content-encoding': 'gzip' }],
    ['a form in gzip', gzipSync(form), { 'content-encoding': 'gzip' }],
    ['deflate', deflateSync(json), { 'content-encoding': 'deflate' }],
    ['bare deflate', deflateRawSync(json), { 'content-encoding': 'deflate' }],
    ['brotli', brotliCompressSync(json), { 'content-encoding': 'br' }],
    ['said to be gzip and is not', json, { 'content-encoding': 'gzip' }],
    ['an empty coding', json, { 'content-encoding': '' }],
  ] as const)
    t.strictSame(outcomeOf(body, { headers }), right, what);
  const bomb = gzipSync(`{"access_token":"tok-0123456789","pad":"${'x'.repeat(2 ** 20)}"}`);
  t.ok(bomb.length < 2_000);
  for (const [what, body, coding] of [
    ['more than 256 KiB out of it', bomb, 'gzip'],
    ['the same by brotli', brotliCompressSync(Buffer.alloc(2 ** 20, 0x20)), 'br'],
    ['two codings', gzipSync(gzipSync(json)), 'gzip, gzip'],
    ['two codings, one of them not there', gzipSync(json), 'gzip, br'],
    ['a coding that nobody asked for', Buffer.from(json), 'compress'],
    ['a name that every object has', Buffer.from(json), 'constructor'],
  ] as const)
    t.equal(outcomeOf(body, { headers: { 'content-encoding': coding } }), 'unavailable', what);
});

t.test('a token has its form, and a good refresh token beside a bad one is kept', async (t) => {
  const refresh = 'ref-0123456789';
  for (const [what, token] of [
    ['a line break', 'tok\r\nx-evil: 1'],
    ['a blank', 'tok 0123456789'],
    ['a blank behind it', 'tok-0123456789 '],
    ['60 KB', 'x'.repeat(60_000)],
    ['more than 16 KiB', 'x'.repeat(16_385)],
    ['a letter beyond ASCII', 'tok-ü-0123456'],
    ['U+FFFD', 'tok-\ufffd-0123456'],
    ['NUL', 'tok-\0-0123456'],
  ] as const) {
    t.strictSame(
      outcomeOf({ access_token: token, refresh_token: refresh, expires_in: 60 }),
      { refresh, seconds: 60, failure: 'tokenForm' },
      what,
    );
    t.equal(outcomeOf({ access_token: token }), 'tokenForm', `${what}, alone`);
    t.strictSame(
      outcomeOf({ access_token: 'tok-0123456789', refresh_token: token }),
      { access: 'tok-0123456789' },
      `${what} in a refresh token: the one before it stays`,
    );
  }
  t.strictSame(outcomeOf({ access_token: 'x'.repeat(16_384) }), { access: 'x'.repeat(16_384) });
  for (const [what, body] of [
    [
      'two in JSON',
      `{"access_token":"a-12345678","refresh_token":"${refresh}","access_token":"b-12345678"}`,
    ],
    [
      'two, one of them escaped',
      `{"access_token":"a-12345678","refresh_token":"${refresh}","\\u0061ccess_token":"b-12345678"}`,
    ],
    ['two in a form', `access_token=a-12345678&access_token=b-12345678&refresh_token=${refresh}`],
    [
      'two, one of them encoded',
      `access_token=a-12345678&%61ccess_token=b-12345678&refresh_token=${refresh}`,
    ],
  ] as const)
    t.strictSame(outcomeOf(body), { refresh, failure: 'tokenForm' }, what);
  t.strictSame(
    outcomeOf(`{"access_token":"tok-0123456789","refresh_token":"a","refresh_token":"b"}`),
    { access: 'tok-0123456789' },
    'two refresh tokens are none',
  );
});

t.test('only what the vault cannot prove to hold is refused by its kind', async (t) => {
  const refresh = 'ref-0123456789';
  for (const kind of ['dpop', 'DPoP', 'mac', 'MAC', ' mac ']) {
    t.equal(outcomeOf({ access_token: 'tok-0123456789', token_type: kind }), 'tokenType', kind);
    t.strictSame(
      outcomeOf({ access_token: 'tok-0123456789', token_type: kind, refresh_token: refresh }),
      { refresh, failure: 'tokenType' },
      `${kind}: what was issued is kept`,
    );
  }
  for (const kind of ['bearer', 'dpop2', 'macaroon', 'N_A', 'user'])
    t.strictSame(outcomeOf({ access_token: 'tok-0123456789', token_type: kind }), {
      access: 'tok-0123456789',
    });
});

t.test('SECURITY: what was issued comes out, whatever stands beside it', async (t) => {
  const issued = { access: 'tok-0123456789', refresh: 'ref-0123456789' };
  const instance = { member: 'instance_url', suffixes: ['.my.crm.example'] };
  for (const [what, value] of [
    ['an object that says itself how it is text', { toString: 1, valueOf: 1 }],
    ['a list without end', []],
    ['a number', 1e308],
    ['a list', ['DPoP']],
  ] as const)
    for (const member of ['token_type', 'instance_url', 'expires_in', 'error', 'scope', 'id_token'])
      t.strictSame(
        outcomeOf(
          what === 'a list without end'
            ? `{"access_token":"tok-0123456789","refresh_token":"ref-0123456789","${member}":${'['.repeat(100_000)}${']'.repeat(100_000)}}`
            : {
                access_token: 'tok-0123456789',
                refresh_token: 'ref-0123456789',
                [member]: value,
              },
          { instance },
        ),
        member === 'expires_in' && what === 'a number'
          ? { ...issued, seconds: 10 * 365 * 86_400 }
          : issued,
        `${member}: ${what}`,
      );
});

t.test('SECURITY: reading an answer takes as long as it is, and no longer', async (t) => {
  const parts: string[] = [];
  for (let length = 0; length < 250 * 1024; length += parts.at(-1)!.length + 1)
    parts.push(parts.length.toString(36));
  for (const [what, body] of [
    [
      'a form of many names',
      `access_token=tok-0123456789&${parts
        .map((name) => `${name}=`)
        .join('&')
        .slice(0, 250 * 1024)}`,
    ],
    ['a form of many names without values', `access_token=tok-0123456789&${parts.join('&')}`],
    [
      'an object of many names',
      `{"access_token":"tok-0123456789",${parts
        .slice(0, 30_000)
        .map((name) => `"${name}":1`)
        .join()}}`,
    ],
  ] as const) {
    const before = process.cpuUsage();
    t.strictSame(outcomeOf(body), { access: 'tok-0123456789' }, what);
    const { user } = process.cpuUsage(before);
    t.ok(user < 2_000_000, `${what}: ${user} µs`);
  }
});

t.test('SECURITY: a path leads to an access token or nowhere', async (t) => {
  const body = {
    access_token: 'bot-0123456789',
    refresh_token: 'ref-of-the-bot',
    expires_in: 100,
    id_token: 'id-0123456789',
    data: { nested: { access_token: 'deep-0123456789', refreshToken: 'ref-in-camels' } },
    authed_user: { access_token: 'user-0123456789', refresh_token: 'ref-of-the-user' },
    list: [{ access_token: 'x' }],
  };
  for (const [tokenPath, outcome] of [
    ['authed_user.access_token', { access: 'user-0123456789', refresh: 'ref-of-the-user' }],
    ['data.nested.access_token', { access: 'deep-0123456789' }],
    ['authed_user.refresh_token', { refresh: 'ref-of-the-user', failure: 'tokenForm' }],
    ['data.nested.refreshToken', 'tokenForm'],
    ['id_token', { refresh: 'ref-of-the-bot', seconds: 100, failure: 'tokenForm' }],
    ['refresh_token', { refresh: 'ref-of-the-bot', seconds: 100, failure: 'tokenForm' }],
    ['toString', { refresh: 'ref-of-the-bot', seconds: 100, failure: 'accessTokenMissing' }],
    ['__proto__.constructor.name', 'accessTokenMissing'],
    ['constructor.name', 'accessTokenMissing'],
    ['list.0.access_token', 'accessTokenMissing'],
    ['authed_user', { refresh: 'ref-of-the-bot', seconds: 100, failure: 'accessTokenMissing' }],
    ['nowhere.access_token', 'accessTokenMissing'],
  ] as const)
    t.strictSame(outcomeOf(body, { tokenPath }), outcome, tokenPath);
  t.strictSame(
    outcomeOf(
      { user: { access_token: 'user-0123456789' }, refresh_token: 'r-1', expires_in: 99 },
      {
        tokenPath: 'user.access_token',
      },
    ),
    { access: 'user-0123456789', refresh: 'r-1', seconds: 99 },
    'what stands on top is its own where no other access token stands there',
  );
  const refreshed = { access_token: 'user-9876543210', refresh_token: 'r-2', token_type: 'user' };
  t.strictSame(
    outcomeOf(refreshed, { tokenPath: 'authed_user.access_token', isRefresh: true }),
    { access: 'user-9876543210', refresh: 'r-2' },
    'a refresh is of one token, which may stand on top',
  );
  t.strictSame(
    outcomeOf(body, { tokenPath: 'authed_user.access_token', isRefresh: true }),
    { access: 'user-0123456789', refresh: 'ref-of-the-user' },
    'and stands where it is said if it is there',
  );
  t.equal(
    outcomeOf({ access_token: 'ref-0123456789' }, { others: ['ref-0123456789'] }),
    'tokenForm',
    'the refresh token that was sent, or the client secret, comes back',
  );
  t.strictSame(outcomeOf({ access_token: 'same-123456', refresh_token: 'same-123456' }), {
    refresh: 'same-123456',
    failure: 'tokenForm',
  });
});

t.test('SECURITY: where an account lives is shown only under its suffix', async (t) => {
  const instance = { member: 'instance_url', suffixes: ['.my.crm.example', '.other.example'] };
  const of = (url: unknown): Outcome =>
    outcomeOf({ access_token: 'tok-0123456789', instance_url: url }, { instance });
  t.strictSame(of('https://acme.my.crm.example'), {
    access: 'tok-0123456789',
    instance: 'https://acme.my.crm.example',
  });
  t.strictSame(of('https://acme.my.crm.example/some/path?x=1'), {
    access: 'tok-0123456789',
    instance: 'https://acme.my.crm.example',
  });
  for (const url of [
    'https://evil.example',
    'https://evil.example/.my.crm.example',
    'https://evil.example#.my.crm.example',
    'https://my.crm.example',
    'https://acme.my.crm.example.evil.example',
    'https://acme.my.crm.example:8443',
    'http://acme.my.crm.example',
    'https://evil.example\\.my.crm.example',
    'acme.my.crm.example',
    '',
    null,
    7,
    {},
  ])
    t.strictSame(of(url), { access: 'tok-0123456789' }, JSON.stringify(url));
});
