// JSON as strangers send it: UTF-8 without a mark, every member named once, not deeper than
// anything of ours, every text well formed. What JSON.parse would bend (bytes that are no UTF-8, a
// member that comes twice) is refused, so that what is stored is what was sent and what a proxy in
// between has read.
import { isUtf8 } from 'node:buffer';
import { isPlainName } from '../shared/names.ts';

/**
 * Which rule the text breaks, and where as far as that can be said: a JSON pointer made of plain
 * names.
 */
export class JsonRefused extends Error {
  readonly rule: 'utf8' | 'json' | 'depth' | 'duplicateMember' | 'memberName' | 'loneSurrogate';
  readonly pointer: string;
  constructor(rule: JsonRefused['rule'], pointer = '') {
    super('the JSON is refused');
    this.name = 'JsonRefused';
    this.rule = rule;
    this.pointer = pointer;
  }
}

const depthMax = 32;
const [quote, backslash, colon, openBrace, closeBrace, openBracket, closeBracket] = Array.from(
  '"\\:{}[]',
  (character) => character.charCodeAt(0),
);

/** The value of a JSON text. Throws JsonRefused. */
export function parseJson(bytes: Buffer): unknown {
  // SECURITY: decoding would put U+FFFD in the place of bytes that are no UTF-8, and a secret would
  // be stored that nobody sent.
  if (!isUtf8(bytes)) throw new JsonRefused('utf8');
  const text = bytes.toString('utf8');
  const members = countMembers(text);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new JsonRefused('json'); // the parser's message quotes the text
  }
  // JSON.parse keeps the last of two members of one name: then fewer are left than were written.
  if (walk(value, '') !== members) throw new JsonRefused('duplicateMember');
  return value;
}

/**
 * Counts the colons outside of strings, one for each member, and stops at a depth that nothing of
 * ours has.
 */
function countMembers(text: string): number {
  let members = 0;
  let depth = 0;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === quote) at = endOfString(text, at);
    else if (code === colon) members += 1;
    else if (code === openBrace || code === openBracket) {
      depth += 1;
      if (depth > depthMax) throw new JsonRefused('depth');
    } else if (code === closeBrace || code === closeBracket) depth -= 1;
  }
  return members;
}

/**
 * The place of the quote that closes the string opened at `from`; the end of the text when none
 * does.
 */
function endOfString(text: string, from: number): number {
  let at = from;
  do {
    at = text.indexOf('"', at + 1);
    if (at < 0) return text.length;
  } while (isEscaped(text, at));
  return at;
}

function isEscaped(text: string, at: number): boolean {
  let backslashes = 0;
  while (text.charCodeAt(at - 1 - backslashes) === backslash) backslashes += 1;
  return backslashes % 2 === 1;
}

/**
 * Counts the members of the value; throws at a text that is not well formed and at the one name
 * that objects treat specially.
 */
function walk(value: unknown, pointer: string): number {
  if (typeof value === 'string') {
    if (!value.isWellFormed()) throw new JsonRefused('loneSurrogate', pointer);
    return 0;
  }
  if (typeof value !== 'object' || value === null) return 0;
  if (Array.isArray(value))
    return value.reduce<number>(
      (count, item, index) => count + walk(item, `${pointer}/${index}`),
      0,
    );
  let count = 0;
  for (const [name, member] of Object.entries(value)) {
    // SECURITY: assigned by name somewhere, it would replace an object's prototype.
    if (name === '__proto__') throw new JsonRefused('memberName', pointer);
    if (!name.isWellFormed()) throw new JsonRefused('loneSurrogate', pointer);
    // A name is the sender's text too: below one that is not plain, the pointer stays where it is.
    count += 1 + walk(member, isPlainName(name) ? `${pointer}/${name}` : pointer);
  }
  return count;
}
