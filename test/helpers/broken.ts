// Exchanges that are broken in every way that a socket allows: drawn from a seed, so that the same
// seed sends the same bytes in the same pieces and leaves in the same way.
import type { Socket } from 'node:net';
import { connect } from 'node:net';
import { rawConnect, type RawTarget } from './raw.ts';

/** Whole numbers below n, and choices, from a seed. */
export interface Draw {
  below(n: number): number;
  of<T>(choices: readonly T[]): T;
  bytes(max: number): string;
}

/** Mulberry32: small, and the same everywhere. */
export function drawFrom(seed: number): Draw {
  let state = seed >>> 0;
  const below = (n: number): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % n;
  };
  return {
    below,
    of: (choices) => choices[below(choices.length)]!,
    bytes: (max) =>
      String.fromCharCode(...Array.from({ length: 1 + below(max) }, () => below(256))),
  };
}

/** What may be asked of a listener, with what it takes. */
export interface Asked {
  readonly method: string;
  readonly url: string;
  readonly headers: readonly string[];
  readonly body?: string;
}

type Act = 'end' | 'destroy' | 'reset' | 'answer';
interface Exchange {
  readonly kind: string;
  readonly pieces: readonly string[];
  readonly act: Act;
  /** Sent without TLS where TLS is spoken. */
  readonly isPlain?: true;
}
type Kind = (draw: Draw, asked: readonly Asked[]) => { bytes: string; acts?: readonly Act[] };

const host = 'Host: x';
const leaving = ['end', 'destroy', 'reset'] as const;
const whole = ({ method, url, headers, body }: Asked, more: readonly string[] = []): string =>
  `${[
    `${method} ${url} HTTP/1.1`,
    host,
    ...headers,
    ...more,
    ...(body === undefined ? [] : [`Content-Length: ${body.length}`]),
  ].join('\r\n')}\r\n\r\n${body ?? ''}`;
const lines = (first: string, ...more: string[]): string =>
  `${[first, ...more].join('\r\n')}\r\n\r\n`;

/** Every kind that there is. What waits for an answer gets one at once, or the connection's end. */
const kinds: Readonly<Record<string, Kind>> = {
  nothing: () => ({ bytes: '' }),
  'a whole request': (draw, asked) => ({ bytes: whole(draw.of(asked)) }),
  'a whole one that is answered': (draw, asked) => ({
    bytes: whole(draw.of(asked.filter(({ url }) => !/hang|drip/.test(url)))),
    acts: ['answer'],
  }),
  'a part of a request': (draw, asked) => {
    const bytes = whole(draw.of(asked));
    return { bytes: bytes.slice(0, draw.below(bytes.length)) };
  },
  'bytes that are none': (draw) => ({ bytes: draw.bytes(2_000), acts: leaving }),
  'a request with a byte changed': (draw, asked) => {
    const bytes = whole(draw.of(asked));
    const at = draw.below(bytes.length);
    return { bytes: bytes.slice(0, at) + draw.bytes(1) + bytes.slice(at + 1) };
  },
  CONNECT: (draw) => ({
    bytes:
      lines(
        `CONNECT ${draw.of(['a:1', '/v1/teams', '*', 'localhost', '[::1]:443'])} HTTP/1.${draw.below(2)}`,
        ...draw.of([[], [host], [host, host], [host, 'Content-Length: 10']]),
      ) + draw.of(['', 'through', draw.bytes(3_000)]),
    acts: ['answer', ...leaving],
  }),
  upgrade: (draw, asked) => ({
    bytes:
      whole(draw.of(asked), [
        'Connection: Upgrade',
        `Upgrade: ${draw.of(['websocket', 'h2c', 'TLS/1.0'])}`,
        ...draw.of([
          [],
          ['Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==', 'Sec-WebSocket-Version: 13'],
        ]),
      ]) + draw.of(['', draw.bytes(200)]),
  }),
  expectations: (draw, asked) => {
    const of = draw.of(asked);
    const bytes = whole(of, [`Expect: ${draw.of(['100-continue', 'a-miracle', ''])}`]);
    return { bytes: draw.of([bytes, bytes.slice(0, bytes.length - (of.body ?? '').length)]) };
  },
  'headers once too often': (draw, asked) => ({
    bytes: whole(draw.of(asked), [
      draw.of([
        host,
        'Content-Type: a/b',
        'Authorization: Bearer x',
        'User-Agent: a\r\nUser-Agent: b',
      ]),
    ]),
    acts: ['answer', ...leaving],
  }),
  'no Host': (draw) => ({ bytes: lines('GET / HTTP/1.1', draw.of(['A: b', 'hOST : x'])) }),
  'heads that are too large': (draw) => ({
    bytes: draw.of([
      lines(`GET /${'x'.repeat(20_000)} HTTP/1.1`, host),
      lines('GET / HTTP/1.1', host, `X: ${'x'.repeat(40_000)}`),
      lines('GET / HTTP/1.1', host, ...Array.from({ length: 3_000 }, () => 'a:b')),
      `GET / HTTP/1.1\r\n${'a:b\r\n'.repeat(10_000)}`,
    ]),
    acts: ['answer', ...leaving],
  }),
  'bodies in broken chunks': (draw, asked) => ({
    bytes: `${lines(
      `POST ${draw.of(asked).url} HTTP/1.1`,
      host,
      ...draw.of(asked).headers,
      'Transfer-Encoding: chunked',
    )}${draw.of(['ZZ\r\n', '5\r\nab', '5\r\nabcdefgh\r\n', '-1\r\n', '0\r\nTrailer: x\r\n', 'fffffffffffffffff\r\n', `1;${'e'.repeat(20_000)}\r\n`, '3\r\nabc\r\n0\r\n\r\nleft over'])}`,
  }),
  'lengths that are none': (draw, asked) => ({
    bytes: `${lines(
      `POST ${draw.of(asked).url} HTTP/1.1`,
      host,
      ...draw.of(asked).headers,
      draw.of([
        'Content-Length: 5',
        'Content-Length: -1',
        'Content-Length: 1e3',
        'Content-Length: 99999999999999999999',
        'Content-Length: 2\r\nContent-Length: 3',
        'Transfer-Encoding: gzip',
        'Transfer-Encoding: chunked\r\nContent-Length: 3',
        'Content-Length: 600000',
      ]),
    )}${draw.of(['', '{}', draw.bytes(100)])}`,
  }),
  'methods and versions': (draw, asked) => ({
    bytes: lines(
      `${draw.of(['HEAD', 'OPTIONS', 'TRACE', 'PROPFIND', 'QUERY', 'PRI', 'get', 'M-SEARCH'])} ${draw.of([draw.of(asked).url, '*', '//', '/%zz', 'http://x/', '/\u00ff'])} HTTP/${draw.of(['1.1', '1.0', '2.0', '0.9', '9.9', ''])}`,
      host,
      'Connection: close',
    ),
    acts: ['answer', ...leaving],
  }),
  'much that nobody reads': (draw, asked) => ({
    bytes: whole(asked[0]!).repeat(1 + draw.below(60)),
    acts: ['destroy', 'reset'],
  }),
  'several, one after the other': (draw, asked) => ({
    bytes: Array.from({ length: 2 + draw.below(5) }, () => {
      const kind = draw.of(Object.keys(kinds).filter((name) => !name.startsWith('several')));
      return kinds[kind]!(draw, asked).bytes;
    }).join(''),
  }),
  'the beginning of TLS': (draw) => ({
    bytes: `\x16\x03\x01${draw.of(['', '\x02\x00\x01\x00\x01\xfc\x03\x03', draw.bytes(600)])}`,
  }),
};

