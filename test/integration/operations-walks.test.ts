// The walks of docs/operations.md, every command of every block in its order, against vaults that
// `serve` as real processes. What stands between the blocks (restart, wait) is done here; a block
// that no walk plays fails.
import { spawn } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { sql } from 'kysely';
import t, { type Test } from 'tap';
import { generateRootKey, parseRootKeys } from '../../src/crypto/index.ts';
import {
  deploy,
  type Deployment,
  runCommand,
  runToEnd,
  type ServedVault,
} from '../helpers/commands.ts';
import { backUp } from '../helpers/copies.ts';
import { testDatabase, type TestDatabase } from '../helpers/database.ts';
import { intrude, purge } from '../helpers/intruder.ts';
import { until } from '../helpers/processes.ts';
import { checkAnswers, scriptOf, stepsIn } from '../helpers/session.ts';

t.setTimeout(300_000); // a few dozen starts of npm and of vaults, one after the other
const root = resolve(import.meta.dirname, '../..');
const keys = readFileSync(join(root, 'docs/operations.md'), 'utf8')
  .split('\n## Keys\n')[1]!
  .split('\n## ')[0]!;
const sections = new Map(
  keys
    .split('\n### ')
    .map((text, index) => (index === 0 ? ['', text] : [text.split('\n')[0]!, text])),
);
const played = new Set<string>();
const blocksOf = (heading: string): string[] =>
  [...(sections.get(heading) ?? '').matchAll(/^```(?:sh|sql)\n[\s\S]*?^```$/gm)].map(
    ([block]) => block,
  );
const take = (heading: string, index: number): string => {
  const block = blocksOf(heading)[index];
  if (block === undefined) throw new Error(`${heading} has no block ${index}`);
  played.add(block);
  return block;
};
/** The statements of a block of SQL, each `…` in turn replaced. */
const sqlOf = (heading: string, index: number, ...values: string[]): string[] => {
  let next = 0;
  return take(heading, index)
    .split('\n')
    .slice(1, -1)
    .join('\n')
    .replaceAll("'…'", () => `'${values[next++]?.replaceAll("'", "''")}'`)
    .split(/;\n|;$/)
    .filter((each) => each.trim() !== '');
};

class Walk {
  readonly folder: string;
  readonly database: TestDatabase;
  readonly deployment: Deployment;
  readonly #t: Test;
  vault!: ServedVault;

  constructor(t: Test, database: TestDatabase) {
    this.#t = t;
    this.database = database;
    this.folder = mkdtempSync(join(tmpdir(), 'vw-'));
    t.teardown(() => {
      rmSync(this.folder, { recursive: true, force: true });
    });
    for (const name of ['src', 'migrations', 'node_modules'])
      symlinkSync(join(root, name), join(this.folder, name));
    for (const name of ['package.json', '.npmrc'])
      cpSync(join(root, name), join(this.folder, name));
    this.deployment = deploy(t, database.url);
    this.keys = generateRootKey();
  }

  /** What CREDVAULT_ROOT_KEYS_FILE holds. */
  get keys(): string {
    return readFileSync(join(this.folder, 'root-keys'), 'utf8').trim();
  }
  set keys(list: string) {
    writeFileSync(join(this.folder, 'root-keys'), `${list}\n`, { mode: 0o600 });
  }

  /** As an operator does it: with what the file holds now. */
  async restart(): Promise<void> {
    if (this.vault !== undefined) this.#t.equal(await this.vault.stop(), 0);
    this.vault = await this.deployment.serve(
      this.keys,
      this.vault === undefined ? {} : { port: this.vault.port },
    );
    for (const sub of ['alice', 'operator'])
      writeFileSync(join(this.folder, `${sub}.jwt`), await this.deployment.token(sub), {
        mode: 0o600,
      });
  }

  call(
    as: string,
    method: string,
    path: string,
    body?: unknown,
  ): Promise<{ status: number; json: any }> {
    return this.deployment.call(this.vault, as, method, path, body);
  }

