// What a writer to the database can change of a credential: every sealed column refuses (404,
// event, alarm), every bound one keeps the token from opening, one at a time; put back, it works
// again.
import t from 'tap';
import { sql } from 'kysely';
import { tampered, intrude } from '../helpers/intruder.ts';
import { askLease, openAnswer, registerEngine } from '../helpers/leases.ts';
import { openSecrets, openVersions } from '../helpers/stored.ts';
import { startVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };

t.test('credentials under an intruder', async (t) => {
  const vault = await startVault(t);
  const { call, db } = vault;
  await vault.team('payments');
  await vault.team('elsewhere', ['alice', 'mallory']);
  const engine = await registerEngine(vault, 'n8n');
  for (const team of ['payments', 'elsewhere']) await vault.member(team, 'n8n', 'engine');
  const store = async (
    name: string,
    team = 'payments',
    apiKey = `sk-of-${name}`,
  ): Promise<string> =>
    (
      await call('alice', 'POST', `/v1/teams/${team}/credentials`, {
        name,
        type: 'openai',
        fields: { apiKey },
        labels: { env: 'prod' },
        description: 'text',
      })
    ).json.id;
  const [one, two, foreign] = [
    await store('one'),
    await store('two'),
    await store('foreign', 'elsewhere'),
  ];
  await call(
    'alice',
    'PATCH',
    `/v1/credentials/${one}`,
    { fields: { apiKey: 'sk-of-one-v2' } },
    any,
  );
  const elsewhere = `(select id from team where slug = 'elsewhere')`;
  const events = async (): Promise<number> =>
    (
      await sql<{
        n: number;
      }>`select count(*) as n from audit_event where decision = 'deny' and reason = 'sealBroken'`.execute(
        db,
      )
    ).rows[0]?.n ?? 0;
  const alarms = (): number =>
    vault.logs.filter(
      (line) => line.includes('"event":"sealBroken"') && line.includes('"level":50'),
    ).length;
  const names = async (url: string): Promise<string[]> =>
    (await call('alice', 'GET', url)).json.items.map(({ name }: { name: string }) => name);
  const missing = (
    await call('alice', 'GET', '/v1/credentials/019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d')
  ).json;

  const sealed: readonly (readonly [string, string])[] = [
    ['team_id', `update credential set team_id = ${elsewhere} where id = '${one}'`],
    ['name', `update credential set name = 'better' where id = '${one}'`],
    ['type', `update credential set type = 'bearer' where id = '${one}'`],
    ['a type that there is not', `update credential set type = 'nothing' where id = '${one}'`],
    ['state', `update credential set state = 'disabled' where id = '${one}'`],
    [
      'state, deleted',
      `update credential set state = 'deleted', deleted_at = now() where id = '${one}'`,
    ],
    ['current_version', `update credential set current_version = 1 where id = '${one}'`],
    ['expires_at', `update credential set expires_at = '2099-01-01' where id = '${one}'`],
    ['revision', `update credential set revision = revision + 1 where id = '${one}'`],
    ['seal', `update credential set seal = '\\x' where id = '${one}'`],
    [
      'row MAC of another',
      `update credential set seal = (select seal from credential where id = '${two}') where id = '${one}'`,
    ],
    ['id', `update credential set id = '019aa7c2-5b1e-7c3a-9d52-0a4f6e1b2c3d' where id = '${one}'`],
    [
      'public_fields of the current version',
      `update credential_version set public_fields = '{"baseUrl":"https://evil.test"}' where credential_id = '${one}' and version = 2`,
    ],
    [
      'a public field more',
      `update credential_version set public_fields = public_fields || '{"apiKey":"x"}' where credential_id = '${one}' and version = 2`,
    ],
    [
      'no public fields',
      `update credential_version set public_fields = 'null' where credential_id = '${one}' and version = 2`,
    ],
    [
      'policy',
      `update credential_version set policy = '{"delivery":["lease"],"allowedHosts":["evil.test"]}' where credential_id = '${one}' and version = 2`,
    ],
    [
      'a member of the policy that nobody knows',
      `update credential_version set policy = policy || '{"more":1}' where credential_id = '${one}' and version = 2`,
    ],
    [
      'secret_field_names, less',
      `update credential_version set secret_field_names = '{}' where credential_id = '${one}' and version = 2`,
    ],
    [
      'secret_field_names, more',
      `update credential_version set secret_field_names = '{apiKey,toString}' where credential_id = '${one}' and version = 2`,
    ],
  ];
  for (const [what, statement] of sealed) {
    await t.test(`sealed: ${what}`, async (t) => {
      vault.clock.ms += 61_000;
      const before = { events: await events(), alarms: alarms() };
      const isMoved = what === 'id';
      await tampered(db, { table: statement.split(' ')[1] ?? '', statement }, async () => {
        for (const [method, url, body] of [
          ['GET', '', undefined],
          ['GET', '/versions', undefined],
          ['PATCH', '', { fields: { apiKey: 'new', baseUrl: 'https://a.test' } }],
          ['PATCH', '', { description: 'x' }],
          ['DELETE', '', undefined],
          ['POST', '/disable', undefined],
        ] as const) {
          const answer = await call('alice', method, `/v1/credentials/${one}${url}`, body, any);
          t.equal(answer.status, 404, `${method} ${url}: ${answer.text}`);
          t.strictSame({ ...answer.json, requestId: '' }, { ...missing, requestId: '' });
        }
        t.equal((await askLease(vault, 'n8n', [{ id: one }])).status, 422);
        if (!isMoved && what !== 'state, deleted')
          t.strictSame(await names('/v1/credentials'), ['foreign', 'two'], 'the others are listed');
      });
      if (!isMoved) {
        t.ok((await events()) > before.events, 'an event');
        t.ok(alarms() > before.alarms, 'an alarm');
      }
      t.match(
        (await call('alice', 'GET', `/v1/credentials/${one}`)).json,
        { revision: 2, version: 2 },
        'put back, it is as it was',
      );
      t.strictSame(await openSecrets(vault, one), { apiKey: 'sk-of-one-v2' });
    });
  }

  const of = (id: string, version: number): string =>
    `credential_id = '${id}' and version = ${version}`;
  const tokenOf = (id: string, version: number): string =>
    `(select token from credential_version where ${of(id, version)})`;
  const bound: readonly (readonly [string, string])[] = [
    [
      'the token of another credential',
      `update credential_version set token = ${tokenOf(two, 1)} where ${of(one, 2)}`,
    ],
    [
      'the token of an older version',
      `update credential_version set token = ${tokenOf(one, 1)} where ${of(one, 2)}`,
    ],
    [
      'the token of another team with its key',
      `update credential_version set token = ${tokenOf(foreign, 1)}, data_key_id = (select data_key_id from credential_version where ${of(foreign, 1)}) where ${of(one, 2)}`,
    ],
    [
      'the key of another team',
      `update credential_version set data_key_id = (select data_key_id from credential_version where ${of(foreign, 1)}) where ${of(one, 2)}`,
    ],
    [
      'a token with a bit turned',
      `update credential_version set token = overlay(token placing case substr(token, 80, 1) when 'A' then 'B' else 'A' end from 80) where ${of(one, 2)}`,
    ],
    [
      'a token cut short',
      `update credential_version set token = left(token, 100) where ${of(one, 2)}`,
    ],
  ];
  for (const [what, statement] of bound) {
    await t.test(`bound: ${what}`, async (t) => {
      await tampered(db, { table: 'credential_version', statement }, async () => {
        t.match((await askLease(vault, 'n8n', [{ id: one }])).json.errors, [
          { pointer: '/credentials/0', rule: 'undecryptable' },
        ]);
        t.equal(
          (
            await call(
              'alice',
              'PATCH',
              `/v1/credentials/${one}`,
              { policy: { delivery: [], allowedHosts: [] } },
              any,
            )
          ).json.code,
          'undecryptable',
        );
        await t.rejects(openVersions(vault, one));
      });
      const lease = await openAnswer(vault, engine, await askLease(vault, 'n8n', [{ id: one }]));
      t.match(
        lease.credentials,
        [{ fields: { apiKey: 'sk-of-one-v2', baseUrl: 'https://api.openai.com' } }],
        'put back, it opens',
      );
    });
  }
  for (const [what, change] of [
    ['public_fields', `public_fields = '{"baseUrl":"https://evil.test"}'`],
    ['policy', `policy = '{"delivery":["lease"],"allowedHosts":["evil.test"]}'`],
  ] as const) {
    await t.test(`bound: ${what} keep the token from opening, seal or no seal`, async (t) => {
      await tampered(
        db,
        {
          table: 'credential_version',
          statement: `update credential_version set ${change} where ${of(one, 1)}`,
        },
        async () => {
          await t.rejects(openVersions(vault, one));
        },
      );
      await t.resolves(openVersions(vault, one));
    });
  }

  t.test(
    'a destination that somebody wrote into the database gets no secret, however it is entered again',
    async (t) => {
      const id = await store('trap');
      await intrude(
        db,
        `update credential_version set public_fields = '{"baseUrl":"https://evil.test"}', token = overlay(token placing 'AAAA' from 60) where ${of(id, 1)}`,
      );
      t.equal(
        (
          await call(
            'alice',
            'PATCH',
            `/v1/credentials/${id}`,
            { fields: { apiKey: 'entered again' } },
            any,
          )
        ).status,
        404,
      );
    },
  );

  t.test('what no row MAC covers and does not fit is left out, and the list goes on', async (t) => {
    for (const labels of ['[]', '7', '{"env":7}', '{"A B":"x"}', '{"env":"a\\nb"}']) {
      await intrude(
        db,
        `update credential set labels = '${labels}', description = E'a\\u0001' where id = '${two}'`,
      );
      const listed = await call('alice', 'GET', '/v1/teams/payments/credentials');
      t.equal(listed.status, 200, `${labels}: ${listed.text.slice(0, 200)}`);
      t.match(
        listed.json.items.find(({ id }: { id: string }) => id === two),
        { labels: {}, description: null },
      );
      t.equal((await call('alice', 'GET', `/v1/credentials/${two}`)).status, 200);
    }
  });

  t.test('the schema itself refuses what the service never writes', async (t) => {
    const refused: readonly (readonly [string, RegExp])[] = [
      [
        `update credential_version set public_fields = '{}' where ${of(one, 2)}`,
        /a version is immutable/,
      ],
      [`update credential_version set policy = '{}' where ${of(one, 2)}`, /a version is immutable/],
      [`update credential_version set version = 9 where ${of(one, 2)}`, /a version is immutable/],
      [
        `update credential_version set secret_field_names = '{}' where ${of(one, 2)}`,
        /a version is immutable/,
      ],
      [
        `update credential_version set data_key_id = (select data_key_id from credential_version where ${of(foreign, 1)}) where ${of(one, 2)}`,
        /the key is not active|foreign key/,
      ],
      [`update credential set team_id = ${elsewhere} where id = '${one}'`, /moves by an offer/],
      [`update credential set current_version = 9 where id = '${one}'`, /foreign key/],
      [
        `update credential_version set token = 'plain text' where ${of(one, 2)}`,
        /credential_version_token_form/,
      ],
    ];
    for (const [statement, message] of refused)
      await t.rejects(sql.raw(statement).execute(db), message, statement.slice(0, 70));
  });
});
