// Forms on their way out, looked through for the parameters by which frameworks are told another
// method or path (parameters.ts). A field is held until it is known to be none of them; everything
// passes to the byte or the call ends, and nothing of such a field has gone out then.
import type { Whereabouts } from './named.ts';
import { checkParameter, foldedParameter, isJudged, judgesParameters } from './parameters.ts';
import { BrokerRefusal } from './refusal.ts';
import { foldedName } from './steering.ts';
import type { Policy } from '../credentials/index.ts';

/** Looks through a body. Both throw BrokerRefusal `method`, `pathPrefix`. */
export interface FormGuard {
  /** What may go on of what has come. */
  push(chunk: Buffer): Buffer;
  /** The rest. */
  end(): Buffer;
}

type Judge = (parameter: { readonly name: string; readonly value: string }) => void;

/**
 * The guard for a body with these headers; undefined where the policy leaves nothing to steer past,
 * or the body is no form. Throws BrokerRefusal `method` for a form that cannot be read.
 */
export function guardFor(
  policy: Policy,
  where: Whereabouts,
  rawHeaders: readonly string[],
): FormGuard | undefined {
  if (!judgesParameters(policy)) return undefined;
  const valuesOf = (wanted: string): string =>
    rawHeaders
      .filter((_, i) => i % 2 === 1 && foldedName(rawHeaders[i - 1]!) === wanted)
      .join(', ')
      .toLowerCase();
  const type = valuesOf('content-type');
  const isMultipart = type.includes('multipart/');
  // What says nothing is taken for a form by some.
  const isEncoded = type.trim() === '' || type.includes('x-www-form-urlencoded');
  if (!isMultipart && !isEncoded) return undefined;
  const charset = /charset\s*=\s*["']?([^;,"'\s]*)/.exec(type)?.[1] ?? 'utf-8';
  const coding = valuesOf('content-encoding').trim();
  if (!readable.test(charset) || (coding !== '' && coding !== 'identity'))
    throw new BrokerRefusal('method');
  const judge: Judge = (parameter) => {
    checkParameter(policy, where, parameter);
  };
  return isMultipart ? new MultipartGuard(judge) : new EncodedGuard(judge);
}

/** Where ASCII is ASCII. */
const readable = /^(?:utf-?8|us-ascii|ascii|iso-?8859-\d+|latin-?\d|windows-125\d|cp125\d)$/;
const nothing = Buffer.alloc(0);
const [ampersand, semicolon, equals] = [0x26, 0x3b, 0x3d];
const nameBytesMax = 1024;
const nameLengthMax = 64;
const heldBytesMax = 8 * 1024;

/** `application/x-www-form-urlencoded`. */
class EncodedGuard implements FormGuard {
  readonly #judge: Judge;
  /** The field that has begun, until it is known to pass; undefined within one that does. */
  #held: Buffer | undefined = nothing;
  #isInValue = false;

  constructor(judge: Judge) {
    this.#judge = judge;
  }

  push(chunk: Buffer): Buffer {
    const passed: Buffer[] = [];
    for (let at = 0; at < chunk.length; ) {
      const end = separatorFrom(chunk, at);
      if (end > at) passed.push(this.#take(chunk.subarray(at, end)));
      if (end === chunk.length) break;
      passed.push(this.#settle());
      // Separators behind each other end no field; each by itself would cost what a field costs.
      at = fieldFrom(chunk, end + 1);
      passed.push(chunk.subarray(end, at));
    }
    return Buffer.concat(passed);
  }

  end(): Buffer {
    return this.#settle();
  }

  /** More of a field: what may pass. */
  #take(piece: Buffer): Buffer {
    if (this.#held === undefined) return piece;
    this.#held = Buffer.concat([this.#held, piece]);
    if (!this.#isKnownToPass(this.#held)) {
      if (this.#held.length > heldBytesMax) throw new BrokerRefusal('method');
      return nothing;
    }
    const passed = this.#held;
    this.#held = undefined;
    return passed;
  }

  #isKnownToPass(held: Buffer): boolean {
    if (this.#isInValue) return false;
    const isNamed = held.includes(equals);
    if (!isNamed && held.length < nameBytesMax) return false;
    const [name = ''] = new URLSearchParams(held.toString('latin1')).keys();
    const folded = foldedParameter(name);
    if (!isNamed) return folded.length > nameLengthMax; // a body that is no form at all
    this.#isInValue = true;
    return !isJudged(folded);
  }

  /** The end of a field. */
  #settle(): Buffer {
    const held = this.#held ?? nothing;
    if (held.length > 0)
      for (const [name, value] of new URLSearchParams(held.toString('latin1')))
        this.#judge({ name, value });
    this.#held = nothing;
    this.#isInValue = false;
    return held;
  }
}

const isSeparator = (byte: number | undefined): boolean => byte === ampersand || byte === semicolon;

function separatorFrom(chunk: Buffer, at: number): number {
  let i = at;
  while (i < chunk.length && !isSeparator(chunk[i])) i += 1;
  return i;
}

function fieldFrom(chunk: Buffer, at: number): number {
  let i = at;
  while (i < chunk.length && isSeparator(chunk[i])) i += 1;
  return i;
}

/** `multipart/form-data` and its kind: the names stand in lines, whatever the border is. */
class MultipartGuard implements FormGuard {
  readonly #judge: Judge;
  #held: Buffer = nothing;
  /** Of the line that is not held: nothing of it is a header that names a field. */
  #isInLine = false;

  constructor(judge: Judge) {
    this.#judge = judge;
  }

  push(chunk: Buffer): Buffer {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    return this.#release(false);
  }

  end(): Buffer {
    return this.#release(true);
  }

  #release(isEnd: boolean): Buffer {
    const text = this.#held.toString('latin1');
    let at = 0;
    while (at < text.length) {
      if (this.#isInLine) {
        const end = lineEndFrom(text, at);
        this.#isInLine = end < 0;
        at = end < 0 ? text.length : end;
        continue;
      }
      const verdict = this.#look(text.slice(at), isEnd);
      if (verdict === 'more') {
        if (text.length - at > heldBytesMax) throw new BrokerRefusal('method');
        break;
      }
      at += verdict;
      this.#isInLine = !isLineEnd(text, at - 1);
    }
    const passed = this.#held.subarray(0, at);
    this.#held = Buffer.from(this.#held.subarray(at));
    return passed;
  }

  /** Of the beginning of a line: how much passes, or that more has to be seen. */
  #look(text: string, isEnd: boolean): number | 'more' {
    const start = text.slice(0, disposition.length).toLowerCase();
    if (!disposition.startsWith(start) || (isEnd && start.length < disposition.length)) return 1;
    if (start.length < disposition.length) return 'more';
    const colon = /^[ \t]*(.)/s.exec(text.slice(disposition.length))?.[1];
    if (colon === undefined && !isEnd) return 'more';
    if (colon !== ':') return 1;
    // Up to a line that does not go on with a blank.
    const header = dispositionForm.exec(text)?.[0];
    if (header === undefined) {
      if (!isEnd) return 'more';
      this.#judgeAll(text, '');
      return text.length;
    }
    if (!namesIn(header).some((name) => isJudged(foldedParameter(name)))) return header.length;
    const value = /(?:\r\n\r\n|\n\n|\r\r)([^\r\n]*)(?:\r|\n)/.exec(text)?.[1];
    if (value === undefined && !isEnd) return 'more';
    this.#judgeAll(header, value ?? '');
    return header.length;
  }

  #judgeAll(header: string, value: string): void {
    for (const name of namesIn(header)) this.#judge({ name, value });
  }
}

