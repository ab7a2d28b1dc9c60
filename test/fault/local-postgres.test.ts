// The embedded server under everything that may happen to it: kills, leftovers, two owners, deep
// folders, several accounts.
import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import t, { type Test } from 'tap';
import { isRoot } from '../../src/dev/account.ts';
import { DataFolderBusy, type LocalPostgres, startLocalPostgres } from '../../src/dev/postgres.ts';
import { type Program, runModule, until } from '../helpers/processes.ts';

const launcher = join(import.meta.dirname, '../../src/dev/postgres.ts');
const starter = `import { startLocalPostgres } from ${JSON.stringify(launcher)}; const { url } = await startLocalPostgres({ folder: process.argv[1] }); console.log('ready ' + url); setInterval(() => {}, 1e6)`;

function newFolder(t: Test): string {
  const parent = mkdtempSync(join(tmpdir(), 'vault-pg-test-'));
  chmodSync(parent, 0o711);
  t.teardown(() => rmSync(parent, { recursive: true, force: true }));
  return join(parent, 'postgres');
}

/** A vault in a process of its own, and the process id of its server. */
async function startElsewhere(
  t: Test,
  folder: string,
): Promise<{ program: Program; url: string; serverId: number }> {
  const program = runModule(t, starter, [folder]);
  const [, url] = await program.printed(/ready (\S+)/);
  return { program, url: url!, serverId: serverIdOf(folder)! };
}

function serverIdOf(folder: string): number | undefined {
  const file = join(folder, 'data', 'postmaster.pid');
  return existsSync(file) ? Number(readFileSync(file, 'utf8').split('\n')[0]) : undefined;
}

function isAlive(processId: number): boolean {
  try {
    process.kill(processId, 0);
    return true;
  } catch {
    return false;
  }
}

