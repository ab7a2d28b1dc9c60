// Frames of a WebSocket (RFC 6455, 5) as they are, one by one, without extensions: what is not a
// frame by the letter ends the connection.
import { randomBytes } from 'node:crypto';

export const frameBytesMax = 1024 * 1024;
const controlBytesMax = 125;
const headBytesMax = 14;

/** `close`, `ping`, `pong`; or a part of a message, the first one with its kind. */
export interface Frame {
  readonly opcode: Opcode;
  readonly isFinal: boolean;
  readonly payload: Buffer;
}
export type Opcode = 0 | 1 | 2 | 8 | 9 | 10;
export const opcodes = { more: 0, text: 1, binary: 2, close: 8, ping: 9, pong: 10 } as const;
const known: ReadonlySet<number> = new Set(Object.values(opcodes));

/** The other side broke the protocol, or a bound; `code` is what the connection is closed with. */
export class FrameInvalid extends Error {
  readonly code: 1002 | 1007 | 1009;
  constructor(code: 1002 | 1007 | 1009) {
    super(`frames that are closed with ${code}`);
    this.name = 'FrameInvalid';
    this.code = code;
  }
}

interface Head {
  readonly isFinal: boolean;
  readonly opcode: Opcode;
  readonly mask: Buffer | undefined;
  readonly headBytes: number;
  readonly payloadBytes: number;
}

/** Reads frames out of what comes. A client's are masked, a server's are not. */
export class FrameReader {
  readonly #isMasked: boolean;
  /** Told how many bytes of frames are held, before they are; throws where there is no room. */
  readonly #onHeld: (bytes: number) => void;
  #chunks: Buffer[] = [];
  #held = 0;
  #head: Head | undefined;
  #isInMessage = false;

  constructor({
    isMasked,
    onHeld = () => undefined,
  }: {
    isMasked: boolean;
    onHeld?: (bytes: number) => void;
  }) {
    this.#isMasked = isMasked;
    this.#onHeld = onHeld;
  }

