// The stage of the demo: real HTTP calls, each shown with its answer, each checked. A secret of the
// demo is never written.
import { randomBytes } from 'node:crypto';
import { localToken } from './token.ts';

/** Something was not as the demo tells it. */
export class NotAsTold extends Error {
  override name = 'NotAsTold';
}

export interface StageParts {
  readonly url: string;
  readonly dataFolder: string;
  readonly write: (text: string) => void;
  readonly stop: AbortSignal;
}

/**
 * One call; `expects` is the status without which the demo ends, `shows` picks what is printed of
 * the answer.
 */
export interface DemoCall<T> {
  readonly body?: object;
  readonly ifMatch?: string;
  readonly expects: number;
  readonly shows?: (answer: T) => unknown;
  /**
   * Goes to the broker with this ticket instead of the person's token; the path is then a whole
   * URL.
   */
  readonly ticket?: string;
}

const prefix = 'demo-secret-';
const secretForm = new RegExp(`${prefix}[A-Za-z0-9_-]+`, 'g');
const shownMax = 150;
const whoWidth = 9;

/** A value that the demo stores as a secret. */
export const demoSecret = (): string => prefix + randomBytes(18).toString('base64url');

/** Speaks to the vault as anybody, and tells what happens. */
export class Stage {
  readonly #parts: StageParts;
  readonly #tokens = new Map<string, Promise<string>>();
  readonly #answers: string[] = [];
  #chapters = 0;
  constructor(parts: StageParts) {
    this.#parts = parts;
  }

  /** A heading. */
  chapter(title: string): void {
    this.#chapters += 1;
    const line = `${this.#chapters}. ${title}`;
    this.#write(`\n${line}\n${'─'.repeat(line.length)}\n`);
  }

  /** A line of the story; without text, a gap. */
  say(text = ''): void {
    this.#write(text === '' ? '\n' : `  ${text}\n`);
  }

  /** Says that something holds, or ends the demo. */
  check(claim: string, holds: boolean): void {
    if (!holds) throw new NotAsTold(claim);
    this.say(`✓ ${claim}`);
  }

  /** Calls as this person and shows both sides. */
  async call<T = unknown>(
    who: string,
    method: string,
    path: string,
    call: DemoCall<T>,
  ): Promise<T> {
    this.#write(`\n  ${who.padEnd(whoWidth)} ${method} ${path}\n`);
    if (call.body !== undefined) this.#write(`  ${' '.repeat(whoWidth)} ${short(call.body)}\n`);
    const { status, answer } = await this.#send<T>(who, method, path, call);
    this.#write(
      `  ${`→ ${status}`.padEnd(whoWidth)} ` +
        `${short(call.shows === undefined || status !== call.expects ? codeOf(answer) : call.shows(answer))}` +
        `\n`,
    );
    if (status !== call.expects)
      throw new NotAsTold(`${method} ${path} is answered with ${call.expects} (it was ${status})`);
    return answer;
  }

  /** The same without a word. */
  async quietly<T = unknown>(
    who: string,
    method: string,
    path: string,
    call: DemoCall<T>,
  ): Promise<T> {
    const { status, answer } = await this.#send<T>(who, method, path, call);
    if (status !== call.expects)
      throw new NotAsTold(`${method} ${path} is answered with ${call.expects} (it was ${status})`);
    return answer;
  }

  /** How many answers there were so far, and in how many of them this text stands. */
  search(text: string): { answers: number; hits: number } {
    return {
      answers: this.#answers.length,
      hits: this.#answers.filter((answer) => answer.includes(text)).length,
    };
  }

  async #send<T>(
    who: string,
    method: string,
    path: string,
    { body, ifMatch, ticket }: DemoCall<T>,
  ): Promise<{ status: number; answer: T }> {
    const { url, stop } = this.#parts;
    const response = await fetch(ticket === undefined ? url + path : path, {
      method,
      redirect: 'error',
      signal: stop,
      headers: {
        authorization: `Bearer ${ticket ?? (await this.#tokenOf(who))}`,
        ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        ...(ifMatch === undefined ? {} : { 'if-match': ifMatch }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    this.#answers.push(
      [...response.headers].map(([name, value]) => `${name}: ${value}\n`).join('') + text,
    );
    return { status: response.status, answer: (text === '' ? undefined : JSON.parse(text)) as T };
  }

  #tokenOf(who: string): Promise<string> {
    const held = this.#tokens.get(who) ?? localToken(this.#parts.dataFolder, who, Date.now());
    this.#tokens.set(who, held);
    return held;
  }

  #write(text: string): void {
    // SECURITY: the one way out; whatever is shown, no secret is.
    this.#parts.write(text.replace(secretForm, '«…»'));
  }
}

function short(value: unknown): string {
  const text = (JSON.stringify(value) ?? '').replace(secretForm, '«…»');
  return text.length <= shownMax ? text : `${text.slice(0, shownMax)}…`;
}

/** What tells most about an answer: the code of a problem, else the whole. */
function codeOf(answer: unknown): unknown {
  const { code, errors } = (answer ?? {}) as { code?: unknown; errors?: unknown };
  return code === undefined ? answer : { code, ...(errors === undefined ? {} : { errors }) };
}
