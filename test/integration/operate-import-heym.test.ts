// All of Heym, out of a real database with its tables: teams, members, credentials, shares. And the
// same rows as JSON.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { randomUUID } from 'node:crypto';
import t, { type Test } from 'tap';
import pg from 'pg';
import { importCredentials } from '../../src/cli/import/import.ts';
import { folderOf, inFolder } from '../helpers/files.ts';
import { testDatabase } from '../helpers/database.ts';
import { askLease, demand, openAnswer, registerEngine } from '../helpers/leases.ts';
import { openSecrets } from '../helpers/stored.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

interface Vector {
  readonly ENCRYPTION_KEY: string;
  readonly config: Record<string, unknown>;
  readonly encrypted_config: string;
}
const vectors = JSON.parse(
  readFileSync(join(import.meta.dirname, '../vectors/heym/rows.json'), 'utf8'),
) as Vector[];
const encryptionKey = vectors[0]!.ENCRYPTION_KEY;
const rowsOf = vectors.filter(({ ENCRYPTION_KEY }) => ENCRYPTION_KEY === encryptionKey);
const types = ['openai', 'header', 'imap', 'smtp', 'custom', 'openai'];

/** The tables as Heym's migrations make them, as far as they matter here. */
const schema = `
  create type credential_type as enum ('openai', 'google', 'custom', 'header', 'imap', 'smtp', 'slack');
  create table users (id uuid primary key, email varchar(255) not null unique, hashed_password varchar(255) not null, name varchar(100) not null, user_rules text, created_at timestamptz not null default now());
  create table credentials (id uuid primary key, owner_id uuid not null references users on delete cascade, name varchar(100) not null, type credential_type not null, encrypted_config text not null,
    created_at timestamptz not null default now(), updated_at timestamptz not null default now(), constraint uq_credential_name unique (owner_id, name));
  create table credential_shares (id uuid primary key, credential_id uuid not null references credentials on delete cascade, user_id uuid not null references users on delete cascade, created_at timestamptz not null default now());`;
const teamTables = `
  create table teams (id uuid primary key, name varchar(255) not null, description text, creator_id uuid not null references users on delete cascade, created_at timestamptz not null default now(), updated_at timestamptz not null default now());
  create table team_members (id uuid primary key, team_id uuid not null references teams on delete cascade, user_id uuid not null references users on delete cascade, added_by_id uuid references users, created_at timestamptz not null default now());
  create table credential_team_shares (id uuid primary key, credential_id uuid not null references credentials on delete cascade, team_id uuid not null references teams on delete cascade, created_at timestamptz not null default now());`;

const id = {
  alice: randomUUID(),
  bob: randomUUID(),
  carol: randomUUID(),
  ops: randomUUID(),
  billing: randomUUID(),
  credentials: types.map(() => randomUUID()),
  bobs: randomUUID(),
};
const rows = {
  users: [
    { id: id.alice, email: 'alice@heym.test' },
    { id: id.bob, email: 'bob@heym.test' },
    { id: id.carol, email: 'carol@heym.test' },
  ],
  teams: [
    { id: id.ops, name: 'Ops & Friends', description: 'the night shift', creator_id: id.alice },
    { id: id.billing, name: 'Billing', description: null, creator_id: id.bob },
  ],
  team_members: [
    { team_id: id.ops, user_id: id.alice },
    { team_id: id.ops, user_id: id.bob },
    { team_id: id.billing, user_id: id.carol },
  ],
  credentials: [
    ...rowsOf.map(({ encrypted_config }, at) => ({
      id: id.credentials[at]!,
      owner_id: id.alice,
      name: `n${at}`,
      type: types[at]!,
      encrypted_config,
    })),
    {
      id: id.bobs,
      owner_id: id.bob,
      name: 'n0',
      type: 'openai',
      encrypted_config: rowsOf[0]!.encrypted_config,
    },
  ],
  credential_shares: [
    { credential_id: id.credentials[0]!, user_id: id.carol },
    { credential_id: id.credentials[0]!, user_id: id.alice },
  ],
  credential_team_shares: [
    { credential_id: id.credentials[0]!, team_id: id.billing },
    { credential_id: id.credentials[1]!, team_id: id.ops },
    { credential_id: id.credentials[4]!, team_id: id.billing },
    { credential_id: id.bobs, team_id: id.ops },
  ],
};
const map = {
  owners: { 'alice@heym.test': 'ops-friends', 'bob@heym.test': 'bobs-own' },
  subjects: { 'alice@heym.test': 'alice' },
};

