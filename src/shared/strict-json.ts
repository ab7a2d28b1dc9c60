// JSON as strangers send it: UTF-8 without a mark, every member named once, not deeper than
// anything of ours, every text well formed. What JSON.parse would bend (bytes that are no UTF-8, a
// member that comes twice) is refused, so that what is stored is what was sent and what a proxy in
// between has read.
import { isUtf8 } from 'node:buffer';
import { isPlainName } from './names.ts';

/**
 * Which rule the text breaks, and where as far as that can be said: a JSON pointer made of plain
 * names.
 */
export class JsonRefused extends Error {
  readonly rule:
    | 'utf8'
    | 'json'
    | 'depth'
    | 'duplicateMember'
    | 'memberName'
    | 'loneSurrogate'
    | 'inexactNumber';
  readonly pointer: string;
  constructor(rule: JsonRefused['rule'], pointer = '') {
    super('the JSON is refused');
    this.name = 'JsonRefused';
    this.rule = rule;
    this.pointer = pointer;
  }
}

/** How deep a body may be nested. */
export const depthMax = 32;
const [quote, backslash, colon, openBrace, closeBrace, openBracket, closeBracket] = Array.from(
  '"\\:{}[]',
  (character) => character.charCodeAt(0),
);
const [minus, zero, nine] = Array.from('-09', (character) => character.charCodeAt(0)) as [
  number,
  number,
  number,
];

/** The value of a JSON text. Throws JsonRefused. */
export function parseJson(
  bytes: Buffer,
  { areNumbersExact = false }: { areNumbersExact?: boolean } = {},
): unknown {
  // SECURITY: decoding would put U+FFFD in the place of bytes that are no UTF-8, and a secret would
  // be stored that nobody sent.
  if (!isUtf8(bytes)) throw new JsonRefused('utf8');
  const text = bytes.toString('utf8');
  const { members, hasInexact } = scan(text);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new JsonRefused('json'); // the parser's message quotes the text
  }
  // JSON.parse keeps the last of two members of one name: then fewer are left than were written.
  if (walk(value, '') !== members) throw new JsonRefused('duplicateMember');
  if (areNumbersExact && hasInexact)
    throw new JsonRefused('inexactNumber', placeOfInexact(parseMarked(text), ''));
  return value;
}

/**
 * Counts the colons outside of strings, one for each member, and looks at every number; stops at a
 * depth that nothing of ours has.
 */
function scan(text: string): { members: number; hasInexact: boolean } {
  let members = 0;
  let depth = 0;
  let hasInexact = false;
  for (let at = 0; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code === quote) at = endOfString(text, at);
    else if (code === colon) members += 1;
    else if (code === minus || (code >= zero && code <= nine)) {
      const number = numberAt(text, at);
      hasInexact ||= !isExact(number);
      at += number.length - 1;
    } else if (code === openBrace || code === openBracket) {
      depth += 1;
      if (depth > depthMax) throw new JsonRefused('depth');
    } else if (code === closeBrace || code === closeBracket) depth -= 1;
  }
  return { members, hasInexact };
}

/** What looks like a number from there on; what is none is found by the parser. */
function numberAt(text: string, from: number): string {
  const form = /[-+.\deE]+/y;
  form.lastIndex = from;
  return form.exec(text)?.[0] ?? '';
}

/** Whether a number is kept as it was written: its text names the value that is stored. */
function isExact(text: string): boolean {
  const kept = String(Number(text));
  return kept === text || decimalOf(kept) === decimalOf(text);
}

/** A decimal text in one spelling, digits without zeros at either end; itself where it is none. */
function decimalOf(text: string): string {
  const [, whole, fraction = '', exponent = '0'] =
    /^-?(\d+)(?:\.(\d+))?(?:[eE]([-+]?\d+))?$/.exec(text) ?? [];
  if (whole === undefined) return text;
  const digits = whole + fraction;
  let first = 0;
  let end = digits.length;
  while (digits.charCodeAt(first) === zero) first += 1;
  while (end > first && digits.charCodeAt(end - 1) === zero) end -= 1;
  if (first === end) return '0';
  const power = Number(exponent) - fraction.length + (digits.length - end);
  return `${digits.slice(first, end)}e${power}`;
}

/** Stands where a number stood that cannot be kept. */
class Inexact {}

function parseMarked(text: string): unknown {
  const mark = (_name: string, value: unknown, { source }: { source?: string }): unknown =>
    typeof value === 'number' && source !== undefined && !isExact(source) ? new Inexact() : value;
  return JSON.parse(text, mark as (name: string, value: unknown) => unknown);
}

/** The pointer to the first of them, as far as names are plain. */
function placeOfInexact(value: unknown, pointer: string): string | undefined {
  if (value instanceof Inexact) return pointer;
  if (typeof value !== 'object' || value === null) return undefined;
  for (const [name, member] of Object.entries(value)) {
    const isPlain = Array.isArray(value) || isPlainName(name);
    const found = placeOfInexact(member, isPlain ? `${pointer}/${name}` : pointer);
    if (found !== undefined) return found;
  }
  return undefined;
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
