// What ends a call before its time: the caller goes away, or nobody moves a byte for too long.
import type { ServerResponse } from 'node:http';

export type Stopped = 'callerGone' | 'idle';

/** Watches over one call; its signal stops what goes to the upstream. */
export class Watch {
  readonly #controller = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly #response: ServerResponse;
  #stopped: Stopped | undefined;

  constructor(response: ServerResponse, idleMs: number) {
    this.#response = response;
    this.#timer = setTimeout(() => {
      this.#stop('idle');
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
