// The command `export`: a team's secrets sealed to a public key, and taken in again by another
// vault with another root key.
import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import t, { type Test } from 'tap';
import { generateEngineKey } from '../../src/client/index.ts';
import { credentialTypes } from '../../src/credentials/types/registry.ts';
import { exportSecrets } from '../../src/cli/export/export.ts';
import { importCredentials } from '../../src/cli/import/import.ts';
import { startAuthorizationServer } from '../helpers/authorization-server.ts';
import { formsOf, seek } from '../helpers/canary.ts';
import { runToEnd } from '../helpers/commands.ts';
import { intrude } from '../helpers/intruder.ts';
import { demand, storeOpenai } from '../helpers/leases.ts';
import { connect, oauthStage, storeOAuth } from '../helpers/oauth.ts';
import { fillWhole, plainSecret, secretNames } from '../helpers/schema-form.ts';
import { openSecrets } from '../helpers/stored.ts';
import { folderOf as filesIn } from '../helpers/files.ts';
import { startVault, type TestVault } from '../helpers/vault.ts';

const pageScript = /^```js\n([\s\S]*?)^```$/m.exec(
  readFileSync(join(import.meta.dirname, '../../docs/format.md'), 'utf8'),
)![1]!;
const any = { 'if-match': '*' };

/** A folder with a pair of keys in it. */
function folderOf(t: Test, curve: 'X25519' | 'P-256' = 'X25519'): string {
  const folder = mkdtempSync(join(tmpdir(), 've-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const { publicJwk, privateJwk } = generateEngineKey(curve);
  writeFileSync(join(folder, 'public.json'), JSON.stringify(publicJwk));
  writeFileSync(join(folder, 'private.json'), JSON.stringify(privateJwk));
  return folder;
}

interface Ran {
  readonly code: number;
  readonly output: string;
  readonly notes: string;
}
/** Runs the command against the vault's database. */
async function runExport(
  vault: TestVault,
  folder: string,
  args: readonly string[] = [],
  {
    isTerminal = false,
    stop = new AbortController().signal,
  }: { isTerminal?: boolean; stop?: AbortSignal } = {},
): Promise<Ran> {
  let [output, notes] = ['', ''];
  const all = ['--team', 'payments', '--to', 'public.json', '--reason', 'we move house', ...args];
  const code = await exportSecrets({
    args: all,
    environment: { DATABASE_URL: vault.databaseUrl, CREDVAULT_ROOT_KEYS: vault.rootKey },
    isTerminal,
    stop,
    now: Date.now,
    readFile: (path) => readFileSync(join(folder, path), 'utf8'),
    write: (text) => {
      output += text;
    },
    note: (text) => {
      notes += text;
    },
  });
  return { code, output, notes };
}
async function runImport(
  vault: TestVault,
  file: string,
  folder: string,
  ...args: string[]
): Promise<{ code: number; reports: any[]; output: string }> {
  const { port } = vault.app.server.address() as { port: number };
  const token = await vault.token('alice');
  let output = '';
  const code = await importCredentials({
    args: [
      '--url',
      `http://127.0.0.1:${port}`,
      '--token-file',
      'jwt',
      '--team',
      'payments',
      '--from',
      'vault',
      '--file',
      join(filesIn(t, { file }), 'file'),
      '--key-file',
      'private.json',
      '--json',
      ...args,
    ],
    environment: {},
    isTerminal: false,
    stop: new AbortController().signal,
    now: Date.now,
    readFile: (path) => (path === 'jwt' ? token : readFileSync(join(folder, path), 'utf8')),
    write: (text) => {
      output += text;
    },
  });
  return {
    code,
    output,
    reports: output
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line)),
  };
}
async function otherVault(t: Test): Promise<TestVault> {
  const vault = await startVault(t);
  await vault.team('payments');
  await vault.app.listen({ host: '127.0.0.1', port: 0 });
  return vault;
}
async function listed(vault: TestVault): Promise<any[]> {
  const items: any[] = [];
  for (let cursor = ''; ; ) {
    const page = (
      await vault.call('alice', 'GET', `/v1/teams/payments/credentials?limit=200${cursor}`)
    ).json;
    items.push(...page.items);
    if (page.nextCursor === null) return items;
    cursor = `&cursor=${page.nextCursor}`;
  }
}
/** What has to be the same in both vaults. */
const kept = ({
  name,
  type,
  description,
  labels,
  publicFields,
  secretFields,
  policy,
  expiresAt,
  rotateAfter,
  health,
}: any): object => ({
  name,
  type,
  description,
  labels: Object.fromEntries(Object.entries(labels).filter(([key]) => key !== 'import/vault')),
  publicFields: { ...publicFields },
  secretFields,
  policy,
  expiresAt,
  rotateAfter,
  health,
});

