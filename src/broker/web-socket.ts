// What becomes of a handshake that the upstream has answered: a tunnel, or an answer like any other.
import { type IncomingMessage, STATUS_CODES } from 'node:http';
import type { Exchange, Tally, Upstream, WebSocketExchange } from './answer.ts';
import { acceptOf, type Asked, type Handshake, isOfHandshake } from './handshake.ts';
import { type AnswerHeaders, answerHeaders } from './headers.ts';
import type { Redactor } from './redaction/redactor.ts';
import { Tunnel, type TunnelParts } from './tunnel.ts';
import type { Admitted } from './types.ts';
import type { Watch } from './watch.ts';

/** Node's answer as undici would give it. */
export function asAnswer(answer: IncomingMessage): Upstream {
  const dump = async (): Promise<void> => {
    answer.destroy();
  };
  return {
    statusCode: answer.statusCode ?? 502,
    headers: answer.headers,
    body: Object.assign(answer, { dump }),
  } as unknown as Upstream;
}

/** Tells the caller that the WebSocket is open, and carries it to its end. */
export async function openWebSocket(
  { target, isObjectStore, caller, path, root }: Admitted,
  { seenAt, take, webSocket }: Exchange & { readonly webSocket: WebSocketExchange },
  watch: Watch,
  tally: Tally,
  {
    handshake,
    asked,
    redactor,
    tunnel: parts,
  }: {
    handshake: Handshake & { readonly kind: 'open' };
    asked: Asked;
    redactor: Redactor;
    tunnel: Pick<TunnelParts, 'limits' | 'times' | 'onEvent' | 'enter'>;
  },
): Promise<void> {
  const seen = { target, ...seenAt, path, root, isObjectStore };
  const given = answerHeaders(handshake.headers as AnswerHeaders, redactor, seen, false);
  const headers = {
    ...Object.fromEntries(Object.entries(given).filter(([name]) => !isOfHandshake(name))),
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-accept': acceptOf(asked.key),
    ...(handshake.protocol === undefined ? {} : { 'sec-websocket-protocol': handshake.protocol }),
    'vault-request-id': caller.requestId,
  };
  take();
  watch.end(); // from here on the tunnel has its own clocks
  const socket = webSocket.takeSocket();
  const lines = Object.entries(headers).flatMap(([name, value]) =>
    [value].flat().map((each) => `${name}: ${each}\r\n`),
  );
  socket.write(`HTTP/1.1 101 ${STATUS_CODES[101]}\r\n${lines.join('')}\r\n`, 'latin1');
  const tunnel = new Tunnel({
    ...parts,
    caller: socket,
    upstream: handshake.socket,
    redactor,
    isAllowed: webSocket.isAllowed,
    onBytes: (way, came, passed) => {
      if (way === 'up') tally.sent += came;
      else {
        tally.received += came;
        tally.passed += passed;
      }
    },
  });
  const onClosed = webSocket.onOpen(tunnel);
  try {
    const { code, failure } = await tunnel.run({
      caller: webSocket.head,
      upstream: handshake.head,
    });
    tally.closeCode = code;
    if (failure !== undefined) tally.failure = failure;
  } finally {
    onClosed();
  }
}
