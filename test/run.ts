// npm test: one throw-away PostgreSQL for the whole run (or TEST_DATABASE_URL), one migrated
// template, one canary, then tap with the arguments given. The last line is `N passed, N failed`,
// counted by tap; the exit code is tap's.
import { spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startLocalPostgres } from '../src/dev/postgres.ts';
import { makeTemplate } from './helpers/database.ts';
import { countsOf, summaryOf } from './helpers/tap-counts.ts';

const root = join(import.meta.dirname, '..');
const tap = join(root, 'node_modules/.bin/tap');
const folder = mkdtempSync(join(tmpdir(), 'vault-test-'));
const output = join(folder, 'output.tap');

process.exitCode = await withServer(run);

async function run(serverUrl: string): Promise<number> {
  await makeTemplate(serverUrl);
  buildTap();
  const reporter = process.argv.some((argument) => /^(-R|--reporter)/.test(argument))
    ? []
    : [process.stdout.isTTY ? '--reporter=base' : '--reporter=min'];
  // Without a terminal the live reporters print every frame; with CI set they print nothing at all.
  const child = spawn(tap, [...reporter, `--output-file=${output}`, ...process.argv.slice(2)], {
    cwd: root,
    stdio: 'inherit',
    env: {
      ...process.env,
      CI: undefined,
      VAULT_TEST_CI: process.env['CI'],
      TEST_DATABASE_URL: serverUrl,
      VAULT_TEST_CANARY: `canary-${randomBytes(16).toString('hex')}`,
    },
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => child.kill(signal));
  const code = await new Promise<number>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (exitCode) => resolve(exitCode ?? 1));
  });
  const counts = existsSync(output)
    ? countsOf(readFileSync(output, 'utf8'))
    : { passed: 0, failed: 1, skipped: 0 }; // no file: tap found nothing to run
  // Something failed that is no test: a run cut short, a coverage threshold.
  const failed = counts.failed === 0 && code !== 0 ? 1 : counts.failed;
  console.log(`\n${summaryOf({ ...counts, failed })}`);
  return failed > 0 && code === 0 ? 1 : code;
}

// .taprc's list of plugins is compiled into node_modules once per install; tap's own first run
// would still use the old list.
function buildTap(): void {
  const built = readFileSync(
    join(root, 'node_modules/@tapjs/test/test-built/dist/esm/index.js'),
    'utf8',
  );
  if (!built.includes('@tapjs/typescript')) return;
  const { status, stderr } = spawnSync(tap, ['build'], { cwd: root, encoding: 'utf8' });
  if (status !== 0) throw new Error(`tap build failed: ${stderr}`);
}

async function withServer(action: (url: string) => Promise<number>): Promise<number> {
  const given = process.env['TEST_DATABASE_URL'];
  try {
    if (given) return await action(given);
    const server = await startLocalPostgres({ folder: join(folder, 'postgres'), isDurable: false });
    try {
      return await action(server.url);
    } finally {
      await server.stop();
    }
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
