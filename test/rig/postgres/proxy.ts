// A line to a PostgreSQL server that can be harmed: slow, silent, cut, and cut at a chosen word of
// the protocol. One for each pair of ends, so that each pair is harmed by itself.
import { createConnection, createServer, type Server, type Socket } from 'node:net';
import { isCommit, type Message, Messages, statusOf } from './wire.ts';

/**
 * Where a line is cut. `statement` is one outside a transaction, which commits by itself; `Answer`
 * lets it reach the server and loses the answer, `InFlight` does not even wait for it.
 */
export const cutPoints = [
  'commit',
  'commitInFlight',
  'commitAnswer',
  'statement',
  'statementInFlight',
  'statementAnswer',
  'inTransaction',
] as const;
export type CutPoint = (typeof cutPoints)[number];

/**
 * `stalled`: nothing passes until the line is open again, then everything does; `silent`: what is
 * sent is lost, new connections too.
 */
export type LineMode = 'open' | 'stalled' | 'silent' | 'refusing';

/** A line with its listener on 127.0.0.1. */
export class Line {
  readonly name: string;
  readonly #target: () => string;
  readonly #server: Server;
  readonly #pairs = new Set<Pair>();
  readonly #armed: CutPoint[] = [];
  #mode: LineMode = 'open';
  #delayMs = 0;
  #cuts = 0;

  /** `target` is the path of the server's socket. */
  constructor(name: string, target: () => string) {
    this.name = name;
    this.#target = target;
    this.#server = createServer((near) => this.#accept(near));
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port;
  }

  get mode(): LineMode {
    return this.#mode;
  }

  get delayMs(): number {
    return this.#delayMs;
  }

  /** How often it was cut where it was told to. */
  get cuts(): number {
    return this.#cuts;
  }