async function heym(
  t: Test,
  { withTeams = true } = {},
): Promise<{ url: string; client: pg.Client }> {
  const { url } = await testDatabase(t, { empty: true });
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  t.teardown(() => client.end());
  await client.query(schema + (withTeams ? teamTables : ''));
  for (const each of rows.users)
    await client.query(
      "insert into users (id, email, hashed_password, name) values ($1, $2, 'x', $2)",
      [each.id, each.email],
    );
  for (const each of rows.credentials)
    await client.query(
      'insert into credentials (id, owner_id, name, type, encrypted_config) values ($1, $2, $3, $4, $5)',
      [each.id, each.owner_id, each.name, each.type, each.encrypted_config],
    );
  for (const each of rows.credential_shares)
    await client.query(
      'insert into credential_shares (id, credential_id, user_id) values (gen_random_uuid(), $1, $2)',
      [each.credential_id, each.user_id],
    );
  if (!withTeams) return { url, client };
  for (const each of rows.teams)
    await client.query(
      'insert into teams (id, name, description, creator_id) values ($1, $2, $3, $4)',
      [each.id, each.name, each.description, each.creator_id],
    );
  for (const each of rows.team_members)
    await client.query(
      'insert into team_members (id, team_id, user_id) values (gen_random_uuid(), $1, $2)',
      [each.team_id, each.user_id],
    );
  for (const each of rows.credential_team_shares)
    await client.query(
      'insert into credential_team_shares (id, credential_id, team_id) values (gen_random_uuid(), $1, $2)',
      [each.credential_id, each.team_id],
    );
  return { url, client };
}

interface Ran {
  readonly code: number;
  readonly output: string;
  readonly reports: any[];
}
async function stage(t: Test): Promise<{
  vault: TestVault;
  run: (files: Record<string, string>, ...args: string[]) => Promise<Ran>;
}> {
  const vault = await startVault(t, { operators: ['operator', 'mover'] });
  const url = await vault.app.listen({ host: '127.0.0.1', port: 0 });
  return { vault, run: (files, ...args) => run(vault, url, 'mover', files, ...args) };
}
async function run(
  vault: TestVault,
  url: string,
  as: string,
  files: Record<string, string>,
  ...args: string[]
): Promise<Ran> {
  const all: Record<string, string> = {
    jwt: await vault.token(as),
    key: `${encryptionKey}\n`,
    map: JSON.stringify(map),
    ...files,
  };
  let output = '';
  const code = await importCredentials({
    args: inFolder(
      ['--url', url, '--token-file', 'jwt', '--from', 'heym', '--key-file', 'key', ...args],
      folderOf(t, all),
    ),
    environment: {},
    isTerminal: false,
    stop: new AbortController().signal,
    now: Date.now,
    readFile: (path) =>
      all[path] ??
      (() => {
        throw Object.assign(new Error('no file'), { code: 'ENOENT' });
      })(),
    write: (text) => {
      output += text;
    },
  });
  return {
    code,
    output,
    reports: output
      .split('\n')
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line)),
  };
}
const listed = async (vault: TestVault, team: string): Promise<any[]> =>
  (await demand(vault.call('mover', 'GET', `/v1/teams/${team}/credentials?limit=200`), 200)).items;
const told = (reports: any[], kind: string): string[] =>
  reports
    .filter((each) => each.kind === kind)
    .map(({ action, team, subject, role, credential, reason }) =>
      [
        action,
        kind === 'grant' ? credential : team,
        kind === 'grant' && subject === undefined ? team : subject,
        role,
        reason,
      ]
        .filter((part) => part !== undefined)
        .join(' '),
    )
    .sort();