/** The exchange of this number. */
export function drawExchange(draw: Draw, asked: readonly Asked[]): Exchange {
  const kind = draw.of(Object.keys(kinds));
  const { bytes, acts = leaving } = kinds[kind]!(draw, asked);
  const pieces: string[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = 1 + draw.below(draw.of([8, 200, 5_000, 100_000]));
    pieces.push(bytes.slice(at, at + length));
    at += length;
    if (pieces.length > 20) {
      pieces.push(bytes.slice(at));
      break;
    }
  }
  const act = draw.of(acts);
  return {
    kind,
    pieces,
    act,
    ...(draw.below(8) === 0 || kind === 'the beginning of TLS' ? { isPlain: true as const } : {}),
  };
}

/** Names of the kinds: what a run has to have met. */
export const kindNames: readonly string[] = Object.keys(kinds);

/** Has it with a listener, and comes back when the connection is closed on our side. */
export async function runExchange(target: RawTarget, exchange: Exchange): Promise<void> {
  const { pieces, act, isPlain } = exchange;
  const socket = await (isPlain === true
    ? plain(target)
    : rawConnect(target).catch(() => undefined));
  if (socket === undefined) return;
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      resolve();
    });
  });
  if (act === 'answer') socket.once('data', () => socket.destroy());
  else if (act === 'end') socket.resume();
  for (const piece of pieces) {
    if (socket.destroyed) break;
    socket.write(piece, 'latin1');
    await turn();
  }
  if (act === 'end') socket.end();
  if (act === 'destroy') socket.destroy();
  if (act === 'reset') reset(socket);
  await closed;
}

/** A connection below TLS, where there is any. */
function plain({ port }: RawTarget): Socket {
  return connect(port, '127.0.0.1').on('error', () => undefined);
}

function reset(socket: Socket): void {
  if ('encrypted' in socket) socket.destroy();
  else socket.resetAndDestroy();
}

/** Lets everything else have its turn once: what was written is on its way. */
const turn = (): Promise<void> =>
  new Promise((resolve) => {
    setImmediate(resolve);
  });
