// An open WebSocket: frames pass in both directions as they come, those of the upstream without the
// secret, until either side closes, the right behind it is gone, or its time is over.
import type { Socket } from 'node:net';
import type { BudgetRoom } from '../shared/budget.ts';
import {
  type Close,
  closePayload,
  type Frame,
  frameBytes,
  FrameInvalid,
  FrameReader,
  opcodes,
  readClose,
} from './frames.ts';
import type { RedactionStream, Redactor } from './redaction/redactor.ts';

/** Times of open WebSockets, in milliseconds. */
export interface WebSocketTimes {
  /** Without a byte in either direction. */
  readonly idleMs: number;
  /** From one asking of the rights to the next. */
  readonly askMs: number;
  /** From one event to the next. */
  readonly eventMs: number;
  readonly longestMs: number;
  /** How long the other side has to answer a close. */
  readonly closeMs: number;
}
export const webSocketTimes: WebSocketTimes = {
  idleMs: 10 * 60_000,
  askMs: 60_000,
  eventMs: 60 * 60_000,
  longestMs: 12 * 60 * 60_000,
  closeMs: 5_000,
};
/** How often in a row the rights may not be known. */
const unaskedMax = 2;

/** How it ended. `failure` where the vault ended it, or a side broke off. */
export interface TunnelEnd {
  readonly code: number;
  readonly failure?: string;
}

export interface TunnelParts {
  readonly caller: Socket;
  readonly upstream: Socket;
  readonly redactor: Redactor;
  readonly limits: { readonly requestBytes: number; readonly responseBytes: number };
  readonly times: WebSocketTimes;
  /** Whether all rights still stand; rejects where that cannot be known now. */
  readonly isAllowed: () => Promise<boolean>;
  /** Told each hour. */
  readonly onEvent: () => void;
  readonly onBytes: (grantPath: 'up' | 'down', bytes: number, passed: number) => void;
  /** Room for a large frame. Throws where there is none. */
  readonly enter: (bytes: number) => BudgetRoom;
}

/** One direction. */
interface GrantPath {
  readonly from: Socket;
  readonly to: Socket;
  readonly reader: FrameReader;
  /** Towards the upstream, where frames are masked. */
  readonly isUp: boolean;
  readonly bytesMax: number;
  /** Bytes of the message that is under way. */
  bytes: number;
  /** Whether the message's first frame has gone out; its kind stands there. */
  kind: Frame['opcode'] | undefined;
  stream: RedactionStream | undefined;
  /** Its sender has closed. */
  isClosed: boolean;
  /** A close has gone to where it leads. */
  hasSent: boolean;
}

/** Carries frames. */
export class Tunnel {
  readonly #parts: TunnelParts;
  readonly #up: GrantPath;
  readonly #down: GrantPath;
  readonly #ended = Promise.withResolvers<TunnelEnd>();
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #idle: NodeJS.Timeout;
  #ending: TunnelEnd | undefined;
  #unasked = 0;
  #isOver = false;

