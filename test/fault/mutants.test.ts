// The tool that takes guards out, on a source with planted ones, by processes of its own.
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { changedLines } from '../mutants/judging.ts';

const root = join(import.meta.dirname, '../..');

t.test(
  'a whole run: killed, timed out, survived, second line; the tree stays as it was',
  async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'mutants-test-'));
    t.teardown(() => rmSync(folder, { recursive: true, force: true }));
    const put = (path: string, text: string): void => {
      mkdirSync(join(folder, path, '..'), { recursive: true });
      writeFileSync(join(folder, path), text);
    };
    const git = (...words: string[]): void => {
      const { status, stderr } = spawnSync(
        'git',
        ['-c', 'user.name=t', '-c', 'user.email=t@t.test', ...words],
        { cwd: folder, encoding: 'utf8' },
      );
      if (status !== 0) throw new Error(stderr);
    };
    // The tool with what it needs of the project, and a source of its own.
    for (const path of ['test/mutants', 'test/helpers/database.ts', 'migrations', 'package.json'])
      cpSync(join(root, path), join(folder, path), { recursive: true });
    for (const path of ['src/db', 'src/shared', 'src/dev'])
      cpSync(join(root, path), join(folder, path), { recursive: true });
    mkdirSync(join(folder, 'node_modules'));
    for (const name of readdirSync(join(root, 'node_modules')))
      if (!name.startsWith('.'))
        symlinkSync(join(root, 'node_modules', name), join(folder, 'node_modules', name));
    put('.gitignore', 'node_modules\n');
    put(
      'src/planted/guards.ts',
      `export function tested(n: number): number {
  if (n < 0) throw new Error('negative');
  return n;
}
export function untested(n: number): number {
  if (n > 100) throw new Error('large');
  return n;
}
export function nobody(n: number): number {
  if (n > 7) throw new Error('seven');
  return n;
}
export function second(n: number): number {
  tested(n);
  if (n < -5) throw new Error('very negative'); // SECOND LINE: tested refuses it
  return n;
}
export function ends(n: number): number {
  for (let i = 0; ; i += 1) {
    if (i > n) break;
  }
  return n;
}
`,
    );
    put(
      'test/unit/planted.test.ts',
      `import t from 'tap';
import { ends, second, tested, untested } from '../../src/planted/guards.ts';
t.throws(() => tested(-1));
t.equal(tested(1), 1);
t.equal(untested(1), 1);
t.throws(() => second(-9));
t.equal(second(2), 2);
t.equal(ends(3), 3);
`,
    );
    git('init', '-q');
    git('add', '.');
    git('commit', '-q', '-m', 'planted');
    const text = readFileSync(join(folder, 'src/planted/guards.ts'), 'utf8');
    const run = (...words: string[]): { status: number | null; stdout: string; stderr: string } =>
      spawnSync(
        process.execPath,
        [
          '--disable-warning=ExperimentalWarning',
          'test/mutants/run.ts',
          '--only',
          'src/planted',
          ...words,
        ],
        {
          cwd: folder,
          encoding: 'utf8',
          env: { ...process.env, TMPDIR: folder, MUTANT_TIMEOUT_MS: '20000', TAP: undefined },
        },
      );
    const { status, stdout, stderr } = run();
    t.equal(status, 1, stderr);
    t.match(stdout, /^src\/planted\t1\t1\t2\t1\t0$/m);
    t.match(stdout, /survived {2}src\/planted\/guards\.ts:6 .*\(1 test files stay green\)/);
    t.match(stdout, /survived {2}src\/planted\/guards\.ts:10 .*\(no test reaches it\)/);
    t.equal(
      readFileSync(join(folder, 'src/planted/guards.ts'), 'utf8'),
      text,
      'nothing was written',
    );
    t.same(
      readdirSync(folder).filter((name) => /^mutants-/.test(name)),
      [],
      'nothing was left',
    );
    t.ok(existsSync(join(folder, 'node_modules/.cache/mutants/coverage.json')));
    t.match(run('--since', 'HEAD'), { status: 0, stdout: /no guard was chosen/ });
    put('src/planted/guards.ts', text.replace('n < 0', 'n <= -1'));
    t.same(
      [...changedLines(folder, 'HEAD')].map(([path, lines]) => [path, ...lines]),
      [['src/planted/guards.ts', 2]],
    );
    const since = run('--since', 'HEAD');
    t.match(since, { status: 0, stdout: /^src\/planted\t1\t0\t0\t0\t0$/m }, since.stderr);
  },
);
