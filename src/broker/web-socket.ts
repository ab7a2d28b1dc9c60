// A call that wants to become a WebSocket: a handshake with the upstream, and what becomes of it, a
// tunnel or an answer like any other.
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import type { Egress, Upgraded } from '../egress/index.ts';
import {
  answerCall,
  type Exchange,
  type Prepared,
  type Tally,
  type UpstreamAnswer,
  type WebSocketExchange,
} from './answer.ts';
import { acceptOf, checkHandshake, checkOpened, isOfHandshake, ownHandshake } from './handshake.ts';
import { type AnswerHeaders, answerHeaders } from './headers.ts';
import type { Rendered } from './injection.ts';
import { Redactor } from './redaction/redactor.ts';
import type { Sought } from './redaction/sought.ts';
import { hostHeader } from './target.ts';
import { Tunnel, type TunnelParts } from './tunnel.ts';
import type { Admitted } from './types.ts';
import type { Watch } from './watch.ts';

/** What the proxy lends. */
interface Tools extends Pick<TunnelParts, 'times' | 'onEvent' | 'enter'> {
  readonly egress: Pick<Egress, 'upgrade'>;
  readonly prepare: () => Promise<Prepared>;
  readonly renewed: (
    prepared: Prepared,
    answer: Pick<UpstreamAnswer, 'statusCode'>,
  ) => Promise<Rendered | undefined>;
  readonly soughtFor: (values: readonly string[]) => Sought;
}
type WebSocketCall = Exchange & { readonly webSocket: WebSocketExchange };

/** Carries one, from the handshake on both sides to its end. */
export async function carryWebSocket(
  admitted: Admitted,
  exchange: WebSocketCall,
  watch: Watch,
  tally: Tally,
  tools: Tools,
): Promise<void> {
  const { target, team, rendered, limits } = admitted;
  const asked = checkHandshake(exchange.request);
  const prepared = await tools.prepare();
  const { signal } = watch;
  const ask = async (headers: Prepared['headers']): Promise<Upgraded> => {
    const own = ownHandshake({ host: hostHeader(target.origin), ...headers }, asked.protocols);
    const upgraded = tools.egress.upgrade(target.origin, team, {
      path: admitted.path,
      headers: own.headers,
      signal,
    });
    const there = await watch.race(upgraded, ({ answer, open }) => {
      open?.socket.destroy();
      answer.destroy();
    });
    checkOpened(there, own);
    return there;
  };
  let handshake = await ask(prepared.headers);
  watch.touch();
  const sought = [tools.soughtFor(rendered.sensitive)];
  if (handshake.open === undefined) {
    const statusCode = handshake.answer.statusCode ?? 502;
    const renewed = await tools.renewed(prepared, { statusCode });
    if (renewed !== undefined) {
      handshake.answer.destroy();
      sought.push(tools.soughtFor(renewed.sensitive));
      handshake = await ask({ ...prepared.headers, ...renewed.headers });
    }
  }
  const redactor = new Redactor(prepared.signed, sought);
  const { open } = handshake;
  if (open !== undefined) {
    tally.status = 101;
    const { times, onEvent, enter } = tools;
    const tunnel = { limits, times, onEvent, enter };
    const { headers } = handshake.answer;
    const opened = { ...open, headers, key: asked.key };
    await openWebSocket(admitted, exchange, watch, tally, { opened, redactor, tunnel });
    return;
  }
  const answer = asAnswer(handshake.answer);
  tally.status = answer.statusCode;
  try {
    await answerCall(admitted, exchange, watch, tally, { answer, method: 'GET', redactor });
    await watch.taken('finish');
  } finally {
    handshake.answer.destroy();
  }
}

/** Node's answer as undici would give it. */
function asAnswer(answer: IncomingMessage): UpstreamAnswer {
  const dump = async (): Promise<void> => {
    answer.destroy();
  };
  return {
    statusCode: answer.statusCode ?? 502,
    headers: answer.headers,
    body: Object.assign(answer, { dump }),
  } as unknown as UpstreamAnswer;
}

/** Tells the caller that the WebSocket is open, and carries it to its end. */
async function openWebSocket(
  { target, isObjectStore, caller, path, root }: Admitted,
  { seenAt, take, webSocket }: WebSocketCall,
  watch: Watch,
  tally: Tally,
  {
    opened: { socket: upstream, head, headers: answered, key },
    redactor,
    tunnel: parts,
  }: {
    opened: NonNullable<Upgraded['open']> & {
      readonly headers: IncomingHttpHeaders;
      readonly key: string;
    };
    redactor: Redactor;
    tunnel: Pick<TunnelParts, 'limits' | 'times' | 'onEvent' | 'enter'>;
  },
): Promise<void> {
  const protocol = answered['sec-websocket-protocol'];
  const seen = { target, ...seenAt, path, root, isObjectStore };
  const given = answerHeaders(answered as AnswerHeaders, redactor, seen, false);
  const headers = {
    ...Object.fromEntries(Object.entries(given).filter(([name]) => !isOfHandshake(name))),
    connection: 'Upgrade',
    upgrade: 'websocket',
    'sec-websocket-accept': acceptOf(key),
    ...(protocol === undefined ? {} : { 'sec-websocket-protocol': protocol }),
    'vault-request-id': caller.requestId,
  };
  take();
  watch.end(); // from here on the tunnel has its own clocks
  const socket = webSocket.takeSocket();
  const lines = Object.entries(headers).flatMap(([name, value]) =>
    [value].flat().map((each) => `${name}: ${each}\r\n`),
  );
  socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('')}\r\n`, 'latin1');
  const tunnel = new Tunnel({
    ...parts,
    caller: socket,
    upstream,
    redactor,
    isAllowed: webSocket.isAllowed,
    onBytes: (grantPath, came, passed) => {
      if (grantPath === 'up') tally.sent += came;
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
      upstream: head,
    });
    tally.closeCode = code;
    if (failure !== undefined) tally.failure = failure;
  } finally {
    onClosed();
  }
}