t.test(
  'every type, out of one vault and into another, to the byte; twice, and nothing doubles',
  async (t) => {
    const server = await startAuthorizationServer(t);
    const stage = await oauthStage(t, server);
    const { vault } = stage;
    for (const [at, { name: type, isOpen }] of credentialTypes.entries()) {
      const schema = await demand(vault.call('alice', 'GET', `/v1/credential-types/${type}`), 200);
      const form = fillWhole(schema);
      if (secretNames(schema).includes('accessToken')) form['accessToken'] = plainSecret();
      const more =
        at % 3 === 0
          ? {
              description: 'Zeilen\r\nund ü',
              labels: { env: 'prod' },
              expiresAt: '2031-01-31T00:00:00Z',
              rotateAfter: '2030-01-31T00:00:00Z',
              policy: {
                delivery: [],
                allowedHosts: ['*.example.com'],
                methods: ['GET'],
                pathPrefixes: ['/v1'],
                limits: { concurrency: 2 },
              },
            }
          : {};
      await demand(
        vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
          name: `a ${type}`,
          type,
          fields: form,
          ...(isOpen === true ? { publicFieldNames: ['field1', 'field2', 'field3'] } : {}),
          ...more,
        }),
        201,
      );
    }
    await demand(
      vault.call('alice', 'POST', '/v1/teams/payments/credentials', {
        name: 'of the catalogue',
        type: 'oauth2',
        fields: {
          provider: 'zendesk',
          subdomain: 'acme',
          clientId: 'c',
          clientSecret: plainSecret(),
        },
      }),
      201,
    );
    const held = await storeOAuth(stage, 'held');
    await connect(stage, held.id);
    const off = await storeOpenai(vault, 'payments', 'off', 'sk-off');
    await demand(vault.call('alice', 'POST', `/v1/credentials/${off.id}/disable`), 200);
    const changed = await storeOpenai(vault, 'payments', 'changed', 'sk-1');
    await demand(
      vault.call(
        'alice',
        'PATCH',
        `/v1/credentials/${changed.id}`,
        { fields: { apiKey: 'sk-2' } },
        any,
      ),
      200,
    );
    const gone = await storeOpenai(vault, 'payments', 'gone', 'sk-gone');
    await demand(vault.call('alice', 'DELETE', `/v1/credentials/${gone.id}`, undefined, any), 204);
    await vault.team('elsewhere', ['otto']);
    await storeOpenai(vault, 'elsewhere', 'not ours', 'sk-not-ours', {}, 'otto');

    const folder = folderOf(t);
    const out = join(folder, 'payments.export');
    const { code, output } = await runExport(vault, folder, ['--out', out]);
    const before = await listed(vault);
    t.match([code, output], [0, new RegExp(`^${before.length} credentials: `)]);
    t.equal(statSync(out).mode & 0o777, 0o600);
    t.strictSame(
      readdirSync(folder).sort(),
      ['payments.export', 'private.json', 'public.json'],
      'nothing is left beside it',
    );
    const file = readFileSync(out, 'utf8');
    t.notMatch(file, /payments|openai-|"|\{/, 'nothing of it can be read');

    const events = (
      await vault.call(
        'alice',
        'GET',
        '/v1/teams/payments/audit-events?limit=200&action=team.exportSecrets',
      )
    ).json.items;
    t.match(events, [
      {
        actor: null,
        decision: 'allow',
        intact: true,
        details: { reason: 'we move house', recipient: String },
      },
    ]);
    const {
      json: { items: each },
    } = await vault.call(
      'alice',
      'GET',
      '/v1/teams/payments/audit-events?limit=200&action=credential.export',
    );
    t.strictSame(
      new Set(each.map(({ target, requestId }: any) => `${requestId} ${target.id}`)),
      new Set(before.map(({ id }) => `${events[0].requestId} ${id}`)),
      'each credential in its own event, of one export',
    );

    const other = await otherVault(t);
    t.not(other.rootKey, vault.rootKey);
    const { code: imported, reports } = await runImport(other, file, folder);
    t.equal(imported, 0, JSON.stringify(reports.filter(({ action }) => action !== 'created')));
    const after = await listed(other);
    // The OAuth tokens stored now are what the other vault starts with.
    const { expiresAt: _, ...storedFields } = before.find(
      ({ name }) => name === 'held',
    ).publicFields;
    const expected = before.map((one) =>
      one.name !== 'held'
        ? kept(one)
        : {
            ...kept(one),
            secretFields: ['accessToken', 'clientSecret', 'refreshToken'],
            publicFields: {
              ...storedFields,
              expiresAt: String(after.find(({ name }) => name === 'held').publicFields.expiresAt),
            },
          },
    );
    t.strictSame(after.map(kept), expected);
    t.match(
      after.find(({ name }) => name === 'off'),
      { health: 'disabled' },
    );
    for (const { id, name } of before) {
      const there = await openSecrets(other, after.find((one) => one.name === name).id);
      if (name !== 'held')
        t.strictSame(there, await openSecrets(vault, id), `${name}: every secret to the byte`);
      else
        t.strictSame(
          there,
          {
            ...(await openSecrets(vault, id)),
            accessToken: server.given.accessTokens.at(-1),
            refreshToken: server.given.refreshTokens.at(-1),
          },
          'nobody has to connect again',
        );
    }
    t.strictSame(
      await openSecrets(other, after.find(({ name }) => name === 'changed').id),
      { apiKey: 'sk-2' },
      'the current version',
    );

    const again = await runImport(other, file, folder);
    t.ok(again.reports.every(({ action }) => action === 'present'));
    const updated = await runImport(other, file, folder, '--update');
    t.equal(
      updated.code,
      0,
      JSON.stringify(updated.reports.filter(({ action }) => action !== 'updated')),
    );
    t.strictSame((await listed(other)).map(kept), expected, 'and nothing doubles');
    t.ok(
      (await runImport(await otherVault(t), file, folder, '--dry-run')).reports.every(
        ({ action }) => action === 'created',
      ),
    );
  },
);

