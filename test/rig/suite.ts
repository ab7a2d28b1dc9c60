// npm run test:debian -- [FILE …]: the whole suite, or these files of it, on Debian's PostgreSQL in
// place of the one that npm brings.
import { spawn } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { debianBinaries, PostgresNode } from './postgres/node.ts';

const bin = debianBinaries();
if (bin === undefined) {
  console.error("there is no PostgreSQL of Debian's here (postgresql-15)");
  process.exit(2);
}
const folder = mkdtempSync(join(tmpdir(), 'vault-debian-'));
chmodSync(folder, 0o711);
const node = new PostgresNode({ name: 'suite', folder: join(folder, 'postgres'), bin });
try {
  await node.init();
  await node.start();
  const [{ version } = { version: '' }] = await node.query<{ version: string }>('select version()');
  console.log(version);
  process.exitCode = await new Promise<number>((resolve, reject) => {
    const runner = join(import.meta.dirname, '../run.ts');
    const child = spawn(process.execPath, [runner, ...process.argv.slice(2)], {
      stdio: 'inherit',
      env: { ...process.env, TEST_DATABASE_URL: node.url() },
    });
    for (const signal of ['SIGINT', 'SIGTERM'] as const)
      process.once(signal, () => child.kill(signal));
    child.once('error', reject).once('exit', (code) => resolve(code ?? 1));
  });
} finally {
  await node.kill();
  rmSync(folder, { recursive: true, force: true });
}