  /** Plays a block of shell. */
  async play(
    heading: string,
    index: number,
    {
      codes = {},
      environment = {},
    }: {
      codes?: Readonly<Record<number, string>>;
      environment?: Readonly<Record<string, string>>;
    } = {},
  ): Promise<void> {
    const steps = stepsIn(take(heading, index));
    const script =
      `${sections.get('')!.match(/^```sh\n([\s\S]*?)^```$/m)![1]!}\n${scriptOf(steps)}`.replaceAll(
        'https://vault.example.com',
        this.vault.url,
      );
    const child = spawn('bash', ['-c', script], {
      cwd: this.folder,
      env: { ...process.env, npm_config_loglevel: 'error', ...environment },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let [stdout, stderr] = ['', ''];
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.stderr.on('data', (chunk: Buffer) => {
      stderr += chunk.toString();
    });
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
    }, 60_000);
    const code = await new Promise((done) => {
      child.once('close', done);
    });
    clearTimeout(timer);
    this.#t.equal(code, 0, `${heading}: ${stderr}`);
    const isRefused = Object.keys(codes).length > 0;
    if (!isRefused) this.#t.equal(stderr, '', heading);
    checkAnswers(
      this.#t,
      steps,
      isRefused ? stdout.replace('@@ command ended', `${stderr}@@ command ended`) : stdout,
      codes,
    );
  }

  async playAll(heading: string): Promise<void> {
    for (const index of blocksOf(heading).keys()) await this.play(heading, index);
  }

  fingerprints(): readonly string[] {
    return parseRootKeys(this.keys).fingerprints;
  }
}

/** A served vault with alice's team payments, which has one credential. */
async function begin(t: Test): Promise<Walk & { id: string }> {
  const walk = new Walk(t, await testDatabase(t));
  await walk.restart();
  t.equal(
    (
      await walk.call('operator', 'POST', '/v1/teams', {
        slug: 'payments',
        name: 'Payments',
        admins: ['alice'],
      })
    ).status,
    201,
  );
  const { json } = await walk.call('alice', 'POST', '/v1/teams/payments/credentials', {
    name: 'openai-prod',
    type: 'openai',
    fields: { apiKey: 'sk-first' },
  });
  return Object.assign(walk, { id: json.id as string });
}
const keyOf = async (walk: Walk, version: number): Promise<any> =>
  (await walk.call('alice', 'GET', '/v1/teams/payments/keys')).json.items.find(
    (key: { version: number }) => key.version === version,
  );
/** Whether the stored secret still opens: a change of the policy opens it. */
const opens = async (t: Test, walk: Walk, id: string): Promise<void> => {
  t.equal(
    (
      await walk.call('alice', 'PATCH', `/v1/credentials/${id}`, {
        fields: { baseUrl: 'https://api.openai.com' },
        description: 'opened',
      })
    ).status,
    200,
  );
};
const verified = async (t: Test, { url }: TestDatabase, rootKeys: string): Promise<void> => {
  t.match(
    await runToEnd(t, ['verify'], {
      environment: { DATABASE_URL: url, CREDVAULT_ROOT_KEYS: rootKeys },
    }),
    { code: 0, output: /everything holds\n$/, errors: '' },
  );
};

t.test('routine rotation, compromise of a data key, AES-256', async (t) => {
  const walk = await begin(t);
  await walk.play('', 0);
  await walk.playAll('Routine rotation');
  t.match(await keyOf(walk, 1), { state: 'retired', rows: 0 });
  await walk.playAll('A data key is known to somebody');
  t.match(await keyOf(walk, 2), { compromised: true, rows: 0 });
  await walk.playAll('AES-256');
  const { rows } = await sql<{ token: string }>`select token from credential_version`.execute(
    walk.database.db,
  );
  t.ok(
    rows.length === 2 && rows.every(({ token }) => token.startsWith('QQ')),
    'every version is AES-256',
  );
  await opens(t, walk, walk.id);
  await verified(t, walk.database, walk.keys);
});

t.test('another root key, and one that is known to somebody', async (t) => {
  const walk = await begin(t);
  const [first] = walk.fingerprints();
  await walk.play('Root keys', 0);
  await walk.restart();
  t.equal(walk.fingerprints().length, 2);
  t.equal(walk.fingerprints()[0], first, 'a replica that can read it, before one writes it');
  await walk.play('Root keys', 1);
  await walk.restart();
  t.equal(walk.fingerprints()[1], first);
  await walk.play('Root keys', 2);
  await walk.play('A root key is known to somebody', 0);
  await walk.play('A root key is known to somebody', 1);
  t.same((await walk.call('alice', 'GET', `/v1/credentials/${walk.id}`)).json.problems, [
    'exposed',
  ]);
  t.match(await keyOf(walk, 1), {
    compromised: true,
    rows: 0,
    rootFingerprints: [first, walk.fingerprints()[0]],
  });
  t.match(await keyOf(walk, 2), {
    compromised: false,
    rows: 1,
    rootFingerprints: [walk.fingerprints()[0]],
  });
  await walk.play('Root keys', 3);
  await walk.restart();
  t.equal(walk.fingerprints().length, 1);
  await opens(t, walk, walk.id);
  await verified(t, walk.database, walk.keys);
});

