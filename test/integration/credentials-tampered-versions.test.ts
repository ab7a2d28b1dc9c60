// What of a credential is protected anew was verified first: an earlier version changed past the
// service is not brought back, whatever was changed in it, and what is stored next goes where
// somebody has said.
import { sql } from 'kysely';
import t from 'tap';
import { Secret } from '../../src/crypto/index.ts';
import { intrude } from '../helpers/intruder.ts';
import {
  askLease,
  demand,
  openAnswer,
  registerEngine,
  type TestEngine,
} from '../helpers/leases.ts';
import { scan } from '../helpers/moves.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const any = { 'if-match': '*' };
const policy = { delivery: ['lease'], allowedHosts: [] as string[] };
const evil = 'https://evil.example';

interface Stage {
  readonly vault: TestVault;
  readonly engine: TestEngine;
  store(type: string, versions: readonly object[], more?: object): Promise<string>;
  patch(id: string, body: object): Promise<any>;
  restore(id: string, version: number): ReturnType<TestVault['call']>;
  /** Changes one version of it past the service. */
  bend(id: string, version: number, assignment: string): Promise<void>;
  fieldsOf(id: string): Promise<Readonly<Record<string, unknown>> | undefined>;
}

async function stageOf(t: Parameters<typeof startVault>[0]): Promise<Stage> {
  const vault = await startVault(t);
  await vault.team('payments');
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('payments', 'n8n', 'engine');
  const patch: Stage['patch'] = (id, body) =>
    demand(vault.call('alice', 'PATCH', `/v1/credentials/${id}`, body, any), 200);
  let made = 0;
  return {
    vault,
    engine,
    patch,
    store: async (type, [first, ...later], more = {}) => {
      const { id } = await demand(
        vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
          name: `c${(made += 1)}`,
          type,
          fields: first,
          policy,
          ...more,
        }),
        201,
      );
      for (const fields of later) await patch(id, { fields });
      return id as string;
    },
    restore: (id, version) =>
      vault.call('alice', 'POST', `/v1/credentials/${id}/versions/${version}/restore`),
    bend: async (id, version, assignment) => {
      await intrude(
        vault.db,
        `update credential_version set ${assignment} where credential_id = '${id}' and version = ${version}`,
      );
    },
    fieldsOf: async (id) => {
      const answer = await askLease(vault, 'n8n', [{ id }]);
      if (answer.status !== 201) return undefined;
      const [one] = (await openAnswer(vault, engine, answer)).credentials;
      return one === undefined || one.notModified
        ? undefined
        : (one.fields as Record<string, unknown>);
    },
  };
}

t.test('a version that was changed past the service is not restored', async (t) => {
  const { vault, store, patch, restore, bend, fieldsOf } = await stageOf(t);
  const at = (host: string, apiKey: string) => ({ apiKey, baseUrl: `https://${host}.test` });
  const other = await store('openai', [at('other', 'sk-other-key')]);
  for (const assignment of [
    `public_fields = '{"baseUrl":"${evil}"}', secret_field_names = '{apiKey}'`,
    `public_fields = '{"baseUrl":"${evil}"}', secret_field_names = '{}'`,
    `public_fields = '{"baseUrl":"${evil}","apiKey":"planted"}', secret_field_names = '{}'`,
    `secret_field_names = '{}'`,
    `secret_field_names = '{apiKey,baseUrl}'`,
    `secret_field_names = '{baseUrl}'`,
    `secret_field_names = '{NULL}'`,
    `secret_field_names = '{apiKey,apiKey}'`,
    `policy = '{"delivery":["lease","broker"],"allowedHosts":["evil.example"]}'`,
    `policy = '{}'`,
    `policy = 'null'`,
    `policy = '[]'`,
    `public_fields = '{}'`,
    `public_fields = '"x"'`,
    `public_fields = '[1e400]'`,
    `token = (select token from credential_version where credential_id = '${other}')`,
    `token = overlay(token placing 'AAAA' from 40)`,
    `token = 'gAAAA'`,
    `token = (select token from credential_version later where later.credential_id = credential_version.credential_id and later.version = 2)`,
    `data_key_id = '00000000-0000-0000-0000-000000000000'`,
  ]) {
    const id = await store('openai', [at('one', 'sk-first-key'), at('two', 'sk-second-key')]);
    await bend(id, 1, assignment);
    const answer = await restore(id, 1);
    t.equal(answer.status, 409, `${assignment}: ${answer.text}`);
    t.same(await fieldsOf(id), at('two', 'sk-second-key'), 'what was there is there');
    await patch(id, { fields: { apiKey: 'sk-the-next-key' } });
    t.same(
      await fieldsOf(id),
      at('two', 'sk-the-next-key'),
      'the next key goes where the last one went',
    );
    t.match(
      await scan(vault),
      [{ table: 'credential_version', row: `${id}/1` }],
      'verify finds it',
    );
    await demand(vault.call('alice', 'DELETE', `/v1/credentials/${id}/versions/1`), 204);
    t.same(await scan(vault), []);
  }
  t.same(await fieldsOf(other), at('other', 'sk-other-key'));
});