  async listen(): Promise<this> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject).listen(0, '127.0.0.1', resolve);
    });
    return this;
  }

  /** Connections that lost something do not live on when the line opens. */
  setMode(mode: LineMode): void {
    const before = this.#mode;
    this.#mode = mode;
    if (before === 'silent') this.reset();
    for (const pair of [...this.#pairs]) {
      if (mode === 'stalled') pair.pause();
      else pair.resume();
    }
    if (mode === 'refusing') this.reset();
  }

  /** Each chunk waits for so long, in each direction. */
  setDelay(ms: number): void {
    this.#delayMs = ms;
  }

  /** The next connections that come to such a point are cut there, each once. */
  arm(...points: readonly CutPoint[]): void {
    this.#armed.push(...points);
  }

  disarm(): void {
    this.#armed.length = 0;
  }

  /** Cuts every connection. */
  reset(): void {
    for (const pair of [...this.#pairs]) pair.cut();
  }

  async close(): Promise<void> {
    this.reset();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
  }

  /** Whether a connection at this point is to be cut; asking uses it up. */
  takeCut(point: CutPoint): boolean {
    const at = this.#armed.indexOf(point);
    if (at < 0) return false;
    this.#armed.splice(at, 1);
    this.#cuts += 1;
    return true;
  }

  #accept(near: Socket): void {
    near.on('error', () => undefined);
    if (this.#mode === 'refusing') {
      near.resetAndDestroy();
      return;
    }
    const pair = new Pair(this, near, this.#target());
    this.#pairs.add(pair);
    pair.onEnd = () => this.#pairs.delete(pair);
    if (this.#mode === 'stalled') pair.pause();
  }
}

/** One connection: the client's socket and the server's. */
class Pair {
  onEnd: () => void = () => undefined;
  readonly #line: Line;
  readonly #near: Socket;
  readonly #far: Socket;
  readonly #fromClient = new Messages({ isFrontend: true });
  readonly #fromServer = new Messages({ isFrontend: false });
  #status: 'I' | 'T' | 'E' | undefined;
  /** The answer to what was just sent is lost. */
  #isDoomed = false;
  #isEnded = false;
  #isTls = false;

  constructor(line: Line, near: Socket, target: string) {
    this.#line = line;
    this.#near = near;
    this.#far = createConnection(target);
    near.setNoDelay(true);
    const [up, down] = [new Slow(line), new Slow(line)];
    near.on('data', (chunk: Buffer) => up.take(() => this.#takeFromClient(chunk)));
    this.#far.on('data', (chunk: Buffer) => down.take(() => this.#takeFromServer(chunk)));
    // A server that went away takes the client's connection with it, unless nothing passes at all.
    this.#far.on('error', () => this.#endUnlessSilent());
    this.#far.on('close', () => this.#endUnlessSilent());
    near.on('close', () => this.#end());
  }

  pause(): void {
    this.#near.pause();
    this.#far.pause();
  }

  resume(): void {
    this.#near.resume();
    this.#far.resume();
  }

  /** Both ends are reset. */
  cut(): void {
    if (!this.#near.destroyed) this.#near.resetAndDestroy();
    this.#end();
  }

  #takeFromClient(chunk: Buffer): void {
    if (this.#isEnded || this.#line.mode === 'silent') return;
    if (this.#isTls) this.#far.write(chunk);
    else for (const message of this.#fromClient.push(chunk)) this.#forward(message);
  }

  #forward(message: Message): void {
    if (this.#isEnded) return;
    const point = this.#pointOf(message);
    if (point !== undefined && this.#line.takeCut(point)) this.cut();
    else if (isCommitting(point) && this.#line.takeCut(`${point}InFlight`)) this.#abandon(message);
    else {
      if (isCommitting(point) && this.#line.takeCut(`${point}Answer`)) this.#isDoomed = true;
      this.#far.write(message.bytes);
    }
  }

  /** The server gets it; it is not told that nobody waits. */
  #abandon({ type, bytes }: Message): void {
    this.#isEnded = true;
    this.#far.write(bytes);
    if (type === 'E') this.#far.write(sync);
    this.#near.resetAndDestroy();
    this.#far.end();
    this.onEnd();
  }

  #pointOf(message: Message): 'commit' | 'statement' | 'inTransaction' | undefined {
    if (isCommit(message)) return 'commit';
    if (this.#status === 'I') return message.type === 'E' ? 'statement' : undefined;
    return this.#status === 'T' && (message.type === 'E' || message.type === 'Q')
      ? 'inTransaction'
      : undefined;
  }

  #takeFromServer(chunk: Buffer): void {
    if (this.#isEnded || this.#line.mode === 'silent') return;
    if (!this.#isDoomed) this.#near.write(chunk);
    if (this.#isTls) return;
    // The one byte that answers a request for TLS is no message.
    if (this.#status === undefined && chunk.length === 1) {
      this.#isTls = chunk[0] === 0x53;
      return;
    }
    for (const message of this.#fromServer.push(chunk)) {
      this.#status = statusOf(message) ?? this.#status;
      if (this.#isDoomed && message.type === 'Z') this.cut();
    }
  }

  #endUnlessSilent(): void {
    if (this.#line.mode !== 'silent') this.#end();
  }

  #end(): void {
    if (!this.#isEnded) {
      this.#isEnded = true;
      this.onEnd();
    }
    this.#near.destroy();
    this.#far.destroy();
  }
}

/** One direction: what comes later never overtakes, however the delay changes. */
class Slow {
  readonly #line: Line;
  readonly #waiting: { act: () => void; dueAt: number }[] = [];
  constructor(line: Line) {
    this.#line = line;
  }

  take(act: () => void): void {
    if (this.#line.delayMs === 0 && this.#waiting.length === 0) {
      act();
      return;
    }
    this.#waiting.push({ act, dueAt: performance.now() + this.#line.delayMs });
    if (this.#waiting.length === 1) this.#wait();
  }

  #wait(): void {
    const next = this.#waiting[0];
    if (next === undefined) return;
    setTimeout(
      () => {
        this.#waiting.shift();
        next.act();
        this.#wait();
      },
      Math.max(0, next.dueAt - performance.now()),
    );
  }
}

const isCommitting = (point: string | undefined): point is 'commit' | 'statement' =>
  point === 'commit' || point === 'statement';

const sync = Buffer.from([0x53, 0, 0, 0, 4]);
