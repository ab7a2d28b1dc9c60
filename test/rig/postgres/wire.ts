// PostgreSQL's protocol, version 3, as far as a proxy must read it: where a message ends, and what
// it is.

/** One message, with its type and its bytes as they came. Messages before the log-in have no type. */
export interface Message {
  readonly type: string;
  readonly bytes: Buffer;
}

/** Cuts a stream of one direction into messages. */
export class Messages {
  #pending: Buffer = Buffer.alloc(0);
  #isStarting: boolean;

  /** `isFrontend`: the first message has no type. */
  constructor({ isFrontend }: { isFrontend: boolean }) {
    this.#isStarting = isFrontend;
  }

  /** The messages that are complete now. */
  push(chunk: Buffer): Message[] {
    this.#pending = this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]);
    const found: Message[] = [];
    for (;;) {
      const head = this.#isStarting ? 0 : 1;
      if (this.#pending.length < head + 4) return found;
      const length = head + this.#pending.readUInt32BE(head);
      if (this.#pending.length < length) return found;
      const bytes = this.#pending.subarray(0, length);
      this.#pending = this.#pending.subarray(length);
      const type = head === 0 ? '' : String.fromCharCode(bytes[0]!);
      // A request for TLS or for encryption by GSSAPI is answered by one byte, and the start-up
      // message comes after it.
      if (head === 0 && !isQuestion(bytes)) this.#isStarting = false;
      found.push({ type, bytes });
    }
  }
}

const questions = [80_877_103, 80_877_104];
const isQuestion = (bytes: Buffer): boolean =>
  bytes.length === 8 && questions.includes(bytes.readUInt32BE(4));

/** Whether the message is a simple query that commits. */
export const isCommit = ({ type, bytes }: Message): boolean =>
  type === 'Q' && /^commit\0$/i.test(bytes.toString('latin1', 5));

/** Of a ReadyForQuery: `I` outside a transaction, `T` in one, `E` in a failed one. */
export const statusOf = ({ type, bytes }: Message): 'I' | 'T' | 'E' | undefined =>
  type === 'Z' ? (String.fromCharCode(bytes[5]!) as 'I' | 'T' | 'E') : undefined;
