// Where mutants live: a copy of the tree and a PostgreSQL of its own, both in a folder of the
// system's for temporary files. The tree itself is never written to.
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import pg from 'pg';
import { startLocalPostgres } from '../../src/dev/postgres.ts';
import { command, makeTemplate, withDatabase } from '../helpers/database.ts';

/** How a test file ended. `failure` is the first line that says so. */
export interface TestRun {
  readonly outcome: 'green' | 'red' | 'timeout';
  readonly failure: string;
  readonly ms: number;
}

export interface Workspace {
  /** The copy of the tree. */
  readonly folder: string;
  /** Runs one test file of the copy and stops it at its first failure. */
  test(file: string, options: { timeoutMs: number; coverageFolder?: string }): Promise<TestRun>;
  close(): Promise<void>;
}

/** Copies what git knows of the tree, and what it does not ignore. */
export async function openWorkspace(root: string): Promise<Workspace> {
  const base = mkdtempSync(join(tmpdir(), 'mutants-'));
  const folder = join(base, 'tree');
  try {
    copyTree(root, folder);
    // A server for each workspace: what a stopped test leaves behind can go without a look at
    // whose it is.
    const server = await startLocalPostgres({ folder: join(base, 'pg'), isDurable: false });
    await makeTemplate(server.url);
    let child: ReturnType<typeof start> | undefined;
    let isClosed = false;
    const never = new Promise<never>(() => undefined);
    return {
      folder,
      async test(file, { timeoutMs, coverageFolder }) {
        if (isClosed) return never; // whoever stopped the run ends the process
        const temporary = join(base, 't');
        mkdirSync(temporary, { recursive: true });
        child = start(folder, file, {
          TEST_DATABASE_URL: server.url,
          TMPDIR: temporary,
          TAP_TIMEOUT: String(timeoutMs / 1000),
          ...(coverageFolder === undefined
            ? { NODE_COMPILE_CACHE: join(base, 'compiled') }
            : { NODE_V8_COVERAGE: coverageFolder }),
        });
        const run = await outcomeOf(child, timeoutMs);
        if (isClosed) return never;
        await dropTestDatabases(server.url);
        rmSync(temporary, { recursive: true, force: true, maxRetries: 5 });
        return run;
      },
      async close() {
        isClosed = true;
        if (child !== undefined) endGroup(child);
        await server.stop();
        rmSync(base, { recursive: true, force: true, maxRetries: 5 });
      },
    };
  } catch (error) {
    rmSync(base, { recursive: true, force: true });
    throw error;
  }
}

function copyTree(root: string, folder: string): void {
  const list = ['ls-files', '--cached', '--others', '--exclude-standard', '-z'];
  const { stdout, status } = spawnSync('git', list, { cwd: root, encoding: 'utf8' });
  if (status !== 0) throw new Error('this is not a git tree');
  for (const path of stdout.split('\0').filter((name) => name !== '')) {
    mkdirSync(join(folder, dirname(path)), { recursive: true });
    cpSync(join(root, path), join(folder, path), { force: true });
  }
  symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
}

// A group of its own, so that the processes which a test starts end with it.
function start(cwd: string, file: string, variables: NodeJS.ProcessEnv) {
  return spawn(process.execPath, [file], {
    cwd,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...process.env,
      CI: undefined,
      NODE_V8_COVERAGE: undefined,
      VAULT_TEST_CANARY: `canary-${randomBytes(16).toString('hex')}`,
      ...variables,
    },
  });
}

function outcomeOf(child: ReturnType<typeof start>, timeoutMs: number): Promise<TestRun> {
  const startedAt = performance.now();
  return new Promise((resolve, reject) => {
    let failure: string | undefined;
    let isLate = false;
    let rest = '';
    let errors = '';
    const timer = setTimeout(() => {
      isLate = true;
      endGroup(child);
    }, timeoutMs);
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop()!;
      failure ??= lines.find(isFailure)?.trim();
      if (failure !== undefined) endGroup(child);
    });
    child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
      errors = (errors + chunk).slice(-2_000);
    });
    child.once('error', reject);
    child.once('close', (code) => {
      clearTimeout(timer);
      endGroup(child); // what the test itself left running
      const ms = performance.now() - startedAt;
      if (failure === undefined && isLate) return resolve({ outcome: 'timeout', failure: '', ms });
      if (failure === undefined && code !== 0)
        failure = `exit code ${code}: ${/\w*Error: .*/.exec(errors)?.[0] ?? ''}`;
      resolve({ outcome: failure === undefined ? 'green' : 'red', failure: failure ?? '', ms });
    });
  });
}

/** Whether a line of TAP says that something failed, at any depth. */
export const isFailure = (line: string): boolean =>
  (/^ *not ok\b/.test(line) && !/ # (todo|skip)\b/i.test(line)) || /^ *Bail out!/.test(line);

function endGroup({ pid }: { pid?: number | undefined }): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // nobody is left in it
  }
}

async function dropTestDatabases(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: withDatabase(url, 'postgres') });
  await client.connect();
  const { rows } = await client
    .query<{ datname: string }>(`select datname from pg_database where datname like 'test\\_%'`)
    .finally(() => client.end());
  for (const { datname } of rows) await command(url, `drop database ${datname} with (force)`);
}
