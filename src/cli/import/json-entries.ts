// A JSON file, one entry of its outermost array or object at a time. Only where an entry ends is
// found here; what it says is read by the parser that the API has (decision 133).
import { JsonRefused, parseJson } from '../../shared/strict-json.ts';

/** One element of an array, or one member of an object with its name. */
export interface JsonEntry {
  readonly key: string | undefined;
  /** Undefined where it is longer than anything that a credential can hold. */
  readonly text: string | undefined;
}
/** The text is not JSON, or its outermost value is neither an array nor an object. */
export class NotJson extends Error {
  override name = 'NotJson';
}

const entryLengthMax = 4 * 1024 * 1024;
const [quote, backslash, comma, colon] = Array.from('"\\,:', (each) => each.charCodeAt(0));
const [openBrace, closeBrace, openBracket, closeBracket] = Array.from('{}[]', (each) =>
  each.charCodeAt(0),
);
const isBlank = (code: number): boolean =>
  code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09;

/**
 * The entries, one after the other; returns whether the outermost value is an array or an object.
 * Throws NotJson, at the latest at the end.
 */
export function* entriesOf(
  text: Iterable<string>,
  lengthMax = entryLengthMax,
): Generator<JsonEntry, 'array' | 'object'> {
  let kind: 'array' | 'object' | undefined;
  let place: 'before' | 'name' | 'colon' | 'value' | 'after' = 'before';
  let [depth, isInString, isEscaped, isFirst] = [0, false, false, true];
  let key: string | undefined;
  let parts: string[] = [];
  let length = 0;
  const take = (part: string): void => {
    length += part.length;
    if (length <= lengthMax) parts.push(part);
    else parts = [];
  };
  const taken = (): string | undefined => {
    const whole = length <= lengthMax ? parts.join('').trim() : undefined;
    parts = [];
    length = 0;
    return whole;
  };
  for (const piece of text) {
    let from = 0;
    for (let at = 0; at < piece.length; at += 1) {
      const code = piece.charCodeAt(at);
      if (isInString) {
        if (isEscaped) isEscaped = false;
        else if (code === backslash) isEscaped = true;
        else if (code === quote) isInString = false;
        continue;
      }
      if (place === 'before' || place === 'after') {
        if (isBlank(code)) continue;
        if (place === 'after' || (code !== openBrace && code !== openBracket)) throw new NotJson();
        kind = code === openBrace ? 'object' : 'array';
        place = kind === 'object' ? 'name' : 'value';
        from = at + 1;
        continue;
      }
      if (code === quote) {
        isInString = true;
      } else if (place === 'name' && code === colon) {
        take(piece.slice(from, at));
        key = nameOf(taken());
        place = 'value';
        from = at + 1;
      } else if (code === openBrace || code === openBracket) {
        depth += 1;
      } else if (code === comma && depth === 0) {
        if (place !== 'value') throw new NotJson();
        take(piece.slice(from, at));
        yield entry(key, taken());
        isFirst = false;
        place = kind === 'object' ? 'name' : 'value';
        from = at + 1;
      } else if (code === closeBrace || code === closeBracket) {
        depth -= 1;
        if (depth >= 0) continue;
        if ((code === closeBrace) !== (kind === 'object')) throw new NotJson();
        take(piece.slice(from, at));
        const last = taken();
        if (place === 'value' && !(isFirst && kind === 'array' && last === ''))
          yield entry(key, last);
        else if (last !== '' || !isFirst) throw new NotJson();
        place = 'after';
        from = at + 1;
      }
    }
    if (place !== 'before' && place !== 'after') take(piece.slice(from));
  }
  if (kind === undefined || place !== 'after') throw new NotJson();
  return kind;
}

function entry(key: string | undefined, text: string | undefined): JsonEntry {
  if (text === '') throw new NotJson();
  return { key, text };
}

function nameOf(text: string | undefined): string {
  let name: unknown;
  try {
    name = JSON.parse(text ?? '');
  } catch {
    // Said below.
  }
  if (typeof name !== 'string') throw new NotJson();
  return name;
}

/**
 * The value of a JSON text, read as strictly as the API reads. A number that a double does not
 * write as it stands keeps its digits (JSON.rawJSON). Throws JsonRefused, and NotJson for what is
 * no JSON.
 */
export function parseExact(text: string): unknown {
  try {
    parseJson(Buffer.from(text));
  } catch (error) {
    // SECURITY: without the text that the parser's own message quotes.
    if (error instanceof JsonRefused && error.rule === 'json') throw new NotJson();
    throw error;
  }
  return JSON.parse(text, keepDigits as (key: string, value: unknown) => unknown);
}

const keepDigits = (_key: string, value: unknown, { source }: { source?: string }): unknown =>
  typeof value === 'number' && source !== undefined && String(value) !== source
    ? rawJson(source)
    : value;

const exact = JSON as unknown as {
  rawJSON: (text: string) => object;
  isRawJSON: (value: unknown) => boolean;
};
const rawJson = (text: string): object => exact.rawJSON(text);
/** The digits of a number that was kept as it stood; undefined for anything else. */
export const numberText = (value: unknown): string | undefined =>
  exact.isRawJSON(value) ? (value as { rawJSON: string }).rawJSON : undefined;

/** Whether a value is an object of JSON with members. */
export const isMembers = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !exact.isRawJSON(value);
