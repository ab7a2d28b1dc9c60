// The arrows of the house: who may import whom. A file outside the table, an arrow outside it, and
// a name in the wrong place fail here.
import t from 'tap';
import { importsOf, sourceFiles, withoutComments } from '../helpers/source-files.ts';

// ── the house ─────────────────────────────────────────────────────────────────────────────────────────────────────
// main → commands → { cli, serve, dev } → app → { integrity, features } → audit → { http,
// egress } → access → { crypto, db } → shared, never back.

const floor = ['crypto', 'db', 'shared'];
const features = [
  'broker',
  'connection-tests',
  'credentials',
  'engines',
  'exports',
  'keys',
  'leases',
  'notifications',
  'oauth',
  'retention',
  'root-keys',
  'sharing',
  'teams',
];
const feature = [...features, 'audit', 'http', 'access', 'egress', ...floor];

const arrows: Readonly<Record<string, readonly string[]>> = {
  'main.ts': ['commands.ts', 'config', 'log-output.ts', 'shared'],
  'log-output.ts': [],
  'commands.ts': ['config', 'serve.ts', 'openapi.ts', 'dev', 'cli', ...floor],
  config: ['db', 'egress', 'access', 'http', 'shared'],
  dev: ['config', 'serve.ts', 'client', 'access', ...floor],
  cli: [
    'config',
    'serve.ts',
    'dev',
    'integrity',
    'keys',
    'credentials',
    'engines',
    'oauth',
    'audit',
    'http',
    'access',
    ...floor,
  ],
  'serve.ts': ['access', 'config', 'app.ts', 'keys', 'http', 'egress', ...floor],
  'openapi.ts': ['access', 'app.ts', 'http', 'egress', ...floor],
  'app.ts': ['integrity', ...feature],
  broker: feature,
  'connection-tests': feature,
  integrity: [
    'broker',
    'credentials',
    'engines',
    'keys',
    'notifications',
    'oauth',
    'sharing',
    'audit',
    'http',
    'access',
    ...floor,
  ],
  credentials: feature,
  engines: feature,
  exports: feature,
  keys: feature,
  leases: feature,
  notifications: feature,
  oauth: feature,
  retention: feature,
  'root-keys': feature,
  sharing: feature,
  teams: feature,
  audit: ['http', 'access', ...floor],
  http: ['access', ...floor],
  access: floor,
  egress: ['shared'],
  crypto: ['shared'],
  db: ['shared'],
  shared: [],
  client: [], // what an engine takes along: it stands alone
};

/**
 * The files by which a folder is entered from outside; a folder without an entry here is open. The
 * composition may enter features anywhere.
 */
const doors: Readonly<Record<string, RegExp>> = {
  crypto: /^src\/crypto\/index\.ts$/,
  client: /^src\/client\/index\.ts$/,
  audit: /^src\/audit\/(record|event|schemas)\.ts$/,
  egress: /^src\/egress\/(index|allow|documents)\.ts$/,
  ...Object.fromEntries(features.map((name) => [name, new RegExp(`^src/${name}/service\\.ts$`)])),
  credentials: /^src\/credentials\/(service|schemas)\.ts$/, // an export shows things in the shapes of their own features
  keys: /^src\/keys\/(service|schemas)\.ts$/,
  notifications: /^src\/notifications\/(service|schemas)\.ts$/,
  broker: /^src\/broker\/(service|injection|refusal|target)\.ts$/, // tests of connections make their requests as calls do
};
const composition = new Set(['app.ts', 'serve.ts', 'cli']);
const narrow: Readonly<Record<string, RegExp>> = {
  'config db': /^src\/db\/url\.ts$/,
  'config egress': /^src\/egress\/allow\.ts$/,
  'config access': /^src\/access\/issuers\.ts$/,
  'config http': /^src\/http\/(jwks|json|validation)\.ts$/,
  'dev access': /^src\/access\/issuers\.ts$/,
  'config shared': /^src\/shared\/growth\.ts$/,
};

/**
 * Packages and built-in modules, each with the files that may import it. What is not named here is
 * imported by nobody.
 */
