// The handshakes of a WebSocket (RFC 6455, 4): the caller's with the broker, and the broker's own
// with the upstream. Neither has an extension.
import { hash, randomBytes } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Upgraded } from '../egress/index.ts';
import { httpTokenForm } from '../shared/patterns.ts';
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
export interface CallersHandshake {
  readonly key: string;
  readonly protocols: readonly string[];
}

/** Throws BrokerRefusal `handshake` for what is none by the letter. */
export function checkHandshake({
  headers,
  method,
  httpVersion,
}: IncomingMessage): CallersHandshake {
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
    protocols.some((protocol) => !httpTokenForm.test(protocol)) ||
    protocols.some((protocol) => protocol.includes('vbt_'))
  )
    throw new BrokerRefusal('handshake');
  return { key, protocols };
}

/** Headers of a handshake that belong to one connection. */
export const isOfHandshake = (name: string): boolean => name.startsWith('sec-websocket-');

/** The broker's own handshake. */
export interface OwnHandshake {
  readonly key: string;
  readonly protocols: readonly string[];
  readonly headers: Record<string, string | string[]>;
}

/** A handshake with the upstream, with these headers beside its own. */
export function ownHandshake(
  headers: Readonly<Record<string, string | string[]>>,
  protocols: readonly string[],
): OwnHandshake {
  const key = randomBytes(16).toString('base64');
  const others = Object.entries(headers).filter(([name]) => !isOfHandshake(name));
  return {
    key,
    protocols,
    headers: {
      ...Object.fromEntries(others),
      connection: 'Upgrade',
      upgrade: 'websocket',
      'sec-websocket-version': '13',
      'sec-websocket-key': key,
      ...(protocols.length === 0 ? {} : { 'sec-websocket-protocol': protocols.join(', ') }),
    },
  };
}

/**
 * Throws BrokerRefusal `upstreamHandshake` for a 101 that is not the answer to this handshake, and
 * ends its connection.
 */
export function checkOpened({ answer, open }: Upgraded, { key, protocols }: OwnHandshake): void {
  if (answer.statusCode !== 101) return;
  const said = answer.headers;
  const protocol = said['sec-websocket-protocol'];
  const isAnswer =
    open !== undefined &&
    has(said.upgrade, 'websocket') &&
    has(said.connection, 'upgrade') &&
    // SECURITY: only what has understood the handshake as one; anything else would be a tunnel to
    // whatever listens there.
    said['sec-websocket-accept'] === acceptOf(key) &&
    said['sec-websocket-extensions'] === undefined &&
    (protocol === undefined || protocols.includes(protocol));
  if (isAnswer) return;
  open?.socket.destroy();
  answer.destroy();
  throw new BrokerRefusal('upstreamHandshake');
}
