// URLs, methods, queries and headers of strangers: a problem document with the same headers
// everywhere, and nothing of what was sent in it.
import { brief } from '../helpers/faults.ts';
import { randomBytes } from 'node:crypto';
import t from 'tap';
import { z } from 'zod';
import { testDatabase } from '../helpers/database.ts';
import { until } from '../helpers/processes.ts';
import { type Answer, startVault } from '../helpers/vault.ts';
import { subscribe } from '../helpers/webhooks.ts';

const marker = `marker${randomBytes(8).toString('hex')}`;
const vault = await startVault(t);
await vault.team('payments');
const { json: credential } = await vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
  name: 'openai-prod',
  type: 'openai',
  fields: { apiKey: 'sk-x' },
});

/** What every answer has, whatever it is. */
function isProper(
  test: Pick<typeof t, 'match' | 'equal' | 'notOk'>,
  answer: Answer,
  what: string,
): void {
  test.match(
    answer.headers,
    {
      'x-request-id': /^[0-9a-f-]{36}$/,
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cache-control': /^no-(?:store|cache)$/,
      'content-security-policy': /^default-src 'none'/,
    },
    what,
  );
  test.notOk(answer.headers['server'] ?? answer.headers['x-powered-by'], what);
  test.notOk(
    answer.text.includes(marker) || JSON.stringify(answer.headers).includes(marker),
    `${what}: nothing of it comes back`,
  );
}

function isProblem(
  test: Pick<typeof t, 'match' | 'equal' | 'notOk' | 'same'>,
  answer: Answer,
  status: number,
  code: string,
  what: string,
): void {
  test.equal(answer.status, status, what);
  isProper(test, answer, what);
  test.equal(answer.headers['content-type'], 'application/problem+json', what);
  if (answer.text === '') return;
  test.match(
    answer.json,
    {
      type: `urn:credential-vault:problem:${code}`,
      title: String,
      status,
      code,
      detail: String,
      requestId: answer.headers['x-request-id'],
    },
    what,
  );
  test.same(
    Object.keys(answer.json).filter(
      (member) =>
        !['type', 'title', 'status', 'code', 'detail', 'requestId', 'errors'].includes(member),
    ),
    [],
    what,
  );
}

t.test('URLs that are none', async (test) => {
  for (const url of [
    `/v1/teams/%zz${marker}`,
    `/v1/teams/%${marker}`,
    `/v1/teams/%c3%28${marker}`,
    `/v1/%`,
    `/v1/teams/payments/members/%ff`,
    `/v1/teams/${'x'.repeat(1537)}`,
  ]) {
    for (const as of ['alice', null])
      isProblem(test, await vault.call(as, 'GET', url), 400, 'invalidUrl', url.slice(0, 40));
  }
});

t.test('URLs of nothing', async (test) => {
  for (const url of [
    '/',
    `/${marker}`,
    '/v1',
    '/v2/teams',
    '/V1/teams',
    '/v1//teams',
    `/v1/teams/payments/${marker}`,
    '/v1/teams/payments/credentials/',
    '/v1/teams;x=1',
    '/.env',
    '/docs/../package.json',
    '/docs/..%2f..%2fpackage.json',
    '/docs/%2e%2e/package.json',
    '/v1/reveal',
    '/metrics',
    `/v1/credentials/${credential.id}/secret`,
  ]) {
    for (const as of ['alice', null])
      isProblem(test, await vault.call(as, 'GET', url), 404, 'notFound', url);
  }
});