t.test(
  'a root key is lost: the one that is needed is named, and the one that is found is known by its fingerprint',
  async (t) => {
    const walk = await begin(t);
    const lost = walk.keys;
    const [needed = ''] = walk.fingerprints();
    await walk.vault.stop();
    const production = {
      ...walk.deployment.environment,
      DATABASE_URL: walk.database.url,
      PORT: '0',
    };
    await walk.play('A root key is lost', 0, {
      codes: { 0: '1' },
      environment: { ...production, CREDVAULT_ROOT_KEYS: generateRootKey() },
    });
    const refused = await runToEnd(t, ['serve'], {
      environment: { ...production, CREDVAULT_ROOT_KEYS: generateRootKey() },
    });
    t.match(refused, { code: 1, output: new RegExp(needed) });
    writeFileSync(join(walk.folder, 'found-key'), `${lost}\n`);
    await walk.play('A root key is lost', 1);
    const { stdout } = await promiseOf(
      'bash',
      stepsIn(take('A root key is lost', 1))[0]!.command,
      walk.folder,
    );
    t.equal(stdout.trim(), needed, 'it is the one');
    walk.keys = `${generateRootKey()},${lost}`;
    await walk.restart();
    t.match(await walk.call('operator', 'POST', '/v1/root-key-rotations'), {
      status: 200,
      json: { dataKeys: 1, systemKeys: 5 },
    });
    walk.keys = walk.keys.split(',')[0]!;
    await walk.restart();
    await opens(t, walk, walk.id);
    await walk.play('A root key is lost', 2, {
      environment: { DATABASE_URL: walk.database.url, CREDVAULT_ROOT_KEYS: walk.keys },
    });

    const anew = new Walk(t, await testDatabase(t));
    await anew.restart();
    t.equal(
      (await anew.call('operator', 'GET', '/v1/status')).json.teams,
      0,
      'an empty database starts with a fresh one',
    );
  },
);

