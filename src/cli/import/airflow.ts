// Connections of Airflow: rows of its database, what its command exports, and what its environment
// and its local files hold.
import { fernetKey, looksLikeToken, openForeignToken } from '../../crypto/index.ts';
import { JsonRefused } from '../../shared/strict-json.ts';
import { OptionsUnfit } from '../target.ts';
import { connectionOfUri, UriUnfit } from './airflow-uri.ts';
import { variablesOf } from './dotenv.ts';
import { flagOf, type Foreign, isAbsent, ruleOf, wholeText } from './foreign.ts';
import type { TextFile } from './input.ts';
import { entriesOf, isMembers, NotJson, parseExact } from './json-entries.ts';
import { readYaml, YamlUnfit } from './yaml.ts';

/** The connections of a file, in whichever of the forms it is. */
export function* airflowConnections(file: TextFile, key: string | undefined): Generator<Foreign> {
  const keys = (key ?? '')
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== '')
    .map((part) => {
      const read = fernetKey(part);
      if (read === undefined)
        throw new OptionsUnfit('--key-file must hold Fernet keys, the newest first');
      return read;
    });
  const form = formOf(file);
  if (form === 'json') yield* fromJson(file, keys);
  else if (form === 'env') yield* fromEnv(file);
  else yield* fromYaml(file, keys);
}

function* fromYaml(file: TextFile, keys: readonly Buffer[]): Generator<Foreign> {
  for (const { key, value } of readYaml(file.text())) {
    let given: unknown;
    try {
      given = value();
    } catch (error) {
      if (!(error instanceof YamlUnfit)) throw error;
      yield faulty(key, `yaml (${error.message})`);
      continue;
    }
    yield connectionOf(key, given, keys);
  }
}

