// The arrows of the house: who may import whom. A file outside the table, an arrow outside it, and
// a name in the wrong place fail here.
import { posix } from 'node:path';
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import { slugForm } from '../../src/shared/patterns.ts';
import { importsOf, sourceFiles, withoutComments } from '../helpers/source-files.ts';

const { dirname } = posix;

// ── the house ─────────────────────────────────────────────────────────────────────────────────────────────────────
// main → commands → { cli, serve, dev } → app → { integrity, features } → { http, audit, egress } →
// access → { crypto, db } → shared, never back.

const floor = ['crypto', 'db', 'shared'];
const features = [
  'audit-events',
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

/** Folders, and files beside them, each with all that it may import. */
const arrows: Readonly<Record<string, readonly string[]>> = {
  // the process
  'main.ts': ['commands.ts', 'log-output.ts', 'shared'],
  'log-output.ts': [],
  'commands.ts': ['config', 'serve.ts', 'openapi.ts', 'cli', 'dev', 'crypto', 'db', 'shared'],
  config: ['access', 'db', 'egress', 'shared'],
  dev: ['access', 'config', 'serve.ts', 'client', ...floor],
  cli: [
    ...['config', 'serve.ts', 'dev', 'integrity', 'credentials', 'engines', 'keys', 'oauth'],
    ...['audit', 'access', ...floor],
  ],
  'serve.ts': ['access', 'config', 'app.ts', 'keys', 'http', 'egress', ...floor],
  'openapi.ts': ['access', 'app.ts', 'http', 'egress', 'crypto', 'db'],
  'app.ts': [...features, 'integrity', 'audit', 'access', 'http', 'egress', ...floor],

  // the features
  integrity: [
    ...['broker', 'credentials', 'engines', 'keys', 'notifications', 'sharing'],
    ...['audit', 'access', 'crypto', 'db', 'shared'],
  ],
  'audit-events': ['audit', 'access', 'http', ...floor],
  broker: ['credentials', 'leases', 'oauth', 'audit', 'access', 'http', 'egress', ...floor],
  'connection-tests': [
    'broker',
    'credentials',
    'audit',
    'access',
    'http',
    'egress',
    'db',
    'shared',
  ],
  credentials: ['keys', 'audit', 'access', 'http', 'egress', ...floor],
  engines: ['audit', 'access', 'http', ...floor],
  exports: [
    ...['audit-events', 'credentials', 'keys', 'notifications', 'oauth'],
    ...['audit', 'access', 'http', ...floor],
  ],
  keys: ['audit', 'access', 'http', ...floor],
  leases: ['credentials', 'engines', 'oauth', 'audit', 'access', 'http', ...floor],
  notifications: [
    ...['credentials', 'keys', 'oauth', 'audit', 'access', 'http', 'egress'],
    ...floor,
  ],
  oauth: ['credentials', 'keys', 'audit', 'access', 'http', 'egress', ...floor],
  retention: ['audit', 'db', 'shared'],
  'root-keys': ['keys', 'audit', 'access', 'http', ...floor],
  sharing: ['credentials', 'keys', 'audit', 'access', 'http', ...floor],
  teams: ['audit', 'access', 'http', ...floor],

  // what they stand on
  audit: ['access', ...floor],
  http: ['access', ...floor],
  access: floor,
  egress: [],
  crypto: ['shared'],
  db: ['shared'],
  shared: [],
  client: [], // what an engine takes along: it stands alone
};

/** What of a feature speaks HTTP: nothing else of it, and nothing below it, knows that folder. */
const face = /\/(routes|[a-z]+-routes|schemas|[a-z]+-schemas|whoami|listener)\.ts$/;
const composition = new Set(['app.ts', 'serve.ts', 'openapi.ts', 'cli']);

/** Folders without a door: each of their files is a tool by itself. */
const open = new Set(['db', 'http', 'shared']);
/**
 * Folders of which statements elsewhere take SQL along, by a door of its own that is for
 * repositories only: who may do a thing, and that it is recorded, is asked and done in the one
 * statement that does it.
 */
const withSql = new Set(['access', 'audit', 'credentials', 'keys', 'leases']);
/** What takes SQL along beside files that are called repository. */
const repositories =
  /^src\/(.*repository\.ts|(.*\/)?sql\.ts|credentials\/health\.ts|exports\/kinds\.ts|integrity\/row-mac-tables\.ts|notifications\/(claims|due|event-mapping)\.ts|teams\/take-over\.ts)$/;
/** A declaration that hands out SQL: a fragment, a builder, or what makes them. */
const sqlTypes =
  /\b(RawBuilder|(Select)?QueryBuilder|ExpressionBuilder|Statement)\b|=>?\s*(sql|statement)\b/;
/** The one part of a layer that some may import. */
const narrow: Readonly<Record<string, RegExp>> = {
  'config egress': /^src\/egress\/allow\.ts$/,
  'config db': /^src\/db\/url\.ts$/,
  'config shared': /^src\/shared\/(growth|input-faults|patterns|shown-error|strict-json)\.ts$/,
};

/**
 * Packages and built-in modules, each with the files that may import it. What is not named here is
 * imported by nobody.
 */
const packages: Readonly<Record<string, RegExp>> = {
  fastify:
    /^src\/(http\/|[a-z-]+\/([a-z]+\/)?(routes|[a-z]+-routes|listener|whoami)\.ts$|app\.ts$)/,
  zod: /^src\/(config\/issuers\.ts$|http\/|shared\/(input-faults|refine)\.ts$|credentials\/types\/|[a-z-]+\/([a-z]+\/)?(routes|[a-z]+-routes|schemas|[a-z]+-schemas|whoami)\.ts$)/,
  '@fastify/jwt': /^src\/http\//,
  '@fastify/rate-limit': /^src\/http\//,
  'find-my-way': /^src\/http\/path-forms\.ts$/,
  kysely:
    /^src\/(db|access|http|audit|audit-events|broker|credentials|engines|exports|integrity|keys|leases|notifications|oauth|cli|retention|root-keys|sharing|teams)\/(?!(.*\/)?(routes|[a-z]+-routes|schemas|[a-z]+-schemas|whoami)\.ts)/,
  'kysely/migration': /^$/,
  pg: /^src\/(db|dev)\//,
  pino: /^src\/(log-output|commands|serve|app|openapi|broker\/listener)\.ts$|^src\/(dev|http)\//,
  jose: /^src\/(client|dev|cli)\//,
  '@smithy/signature-v4': /^src\/broker\/sigv4\.ts$/,
  yaml: /^src\/(openapi|cli\/import\/yaml)\.ts$/,
  oauth4webapi: /^src\/oauth\/provider\.ts$/,
  undici: /^src\/egress\//,
  'nodemailer/lib/smtp-connection': /^src\/connection-tests\/smtp\.ts$/,
  'node:async_hooks': /^src\/db\/effects\.ts$/,
  'node:buffer': /^src\/shared\/strict-json\.ts$/,
  'node:crypto': /^src\/(?!(main|commands)\.ts)/,
  'node:util': /^src\/(crypto|cli)\//,
  'node:net':
    /^src\/(config\/values\.ts$|http\/|egress\/|connection-tests\/|broker\/(answer|tunnel)\.ts$)/,
  'node:tls': /^src\/egress\//,
  'node:dns/promises': /^src\/egress\//,
  'node:http':
    /^src\/((http|dev)\/|egress\/upgrade\.ts$|broker\/(answer|body|handshake|proxy|watch|web-socket)\.ts$)/,
  'node:stream': /^src\/((broker|exports)\/|shared\/hang-up\.ts$)/,
  'node:zlib': /^src\/(oauth\/body|broker\/codings)\.ts$/,
  'node:fs': /^src\/(main\.ts$|db\/|dev\/|http\/docs\.ts$|cli\/(output|import\/input)\.ts$)/,
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
      'src/oauth/token-set.ts',
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
      'src/crypto/foreign.ts',
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
    files: ['src/egress/dial.ts', 'src/egress/upgrade.ts'],
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
    return face.test(path) && /[/-]repository\.ts$/.test(target) && from !== 'audit-events'
      ? 'goes round the service to'
      : undefined;
  if (arrows[from]?.includes(to) !== true) return 'may not import';
  if (to === 'http' && !composition.has(from) && !face.test(path)) return 'is no route and imports';
  const only = narrow[`${from} ${to}`];
  if (only !== undefined) return only.test(target) ? undefined : 'may not import';
  if (open.has(to) || !target.includes('/', 'src/'.length)) return undefined;
  if (withSql.has(to) && target === `src/${to}/sql.ts`)
    return repositories.test(path) ? undefined : 'is no repository and imports';
  return target === `src/${to}/index.ts` ? undefined : 'does not use the door of';
}

/** What the doors hand out that they should not: SQL, or more than names of their folder's files. */
function doorFaults(files: ReadonlyMap<string, string>): string[] {
  const found: string[] = [];
  for (const [path, text] of files) {
    if (!/^src\/[^/]+\/index\.ts$/.test(path)) continue;
    for (const [, names = '', target = ''] of text.matchAll(
      /^export (?:type )?\{([^}]*)\} from '(\.[^']+)';$/gm,
    )) {
      const origin = files.get(posix.join(dirname(path), target)) ?? '';
      for (const name of names.match(/(?<!\bas )\b(?!type\b|as\b)\w+/g) ?? [])
        if (sqlTypes.test(signatureOf(name, origin))) found.push(`${path}: hands out SQL, ${name}`);
    }
    if (/^export \*/m.test(text)) found.push(`${path}: hands out everything of a file`);
  }
  return found;
}

