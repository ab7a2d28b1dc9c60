// npm run test:peers -- [--roles admin,operator] [--examples N] [--seed S]: Schemathesis, which
// knows nothing of this vault but its document, against a vault that serves. In each role it goes
// through every operation; an answer that openapi.yaml does not promise, or a 5xx, fails. Python's
// packages are pinned with their hashes and kept in a folder of their own.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { generateEngineKey } from '../../src/client/index.ts';
import { migrate } from '../../src/db/migrate.ts';
import { startLocalPostgres } from '../../src/dev/postgres.ts';
import { command, withDatabase } from '../helpers/database.ts';
import { deploy, type Serving } from '../helpers/serve.ts';

const root = join(import.meta.dirname, '../..');
const requirements = join(import.meta.dirname, 'requirements.txt');
const roles = ['admin', 'operator', 'editor', 'viewer', 'auditor', 'engine', 'stranger'] as const;
type Role = (typeof roles)[number];

const { values: options } = parseArgs({
  options: {
    roles: { type: 'string', default: roles.join(',') },
    examples: { type: 'string', default: '20' },
    seed: { type: 'string', default: '1' },
    phases: { type: 'string', default: 'examples,coverage,fuzzing' },
  },
});
const wanted = options.roles.split(',') as Role[];
if (wanted.some((role) => !roles.includes(role))) {
  console.error(`--roles takes ${roles.join(', ')}, with commas between`);
  process.exit(2);
}

const checks = [
  'not_a_server_error',
  'status_code_conformance',
  'content_type_conformance',
  'response_headers_conformance',
  'response_schema_conformance',
];

/** The document that the vault serves, as Python reads it. */
async function documentOf(vault: Serving): Promise<string> {
  const served = await (await fetch(`${vault.url}/openapi.json`)).text();
  const translated = JSON.parse(served, (name, value: unknown) =>
    name === 'pattern' && typeof value === 'string'
      ? value.replaceAll(/\\p\{(\w+)\}/g, (_, each: string) => {
          const written = classes[each];
          if (written === undefined) throw new Error(`write out the class ${each}`);
          return written;
        })
      : value,
  ) as unknown;
  return JSON.stringify(translated);
}

// Python's regular expressions know no classes of Unicode: those of the document are written out.
// Surrogates are no characters there anyway.
const classes: Readonly<Record<string, string>> = {
  Cc: '\\x00-\\x1f\\x7f-\\x9f',
  Cs: '',
  Cf: '\\xad\\u0600-\\u0605\\u061c\\u06dd\\u070f\\u180e\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb',
  Z: '\\x20\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000',
  Zl: '\\u2028',
  Zp: '\\u2029',
};

const subjectOf = (role: Role): string => (role === 'operator' ? role : `the-${role}`);

process.exitCode = await run();

async function run(): Promise<number> {
  const schemathesis = installed();
  const folder = mkdtempSync(join(tmpdir(), 'vault-peers-'));
  const endings: (() => unknown)[] = [() => rmSync(folder, { recursive: true, force: true })];
  const t = { teardown: (end: () => unknown) => endings.push(end) };
  try {
    const server = await startLocalPostgres({ folder: join(folder, 'postgres'), isDurable: false });
    endings.push(() => server.stop());
    await command(server.url, 'create database peers');
    const url = withDatabase(server.url, 'peers');
    await migrate(url);
    const deployment = deploy(t, url);
    const vault = await deployment.start({
      CREDVAULT_RATE_LIMIT_ADDRESS: '0',
      CREDVAULT_RATE_LIMIT_SUBJECT: '0',
      CREDVAULT_BROKER_PORT: '0',
    });
    const document = join(folder, 'openapi.json');
    writeFileSync(document, await documentOf(vault));
    let status = 0;
    for (const role of wanted) {
      // A team of its own: whatever is deleted in one role is there for the next.
      const config = join(folder, `${role}.toml`);
      writeFileSync(config, await configFor(vault, role));
      const report = join(folder, `${role}.ndjson`);
      const ended = await show(schemathesis, folder, [
        ...['--config-file', config, 'run', document, '--url', vault.url],
        ...['--header', `Authorization: Bearer ${deployment.token(subjectOf(role))}`],
        ...['--checks', checks.join(','), '--phases', options.phases, '--seed', options.seed],
        ...['--max-examples', options.examples, '--workers', '1', '--no-color'],
        ...['--report', 'ndjson', '--report-ndjson-path', report, '--warnings', 'off'],
        ...['--generation-database', 'none', '--no-shrink'],
      ]);
      console.log(`${role}: ${ended === 0 ? 'nothing found' : 'see above'}`);
      if (ended !== 0) status = 1;
    }
    vault.child.kill('SIGTERM');
    if ((await vault.ended) !== 0) {
      console.error(`the vault ended with ${await vault.ended}: ${vault.errors()}`);
      status = 1;
    }
    return status;
  } finally {
    for (const end of endings.reverse()) await end();
  }
}

