// Keys and rotations over HTTP: what each operation answers, and to whom.
import t, { type Test } from 'tap';
import { startVault, type TestVault } from '../helpers/vault.ts';
import { until } from '../helpers/processes.ts';

const base = '/v1/teams/payments';
const nobody = '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d';

/**
 * A vault with the team payments (alice admin, ada auditor, eddy editor, vic viewer), the team
 * other (olga), and three credentials.
 */
async function paymentsVault(t: Test): Promise<TestVault & { ids: string[] }> {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.team('other', ['olga']);
  for (const [sub, role] of [
    ['ada', 'auditor'],
    ['eddy', 'editor'],
    ['vic', 'viewer'],
  ] as const)
    await vault.member('payments', sub, role);
  const ids: string[] = [];
  for (const name of ['one', 'two', 'three']) {
    const made = await vault.call('alice', 'POST', `${base}/credentials`, {
      name,
      type: 'openai',
      fields: { apiKey: `sk-${name}` },
    });
    ids.push(made.json.id as string);
  }
  return Object.assign(vault, { ids });
}

const rotate = (vault: TestVault, headers: Record<string, string> = {}) =>
  vault.call('alice', 'POST', `${base}/key-rotations`, undefined, headers);
const rotationEnded = (vault: TestVault, id: string) =>
  until(async () => {
    const { json } = await vault.call('alice', 'GET', `${base}/key-rotations/${id}`);
    return json.state !== 'running' && json;
  });
const keyNames = [
  'id',
  'version',
  'state',
  'format',
  'fingerprint',
  'rootFingerprint',
  'rootFingerprints',
  'rows',
  'compromised',
  'compromisedAt',
  'compromiseReason',
  'rotateAt',
  'overdue',
  'createdAt',
  'createdBy',
  'demotedAt',
  'retiredAt',
  'destroyAt',
  'destroyedAt',
  'lastBackupWithKey',
];
const rotationNames = [
  'id',
  'state',
  'toKey',
  'total',
  'done',
  'failed',
  'rowsPerSecond',
  'estimatedEnd',
  'cause',
  'createdAt',
  'createdBy',
  'endedAt',
];

t.test('2xx: a team rotates its key, follows it, and retires the old one', async (t) => {
  const vault = await paymentsVault(t);
  const [first] = (await vault.call('ada', 'GET', `${base}/keys`)).json.items;
  t.match(first, {
    version: 1,
    state: 'active',
    format: 'fernet',
    rows: 3,
    createdBy: 'operator',
    demotedAt: null,
    retiredAt: null,
  });
  t.strictSame(Object.keys(first), keyNames, 'nothing of its material');
  const started = await rotate(vault);
  t.equal(started.status, 202);
  t.equal(started.headers['location'], `${base}/key-rotations/${started.json.id}`);
  t.strictSame(Object.keys(started.json), rotationNames);
  t.match(started.json, {
    state: 'running',
    total: 3,
    done: 0,
    failed: 0,
    createdBy: 'alice',
    rowsPerSecond: 0,
    estimatedEnd: null,
    endedAt: null,
  });
  t.match((await vault.call('ada', 'GET', started.headers['location'] as string)).json, {
    id: started.json.id,
    failures: [],
  });
  const etag = (await vault.call('alice', 'GET', `/v1/credentials/${vault.ids[0]}`)).headers[
    'etag'
  ];
  vault.start();
  t.match(await rotationEnded(vault, started.json.id), {
    state: 'completed',
    done: 3,
    failed: 0,
    failures: [],
    endedAt: String,
  });
  t.equal(
    (await vault.call('alice', 'GET', `/v1/credentials/${vault.ids[0]}`)).headers['etag'],
    etag,
    'no ETag changes',
  );
  t.strictSame(
    (await vault.call('ada', 'GET', `${base}/key-rotations`)).json.items.map(
      (item: { id: string }) => item.id,
    ),
    [started.json.id],
  );
  t.match((await vault.call('ada', 'GET', `${base}/keys`)).json, {
    items: [
      { id: started.json.toKey, version: 2, state: 'active', rows: 3 },
      { id: first.id, state: 'decryptOnly', rows: 0, demotedAt: String },
    ],
    nextCursor: null,
  });
  const retired = await vault.call('alice', 'POST', `${base}/keys/${first.id}/retire`);
  t.equal(retired.status, 200);
  t.match(retired.json, { id: first.id, state: 'retired', rows: 0, retiredAt: String });
  t.strictSame((await vault.call('ada', 'GET', `${base}/keys/${first.id}`)).json, retired.json);
  t.match(
    await vault.call(
      'eddy',
      'PATCH',
      `/v1/credentials/${vault.ids[0]}`,
      { fields: { baseUrl: 'https://api.openai.com/v1', apiKey: 'sk-next' } },
      { 'if-match': '*' },
    ),
    { status: 200, json: { version: 2 } },
    'work goes on under the new key',
  );
});