t.test('what does not open is named and left out; the canary is nowhere', async (t) => {
  const vault = await otherVault(t);
  const canary = `canary-${randomBytes(24).toString('hex')}`;
  const [good, broken, tampered, stale] = [
    await storeOpenai(vault, 'payments', 'good', canary),
    await storeOpenai(vault, 'payments', 'broken', canary),
    await storeOpenai(vault, 'payments', 'bent', canary),
    await storeOpenai(vault, 'payments', 'stale', canary),
  ];
  await intrude(
    vault.db,
    `update credential_version set token = overlay(token placing 'AAAAAAAA' from 40) where credential_id = '${broken.id}'`,
    `update credential set name = 'renamed' where id = '${tampered.id}'`,
    `update credential_version set public_fields = '{"baseUrl":"https://evil.example"}' where credential_id = '${stale.id}'`,
  );
  const folder = folderOf(t, 'P-256');
  const { code, output, notes } = await runExport(vault, folder);
  t.equal(code, 3);
  t.strictSame(
    notes.split('\n').sort(),
    [
      '',
      '1 credential, 3 left out',
      `sealBroken  ${tampered.id}  renamed`,
      `sealBroken  ${stale.id}  stale`,
      `undecryptable  ${broken.id}  broken`,
    ].sort(),
  );
  t.equal(output.trimEnd().split('\n').length, 3, 'the head, one credential, the end');
  const other = await otherVault(t);
  const imported = await runImport(other, output, folder);
  t.equal(imported.code, 3);
  t.match(
    imported.reports
      .map(({ id, action, reason }) => `${id} ${action} ${reason ?? ''}`.trim())
      .sort(),
    [
      `${good.id} created`,
      `${broken.id} failed undecryptable`,
      `${tampered.id} failed sealBroken`,
      `${stale.id} failed sealBroken`,
    ].sort(),
  );
  t.strictSame(
    seek(formsOf(canary), [
      { place: 'the file', text: output },
      { place: 'notes', text: notes },
      { place: 'reports', text: imported.output },
      { place: 'logs', text: vault.logs.join('') + other.logs.join('') },
    ]),
    [],
  );
  t.strictSame(await openSecrets(other, (await listed(other))[0].id), { apiKey: canary });
});