t.test('teams, members, credentials and shares; twice, and nothing doubles', async (t) => {
  const { vault, run } = await stage(t);
  const { url, client } = await heym(t);
  const files = { database: `${url.replace('postgresql://', 'postgresql+asyncpg://')}\n` };
  const args = ['--database', 'database', '--map', 'map', '--json'];
  const dry = await run(files, ...args, '--dry-run');
  t.equal(dry.code, 0, dry.output);
  t.strictSame(
    (await vault.call('mover', 'GET', '/v1/teams')).json.items,
    [],
    'a dry run makes nothing',
  );

  const first = await run(files, ...args);
  t.equal(first.code, 0, first.output);
  t.strictSame(
    first.reports
      .map(({ credential: _, ...rest }) => rest)
      .map(({ kind, action, team, subject, role, id: of, name }) => ({
        kind,
        action,
        team,
        subject,
        role,
        of,
        name,
      })),
    dry.reports.map(({ kind, action, team, subject, role, id: of, name }) => ({
      kind,
      action,
      team,
      subject,
      role,
      of,
      name,
    })),
    'it does what the dry run said',
  );
  t.strictSame(told(first.reports, 'team'), [
    'created billing',
    'created bobs-own',
    'created ops-friends',
  ]);
  t.strictSame(told(first.reports, 'member'), [
    'created billing carol@heym.test editor',
    'created ops-friends bob@heym.test editor',
    'present ops-friends alice admin',
  ]);
  const roles = async (team: string): Promise<string[]> =>
    (await demand(vault.call('mover', 'GET', `/v1/teams/${team}/members`), 200)).items
      .map(({ subject, role }: any) => `${subject} ${role}`)
      .sort();
  t.strictSame(await roles('ops-friends'), ['alice admin', 'bob@heym.test editor', 'mover admin']);
  t.strictSame(await roles('billing'), [
    'bob@heym.test admin',
    'carol@heym.test editor',
    'mover admin',
  ]);
  t.strictSame(await roles('bobs-own'), ['bob@heym.test admin', 'mover admin']);

  const ops = await listed(vault, 'ops-friends');
  t.strictSame(
    ops.map(({ name, type }: any) => `${name} ${type}`).sort(),
    ['n0 openai', 'n1 header', 'n2 imap', 'n3 smtp', 'n4 customLlm', 'n4 (extra) custom'].sort(),
  );
  t.strictSame(
    (await listed(vault, 'bobs-own')).map(({ name, type }: any) => `${name} ${type}`),
    ['n0 openai'],
  );
  const find = (name: string): string => ops.find((each: any) => each.name === name).id;
  t.strictSame(
    await openSecrets(vault, find('n0')),
    { apiKey: rowsOf[0]!.config['api_key'] },
    'to the byte',
  );
  t.strictSame(await openSecrets(vault, find('n1')), { value: rowsOf[1]!.config['header_value'] });

  t.strictSame(told(first.reports, 'grant'), [
    'created n0 billing',
    'created n0 carol@heym.test',
    'created n0 ops-friends',
    'created n4 (extra) billing',
    'created n4 billing',
  ]);
  const grants = (
    await demand(vault.call('mover', 'GET', `/v1/credentials/${find('n0')}/grants`), 200)
  ).items;
  t.strictSame(
    grants.map(({ team, subject, access }: any) => `${team} ${subject} ${access}`),
    ['billing null use', 'null carol@heym.test use'],
    'its owner and its own team have it anyway',
  );
  // What is shared is leased by an engine of the team that it is shared with, on behalf of a member
  // there.
  const engine = await registerEngine(vault, 'n8n');
  await vault.member('billing', 'n8n', 'engine', 'mover');
  const {
    credentials: [leased],
  } = await openAnswer(
    vault,
    engine,
    await askLease(vault, 'n8n', [{ id: find('n0') }], { onBehalfOf: 'carol@heym.test' }),
  );
  t.match(leased, { name: 'n0', fields: { apiKey: rowsOf[0]!.config['api_key'] } });

  const second = await run(files, ...args);
  t.equal(second.code, 0);
  t.ok(
    second.reports.every(({ action }) => action === 'present' || action === 'skipped'),
    second.output,
  );
  t.equal((await listed(vault, 'ops-friends')).length, ops.length);
  await client.query('delete from credential_team_shares');
  await demand(
    vault.call(
      'mover',
      'PUT',
      '/v1/teams/billing/members/carol%40heym.test',
      { role: 'viewer' },
      { 'if-match': '*' },
    ),
    200,
  );
  t.equal((await run(files, ...args)).code, 0);
  t.match(
    await roles('billing'),
    ['bob@heym.test admin', 'carol@heym.test viewer'],
    'what was decided here stays',
  );
  t.notMatch(
    first.output + second.output + vault.logs.join(''),
    new RegExp(
      rowsOf
        .flatMap(({ config }) =>
          Object.values(config).filter(
            (value) => typeof value === 'string' && value.startsWith('sk-'),
          ),
        )
        .join('|'),
    ),
  );
});

