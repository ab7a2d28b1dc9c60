// The command `import`: other systems' files against a real vault, over HTTP.
import { createHash, createCipheriv, createHmac, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { sql } from 'kysely';
import { importCredentials } from '../../src/cli/import/import.ts';
import { runToEnd } from '../helpers/commands.ts';
import { askLease, openAnswer, registerEngine } from '../helpers/leases.ts';
import { type Files, folderOf, inFolder } from '../helpers/files.ts';
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

interface Ran {
  readonly code: number;
  readonly output: string;
  readonly reports: {
    id: string;
    name: string;
    type: string;
    action: string;
    reason?: string;
    fields: { from: string; to?: string; as: string }[];
  }[];
}

async function stage(t: Test): Promise<{
  vault: TestVault;
  run: (files: Files, ...args: string[]) => Promise<Ran>;
}> {
  const vault = await startVault(t);
  await vault.team('payments');
  const url = await vault.app.listen({ host: '127.0.0.1', port: 0 });
  return {
    vault,
    async run(files, ...args) {
      const token = await vault.token('alice');
      let output = '';
      const all: Files = { 'alice.jwt': token, ...files };
      const code = await importCredentials({
        args: inFolder(
          ['--url', url, '--token-file', 'alice.jwt', '--team', 'payments', '--json', ...args],
          folderOf(t, files),
        ),
        environment: {},
        isTerminal: false,
        stop: new AbortController().signal,
        now: Date.now,
        readFile: (path) =>
          all[path]?.toString() ??
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
    },
  };
}

const listed = async (vault: TestVault): Promise<any[]> =>
  (await vault.call('alice', 'GET', '/v1/teams/payments/credentials?limit=200')).json.items;

t.test(
  'rows as Heym stores them: imported, leased, compared to the byte; twice, and nothing doubles',
  async (t) => {
    const { vault, run } = await stage(t);
    const types = ['openai', 'header', 'imap', 'smtp', 'custom', 'openai'];
    for (const key of [...new Set(vectors.map(({ ENCRYPTION_KEY }) => ENCRYPTION_KEY))]) {
      const rows = vectors
        .filter(({ ENCRYPTION_KEY }) => ENCRYPTION_KEY === key)
        .map(({ encrypted_config }, i) => ({
          id: `${createHash('sha256').update(key).digest('hex').slice(0, 8)}-${i}`,
          name: `n${i}`,
          type: types[i],
          encrypted_config,
        }));
      const first = await run(
        { 'rows.json': JSON.stringify(rows), key: `${key}\n` },
        '--from',
        'heym',
        '--file',
        'rows.json',
        '--key-file',
        'key',
      );
      t.equal(first.code, 0, first.output);
      t.strictSame(
        first.reports.map(({ action, type }) => `${action} ${type}`).sort(),
        [
          'created custom',
          'created customLlm',
          'created header',
          'created imap',
          'created openai',
          'created smtp',
          'skipped openai',
        ],
        'what is left over is kept beside',
      );
      const before = (await listed(vault)).length;
      const second = await run(
        { 'rows.json': JSON.stringify(rows), key },
        '--from',
        'heym',
        '--file',
        'rows.json',
        '--key-file',
        'key',
      );
      t.ok(second.reports.every(({ action }) => action === 'present' || action === 'skipped'));
      t.equal((await listed(vault)).length, before);
    }
    const engine = await registerEngine(vault, 'n8n');
    await vault.member('payments', 'n8n', 'engine');
    const all = await listed(vault);
    t.equal(all.length, 18);
    for (const { type, wanted } of [
      { type: 'header', wanted: { name: 'X-API-Key', value: 'zürich-秘密' } },
      {
        type: 'imap',
        wanted: {
          host: 'imap.example.test',
          port: 993,
          username: 'u',
          password: 'p\n"\\',
          mailbox: 'INBOX',
          useSsl: true,
        },
      },
      { type: 'custom', wanted: { left_over: '[1,null,{"a":"b"}]' } },
      { type: 'customLlm', wanted: { baseUrl: 'https://llm.example.test/v1', apiKey: 'k' } },
    ]) {
      for (const { id } of all.filter((each) => each.type === type)) {
        const {
          credentials: [leased],
        } = await openAnswer(vault, engine, await askLease(vault, 'n8n', [{ id }]));
        t.strictSame(
          leased !== undefined && !leased.notModified ? { ...leased.fields } : {},
          wanted,
          type,
        );
      }
    }
    const keys = all
      .filter(({ type }) => type === 'openai')
      .map(async ({ id }) => (await openSecrets(vault, id))['apiKey']);
    t.strictSame(
      (await Promise.all(keys)).sort(),
      vectors
        .filter((_, i) => i % 6 === 0)
        .map(({ config }) => config['api_key'])
        .sort(),
    );
  },
);

t.test('a wrong key, a dry run, a change, a name that is taken', async (t) => {
  const { vault, run } = await stage(t);
  const [vector] = vectors;
  const rows = JSON.stringify([
    { id: '7', name: '  prod\tkey ', type: 'openai', encrypted_config: vector!.encrypted_config },
  ]);
  const heym = (key: string, ...more: string[]): Promise<Ran> =>
    run(
      { 'rows.json': rows, key },
      '--from',
      'heym',
      '--file',
      'rows.json',
      '--key-file',
      'key',
      ...more,
    );
  t.match(await heym('another key'), {
    code: 3,
    reports: [{ action: 'failed', reason: 'doesNotOpen', name: '  prod\tkey ' }],
  });
  t.match(await heym(vector!.ENCRYPTION_KEY, '--dry-run'), {
    code: 0,
    reports: [
      {
        action: 'created',
        name: 'prod key',
        type: 'openai',
        fields: [{ from: 'api_key', to: 'apiKey', as: 'secret' }],
      },
    ],
  });
  t.equal((await listed(vault)).length, 0, 'which stores nothing');
  await vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
    name: 'prod key',
    type: 'bearer',
    fields: { token: 'x' },
  });
  t.match(await heym(vector!.ENCRYPTION_KEY), {
    reports: [{ action: 'created', name: 'prod key (2)' }],
  });
  t.match(await heym(vector!.ENCRYPTION_KEY, '--update'), {
    reports: [{ action: 'updated', name: 'prod key (2)' }],
  });
  t.match(
    (await listed(vault)).find(({ name }) => name === 'prod key (2)'),
    { version: 2, labels: { 'import/heym': '7' } },
  );
});

t.test('an export of n8n', async (t) => {
  const { vault, run } = await stage(t);
  const file = JSON.stringify([
    {
      id: 'a',
      name: 'mail',
      type: 'smtp',
      data: { user: 'me', password: 'pw', host: 'mail.test', port: 465, secure: true },
    },
    {
      id: 'b',
      name: 'unknown',
      type: 'mqtt',
      data: { brokers: 'k:9092', ssl: false, password: 'kpw' },
    },
    { id: 'c', name: 'half', type: 'httpBasicAuth', data: { user: 'me' } },
    { id: 'd', name: 'hook', type: 'httpHeaderAuth', data: { name: 'X-Key', value: 'hv' } },
    { id: 'e', name: 'broken', type: 'smtp' },
    {
      id: 'f',
      name: 'sheets',
      type: 'googleSheetsOAuth2Api',
      data: {
        clientId: 'ci',
        clientSecret: 'cs',
        oauthTokenData: { access_token: 'at', refresh_token: 'rt', token_type: 'Bearer' },
      },
    },
  ]);
  const { code, reports } = await run({ f: file }, '--from', 'n8n', '--file', 'f');
  t.equal(code, 3);
  t.strictSame(reports.map(({ name, type, action }) => `${name} ${type} ${action}`).sort(), [
    'broken smtp failed',
    'half custom created',
    'hook header created',
    'mail smtp created',
    'sheets (extra) custom created',
    'sheets googleSheets created',
    'unknown custom created',
  ]);
  const secretsOf = async (name: string): Promise<unknown> =>
    openSecrets(vault, (await listed(vault)).find((each) => each.name === name).id);
  t.strictSame(await secretsOf('unknown'), { brokers: 'k:9092', ssl: 'false', password: 'kpw' });
  t.strictSame(await secretsOf('half'), { user: 'me' });
  t.match(await secretsOf('sheets'), { clientSecret: 'cs' });
  t.strictSame(await secretsOf('sheets (extra)'), { 'oauthTokenData.token_type': 'Bearer' });
  t.match((await listed(vault)).find(({ name }) => name === 'mail').publicFields, {
    host: 'mail.test',
    port: 465,
    username: 'me',
  });
});

t.test('connections of Airflow, exported and as rows with tokens', async (t) => {
  const { vault, run } = await stage(t);
  const [old, current] = [randomBytes(32), randomBytes(32)];
  const key = `${current.toString('base64').replaceAll('+', '-').replaceAll('/', '_')},${old.toString('base64').replaceAll('+', '-').replaceAll('/', '_')}`;
  const exported = {
    pg: {
      conn_type: 'postgres',
      description: 'x',
      login: 'u',
      password: 'ppw',
      host: 'pg.test',
      port: 5433,
      schema: 'd',
      extra: '{"sslmode":"require"}',
    },
    hook: {
      conn_type: 'generic',
      login: '',
      password: 'gpw',
      host: '',
      port: null,
      schema: '',
      extra: '',
    },
  };
  t.match(await run({ f: JSON.stringify(exported) }, '--from', 'airflow', '--file', 'f'), {
    code: 0,
  });
  const rows = [
    {
      id: 1,
      conn_id: 'row',
      conn_type: 'redis',
      host: 'r.test',
      port: 6379,
      is_encrypted: true,
      is_extra_encrypted: true,
      password: fernet(old, 'rpw'),
      extra: fernet(current, '{"db":3}'),
    },
  ];
  t.match(
    await run(
      { f: JSON.stringify(rows), key },
      '--from',
      'airflow',
      '--file',
      'f',
      '--key-file',
      'key',
    ),
    { code: 0, reports: [{ action: 'created', type: 'redis' }] },
  );
  const all = await listed(vault);
  t.match(all.find(({ name }) => name === 'row').publicFields, { host: 'r.test', db: 3 });
  t.strictSame(await openSecrets(vault, all.find(({ name }) => name === 'row').id), {
    password: 'rpw',
  });
  t.match(
    all.find(({ name }) => name === 'pg'),
    {
      type: 'postgres',
      publicFields: { host: 'pg.test', port: 5433, database: 'd', username: 'u', tls: true },
    },
  );
  t.notOk(
    all.some(({ name }) => name === 'pg (extra)'),
    'TLS has a field',
  );
  t.strictSame(await openSecrets(vault, all.find(({ name }) => name === 'hook').id), {
    password: 'gpw',
  });
});

t.test('variables of a file', async (t) => {
  const { vault, run } = await stage(t);
  const file =
    'OPENAI_API_KEY="sk-1"\n# a comment\nexport GITHUB_TOKEN=ghp\nMY_OWN=\'a b\'\nEMPTY=\nPOSTGRES_URL=postgres://u:p@h/d\n';
  const { reports } = await run({ f: file }, '--from', 'env', '--file', 'f');
  t.strictSame(reports.map(({ name, type, action }) => `${name} ${type} ${action}`).sort(), [
    'EMPTY EMPTY skipped',
    'GITHUB_TOKEN github created',
    'MY_OWN custom created',
    'OPENAI_API_KEY openai created',
    'POSTGRES_URL postgres created',
  ]);
  t.strictSame(
    await openSecrets(vault, (await listed(vault)).find(({ name }) => name === 'MY_OWN').id),
    { value: 'a b' },
  );
});

t.test(
  'five hundred, and no value in what is printed, logged or audited; a refusal is told without it',
  async (t) => {
    const { vault, run } = await stage(t);
    const canary = randomBytes(12).toString('hex');
    const rows = Array.from({ length: 500 }, (_, i) => ({
      id: `r${i}`,
      name: `c${i}`,
      type: 'telegramApi',
      data: {
        accessToken: `${canary}-${i}`,
        [i === 7 ? `${canary} name` : 'baseUrl']: 'https://x.test',
      },
    }));
    const wrong = [
      { id: 'mask', name: 'mask', type: 'httpBearerAuth', data: { token: '••••••', note: canary } },
      { id: 'long', name: 'long', type: 'kafka', data: { password: canary.repeat(4_000) } },
    ];
    const { code, output, reports } = await run(
      { f: JSON.stringify([...rows.filter((_, i) => i !== 7), ...wrong]) },
      '--from',
      'n8n',
      '--file',
      'f',
    );
    t.equal(code, 3);
    t.match(
      reports
        .filter(({ action }) => action === 'failed')
        .map(({ name, reason }) => `${name}: ${reason}`)
        .sort(),
      [/^long: invalidRequest$/, /^mask: \/token mask \(a mask in place of the secret\)$/],
    );
    t.equal((await listed(vault)).length, 200);
    const {
      rows: [{ n } = { n: 0 }],
    } = await sql<{ n: number }>`select count(*)::int as n from credential`.execute(vault.db);
    t.equal(n, 499, 'a key with a base URL that its type cannot take is one `custom` credential');
    t.notMatch(output, canary);
    t.notMatch(vault.logs.join('\n'), canary);
    t.equal(
      (
        await sql<{
          n: number;
        }>`select count(*)::int as n from audit_event event where event::text like ${`%${canary}%`}`.execute(
          vault.db,
        )
      ).rows[0]!.n,
      0,
    );
  },
);

t.test('what it cannot use, it says: without the file, the key or a value in it', async (t) => {
  const { run } = await stage(t);
  const canary = randomBytes(12).toString('hex');
  const refused = async (args: string[], message: RegExp): Promise<void> => {
    const said = await run(
      { f: `{"${canary}": `, list: '[]', text: `"${canary}"`, key: canary, empty: '' },
      ...args,
    ).then(
      ({ output }) => output,
      (error: Error) => error.message,
    );
    t.match(said, message);
    t.notMatch(said, canary);
  };
  await refused(
    ['--from', 'toString', '--file', 'f'],
    /--from takes one of heym, n8n, airflow, env, vault/,
  );
  await refused(['--from', 'n8n'], /--file/);
  await refused(
    ['--from', 'n8n', '--file', 'nowhere'],
    /--file names a file that cannot be read \(ENOENT\)/,
  );
  await refused(['--from', 'n8n', '--file', 'f'], /no JSON/);
  await refused(['--from', 'n8n', '--file', 'text'], /no JSON/);
  await refused(['--from', 'heym', '--file', 'list'], /ENCRYPTION_KEY/);
  await refused(['--from', 'heym', '--file', 'list', '--key-file', 'empty'], /ENCRYPTION_KEY/);
  await refused(['--from', 'airflow', '--file', 'list', '--key-file', 'key'], /Fernet keys/);
  await refused(['--from', 'n8n', '--file', 'list', `--${canary}`], /an option is unknown/);
});

t.test('as a process of its own', async (t) => {
  const { vault } = await stage(t);
  const folder = mkdtempSync(join(tmpdir(), 'vi-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  writeFileSync(join(folder, 'jwt'), await vault.token('alice'));
  writeFileSync(join(folder, '.env'), 'OPENAI_API_KEY=sk-1\n');
  const { port } = vault.app.server.address() as { port: number };
  const { code, output } = await runToEnd(t, [
    'import',
    '--url',
    `http://127.0.0.1:${port}`,
    '--token-file',
    join(folder, 'jwt'),
    '--team',
    'payments',
    '--from',
    'env',
    '--file',
    join(folder, '.env'),
  ]);
  t.equal(code, 0, output);
  t.match(output, /created +OPENAI_API_KEY \(openai\)\n +value → apiKey, secret\n1 created\n/);
});

/** A Fernet token, made by the specification and not by the code that reads it. */
function fernet(key: Buffer, text: string): string {
  const iv = randomBytes(16);
  const cipher = createCipheriv('aes-128-cbc', key.subarray(16), iv);
  const head = Buffer.alloc(9);
  head[0] = 0x80;
  head.writeBigUInt64BE(BigInt(Math.floor(Date.now() / 1000)), 1);
  const body = Buffer.concat([head, iv, cipher.update(text), cipher.final()]);
  return Buffer.concat([body, createHmac('sha256', key.subarray(0, 16)).update(body).digest()])
    .toString('base64')
    .replaceAll('+', '-')
    .replaceAll('/', '_');
}