t.test('methods that a path does not take', async (test) => {
  for (const method of [
    'HEAD',
    'OPTIONS',
    'PUT',
    'DELETE',
    'PATCH',
    'TRACE',
    'QUERY',
    'PROPFIND',
    'COPY',
    'LOCK',
    'MKCOL',
    'SEARCH',
  ]) {
    for (const [url, allow] of [
      ['/v1/credentials', 'GET'],
      ['/v1/teams/payments/keys?limit=1', 'GET'],
      [`/v1/credentials/${credential.id}/restore`, 'POST'],
      ['/v1/te%61ms/payments/key-rotations', 'GET, POST'],
      ['/healthz', 'GET, HEAD'],
      ['/docs/start.js', 'GET, HEAD'],
    ] as const) {
      const what = `${method} ${url}`;
      if (allow.includes(method)) continue;
      const answer = await vault.call('alice', method, url);
      isProblem(test, answer, 405, 'methodNotAllowed', what);
      test.equal(answer.headers['allow'], allow, what);
      const stranger = await vault.call(null, method, url);
      if (allow.includes('HEAD')) test.equal(stranger.headers['allow'], allow, what);
      else isProblem(test, stranger, 401, 'unauthenticated', `${what} without a token`);
    }
    for (const url of ['/nothing', '/v1/teams/payments/credentials/', '/v1/teams/payments/'])
      if (method !== 'PUT' || url !== '/v1/teams/payments/credentials/')
        isProblem(
          test,
          await vault.call('alice', method, url),
          404,
          'notFound',
          `${method} ${url}`,
        );
  }
  isProblem(
    test,
    await vault.call('alice', 'POST', '/nothing', `{"x":"${marker}"`),
    404,
    'notFound',
    'a body for nothing is not looked at',
  );
});

t.test('405 is the same for what exists, what is foreign and what is absent', async (test) => {
  const database = await testDatabase(test);
  const own = await startVault(test, { database });
  await own.team('payments');
  await own.team('foreign', ['otto']);
  const { json } = await own.call('alice', 'POST', '/v1/teams/payments/credentials', {
    name: 'a',
    type: 'openai',
    fields: { apiKey: 'sk-a' },
  });
  await own.call('mallory', 'GET', '/v1/whoami');
  const recorded = async (): Promise<unknown[]> =>
    own.db.selectFrom('audit_event').select('id').execute();
  const events = await recorded();
  const urls = [
    '/v1/teams/payments',
    '/v1/teams/foreign',
    '/v1/teams/absent',
    '/v1/teams/NO%20SLUG',
  ];
  const comparable = ({ status, headers, json: said }: Answer): string => {
    const { 'x-request-id': _, date: __, ...rest } = headers;
    const { requestId: ___, ...body } = said;
    return JSON.stringify([status, rest, body]);
  };
  const ask = (as: string): Promise<string[]> =>
    Promise.all(
      urls.map(async (url) => comparable(await own.call(as, 'POST', url, { name: marker }))),
    );
  const seen = [...(await ask('alice')), ...(await ask('mallory'))];
  test.equal(new Set(seen).size, 1);
  test.same(await recorded(), events, 'and no event');
  // With the database gone, whatever looks something up is no 405 any more.
  await database.db.destroy();
  test.equal((await own.call('alice', 'GET', '/v1/teams/payments')).status >= 500, true);
  for (const as of ['alice', 'somebody-nobody-has-seen']) {
    test.same(new Set(await ask(as)), new Set(seen), `${as}: nothing is asked of the database`);
    const ofCredential = await own.call(as, 'PUT', `/v1/credentials/${json.id}`, {});
    isProblem(test, ofCredential, 405, 'methodNotAllowed', `${as}: of a credential`);
    test.equal(ofCredential.headers['allow'], 'DELETE, GET, PATCH');
  }
  test.match(own.logs.map((line) => JSON.parse(line) as object).at(-1), {
    event: 'request',
    status: 405,
    subject: 'somebody-nobody-has-seen',
  });
});

t.test('who fails to authenticate for a 405 is recorded as everywhere', async (test) => {
  const own = await startVault(test);
  await own.call(null, 'PUT', '/v1/teams/payments/keys', {});
  await own.call(null, 'GET', '/nothing');
  const records = await until(async () => {
    const rows = await own.db.selectFrom('access_record').select(['action', 'status']).execute();
    return rows.length > 0 ? rows : undefined;
  });
  test.same(records, [{ action: 'authenticated', status: 401 }]);
});