const disposition = 'content-disposition';
const dispositionForm =
  /^[^\r\n]*(?:(?:\r\n|\r(?!\n)|\n)[ \t][^\r\n]*)*(?:\r\n|\r(?!\n)|\n)(?=[^ \t])/;
const isLineEnd = (text: string, at: number): boolean => text[at] === '\n' || text[at] === '\r';
const lineEndFrom = (text: string, at: number): number => {
  const found = text.slice(at).search(/[\r\n]/);
  return found < 0 ? -1 : at + found + 1;
};

/** The names that a Content-Disposition gives, however they are written. */
function namesIn(header: string): string[] {
  const names = header.matchAll(
    /[;\s]name\*?\s*=\s*(?:"((?:\\[\s\S]|[^"\\])*)"|'([^'\r\n]*)'(?=\s*(?:;|$))|([^;\s]*))/gi,
  );
  return [...names].map(([, quoted, single, plain]) => {
    const name = quoted?.replace(/\\([\s\S])/g, '$1') ?? single ?? plain ?? '';
    const [, extended = name] = /^[A-Za-z0-9-]*'[^']*'(.*)$/s.exec(name) ?? [];
    return unescaped(extended);
  });
}

/** What percent-encoding hides, as far as there is any. */
const unescaped = (text: string): string =>
  text.replace(/%([0-9a-f]{2})/gi, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