t.test('nothing is written that is not in the audit log before', async (t) => {
  const vault = await otherVault(t);
  await storeOpenai(vault, 'payments', 'one', 'sk-1');
  const folder = folderOf(t);
  const refuse = (action: string): Promise<void> =>
    intrude(
      vault.db,
      `create or replace function refuse() returns trigger language plpgsql as $$ begin if new.action = '${action}' then raise exception 'no'; end if; return new; end $$`,
      'create or replace trigger refuse before insert on audit_event for each row execute function refuse()',
      'alter table audit_event enable always trigger refuse',
    );
  await refuse('team.exportSecrets');
  let output = '';
  const context = {
    args: ['--team', 'payments', '--to', 'public.json', '--reason', 'x'],
    environment: { DATABASE_URL: vault.databaseUrl, CREDVAULT_ROOT_KEYS: vault.rootKey },
    isTerminal: false,
    stop: new AbortController().signal,
    now: Date.now,
    readFile: (path: string) => readFileSync(join(folder, path), 'utf8'),
    write: (text: string) => {
      output += text;
    },
  };
  await t.rejects(exportSecrets(context));
  t.equal(output, '', 'not even its head');
  await refuse('credential.export');
  await t.rejects(exportSecrets(context));
  t.equal(output.trimEnd().split('\n').length, 1, 'the head and no credential');
  await t.rejects(
    exportSecrets({ ...context, args: [...context.args, '--out', join(folder, 'out')] }),
  );
  t.strictSame(
    readdirSync(folder).sort(),
    ['private.json', 'public.json'],
    'and no file, not even a part of one',
  );
});

t.test(
  'a file that is not whole, or not for this key, is refused and nothing of it is stored',
  async (t) => {
    const vault = await otherVault(t);
    for (const name of ['one', 'two', 'three'])
      await storeOpenai(vault, 'payments', name, `sk-${name}`);
    const folder = folderOf(t);
    const lines = (await runExport(vault, folder)).output.trimEnd().split('\n');
    const others = (await runExport(vault, folder)).output.trimEnd().split('\n');
    const other = await otherVault(t);
    const [head, one, two, three, end] = lines as [string, string, string, string, string];
    const text = (...each: string[]): string => `${each.join('\n')}\n`;
    const refused: [string, string, RegExp][] = [
      ['without its end', text(head, one, two, three), /its end is missing/],
      ['without one', text(head, one, three, end), /line 3 does not belong/],
      ['without its head', text(one, two, three, end), /line 1 does not belong/],
      ['in another order', text(head, two, one, three, end), /line 2 does not belong/],
      ['one twice', text(head, one, one, two, three, end), /line 3 does not belong/],
      ['one of another export', text(head, one, others[2]!, three, end), /line 3 does not belong/],
      ['more after the end', text(head, one, two, three, end, one), /more or less/],
      [
        'a changed letter',
        text(
          head,
          `${one.slice(0, -20)}${one.at(-20) === 'A' ? 'B' : 'A'}${one.slice(-19)}`,
          two,
          three,
          end,
        ),
        /no export that this key opens/,
      ],
      [
        'cut in a line',
        text(head, one, two, three, end).slice(0, -30),
        /no export that this key opens/,
      ],
      ['something else', 'hello\n', /no export that this key opens/],
      ['nothing', '', /its end is missing/],
    ];
    for (const [what, file, message] of refused)
      await t.rejects(runImport(other, file, folder), { name: 'OptionsUnfit', message }, what);
    await t.rejects(
      runImport(other, text(...lines), folderOf(t)),
      { message: /no export that this key opens/ },
      'for somebody else',
    );
    t.strictSame(await listed(other), []);
    t.equal(
      (await runImport(other, text(...lines).trimEnd(), folder)).code,
      0,
      'whole, it is taken',
    );
  },
);

t.test('what it cannot use, it says, without a key in it', async (t) => {
  const vault = await otherVault(t);
  const folder = folderOf(t);
  const key = generateEngineKey();
  const files: Record<string, string> = {
    private: JSON.stringify(key.privateJwk),
    text: 'sk-secret',
    list: '[]',
    rsa: '{"kty":"RSA","n":"AQAB","e":"AQAB"}',
    zero: `{"kty":"OKP","crv":"X25519","x":"${Buffer.alloc(32).toString('base64url')}"}`,
    off: `{"kty":"EC","crv":"P-256","x":"${Buffer.alloc(32, 1).toString('base64url')}","y":"${Buffer.alloc(32, 1).toString('base64url')}"}`,
  };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  const said: [string[], RegExp][] = [
    [['--to', 'private'], /private key/],
    [['--to', 'text'], /JSON Web Key/],
    [['--to', 'list'], /JSON Web Key/],
    [['--to', 'rsa'], /JSON Web Key/],
    [['--to', 'zero'], /weakKey/],
    [['--to', 'off'], /point/],
    [['--to', 'nowhere'], /ENOENT/],
    [['--reason', ''], /--reason/],
    [['--reason', 'x'.repeat(201)], /--reason/],
    [['--reason', 'a\nb'], /--reason/],
    [['--team', 'Nobody'], /--team/],
    [['--team', 'nobody'], /no team of this database/],
    [['--out', join(folder, 'no', 'where')], /ENOENT/],
    [['--all'], /unknown/],
  ];
  for (const [args, message] of said) {
    const error: Error = await runExport(vault, folder, args).then(
      () => new Error('it ran'),
      (reason: Error) => reason,
    );
    t.match(error.message, message, args.join(' '));
    t.notOk(
      error.message.includes(String(key.privateJwk.d)) || error.message.includes('sk-secret'),
    );
  }
  await t.rejects(runExport(vault, folder, [], { isTerminal: true }), {
    message: /nothing for a terminal/,
  });
  t.equal(
    (await runExport(vault, folder, ['--out', join(folder, 'out')], { isTerminal: true })).code,
    0,
  );
  t.notOk(
    (
      await sql<{
        n: number;
      }>`select count(*)::int as n from audit_event where action = 'team.exportSecrets'`.execute(
        vault.db,
      )
    ).rows[0]!.n !== 1,
    'and what did not begin is not in the audit log',
  );
});