t.test('405 counts for its subject as everything else that is of no team', async (test) => {
  const own = await startVault(test, { rateLimits: { address: 0, subject: 3 } });
  const seen = [];
  for (let times = 0; times < 3; times += 1)
    seen.push((await own.call('alice', 'PUT', '/v1/teams', {})).status);
  seen.push((await own.call('alice', 'GET', '/v1/whoami')).status);
  seen.push((await own.call('alice', 'PUT', '/v1/teams', {})).status);
  seen.push((await own.call('bob', 'PUT', '/v1/teams', {})).status);
  test.same(seen, [405, 405, 405, 429, 429, 405]);
});

t.test('guards are of their form wherever an operation declares them', async (test) => {
  const list = '/v1/teams/payments/credentials';
  const fields = { apiKey: 'sk-y' };
  const events = await vault.db.selectFrom('audit_event').select('id').execute();
  for (const key of ['', ' ', 'a b', 'ä', 'x'.repeat(129), 'a, b']) {
    for (const [method, url, body] of [
      ['POST', list, { name: 'keyed', type: 'openai', fields }],
      ['POST', '/v1/teams/payments/key-rotations', undefined],
      ['POST', '/v1/teams/payments/key-rotations?dryRun=true', undefined],
      ['POST', `/v1/credentials/${credential.id}/restore`, undefined],
    ] as const) {
      const answer = await vault.call('alice', method, url, body, { 'idempotency-key': key });
      isProblem(test, answer, 400, 'invalidRequest', `${url} with ${JSON.stringify(key)}`);
      test.same(answer.json.errors, [{ pointer: '/headers/Idempotency-Key', rule: 'pattern' }]);
    }
  }
  for (const ifMatch of ['', ' ', '7', '"7', marker]) {
    for (const [method, url, body] of [
      ['PUT', `${list}/nobody-has-this-name`, { type: 'openai', fields }],
      ['PUT', `${list}/nobody-has-this-name?dryRun=true`, { type: 'openai', fields }],
      ['PUT', `${list}/openai-prod`, { type: 'openai', fields }],
      ['PUT', '/v1/teams/payments/members/nobody', { role: 'viewer' }],
      ['DELETE', '/v1/teams/payments/members/nobody', undefined],
      ['PATCH', '/v1/teams/payments', { name: 'x' }],
      ['DELETE', `/v1/credentials/${credential.id}`, undefined],
    ] as const) {
      const answer = await vault.call('alice', method, url, body, { 'if-match': ifMatch });
      isProblem(test, answer, 400, 'invalidRequest', `${method} ${url} ${JSON.stringify(ifMatch)}`);
      test.same(answer.json.errors, [{ pointer: '/headers/If-Match', rule: 'etag' }]);
    }
  }
  test.same(
    await vault.db.selectFrom('audit_event').select('id').execute(),
    events,
    'nothing was done',
  );
  const undeclared = { 'idempotency-key': '', 'if-match': '' };
  test.equal(
    (await vault.call('alice', 'GET', list, undefined, undeclared)).status,
    200,
    'where none is declared, nobody looks',
  );
});

t.test('the cursor of the document is good for every list, and only it', async (test) => {
  const lists = vault.app.operations.filter(
    ({ query }) => query instanceof z.ZodObject && 'cursor' in query.shape,
  );
  test.ok(lists.length >= 10, 'there are lists');
  const webhook = await subscribe(
    vault,
    { url: 'https://receiver.test', secret: `whsec_${randomBytes(32).toString('base64')}` },
    ['credential.expired'],
  );
  for (const { url, operationId } of lists) {
    const path = url
      .replace(':team', 'payments')
      .replace(':id', credential.id)
      .replace(':credential', webhook);
    const as = operationId === 'listEngines' ? 'operator' : 'alice';
    const [plain, fromStart] = [
      await vault.call(as, 'GET', path),
      await vault.call(as, 'GET', `${path}?cursor=start&limit=200`),
    ];
    test.equal(fromStart.status, 200, operationId);
    test.same(fromStart.json, plain.json, operationId);
    isProblem(
      test,
      await vault.call(as, 'GET', `${path}?cursor=Start`),
      400,
      'invalidCursor',
      operationId,
    );
  }
});