/** The declaration of a name, as far as it says what comes out; empty for classes and types. */
function signatureOf(name: string, text: string): string {
  const at = text.search(
    new RegExp(String.raw`^export (?:const|(?:async )?function\*?) ${name}\b`, 'm'),
  );
  if (at < 0) return '';
  const [declaration = ''] = text.slice(at).split(/\n\n|;\n(?=export|\/)/);
  if (declaration.startsWith('export const')) return declaration;
  const head = declaration.split('\n').find((line) => line.endsWith('{')) ?? '';
  return head.slice(head.lastIndexOf('):'));
}

/** Circles of imports, type-only ones included: between files, and between folders side by side. */
function circles(files: ReadonlyMap<string, string>): string[] {
  const ofFiles = new Map<string, Set<string>>();
  const ofFolders = new Map<string, Set<string>>();
  for (const [path, text] of files) {
    const targets = [...importsOf(path, text)].filter((name) => name.startsWith('src/'));
    ofFiles.set(path, new Set(targets));
    const folder = dirname(path);
    // A folder and what lies in it are one; what they may take of each other the doors say.
    const others = targets
      .map((target) => dirname(target))
      .filter(
        (other) => !`${other}/`.startsWith(`${folder}/`) && !`${folder}/`.startsWith(`${other}/`),
      );
    ofFolders.set(folder, new Set([...(ofFolders.get(folder) ?? []), ...others]));
  }
  return [...circlesIn(ofFiles), ...circlesIn(ofFolders)];
}