t.test('neither is one of a type without a secret', async (t) => {
  const { restore, store, bend, fieldsOf } = await stageOf(t);
  for (const assignment of [
    `public_fields = '{"url":"${evil}"}'`,
    `policy = '{"delivery":[],"allowedHosts":[]}'`,
    `secret_field_names = '{url}'`,
  ]) {
    const id = await store('flaresolverr', [
      { url: 'https://one.test' },
      { url: 'https://two.test' },
    ]);
    await bend(id, 1, assignment);
    t.equal((await restore(id, 1)).status, 409, assignment);
    t.same(await fieldsOf(id), { url: 'https://two.test' });
  }
  const id = await store('flaresolverr', [
    { url: 'https://one.test' },
    { url: 'https://two.test' },
  ]);
  t.equal((await restore(id, 1)).status, 200, 'whole, it comes back');
  t.same(await fieldsOf(id), { url: 'https://one.test' });
});

t.test(
  'a version that was sealed under other rules keeps those of today, or stays away',
  async (t) => {
    const { vault, restore, store, fieldsOf } = await stageOf(t);
    const { db, keyring } = vault;
    /** The vault's own token of the first version, for what it would not store today. */
    const reseal = async (
      id: string,
      of: { type?: string; publicFields: object; policy: object; secrets: Record<string, string> },
    ): Promise<void> => {
      const {
        rows: [row],
      } = await sql<any>`
      select credential.team_id as team, credential.type, data_key.id, data_key.team_id as key_team, data_key.version, data_key.format, data_key.root_fingerprint as "rootFingerprint", data_key.wrapped
      from credential join data_key on data_key.team_id = credential.team_id and data_key.state = 'active' where credential.id = ${id}`.execute(
        db,
      );
      const { team, type, key_team: _, ...key } = row;
      const token = keyring.seal(
        { ...key, team },
        {
          team,
          credential: id,
          version: 1,
          type,
          publicFields: of.publicFields,
          policy: of.policy,
        } as any,
        new Secret(of.secrets),
      );
      const names = Object.keys(of.secrets).sort();
      await intrude(
        db,
        `update credential_version set token = '${token}', public_fields = '${JSON.stringify(of.publicFields)}', policy = '${JSON.stringify(of.policy)}', secret_field_names = '{${names.join(',')}}' where credential_id = '${id}' and version = 1`,
      );
    };
    for (const [what, of] of [
      [
        'a field that the type does not know',
        {
          publicFields: { baseUrl: 'https://one.test', more: 'x' },
          policy,
          secrets: { apiKey: 'sk-first-key' },
        },
      ],
      [
        'a field of another form',
        { publicFields: { baseUrl: 'no address' }, policy, secrets: { apiKey: 'sk-first-key' } },
      ],
      [
        'without what it needs',
        { publicFields: { baseUrl: 'https://one.test' }, policy, secrets: {} },
      ],
      [
        'a secret too short for the broker',
        {
          publicFields: { baseUrl: 'https://one.test' },
          policy: { delivery: ['broker'], allowedHosts: [] },
          secrets: { apiKey: 'x' },
        },
      ],
    ] as const) {
      const id = await store('openai', [
        { apiKey: 'sk-first-key', baseUrl: 'https://one.test' },
        { apiKey: 'sk-second-key', baseUrl: 'https://two.test' },
      ]);
      await reseal(id, of);
      t.match(await restore(id, 1), { status: 409, json: { code: 'stateConflict' } }, what);
      t.match(await fieldsOf(id), { baseUrl: 'https://two.test' });
    }
    const id = await store('openai', [
      { apiKey: 'sk-first-key', baseUrl: 'https://one.test' },
      { apiKey: 'sk-second-key', baseUrl: 'https://two.test' },
    ]);
    await reseal(id, {
      publicFields: { baseUrl: 'https://three.test' },
      policy,
      secrets: { apiKey: 'sk-third-key' },
    });
    t.equal((await restore(id, 1)).status, 200, 'what keeps the rules comes back');
    t.same(await fieldsOf(id), { apiKey: 'sk-third-key', baseUrl: 'https://three.test' });
    const solver = await store('flaresolverr', [
      { url: 'https://one.test' },
      { url: 'https://two.test' },
    ]);
    await reseal(solver, {
      publicFields: { url: 'https://one.test' },
      policy: { delivery: ['lease', 'broker'], allowedHosts: [] },
      secrets: {},
    });
    t.equal((await restore(solver, 1)).status, 409, 'a type that the broker cannot use');
    const odd = await store('openai', [
      { apiKey: 'sk-first-key', baseUrl: 'https://one.test' },
      { apiKey: 'sk-second-key', baseUrl: 'https://two.test' },
    ]);
    await reseal(odd, {
      publicFields: { baseUrl: 'https://one.test' },
      policy: { delivery: ['mail'], allowedHosts: [] },
      secrets: { apiKey: 'sk-first-key' },
    });
    t.equal((await restore(odd, 1)).status, 404, 'one that could not be answered with');
    t.match(await fieldsOf(odd), { baseUrl: 'https://two.test' });
  },
);

