// The names under which statements are prepared. A prepared statement stays in the memory of every
// server process that it was sent to, with its plan some 0.1 to 1 MB, until the connection ends. So
// only texts that were composed once have a name; whatever is put together from what a caller asks
// has as many forms as there are questions, and is planned each time.
import { hash } from 'node:crypto';

const namesMaxDefault = 150;
const nameLength = 24; // of base64url: 144 bits

/**
 * Gives out names, up to a bound; what comes after it stays unnamed. A name is made of its text, so
 * that processes that share connections through a proxy mean the same by it.
 */
export class StatementNames {
  readonly #names = new Map<string, string>();
  readonly #namesMax: number;
  constructor(namesMax: number = namesMaxDefault) {
    this.#namesMax = namesMax;
  }

  /** Gives the text a name, if there is room. */
  add(text: string): void {
    if (this.#names.size >= this.#namesMax) return;
    this.#names.set(text, `cv_${hash('sha256', text, 'base64url').slice(0, nameLength)}`);
  }

  /** The name of a text that was given one. */
  of(text: string): string | undefined {
    return this.#names.get(text);
  }
}

/**
 * Those of the texts that `statement` composes. They belong to the source as its constants do: the
 * same for every database that a process opens.
 */
export const composedNames = new StatementNames();
