// Storing by name: made where there is none, changed where there is one, tried without a trace.
import t from 'tap';
import { sql } from 'kysely';
import { openSecrets } from '../helpers/stored.ts';
import { type Answer, startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };

t.test('storing by name', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments');
  for (const [sub, role] of [
    ['ed', 'editor'],
    ['vera', 'viewer'],
  ] as const)
    await vault.member('payments', sub, role);
  const put = (
    name: string,
    body: object,
    headers: Record<string, string> = any,
    as = 'ed',
    query = '',
  ): Promise<Answer> =>
    call(
      as,
      'PUT',
      `/v1/teams/payments/credentials/${encodeURIComponent(name)}${query}`,
      body,
      headers,
    );
  const openai = { type: 'openai', fields: { apiKey: 'first' } };
  /** Everything that a write leaves. */
  const traces = async (): Promise<unknown> =>
    (
      await sql`select (select count(*) from credential) as credentials, (select count(*) from credential_version) as versions,
    (select count(*) from audit_event) as events, (select sum(revision) from credential) as revisions`.execute(
        db,
      )
    ).rows;

  t.test('made, changed, left as it is', async (t) => {
    const made = await put('prod / eu', { ...openai, labels: { env: 'prod' } }, {});
    t.match(
      [made.status, made.headers['etag'], made.json],
      [
        200,
        '"1"',
        {
          action: 'created',
          isDryRun: false,
          credential: { name: 'prod / eu', version: 1, labels: { env: 'prod' } },
        },
      ],
    );
    const { id } = made.json.credential;
    t.match(
      (await put('prod / eu', { ...openai, fields: { baseUrl: 'https://api.openai.com' } })).json,
      { action: 'unchanged', credential: { id, revision: 1 } },
    );
    t.match(
      (
        await put(
          'prod / eu',
          { type: 'openai', fields: {}, description: 'x' },
          { 'if-match': '"1"' },
        )
      ).json,
      {
        action: 'changed',
        credential: { id, revision: 2, version: 1, labels: { env: 'prod' }, description: 'x' },
      },
    );
    t.match(
      (await put('prod / eu', openai)).json,
      { action: 'changed', credential: { version: 2 } },
      'the same secret once more: nobody learns whether it is',
    );
    t.match(
      (await put('prod / eu', { type: 'openai', fields: {}, labels: null, description: null }))
        .json,
      { action: 'changed', credential: { labels: {}, description: null } },
    );
    t.strictSame(await openSecrets(vault, id), { apiKey: 'first' });
  });

  t.test('which one is said by its ETag', async (t) => {
    await put('tagged', openai, {});
    t.equal((await put('tagged', openai, {})).status, 428);
    t.equal((await put('tagged', openai, { 'if-match': '"9"' })).status, 412);
    t.equal(
      (await put('nobody', openai, { 'if-match': '"1"' })).status,
      412,
      'there is none (any more)',
    );
  });

  t.test('what it is does not change by it', async (t) => {
    await put(
      'fixed',
      { type: 'custom', fields: { token: 'x', region: 'eu' }, publicFieldNames: ['region'] },
      {},
    );
    const faults = ({ status, json }: Answer): unknown => [
      status,
      json.errors?.map(
        ({ pointer, rule }: { pointer: string; rule: string }) => `${pointer} ${rule}`,
      ),
    ];
    t.strictSame(faults(await put('fixed', { type: 'bearer', fields: { token: 'x' } })), [
      400,
      ['/type immutable'],
    ]);
    t.strictSame(
      faults(
        await put('fixed', {
          type: 'custom',
          fields: { token: 'x' },
          publicFieldNames: ['region', 'token'],
        }),
      ),
      [400, ['/publicFieldNames/1 immutable']],
    );
    t.equal(
      (await put('fixed', { type: 'custom', fields: { token: 'y' }, publicFieldNames: ['region'] }))
        .json.action,
      'changed',
    );
  });

  t.test('a dry run says what would be, by the same checks, and leaves nothing', async (t) => {
    const {
      json: {
        credential: { id },
      },
    } = await put('tried', openai, {});
    const before = await traces();
    const dry = (
      name: string,
      body: object,
      as = 'ed',
      headers: Record<string, string> = any,
    ): Promise<Answer> => put(name, body, headers, as, '?dryRun=true');
    t.match((await dry('not there yet', openai)).json, {
      action: 'created',
      isDryRun: true,
      credential: { name: 'not there yet', version: 1 },
    });
    t.match((await dry('tried', openai)).json, {
      action: 'changed',
      isDryRun: true,
      credential: { id, version: 2, revision: 2 },
    });
    t.match((await dry('tried', { type: 'openai', fields: {} })).json, {
      action: 'unchanged',
      isDryRun: true,
    });
    t.equal(
      (await dry('tried', { type: 'openai', fields: { baseUrl: 'https://evil.test' } })).json.code,
      'secretRequired',
    );
    t.equal((await dry('not there yet', { type: 'openai', fields: {} })).status, 400);
    t.equal((await dry('tried', openai, 'ed', {})).status, 428);
    t.strictSame(await traces(), before);
    t.equal(
      (
        await dry('tried', {
          ...openai,
          policy: { delivery: ['lease', 'broker'], allowedHosts: [] },
        })
      ).status,
      403,
    );
    t.equal((await dry('tried', openai, 'vera')).status, 403);
    t.equal((await dry('tried', openai, 'stranger')).status, 404);
    t.strictSame(await openSecrets(vault, id), { apiKey: 'first' });
    t.equal(
      (await call('ed', 'GET', '/v1/teams/payments/credentials?namePrefix=not')).json.items.length,
      0,
    );
  });

  t.test('twenty at once make one', async (t) => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => put('raced', openai, {})));
    t.strictSame(answers.map(({ status }) => status).sort(), [200, ...Array<number>(19).fill(428)]);
    const changed = await Promise.all(Array.from({ length: 20 }, () => put('raced', openai)));
    t.ok(changed.every(({ status, json }) => status === 200 && json.action === 'changed'));
    t.equal(
      (await call('ed', 'GET', `/v1/credentials/${changed[0]!.json.credential.id}`)).json.revision,
      21,
    );
  });
});
