// The command `rotate` as a real process against real vaults: what it prints, how it ends, what it
// says when it may not.
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import pg from 'pg';
import t, { type Test } from 'tap';
import { generateRootKey } from '../../src/crypto/index.ts';
import { barOf, rotate } from '../../src/cli/rotate.ts';
import {
  deploy,
  type Deployment,
  runCommand,
  runToEnd,
  type RunningCommand,
  type ServedVault,
} from '../helpers/commands.ts';
import { testDatabase, type TestDatabase } from '../helpers/database.ts';
import { intrude } from '../helpers/intruder.ts';
import { until } from '../helpers/processes.ts';

const gate = 4711;

function makeFolder(t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'vo-'));
  chmodSync(folder, 0o711); // root's embedded server runs as nobody
  t.teardown(() => {
    rmSync(folder, { recursive: true, force: true });
  });
  return folder;
}

interface Scene {
  readonly database: TestDatabase;
  readonly deployment: Deployment;
  readonly vault: ServedVault;
  readonly rootKey: string;
  readonly options: string[];
  readonly token: string;
  readonly ids: string[];
}

/**
 * A served vault with the team payments, alice as its admin, so many credentials, and alice's token
 * in a file.
 */
async function stage(t: Test, credentials: number): Promise<Scene> {
  const database = await testDatabase(t);
  const deployment = deploy(t, database.url);
  const rootKey = generateRootKey();
  const vault = await deployment.serve(rootKey);
  t.equal(
    (
      await deployment.call(vault, 'operator', 'POST', '/v1/teams', {
        slug: 'payments',
        name: 'Payments',
        admins: ['alice'],
      })
    ).status,
    201,
  );
  const ids: string[] = [];
  for (let index = 0; index < credentials; index += 1) {
    ids.push(
      (
        await deployment.call(vault, 'alice', 'POST', '/v1/teams/payments/credentials', {
          name: `c${index}`,
          type: 'bearer',
          fields: { token: `t${index}` },
        })
      ).json.id,
    );
  }
  const token = await deployment.token('alice');
  const file = join(makeFolder(t), 'alice.jwt');
  writeFileSync(file, `${token}\n`, { mode: 0o600 });
  return {
    database,
    deployment,
    vault,
    rootKey,
    ids,
    token,
    options: ['--url', vault.url, '--token-file', file, '--team', 'payments'],
  };
}

/** Whoever moves a token stops at the gate until it is opened. */
async function closeGate(t: Test, { url }: TestDatabase): Promise<() => Promise<void>> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(
    `create function stop_at_gate() returns trigger language plpgsql as $$ begin perform pg_advisory_xact_lock_shared(${gate}); return new; end $$`,
  );
  await client.query(
    'create trigger stop_at_gate after update of token on credential_version for each row execute function stop_at_gate()',
  );
  await client.query(`select pg_advisory_lock(${gate})`);
  let isOpen = false;
  const open = async (): Promise<void> => {
    if (isOpen) return;
    isOpen = true;
    await client.query(`select pg_advisory_unlock(${gate})`);
    await client.end();
  };
  t.teardown(open);
  return open;
}
const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');

