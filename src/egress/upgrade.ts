// A request that wants to become something else than an exchange, over a connection of its own.
import { type IncomingMessage, request as httpRequest } from 'node:http';
import type { Socket } from 'node:net';

export interface Upgrade {
  readonly path: string;
  /** All of them, Host included. */
  readonly headers: Readonly<Record<string, string | readonly string[]>>;
  readonly signal: AbortSignal;
}

/** How the other side answered; with the open connection where it said 101. */
export interface Upgraded {
  readonly answer: IncomingMessage;
  readonly open:
    | {
        readonly socket: Socket;
        /** What came right behind the answer. */
        readonly head: Buffer;
      }
    | undefined;
}

/** Asks with GET. Throws what the connection throws; whoever gets an answer ends it. */
export function upgradeOver(socket: Socket, { path, headers, signal }: Upgrade): Promise<Upgraded> {
  const { promise, resolve, reject } = Promise.withResolvers<Upgraded>();
  httpRequest({
    createConnection: () => socket,
    setHost: false,
    method: 'GET',
    path,
    signal,
    headers: headers as Record<string, string | string[]>,
  })
    .on('error', reject)
    .on('response', (answer) => {
      // SECURITY: an error that nobody takes ends the process.
      answer.on('error', () => undefined);
      resolve({ answer, open: undefined });
    })
    .on('upgrade', (answer, upgraded: Socket, head: Buffer) => {
      upgraded.on('error', () => undefined);
      resolve({ answer, open: { socket: upgraded, head } });
    })
    .end();
  return promise;
}