/** Each set of nodes that reach each other, in one line. */
function circlesIn(graph: ReadonlyMap<string, ReadonlySet<string>>): string[] {
  const reachable = new Map([...graph.keys()].map((node) => [node, reachableFrom(node, graph)]));
  const found = new Set<string>();
  for (const [node, others] of reachable) {
    if (!others.has(node)) continue;
    const circle = [...others].filter((other) => reachable.get(other)?.has(node) === true);
    found.add(circle.sort().join(' ⇄ '));
  }
  return [...found];
}

function reachableFrom(
  from: string,
  graph: ReadonlyMap<string, ReadonlySet<string>>,
): ReadonlySet<string> {
  const seen = new Set<string>();
  const open = [...(graph.get(from) ?? [])];
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (seen.has(next)) continue;
    seen.add(next);
    open.push(...(graph.get(next) ?? []));
  }
  return seen;
}

const source = sourceFiles('src');
const findingsOf = (path: string, text: string): string[] =>
  findings(new Map([...source, [path, text]])).filter((finding) => finding.startsWith(`${path}:`));

t.test('every import follows the arrows, and names stand only where they may', async (t) => {
  t.ok(source.size > 40, 'there is something to look at');
  t.same(findings(source), []);
});

t.test('doors hand out no SQL', async (t) => {
  t.same(doorFaults(source), []);
  t.ok([...source.keys()].filter((path) => path.endsWith('/index.ts')).length > 15, 'doors');
  const planted = (declaration: string, door = `export { held } from './planted.ts';`): string[] =>
    doorFaults(
      new Map([
        ...source,
        ['src/teams/index.ts', door],
        ['src/teams/planted.ts', `import { sql } from 'kysely';\n${declaration}\n`],
      ]),
    );
  for (const declaration of [
    'export const held: RawBuilder<number> = sql`1`;',
    'export const held = sql`1`;',
    'export const held = sql.raw(`1`);',
    'export const held = (id: TeamId): RawBuilder<boolean> => sql`true`;',
    'export const held = (\n  id: TeamId,\n): RawBuilder<boolean> =>\n  sql`true`;',
    'export function held(id: TeamId): RawBuilder<boolean> {\n  return sql`true`;\n}',
    "export function held(\n  db: Db,\n): SelectQueryBuilder<Tables, 'team', {}> {\n  return of(db);\n}",
    'export const held = statement<{ id: TeamId }, Row>((parameter) => sql`select 1`);',
  ])
    t.same(planted(declaration), ['src/teams/index.ts: hands out SQL, held'], declaration);
  for (const harmless of [
    'export async function held(trx: Trx, id: TeamId): Promise<Row> {\n  return sql`select 1`;\n}',
    'export interface held {\n  readonly id: RawBuilder<string>;\n}',
    'export const heldBesides = sql`1`;\nexport const held = 1;',
  ])
    t.same(planted(harmless), [], harmless);
  t.same(planted('', `export * from './planted.ts';`), [
    'src/teams/index.ts: hands out everything of a file',
  ]);
});