t.test('HEAD is answered as GET is, where that is a probe or a public document', async (test) => {
  for (const url of [
    '/healthz',
    '/readyz',
    '/.well-known/jwks.json',
    '/openapi.json',
    '/docs',
    '/docs/swagger-ui.css',
    '/docs/favicon-32x32.png',
  ]) {
    const [get, head] = [
      await vault.call(null, 'GET', url),
      await vault.call(null, 'HEAD', url),
    ] as const;
    const plain = ({ headers: { date: _, 'x-request-id': __, ...headers } }: Answer): object =>
      headers;
    test.equal(head.status, 200, url);
    test.equal(head.text, '', url);
    test.same(plain(head), plain(get), url);
  }
  isProblem(test, await vault.call(null, 'HEAD', '/healthz?x=1'), 400, 'invalidRequest', 'a query');
});

t.test('path parameters that nothing can have', async (test) => {
  for (const key of [
    '%00',
    `${marker}%00`,
    '%2e%2e',
    '..%2fpayments',
    'payments%2f..',
    'PAYMENTS',
    'payments%20',
    '%F0%9F%98%80',
    `'or'1'='1`,
    '__proto__',
    'constructor',
    '%ef%bb%bfpayments',
    'payments%e2%80%8b',
    'x'.repeat(1000),
  ]) {
    isProblem(
      test,
      await vault.call('alice', 'GET', `/v1/teams/${key}`),
      404,
      'notFound',
      key.slice(0, 30),
    );
    isProblem(
      test,
      await vault.call('alice', 'GET', `/v1/credentials/${key}`),
      404,
      'notFound',
      key.slice(0, 30),
    );
  }
  for (const id of [
    credential.id.toUpperCase(),
    `${credential.id} `,
    `{${credential.id}}`,
    credential.id.replaceAll('-', ''),
    credential.id.slice(0, -1),
    `${credential.id}0`,
  ]) {
    isProblem(
      test,
      await vault.call('alice', 'GET', `/v1/credentials/${encodeURIComponent(id)}`),
      404,
      'notFound',
      `another spelling of an id: ${id}`,
    );
  }
  for (const subject of ['%00', '%20', 'a%0d%0ab', '%c3%a4', '%20a', 'a%20', 'x'.repeat(513)]) {
    const answer = await vault.call(
      'alice',
      'PUT',
      `/v1/teams/payments/members/${subject}`,
      { role: 'viewer' },
      { 'if-match': '*' },
    );
    isProblem(test, answer, 400, 'invalidRequest', `a member called ${subject.slice(0, 20)}`);
    test.match(answer.json.errors, [{ pointer: '/params/subject' }]);
  }
  const slash = await vault.call('alice', 'PUT', '/v1/teams/payments/members/a%2Fb%3Fc%25', {
    role: 'viewer',
  });
  test.match(
    slash,
    { status: 200, json: { subject: 'a/b?c%' } },
    'a subject with a slash is a subject',
  );
  test.equal(
    (
      await vault.call('alice', 'DELETE', '/v1/teams/payments/members/a%2Fb%3Fc%25', undefined, {
        'if-match': '*',
      })
    ).status,
    204,
  );
});