  constructor(parts: TunnelParts) {
    this.#parts = parts;
    const { caller, upstream, limits, times } = parts;
    this.#up = this.#grantPath(caller, upstream, true, limits.requestBytes);
    this.#down = this.#grantPath(upstream, caller, false, limits.responseBytes);
    this.#idle = setTimeout(() => {
      this.close({ code: 1001, reason: 'idle' }, 'idle');
    }, times.idleMs);
    this.#timers.push(
      setTimeout(() => {
        this.close({ code: 1001, reason: 'open for too long' }, 'longest');
      }, times.longestMs),
      setInterval(parts.onEvent, times.eventMs),
    );
    this.#askLater();
  }

  /** When both sides are closed. Begins with what came before it was open. */
  run(heads: { readonly caller: Buffer; readonly upstream: Buffer }): Promise<TunnelEnd> {
    this.#listen(this.#down, heads.upstream);
    this.#listen(this.#up, heads.caller);
    return this.#ended.promise;
  }

  /** Closes both sides in order; the first reason counts. */
  close(close: Close, failure?: string, toUpstream: Close = close): void {
    if (this.#ending !== undefined) return;
    this.#begin({ code: close.code, ...(failure === undefined ? {} : { failure }) });
    this.#send(this.#down, close);
    this.#send(this.#up, toUpstream);
    this.#finishIfClosed();
  }

  #grantPath(from: Socket, to: Socket, isUp: boolean, bytesMax: number): GrantPath {
    let room: BudgetRoom | undefined;
    let held = 0;
    const reader = new FrameReader({
      isMasked: isUp,
      onHeld: (bytes) => {
        if (bytes === held) return;
        held = bytes;
        room?.leave();
        room = bytes > 65_536 ? this.#parts.enter(bytes) : undefined;
      },
    });
    from.once('close', () => room?.leave());
    return {
      from,
      to,
      reader,
      isUp,
      bytesMax,
      bytes: 0,
      kind: undefined,
      stream: undefined,
      isClosed: false,
      hasSent: false,
    };
  }

  #listen(grantPath: GrantPath, head: Buffer): void {
    const { from } = grantPath;
    from
      .on('error', () => undefined)
      .on('close', () => {
        this.#gone(grantPath);
      })
      .on('end', () => {
        this.#gone(grantPath);
      })
      .on('data', (chunk: Buffer) => {
        this.#read(grantPath, chunk);
      });
    if (head.length > 0) this.#read(grantPath, head);
    if (from.destroyed) this.#gone(grantPath);
  }

  #read(grantPath: GrantPath, chunk: Buffer): void {
    if (grantPath.isClosed || this.#isOver) return;
    this.#idle.refresh();
    try {
      for (const frame of grantPath.reader.push(chunk)) {
        if (frame.opcode === opcodes.close) {
          this.#closedBy(grantPath, readClose(frame.payload));
          return;
        }
        this.#pass(grantPath, frame);
      }
    } catch (error) {
      const code = error instanceof FrameInvalid ? error.code : 1013;
      grantPath.isClosed = true; // nothing more of it can be read
      const failure = code === 1009 ? 'size' : code === 1013 ? 'rateLimited' : 'frames';
      const elsewhere = grantPath.isUp || code === 1009 ? code : 1014;
      if (grantPath.isUp) this.close({ code, reason: '' }, failure, { code: 1001, reason: '' });
      else this.close({ code: elsewhere, reason: '' }, failure, { code, reason: '' });
    }
  }

  #pass(grantPath: GrantPath, frame: Frame): void {
    if (this.#ending !== undefined) return; // then only a close counts
    const { length } = frame.payload;
    if (frame.opcode === opcodes.ping || frame.opcode === opcodes.pong) {
      const text = grantPath.isUp ? undefined : this.#clean(frame.payload.toString('latin1'));
      const payload =
        text === undefined ? frame.payload : Buffer.from(text, 'latin1').subarray(0, 125);
      this.#write(grantPath, { ...frame, payload }, length);
      return;
    }
    grantPath.bytes += length;
    if (grantPath.bytes > grantPath.bytesMax) throw new FrameInvalid(1009);
    grantPath.kind ??= frame.opcode;
    const payload = grantPath.isUp ? frame.payload : this.#redacted(grantPath, frame);
    if (payload.length > 0 || frame.isFinal)
      this.#write(grantPath, { opcode: grantPath.kind, isFinal: frame.isFinal, payload }, length);
    if (payload.length > 0) grantPath.kind = opcodes.more;
    if (!frame.isFinal) return;
    grantPath.bytes = 0;
    grantPath.kind = undefined;
    grantPath.stream = undefined;
  }

  /** SECURITY: of a message, over the borders of its frames, as of a body. */
  #redacted(grantPath: GrantPath, { payload, isFinal }: Frame): Buffer {
    grantPath.stream ??= this.#parts.redactor.stream();
    const passed = grantPath.stream.push(payload);
    return isFinal ? Buffer.concat([passed, grantPath.stream.end()]) : passed;
  }

  #clean(text: string): string {
    return this.#parts.redactor.text(text);
  }

  #write(grantPath: GrantPath, frame: Frame, came: number): void {
    const { from, to, isUp } = grantPath;
    this.#parts.onBytes(isUp ? 'up' : 'down', came, frame.payload.length);
    if (to.write(frameBytes(frame, isUp)) || from.isPaused()) return;
    // What one side does not take, the other one is not asked for.
    from.pause();
    to.once('drain', () => {
      this.#idle.refresh();
      from.resume();
    });
  }

  /** The sender of this direction has said that it is over. */
  #closedBy(grantPath: GrantPath, close: Close): void {
    grantPath.isClosed = true;
    const reason = grantPath.isUp
      ? close.reason
      : Buffer.from(this.#clean(Buffer.from(close.reason).toString('latin1')), 'latin1').toString();
    if (this.#ending === undefined) this.#begin({ code: close.code });
    this.#send(grantPath, { code: close.code, reason });
    this.#finishIfClosed();
  }

  /** A side has gone without a word. */
  #gone(grantPath: GrantPath): void {
    if (grantPath.isClosed && this.#ending === undefined) return;
    grantPath.isClosed = true;
    const [code, failure] = grantPath.isUp ? [1001, 'callerGone'] : [1014, 'response'];
    this.close({ code, reason: '' }, failure);
    this.#finishIfClosed();
  }

  #begin(ending: TunnelEnd): void {
    this.#ending = ending;
    for (const timer of this.#timers) clearTimeout(timer);
    clearTimeout(this.#idle);
    this.#timers.push(
      setTimeout(() => {
        this.#finish();
      }, this.#parts.times.closeMs),
    );
    // Paused for want of room at the other side, it could never say that it has closed.
    for (const { from } of [this.#up, this.#down]) from.resume();
  }

  /** A close frame to where the direction leads. */
  #send(grantPath: GrantPath, close: Close): void {
    const { to, isUp } = grantPath;
    if (grantPath.hasSent || !to.writable) return;
    grantPath.hasSent = true;
    to.write(
      frameBytes({ opcode: opcodes.close, isFinal: true, payload: closePayload(close) }, isUp),
    );
  }

  #finishIfClosed(): void {
    if (this.#up.isClosed && this.#down.isClosed) this.#finish();
  }

  #finish(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    for (const timer of this.#timers) clearTimeout(timer);
    const { caller, upstream, times } = this.#parts;
    for (const grantPath of [this.#up, this.#down])
      this.#send(grantPath, { code: this.#ending?.code ?? 1001, reason: '' });
    for (const socket of [caller, upstream]) {
      socket.end();
      // Its last frame may still be on its way to somebody who reads slowly.
      const timer = setTimeout(() => socket.destroy(), times.closeMs).unref();
      socket.resume().once('close', () => {
        clearTimeout(timer);
      });
    }
    this.#ended.resolve(this.#ending ?? { code: 1006 });
  }

  #askLater(): void {
    this.#timers.push(
      setTimeout(() => {
        void this.#ask();
      }, this.#parts.times.askMs),
    );
  }

  async #ask(): Promise<void> {
    try {
      const isAllowed = await this.#parts.isAllowed();
      this.#unasked = 0;
      if (!isAllowed) this.close({ code: 1008, reason: 'not allowed any more' }, 'notAllowed');
    } catch {
      this.#unasked += 1;
      if (this.#unasked >= unaskedMax)
        this.close({ code: 1013, reason: 'try again later' }, 'notKnown');
    }
    if (this.#ending === undefined) this.#askLater();
  }
}
