// What somebody who writes to the database can put into a column: read from the schema as it is, so
// that a column which is added is tampered with too.
import { createHash } from 'node:crypto';
import { sql } from 'kysely';
import type { Db } from '../../src/db/client.ts';
import { intrude, storedColumns } from './intruder.ts';
import { evilHost } from './tampered-stage.ts';

export interface Column {
  readonly table: string;
  readonly name: string;
  /** As PostgreSQL writes it, such as `timestamp with time zone`. */
  readonly type: string;
  readonly isNullable: boolean;
  /** The columns of the table's primary key. */
  readonly key: readonly string[];
  /** The words that a constraint knew for it. */
  readonly words: readonly string[];
}
/** One value for one column of one row, and whether an answer could say it at all. */
export interface Tampering {
  readonly name: string;
  /** The value as PostgreSQL reads it; null for null. */
  readonly value: string | null;
  readonly isUnsayable?: true;
}
export interface Row {
  readonly key: readonly string[];
  /** The value as PostgreSQL writes it. */
  readonly value: string | null;
  /** The ids in the row that name it: its own, and those of what it is about. */
  readonly ids: readonly string[];
}

/** Every column of every table but the list of migrations, each with its primary key. */
export async function listColumns(db: Db): Promise<Column[]> {
  const { rows } = await sql<Omit<Column, 'words'> & { checks: string[] }>`
    select relname as "table", attname as name, format_type(atttypid, atttypmod) as type, not attnotnull as "isNullable",
      array(select attname::text from pg_attribute keyed where keyed.attrelid = pg_class.oid and keyed.attnum = any (conkey) order by array_position(conkey, keyed.attnum)) as key,
      array(select pg_get_constraintdef(oid) from pg_constraint checks where checks.conrelid = pg_class.oid and contype = 'c' and attnum = any (checks.conkey)) as checks
    from pg_attribute join pg_class on pg_class.oid = attrelid join pg_constraint on conrelid = pg_class.oid and contype = 'p'
    where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition and attnum > 0 and not attisdropped and attgenerated = '' and relname <> 'schema_migration'
    order by relname, attnum`.execute(db);
  return rows.map(({ checks, ...column }) => ({
    ...column,
    words: [
      ...new Set(
        checks.flatMap((text) => [...text.matchAll(/'([^']*)'::text/g)].map(([, word]) => word!)),
      ),
    ],
  }));
}

/** Drops what forbids values: whoever writes to the database past the service can do that too. */
export async function dropChecks(db: Db): Promise<void> {
  const { rows } = await sql<{ statement: string }>`
    select format('alter table %s drop constraint %I', conrelid::regclass, conname) as statement from pg_constraint
    where connamespace = 'public'::regnamespace and contype = 'c' and not coninhcount > 0 and conrelid <> 0`.execute(
    db,
  );
  for (const { statement } of rows) await sql.raw(statement).execute(db);
}

const unsayableTimes = [
  'infinity',
  '-infinity',
  '0044-03-15 12:00:00+00 BC',
  '294276-12-31 23:59:59+00',
];
const nobody = '00000000-0000-0000-0000-000000000000';
const stranger = '5f0c2f0e-6c1b-4f5a-9d0c-3a5f1c1d9e77';

/** What can be put into the column of a row, beside the values of other rows. */
export function tamperingsOf(
  column: Column,
  row: Row,
  others: readonly (string | null)[],
): Tampering[] {
  const made = [
    ...ofType(column, row.value),
    ...column.words.map((word) => ({ name: `the word ${word}`, value: wordOf(column, word) })),
    ...others.slice(0, 2).map((value, index) => ({ name: `of another row ${index + 1}`, value })),
    ...(column.isNullable ? [{ name: 'null', value: null }] : []),
  ];
  return made.filter(({ value }) => value !== row.value);
}

const wordOf = ({ type }: Column, word: string): string =>
  type.endsWith('[]') ? `{${word}}` : word;

function ofType({ type, words }: Column, value: string | null): Tampering[] {
  if (type.endsWith('[]')) return ofArray(type, words, value);
  switch (type) {
    case 'timestamp with time zone':
      return [
        ...unsayableTimes.map(
          (time): Tampering => ({ name: time, value: time, isUnsayable: true }),
        ),
        ...['1999-01-01 00:00:00+00', '2099-01-01 00:00:00+00'].map((time) => ({
          name: time,
          value: time,
        })),
      ];
    case 'integer':
      return numbers(['-1', '0', '1', '2147483647'], value);
    case 'bigint':
      return numbers(['-1', '0', '9007199254740993', '9223372036854775807'], value);
    case 'boolean':
      return [{ name: 'the opposite', value: value === 't' || value === 'true' ? 'f' : 't' }];
    case 'uuid':
      return [nobody, stranger].map((id) => ({ name: id, value: id }));
    case 'bytea':
      return ofBytes(value ?? '\\x00');
    case 'jsonb':
      return ofJson(value ?? '{}');
    case 'text':
      return ofText(value ?? '');
    default:
      throw new Error(`nobody has said how to tamper with ${type}`);
  }
}

const numbers = (values: readonly string[], value: string | null): Tampering[] =>
  [...values, String(Number(value ?? 0) + 1)].map((each) => ({ name: each, value: each }));

function ofText(value: string): Tampering[] {
  const middle = Math.floor(value.length / 2);
  return [
    { name: 'empty', value: '' },
    { name: 'long', value: 'x'.repeat(5_000) },
    { name: 'control characters', value: 'a\nb\u0007', isUnsayable: true },
    { name: 'a host', value: evilHost },
    { name: 'an address', value: `https://${evilHost}/` },
    { name: 'longer', value: `${value}x` },
    {
      name: 'one character',
      value: `${value.slice(0, middle)}${value[middle] === 'A' ? 'B' : 'A'}${value.slice(middle + 1)}`,
    },
  ];
}

function ofBytes(value: string): Tampering[] {
  const bytes = Buffer.from(value.slice(2), 'hex');
  const flip = (at: number): string => {
    const other = Buffer.from(bytes);
    if (other.length > 0) other[at] = other[at]! ^ 1;
    return `\\x${other.toString('hex')}`;
  };
  return [
    { name: 'empty', value: '\\x' },
    { name: 'the first bit', value: flip(0) },
    { name: 'the last bit', value: flip(bytes.length - 1) },
    { name: 'zeros', value: `\\x${'00'.repeat(bytes.length)}` },
    { name: 'half of it', value: `\\x${bytes.subarray(0, bytes.length / 2).toString('hex')}` },
  ];
}

function ofJson(value: string): Tampering[] {
  const whole: unknown = JSON.parse(value);
  const members =
    typeof whole === 'object' && whole !== null && !Array.isArray(whole)
      ? (whole as Record<string, unknown>)
      : {};
  const each = (of: (member: unknown) => unknown): string =>
    JSON.stringify(
      Object.fromEntries(Object.entries(members).map(([name, member]) => [name, of(member)])),
    );
  return [
    ...['null', '[]', '"x"', '{}', '17', '[{}]'].map((shape) => ({ name: shape, value: shape })),
    {
      name: 'a number without end',
      value: `{"expires":1e400,${value.slice(1)}`.replace(',}', '}'),
    },
    { name: 'hosts', value: each((member) => planted(member)) },
    {
      name: 'members of another type',
      value: each((member) => (typeof member === 'string' ? { x: 1 } : 'x')),
    },
    {
      name: 'one member more',
      value: JSON.stringify({ ...members, host: evilHost, allowedHosts: [evilHost] }),
    },
    {
      name: 'one member less',
      value: JSON.stringify(Object.fromEntries(Object.entries(members).slice(1))),
    },
    { name: 'more ways', value: JSON.stringify({ ...members, delivery: ['lease', 'broker'] }) },
  ];
}

/** The same with another host in it, wherever one may be. */
function planted(value: unknown): unknown {
  if (typeof value === 'string')
    return value.startsWith('https://')
      ? value.replace(/^https:\/\/[^/]*/, `https://${evilHost}`)
      : evilHost;
  return Array.isArray(value) ? [evilHost] : value;
}

function ofArray(type: string, words: readonly string[], value: string | null): Tampering[] {
  const members = (value ?? '{}')
    .slice(1, -1)
    .split(',')
    .filter((member) => member !== '');
  const [one, two] = type === 'uuid[]' ? [nobody, stranger] : ['evil', evilHost];
  return [
    { name: 'none', value: '{}' },
    { name: 'null in it', value: '{NULL}', isUnsayable: true },
    { name: 'of two dimensions', value: `{{${one},${two}},{${two},${one}}}`, isUnsayable: true },
    { name: 'one more', value: `{${[...members, one].join(',')}}` },
    { name: 'twice', value: `{${[...members, ...members].join(',')}}` },
    { name: 'one less', value: `{${members.slice(1).join(',')}}` },
    { name: 'every word', value: `{${words.join(',')}}` },
  ];
}

/** Of whom a row is, and what says nothing of which row it is. */
const namesNothing =
  /^(team_id|to_team_id|grantee_team_id|actor_id|key_id|version|at|method|route|key_hash|.*_by)$/;

/** The rows of a column's table, in the order of their keys. */
export async function listRows(db: Db, { table, name, key }: Column): Promise<Row[]> {
  const { rows: columns } = await sql<{ name: string }>`
    select attname as name from pg_attribute where attrelid = ${table}::regclass and atttypid = 'uuid'::regtype and attnum > 0`.execute(
    db,
  );
  const ids = [...new Set([...columns.map((each) => each.name), ...key])].filter(
    (each) => table === 'team' || !namesNothing.test(each),
  );
  const text = (names: readonly string[]) =>
    sql`array[${sql.join(names.map((each) => sql`${sql.ref(each)}::text`))}]::text[]`;
  const { rows } = await sql<Row>`
    select ${text(key)} as key, ${sql.ref(name)}::text as value, ${ids.length === 0 ? sql`array[]::text[]` : text(ids)} as ids
    from ${sql.table(table)} order by ${sql.join(key.map((each) => sql.ref(each)))}`.execute(db);
  return rows;
}

/**
 * Puts the value into the row, past triggers and foreign keys or not; false where the database does
 * not take it.
 */
export async function tamper(
  db: Db,
  column: Column,
  row: Row,
  { value }: Tampering,
  { isPastTriggers = true }: { isPastTriggers?: boolean } = {},
): Promise<boolean> {
  const where = column.key
    .map((name, index) => `${name}::text = ${quoted(row.key[index]!)}`)
    .join(' and ');
  const statement = `update ${column.table} set ${column.name} = ${value === null ? 'null' : `${quoted(value)}::${column.type}`} where ${where}`;
  try {
    await (isPastTriggers ? intrude(db, statement) : sql.raw(statement).execute(db));
    return true;
  } catch (error) {
    if (isRefusal(error)) return false;
    throw error;
  }
}

/** Whether the row is still there with the value that was planted. */
export async function isStillPlanted(
  db: Db,
  column: Column,
  row: Row,
  tampering: Tampering,
): Promise<boolean> {
  const key = column.key.map((name, index) =>
    name === column.name ? tampering.value : row.key[index]!,
  );
  const { rows } = await sql`
    select 1 from ${sql.table(column.table)} where ${sql.join(
      column.key.map((name, index) =>
        name === column.name
          ? sql`${sql.ref(name)} = ${key[index]}::${sql.raw(column.type)}`
          : sql`${sql.ref(name)}::text = ${key[index]}`,
      ),
      sql` and `,
    )} and ${sql.ref(column.name)} is not distinct from ${tampering.value}::${sql.raw(column.type)}`.execute(
    db,
  );
  return rows.length > 0;
}

const quoted = (text: string): string => `'${text.replaceAll("'", "''")}'`;
/** A value that the type cannot hold, a unique index or a column that must not be null. */
const isRefusal = (error: unknown): boolean =>
  /^(22|23)/.test(String((error as { code?: string }).code));

/** Keeps a copy of every table; what it returns puts all of it back. */
export async function keepTables(db: Db, tables: readonly string[]): Promise<() => Promise<void>> {
  await sql.raw('create schema kept').execute(db);
  const statements: string[] = [];
  for (const table of tables) {
    await sql.raw(`create table kept.${table} as table public.${table}`).execute(db);
    const columns = await storedColumns(db, table);
    statements.push(
      `delete from public.${table}; insert into public.${table} (${columns}) select ${columns} from kept.${table}`,
    );
  }
  return () => intrude(db, `begin; ${statements.join('; ')}; commit`);
}

/** A number below `max` that stays the same from run to run. */
export const hashOf = (text: string, max: number): number =>
  createHash('sha256').update(text).digest().readUInt32BE(0) % max;
