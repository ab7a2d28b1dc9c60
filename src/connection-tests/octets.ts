// A conversation in octets over a socket of the egress, within bounds of time and size.
import type { Socket } from 'node:net';
import { EgressFailed } from '../egress/index.ts';

const bytesMax = 256 * 1024;

/** Reads and writes octets. `close` it when done. */
export class Octets {
  readonly #socket: Socket;
  readonly #chunks: AsyncIterator<Buffer>;
  readonly #timer: NodeJS.Timeout;
  #isLate = false;
  #pending = Buffer.alloc(0);
  #read = 0;

  constructor(socket: Socket, { timeoutMs }: { timeoutMs: number }) {
    this.#socket = socket.on('error', () => undefined);
    this.#chunks = (socket as AsyncIterable<Buffer>)[Symbol.asyncIterator]();
    this.#timer = setTimeout(() => {
      this.#isLate = true;
      socket.destroy();
    }, timeoutMs);
  }

  /** Exactly so many octets. Throws EgressFailed `response`, `timeout`. */
  async read(length: number): Promise<Buffer> {
    while (this.#pending.length < length) {
      const chunk = await this.#more();
      this.#read += chunk.length;
      if (this.#read > bytesMax) throw new EgressFailed('response');
      this.#pending = Buffer.concat([this.#pending, chunk]);
    }
    const octets = this.#pending.subarray(0, length);
    this.#pending = this.#pending.subarray(length);
    return octets;
  }

  send(octets: Buffer): void {
    this.#socket.write(octets);
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#socket.destroy();
  }

  async #more(): Promise<Buffer> {
    const { done, value } = await this.#chunks
      .next()
      .catch((): IteratorResult<Buffer> => ({ done: true, value: undefined }));
    if (done === true) throw new EgressFailed(this.#isLate ? 'timeout' : 'response');
    return value;
  }
}
