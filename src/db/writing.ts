// Whether a statement changes something, by its text alone: asked where a connection was lost under
// it and nobody can say any more whether it was carried out. What is not certain to be a read may
// have written.

/**
 * Functions of the database that change nothing that stays. What stands here is asked of the
 * database by a test: none of them may be volatile but those that the test names with their reason.
 */
export const harmlessFunctions: ReadonlySet<string> = new Set([
  'abs',
  'array_position',
  'array_remove',
  'array_to_string',
  'bool_or',
  'concat',
  'count',
  'current_schema',
  'current_setting',
  'data_key_queue',
  'encode',
  'extract',
  'get_byte',
  'hashtext',
  'jsonb_agg',
  'jsonb_build_object',
  'jsonb_object_agg',
  'label_bits',
  'left',
  'length',
  'make_interval',
  'max',
  'min',
  'now',
  'octet_length',
  'pg_advisory_xact_lock',
  'pg_advisory_xact_lock_shared',
  'pg_current_snapshot',
  'pg_current_wal_insert_lsn',
  'pg_get_expr',
  'pg_is_in_recovery',
  'pg_sleep',
  'pg_snapshot_xmax',
  'pg_snapshot_xmin',
  'pg_walfile_name',
  'quote_ident',
  'round',
  'sum',
  'to_char',
  'to_regclass',
  'unnest',
  'vault_now',
]);

/**
 * Words of the language, or types, that a parenthesis may follow without a function being called.
 */
const parenthesised: ReadonlySet<string> = new Set([
  'all',
  'and',
  'any',
  'array',
  'as',
  'between',
  'by',
  'case',
  'cast',
  'coalesce',
  'distinct',
  'else',
  'end',
  'except',
  'exists',
  'filter',
  'from',
  'greatest',
  'having',
  'in',
  'intersect',
  'is',
  'join',
  'lateral',
  'least',
  'limit',
  'materialized',
  'not',
  'nullif',
  'numeric',
  'offset',
  'on',
  'or',
  'over',
  'row',
  'select',
  'some',
  'then',
  'union',
  'using',
  'values',
  'when',
  'where',
  'within',
]);

/** What a statement that only reads, or only frames a transaction, begins with. */
const openings: ReadonlySet<string> = new Set([
  'begin',
  'release',
  'rollback',
  'savepoint',
  'select',
  'show',
  'start',
  'table',
  'values',
  'with',
]);

const changes = /\b(insert|update|delete|merge)\b/;
const otherChanges = new RegExp(
  String.raw`\b(alter|call|cluster|comment|commit|copy|create|deallocate|discard|do|drop|` +
    'execute|grant|import|into|listen|load|lock|notify|prepare|reassign|refresh|' +
    String.raw`reindex|reset|revoke|security|set|truncate|unlisten|vacuum)\b`,
);
const rowLocks = /\bfor\s+(?:no\s+key\s+)?update\b|\bfor\s+(?:key\s+)?share\b/g;

/** Literals, quoted names, comments: none of their words is one of the language. */
const quoted = new RegExp(
  String.raw`--[^\n]*|\/\*[\s\S]*?\*\/|\$([A-Za-z_]\w*)?\$[\s\S]*?\$\1\$|[eE]'(?:[^'\\]|` +
    String.raw`\\[\s\S]|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"`,
  'g',
);

/**
 * Whether the statement may have changed something if it was carried out. False only for what is
 * certain to read.
 */
export function mayWrite(text: string): boolean {
  const bare = bareOf(text);
  // A comment inside a comment, a quote left open, a second statement: nothing that the vault
  // sends.
  if (/['"]|\/\*|\*\/|;\s*\S/.test(bare)) return true;
  if (!openings.has(/^[\s(]*([a-z]+)/.exec(bare)?.[1] ?? '')) return true;
  const withoutLocks = bare.replace(rowLocks, ' ');
  if (changes.test(withoutLocks) || otherChanges.test(withoutLocks)) return true;
  for (const [, before, name] of bare.matchAll(calls)) {
    if (parenthesised.has(name ?? '') || harmlessFunctions.has(name ?? '')) continue;
    if (before !== 'as') return true; // `as delta (id, count)` names columns
  }
  return false;
}

const calls = /(?:\b(as)\s+)?([a-z_][\w.$]*)\s*\(/g;

/**
 * Whether the statement took part in the database's log, and its commit so waits for the
 * synchronous standby, when it came back with rows: it changed or locked them. False where that is
 * not certain.
 */
export function writesWhereItFinds(text: string): boolean {
  const bare = bareOf(text);
  return changes.test(bare) || bare.search(rowLocks) >= 0;
}

const bareOf = (text: string): string =>
  text.replace(quoted, (piece) => (piece.startsWith('"') ? ` quoted_name ` : ' ')).toLowerCase();
