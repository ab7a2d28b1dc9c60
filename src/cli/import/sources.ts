// What other systems write down, read into one form. Nothing is judged here; what cannot be read at
// all is named by its place.
import { parseEnv } from 'node:util';
import type { System } from '../../credentials/types/registry.ts';
import { fernetKey, keyOfPassphrase, openForeignToken } from '../../crypto/index.ts';
import { OptionsUnfit } from '../target.ts';

/** A credential as the other system has it. */
export interface Foreign {
  /** By which it is known again when it is imported once more. */
  readonly id: string;
  readonly name: string;
  readonly type: string;
  /** Undefined where it could not be opened. */
  readonly data: Readonly<Record<string, unknown>> | undefined;
}

type Json = Record<string, unknown>;
type Read = (text: string, key: string | undefined) => Foreign[];

/**
 * Reads the file of each system. Throws OptionsUnfit for what is no such file, and for a key that
 * is missing or none.
 */
export const sources: Readonly<Record<System, Read>> = {
  /**
   * Rows with `id`, `name`, `type` and `encrypted_config`: Fernet under the SHA-256 of the system's
   * ENCRYPTION_KEY.
   */
  heym(text, key) {
    const keys = [keyOfPassphrase(encryptionKey(key))];
    return arrayIn(text).map((row, index) => ({
      ...named(row, index),
      type: textOf(row['type']) ?? '',
      data: opened(keys, row['encrypted_config']),
    }));
  },

  /** The decrypted export: rows with `id`, `name`, `type`, `data`. */
  n8n: (text) =>
    arrayIn(text).map((row, index) => ({
      ...named(row, index),
      type: textOf(row['type']) ?? '',
      data: isObject(row['data']) ? withTokens(row['data']) : undefined,
    })),

  /**
   * `connections export` as JSON, by connection id; or rows with `conn_id`, whose `password` and
   * `extra` are Fernet tokens where they are said to be encrypted.
   */
  airflow(text, key) {
    const keys = (key ?? '')
      .split(',')
      .filter((part) => part !== '')
      .map(
        (part) =>
          fernetKey(part.trim()) ?? refuse('--key-file must hold Fernet keys, the newest first'),
      );
    const document = parsed(text);
    const rows = Array.isArray(document)
      ? document
      : isObject(document)
        ? Object.entries(document).map(([id, row]) => ({
            ...(isObject(row) ? row : {}),
            conn_id: id,
          }))
        : refuse('the file is no export');
    return rows.map((row: unknown, index) => {
      const connection = isObject(row) ? row : {};
      const {
        conn_id: id,
        conn_type: type,
        description: _description,
        id: _row,
        is_encrypted: hasPassword,
        is_extra_encrypted: hasExtra,
        ...rest
      } = connection;
      const name = textOf(id) ?? `connection ${index + 1}`;
      try {
        const password =
          hasPassword === true
            ? openForeignToken(keys, String(rest['password']))
            : rest['password'];
        const extra =
          hasExtra === true ? openForeignToken(keys, String(rest['extra'])) : rest['extra'];
        return {
          id: name,
          name,
          type: textOf(type) ?? '',
          data: { ...rest, password, ...flat(extra) },
        };
      } catch {
        return { id: name, name, type: textOf(type) ?? '', data: undefined };
      }
    });
  },

  /** One credential a variable. */
  env: (text) =>
    Object.entries(parseEnv(text)).map(([name, value]) => ({
      id: name,
      name,
      type: name,
      data: { value },
    })),
};

/** One of Heym's rows, opened. */
export const heymCredential = (
  row: {
    readonly id: string;
    readonly name: string;
    readonly type: string;
    readonly encrypted_config: string;
  },
  key: string,
): Foreign => ({
  id: row.id,
  name: row.name,
  type: row.type,
  data: opened([keyOfPassphrase(key)], row.encrypted_config),
});

/** Throws OptionsUnfit where there is none. */
export function encryptionKey(key: string | undefined): string {
  if (key === undefined || key === '')
    throw new OptionsUnfit('--key-file must name a file with the ENCRYPTION_KEY');
  return key;
}

/** The file as JSON, where it is an object and no array. */
export function objectIn(text: string): object | undefined {
  const document = tryParse(text);
  return isObject(document) ? document : undefined;
}

export const systems = Object.keys(sources) as readonly System[];
export const isSystem = (name: string): name is System => Object.hasOwn(sources, name);

/** What an OAuth provider gave, member by member. */
function withTokens({ oauthTokenData: held, ...data }: Json): Json {
  if (!isObject(held)) return held === undefined ? data : { ...data, oauthTokenData: held };
  return {
    ...data,
    ...Object.fromEntries(
      Object.entries(held).map(([name, value]) => [`oauthTokenData.${name}`, value]),
    ),
  };
}

/** The members of `extra` by themselves; what is no object stays as it is. */
function flat(extra: unknown): Json {
  const members = typeof extra === 'string' ? tryParse(extra) : extra;
  if (!isObject(members)) return { extra };
  return {
    extra: undefined,
    ...Object.fromEntries(Object.entries(members).map(([name, value]) => [`extra.${name}`, value])),
  };
}

function opened(keys: readonly Buffer[], token: unknown): Json | undefined {
  if (typeof token !== 'string') return undefined;
  try {
    const data: unknown = JSON.parse(openForeignToken(keys, token));
    return isObject(data) ? data : undefined;
  } catch {
    return undefined;
  }
}

function named(row: Json, index: number): { id: string; name: string } {
  const name = textOf(row['name']) ?? `number ${index + 1}`;
  return { id: textOf(row['id']) ?? name, name };
}

function arrayIn(text: string): Json[] {
  const document = parsed(text);
  if (!Array.isArray(document)) return refuse('the file is no array of credentials');
  return document.map((row: unknown) => (isObject(row) ? row : {}));
}

function parsed(text: string): unknown {
  // SECURITY: the parser's own message would quote the file.
  return tryParse(text) ?? refuse('the file is no JSON');
}

function tryParse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return undefined;
  }
}

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const textOf = (value: unknown): string | undefined =>
  typeof value === 'string' && value !== ''
    ? value
    : typeof value === 'number'
      ? String(value)
      : undefined;
function refuse(rule: string): never {
  throw new OptionsUnfit(rule);
}