t.test('queries', async (test) => {
  const list = '/v1/teams/payments/credentials';
  const wrong: [string, string, string][] = [
    [`${list}?x=${marker}`, '/query/x', 'unknownField'],
    [`${list}?includeSecrets=true`, '/query/includeSecrets', 'unknownField'],
    [`/v1/credentials/${credential.id}?reveal=true`, '/query/reveal', 'unknownField'],
    [`/v1/whoami?${marker}%20=1`, '/query', 'unknownField'],
    ['/v1/teams/payments?__proto__=1', '/query/__proto__', 'unknownField'],
    ['/v1/credential-types?limit=1', '/query/limit', 'unknownField'],
    [`${list}?limit=0`, '/query/limit', 'pattern'],
    [`${list}?limit=-1`, '/query/limit', 'pattern'],
    [`${list}?limit=`, '/query/limit', 'pattern'],
    [`${list}?limit=1e2`, '/query/limit', 'pattern'],
    [`${list}?limit=201`, '/query/limit', 'max:200'],
    [`${list}?limit=${marker}`, '/query/limit', 'pattern'],
    [`${list}?limit=1&limit=2`, '/query/limit', 'type:string'],
    [`${list}?type=${marker}`, '/query/type', 'enum'],
    [`${list}?type=openai&type=smtp`, '/query/type', 'type:string'],
    [`${list}?cursor=${marker}!`, '/query/cursor', 'pattern'],
    [`${list}?cursor=${'A'.repeat(1025)}`, '/query/cursor', 'max:1024'],
    [`${list}?deleted=yes`, '/query/deleted', 'enum'],
    [`${list}?label=${marker}`, '/query/label', 'pattern'],
    [`${list}?namePrefix=%00`, '/query/namePrefix', 'pattern'],
    [`${list}?problem=${marker}`, '/query/problem', 'enum'],
  ];
  for (const [url, pointer, rule] of wrong) {
    const answer = await vault.call('alice', 'GET', url);
    isProblem(test, answer, 400, 'invalidRequest', url);
    test.same(brief(answer.json.errors), [{ pointer, rule }], url);
  }
  test.equal(
    (await vault.call('alice', 'GET', `${list}?limit=200&label=a:b&label=c:d`)).status,
    200,
    'a member that may be repeated is',
  );
  test.equal((await vault.call('alice', 'GET', `${list}?`)).status, 200, 'an empty query is none');
  test.equal(
    (await vault.call(null, 'GET', '/healthz?probe=1')).status,
    400,
    'the probes take none either',
  );
});

t.test('headers', async (test) => {
  const asked = await vault.call('alice', 'GET', '/v1/whoami', undefined, {
    'x-request-id': marker,
    'request-id': marker,
    'x-correlation-id': marker,
    traceparent: marker,
    'x-forwarded-for': marker,
    forwarded: `for=${marker}`,
    origin: `https://${marker}.test`,
  });
  test.equal(asked.status, 200);
  isProper(test, asked, "a request's id is ours");
  for (const name of Object.keys(asked.headers))
    test.notMatch(name, /^access-control/, 'no page of another origin reads the vault');
  const preflight = await vault.call(null, 'OPTIONS', '/healthz', undefined, {
    origin: 'https://x.test',
    'access-control-request-method': 'GET',
  });
  isProblem(test, preflight, 405, 'methodNotAllowed', 'a preflight');
  for (const name of Object.keys(preflight.headers)) test.notMatch(name, /^access-control/);
  const overridden = await vault.call('alice', 'POST', '/v1/whoami', undefined, {
    'x-http-method-override': 'GET',
    'x-method-override': 'GET',
  });
  isProblem(test, overridden, 405, 'methodNotAllowed', 'a method is what the request line says');
  const first = (await vault.call('alice', 'GET', '/v1/whoami')).headers['x-request-id'];
  test.not((await vault.call('alice', 'GET', '/v1/whoami')).headers['x-request-id'], first);
});