t.test(
  '--watch follows a rotation to its end, in lines of progress or of JSON, and never says the token',
  async (t) => {
    const scene = await stage(t, 3);
    const forecast = await runToEnd(t, ['rotate', ...scene.options, '--dry-run']);
    t.match(forecast, { code: 0, output: '3 tokens, about 1 s at an assumed pace\n', errors: '' });
    const watched = await runToEnd(t, [
      'rotate',
      ...scene.options,
      '--watch',
      '--reason',
      'routine',
    ]);
    t.match(watched, { code: 0, errors: '' });
    t.match(lines(watched.output)[0], /^rotation [0-9a-f-]{36} runs: 3 tokens$/);
    t.match(lines(watched.output).at(-1), /^\[#{30}\] 100 % {2}3 of 3 {2}\d+\/s {2}completed$/);
    t.notMatch(watched.output, /\u001b|\r/, "no terminal, no terminal's signs");
    const inJson = await runToEnd(t, ['rotate', ...scene.options, '--watch', '--json']);
    t.match(inJson, { code: 0, errors: '' });
    const said = lines(inJson.output).map(
      (line) => JSON.parse(line) as { state: string; done: number },
    );
    t.match(said.at(-1), { state: 'completed', done: 3, total: 3, failed: 0 });
    const unwatched = await runToEnd(t, ['rotate', ...scene.options]);
    t.match(unwatched, { code: 0, output: /^rotation [0-9a-f-]{36} runs: 3 tokens\n$/ });
    const { json } = await scene.deployment.call(
      scene.vault,
      'alice',
      'GET',
      '/v1/teams/payments/audit-events?action=key.rotate',
    );
    t.same(
      json.items.map(({ actor, details }: { actor: string; details: { reason?: string } }) => [
        actor,
        details.reason,
      ]),
      [
        ['alice', undefined],
        ['alice', undefined],
        ['alice', 'routine'],
      ],
    );
    for (const { output, errors } of [forecast, watched, inJson, unwatched])
      t.notOk(`${output}${errors}`.includes(scene.token));
  },
);

t.test(
  'the exit status says how it ended: 3 with failures, 4 cancelled, 130 no longer watched',
  async (t) => {
    const scene = await stage(t, 3);
    await sql`update credential_version set token = overlay(token placing 'AAAA' from 60) where credential_id = ${scene.ids[1]}`.execute(
      scene.database.db,
    );
    const failed = await runToEnd(t, ['rotate', ...scene.options, '--watch']);
    t.match(failed, { code: 3, errors: '' });
    t.match(
      lines(failed.output).at(-1),
      /100 % {2}2 of 3, 1 do not open {2}\d+\/s {2}completedWithFailures$/,
    );

    const open = await closeGate(t, scene.database);
    const stopped = runCommand(t, ['rotate', ...scene.options, '--watch']);
    const [, id] = await stopped.printed(/^rotation (\S+) runs/);
    await stopped.printed(/running/);
    stopped.child.kill('SIGINT');
    t.equal(await stopped.ended, 130);
    t.equal(stopped.errors(), '');
    const path = `/v1/teams/payments/key-rotations/${id}`;
    t.match(
      (await scene.deployment.call(scene.vault, 'alice', 'GET', path)).json,
      { state: 'running' },
      'only the watching ended',
    );

    const twin = await runToEnd(t, ['rotate', ...scene.options, '--watch']);
    t.match(twin, {
      code: 1,
      output: '',
      errors: `credential-vault rotate: the vault refused: 409 rotationRunning (rotation ${id})\n`,
    });
    const again = runCommand(t, ['rotate', ...scene.options, '--watch', '--rotation', id ?? '']);
    await again.printed(/running/);
    // The batch that stands at the gate has no hold on the rotation's row yet.
    t.equal(
      (await scene.deployment.call(scene.vault, 'alice', 'POST', `${path}/cancel`)).status,
      200,
    );
    t.equal(await again.ended, 4);
    t.match(lines(again.output()).at(-1), /cancelled$/);
    await open();
  },
);

t.test('a vault that goes away while it is watched is waited for', async (t) => {
  const scene = await stage(t, 3);
  const open = await closeGate(t, scene.database);
  const watching = runCommand(t, ['rotate', ...scene.options, '--watch', '--json']);
  await watching.printed(/"state":"running"/);
  scene.vault.command.child.kill('SIGKILL');
  await scene.vault.command.ended;
  await open();
  const answered = lines(watching.output()).length;
  await until(
    async () =>
      !(await fetch(scene.vault.url).then(
        () => true,
        () => false,
      )),
  );
  const again = await scene.deployment.serve(scene.rootKey, { port: scene.vault.port });
  t.equal(await watching.ended, 0, watching.errors());
  t.match(JSON.parse(lines(watching.output()).at(-1) ?? ''), { state: 'completed', done: 3 });
  t.ok(lines(watching.output()).length > answered);
  await again.stop();
  const gone = await runToEnd(t, ['rotate', ...scene.options]);
  t.match(
    gone,
    { code: 1, errors: /the vault does not answer \(ECONNREFUSED\)/ },
    'a start is not tried again: nobody knows whether it was heard',
  );
});

t.test('what is refused is said by its code, and ends with 1', async (t) => {
  const scene = await stage(t, 1);
  const folder = makeFolder(t);
  const as = async (sub: string): Promise<string[]> => {
    const file = join(folder, sub);
    writeFileSync(file, await scene.deployment.token(sub));
    return ['--url', scene.vault.url, '--token-file', file, '--team', 'payments'];
  };
  await scene.deployment.call(scene.vault, 'alice', 'PUT', '/v1/teams/payments/members/victor', {
    role: 'viewer',
  });
  t.match(await runToEnd(t, ['rotate', ...(await as('victor'))]), {
    code: 1,
    output: '',
    errors: 'credential-vault rotate: the vault refused: 403 forbidden\n',
  });
  t.match(await runToEnd(t, ['rotate', ...(await as('mallory'))]), {
    code: 1,
    output: '',
    errors: 'credential-vault rotate: the vault refused: 404 notFound\n',
  });
  t.match(await runToEnd(t, ['rotate', '--root', ...(await as('alice')).slice(0, 4)]), {
    code: 1,
    errors: /403 forbidden/,
  });
  t.match(await runToEnd(t, ['rotate', '--root', ...(await as('operator')).slice(0, 4)]), {
    code: 0,
    output: /^rewrapped 0 data keys and 0 system keys under [0-9a-f]{16}\n$/,
  });
  await intrude(
    scene.database.db,
    `insert into root_key (fingerprint, canary) values ('0123456789abcdef', '\\x00')`,
    `update data_key set root_fingerprint = '0123456789abcdef'`,
  );
  t.match(
    await runToEnd(t, ['rotate', '--root', ...(await as('operator')).slice(0, 4)]),
    {
      code: 3,
      output:
        /^rewrapped 0 data keys and 0 system keys under [0-9a-f]{16}\ndata key [0-9a-f-]{36} of team payments stays under 0123456789abcdef: rootKeyMissing\n$/,
    },
    'what stays as it is is named',
  );
  t.match(
    await runToEnd(t, [
      'rotate',
      '--watch',
      '--rotation',
      '01931f00-0000-7000-8000-00000000000a',
      ...(await as('alice')),
    ]),
    { code: 1, errors: /404 notFound/ },
    'a watch does not wait for what is refused',
  );
  writeFileSync(join(folder, 'alice'), 'eyJhbGciOiJub25lIn0.e30.');
  const bad = [
    '--url',
    scene.vault.url,
    '--token-file',
    join(folder, 'alice'),
    '--team',
    'payments',
  ];
  t.match(await runToEnd(t, ['rotate', ...bad]), {
    code: 1,
    errors: 'credential-vault rotate: the vault refused: 401 unauthenticated\n',
  });
});

t.test('what cannot be meant ends with 2 and repeats nothing that was given', async (t) => {
  const folder = makeFolder(t);
  const token = `eyJ${randomBytes(24).toString('base64url')}`;
  const file = join(folder, 'empty.jwt');
  writeFileSync(file, 'two words');
  const local = ['--team', 'payments', '--as', 'alice'];
  const remote = ['--team', 'payments', '--url', 'https://vault.test', '--token-file', file];
  const cases: (readonly [string[], RegExp])[] = [
    [[], /say --team SLUG, or --root/],
    [['--team', 'payments', '--root', '--as', 'operator'], /say --team SLUG, or --root/],
    [['--team', '../x', '--as', 'alice'], /slug/],
    [['--team', 'payments'], /--as SUBJECT/],
    [[...local, '--token-file', file], /go together/],
    [['--team', 'payments', '--url', 'https://vault.test'], /go together/],
    [[...remote, '--as', 'alice'], /local vault/],
    [remote, /does not hold a token/],
    [
      ['--team', 'payments', '--url', 'https://vault.test', '--token-file', join(folder, 'none')],
      /cannot be read \(ENOENT\)/,
    ],
    [['--team', 'payments', '--url', 'http://vault.test', '--token-file', file], /takes https/],
    [
      ['--team', 'payments', '--url', `https://alice:${token}@vault.test`, '--token-file', file],
      /takes https/,
    ],
    [['--team', 'payments', '--url', token, '--token-file', file], /takes https/],
    [[...local, '--token', token], /an option is unknown/],
    [[...local, token], /an option is unknown/],
    [[...local, `--json=${token}`], /an option is unknown or lacks/],
    [['--team'], /lacks its value/],
    [['--root', '--as', 'operator', '--watch'], /--root is done at once/],
    [[...local, '--rotation', token, '--watch'], /id of a rotation/],
    [[...local, '--rotation', '01931f00-0000-7000-8000-00000000000a'], /goes with --watch/],
    [[...local, '--dry-run', '--watch'], /starts nothing/],
    [local, /no local vault runs/],
  ];
  await Promise.all(
    cases.map(async ([args, pattern]) => {
      const { code, output, errors } = await runToEnd(t, ['rotate', ...args], { folder });
      t.equal(code, 2, args.join(' '));
      t.equal(output, '');
      t.match(errors, pattern, args.join(' '));
      t.notOk(errors.includes(token), 'the token is not said back');
    }),
  );
});

t.test('the local vault is found by its folder, and its subject named by --as', async (t) => {
  const folder = makeFolder(t);
  const vault: RunningCommand = runCommand(t, ['local'], { folder, environment: { PORT: '0' } });
  const [, url] = await vault.printed(/The vault runs on (http:\S+)/);
  const tokenOf = async (sub: string): Promise<string> =>
    (await runToEnd(t, ['token', sub], { folder })).output.trim();
  const made = await fetch(`${url}/v1/teams`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${await tokenOf('operator')}`,
      'content-type': 'application/json',
    },
    body: JSON.stringify({ slug: 'payments', name: 'Payments', admins: ['alice'] }),
  });
  t.equal(made.status, 201);
  t.match(
    await runToEnd(t, ['rotate', '--team', 'payments', '--as', 'alice', '--watch'], { folder }),
    { code: 0, output: /100 % {2}0 of 0 {2}0\/s {2}completed\n$/, errors: '' },
  );
  t.match(await runToEnd(t, ['rotate', '--root', '--as', 'operator', '--json'], { folder }), {
    code: 0,
    output:
      /^\{"primary":"[0-9a-f]{16}","dataKeys":0,"systemKeys":0,"failed":0,"failures":\[\]\}\n$/,
  });
  t.match(
    await runToEnd(t, ['rotate', '--root', '--as', 'operator'], {
      folder: tmpdir(),
      environment: { CREDVAULT_DATA_DIR: join(folder, 'data') },
    }),
    { code: 0 },
    'the folder of the configuration',
  );
  t.match(await runToEnd(t, ['verify'], { folder }), {
    code: 0,
    output: '7 keys, 0 tokens, 2 row MACs, 5 events looked at; everything holds\n',
    errors: '',
  });
  vault.child.kill('SIGINT');
  t.equal(await vault.ended, 0);
});

t.test('a terminal sees one line that changes; others a line for each change', async (t) => {
  t.equal(
    barOf({
      id: '',
      state: 'running',
      total: 200,
      done: 99,
      failed: 1,
      rowsPerSecond: 49.6,
      estimatedEnd: '2026-11-22T10:00:00.123Z',
    }),
    '[###############...............]  50 %  99 of 200, 1 do not open  50/s  running until 2026-11-22T10:00:00Z',
  );
  t.match(
    barOf({
      id: '',
      state: 'running',
      total: 1000,
      done: 999,
      failed: 0,
      rowsPerSecond: 1,
      estimatedEnd: null,
    }),
    /^\[#{29}\.\] {2}99 %/,
    'whole only when it is',
  );
  const scene = await stage(t, 1);
  let written = '';
  const code = await rotate({
    args: [...scene.options, '--watch'],
    environment: {},
    readFile: () => scene.token,
    write: (text) => {
      written += text;
    },
    isTerminal: true,
    stop: new AbortController().signal,
    now: Date.now,
  });
  t.equal(code, 0);
  t.match(written, /^rotation \S+ runs: 1 tokens\n(\r\u001b\[K\[[^\r\n]*)+ {2}completed\n$/);
});