t.test('the same rows as JSON; people for lines', async (t) => {
  const { vault, run } = await stage(t);
  const { code, output } = await run(
    { rows: JSON.stringify(rows) },
    '--file',
    'rows',
    '--map',
    'map',
  );
  t.equal(code, 0, output);
  for (const line of [
    'created  team billing\n',
    'created  carol@heym.test in team billing (editor)\n',
    'created  n0 (openai)\n           api_key → apiKey, secret\n',
    'created  n0 for carol@heym.test (use)\n',
    'created  n0 for team billing (use)\n',
  ])
    t.ok(output.includes(line), line);
  t.equal((await listed(vault, 'ops-friends')).length, 6);
  const { code: viewers } = await (await stage(t)).run(
    { rows: JSON.stringify(rows) },
    '--file',
    'rows',
    '--map',
    'map',
    '--member-role',
    'viewer',
    '--team',
    'all',
  );
  t.equal(viewers, 0);
});

t.test('a Heym from before there were teams; one team for all', async (t) => {
  const { vault, run } = await stage(t);
  const { url } = await heym(t, { withTeams: false });
  const { code, reports } = await run(
    { database: url },
    '--database',
    'database',
    '--team',
    'everything',
    '--json',
  );
  t.equal(code, 0);
  t.strictSame(told(reports, 'team'), ['created everything']);
  t.strictSame(
    (await listed(vault, 'everything')).map(({ name }: any) => name),
    ['n0', 'n0 (2)', 'n1', 'n2', 'n3', 'n4', 'n4 (extra)'],
    'a name that two owners have gets a number',
  );
  t.match(
    told(reports, 'grant'),
    [/^created n0(?: \(2\))? carol@heym\.test$/],
    'whichever of the two came first',
  );
});

t.test("it reads Heym's database and cannot write to it", async (t) => {
  const { vault, run } = await stage(t);
  const { url, client } = await heym(t);
  await client.query(`create table written (at timestamptz); create function write_it() returns boolean language plpgsql volatile as $$ begin insert into written values (now()); return true; end $$;
    alter table users rename to people; create view users as select id, email from people where write_it()`);
  await t.rejects(run({ database: url }, '--database', 'database', '--map', 'map'), {
    code: '25006',
  });
  t.equal((await client.query('select from written')).rowCount, 0);
  t.strictSame((await vault.call('mover', 'GET', '/v1/teams')).json.items, []);
});

t.test('who may not make teams is told so, and the rest goes on', async (t) => {
  const { vault } = await stage(t);
  await vault.team('bobs-own', ['alice']);
  const { port } = vault.app.server.address() as { port: number };
  const { code, reports } = await run(
    vault,
    `http://127.0.0.1:${port}`,
    'alice',
    { rows: JSON.stringify(rows) },
    '--file',
    'rows',
    '--map',
    'map',
    '--json',
  );
  t.equal(code, 3);
  t.strictSame(told(reports, 'team'), [
    'failed billing forbidden',
    'failed ops-friends forbidden',
    'present bobs-own',
  ]);
  t.strictSame(
    reports
      .filter(({ kind, action }) => kind === 'credential' && action === 'failed')
      .map(({ reason }) => reason),
    types.map(() => 'noTeam'),
  );
  t.strictSame(
    told(reports, 'grant'),
    ['failed n0 ops-friends invalidRequest'],
    'there is no such team to share with',
  );
  t.equal(
    (await vault.call('alice', 'GET', '/v1/teams/bobs-own/credentials')).json.items.length,
    1,
  );
});

