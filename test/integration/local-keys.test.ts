import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { parseRootKeys } from '../../src/crypto/index.ts';
import { localKeys, LocalKeysInvalid, postgresFolder } from '../../src/dev/keys.ts';
import { runModule } from '../helpers/processes.ts';

function dataFolder(t: Test): string {
  const parent = mkdtempSync(join(tmpdir(), 'vault-keys-'));
  t.teardown(() => rmSync(parent, { recursive: true, force: true }));
  return join(parent, 'data');
}
const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8);

t.test('the first run makes the keys, later runs read the same ones', async (t) => {
  const folder = dataFolder(t);
  const first = localKeys(folder);
  t.equal(parseRootKeys(first.rootKeys).fingerprints.length, 1);
  t.ok(Buffer.byteLength(first.jwtSecret) >= 32);
  t.same(localKeys(folder), first);
  t.same(readdirSync(folder).sort(), ['jwt-secret', 'root-keys'], 'nothing is left beside them');
});

t.test('only the owner can open the keys or change the folder', async (t) => {
  const folder = dataFolder(t);
  localKeys(folder);
  t.match(modeOf(folder), /^7(00|11)$/);
  for (const file of readdirSync(folder)) t.equal(modeOf(join(folder, file)), '600', file);
  chmodSync(join(folder, 'root-keys'), 0o640);
  t.throws(() => localKeys(folder), LocalKeysInvalid);
  chmodSync(join(folder, 'root-keys'), 0o600);
  chmodSync(folder, 0o770);
  t.throws(() => localKeys(folder), LocalKeysInvalid);
});

t.test('a database without its root key is refused, and no key is made beside it', async (t) => {
  const folder = dataFolder(t);
  localKeys(folder);
  rmSync(join(folder, 'root-keys'));
  mkdirSync(join(postgresFolder(folder), 'data'), { recursive: true });
  writeFileSync(join(postgresFolder(folder), 'data', 'PG_VERSION'), '18\n');
  t.throws(() => localKeys(folder), { name: 'LocalKeysInvalid', message: /is gone/ });
  t.same(readdirSync(folder).sort(), ['jwt-secret', 'postgres']);
});

t.test('an empty key file is refused and not filled', async (t) => {
  const folder = dataFolder(t);
  localKeys(folder);
  writeFileSync(join(folder, 'root-keys'), '');
  t.throws(() => localKeys(folder), LocalKeysInvalid);
  t.equal(readFileSync(join(folder, 'root-keys'), 'utf8'), '');
});

t.test('several first starts at once agree on one key', async (t) => {
  const folder = dataFolder(t);
  const program = `import { existsSync } from 'node:fs'; import { localKeys } from ${JSON.stringify(join(import.meta.dirname, '../../src/dev/keys.ts'))}; console.log('ready'); while (!existsSync(process.argv[2]));
console.log(JSON.stringify(localKeys(process.argv[1])))`;
  const go = `${folder}.go`;
  const programs = Array.from({ length: 6 }, () => runModule(t, program, [folder, go]));
  for (const { printed } of programs) await printed(/ready/);
  writeFileSync(go, '');
  const outputs = await Promise.all(
    programs.map(async ({ ended, output }) => {
      await ended;
      return output().replace('ready', '');
    }),
  );
  t.equal(new Set(outputs).size, 1);
  t.same(JSON.parse(outputs[0]!), localKeys(folder));
});
