// What the documents say exists: files, anchors, configuration, commands, dependencies. The
// session of docs/quickstart.md is run by quickstart.test.ts.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, resolve } from 'node:path';
import t from 'tap';
import { folded } from '../helpers/folded.ts';
import { commands } from '../../src/commands.ts';
import { fileNames, names, readConfig } from '../../src/config/config.ts';

const root = resolve(import.meta.dirname, '../..');
const documents = [
  'README.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'CHANGELOG.md',
  ...readdirSync(join(root, 'docs'))
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];
const textOf = (path: string): string => readFileSync(join(root, path), 'utf8');
const manifest = JSON.parse(textOf('package.json')) as Record<
  'dependencies' | 'devDependencies' | 'optionalDependencies' | 'scripts',
  Record<string, string>
>;

/** A document without its code blocks. */
const proseOf = (path: string): string => textOf(path).replaceAll(/^ *```[\s\S]*?^ *```$/gm, '');
const sectionOf = (path: string, heading: string): string => {
  const [, section] = proseOf(path).split(`\n## ${heading}\n`);
  if (section === undefined) throw new Error(`${path} has no section ${heading}`);
  return section.split('\n## ')[0]!;
};
/** Anchors as the forge makes them. */
const anchorsOf = (path: string): Set<string> =>
  new Set(
    [...proseOf(path).matchAll(/^#{1,6} (.+)$/gm)].map(([, heading]) =>
      heading!
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );
/** The cells of a table's rows, without its head. */
const rowsOf = (section: string): string[][] =>
  section
    .split('\n')
    .filter((line) => line.startsWith('| `'))
    .map((line) =>
      line
        .slice(1, -1)
        .split('|')
        .map((cell) => cell.trim()),
    );
const codesIn = (text: string): string[] =>
  [...text.matchAll(/`([^`]+)`/g)].map(([, code]) => code!);

t.test(
  'every link leads to a file and a heading that exist',
  folded(async (t) => {
    let count = 0;
    for (const document of documents) {
      for (const [, target] of proseOf(document).matchAll(/\]\(([^)\s]+)\)/g)) {
        count += 1;
        const [path = '', anchor] = target!.split('#');
        if (/^https?:/.test(target!)) continue;
        const file = path === '' ? document : normalize(join(dirname(document), path));
        t.ok(existsSync(join(root, file)), `${document} → ${target}`);
        if (anchor !== undefined) t.ok(anchorsOf(file).has(anchor), `${document} → ${target}`);
      }
    }
    t.ok(count > 10, 'there are links');
  }),
);

t.test(
  'every path in backquotes exists',
  folded(async (t) => {
    for (const document of documents) {
      for (const code of codesIn(proseOf(document))) {
        if (!/^(src|test|docs|migrations|bench|vectors|\.ci)\/[\w./-]*$/.test(code)) continue;
        t.ok(existsSync(join(root, code)), `${document}: ${code}`);
      }
    }
  }),
);

t.test('every folder of the source is in CONTRIBUTING.md', async (t) => {
  const section = sectionOf('CONTRIBUTING.md', 'Where things go');
  for (const entry of readdirSync(join(root, 'src'), { withFileTypes: true }))
    if (entry.isDirectory()) t.ok(section.includes(`src/${entry.name}/`), entry.name);
});

t.test('the configuration table says what the vault reads, no more and no less', async (t) => {
  const rows = rowsOf(sectionOf('docs/configuration.md', 'Settings'));
  const said = rows.map(([name]) => codesIn(name!)[0]!);
  t.same([...said].sort(), [...names].sort());
  t.same(
    rows
      .filter(([name]) => name!.includes('†'))
      .map(([name]) => codesIn(name!)[0]!)
      .sort(),
    [...fileNames].sort(),
  );
  const defaults = Object.fromEntries(
    rows.map(([name, value]) => [codesIn(name!)[0]!, codesIn(value!)[0]]),
  );
  const { config } = readConfig({}, 'local', () => '');
  t.match(defaults, {
    HOST: config.host,
    PORT: String(config.port),
    LOG_LEVEL: config.logLevel,
    CREDVAULT_DATA_DIR: config.dataFolder,
    CREDVAULT_TOKEN_FORMAT: config.tokenFormat,
    CREDVAULT_POOL_SIZE: String(config.poolMax),
    CREDVAULT_NAMED_STATEMENTS: config.namedStatements ? 'on' : 'off',
    CREDVAULT_RATE_LIMIT_ADDRESS: String(config.rateLimits.address),
    CREDVAULT_RATE_LIMIT_SUBJECT: String(config.rateLimits.subject),
    CREDVAULT_CREDENTIALS_MAX: String(config.growthLimits.credentials),
    CREDVAULT_CIPHERTEXT_BYTES_MAX: String(config.growthLimits.ciphertextBytes),
    CREDVAULT_MEMBERS_MAX: String(config.growthLimits.members),
    CREDVAULT_AUTHORIZATIONS_MAX: String(config.growthLimits.authorizations),
    CREDVAULT_GRANTS_MAX: String(config.growthLimits.grants),
    CREDVAULT_KEYS_MAX: String(config.growthLimits.keys),
  });
});

t.test(
  'no document names a configuration that the vault does not know',
  folded(async (t) => {
    const known = new Set([...names, ...[...fileNames].map((name) => `${name}_FILE`)]);
    for (const document of documents)
      for (const [name] of textOf(document).matchAll(/\bCREDVAULT_[A-Z_]+[A-Z]/g))
        t.ok(known.has(name), `${document}: ${name}`);
  }),
);

t.test('every command in a document exists', async (t) => {
  const found = documents.flatMap((document) =>
    [...textOf(document).matchAll(/npm run -s vault -- ([\w-]+)/g)].map(([, name]) => name!),
  );
  for (const name of found) t.ok(Object.hasOwn(commands, name), name);
  t.ok(new Set(found).size >= 4, 'there are commands');
  for (const document of documents) {
    for (const [, name] of textOf(document).matchAll(/npm run (?:-s )?([a-z][\w:-]*)/g))
      t.ok(Object.hasOwn(manifest.scripts, name!), `${document}: npm run ${name}`);
  }
});

t.test('the version is the same wherever it stands', async (t) => {
  const { version } = JSON.parse(textOf('package.json')) as { version: string };
  const lock = JSON.parse(textOf('package-lock.json')) as {
    version: string;
    packages: Record<string, { version?: string }>;
  };
  t.same([lock.version, lock.packages['']?.version], [version, version], 'package-lock.json');
  t.match(textOf('openapi.yaml'), `\n version: ${version}\n`, 'openapi.yaml');
  t.match(textOf('CHANGELOG.md'), `\n## [${version}]`, 'CHANGELOG.md');
});

t.test('every dependency has its reason, and every reason its dependency', async (t) => {
  const installed = Object.keys({
    ...manifest.dependencies,
    ...manifest.devDependencies,
    ...manifest.optionalDependencies,
  });
  const rows = rowsOf(sectionOf('docs/decisions.md', 'Dependencies'));
  t.same(rows.flatMap(([packages]) => codesIn(packages!)).sort(), installed.sort());
  for (const [packages, why] of rows) t.ok(why!.length > 10, packages!);
});

t.test('decisions are numbered without gaps, and references among them hold', async (t) => {
  const text = textOf('docs/decisions.md');
  const numbers = [...text.matchAll(/^\*\*(\d+)\. /gm)].map(([, number]) => Number(number));
  t.same(
    numbers,
    numbers.map((_, index) => index + 1),
  );
  for (const [, number] of text.matchAll(/\((\d{1,2})\)/g))
    t.ok(numbers.includes(Number(number)), number!);
});