  /**
   * The frames that are whole with this piece. Throws FrameInvalid when it comes to a wrong one.
   */
  *push(chunk: Buffer): Generator<Frame> {
    this.#chunks.push(chunk);
    this.#held += chunk.length;
    for (;;) {
      const head = (this.#head ??= this.#readHead());
      if (head === undefined || this.#held < head.headBytes + head.payloadBytes) {
        this.#onHeld(head === undefined ? 0 : head.payloadBytes);
        return;
      }
      this.#onHeld(0);
      this.#head = undefined;
      this.#take(head.headBytes);
      const payload = this.#take(head.payloadBytes);
      if (head.mask !== undefined) applyMask(payload, head.mask);
      yield { opcode: head.opcode, isFinal: head.isFinal, payload };
    }
  }

  #readHead(): Head | undefined {
    if (this.#held < 2) return undefined;
    const bytes = this.#peek(Math.min(this.#held, headBytesMax));
    const [first = 0, second = 0] = bytes;
    const opcode = first & 0x0f;
    const isFinal = (first & 0x80) !== 0;
    const isMasked = (second & 0x80) !== 0;
    // SECURITY: reserved bits are extensions, and none was agreed on: what they mean, compression
    // above all, nobody here could look through.
    if ((first & 0x70) !== 0 || !isOpcode(opcode) || isMasked !== this.#isMasked)
      throw new FrameInvalid(1002);
    const short = second & 0x7f;
    const isControl = opcode >= opcodes.close;
    if (isControl && (!isFinal || short > controlBytesMax)) throw new FrameInvalid(1002);
    const lengthBytes = short === 127 ? 8 : short === 126 ? 2 : 0;
    const headBytes = 2 + lengthBytes + (isMasked ? 4 : 0);
    if (bytes.length < 2 + lengthBytes) return undefined;
    const length =
      lengthBytes === 8
        ? bytes.readBigUInt64BE(2)
        : BigInt(lengthBytes === 2 ? bytes.readUInt16BE(2) : short);
    if (length < (lengthBytes === 8 ? 65_536n : lengthBytes === 2 ? 126n : 0n))
      throw new FrameInvalid(1002); // there is one way to say a length
    if (length > BigInt(frameBytesMax)) throw new FrameInvalid(1009);
    if (bytes.length < headBytes) return undefined;
    if (!isControl) {
      if ((opcode === opcodes.more) !== this.#isInMessage) throw new FrameInvalid(1002);
      this.#isInMessage = !isFinal;
    }
    const mask = isMasked ? Buffer.from(bytes.subarray(headBytes - 4, headBytes)) : undefined;
    return { isFinal, opcode, mask, headBytes, payloadBytes: Number(length) };
  }

  #peek(count: number): Buffer {
    if (this.#chunks[0]!.length < count) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0]!.subarray(0, count);
  }

  /** The next bytes, in memory of their own. */
  #take(count: number): Buffer {
    const taken = Buffer.allocUnsafe(count);
    let at = 0;
    while (at < count) {
      const chunk = this.#chunks[0]!;
      const used = chunk.copy(taken, at, 0, Math.min(chunk.length, count - at));
      at += used;
      if (used === chunk.length) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(used);
    }
    this.#held -= count;
    return taken;
  }
}

const isOpcode = (opcode: number): opcode is Opcode => known.has(opcode);

function applyMask(payload: Buffer, mask: Buffer): void {
  for (let i = 0; i < payload.length; i += 1) payload[i]! ^= mask[i & 3]!;
}

/** A frame as bytes; masked for a server, with a mask of its own. The payload may be changed. */
export function frameBytes({ opcode, isFinal, payload }: Frame, isMasked: boolean): Buffer {
  const { length } = payload;
  const lengthBytes = length > 0xffff ? 8 : length > 125 ? 2 : 0;
  const head = Buffer.alloc(2 + lengthBytes + (isMasked ? 4 : 0));
  head[0] = (isFinal ? 0x80 : 0) | opcode;
  head[1] = (isMasked ? 0x80 : 0) | (lengthBytes === 8 ? 127 : lengthBytes === 2 ? 126 : length);
  if (lengthBytes === 8) head.writeBigUInt64BE(BigInt(length), 2);
  else if (lengthBytes === 2) head.writeUInt16BE(length, 2);
  if (!isMasked) return Buffer.concat([head, payload]);
  const mask = randomBytes(4);
  mask.copy(head, head.length - 4);
  applyMask(payload, mask);
  return Buffer.concat([head, payload]);
}

export interface Close {
  /** 1005 where none was said. */
  readonly code: number;
  readonly reason: string;
}

/** What a close frame says. Throws FrameInvalid for what none may say. */
export function readClose(payload: Buffer): Close {
  if (payload.length === 0) return { code: 1005, reason: '' };
  if (payload.length === 1) throw new FrameInvalid(1002);
  const code = payload.readUInt16BE(0);
  if (!mayBeSent(code)) throw new FrameInvalid(1002);
  try {
    return { code, reason: new TextDecoder('utf-8', { fatal: true }).decode(payload.subarray(2)) };
  } catch {
    throw new FrameInvalid(1007);
  }
}

const mayBeSent = (code: number): boolean =>
  (code >= 1000 && code <= 1014 && code !== 1004 && code !== 1005 && code !== 1006) ||
  (code >= 3000 && code <= 4999);

/** A close frame's payload; the reason is cut where it does not fit. */
export function closePayload({ code, reason }: Close): Buffer {
  if (code === 1005) return Buffer.alloc(0);
  let text = reason;
  while (Buffer.byteLength(text) > controlBytesMax - 2) text = text.slice(0, -1);
  const payload = Buffer.alloc(2 + Buffer.byteLength(text));
  payload.writeUInt16BE(code, 0);
  payload.write(text, 2);
  return payload;
}