/** By the name, as Airflow does; else by the first line that says something. */
function formOf({ name, text }: TextFile): 'json' | 'yaml' | 'env' {
  const ending = /\.(json|ya?ml|env)$/i.exec(name)?.[1]?.toLowerCase();
  if (ending === 'json' || ending === 'env') return ending;
  if (ending !== undefined) return 'yaml';
  let head = '';
  for (const piece of text()) {
    head += piece;
    if (head.length > 64 * 1024) break;
  }
  const [line = ''] = head.split(/\r?\n/).filter((each) => !/^\s*(?:#.*)?$/.test(each));
  if (/^\s*[[{]/.test(line)) return 'json';
  return /^\s*(?:export\s+)?[\w.-]+=/.test(line) ? 'env' : 'yaml';
}

function* fromJson(file: TextFile, keys: readonly Buffer[]): Generator<Foreign> {
  let index = 0;
  for (const { key, text } of entriesOf(file.text())) {
    index += 1;
    const fallback = key ?? `connection ${index}`;
    if (text === undefined) {
      yield faulty(fallback, 'tooLong');
      continue;
    }
    let value: unknown;
    try {
      value = parseExact(text);
    } catch (error) {
      if (!(error instanceof JsonRefused)) throw error;
      yield faulty(fallback, ruleOf(error));
      continue;
    }
    const id = key ?? (isMembers(value) ? wholeText(value['conn_id']) : undefined) ?? fallback;
    yield connectionOf(id, value, keys);
  }
}

function* fromEnv(file: TextFile): Generator<Foreign> {
  for (const { line, name, value, fault, raw } of variablesOf(file.text())) {
    const id = name?.replace(/^AIRFLOW_CONN_(.+)$/, (_, rest: string) => rest.toLowerCase());
    // Airflow's own reader of such files takes a line as it is.
    const isRaw = fault !== undefined && raw !== undefined;
    if (id === undefined || (fault !== undefined && !isRaw))
      yield faulty(id ?? `line ${line}`, fault ?? 'unreadable');
    else if ((isRaw ? raw : value) === '') yield { id, name: id, type: '', data: {} };
    else yield ofText(id, isRaw ? raw : value);
  }
}

/** A connection as JSON or as a URI. */
function ofText(id: string, text: string): Foreign {
  if (!/^\s*\{/.test(text)) return connectionOf(id, text, []);
  try {
    return connectionOf(id, parseExact(text), []);
  } catch (error) {
    if (error instanceof JsonRefused) return faulty(id, ruleOf(error));
    if (error instanceof NotJson) return faulty(id, 'noJson');
    throw error;
  }
}

function connectionOf(id: string, given: unknown, keys: readonly Buffer[]): Foreign {
  const value: unknown = Array.isArray(given) && given.length === 1 ? given[0] : given;
  if (typeof value === 'string') {
    try {
      const { type, data, extra } = connectionOfUri(value);
      return { id, name: id, type, data: { ...data, ...flat(extra) } };
    } catch (error) {
      if (error instanceof UriUnfit) return faulty(id, `uri (${error.message})`);
      if (error instanceof JsonRefused) return faulty(id, ruleOf(error));
      throw error;
    }
  }
  if (!isMembers(value)) return faulty(id, 'no connection');
  const {
    conn_id: ownId,
    conn_type: type,
    description: _description,
    id: _row,
    is_encrypted: hasPassword,
    is_extra_encrypted: hasExtra,
    get_uri: printedUri,
    extra_dejson: printedExtra,
    ...rest
  } = value;
  if (wholeText(ownId) !== undefined && wholeText(ownId) !== id) return faulty(id, 'two conn_id');
  // What `connections list` prints is opened already, whatever its columns say of the database.
  const isPrinted = printedUri !== undefined;
  if (printedExtra !== undefined && !isAbsent(rest['extra']) && !isPrinted)
    return faulty(id, 'extra and extra_dejson');
  const about = { id, name: id, type: wholeText(type) ?? '' };
  try {
    const password = columnOf(rest['password'], isPrinted ? false : hasPassword, keys);
    const extra = columnOf(printedExtra ?? rest['extra'], isPrinted ? false : hasExtra, keys);
    const { extra: _extra, ...others } = rest;
    return { ...about, data: { ...others, password, ...flat(extra) } };
  } catch (error) {
    if (error instanceof CannotOpen) return { ...about, data: undefined, fault: error.message };
    if (error instanceof JsonRefused) return { ...about, data: undefined, fault: ruleOf(error) };
    throw error;
  }
}

class CannotOpen extends Error {
  override name = 'CannotOpen';
}

/**
 * A column, opened where its flag says that it is a token. SECURITY: what looks like a token and is
 * not said to be none is never taken for what is in it.
 */
function columnOf(value: unknown, flag: unknown, keys: readonly Buffer[]): unknown {
  if (isAbsent(value)) return value;
  const isToken = typeof value === 'string' && looksLikeToken(value.trim());
  const isSaid = isAbsent(flag) ? undefined : flagOf(flag);
  if (!isAbsent(flag) && isSaid === undefined)
    throw new CannotOpen('flag (is_encrypted says neither yes nor no)');
  if (!isToken) {
    if (isSaid === true)
      throw new CannotOpen('doesNotOpen (said to be encrypted, and is no token)');
    return value;
  }
  if (isSaid === false) throw new CannotOpen('encrypted (said to be plain, and is a token)');
  try {
    return openForeignToken(keys, value.trim());
  } catch {
    throw new CannotOpen(keys.length === 0 ? 'encrypted (--key-file is needed)' : 'doesNotOpen');
  }
}

/** The members of `extra` by themselves; what is no object stays as it is. Throws JsonRefused. */
function flat(extra: unknown): Record<string, unknown> {
  let members = extra;
  if (typeof extra === 'string') {
    try {
      members = parseExact(extra);
    } catch (error) {
      if (!(error instanceof NotJson)) throw error;
    }
  }
  if (!isMembers(members)) return { extra };
  return Object.fromEntries(
    Object.entries(members).map(([name, value]) => [`extra.${name}`, value]),
  );
}

const faulty = (id: string, fault: string): Foreign => ({
  id,
  name: id,
  type: '',
  data: undefined,
  fault,
});
