// A value that must not be seen by accident: whatever turns it into text gets '[secret]'.
// Its one door is expose(); the files that may call it are listed in a test.
import { inspect } from 'node:util';

const shown = '[secret]';

/** Holds plaintext. Logs, JSON, templates, inspection and clones do not contain it. */
export class Secret<T> {
  readonly #value: T;

  constructor(value: T) {
    this.#value = value;
  }

  /** The plaintext. SECURITY: every call is a place where plaintext exists. */
  expose(): T {
    return this.#value;
  }

  toJSON(): typeof shown {
    return shown;
  }

  toString(): typeof shown {
    return shown;
  }

  [inspect.custom](): typeof shown {
    return shown;
  }
}
