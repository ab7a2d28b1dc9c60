// Files of variables, line by line. There is no specification, and readers differ: a line is taken
// only where npm's dotenv, Node, Python's dotenv and Compose read the same from it.

/** One variable, or what is wrong with a line; never a part of its text. */
export interface Variable {
  readonly line: number;
  readonly name: string | undefined;
  readonly value: string;
  readonly fault: string | undefined;
  /** What stands behind the `=`, where it has no quotes: for readers that know none. */
  readonly raw?: string;
}

const assignment = /^[ \t]*(?:export[ \t]+)?([\w.-]+)[ \t]*=(.*)$/su;
// The last line of base64 looks like one, too.
const looksAssigned = /^[ \t]*(?:export[ \t]+)?[A-Za-z_][\w.-]*[ \t]*=(?!=?[ \t]*$)/u;
/** A quoted value of several lines that is longer has lost its end. */
const valueLengthMax = 256 * 1024;
const valueLinesMax = 5_000;
// Every blank but the plain one: readers cut some of them off.
const unseen = /[\p{Cc}\p{Cf}]|[^\P{Z} ]/u;

/** How all of them would read it alike. */
function hintFor(value: string): string {
  if (!value.includes('${') && !/'|\\(?:\\|$)/.test(value))
    return 'readers differ: put the value in single quotes';
  if (!/["\\$`]/.test(value)) return 'readers differ: put the value in double quotes';
  return 'readers differ however it is quoted: store it by hand';
}

/** The variables of a file, each by its line. */
export function* variablesOf(text: Iterable<string>): Generator<Variable> {
  const lines = new Lines(text);
  for (let line = lines.next(); line !== undefined; line = lines.next()) {
    const number = lines.number;
    if (/^[ \t]+#.*=.*["'`]/su.test(line)) {
      // To Node this is a variable, whose quote may reach into the next lines.
      yield {
        line: number,
        name: undefined,
        value: '',
        fault: 'readers differ about a comment behind blanks: take the blanks away',
      };
      continue;
    }
    if (/^[ \t]*(?:#.*)?$/su.test(line)) continue;
    const [, name, behind = ''] = assignment.exec(line) ?? [];
    if (name === undefined) {
      yield { line: number, name, value: '', fault: 'no NAME=VALUE' };
      continue;
    }
    const rest = behind.replace(/^[ \t]+/, '');
    if (rest === '' && behind !== '') {
      // Node goes on with the next line.
      yield { line: number, name, value: '', fault: 'only blanks behind its =: take them away' };
      continue;
    }
    if (rest === '' && /^[ \t]*export[ \t]/.test(line)) {
      // Node takes `export` for a part of the name.
      yield { line: number, name, value: '', fault: 'nothing behind its =: write ""' };
      continue;
    }
    const quote = /^["'`]/.exec(rest)?.[0];
    const read = quote === undefined ? { ...bare(rest), raw: rest } : quoted(rest, quote, lines);
    yield { line: number, name, value: '', fault: undefined, ...read };
  }
}

type Read = { readonly value: string } | { readonly fault: string };

function bare(rest: string): Read {
  const value = rest.replace(/[ \t]+$/, '');
  if (value.includes('#'))
    return { fault: 'readers differ about #: put the value in quotes, a comment on its own line' };
  if (unseen.test(value)) return { fault: 'a character in it cannot be seen: put it in quotes' };
  return /["'`\\$]/.test(value) ? { fault: hintFor(value) } : { value };
}

function quoted(first: string, quote: string, lines: Lines): Read {
  let body = first.slice(1);
  let end = endOf(body, quote);
  // Further lines belong to it only where a later one closes it and none looks like a variable.
  for (let ahead = 0; end === undefined; ahead += 1) {
    const next = lines.peek(ahead);
    if (next === undefined || looksAssigned.test(next) || isTooLong(body, ahead))
      return { fault: 'its quote does not close' };
    body += `\n${next}`;
    end = endOf(next, quote) === undefined ? undefined : endOf(body, quote);
    if (end !== undefined) lines.skip(ahead + 1);
  }
  const value = body.slice(0, end);
  const rest = body.slice(end + 1);
  if (!/^[ \t]*(?:[ \t]#[^"'`]*)?$/.test(rest)) return { fault: 'there is more behind its quote' };
  if (/[\0\r]/.test(value)) return { fault: 'it holds a control character' };
  const isAlike =
    quote === "'"
      ? !value.includes('${') && !/\\(?:[\\']|$)/.test(value)
      : quote === '"' && !/[$`]|\\(?!n)/.test(value);
  if (!isAlike) return { fault: hintFor(value) };
  return { value: quote === '"' ? value.replaceAll('\\n', '\n') : value };
}

const isTooLong = (body: string, lines: number): boolean =>
  body.length > valueLengthMax || lines > valueLinesMax;

/** The place of the quote that closes; a backslash before it leaves it open for some readers. */
function endOf(text: string, quote: string): number | undefined {
  for (let at = 0; at < text.length; at += 1) {
    if (text[at] === '\\' && quote !== '`') at += 1;
    else if (text[at] === quote) return at;
  }
  return undefined;
}

/** Lines without their ends, of which some can be looked at before they are taken. */
class Lines {
  number = 0;
  readonly #source: Iterator<string>;
  readonly #ahead: string[] = [];
  constructor(text: Iterable<string>) {
    this.#source = splitLines(text);
  }
  next(): string | undefined {
    const line = this.peek(0);
    if (line === undefined) return undefined;
    this.skip(1);
    return line;
  }
  peek(index: number): string | undefined {
    while (this.#ahead.length <= index) {
      const { done, value } = this.#source.next();
      if (done === true) return undefined;
      this.#ahead.push(value);
    }
    return this.#ahead[index];
  }
  skip(count: number): void {
    this.#ahead.splice(0, count);
    this.number += count;
  }
}

/** The lines of a text that comes in pieces; a line that is longer than any value ends there. */
export function* splitLines(
  text: Iterable<string>,
  lengthMax = 2 * valueLengthMax,
): Generator<string> {
  let rest = '';
  for (const piece of text) {
    rest += piece;
    let from = 0;
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n', from)) {
      yield rest.slice(from, end).replace(/\r$/, '');
      from = end + 1;
    }
    rest = rest.slice(from);
    // It is no variable any more, and no part of it may be read as the next line.
    if (rest.length > lengthMax) rest = `\0${rest.slice(0, 100)}`;
  }
  if (rest !== '') yield rest.replace(/\r$/, '');
}