t.test('2xx: a repeated start answers with the rotation of the first', async (t) => {
  const vault = await paymentsVault(t);
  const answers = await Promise.all(
    [1, 2, 3].map(() => rotate(vault, { 'idempotency-key': 'monday' })),
  );
  t.strictSame(
    answers.map(({ status }) => status),
    [202, 202, 202],
  );
  t.equal(new Set(answers.map(({ json }) => json.id)).size, 1);
  vault.start();
  await rotationEnded(vault, answers[0]!.json.id);
  const later = await rotate(vault, { 'idempotency-key': 'monday' });
  t.match(
    later,
    { status: 202, json: { id: answers[0]!.json.id, state: 'completed' } },
    'as it is now',
  );
  t.strictSame(Object.keys(later.json), rotationNames);
  t.equal((await vault.call('alice', 'GET', `${base}/keys`)).json.items.length, 2);
  await vault.team('second');
  t.match(
    await vault.call('alice', 'POST', '/v1/teams/second/key-rotations', undefined, {
      'idempotency-key': 'monday',
    }),
    { status: 422, json: { code: 'idempotencyKeyReused' } },
  );
});

t.test('2xx: keys and rotations come in pages, newest first', async (t) => {
  const vault = await paymentsVault(t);
  vault.start();
  for (let times = 0; times < 3; times += 1)
    await rotationEnded(vault, (await rotate(vault)).json.id);
  for (const list of ['keys', 'key-rotations']) {
    const all = (await vault.call('ada', 'GET', `${base}/${list}`)).json.items.map(
      ({ id }: { id: string }) => id,
    );
    const paged: string[] = [];
    let cursor: string | null = '';
    while (cursor !== null) {
      const page = await vault.call(
        'ada',
        'GET',
        `${base}/${list}?limit=2${cursor === '' ? '' : `&cursor=${cursor}`}`,
      );
      t.ok(page.json.items.length <= 2);
      paged.push(...page.json.items.map(({ id }: { id: string }) => id));
      cursor = page.json.nextCursor;
    }
    t.strictSame(paged, all, list);
    t.equal(all.length, list === 'keys' ? 4 : 3);
  }
  const { json } = await vault.call('ada', 'GET', `${base}/keys?limit=1`);
  t.match(await vault.call('ada', 'GET', `${base}/key-rotations?cursor=${json.nextCursor}`), {
    status: 400,
    json: { code: 'invalidCursor' },
  });
});

t.test('2xx: a rotation is cancelled', async (t) => {
  const vault = await paymentsVault(t);
  const {
    json: { id, toKey },
  } = await rotate(vault);
  const cancelled = await vault.call('alice', 'POST', `${base}/key-rotations/${id}/cancel`);
  t.match(cancelled, {
    status: 200,
    json: { id, state: 'cancelled', done: 0, total: 3, endedAt: String },
  });
  t.strictSame(Object.keys(cancelled.json), rotationNames);
  t.match((await vault.call('alice', 'GET', `${base}/keys`)).json.items, [
    { id: toKey, state: 'active', rows: 0 },
    { state: 'decryptOnly', rows: 3 },
  ]);
});

t.test('400: ids that are none, unknown members, bad pages', async (t) => {
  const vault = await paymentsVault(t);
  for (const url of [
    'keys/x',
    `keys/${nobody.toUpperCase()}`,
    'key-rotations/1',
    'keys?limit=0',
    'keys?limit=201',
    'keys?page=1',
    'key-rotations?cursor=!',
  ]) {
    t.match(
      await vault.call('alice', 'GET', `${base}/${url}`),
      { status: 400, json: { code: 'invalidRequest' } },
      url,
    );
  }
  t.match(await vault.call('alice', 'POST', `${base}/keys/x/retire`), { status: 400 });
  t.match(await vault.call('alice', 'POST', `${base}/key-rotations`, { force: true }), {
    status: 400,
  });
  t.match(await rotate(vault, { 'idempotency-key': 'two words' }), { status: 400 });
  t.equal((await vault.call('alice', 'GET', `${base}/key-rotations`)).json.items.length, 0);
});