t.test('stopped, it leaves nothing', async (t) => {
  const vault = await otherVault(t);
  await storeOpenai(vault, 'payments', 'one', 'sk-1');
  const folder = folderOf(t);
  const stopping = new AbortController();
  stopping.abort();
  t.equal(
    (await runExport(vault, folder, ['--out', join(folder, 'out')], { stop: stopping.signal }))
      .code,
    130,
  );
  t.strictSame(readdirSync(folder).sort(), ['private.json', 'public.json']);
});

t.test('as processes of their own, with a pair that the vault made', async (t) => {
  const vault = await otherVault(t);
  await storeOpenai(vault, 'payments', 'one', 'sk-1');
  const folder = mkdtempSync(join(tmpdir(), 've-'));
  t.teardown(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  const at = (name: string): string => join(folder, name);
  const pair = await runToEnd(t, ['generate-key', '--recipient', at('private.json')]);
  t.equal(pair.code, 0, pair.errors);
  t.equal(statSync(at('private.json')).mode & 0o777, 0o600);
  t.notMatch(pair.output, '"d"');
  writeFileSync(at('public.json'), pair.output);
  t.match(
    await runToEnd(t, ['generate-key', '--recipient', at('private.json')]),
    { code: 2, errors: /EEXIST/ },
    'a key is not written over',
  );
  const environment = { DATABASE_URL: vault.databaseUrl, CREDVAULT_ROOT_KEYS: vault.rootKey };
  const exported = await runToEnd(
    t,
    ['export', '--team', 'payments', '--to', at('public.json'), '--reason', 'moving'],
    { environment },
  );
  t.match(exported, { code: 0, errors: '1 credential\n' });
  t.equal(exported.output.trimEnd().split('\n').length, 3);
  writeFileSync(at('export'), exported.output);
  const shown = spawnSync(
    process.execPath,
    ['--input-type=module', '-e', pageScript, 'open.mjs', at('export'), at('private.json')],
    { encoding: 'utf8', cwd: join(import.meta.dirname, '../..') },
  );
  t.match(
    shown.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line)),
    [
      { kind: 'head', format: 1, team: 'payments', reason: 'moving' },
      { kind: 'credential', name: 'one', fields: { apiKey: 'sk-1' } },
      { kind: 'end', credentials: 1 },
    ],
    `as docs/format.md says: ${shown.stderr}`,
  );
  const other = await otherVault(t);
  writeFileSync(at('jwt'), await other.token('alice'));
  const { port } = other.app.server.address() as { port: number };
  const imported = await runToEnd(t, [
    'import',
    '--url',
    `http://127.0.0.1:${port}`,
    '--token-file',
    at('jwt'),
    '--team',
    'payments',
    '--from',
    'vault',
    '--file',
    at('export'),
    '--key-file',
    at('private.json'),
  ]);
  t.match(imported, {
    code: 0,
    output:
      /created +one \(openai\)\n +baseUrl → baseUrl, public\n +apiKey → apiKey, secret\n1 created\n/,
  });
  const wrongRoot = await runToEnd(
    t,
    [
      'export',
      '--team',
      'payments',
      '--to',
      at('public.json'),
      '--reason',
      'moving',
      '--out',
      at('never'),
    ],
    { environment: { ...environment, CREDVAULT_ROOT_KEYS: other.rootKey } },
  );
  t.equal(wrongRoot.code, 1);
  t.notOk(existsSync(at('never')));
});