t.test('If-Match in all its forms', async (test) => {
  const url = `/v1/credentials/${credential.id}`;
  const patch = (ifMatch: string | undefined): Promise<Answer> =>
    vault.call(
      'alice',
      'PATCH',
      url,
      { description: marker.slice(0, 5) },
      ifMatch === undefined ? {} : { 'if-match': ifMatch },
    );
  isProblem(test, await patch(undefined), 428, 'preconditionRequired', 'none');
  for (const ifMatch of [
    '"2"',
    '"0"',
    '"01"',
    '"1.0"',
    '"99999999999"',
    'W/"2"',
    'W/"01"',
    'W/"2", "1-x"',
    '"1-gzip-br"',
    '"1gzip"',
    '"-gzip"',
    `"${marker}"`,
    '"2", "3"',
    '""',
    '"-1"',
    '"1 "'.replace(' ', '\u00e9'),
  ])
    isProblem(test, await patch(ifMatch), 412, 'preconditionFailed', ifMatch);
  for (const ifMatch of [
    '',
    ' ',
    ',',
    '1',
    marker,
    '"1',
    '1"',
    '"1" "2"',
    '**',
    '*, "1"',
    "'1'",
    'w/"1"',
  ]) {
    const answer = await patch(ifMatch);
    isProblem(test, answer, 400, 'invalidRequest', ifMatch);
    test.same(answer.json.errors, [{ pointer: '/headers/If-Match', rule: 'etag' }]);
  }
  const read = await vault.call('alice', 'GET', url);
  test.match(
    [read.json.revision, read.json.description, read.headers['etag']],
    [1, null, '"1"'],
    'none of them changed anything',
  );
  test.match(await patch('"1"'), { status: 200, headers: { etag: '"2"' } });
  test.match(await patch(' * '), { status: 200 }, 'whatever it is');
  // What a proxy makes of a tag when it compresses, and a list of which one is the thing's.
  let revision = (await vault.call('alice', 'GET', url)).json.revision as number;
  for (const made of [
    (tag: number) => `W/"${tag}"`,
    (tag: number) => `"${tag}-gzip"`,
    (tag: number) => `"${tag}--gzip"`,
    (tag: number) => `"${tag};br"`,
    (tag: number) => `W/"${tag}-br"`,
    (tag: number) => `"${tag}-zstd"`,
    (tag: number) => `"${tag + 7}", W/"${tag}"`,
    (tag: number) => `"x" , "${tag}"`,
  ]) {
    const description = `description ${revision}`;
    const change = (ifMatch: string): Promise<Answer> =>
      vault.call('alice', 'PATCH', url, { description }, { 'if-match': ifMatch });
    const what = made(revision);
    isProblem(test, await change(made(revision + 1)), 412, 'preconditionFailed', `after ${what}`);
    test.match(await change(what), { status: 200 }, what);
    revision += 1;
    isProblem(test, await change(what), 412, 'preconditionFailed', `${what} is stale`);
  }
});

t.test('what is refused before a body is read', async (test) => {
  const broken = `{"x":"${marker}"`;
  isProblem(
    test,
    await vault.call(null, 'POST', '/v1/teams/payments/credentials', broken),
    401,
    'unauthenticated',
    'a stranger learns nothing of their body',
  );
  isProblem(
    test,
    await vault.call('mallory', 'POST', '/v1/teams/payments/credentials', broken),
    404,
    'notFound',
    'nor does somebody of another team',
  );
});

t.test('the documentation is served with a policy of its own', async (test) => {
  for (const url of [
    '/docs',
    '/docs/start.js',
    '/docs/swagger-ui.css',
    '/docs/swagger-ui-bundle.js',
    '/openapi.json',
  ]) {
    const answer = await vault.call(null, 'GET', url);
    test.equal(answer.status, 200, url);
    isProper(test, answer, url);
    test.notMatch(answer.headers['content-security-policy'], /unsafe|\*/, url);
  }
});

t.test('nothing of all this is in the log', async (test) => {
  const lines = vault.logs.join('');
  test.notOk(lines.includes(marker));
  test.notOk(lines.includes('requestFailed'), 'and none of it was a failure of the vault');
});