const operations = (ids: { key: string; rotation: string }) =>
  [
    ['GET', `${base}/keys`],
    ['GET', `${base}/keys/${ids.key}`],
    ['GET', `${base}/key-rotations`],
    ['GET', `${base}/key-rotations/${ids.rotation}`],
    ['POST', `${base}/key-rotations`],
    ['POST', `${base}/key-rotations/${ids.rotation}/cancel`],
    ['POST', `${base}/keys/${ids.key}/retire`],
  ] as const;

t.test(
  '401, 403, 404: nobody without a token, no role without the right, and outside the team nothing exists',
  async (t) => {
    const vault = await paymentsVault(t);
    const {
      json: { id: rotation, toKey },
    } = await rotate(vault);
    const keys = (await vault.call('alice', 'GET', `${base}/keys`)).json.items;
    for (const [method, url] of operations({ key: keys[1].id, rotation })) {
      t.match(
        await vault.call(null, method, url),
        { status: 401, json: { code: 'unauthenticated' } },
        `${method} ${url} without a token`,
      );
      for (const sub of method === 'GET' ? ['eddy', 'vic'] : ['eddy', 'vic', 'ada']) {
        t.match(
          await vault.call(sub, method, url),
          { status: 403, json: { code: 'forbidden' } },
          `${method} ${url} as ${sub}`,
        );
      }
      for (const sub of ['olga', 'operator', 'stranger'])
        t.match(
          await vault.call(sub, method, url),
          { status: 404, json: { code: 'notFound' } },
          `${method} ${url} as ${sub}`,
        );
    }
    for (const [method, url] of operations({ key: keys[1].id, rotation })) {
      if (!/(keys|key-rotations)\//.test(url)) continue;
      const answer = await vault.call('olga', method, url.replace('payments', 'other'));
      t.match(
        answer,
        { status: 404, json: { code: 'notFound' } },
        `${method} ${url} through another team`,
      );
      const none = await vault.call(
        'alice',
        method,
        url.replace(keys[1].id, nobody).replace(rotation, nobody),
      );
      t.strictSame(
        { ...none.json, requestId: '' },
        { ...answer.json, requestId: '' },
        'the same as for what is not there',
      );
    }
    t.strictSame(
      (await vault.call('alice', 'GET', `${base}/keys`)).json.items,
      keys,
      'nothing has changed',
    );
    t.match((await vault.call('alice', 'GET', `${base}/key-rotations/${rotation}`)).json, {
      state: 'running',
      toKey,
    });
  },
);

t.test('409: what the state of keys and rotations does not allow', async (t) => {
  const vault = await paymentsVault(t);
  const {
    json: { id: rotation, toKey },
  } = await rotate(vault);
  t.match(await rotate(vault), {
    status: 409,
    json: { code: 'rotationRunning', rotationId: rotation },
  });
  t.match(await vault.call('alice', 'POST', `${base}/keys/${toKey}/retire`), {
    status: 409,
    json: { code: 'keyStateConflict' },
  });
  const old = (await vault.call('alice', 'GET', `${base}/keys`)).json.items[1].id;
  t.match(await vault.call('alice', 'POST', `${base}/keys/${old}/retire`), {
    status: 409,
    json: { code: 'keyInUse', rows: { credential_version: 3 } },
  });
  vault.start();
  await rotationEnded(vault, rotation);
  t.match(await vault.call('alice', 'POST', `${base}/key-rotations/${rotation}/cancel`), {
    status: 409,
    json: { code: 'rotationNotRunning' },
  });
  t.equal((await vault.call('alice', 'POST', `${base}/keys/${old}/retire`)).status, 200);
  t.match(await vault.call('alice', 'POST', `${base}/keys/${old}/retire`), {
    status: 409,
    json: { code: 'keyStateConflict' },
  });
});

t.test(
  'what a rotation does stands in the audit log, under the name of who started it',
  async (t) => {
    const vault = await paymentsVault(t);
    vault.start();
    const started = await rotate(vault);
    await rotationEnded(vault, started.json.id);
    const { json } = await vault.call('ada', 'GET', `${base}/audit-events`);
    const events = json.items.filter(({ action }: { action: string }) => action.startsWith('key.'));
    t.match(
      events
        .map(({ action, actor, requestId }: Record<string, string>) => ({
          action,
          actor,
          requestId,
        }))
        .toSorted((a: { action: string }, b: { action: string }) => (a.action < b.action ? -1 : 1)),
      [
        { action: 'key.rotate', actor: 'alice', requestId: started.headers['x-request-id'] },
        { action: 'key.rotationEnd', actor: 'alice', requestId: `rotation:${started.json.id}` },
      ],
    );
  },
);
