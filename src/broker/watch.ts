// What ends a call before its time: the caller goes away, or nobody moves a byte for too long.
import type { ServerResponse } from 'node:http';
import { raced } from '../egress/index.ts';

/** `callerStalled`: the caller takes nothing of what there is for them. */
export type Stopped = 'callerGone' | 'callerStalled' | 'idle';

/** Watches over one call; its signal stops what goes to the upstream. */
export class Watch {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #response: ServerResponse;
  #stopped: Stopped | undefined;
  #isCallersTurn = false;

  constructor(response: ServerResponse, idleMs: number) {
    this.#response = response;
    this.#timer = setTimeout(() => {
      this.#stop(this.#isCallersTurn ? 'callerStalled' : 'idle');
    }, idleMs);
    response.once('close', this.#onClose);
    if (response.closed || response.destroyed) this.#stop('callerGone');
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }
  get stopped(): Stopped | undefined {
    return this.#stopped;
  }

  /** Something moved, in either direction. */
  touch(): void {
    this.#timer.refresh();
  }

  /**
   * What the promise comes to; rejects as soon as the call is stopped, whatever the promise is
   * waiting for. What comes of it later goes to `late`.
   */
  race<T>(promise: Promise<T>, late?: (value: T) => void): Promise<T> {
    return raced(this.signal, promise, () => this.signal.reason, late);
  }

  /** Waits until the caller has taken what was written (`drain`), or all of it (`finish`). */
  async taken(event: 'drain' | 'finish'): Promise<void> {
    const response = this.#response;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#isCallersTurn = true;
    response.once(event, resolve);
    try {
      if (event === 'finish' ? response.writableFinished : !response.writableNeedDrain) resolve();
      await this.race(promise);
    } finally {
      response.off(event, resolve);
      this.#isCallersTurn = false;
    }
    this.touch();
  }

  /** The call is over. */
  end(): void {
    clearTimeout(this.#timer);
    this.#response.off('close', this.#onClose);
  }

  readonly #onClose = (): void => {
    if (!this.#response.writableFinished) this.#stop('callerGone');
  };

  #stop(reason: Stopped): void {
    this.#stopped ??= reason;
    this.#controller.abort();
  }
}
