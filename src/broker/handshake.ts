// The handshakes of a WebSocket (RFC 6455, 4): the caller's with the broker, and the broker's own
// with the upstream. Neither has an extension.
import { hash, randomBytes } from 'node:crypto';
import { type IncomingHttpHeaders, type IncomingMessage, request as httpRequest } from 'node:http';
import type { Socket } from 'node:net';
import { BrokerRefusal } from './refusal.ts';

const magic = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
/** What the key has to be answered with. */
export const acceptOf = (key: string): string => hash('sha1', `${key}${magic}`, 'base64');
const keyForm = /^[A-Za-z0-9+/]{21}[AQgw]==$/;

const listed = (value: string | undefined): string[] =>
  (value ?? '')
    .split(',')
    .map((item) => item.trim())
    .filter((item) => item !== '');
const has = (value: string | undefined, word: string): boolean =>
  listed(value).some((item) => item.toLowerCase() === word);

/** Whether a request wants to become a WebSocket. */
export const isWebSocket = ({ headers }: { readonly headers: IncomingHttpHeaders }): boolean =>
  headers.upgrade?.toLowerCase() === 'websocket';

/** Of the caller's handshake what counts. */
export interface Asked {
  readonly key: string;
  readonly protocols: readonly string[];
}

/** Throws BrokerRefusal `handshake` for what is none by the letter. */
export function checkHandshake({ headers, method, httpVersion }: IncomingMessage): Asked {
  const key = headers['sec-websocket-key'] ?? '';
  const protocols = listed(headers['sec-websocket-protocol']);
  if (
    method !== 'GET' ||
    httpVersion !== '1.1' ||
    !has(headers.connection, 'upgrade') ||
    headers['sec-websocket-version'] !== '13' ||
    !keyForm.test(key) ||
    (headers['content-length'] ?? '0') !== '0' ||
    headers['transfer-encoding'] !== undefined ||
    new Set(protocols).size !== protocols.length ||
    // SECURITY: a ticket there would go on to the upstream, or come back as what was agreed on.
    protocols.some((protocol) => !/^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(protocol)) ||
    protocols.some((protocol) => protocol.includes('vbt_'))
  )
    throw new BrokerRefusal('handshake');
  return { key, protocols };
}

/** Headers of a handshake that belong to one connection. */
export const isOfHandshake = (name: string): boolean => name.startsWith('sec-websocket-');

/** How the upstream answered: with an open socket, or with an answer like any other. */
export type Handshake =
  | {
      readonly kind: 'open';
      readonly headers: IncomingHttpHeaders;
      readonly socket: Socket;
      /** What it sent right behind its answer. */
      readonly head: Buffer;
      readonly protocol: string | undefined;
    }
  | { readonly kind: 'answer'; readonly answer: IncomingMessage };

/**
 * Asks the upstream over a connection of its own. Throws what the connection throws, and
 * BrokerRefusal `upstreamHandshake` for a 101 that does not belong to what was asked.
 */
export function shakeHands(
  socket: Socket,
  {
    path,
    headers,
    protocols,
    signal,
  }: {
    readonly path: string;
    readonly headers: Readonly<Record<string, string | string[]>>;
    readonly protocols: readonly string[];
    readonly signal: AbortSignal;
  },
): Promise<Handshake> {
  const key = randomBytes(16).toString('base64');
  const own = Object.fromEntries(Object.entries(headers).filter(([name]) => !isOfHandshake(name)));
  const { promise, resolve, reject } = Promise.withResolvers<Handshake>();
  const request = httpRequest({
    createConnection: () => socket,
    setHost: false,
    method: 'GET',
    path,
    signal,
    headers: {
      ...own,
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': key,
      ...(protocols.length === 0 ? {} : { 'sec-websocket-protocol': protocols.join(', ') }),
    },
  });
  request
    .on('error', reject)
    .on('response', (answer) => {
      answer.on('error', () => undefined);
      if (answer.statusCode === 101) {
        answer.destroy();
        reject(new BrokerRefusal('upstreamHandshake'));
      } else resolve({ kind: 'answer', answer });
    })
    .on('upgrade', (answer, upgraded: Socket, head: Buffer) => {
      // SECURITY: an error that nobody takes ends the process.
      upgraded.on('error', () => undefined);
      const { headers: said, statusCode } = answer;
      const protocol = said['sec-websocket-protocol'];
      const isAnswer =
        statusCode === 101 &&
        has(said.upgrade, 'websocket') &&
        has(said.connection, 'upgrade') &&
        // SECURITY: only what has understood the handshake as one; anything else would be a tunnel
        // to whatever listens there.
        said['sec-websocket-accept'] === acceptOf(key) &&
        said['sec-websocket-extensions'] === undefined &&
        (protocol === undefined || protocols.includes(protocol));
      if (isAnswer) resolve({ kind: 'open', headers: said, socket: upgraded, head, protocol });
      else {
        upgraded.destroy();
        reject(new BrokerRefusal('upstreamHandshake'));
      }
    })
    .end();
  return promise;
}
