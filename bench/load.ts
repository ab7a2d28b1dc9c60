// The load: keep-alive connections that each send the next request when the last answer is
// complete. Plain sockets and no HTTP client, so that the machine's cores are left to what is
// measured. An answer that is not 2xx ends the run.
import { connect, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';

export interface Load {
  readonly port: number;
  readonly connections: number;
  /** How long, or how many requests in all. */
  readonly until: { readonly seconds: number } | { readonly requests: number };
  /** The bytes of the next request; see `requestText`. */
  readonly next: () => string;
  readonly onAnswer?: (body: string) => void;
  /** How long each connection waits after an answer; not at all where it is left out. */
  readonly pauseMs?: number;
}

export interface Figures {
  readonly requests: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
}

/** The server gave an answer that no measurement may rest on. */
export class WrongAnswer extends Error {
  override name = 'WrongAnswer';
}

/** An HTTP/1.1 request. */
export function requestText(method: string, path: string, token: string, body?: unknown): string {
  const head = `${method} ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer ${token}\r\n`;
  if (body === undefined) return `${head}\r\n`;
  const text = JSON.stringify(body);
  return `${head}content-type: application/json\r\ncontent-length: ${Buffer.byteLength(text)}\r\n\r\n${text}`;
}

/** Runs the load and says what came of it. */
export async function runLoad(load: Load): Promise<Figures> {
  const latencies: number[] = [];
  const begun = performance.now();
  const deadline = 'seconds' in load.until ? begun + load.until.seconds * 1000 : Infinity;
  const requestsMax = 'requests' in load.until ? load.until.requests : Infinity;
  let sent = 0;
  let end = begun;
  let isFailed = false;
  await Promise.all(
    Array.from({ length: load.connections }, async () => {
      const connection = await open(load.port);
      try {
        while (performance.now() < deadline && sent < requestsMax && !isFailed) {
          sent += 1;
          const at = performance.now();
          const body = await connection.ask(load.next());
          const now = performance.now();
          // What is answered after the end would count a time in which not every connection was
          // busy.
          if (now <= deadline) {
            latencies.push(now - at);
            end = Math.max(end, now);
          }
          load.onAnswer?.(body);
          if (load.pauseMs !== undefined) await delay(load.pauseMs);
        }
      } catch (error) {
        isFailed = true;
        throw error;
      } finally {
        connection.close();
      }
    }),
  );
  return {
    ...quantiles(latencies),
    requests: latencies.length,
    perSecond: latencies.length / ((end - begun) / 1000),
  };
}

/** The middle and the slowest hundredth, ms. */
export function quantiles(latencies: readonly number[]): {
  readonly p50Ms: number;
  readonly p99Ms: number;
} {
  const sorted = latencies.toSorted((a, b) => a - b);
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}

/** One request on a connection of its own; the body of the answer. */
export async function ask(port: number, request: string): Promise<string> {
  const connection = await open(port);
  try {
    return await connection.ask(request);
  } finally {
    connection.close();
  }
}

export interface Connection {
  ask(request: string): Promise<string>;
  close(): void;
}

/** A connection for one request after the other. */
export async function open(port: number): Promise<Connection> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve);
    socket.once('error', reject);
  });
  let pending: { resolve: (body: string) => void; reject: (error: Error) => void } | undefined;
  let received: Buffer = Buffer.alloc(0);
  const fail = (error: Error): void => {
    pending?.reject(error);
    pending = undefined;
  };
  socket.on('error', fail);
  socket.on('close', () => {
    fail(new WrongAnswer('the server closed the connection'));
  });
  socket.on('data', (chunk: Buffer) => {
    received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
    const answer = readAnswer(received);
    if (answer === undefined) return;
    received = Buffer.alloc(0);
    if (answer.status < 200 || answer.status > 299)
      return fail(new WrongAnswer(`${answer.status} ${answer.body.slice(0, 500)}`));
    pending?.resolve(answer.body);
    pending = undefined;
  });
  return {
    ask: (request) =>
      new Promise((resolve, reject) => {
        pending = { resolve, reject };
        send(socket, request);
      }),
    close: () => {
      socket.destroy();
    },
  };
}

const send = (socket: Socket, request: string): void => {
  socket.write(request);
};
const headEnd = Buffer.from('\r\n\r\n');

/** The answer in the bytes, if it is complete. Every answer of these servers says its length. */
function readAnswer(bytes: Buffer): { status: number; body: string } | undefined {
  const end = bytes.indexOf(headEnd);
  if (end < 0) return undefined;
  const head = bytes.toString('latin1', 0, end);
  const length = Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0);
  if (bytes.length < end + headEnd.length + length) return undefined;
  return {
    status: Number(head.slice(9, 12)),
    body: bytes.toString('utf8', end + headEnd.length, end + headEnd.length + length),
  };
}
