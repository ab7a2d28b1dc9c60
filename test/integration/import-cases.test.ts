// Files that people bring along: what the source meant is stored, or fails by name with a reason.
// The inputs of shared/cases/imports.json, and more of each kind.
import { createCipheriv, createHash, createHmac, randomBytes } from 'node:crypto';
import { mkdirSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { importCredentials } from '../../src/cli/import/import.ts';
import { type Files, folderOf, inFolder } from '../helpers/files.ts';
import { openSecrets } from '../helpers/stored.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

interface Report {
  readonly id: string;
  readonly name: string;
  readonly nameThere?: string;
  readonly type: string;
  readonly action: string;
  readonly reason?: string;
}
interface Stored {
  readonly type: string;
  readonly fields: Readonly<Record<string, unknown>>;
  readonly publicFields: Readonly<Record<string, unknown>>;
  readonly policy: { readonly delivery: string[]; readonly allowedHosts: string[] };
}
interface Stage {
  readonly vault: TestVault;
  /** Imports the files into a team of their own; the reports, and what is there afterwards. */
  readonly bring: (
    from: string,
    files: Files,
    options?: { args?: string[]; team?: string; file?: string; isText?: boolean },
  ) => Promise<{
    code: number;
    output: string;
    reports: Report[];
    stored: Record<string, Stored>;
    team: string;
  }>;
}

async function stage(t: Test): Promise<Stage> {
  const vault = await startVault(t);
  const url = await vault.app.listen({ host: '127.0.0.1', port: 0 });
  let teams = 0;
  return {
    vault,
    async bring(from, files, { args = [], team, file = Object.keys(files)[0]!, isText } = {}) {
      const slug = team ?? `team-${(teams += 1)}`;
      if (team === undefined) await vault.team(slug);
      const token = await vault.token('alice');
      const folder = folderOf(t, files);
      let output = '';
      const code = await importCredentials({
        args: inFolder(
          [
            ...['--url', url, '--token-file', 'jwt', '--team', slug, '--from', from],
            ...['--file', file, ...(isText === true ? [] : ['--json']), ...args],
          ],
          folder,
        ),
        environment: {},
        isTerminal: false,
        stop: new AbortController().signal,
        now: Date.now,
        readFile: (path) => (path === 'jwt' ? token : String(files[path] ?? '')),
        write: (text) => {
          output += text;
        },
      });
      const { items } = (
        await vault.call('alice', 'GET', `/v1/teams/${slug}/credentials?limit=200`)
      ).json;
      const stored: Record<string, Stored> = {};
      for (const { id, name, type, publicFields, policy } of items)
        stored[name] = {
          type,
          publicFields,
          policy,
          fields: { ...publicFields, ...(await openSecrets(vault, id)) },
        };
      const reports =
        isText === true
          ? []
          : output
              .split('\n')
              .filter(Boolean)
              .map((line) => JSON.parse(line));
      return { code, output, reports, stored, team: slug };
    },
  };
}

const fernetKey = randomBytes(32);
const keyText = fernetKey.toString('base64url').padEnd(44, '=');
function fernet(text: string, key = fernetKey): string {
  const iv = randomBytes(16);
  const cipher = createCipheriv('aes-128-cbc', key.subarray(16), iv);
  const head = Buffer.alloc(9);
  head[0] = 0x80;
  head.writeBigUInt64BE(1_700_000_000n, 1);
  const body = Buffer.concat([head, iv, cipher.update(text), cipher.final()]);
  const whole = Buffer.concat([
    body,
    createHmac('sha256', key.subarray(0, 16)).update(body).digest(),
  ]);
  return whole.toString('base64').replaceAll('+', '-').replaceAll('/', '_');
}
/** As n8n's own cipher makes it. */
function salted(text: string, passphrase: string): string {
  const salt = randomBytes(8);
  const secret = Buffer.concat([Buffer.from(passphrase, 'latin1'), salt]);
  const digest = (before: Buffer): Buffer =>
    createHash('md5')
      .update(Buffer.concat([before, secret]))
      .digest();
  const one = digest(Buffer.alloc(0));
  const two = digest(one);
  const cipher = createCipheriv('aes-256-cbc', Buffer.concat([one, two]), digest(two));
  return Buffer.concat([
    Buffer.from('Salted__'),
    salt,
    cipher.update(text),
    cipher.final(),
  ]).toString('base64');
}
const n8n = (type: string, data: object | string, name = 'it'): string =>
  JSON.stringify([{ id: '1', name, type, data }]);

t.test(
  'Airflow: a ciphertext is opened or the connection fails, however its flag is printed',
  async (t) => {
    const { bring } = await stage(t);
    const token = fernet('hunter2-secret');
    const yes = [
      true,
      1,
      't',
      'true',
      'True',
      'TRUE',
      '1',
      "b'1'",
      '\u0001',
      'yes',
      'y',
      'on',
      'T',
      null,
      undefined,
      '',
    ];
    const no = [false, 0, 'f', 'false', 'False', '0', "b'0'", '\u0000', 'no', 'n', 'off'];
    const unknown = ['maybe', 2, '2', {}, []];
    const rows = [...yes, ...no, ...unknown].map((flag, at) => ({
      conn_id: `c${at}`,
      conn_type: 'postgres',
      host: 'db',
      login: 'u',
      password: token,
      is_encrypted: flag,
      is_extra_encrypted: 't',
      extra: fernet('{"sslmode":"disable"}'),
    }));
    const { code, reports, stored } = await bring(
      'airflow',
      { f: JSON.stringify(rows), key: keyText },
      { args: ['--key-file', 'key'] },
    );
    t.equal(code, 3);
    for (const [at] of yes.entries())
      t.strictSame(stored[`c${at}`]?.fields, {
        host: 'db',
        port: 5432,
        username: 'u',
        tls: false,
        password: 'hunter2-secret',
      });
    t.equal(reports.filter(({ action }) => action === 'failed').length, no.length + unknown.length);
    t.ok(
      reports.every(
        ({ action, reason }) => action !== 'failed' || /encrypted|flag/.test(reason ?? ''),
      ),
    );
    t.notMatch(JSON.stringify(stored), /gAAAA/);
    const without = await bring('airflow', { f: JSON.stringify(rows.slice(0, 2)) });
    t.match(without.reports[0], { action: 'failed', reason: 'encrypted (--key-file is needed)' });
    const other = await bring(
      'airflow',
      {
        f: JSON.stringify(rows.slice(0, 1)),
        key: randomBytes(32).toString('base64url').padEnd(44, '='),
      },
      { args: ['--key-file', 'key'] },
    );
    t.match(other.reports[0], { action: 'failed', reason: 'doesNotOpen' });
    const plain = await bring('airflow', {
      f: JSON.stringify([
        { conn_id: 'p', conn_type: 'postgres', host: 'db', password: 'plain', is_encrypted: 1 },
      ]),
    });
    t.match(plain.reports[0], { action: 'failed', reason: /said to be encrypted/ });
  },
);

t.test('Airflow: JSON, YAML, variables and URIs say the same', async (t) => {
  const { bring } = await stage(t);
  const uri = 'postgresql://u:p%40ss%2Fw@db.example:5432/app?sslmode=require';
  const right = {
    username: 'u',
    password: 'p@ss/w',
    host: 'db.example',
    port: 5432,
    database: 'app',
    tls: true,
  };
  const parts = {
    conn_type: 'postgres',
    login: 'u',
    password: 'p@ss/w',
    host: 'db.example',
    port: 5432,
    schema: 'app',
  };
  const forms: readonly (readonly [string, string, string])[] = [
    ['f.json', JSON.stringify({ CONN_C: uri }), 'CONN_C'],
    ['f.json', JSON.stringify({ CONN_C: [uri] }), 'CONN_C'],
    ['f', JSON.stringify({ c: { ...parts, extra: { sslmode: 'require' } } }), 'c'],
    ['f', JSON.stringify({ c: { ...parts, extra_dejson: { sslmode: 'require' } } }), 'c'],
    ['f.yaml', `CONN_C: '${uri}'\n`, 'CONN_C'],
    [
      'f.yml',
      'c:\n  conn_type: postgres\n  login: u\n  password: p@ss/w\n  host: db.example\n  port: 5432\n  schema: app\n  extra: \'{"sslmode":"require"}\'\n',
      'c',
    ],
    [
      'f',
      '# from the docs\nc:\n  conn_type: postgres\n  login: u\n  password: "p@ss/w"\n  host: db.example\n  port: 5432\n  schema: app\n  extra_dejson:\n    sslmode: require\n',
      'c',
    ],
    ['f.env', `CONN_C=${uri}\n`, 'CONN_C'],
    ['f', `export AIRFLOW_CONN_MY_DB='${uri}'\r\n`, 'my_db'],
    ['f', `# x\nc=${JSON.stringify({ ...parts, extra: { sslmode: 'require' } })}\n`, 'c'],
    [
      'f',
      JSON.stringify([
        {
          id: '1',
          conn_id: 'c',
          ...parts,
          port: '5432',
          is_encrypted: 'True',
          is_extra_encrypted: 'False',
          extra_dejson: { sslmode: 'require' },
          get_uri: uri,
        },
      ]),
      'c',
    ],
  ];
  for (const [file, text, name] of forms) {
    const { code, stored, output } = await bring('airflow', { [file]: text });
    t.equal(code, 0, output);
    t.strictSame(stored[name]?.fields, right, `${file} ${text.slice(0, 40)}`);
  }
  for (const [uri, why] of [
    ['postgres://u:p/w@h/d', /uri/],
    ['postgres://u:p#w@h/d', /uri/],
    ['postgres://u:p w@h/d', /uri/],
    ['postgres://u:p%zz@h/d', /escape/],
    ['postgres://u:p%ff@h/d', /escape/],
    ['postgres://h:99999/d', /port/],
    ['postgres://h/d?a=1&a=2', /twice/],
    ['postgres://h/d?a=1;b=2', /;/],
    ['//u:p@h', /type/],
    ['just text', /uri/],
  ] as const) {
    const { code, reports, stored } = await bring('airflow', {
      'f.json': JSON.stringify({ c: uri }),
    });
    t.equal(code, 3, uri);
    t.match(reports[0], { action: 'failed', reason: why }, uri);
    t.strictSame(stored, {}, uri);
  }
});

t.test('TLS is what the source says; what it says otherwise is no type of ours', async (t) => {
  const { bring } = await stage(t);
  const base = { host: 'db.test', user: 'u', password: 'pw', database: 'd', port: 1 };
  const nothing = { host: undefined, user: undefined, database: undefined };
  const rows: readonly (readonly [string, string, object, boolean | 'custom' | 'implicit'])[] = [
    ['n8n', 'postgres', { ssl: 'disable' }, false],
    ['n8n', 'postgres', { ssl: 'allow' }, true],
    ['n8n', 'postgres', { ssl: 'require' }, true],
    ['n8n', 'postgres', {}, false],
    ['n8n', 'postgres', { ssl: 'perhaps' }, 'custom'],
    ['n8n', 'postgres', { ssl: 'require', sshTunnel: true }, 'custom'],
    ['n8n', 'postgres', { ssl: 'require', sshTunnel: false, maxConnections: 100 }, true],
    ['n8n', 'mySql', { ssl: false }, false],
    ['n8n', 'mySql', { ssl: true }, true],
    ['n8n', 'mongoDb', { tls: false, configurationType: 'values' }, false],
    ['n8n', 'mongoDb', { tls: 'true' }, true],
    ['n8n', 'mongoDb', { port: 0 }, 'custom'],
    ['n8n', 'redis', { ssl: true, database: 0 }, true],
    ['n8n', 'redis', { ssl: false, database: 0 }, false],
    ['n8n', 'redis', { ssl: true, disableTlsVerification: true }, 'custom'],
    ['n8n', 'rabbitmq', { ...nothing, hostname: 'h', username: 'u', ssl: true }, true],
    ['n8n', 'smtp', { database: undefined, port: 2525, secure: true }, 'implicit'],
    ['n8n', 'smtp', { port: 587, disableStartTls: true }, 'custom'],
    ...['disable', 'DISABLE'].map(
      (sslmode) => ['airflow', 'postgres', { extra: { sslmode } }, false] as const,
    ),
    ['airflow', 'postgres', { extra: { sslmode: 'verify-full' } }, true],
    ['airflow', 'postgres', { extra: { sslmode: 'prefer' } }, 'custom'],
    ['airflow', 'mysql', { extra: { ssl_mode: 'DISABLED' } }, false],
    ['airflow', 'mysql', { extra: '{"ssl": "f"}' }, false],
    ['airflow', 'mongo', { extra: { ssl: 0 } }, false],
    ['airflow', 'mongo', { extra: { srv: true } }, 'custom'],
    ['airflow', 'mongo', {}, false],
    ['airflow', 'redis', { schema: undefined, extra: { ssl: true } }, true],
    ['airflow', 'smtp', { extra: { disable_tls: true } }, 'custom'],
  ];
  for (const [from, type, more, right] of rows) {
    const { user, database, ...rest } = base;
    const text =
      from === 'n8n'
        ? n8n(type, { ...base, ...more })
        : JSON.stringify({
            it: { conn_type: type, ...rest, login: user, schema: database, ...more },
          });
    const { stored } = await bring(from, { f: text });
    t.equal(
      stored['it']?.type === 'custom' ? 'custom' : (stored['it']?.fields['tls'] as boolean),
      right,
      `${from} ${type} ${JSON.stringify(more)}`,
    );
    t.notOk(stored['it (extra)'], 'and nothing beside it');
  }
  const both = await bring('airflow', {
    f: '{"it":{"conn_type":"postgres","host":"h","password":"p","extra":{"sslmode":"require","ssl":false}}}',
  });
  t.match(both.reports[0], { action: 'failed', reason: /contradictory/ });
  const { stored } = await bring('env', {
    f: 'POSTGRES_URL=postgres://u:p@h/d?sslmode=disable\nMYSQL_URL=mysql://u:p@h/d?ssl-mode=REQUIRED\nMONGODB_URI=mongodb://h/d\nMONGO_URL=mongodb+srv://h/d\n',
  });
  t.equal(stored['POSTGRES_URL']?.fields['tls'], false);
  t.equal(stored['MYSQL_URL']?.fields['tls'], true);
  t.equal(stored['MONGODB_URI']?.fields['tls'], false);
  t.equal(stored['MONGO_URL']?.fields['tls'], true);
});

t.test('digits stay as they stand, wherever they are', async (t) => {
  const { bring } = await stage(t);
  const numbers = [
    '1234567890123456789',
    '-9007199254740993',
    '1e400',
    '0.1000',
    '1.0',
    '123456789012345678901234567890',
    '12',
  ];
  for (const digits of numbers) {
    const airflow = await bring('airflow', {
      f: `{"it":{"conn_type":"x","password":"p","extra":${JSON.stringify(`{"guild_id":${digits},"in":[{"n":${digits}}]}`)}}}`,
    });
    t.match(airflow.stored['it']?.fields, {
      'extra.guild_id': digits,
      'extra.in': `[{"n":${digits}}]`,
    });
    const raw = await bring('n8n', {
      f: `[{"id":${digits},"name":"it","type":"x","data":{"token":${digits}}}]`,
    });
    t.equal(raw.stored['it']?.fields['token'], digits);
    const yaml = await bring('airflow', {
      'f.yaml': `it:\n  conn_type: x\n  password: ${digits}\n`,
    });
    t.equal(yaml.stored['it']?.fields['password'], digits);
  }
  const port = await bring('airflow', {
    f: '{"it":{"conn_type":"redis","host":"h","password":"p","port":6380.0}}',
  });
  t.equal(port.stored['it']?.fields['port'], 6380);
});

t.test(
  'n8n: one file, one object, a folder, under its key; each is the same credential',
  async (t) => {
    const { bring } = await stage(t);
    const one = {
      id: 'aB3',
      name: 'Header one',
      type: 'httpHeaderAuth',
      data: { name: 'X-Api-Key', value: 'sekret-123456' },
    };
    const right = { type: 'header', fields: { name: 'X-Api-Key', value: 'sekret-123456' } };
    const text = JSON.stringify(one, null, 2);
    const utf16 = Buffer.from(`\ufeff${text}`, 'utf16le');
    const forms: Readonly<Record<string, string | Uint8Array>> = {
      array: `[${text}]`,
      object: text,
      'with mark': `\ufeff${text}`,
      'UTF-16LE with mark': utf16,
      'UTF-16BE with mark': Buffer.from(utf16).swap16(),
      'UTF-16LE without': utf16.subarray(2),
      'UTF-16BE without': Buffer.from(utf16.subarray(2)).swap16(),
      'CRLF and blanks': `\r\n ${text.replaceAll('\n', '\r\n')} \r\n`,
    };
    for (const [form, file] of Object.entries(forms)) {
      const { code, stored } = await bring('n8n', { 'f.json': file });
      t.equal(code, 0, form);
      t.match(stored['Header one'], right, form);
    }
    const key = 'k3y of an instance';
    const closed = JSON.stringify({ ...one, data: salted(JSON.stringify(one.data), key) });
    for (const [keyFile, code] of [
      [`${key}\n`, 0],
      [JSON.stringify({ encryptionKey: key }), 0],
      ['another', 3],
    ] as const) {
      const done = await bring('n8n', { f: closed, key: keyFile }, { args: ['--key-file', 'key'] });
      t.equal(done.code, code, keyFile);
      if (code === 0) t.match(done.stored['Header one'], right);
      else t.match(done.reports[0], { action: 'failed', reason: 'doesNotOpen' });
    }
    t.match((await bring('n8n', { f: closed })).reports[0], {
      action: 'failed',
      reason: /--key-file/,
    });

    const folder = folderOf(t, {
      'one.json': text,
      'two.json': JSON.stringify({ ...one, id: '2', name: 'two' }),
      'bad.json': '{"id": ',
      'latin.json': Buffer.from([0x22, 0xe9, 0x22]),
      'README.md': 'no credential',
      elsewhere: JSON.stringify({ ...one, id: '9', name: 'linked' }),
    });
    symlinkSync(join(folder, 'elsewhere'), join(folder, 'linked.json'));
    mkdirSync(join(folder, 'sub.json'));
    const { code, reports, stored } = await bring('n8n', {}, { file: folder });
    t.equal(code, 3);
    t.strictSame(Object.keys(stored).sort(), ['Header one', 'two']);
    t.strictSame(
      reports
        .filter(({ action }) => action === 'failed')
        .map(({ name, reason }) => `${name} ${reason}`)
        .sort(),
      ['bad.json noJson', 'latin.json noText', 'linked.json symbolicLink'],
    );
  },
);

t.test('a host, an endpoint or a base URL beside a key binds it', async (t) => {
  const { bring } = await stage(t);
  const apiKey = 'sk-0123456789';
  const rows: readonly (readonly [string, object, string, object])[] = [
    [
      'anthropicApi',
      { apiKey, url: 'https://llm-gateway.corp.example' },
      'anthropic',
      { baseUrl: 'https://llm-gateway.corp.example' },
    ],
    ['anthropicApi', { apiKey }, 'anthropic', { baseUrl: 'https://api.anthropic.com' }],
    [
      'openAiApi',
      { apiKey, url: 'https://api.openai.com/v1' },
      'openai',
      { baseUrl: 'https://api.openai.com' },
    ],
    [
      'openAiApi',
      { apiKey, url: 'https://api.openai.com/' },
      'openai',
      { baseUrl: 'https://api.openai.com' },
    ],
    [
      'openAiApi',
      { apiKey, url: 'https://gw.test/x/v1/' },
      'openai',
      { baseUrl: 'https://gw.test/x' },
    ],
    [
      'openAiApi',
      { apiKey, url: 'https://gw.test/openai' },
      'customLlm',
      { baseUrl: 'https://gw.test/openai' },
    ],
    [
      'openAiApi',
      { apiKey, url: 'https://api.openai.com.evil.test' },
      'customLlm',
      { baseUrl: 'https://api.openai.com.evil.test' },
    ],
    [
      'openAiApi',
      { apiKey, url: 'https://api.openai.com/v2' },
      'customLlm',
      { baseUrl: 'https://api.openai.com/v2' },
    ],
    ['telegramApi', { accessToken: '1:a', baseUrl: 'https://api.telegram.org/' }, 'telegram', {}],
    [
      'telegramApi',
      { accessToken: '1:a', baseUrl: 'https://tg.test' },
      'custom',
      { baseUrl: 'https://tg.test' },
    ],
    [
      'cohereApi',
      { apiKey, url: 'https://eu.cohere.test/v2' },
      'custom',
      { url: 'https://eu.cohere.test/v2' },
    ],
    [
      'httpBearerAuth',
      { token: 't-1', endpoint: 'api.corp.test' },
      'custom',
      { endpoint: 'api.corp.test' },
    ],
    [
      'aws',
      { accessKeyId: 'AK', secretAccessKey: 'sk', s3Endpoint: 'https://s3.corp' },
      'custom',
      { s3Endpoint: 'https://s3.corp' },
    ],
    ['someOtherApi', { apiKey, ghost: 'hunter2', site: 'hunter2', address: 'x1' }, 'custom', {}],
    [
      'someOtherApi',
      { apiKey, host: 'h.test', port: 8443 },
      'custom',
      { host: 'h.test', port: '8443' },
    ],
  ];
  for (const [type, data, ours, right] of rows) {
    const { code, stored, output } = await bring('n8n', { f: n8n(type, data) });
    t.equal(code, 0, output);
    t.match(stored['it'], { type: ours, publicFields: right }, JSON.stringify(data));
    const shown = Object.values(stored['it']?.publicFields ?? {});
    t.notOk(shown.includes(apiKey) || shown.includes('hunter2') || shown.includes('x1'));
  }
  for (const secret of [
    'https://u:p@h.test',
    'https://h.test/?key=abc',
    'https://hooks.test/services/T0123456789ABCDEFGHIJKL',
  ]) {
    const { stored } = await bring('n8n', { f: n8n('otherApi', { apiKey, url: secret }) });
    t.strictSame(stored['it']?.publicFields, {}, `${secret}: not in the open`);
  }
  const http = await bring('airflow', {
    f: '{"it":{"conn_type":"http","host":"https://api.test","login":"u","password":"p"}}',
  });
  t.match(http.stored['it'], { type: 'custom', publicFields: { host: 'https://api.test' } });
  const domains = await bring('n8n', {
    f: n8n('httpBearerAuth', {
      token: 't-1',
      allowedHttpRequestDomains: 'domains',
      allowedDomains: 'api.a.test, *.B.test',
    }),
  });
  t.match(domains.stored['it'], {
    type: 'bearer',
    policy: { delivery: ['lease'], allowedHosts: ['api.a.test', '*.b.test'] },
  });
  t.match(
    (
      await bring('n8n', {
        f: n8n('httpBearerAuth', { token: 't-1', allowedHttpRequestDomains: 'all' }),
      })
    ).stored,
    { it: { policy: { allowedHosts: [] } } },
  );
  for (const bad of ['https://a.test', 'a.test:84430', '*', 'a b/c'])
    t.match(
      (
        await bring('n8n', {
          f: n8n('httpBearerAuth', {
            token: 't',
            allowedHttpRequestDomains: 'domains',
            allowedDomains: bad,
          }),
        })
      ).reports[0],
      { action: 'failed', reason: /allowedDomains/ },
    );
});

t.test('a key that stands where a user name stands is not made public', async (t) => {
  const { bring } = await stage(t);
  for (const data of [
    { user: 'key_live_0123456789', password: 'X' },
    { user: 'key_live_0123456789', password: 'x' },
    { user: 'sk_test_abc', password: 'a longer one' },
    { user: '0123456789abcdef0123456789abcdef', password: 'api_token' },
    { user: 'ghp_0123456789abcdef', password: 'x-oauth-basic' },
  ]) {
    const { stored } = await bring('n8n', { f: n8n('httpBasicAuth', data) });
    t.match(stored['it'], { type: 'httpBasic', publicFields: {} }, JSON.stringify(data));
    t.equal(stored['it']?.fields['apiKey'], data.user);
  }
  const half = await bring('n8n', { f: n8n('httpBasicAuth', { user: 'plain', password: '' }) });
  t.match(half.stored['it'], { type: 'custom', publicFields: {}, fields: { user: 'plain' } });
  const { stored } = await bring('n8n', {
    f: n8n('httpBasicAuth', { user: 'alice', password: 'correct horse' }),
  });
  t.match(stored['it'], { type: 'httpBasic', publicFields: { username: 'alice' } });
});

t.test('references, placeholders, masks and blanks fail, with a word that says why', async (t) => {
  const { bring } = await stage(t);
  for (const [token, word] of [
    ['={{ $secrets.vault.api.key }}', 'a reference, not a secret'],
    ['=abc', 'a reference, not a secret'],
    ['op://vault/item/field', 'a reference, not a secret'],
    ['__n8n_BLANK_VALUE_e5362baf-c777-4d57-a609-6eaf1f9e87f6', 'a placeholder, not a secret'],
    ['YOUR_API_KEY', 'a placeholder, not a secret'],
    ['change-me', 'a placeholder, not a secret'],
    ['[REDACTED]', 'a mask in place of the secret'],
    ['-----', 'a mask in place of the secret'],
    ['xxxxxxxx', 'a mask in place of the secret'],
    ['sk-proj**', 'a mask in place of the secret'],
    ['   ', 'nothing in it can be seen'],
    ['ENC[AES256_GCM,data:x,type:str]', 'a ciphertext of another store'],
  ] as const)
    for (const data of [{ token }, { token: 'fine-12345', deep: [{ in: token }] }]) {
      const { code, reports, stored } = await bring('n8n', { f: n8n('httpBearerAuth', data) });
      t.equal(code, 3, token);
      t.match(reports[0], { action: 'failed', reason: new RegExp(`\\(${word}\\)$`) }, token);
      t.strictSame(stored, {});
      t.notOk(reports[0]!.reason!.includes(token), 'without the value');
    }
});

t.test('names become legal by one rule, and it is reported', async (t) => {
  const { bring } = await stage(t);
  const names: readonly (readonly [string, string])[] = [
    ['a\tb', 'a b'],
    ['  c   d ', 'c d'],
    ['..', '__'],
    ['.', '_'],
    ['\u200b', 'unnamed'],
    ['open\u3164ai', 'open ai'],
    ['e\u0301', '\u00e9'],
    ['\u0301x', 'x'],
    ['e\u202ef', 'e f'],
    ['w\u2800', 'w'],
    ['\u{e0041}y', 'y'],
    ['z\u0378', 'z'],
    ['n'.repeat(101), 'n'.repeat(100)],
    ['🔑'.repeat(60), '🔑'.repeat(50)],
    ['a/b', 'a/b'],
  ];
  const rows = names.map(([name], at) => ({
    id: `${at}`,
    name,
    type: 'httpBearerAuth',
    data: { token: `t-${at}` },
  }));
  const { code, reports, output } = await bring('n8n', { f: JSON.stringify(rows) });
  t.equal(code, 0, output);
  for (const [at, [there, here]] of names.entries()) {
    const report = reports.find(({ id }) => id === `${at}`);
    t.equal(report?.name, here, JSON.stringify(there));
    t.equal(report?.nameThere, there === here ? undefined : there);
  }
  const twins = await bring('n8n', {
    f: JSON.stringify(
      ['\u00e9', 'e\u0301', 'm'.repeat(100), `${'m'.repeat(100)}!`].map((name, at) => ({
        ...rows[0],
        id: `${at}`,
        name,
      })),
    ),
  });
  t.strictSame(
    Object.keys(twins.stored).sort(),
    ['m'.repeat(100), `${'m'.repeat(96)} (2)`, '\u00e9', '\u00e9 (2)'].sort(),
  );
  const text = await bring(
    'n8n',
    { f: n8n('httpBearerAuth', { token: 'x-1', 'k\u009b2J': 'y' }, 'a\u001b]0;evil\u0007') },
    { isText: true },
  );
  t.notMatch(
    text.output,
    /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/,
    'and nothing moves a cursor',
  );
});

t.test('members that say off or default make no second credential', async (t) => {
  const { bring } = await stage(t);
  const { stored, reports } = await bring('n8n', {
    f: n8n('openAiApi', {
      apiKey: 'sk-1',
      header: false,
      mode: 'default',
      proxy: 'off',
      more: {},
      list: [],
      disableTlsVerification: false,
      allowedHttpRequestDomains: 'all',
    }),
  });
  t.strictSame(Object.keys(stored), ['it']);
  t.equal(reports.length, 1);
  const guard = await bring('n8n', {
    f: n8n('openAiApi', { apiKey: 'sk-1', rejectUnauthorized: false }),
  });
  t.strictSame(
    Object.keys(guard.stored).sort(),
    ['it', 'it (extra)'],
    'a guard that is off says something',
  );
});

t.test('--update clears what is gone at the source, or says that it cannot', async (t) => {
  const { bring } = await stage(t);
  const first = await bring('n8n', { f: n8n('telegramApi', { accessToken: 'b', note: 'kept' }) });
  const again = (type: string, data: object): ReturnType<typeof bring> =>
    bring('n8n', { f: n8n(type, data) }, { team: first.team, args: ['--update'] });
  t.strictSame(Object.keys(first.stored).sort(), ['it', 'it (extra)']);
  const gone = await again('telegramApi', { accessToken: 'c' });
  t.equal(gone.code, 3);
  t.match(
    gone.reports.find(({ name }) => name === 'it (extra)'),
    { action: 'failed', reason: /goneAtSource/ },
  );
  t.match(await again('httpBearerAuth', { token: 'c' }), {
    code: 3,
    reports: [{ action: 'failed', reason: /typeChanged/ }],
  });
  const key = { region: 'eu', accessKeyId: 'AK', secretAccessKey: 'sk-1' };
  const aws = await bring('n8n', { f: n8n('aws', { ...key, sessionToken: 'st-1' }) });
  t.equal(aws.stored['it']?.fields['sessionToken'], 'st-1');
  const { region: _, ...less } = key;
  const { stored, code } = await bring(
    'n8n',
    { f: n8n('aws', less) },
    { team: aws.team, args: ['--update'] },
  );
  t.equal(code, 0);
  t.strictSame(stored['it']?.fields, { accessKeyId: 'AK', secretAccessKey: 'sk-1' });
});

t.test(
  'variables are taken where every reader reads the same, and fail by their line where not',
  async (t) => {
    const { bring } = await stage(t);
    const fails = [
      'GCP="{\\"type\\":\\"service_account\\"}"',
      "A='it'\\''s me'",
      'A=p4ss#word1',
      'A=value # comment',
      'UNCLOSED="abc',
      'A=a\\nb',
      'A=$HOME/x',
      'A="a$b"',
      "A='${X}'",
      'A=`date`',
      'A="x"y',
      "A='it's'",
      "A=it's",
      'A: yaml',
      'just text',
      'A="\\t"',
      'A=\u00a0x',
      'A=x\ry',
      'A="a\u0000b"',
      '\ufeffB=1',
    ];
    for (const line of fails) {
      const { code, reports, stored } = await bring('env', {
        '.env': `FIRST=1a\n${line}\nLAST='2 b'\n`,
      });
      t.equal(code, 3, line);
      t.strictSame(
        Object.keys(stored).sort(),
        ['FIRST', 'LAST'],
        `${line}: the lines around it are read`,
      );
      t.match(reports.find(({ action }) => action === 'failed')?.reason, /^line 2: ./, line);
    }
    const good: readonly (readonly [string, string])[] = [
      ['A=plain', 'plain'],
      ['A = spaced out ', 'spaced out'],
      ['export A=e=f==', 'e=f=='],
      ['A=\'#1 $x \\d "q"\'', '#1 $x \\d "q"'],
      ['A="it\'s # me" # a comment', "it's # me"],
      ['A="-----BEGIN\\nMII\\n-----END"', '-----BEGIN\nMII\n-----END'],
      ['A="-----BEGIN\nMII/x\nAQ==\n-----END"', '-----BEGIN\nMII/x\nAQ==\n-----END'],
      ['A=\'{\r\n "a": "b=c"\r\n}\'\r', '{\n "a": "b=c"\n}'],
    ];
    for (const [line, value] of good) {
      const { code, stored, output } = await bring('env', { '.env': `${line}\n` });
      t.equal(code, 0, output);
      t.equal(stored['A']?.fields['value'], value, line);
    }
    t.match((await bring('env', { f: 'A=1x\nA=2x\n' })).reports, [
      { action: 'failed', reason: /twice/ },
      { action: 'failed', reason: /twice/ },
    ]);
    const openai = async (base: string): Promise<unknown> => {
      const { stored } = await bring('env', { f: `OPENAI_API_KEY=sk-0123456789\n${base}\n` });
      t.notOk(Object.keys(stored).includes('OPENAI_BASE_URL'));
      return { type: stored['OPENAI_API_KEY']?.type, ...stored['OPENAI_API_KEY']?.publicFields };
    };
    t.strictSame(await openai('OPENAI_BASE_URL=https://openrouter.example/api/v1'), {
      type: 'openai',
      baseUrl: 'https://openrouter.example/api',
    });
    t.strictSame(await openai('OPENAI_API_BASE="https://llm.example/x"'), {
      type: 'customLlm',
      baseUrl: 'https://llm.example/x',
    });
    t.strictSame(await openai('OPENAI_HOST=llm.example'), {
      type: 'custom',
      OPENAI_HOST: 'llm.example',
    });
    t.strictSame(
      await openai('OPENAI_BASE_URL=https://x#y'),
      { type: undefined },
      'a base URL that cannot be read takes the key along',
    );
    const pair = await bring('env', {
      f: 'ACME_TOKEN=t-123\nACME_API_URL=https://acme.test/api\n',
    });
    t.match(pair.stored, {
      ACME_TOKEN: { type: 'custom', publicFields: { ACME_API_URL: 'https://acme.test/api' } },
    });
  },
);

t.test('a default never takes the place of what the source says', async (t) => {
  const { bring } = await stage(t);
  for (const [type, more, member] of [
    ['imap', { port: 'imaps' }, 'port'],
    ['imap', { port: 99_999 }, 'port'],
    ['imap', { port: 1.5 }, 'port'],
    ['redis', { database: 'cache' }, 'database'],
    ['redis', { port: '6379/1' }, 'port'],
  ] as const) {
    const { code, reports, stored } = await bring('n8n', {
      f: n8n(type, { host: 'h', user: 'u', password: 'pw', ...more }),
    });
    t.equal(code, 3);
    t.match(reports, [{ action: 'failed', reason: new RegExp(`^/${member} is no `) }]);
    t.strictSame(stored, {});
  }
});

t.test('a hostile file stores nothing wrong, and the command says a word', async (t) => {
  const { bring } = await stage(t);
  const good = { id: 'g', name: 'good', type: 'httpBearerAuth', data: { token: 'good-1' } };
  const row = (data: string, id = 'b'): string =>
    `[${JSON.stringify(good)},{"id":"${id}","name":"bad","type":"x","data":${data}}]`;
  for (const [text, reason] of [
    [row('{"a":"1","a":"2"}'), /duplicateMember/],
    [row(`{"a":${'['.repeat(40)}${']'.repeat(40)}}`), /depth/],
    [row('{"__proto__":{"x":"y"}}'), /memberName/],
    [row('{"a":"\\ud800"}'), /loneSurrogate/],
    [row('{"a":"x\\u0000y"}'), /nul/],
    [row('["a"]'), /doesNotOpen/],
    [row(`{"a":"${'z'.repeat(5 * 1024 * 1024)}"}`), /tooLong/],
    [row('{"a":"b"}', 'g'), /twice/],
    [`[${JSON.stringify(good)},7]`, /no credential/],
  ] as const) {
    const { code, reports, stored } = await bring('n8n', { f: text });
    t.equal(code, 3, text.slice(0, 120));
    t.match(
      reports.find(({ action }) => action === 'failed'),
      { reason },
    );
    t.strictSame(Object.keys(stored), /"id":"g","name":"bad"/.test(text) ? [] : ['good']);
  }
  for (const text of [
    '',
    ' ',
    '[',
    `[${JSON.stringify(good)}`,
    `[${JSON.stringify(good)},]`,
    `[${JSON.stringify(good)}]]`,
    '[1 2]',
    '{"a":1,}',
    '[{]}',
    `\ufeff\ufeff[]`,
    `[]\ufeff[]`,
    Buffer.from([0x5b, 0xff, 0x5d]),
    Buffer.from('\ufeff[]', 'utf16le').subarray(0, 5),
    Buffer.from([0xff, 0xfe, 0, 0, 0x5b, 0, 0, 0]),
    '[\u0000]',
    `[${JSON.stringify(good)}] trailing`,
    '[NaN]',
    '['.repeat(100_000),
  ]) {
    const told = await bring('n8n', { f: text }).then(
      () => undefined,
      (error: Error) => error,
    );
    t.match(
      told,
      { name: 'OptionsUnfit', message: /^the file is no (JSON|text)/ },
      String(text).slice(0, 30),
    );
  }
  for (const [yaml, why] of [
    ['a: &x {conn_type: p}\nb: *x\n', /anchor/],
    ['a: !!python/object/apply:os.system ["id"]\n', undefined],
    ['a: {conn_type: x, password: 0123}\n', /quotes/],
    ['a: {conn_type: x, password: no}\n', /quotes/],
    ['a: {conn_type: x, password: 1:30}\n', /quotes/],
    ['a: {conn_type: x, password: 2026-01-01}\n', /quotes/],
    ['a: {conn_type: x, password: p, password: q}\n', /duplicateMember/],
  ] as const) {
    const told = await bring('airflow', { 'f.yaml': yaml }).catch((error: Error) => error);
    if (told instanceof Error) t.match(told, { name: 'OptionsUnfit' }, yaml);
    else {
      t.match(told.reports.find(({ action }) => action === 'failed')?.reason, why ?? /./, yaml);
      t.strictSame(told.stored, {}, yaml);
    }
  }
  for (const yaml of ['a: 1\n---\nb: 2\n', '- a\n', 'a: "', `a: ${'['.repeat(20_000)}`])
    await t.rejects(
      bring('airflow', { 'f.yaml': yaml }),
      { name: 'OptionsUnfit' },
      yaml.slice(0, 20),
    );
  for (const device of ['/dev/zero', '/dev/null', '/nowhere'])
    await t.rejects(
      bring('n8n', {}, { file: device }),
      { name: 'OptionsUnfit', message: /^--file names/ },
      device,
    );
});
