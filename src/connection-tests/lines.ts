// A conversation in lines over a socket of the egress, within bounds of time and size.
import type { Socket } from 'node:net';
import { EgressFailed } from '../egress/index.ts';

const lineBytesMax = 8 * 1024;
const bytesMax = 256 * 1024;

/** Reads and writes lines. `close` it when done. */
export class Lines {
  #socket: Socket;
  #pending = Buffer.alloc(0);
  #read = 0;
  readonly #endsAt: number;

  constructor(socket: Socket, { timeoutMs }: { timeoutMs: number }) {
    this.#socket = this.#guarded(socket);
    this.#endsAt = performance.now() + timeoutMs;
  }

  /** The next line without its end. Throws EgressFailed `response`, `timeout`. */
  async line(): Promise<string> {
    for (;;) {
      const end = this.#pending.indexOf('\n');
      if (end >= 0) {
        const line = this.#pending.subarray(0, end).toString('latin1').replace(/\r$/, '');
        this.#pending = this.#pending.subarray(end + 1);
        return line;
      }
      if (this.#pending.length > lineBytesMax || this.#read > bytesMax)
        throw new EgressFailed('response');
      const chunk = await this.#more();
      this.#read += chunk.length;
      this.#pending = Buffer.concat([this.#pending, chunk]);
    }
  }

  send(text: string): void {
    this.#socket.write(text);
  }

  /**
   * Goes on over another socket, made of this one. Throws EgressFailed `tls` when something was
   * said already that TLS was to protect.
   */
  async turn(make: (socket: Socket) => Promise<Socket>): Promise<void> {
    // SECURITY: what came in plain text before TLS would be taken for something said under it.
    if (this.#pending.length > 0) throw new EgressFailed('tls');
    this.#socket = this.#guarded(await make(this.#socket));
  }

  close(): void {
    this.#socket.destroy();
  }

  /** An error shows as the end of what is read. */
  #guarded(socket: Socket): Socket {
    return socket.on('error', () => undefined);
  }

  async #more(): Promise<Buffer> {
    const chunk = this.#socket.read() as Buffer | null;
    if (chunk !== null) return chunk;
    if (this.#socket.destroyed || this.#socket.readableEnded) throw new EgressFailed('response');
    if (!(await this.#hasMore())) throw new EgressFailed('timeout');
    return this.#more();
  }

  /** Waits until there is something to read or an end of it; false when the time is up. */
  #hasMore(): Promise<boolean> {
    const socket = this.#socket;
    const events = ['readable', 'end', 'close'] as const;
    return new Promise((resolve) => {
      const settle = (isTime: boolean): void => {
        clearTimeout(timer);
        for (const event of events) socket.off(event, onEvent);
        resolve(!isTime);
      };
      const onEvent = (): void => {
        settle(performance.now() >= this.#endsAt);
      };
      const timer = setTimeout(
        () => {
          settle(true);
        },
        Math.max(0, this.#endsAt - performance.now()),
      );
      for (const event of events) socket.once(event, onEvent);
    });
  }
}
