// Canonical JSON (RFC 8785): one value, one text. Hashes, MACs and associated data are made over
// it. What JSON cannot say exactly is refused, because two such values could share one text.
import type { JsonObject, JsonValue } from '../shared/json.ts';

/**
 * The canonical text. Throws TypeError for lone surrogates, non-finite numbers, undefined, and
 * objects that are not plain.
 */
export function canonicalJson(value: JsonValue): string {
  switch (typeof value) {
    case 'string':
      return text(value);
    case 'boolean':
      return value ? 'true' : 'false';
    case 'number':
      return number(value);
    case 'object':
      if (value === null) return 'null';
      return isArray(value) ? array(value) : object(value);
  }
  value satisfies never;
  throw new TypeError('canonical JSON: not a JSON value');
}

/**
 * The canonical text, or undefined where there is none: a database can hold JSON numbers that are
 * infinite here.
 */
export function findCanonicalJson(value: JsonValue): string | undefined {
  try {
    return canonicalJson(value);
  } catch (error) {
    if (error instanceof TypeError) return undefined;
    throw error;
  }
}

// Characters that JSON writes as they are.
const plain = /^[ !#-[\]-~]*$/;

function text(value: string): string {
  if (plain.test(value)) return `"${value}"`;
  if (!value.isWellFormed()) throw new TypeError('canonical JSON: lone surrogate');
  return JSON.stringify(value);
}

function number(value: number): string {
  if (!Number.isFinite(value)) throw new TypeError('canonical JSON: not a finite number');
  return JSON.stringify(value);
}

function array(values: readonly JsonValue[]): string {
  let out = '[';
  // By index, because iteration methods skip holes.
  for (let i = 0; i < values.length; i += 1)
    out += (i === 0 ? '' : ',') + canonicalJson(values[i] as JsonValue);
  return out + ']';
}

function object(value: JsonObject): string {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null)
    throw new TypeError('canonical JSON: not a plain object');
  let out = '{';
  const names = Object.keys(value);
  // The default order of sort() is by UTF-16 code units, as RFC 8785 wants.
  if (!isSorted(names)) names.sort();
  for (const name of names) {
    out += (out === '{' ? '' : ',') + text(name) + ':' + canonicalJson(value[name] as JsonValue);
  }
  return out + '}';
}

/** By UTF-16 code units, as `<` compares. */
function isSorted(names: readonly string[]): boolean {
  for (let i = 1; i < names.length; i += 1) if (names[i - 1]! > names[i]!) return false;
  return true;
}

function isArray(value: readonly JsonValue[] | JsonObject): value is readonly JsonValue[] {
  return Array.isArray(value);
}