/** What paths name: things that are there, so that more comes back than 404. */
async function configFor(vault: Serving, role: Role): Promise<string> {
  const must = async (
    as: string,
    method: string,
    path: string,
    body: unknown,
    headers: Record<string, string> = {},
  ): Promise<any> => {
    const { status, json } = await vault.call(as, method, path, body, headers);
    if (status >= 300) throw new Error(`${method} ${path}: ${status} ${JSON.stringify(json)}`);
    return json;
  };
  const team = `team-of-${role}`;
  await must('operator', 'POST', '/v1/teams', { slug: team, name: team, admins: ['founder'] });
  const engine = await must('operator', 'POST', '/v1/engines', {
    name: `engine of ${role}`,
    subject: role === 'engine' ? subjectOf(role) : `engine-of-${role}`,
    keys: [generateEngineKey().publicJwk],
  });
  for (const [sub, as] of [
    [subjectOf(role), role],
    ['somebody', 'viewer'],
  ] as const)
    if (!['operator', 'stranger'].includes(as))
      await must('founder', 'PUT', `/v1/teams/${team}/members/${sub}`, { role: as });
  const { id } = await must('founder', 'POST', `/v1/teams/${team}/credentials`, {
    name: 'openai-prod',
    type: 'openai',
    fields: { apiKey: 'sk-of-the-peers' },
  });
  const rotation = await must('founder', 'POST', `/v1/teams/${team}/key-rotations`, undefined);
  const parameters = {
    'path.team': team,
    'path.id': id,
    'path.engine': engine.id,
    'path.rotation': rotation.id,
    'path.key': rotation.toKey,
    'path.subject': 'somebody',
    'path.type': 'openai',
  };
  return [
    '[parameters]',
    ...Object.entries(parameters).map(([name, value]) => `"${name}" = ${JSON.stringify(value)}`),
    '',
  ].join('\n');
}

/** The program, installed once for these requirements. */
function installed(): string {
  const digest = createHash('sha256').update(readFileSync(requirements)).digest('hex').slice(0, 12);
  const home = join(root, 'node_modules/.cache/vault-peers', digest);
  const program = join(home, 'bin/schemathesis');
  if (existsSync(join(home, 'done'))) return program;
  rmSync(home, { recursive: true, force: true });
  const python = ['/usr/bin/python3', 'python3'].find(
    (each) => spawnSync(each, ['-c', 'import ensurepip, venv']).status === 0,
  );
  if (python === undefined) {
    console.error('no Python that makes environments (Debian: python3-venv)');
    process.exit(2);
  }
  for (const [file, ...args] of [
    [python, '-m', 'venv', home],
    [
      join(home, 'bin/pip'),
      ...[
        'install',
        '--quiet',
        '--disable-pip-version-check',
        '--require-hashes',
        '-r',
        requirements,
      ],
    ],
  ] as [string, ...string[]][]) {
    const { status } = spawnSync(file, args, { stdio: 'inherit' });
    if (status !== 0) process.exit(2);
  }
  writeFileSync(join(home, 'done'), '');
  return program;
}

/** Runs it in a folder where it may leave files. */
function show(program: string, cwd: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd, stdio: ['ignore', 'inherit', 'inherit'] });
    for (const signal of ['SIGINT', 'SIGTERM'] as const)
      process.once(signal, () => child.kill(signal));
    child.once('error', reject).once('exit', (code) => resolve(code ?? 1));
  });
}