const packages: Readonly<Record<string, RegExp>> = {
  fastify:
    /^src\/(http\/|[a-z-]+\/([a-z]+\/)?(routes|[a-z]+-routes|listener|whoami)\.ts$|app\.ts$)/,
  zod: /^src\/(config\/issuers\.ts$|http\/|credentials\/types\/|[a-z-]+\/([a-z]+\/)?(routes|[a-z]+-routes|schemas|[a-z]+-schemas|whoami)\.ts$)/,
  '@fastify/jwt': /^src\/http\//,
  '@fastify/rate-limit': /^src\/http\//,
  'find-my-way': /^src\/http\/path-forms\.ts$/,
  kysely:
    /^src\/(db|access|http|audit|broker|credentials|engines|exports|integrity|keys|leases|notifications|oauth|cli|retention|root-keys|sharing|teams)\/(?!(.*\/)?(routes|[a-z]+-routes|schemas|[a-z]+-schemas|whoami)\.ts)/,
  'kysely/migration': /^$/,
  pg: /^src\/(db|dev)\//,
  pino: /^src\/(log-output|commands|serve|app|openapi|broker\/listener)\.ts$|^src\/(dev|http)\//,
  jose: /^src\/(client|dev|cli)\//,
  '@smithy/signature-v4': /^src\/broker\/sigv4\.ts$/,
  yaml: /^src\/openapi\.ts$/,
  oauth4webapi: /^src\/oauth\/provider\.ts$/,
  undici: /^src\/egress\//,
  'nodemailer/lib/smtp-connection': /^src\/connection-tests\/smtp\.ts$/,
  'node:async_hooks': /^src\/db\/effects\.ts$/,
  'node:buffer': /^src\/http\//,
  'node:crypto': /^src\/(?!(main|commands)\.ts)/,
  'node:util': /^src\/(crypto|cli)\//,
  'node:net': /^src\/(config\/values\.ts$|http\/|egress\/|connection-tests\/)/,
  'node:tls': /^src\/egress\//,
  'node:dns/promises': /^src\/egress\//,
  'node:http': /^src\/((http|dev)\/|broker\/(body|proxy|watch)\.ts$)/,
  'node:stream': /^src\/(broker|exports)\//,
  'node:zlib': /^src\/oauth\/body\.ts$/,
  'node:fs': /^src\/(main\.ts$|db\/|dev\/|http\/docs\.ts$|cli\/output\.ts$)/,
  'node:path': /^src\/(db|dev|http|cli)\//,
  'node:module': /^src\/(dev\/postgres|http\/docs)\.ts$/,
  'node:os': /^src\/(dev|egress)\//,
  'node:child_process': /^src\/dev\//,
  'node:timers/promises':
    /^src\/(shared\/pace\.ts$|(dev|keys|leases|notifications|oauth|client|cli)\/)/,
};

/**
 * Names that may stand only in the files listed; each file listed must hold the name, or the list
 * is stale.
 */
