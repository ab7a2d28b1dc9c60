// Every table that holds ciphertexts has a descriptor, and is as a descriptor promises. Both are
// read from the committed dump of the schema, which another test compares with the migrations.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { ciphertextTables } from '../../src/keys/tables/list.ts';
import type { CiphertextTable } from '../../src/keys/tables/table.ts';

const dump = readFileSync(join(import.meta.dirname, '../../docs/schema.sql'), 'utf8');
const names = ciphertextTables.map(({ name }) => name).sort();

interface Table {
  readonly name: string;
  readonly columns: readonly string[];
  readonly constraints: readonly string[];
}

function tablesOf(schema: string): Table[] {
  return [...schema.matchAll(/^create table (\w+) \(\n(.*?)\n\)/gms)].map(
    ([, name = '', body = '']) => {
      const lines = body.split('\n').map((line) => line.trim().replace(/,$/, ''));
      return {
        name,
        columns: lines.filter((line) => !line.startsWith('constraint ')),
        constraints: lines.filter((line) => line.startsWith('constraint ')),
      };
    },
  );
}

/** The tables of a dump with a column that a ciphertext lies in, or the key of one. */
function withCiphertexts(schema: string): string[] {
  return tablesOf(schema)
    .filter(
      ({ columns, constraints }) =>
        columns.some((line) => /^(\w*_)?(token|ciphertext) (text|bytea)\b/.test(line)) ||
        columns.some((line) => /^(\w+_)?data_key_id uuid\b/.test(line)) ||
        constraints.some((line) => line.includes('gAAAA')),
    )
    .map(({ name }) => name)
    .sort();
}

t.test(
  'every table with a ciphertext has a descriptor, and every descriptor a table',
  async (t) => {
    t.ok(tablesOf(dump).length > 20, 'tables are seen');
    t.same(
      withCiphertexts(dump),
      names,
      'write a descriptor beside src/keys/tables/list.ts and name it there',
    );
    for (const column of [
      'token text not null',
      'client_token text',
      'ciphertext bytea',
      'data_key_id uuid not null',
      `secret text,\n  constraint planted_form CHECK (secret ~ '^(gAAAA|QQAAA)'::text)`,
    ])
      t.ok(
        withCiphertexts(
          `${dump}\ncreate table planted (\n  id uuid not null,\n  ${column}\n);\n`,
        ).includes('planted'),
        `one with ${column} would be missed`,
      );
    t.notOk(
      withCiphertexts(`create table planted (\n  token_hash bytea\n);\n`).includes('planted'),
    );
  },
);

/** What a table lacks of what the walkers of all tables rely on. */
function faultsOf(descriptor: CiphertextTable, schema: string): string[] {
  const { name, rows, number, binding, failures, transfer } = descriptor;
  const all = tablesOf(schema);
  const columnsOf = (table: string): string[] =>
    (all.find((each) => each.name === table)?.columns ?? []).map(
      (line) => line.split(' ')[0] ?? '',
    );
  const lacks = (table: string, columns: readonly (string | undefined)[]): string[] =>
    columns.flatMap((column) =>
      column === undefined || columnsOf(table).includes(column) ? [] : [`${table}.${column}`],
    );
  const isNumbered = rows === 'versions';
  const expected: readonly (readonly [string, RegExp])[] = [
    [
      'its key in the order of the walk',
      new RegExp(
        `constraint ${name}_pkey PRIMARY KEY \\(${isNumbered ? `team_id, credential_id, ${number}` : 'credential_id'}\\)`,
      ),
    ],
    [
      'an end with its credential, and a way to follow it',
      new RegExp(
        `constraint ${name}_credential_fkey FOREIGN KEY \\(team_id, credential_id\\) REFERENCES credential\\(team_id, id\\) ON DELETE CASCADE DEFERRABLE`,
      ),
    ],
    [
      'a key of its own team',
      new RegExp(
        `constraint ${name}_data_key_fkey FOREIGN KEY \\(team_id, data_key_id\\) REFERENCES data_key\\(team_id, id\\)`,
      ),
    ],
    ['the form of a token', new RegExp(`constraint ${name}_token_form CHECK`)],
    [
      'an index for rotations',
      new RegExp(
        `create index \\w+ ON ${name} USING btree \\(data_key_id, credential_id${isNumbered ? `, ${number}` : ''}\\)`,
      ),
    ],
    [
      'a trigger that refuses tokens under other keys than the active one',
      new RegExp(
        `create trigger token_needs_active_key BEFORE INSERT OR UPDATE OF token, data_key_id ON ${name} `,
      ),
    ],
    [
      'a place among what keeps a key from being retired',
      new RegExp(
        `new\\.state in \\('retired', 'destroyed'\\) and \\([^;]*exists \\(select 1 from ${name} where data_key_id = new\\.id\\)`,
      ),
    ],
  ];
  return [
    ...lacks(name, [
      ...['team_id', 'credential_id', 'data_key_id', 'token', 'key_history', number],
      ...[binding.publicFields, binding.policy, binding.secretFields],
      transfer.busyUntil?.column,
    ]),
    ...lacks(failures, [
      ...['rotation_id', 'credential_id', 'at'],
      ...(isNumbered ? ['team_id', number] : []),
    ]),
    ...expected.flatMap(([what, pattern]) => (pattern.test(schema) ? [] : [`${name}: ${what}`])),
  ];
}

t.test('every table is as its descriptor promises', async (t) => {
  for (const descriptor of ciphertextTables) {
    t.same(faultsOf(descriptor, dump), [], descriptor.name);
    t.ok(
      faultsOf(descriptor, dump.replaceAll(descriptor.name, 'elsewhere')).length >= 7,
      `what ${descriptor.name} lacks would be seen`,
    );
  }
  const distinct = (values: readonly string[]): boolean => new Set(values).size === values.length;
  t.ok(distinct(ciphertextTables.map(({ binding }) => binding.typeSuffix)), 'bound differently');
  t.ok(distinct(ciphertextTables.map(({ failures }) => failures)), 'failures apart');
  t.equal(
    ciphertextTables.filter(({ rows }) => rows === 'versions').length,
    1,
    'one table is that of the versions',
  );
});