t.test('what has no place is named before anything is stored', async (t) => {
  const { vault, run } = await stage(t);
  const twins = {
    ...rows,
    teams: [
      ...rows.teams,
      { id: randomUUID(), name: 'billing!', description: null, creator_id: id.bob },
      { id: randomUUID(), name: '京都', description: null, creator_id: id.bob },
    ],
  };
  const refused = async (
    files: Record<string, string>,
    message: RegExp,
    ...args: string[]
  ): Promise<void> => {
    const error: Error = await run({ rows: JSON.stringify(rows), ...files }, ...args).then(
      () => new Error('it ran'),
      (reason: Error) => reason,
    );
    t.match(error, { name: 'OptionsUnfit', message }, message.source);
  };
  await refused(
    {},
    /owners: say a team for the credentials of alice@heym\.test[^]*owners: say a team for the credentials of bob@heym\.test/,
    '--file',
    'rows',
  );
  await refused(
    { rows: JSON.stringify(twins) },
    /another one would both be billing[^]*teams: say a slug for 京都/,
    '--file',
    'rows',
    '--map',
    'map',
  );
  await refused({ map: '{' }, /no JSON/, '--file', 'rows', '--map', 'map');
  for (const bad of ['[]', '{"owner":{}}', '{"owners":{"a":1}}', '{"owners":["a"]}'])
    await refused({ map: bad }, /--map takes/, '--file', 'rows', '--map', 'map');
  await refused(
    { map: '{"owners":{"alice@heym.test":"No Team"}}' },
    /the slug of no team/,
    '--file',
    'rows',
    '--map',
    'map',
    '--team',
    'all',
  );
  await refused(
    { map: '{"subjects":{"alice@heym.test":" no subject"}}' },
    /no subject that a token could have/,
    '--file',
    'rows',
    '--map',
    'map',
    '--team',
    'all',
  );
  await refused(
    { rows: '{"users":[{"id":1}]}' },
    /does not hold Heym's rows \(users\)/,
    '--file',
    'rows',
    '--team',
    'all',
  );
  await refused({ rows: '{"secrets":[]}' }, /something else/, '--file', 'rows', '--team', 'all');
  await refused(
    { rows: JSON.stringify({ ...rows, users: [] }) },
    /not among them/,
    '--file',
    'rows',
    '--map',
    'map',
  );
  for (const dangling of [
    { teams: [{ ...rows.teams[0], creator_id: randomUUID() }] },
    { team_members: [{ team_id: randomUUID(), user_id: id.bob }] },
    { credential_shares: [{ credential_id: randomUUID(), user_id: id.bob }] },
    { credential_team_shares: [{ credential_id: id.bobs, team_id: randomUUID() }] },
  ]) {
    await refused(
      {
        rows: JSON.stringify({
          ...rows,
          team_members: [],
          credential_team_shares: [],
          ...dangling,
        }),
      },
      /not among them/,
      '--file',
      'rows',
      '--map',
      'map',
    );
  }
  await refused(
    { database: 'mysql://u:p@h/d' },
    /--database must name a file/,
    '--database',
    'database',
    '--team',
    'all',
  );
  await refused(
    { database: (await testDatabase(t, { empty: true })).url },
    /without Heym's tables/,
    '--database',
    'database',
    '--team',
    'all',
  );
  await refused({}, /--file must name/, '--file', 'rows', '--database', 'database');
  await refused(
    {},
    /--member-role takes/,
    '--file',
    'rows',
    '--team',
    'all',
    '--member-role',
    'admin',
  );
  await refused({ key: '' }, /ENCRYPTION_KEY/, '--file', 'rows', '--team', 'all');
  t.strictSame((await vault.call('mover', 'GET', '/v1/teams')).json.items, []);
});