const names: readonly {
  readonly what: string;
  readonly pattern: RegExp;
  readonly files: readonly string[];
}[] = [
  {
    what: 'expose, the door to plaintext',
    pattern: /\bexpose\b/,
    files: [
      'src/broker/fields.ts',
      'src/connection-tests/service.ts',
      'src/credentials/versions.ts',
      'src/crypto/envelope.ts',
      'src/crypto/secret.ts',
      'src/leases/access-tokens.ts',
      'src/leases/sealed.ts',
      'src/notifications/message.ts',
      'src/oauth/answer.ts',
      'src/oauth/held.ts',
      'src/oauth/provider.ts',
      'src/oauth/ready.ts',
      'src/oauth/service.ts',
      'src/oauth/state.ts',
      'src/oauth/tokens.ts',
      'src/cli/export/container.ts',
      'src/cli/export/content.ts',
    ],
  },
  {
    what: 'a cipher',
    pattern: /\bcreate(De)?[cC]ipher(iv)?\b/,
    files: [
      'src/crypto/fernet.ts',
      'src/crypto/nested-jwt.ts',
      'src/crypto/root-keys/root-keys.ts',
    ],
  },
  {
    what: 'process',
    pattern: /(?<![\w.'-])process\s*(\?\.|[.[])|=\s*process\b|node:process|getBuiltinModule/,
    files: ['src/main.ts'],
  },
  {
    what: 'globalThis, by which everything else could be reached',
    pattern: /\bglobalThis\b|\bglobal\s*[.[]/,
    files: [],
  },
  { what: 'console', pattern: /\bconsole\s*[.[]/, files: [] },
  { what: 'random numbers that are none', pattern: /\bMath\s*\.\s*random\b/, files: [] },
  { what: 'code from text', pattern: /\beval\s*\(|\bnew\s+Function\b|node:vm/, files: [] },
  // Who dials goes through the egress. Beside it: the client
  // that engines take along, and commands that talk to the vault.
  {
    what: 'a way to dial',
    pattern: /(?<![.#\w'"-])(fetch|WebSocket|EventSource)\b(?!['"])/,
    files: ['src/client/vault-client.ts', 'src/dev/demo-stage.ts', 'src/cli/target.ts'],
  },
  {
    what: 'connections and their makers',
    pattern:
      /\bimport\s+(?!type\b)[^;]*?(?<!\btype\s)\b(?:request|get|Agent|connect|connectTcp|createConnection|Socket|TLSSocket|ClientRequest|http|https|net|tls|undici)\b[^;]*?\bfrom\s+['"](?:node:(?:https?|net|tls)|undici)['"]/,
    files: ['src/egress/dial.ts'],
  },
  { what: 'a default export', pattern: /\bexport\s+default\b/, files: [] },
  {
    what: 'every column, listed or not',
    pattern: /\b(selectAll|returningAll)\b|\breturning\s+\*/i,
    files: [],
  },
];

// ── the check ─────────────────────────────────────────────────────────────────────────────────────────────────────

const areaOf = (path: string): string => path.split('/')[1] ?? '';

function findings(files: ReadonlyMap<string, string>): string[] {
  const found: string[] = [];
  for (const [path, text] of files) {
    if (arrows[areaOf(path)] === undefined) found.push(`${path}: no row in the table`);
    for (const name of importsOf(path, text)) {
      const fault = name.startsWith('src/')
        ? arrowFault(path, name, files)
        : packages[name]?.test(path) === true
          ? undefined
          : 'may not import';
      if (fault !== undefined) found.push(`${path}: ${fault} ${name}`);
    }
    const code = withoutComments(text);
    for (const { what, pattern, files: allowed } of names)
      if (pattern.test(code) && !allowed.includes(path)) found.push(`${path}: holds ${what}`);
  }
  return found;
}

function arrowFault(
  path: string,
  target: string,
  files: ReadonlyMap<string, string>,
): string | undefined {
  const [from, to] = [areaOf(path), areaOf(target)];
  if (!files.has(target)) return 'names a file that does not exist:';
  if (from === to)
    return /\/(routes|[a-z]+-routes|schemas|[a-z]+-schemas|whoami)\.ts$/.test(path) &&
      target.endsWith('/repository.ts') &&
      from !== 'audit'
      ? 'goes round the service to'
      : undefined;
  if (arrows[from]?.includes(to) !== true) return 'may not import';
  if (narrow[`${from} ${to}`]?.test(target) === false) return 'may not import';
  const door = doors[to];
  const isComposition = composition.has(from) && to !== 'crypto' && to !== 'client';
  return door !== undefined && !isComposition && !door.test(target)
    ? 'does not use the door of'
    : undefined;
}

const source = sourceFiles('src');
const findingsOf = (path: string, text: string): string[] =>
  findings(new Map([...source, [path, text]])).filter((finding) => finding.startsWith(`${path}:`));

t.test('every import follows the arrows, and names stand only where they may', async (t) => {
  t.ok(source.size > 40, 'there is something to look at');
  t.same(findings(source), []);
});

t.test('the table has no row for nobody', async (t) => {
  t.same([...new Set([...source.keys()].map(areaOf))].sort(), Object.keys(arrows).sort());
  const imported = new Set([...source].flatMap(([path, text]) => [...importsOf(path, text)]));
  for (const [name, where] of Object.entries(packages))
    if (where.source !== '^$') t.ok(imported.has(name), `${name} is imported by somebody`);
  for (const { what, pattern, files } of names)
    for (const file of files)
      t.ok(pattern.test(withoutComments(source.get(file) ?? '')), `${file} holds ${what}`);
});

t.test('a planted import is found in every form', async (t) => {
  const target = '../teams/service.ts';
  const forms = [
    `import { teams } from '${target}';`,
    `import type { Team } from "${target}";`,
    `import { type Team } from '${target}'`,
    `import * as teams from '${target}';`,
    `import teams from '${target}';`,
    `import '${target}';`,
    `export { teams } from '${target}';`,
    `export * from '${target}';`,
    `export type { Team } from '${target}';`,
    `const m = await import('${target}');`,
    `type T = import('${target}').Team;`,
    `void import(/* why */ '${target}', {});`,
    `import {\n  teams,\n} from\n  '${target}';`,
    `import { teams } from /* a; 'b' */ '${target}';`,
    `import { teams } // why\n from // where\n '${target}';`,
    `import { 'odd name' as odd } from '${target}';`,
    `import{teams}from'${target}';`,
    `const a = 1; import/**/'${target}';`,
    `const m = await import(\`${target}\`);`,
    `const m = await import(name);`,
    `const m = require('${target}');`,
  ];
  for (const form of forms) {
    t.match(
      findingsOf('src/crypto/planted.ts', form),
      [/^src\/crypto\/planted\.ts: may not import (src\/teams\/service\.ts|computed)$/],
      form,
    );
  }
  for (const harmless of [
    `const text = "import";`,
    `// import { x } of something`,
    `export const from = 'elsewhere';`,
    `const importer = important('${target}');`,
  ]) {
    t.same(findingsOf('src/crypto/planted.ts', harmless), [], harmless);
  }
});

t.test('a planted violation of each rule is found', async (t) => {
  const planted: readonly (readonly [path: string, text: string])[] = [
    ['src/http/planted.ts', `import { record } from '../audit/record.ts';`],
    ['src/shared/planted.ts', `import type { Db } from '../db/client.ts';`],
    ['src/db/planted.ts', `import { Secret } from '../crypto/index.ts';`],
    ['src/teams/planted.ts', `import { Fernet } from '../crypto/fernet.ts';`],
    ['src/teams/planted.ts', `import { listCredentials } from '../credentials/repository.ts';`],
    ['src/teams/planted.ts', `import { buildApp } from '../app.ts';`],
    ['src/teams/planted.ts', `import { insert } from '../audit/repository.ts';`],
    ['src/teams/routes.ts', `import { insertTeam } from './repository.ts';`],
    ['src/keys/rotation-routes.ts', `import { insertRotation } from './repository.ts';`],
    ['src/integrity/planted.ts', `import { findKey } from '../keys/repository.ts';`],
    ['src/root-keys/planted.ts', `import { resealAll } from '../integrity/reseal.ts';`],
    ['src/teams/repository.ts', `import { z } from 'zod';`],
    ['src/teams/service.ts', `import type { FastifyRequest } from 'fastify';`],
    ['src/crypto/planted.ts', `import { readFileSync } from 'node:fs';`],
    ['src/crypto/planted.ts', `import { sql } from 'kysely';`],
    ['src/client/planted.ts', `import { newId } from '../shared/ids.ts';`],
    ['src/config/config.ts', `import { openDatabase } from '../db/client.ts';`],
    ['src/app.ts', `import { readConfig } from './config/config.ts';`],
    ['src/leases/planted.ts', `import got from 'got';`],
    ['src/leases/planted.ts', `import { spawn } from 'node:child_process';`],
    ['src/leases/planted.ts', `import { gone } from './gone.ts';`],
    ['src/leases/planted.ts', `const text = secret.expose();`],
    ['src/leases/planted.ts', `const { expose } = secret;`],
    ['src/leases/planted.ts', `const text = secret['expose']();`],
    ['src/leases/planted.ts', `createDecipheriv('aes-128-cbc', key, iv);`],
    ['src/leases/planted.ts', `const home = process.env['HOME'];`],
    ['src/leases/planted.ts', `const { env } = process;`],
    ['src/leases/planted.ts', `const p = globalThis['pro' + 'cess'];`],
    ['src/leases/planted.ts', `console.log(lease);`],
    ['src/leases/planted.ts', `const id = Math.random();`],
    ['src/leases/planted.ts', `import { Pool } from 'undici';`],
    ['src/leases/planted.ts', `import { checkServerIdentity } from 'node:tls';`],
    ['src/leases/planted.ts', `import { Egress } from '../egress/dial.ts';`],
    ['src/leases/planted.ts', `const answer = await fetch(url);`],
    ['src/leases/planted.ts', `const get = fetch;`],
    ['src/leases/planted.ts', `const socket = new WebSocket(url);`],
    ['src/http/planted.ts', `import { request } from 'node:http';`],
    ['src/http/planted.ts', `import { STATUS_CODES, get as ask } from 'node:http';`],
    ['src/http/planted.ts', `import * as http from 'node:http';`],
    ['src/http/planted.ts', `import { connect } from 'node:net';`],
    ['src/http/planted.ts', `import { type Server, Socket } from 'node:net';`],
    ['src/egress/planted.ts', `import { AppError } from '../http/problem.ts';`],
    ['src/config/config.ts', `import { Egress } from '../egress/index.ts';`],
    ['src/leases/planted.ts', `export default lease;`],
    ['src/leases/planted.ts', `db.selectFrom('lease').selectAll()`],
    ['src/leases/planted.ts', 'sql`delete from lease returning *`'],
    ['src/novel/planted.ts', 'export const x = 1;'],
  ];
  for (const [path, text] of planted) t.equal(findingsOf(path, text).length, 1, `${path} ${text}`);
});