t.test('a version planted before the next one stops the change, and changes nothing', async (t) => {
  const { vault, store, fieldsOf } = await stageOf(t);
  const fields = { apiKey: 'sk-first-key', baseUrl: 'https://one.test' };
  const id = await store('openai', [fields]);
  await intrude(
    vault.db,
    `insert into credential_version (team_id, credential_id, version, data_key_id, token, secret_field_names, public_fields, policy, created_at, created_by, key_history)
     select team_id, credential_id, 2, data_key_id, token, secret_field_names, '{"baseUrl":"${evil}"}', policy, created_at, created_by, key_history from credential_version where credential_id = '${id}'`,
  );
  t.match(
    await vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { fields: { apiKey: 'sk-second-key' } },
      any,
    ),
    { status: 409, json: { code: 'stateConflict' } },
  );
  t.same(await fieldsOf(id), fields);
  await demand(vault.call('alice', 'DELETE', `/v1/credentials/${id}/versions/2`), 204);
  await demand(
    vault.call(
      'alice',
      'PATCH',
      `/v1/credentials/${id}`,
      { fields: { apiKey: 'sk-second-key' } },
      any,
    ),
    200,
  );
  t.same(await fieldsOf(id), { ...fields, apiKey: 'sk-second-key' });
});

t.test('a credential whose row was changed is changed by nobody', async (t) => {
  const { vault, store } = await stageOf(t);
  await vault.team('billing', ['bella']);
  const row = { openai: { apiKey: 'sk-first-key', baseUrl: 'https://one.test' } };
  for (const assignment of [
    "type = 'anthropic'",
    'current_version = 1',
    "state = 'disabled'",
    'revision = revision + 1',
    "expires_at = 'infinity'",
    "name = 'renamed'",
    "seal = '\\x'",
  ]) {
    const id = await store('openai', [row.openai, { ...row.openai, apiKey: 'sk-second-key' }]);
    await intrude(vault.db, `update credential set ${assignment} where id = '${id}'`);
    const url = `/v1/credentials/${id}`;
    const {
      rows: [name],
    } = await sql<{ name: string }>`select name from credential where id = ${id}`.execute(vault.db);
    for (const [method, path, body, headers] of [
      ['PATCH', url, { description: 'x' }, any],
      ['PATCH', url, { fields: { apiKey: 'sk-third-key' } }, any],
      ['POST', `${url}/versions/1/restore`, undefined, {}],
      ['DELETE', `${url}/versions/1`, undefined, {}],
      ['POST', `${url}/disable`, undefined, {}],
      ['POST', `${url}/enable`, undefined, {}],
      ['POST', `${url}/transfers`, { team: 'billing' }, {}],
      ['PUT', `${url}/grants/teams/billing`, { access: 'use' }, any],
      [
        'PUT',
        `/v1/teams/payments/credentials/${encodeURIComponent(name!.name)}`,
        { type: 'openai', fields: { apiKey: 'sk-third-key' } },
        any,
      ],
      ['DELETE', url, undefined, any],
      ['POST', `${url}/restore`, undefined, {}],
    ] as const) {
      const { status } = await vault.call('alice', method, path, body, headers);
      t.equal(status, 404, `${assignment}: ${method} ${path}`);
    }
    t.match(
      (await scan(vault)).filter(({ row: found }) => found === id),
      [{ table: 'credential', fault: 'sealBroken' }],
      assignment,
    );
    t.ok(
      vault.logs.some((line) => line.includes('"event":"sealBroken"') && line.includes(id)),
      `${assignment}: the alarm`,
    );
  }
});