async function query(url: string, text: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

async function once(
  t: Test,
  folder: string,
  action: (server: LocalPostgres) => Promise<unknown>,
): Promise<void> {
  const server = await startLocalPostgres({ folder });
  try {
    await action(server);
  } finally {
    await server.stop();
  }
  t.equal(serverIdOf(folder), undefined, 'a stopped server leaves no lock');
}

// One folder goes through these in order: each leaves it in use by nobody and readable.
const shared = newFolder(t);
const nobodyId = (flag: '-u' | '-g'): number =>
  Number(spawnSync('id', [flag, 'nobody'], { encoding: 'utf8' }).stdout);

t.test('two starts in a row keep the data, and nothing listens on the network', async (t) => {
  const folder = shared;
  await once(t, folder, async ({ url }) => {
    await query(url, 'create table kept (n int); insert into kept values (7)');
    t.same(
      await query(
        url,
        `select current_setting('listen_addresses') as listen, current_setting('fsync') as fsync, current_setting('max_connections') as connections`,
      ),
      [{ listen: '', fsync: 'on', connections: '100' }],
    );
  });
  await once(t, folder, async ({ url }) =>
    t.same(await query(url, 'select n from kept'), [{ n: 7 }]),
  );
});

t.test(
  'the server stops by itself when its vault is killed, and the next start waits for that',
  async (t) => {
    const folder = shared;
    const { program, url, serverId } = await startElsewhere(t, folder);
    await query(url, 'insert into kept values (8)');
    program.child.kill('SIGKILL');
    t.equal(await program.ended, 'SIGKILL');
    await once(t, folder, async (server) =>
      t.same(await query(server.url, 'select n from kept'), [{ n: 7 }, { n: 8 }]),
    );
    await until(() => !isAlive(serverId));
  },
);

t.test(
  'a second vault on the same folder is refused by name, and the first one lives on',
  async (t) => {
    const folder = shared;
    const { program, url, serverId } = await startElsewhere(t, folder);
    await t.rejects(startLocalPostgres({ folder }), {
      name: 'DataFolderBusy',
      message: new RegExp(`another vault is running on .*process ${serverId}`),
    });
    t.type(new DataFolderBusy(folder, 1), Error);
    t.same(await query(url, 'select 1 as n'), [{ n: 1 }]);
    program.child.kill('SIGKILL');
    await program.ended;
  },
);

t.test(
  'when vault and server are killed together, the next start recovers what was committed',
  async (t) => {
    const folder = shared;
    const { program, url, serverId } = await startElsewhere(t, folder);
    await query(url, 'insert into kept values (9)');
    process.kill(serverId, 'SIGKILL');
    program.child.kill('SIGKILL');
    await program.ended;
    await once(t, folder, async (server) =>
      t.same(await query(server.url, 'select n from kept'), [{ n: 7 }, { n: 8 }, { n: 9 }]),
    );
  },
);

t.test('a leftover lock that names another living program does not stop the start', async (t) => {
  const folder = shared;
  // Of the account that the server runs as: PostgreSQL itself only doubts programs that it could
  // signal.
  const other = spawn('cat', {
    stdio: ['pipe', 'ignore', 'ignore'],
    ...(isRoot() ? { uid: nobodyId('-u'), gid: nobodyId('-g') } : {}),
  });
  t.teardown(() => other.kill());
  writeFileSync(
    join(folder, 'data', 'postmaster.pid'),
    `${other.pid}\n${join(folder, 'data')}\n1\n5432\n${folder}\n\n`,
  );
  await once(t, folder, async ({ url }) => t.same(await query(url, 'select 1 as n'), [{ n: 1 }]));
});

t.test('a cluster whose making was killed is made again', async (t) => {
  const folder = newFolder(t);
  mkdirSync(join(folder, 'data.new', 'base'), { recursive: true });
  writeFileSync(join(folder, 'data.new', 'PG_VERSION'), '18\n');
  await once(t, folder, async ({ url }) => t.same(await query(url, 'select 1 as n'), [{ n: 1 }]));
  t.notOk(existsSync(join(folder, 'data.new')));
});

t.test('a folder deeper than a socket name may be works', async (t) => {
  const folder = join(newFolder(t), 'deep-'.repeat(15), 'deeper-'.repeat(10), 'postgres');
  t.ok(folder.length > 107);
  await once(t, folder, async ({ url }) => {
    t.same(await query(url, 'select 1 as n'), [{ n: 1 }]);
    t.notMatch(decodeURIComponent(url), 'deep-');
  });
});

t.test('a server that cannot start says why', async (t) => {
  writeFileSync(join(shared, 'data', 'postgresql.conf'), 'no_such_setting = 1\n');
  await t.rejects(startLocalPostgres({ folder: shared }), /no_such_setting/);
  await t.rejects(startLocalPostgres({ folder: newFolder(t), binFolder: '/nonexistent' }), {
    name: 'LocalPostgresFailed',
  });
});

// Only root can take on the other accounts; an ordinary user shows their own in every test above.
if (isRoot())
  t.test('root runs it too where the user nobody cannot go', async (t) => {
    const folder = newFolder(t);
    chmodSync(join(folder, '..'), 0o700);
    if (spawnSync('unshare', ['--user', 'true']).status !== 0) {
      await t.rejects(
        startLocalPostgres({ folder }),
        /run as an ordinary user/,
        'without user namespaces it says what to do',
      );
      return;
    }
    await once(t, folder, async ({ url }) => t.same(await query(url, 'select 1 as n'), [{ n: 1 }]));
  });

// A named account, and a number without one as containers use them.
for (const [who, uid] of isRoot()
  ? ([
      ['an ordinary user', nobodyId('-u')],
      ['a number without an account', 54_321],
    ] as const)
  : []) {
  t.test(`${who} runs it`, async (t) => {
    const folder = newFolder(t);
    chmodSync(join(folder, '..'), 0o777);
    const reads = spawnSync(
      process.execPath,
      ['-e', `require('fs').readFileSync(${JSON.stringify(launcher)})`],
      { uid },
    );
    if (reads.status !== 0) return void t.comment('the checkout is closed to this account');
    if (
      who !== 'an ordinary user' &&
      spawnSync('unshare', ['--user', 'true'], { uid }).status !== 0
    )
      return void t.comment('there are no user namespaces here');
    const program = runModule(t, starter, [folder], { uid, gid: uid });
    const [, url] = await program.printed(/ready (\S+)/);
    t.match(url, /^postgresql:/);
    program.child.kill('SIGKILL');
    await program.ended;
    await until(() => serverIdOf(folder) === undefined);
  });
}