t.test('an exported name stands for one thing', async (t) => {
  const duplicates = (files: ReadonlyMap<string, string>): string[] => {
    const homes = new Map<string, Set<string>>();
    for (const [path, text] of files)
      for (const [, name = ''] of text.matchAll(
        /^export (?:async )?(?:abstract )?(?:const|let|function\*?|class|type|interface) (\w+)/gm,
      ))
        homes.set(name, (homes.get(name) ?? new Set()).add(path));
    return [...homes].flatMap(([name, paths]) => (paths.size > 1 ? [name] : [])).sort();
  };
  t.same(duplicates(source), []);
  const planted = duplicates(
    new Map([...source, ['src/db/a.ts', 'export class LeasesService {}']]),
  );
  t.ok(planted.includes('LeasesService'));
});

/** Switches over what has no end: text that anything may stand in. Each with what it is over. */
const openSwitches: Readonly<Record<string, string>> = {
  'src/http/json-schemas.ts': `schema['type']`,
  'src/notifications/event-mapping.ts': 'action',
};

function switchFaults(files: ReadonlyMap<string, string>): string[] {
  return [...files].flatMap(([path, text]) => {
    const code = withoutComments(text);
    const switches = [...code.matchAll(/\bswitch \((.+)\) \{/g)].map(([, over = '']) => over);
    const open = switches.filter((over) => openSwitches[path] === over).length;
    const count = (pattern: RegExp): number => [...code.matchAll(pattern)].length;
    return [
      ...(count(/\bsatisfies never\b/g) < switches.length - open
        ? [`${path}: a switch does not end in \`satisfies never\``]
        : []),
      ...(switches.length > 0 && count(/^\s*default: *(\{|$)/gm) > open
        ? [`${path}: a switch has a default`]
        : []),
    ];
  });
}

t.test('a pattern that several files ask for stands in one of them', async (t) => {
  // Short ones say the same by chance.
  const longMin = 17;
  const twice = (files: ReadonlyMap<string, string>): string[] => {
    const homes = new Map<string, Set<string>>();
    for (const [path, text] of files)
      for (const [pattern] of withoutComments(text).matchAll(
        /(?<=[(=,!:?&|]\s*)\/\^[^\n/]*(?:\\\/[^\n/]*)*\$\/[a-z]*/g,
      ))
        homes.set(pattern, (homes.get(pattern) ?? new Set()).add(path));
    return [...homes]
      .filter(([pattern, paths]) => paths.size > 1 && pattern.length >= longMin)
      .map(([pattern]) => pattern);
  };
  t.same(twice(source), []);
  t.same(twice(new Map([...source, ['src/teams/planted.ts', `const form = ${slugForm};`]])), [
    String(slugForm),
  ]);
});

t.test('a switch over a closed set does not compile without all of its members', async (t) => {
  t.same(switchFaults(source), []);
  for (const [path, over] of Object.entries(openSwitches))
    t.ok(source.get(path)?.includes(`switch (${over}) {`), `${path} is still open`);
  const planted = (text: string): string[] =>
    switchFaults(new Map([...source, ['src/teams/planted.ts', text]]));
  const cases = `switch (kind) {\n  case 'a':\n    return 1;\n`;
  t.equal(planted(`${cases}}`).length, 1);
  t.equal(planted(`${cases}  default:\n    return 2;\n}`).length, 2);
  t.equal(planted(`${cases}}\nthrow unknownMember(kind satisfies never);`).length, 0);
});

t.test('nothing goes round in a circle', async (t) => {
  t.same(circles(source), []);
  const planted = (files: Readonly<Record<string, string>>): string[] =>
    circles(new Map([...source, ...Object.entries(files)]));
  t.same(
    planted({
      'src/teams/a.ts': `import type { B } from './b.ts';`,
      'src/teams/b.ts': `export type { A } from './a.ts';`,
    }),
    ['src/teams/a.ts ⇄ src/teams/b.ts'],
    'of types alone',
  );
  t.same(
    planted({
      'src/credentials/types/a.ts': `import { sorts } from '../lists/sorts.ts';`,
      'src/credentials/lists/b.ts': `import type { CredentialType } from '../types/registry.ts';`,
    }),
    ['src/credentials/declared ⇄ src/credentials/lists ⇄ src/credentials/types'],
    'between folders, though not between files',
  );
});

t.test(
  'the table has no row for nobody',
  folded(async (t) => {
    t.same([...new Set([...source.keys()].map(areaOf))].sort(), Object.keys(arrows).sort());
    for (const [from, allowed] of Object.entries(arrows))
      for (const to of allowed)
        t.ok(
          [...source].some(
            ([path, text]) =>
              areaOf(path) === from &&
              [...importsOf(path, text)].some(
                (name) => name.startsWith('src/') && areaOf(name) === to,
              ),
          ),
          `${from} imports ${to}`,
        );
    const imported = new Set([...source].flatMap(([path, text]) => [...importsOf(path, text)]));
    for (const [name, where] of Object.entries(packages))
      if (where.source !== '^$') t.ok(imported.has(name), `${name} is imported by somebody`);
    for (const { what, pattern, files } of names)
      for (const file of files)
        t.ok(pattern.test(withoutComments(source.get(file) ?? '')), `${file} holds ${what}`);
  }),
);

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
    ['src/audit/planted.ts', `import { pageOf } from '../http/schemas.ts';`],
    ['src/audit/routes.ts', `import { pageOf } from '../http/schemas.ts';`],
    ['src/access/planted.ts', `import { pageOf } from '../http/schemas.ts';`],
    ['src/teams/planted.ts', `import { pageOf } from '../http/schemas.ts';`],
    ['src/teams/repository.ts', `import type { Operation } from '../http/operation.ts';`],
    ['src/leases/routes.ts', `import { TeamsService } from '../teams/index.ts';`],
    ['src/leases/planted.ts', `import { LeasesService } from '../credentials/service.ts';`],
    ['src/app.ts', `import { TeamsService } from './teams/service.ts';`],
    ['src/leases/service.ts', `import { grantsSql } from '../access/sql.ts';`],
    ['src/sharing/repository.ts', `import { grantsSql } from '../access/grants.ts';`],
    ['src/engines/repository.ts', `import { hasTokensSql } from '../keys/sql.ts';`],
    ['src/sharing/service.ts', `import { hasTokensSql } from '../keys/sql.ts';`],
    ['src/shared/planted.ts', `import type { Db } from '../db/client.ts';`],
    ['src/db/planted.ts', `import { Secret } from '../crypto/index.ts';`],
    ['src/teams/planted.ts', `import { Fernet } from '../crypto/fernet.ts';`],
    ['src/teams/planted.ts', `import { listCredentials } from '../credentials/repository.ts';`],
    ['src/teams/planted.ts', `import { buildApp } from '../app.ts';`],
    ['src/teams/planted.ts', `import { FailedLogIns } from '../audit/failed-log-ins.ts';`],
    ['src/teams/routes.ts', `import { insertTeam } from './repository.ts';`],
    ['src/keys/rotation-routes.ts', `import { insertRotation } from './rotation-repository.ts';`],
    ['src/keys/routes.ts', `import { updateKey } from './repository.ts';`],
    ['src/integrity/planted.ts', `import { findKey } from '../keys/repository.ts';`],
    [
      'src/root-keys/planted.ts',
      `import { recomputeRowMacs } from '../integrity/recompute-row-macs.ts';`,
    ],
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