t.test('a backup that needs an older key: all of it, and one credential of it', async (t) => {
  const heading = 'Restoring a backup';
  const walk = await begin(t);
  const [first = ''] = walk.fingerprints();
  const backup = await backUp(t, walk.database.db);
  const old = await keyOf(walk, 1);
  // Since then: another root key, another data key, and the credential is gone.
  walk.keys = `${generateRootKey()},${walk.keys}`;
  await walk.restart();
  await walk.call('operator', 'POST', '/v1/root-key-rotations');
  t.match(
    await runToEnd(t, [
      'rotate',
      '--url',
      walk.vault.url,
      '--token-file',
      join(walk.folder, 'alice.jwt'),
      '--team',
      'payments',
      '--watch',
    ]),
    { code: 0 },
  );
  await walk.call('alice', 'DELETE', `/v1/credentials/${walk.id}`);
  await purge(walk.database.db, walk.id);
  t.equal(
    (await walk.call('alice', 'POST', `/v1/teams/payments/keys/${old.id}/retire`)).status,
    200,
  );

  const { rows: needed } = await sql
    .raw<{ root_fingerprint: string }>(sqlOf(heading, 0)[0]!)
    .execute(backup.db);
  t.same(
    needed.map((row) => row.root_fingerprint),
    [first],
  );
  const {
    rows: [key],
  } = await sql
    .raw<{ id: string; fingerprint: string }>(sqlOf(heading, 1, walk.id)[0]!)
    .execute(backup.db);
  t.match(
    await keyOf(walk, 1),
    { id: key?.id, fingerprint: key?.fingerprint, state: 'retired' },
    'the fingerprint says which',
  );
  const {
    rows: [read],
  } = await sql
    .raw<{ json_build_object: object }>(sqlOf(heading, 3, walk.id, walk.id)[0]!)
    .execute(backup.db);
  const copied = JSON.stringify(read?.json_build_object);
  const insert = async (): Promise<void> => {
    await walk.database.db.connection().execute(async (connection) => {
      try {
        for (const statement of sqlOf(heading, 4, copied, copied))
          await sql.raw(statement).execute(connection);
      } catch (error) {
        await sql.raw('rollback').execute(connection);
        throw error;
      }
    });
  };
  await walk.play(heading, 2);
  const { rows: columns } = await sql<{ name: string }>`
    select attname as name from pg_attribute where attrelid = 'credential'::regclass and attnum > 0 and not attisdropped and attgenerated = '' order by attnum`.execute(
    walk.database.db,
  );
  const named = /insert into credential \(([^)]*)\)\s+select ([^']*?)\s+from/.exec(
    sqlOf(heading, 4).join(';'),
  );
  for (const list of named!.slice(1))
    t.same(
      list
        .split(',')
        .map((each) => each.trim())
        .sort(),
      columns.map(({ name }) => name).sort(),
      'every column that is not made from others',
    );
  await insert();
  await walk.play(heading, 5);
  t.match((await walk.call('alice', 'GET', `/v1/credentials/${walk.id}`)).json, {
    name: 'openai-prod',
    health: 'ok',
  });
  await opens(t, walk, walk.id);
  await verified(t, walk.database, walk.keys);

  const restored = new Walk(t, backup);
  restored.keys = generateRootKey();
  const refused = runCommand(t, ['serve'], {
    environment: {
      ...restored.deployment.environment,
      DATABASE_URL: backup.url,
      CREDVAULT_ROOT_KEYS: restored.keys,
      PORT: '0',
    },
  });
  t.equal(await refused.ended, 1);
  t.match(refused.output(), new RegExp(first));
  restored.keys = walk.keys;
  await verified(t, backup, restored.keys);
  await restored.restart();
  t.match(await restored.call('operator', 'POST', '/v1/root-key-rotations'), {
    json: { dataKeys: 1, systemKeys: 5 },
  });
  await opens(t, restored, walk.id);
});

t.test('destroying a key', async (t) => {
  const walk = await begin(t);
  t.match(
    await runToEnd(t, [
      'rotate',
      '--url',
      walk.vault.url,
      '--token-file',
      join(walk.folder, 'alice.jwt'),
      '--team',
      'payments',
      '--watch',
    ]),
    { code: 0 },
  );
  const old = await keyOf(walk, 1);
  await walk.call('alice', 'POST', `/v1/teams/payments/keys/${old.id}/retire`);
  await walk.playAll('Destroying a key, shredding a team');
  t.equal((await keyOf(walk, 1)).lastBackupWithKey, (await keyOf(walk, 1)).destroyAt);
  // The days pass: the trigger lets nobody date them back.
  await intrude(
    walk.database.db,
    `update data_key set destroy_scheduled_at = destroy_scheduled_at - interval '8 days', destroy_at = destroy_at - interval '8 days' where id = '${old.id}'`,
  );
  await walk.restart(); // a replica looks when it starts, and every minute
  const destroyed = await until(async () => {
    const key = await keyOf(walk, 1);
    return key.state === 'destroyed' && key;
  });
  t.match(destroyed, {
    id: old.id,
    fingerprint: old.fingerprint,
    rootFingerprints: [walk.fingerprints()[0]],
    rows: 0,
  });
  t.equal(destroyed.lastBackupWithKey, destroyed.destroyedAt);
  await opens(t, walk, walk.id);
  await verified(t, walk.database, walk.keys);
});

t.test('every block of the section was played', async (t) => {
  t.ok(sections.size > 8);
  for (const heading of sections.keys())
    for (const [index, block] of blocksOf(heading).entries())
      t.ok(played.has(block), `${heading} ${index}`);
});

function promiseOf(program: string, script: string, cwd: string): Promise<{ stdout: string }> {
  return new Promise((done) => {
    const child = spawn(program, ['-c', script], {
      cwd,
      env: { ...process.env, PATH: `${join(root, 'node_modules/.bin')}:${process.env['PATH']}` },
    });
    let stdout = '';
    child.stdout.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
    });
    child.once('close', () => {
      done({ stdout });
    });
  });
}
