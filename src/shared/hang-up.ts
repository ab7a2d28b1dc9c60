// A caller who goes away: what was begun for them ends, and what they had room in is given back.
import type { Writable } from 'node:stream';
import { AppError } from './errors.ts';

/** Whether somebody still waits for an answer. */
export class HangUp {
  readonly #response: Writable;
  constructor(response: Writable) {
    this.#response = response;
  }

  get isGone(): boolean {
    return this.#isOver && !this.#response.writableFinished;
  }

  /** Throws requestTimeout, which nobody reads, when the caller has gone. */
  demand(): void {
    if (this.isGone) throw gone();
  }

  /**
   * What the promise comes to, or requestTimeout as soon as the caller goes; what comes of it
   * afterwards goes to `late`.
   */
  async race<T>(promise: Promise<T>, late: (value: T) => void = () => undefined): Promise<T> {
    const { promise: left, reject } = Promise.withResolvers<never>();
    let isLost = false;
    const onClose = (): void => {
      isLost = true;
      reject(gone());
    };
    promise.then(
      (value) => {
        if (isLost) late(value);
      },
      () => undefined,
    );
    if (this.isGone) onClose();
    else this.#response.once('close', onClose);
    try {
      return await Promise.race([promise, left]);
    } finally {
      this.#response.off('close', onClose);
    }
  }

  /** Runs once the answer has left, or the caller has. */
  afterwards(action: () => void): void {
    if (this.#isOver) action();
    else this.#response.once('close', action);
  }

  get #isOver(): boolean {
    return this.#response.closed || this.#response.destroyed;
  }
}

const gone = (): AppError =>
  new AppError('requestTimeout', 'The caller went away before there was an answer.', {
    errors: [{ pointer: '', rule: 'callerGone' }],
  });
