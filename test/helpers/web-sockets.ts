// WebSockets through the broker of a stage: a real client and a real server (ws), and bytes that
// neither of them would send.
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { connect, type Socket } from 'node:net';
import WebSocket, { type ClientOptions, WebSocketServer } from 'ws';
import { acceptOf } from '../../src/broker/handshake.ts';
import type { BrokerStage, Ticket } from './broker.ts';
import { until } from './processes.ts';

interface Teardown {
  teardown(action: () => unknown): unknown;
}
export interface Heard {
  readonly text: string;
  readonly isBinary: boolean;
}
/** A client with all that it hears. */
export interface Client {
  readonly socket: WebSocket;
  readonly heard: Heard[];
  readonly pings: string[];
  /** What it is closed with. */
  readonly closed: Promise<{ code: number; reason: string }>;
}

/** A server of WebSockets at the stage's upstream. */
export function serverOf(
  t: Teardown,
  stage: BrokerStage,
  onSocket: (socket: WebSocket, request: IncomingMessage) => void,
): WebSocketServer {
  const server = new WebSocketServer({
    server: stage.upstream.server,
    perMessageDeflate: true,
    handleProtocols: (protocols) => [...protocols][0] ?? false,
  });
  server.on('connection', (socket, request) => {
    socket.on('error', () => undefined);
    onSocket(socket, request);
  });
  t.teardown(() => {
    for (const socket of server.clients) socket.terminate();
    server.close();
    stage.upstream.server.removeAllListeners('upgrade');
  });
  return server;
}

/** Connects through the broker; what is answered instead is in the error. */
export async function clientOf(
  stage: BrokerStage,
  {
    ticket = stage.ticket,
    path = 'live',
    protocols = [],
    headers = {},
  }: {
    ticket?: Ticket;
    path?: string;
    protocols?: string[];
    headers?: Record<string, string>;
  } = {},
  options: ClientOptions = {},
): Promise<Client> {
  const socket = new WebSocket(`${ticket.baseUrl.replace(/^http/, 'ws')}${path}`, protocols, {
    headers: { authorization: `Bearer ${ticket.ticket}`, ...headers },
    ...options,
  });
  const heard: Heard[] = [];
  const pings: string[] = [];
  socket.on('message', (data: Buffer, isBinary) => {
    heard.push({ text: data.toString('latin1'), isBinary });
  });
  socket.on('ping', (data: Buffer) => {
    pings.push(data.toString('latin1'));
  });
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    socket.on('close', (code, reason) => {
      resolve({ code, reason: String(reason) });
    });
  });
  socket.on('error', () => undefined);
  await new Promise<void>((resolve, reject) => {
    socket.once('open', resolve);
    socket.once('unexpected-response', (_request, response: IncomingMessage) => {
      void (async () => {
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk as Buffer);
        reject(
          Object.assign(new Error(`answered ${response.statusCode}`), {
            status: response.statusCode,
            headers: response.headers,
            text: Buffer.concat(chunks).toString(),
          }),
        );
      })();
    });
    socket.once('error', reject);
  });
  return { socket, heard, pings, closed };
}

/** The answer to a handshake that fails. */
export const refusedOf = (
  asked: Promise<Client>,
): Promise<{ status: number; headers: Record<string, string>; text: string }> =>
  asked.then(
    () => {
      throw new Error('the WebSocket was opened');
    },
    (error: { status: number; headers: Record<string, string>; text: string }) => error,
  );

/** A handshake on a bare connection; the socket, what came behind its head, and its status. */
export async function rawClient(
  stage: BrokerStage,
  more: { head?: string; path?: string } = {},
): Promise<{ socket: Socket; status: number; heard: () => Buffer; closed: Promise<unknown> }> {
  const socket = connect(stage.port, '127.0.0.1');
  let all = Buffer.alloc(0);
  socket
    .on('error', () => undefined)
    .on('data', (chunk: Buffer) => {
      all = Buffer.concat([all, chunk]);
    });
  const closed = once(socket, 'close');
  const { pathname } = new URL(stage.ticket.baseUrl);
  socket.write(
    `GET ${pathname}${more.path ?? 'live'} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${stage.ticket.ticket}\r\nConnection: Upgrade\r\n` +
      `Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n${more.head ?? ''}`,
    'latin1',
  );
  await until(() => all.includes('\r\n\r\n'));
  const end = all.indexOf('\r\n\r\n') + 4;
  const status = Number(/^HTTP\/1\.1 (\d+)/.exec(all.toString('latin1'))?.[1]);
  return { socket, status, heard: () => all.subarray(end), closed };
}

/** The stage's upstream answers handshakes by these lines and sends these bytes; `{accept}` is right. */
export function rawServer(
  t: Teardown,
  stage: BrokerStage,
  lines: readonly string[],
  then: (socket: Socket) => void = () => undefined,
): void {
  const answer = (request: IncomingMessage, socket: Socket): void => {
    socket.on('error', () => undefined);
    const accept = acceptOf(String(request.headers['sec-websocket-key']));
    socket.write(`${lines.join('\r\n').replace('{accept}', accept)}\r\n\r\n`, 'latin1');
    then(socket);
  };
  stage.upstream.server.on('upgrade', answer);
  t.teardown(() => {
    stage.upstream.server.off('upgrade', answer);
  });
}

/** A frame by hand: first byte, mask bit or not, payload. */
export function rawFrame(first: number, payload: Buffer | string, isMasked = true): Buffer {
  const bytes = Buffer.from(payload);
  const length =
    bytes.length > 125
      ? Buffer.from([(isMasked ? 0x80 : 0) | 126, bytes.length >> 8, bytes.length & 0xff])
      : Buffer.from([(isMasked ? 0x80 : 0) | bytes.length]);
  return Buffer.concat([
    Buffer.from([first]),
    length,
    isMasked ? Buffer.alloc(4) : Buffer.alloc(0),
    bytes,
  ]);
}
