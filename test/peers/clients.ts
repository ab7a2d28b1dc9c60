// npm run test:peers:clients -- [--only typescript,python,go,jar,validators]: clients that
// generators make of openapi.yaml compile, and do create, list, read, patch and bulk against a vault
// that serves; validators find nothing in it. All are pinned (test/peers has their lock files) and
// kept under node_modules/.cache. `jar` needs Java.
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { migrate } from '../../src/db/migrate.ts';
import { startLocalPostgres } from '../../src/dev/postgres.ts';
import { command, withDatabase } from '../helpers/database.ts';
import { deploy } from '../helpers/serve.ts';
import { type Env, npmPeers, pythonPeers, run } from './installed.ts';

const root = join(import.meta.dirname, '../..');
const here = import.meta.dirname;
const document = join(root, 'openapi.yaml');
const { values: options } = parseArgs({
  options: { only: { type: 'string', default: 'validators,typescript,python,go,jar' } },
});

const peers: Readonly<Record<string, (env: Env) => void>> = {
  validators: () => {
    const python = pythonPeers('clients.txt');
    run(join(python, 'bin/openapi-spec-validator'), [document]);
    // PyYAML is a reader of YAML 1.1.
    run(join(python, 'bin/python'), [
      '-c',
      'import sys, yaml; yaml.safe_load(open(sys.argv[1]))',
      document,
    ]);
    const npm = npmPeers();
    cpSync(join(here, 'spectral.yaml'), join(npm, 'spectral.yaml'));
    run(join(npm, 'node_modules/.bin/spectral'), [
      ...['lint', document, '--ruleset', join(npm, 'spectral.yaml'), '--fail-severity', 'hint'],
    ]);
  },
  typescript: (env) => {
    const home = fresh('typescript');
    const installed = npmPeers();
    cpSync(join(here, 'clients/typescript.ts'), join(home, 'typescript.ts'));
    run(join(installed, 'node_modules/.bin/openapi-typescript'), [
      document,
      '-o',
      join(home, 'api.d.ts'),
    ]);
    cpSync(join(here, 'clients/tsconfig.json'), join(home, 'tsconfig.json'));
    writeFileSync(join(home, 'package.json'), '{"type":"module"}');
    run('ln', ['-sfn', join(installed, 'node_modules'), join(home, 'node_modules')]);
    run(join(installed, 'node_modules/.bin/tsc'), ['-p', home]);
    run(process.execPath, [join(home, 'out/typescript.js')], env);
  },
  python: (env) => {
    const home = fresh('python');
    const python = pythonPeers('clients.txt');
    run(join(python, 'bin/openapi-python-client'), [
      ...['generate', '--path', document, '--output-path', join(home, 'made'), '--overwrite'],
    ]);
    run(join(python, 'bin/python'), [join(here, 'clients/python_client.py')], {
      ...env,
      PYTHONPATH: join(home, 'made'),
    });
  },
  go: (env) => {
    const home = fresh('go');
    for (const name of ['go.mod', 'go.sum', 'main.go', 'oapi-codegen.yaml'])
      cpSync(join(here, 'clients/go', name), join(home, name));
    const within = { cwd: home };
    run('go', ['tool', 'oapi-codegen', '-config', 'oapi-codegen.yaml', document], {}, within);
    run('go', ['build', '-o', 'client', '.'], {}, within);
    run(join(home, 'client'), [], env, within);
  },
  jar: (env) => {
    const home = fresh('jar');
    const python = pythonPeers('clients.txt');
    run(join(python, 'bin/openapi-generator-cli'), [
      ...['generate', '-g', 'python', '-i', document, '-o', home],
      ...[
        '--package-name',
        'vault_generated',
        '--global-property',
        'apiTests=false,modelTests=false',
      ],
    ]);
    run(join(python, 'bin/python'), [join(here, 'clients/generated.py')], {
      ...env,
      PYTHONPATH: home,
    });
  },
};

const wanted = options.only.split(',');
if (wanted.some((name) => !Object.hasOwn(peers, name))) {
  console.error(`--only takes ${Object.keys(peers).join(', ')}, with commas between`);
  process.exit(2);
}
process.exitCode = await visit();

/** Each in turn, in a team of its own; those that fail are named in the end. */
async function visit(): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'vault-clients-'));
  const endings: (() => unknown)[] = [() => rmSync(folder, { recursive: true, force: true })];
  const t = { teardown: (end: () => unknown) => endings.push(end) };
  try {
    const server = await startLocalPostgres({ folder: join(folder, 'postgres'), isDurable: false });
    endings.push(() => server.stop());
    await command(server.url, 'create database peers');
    const url = withDatabase(server.url, 'peers');
    await migrate(url);
    const deployment = deploy(t, url);
    const vault = await deployment.start({});
    let failed = 0;
    for (const name of wanted) {
      const team = `clients-${name}`;
      const made = await vault.call('operator', 'POST', '/v1/teams', {
        slug: team,
        name: team,
        admins: ['alice'],
      });
      if (made.status !== 201) throw new Error(`no team: ${made.status}`);
      try {
        peers[name]!({
          PEER_URL: vault.url,
          PEER_TOKEN: deployment.token('alice'),
          PEER_TEAM: team,
        });
        console.log(`${name}: good`);
      } catch (error) {
        failed += 1;
        console.error(`${name}: ${(error as Error).message}`);
      }
    }
    return failed === 0 ? 0 : 1;
  } finally {
    for (const end of endings.reverse()) await end();
  }
}

/** An empty folder for what a generator makes. */
function fresh(name: string): string {
  const home = join(root, 'node_modules/.cache/vault-clients', name);
  rmSync(home, { recursive: true, force: true });
  mkdirSync(home, { recursive: true });
  return home;
}
