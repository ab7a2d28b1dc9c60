// A caller without manners: requests that end in the middle, in every way, at both listeners. It
// looks at no answer; that every process lives on is looked at elsewhere.
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Lane } from './lane.ts';

const head = (line: string, headers: readonly string[] = []): string =>
  [line, 'host: vault', ...headers, '', ''].join('\r\n');

const broken: readonly string[] = [
  head('CONNECT a:1 HTTP/1.1'),
  head('GET / HTTP/1.1', ['connection: upgrade', 'upgrade: websocket']),
  head('POST /v1/teams HTTP/1.1', ['expect: 100-continue', 'content-length: 10']),
  head('POST /v1/teams HTTP/1.1', ['expect: anything', 'content-length: 10']),
  head('POST /v1/teams HTTP/1.1', ['content-length: 1000']) + '{"slug":',
  head('POST /v1/teams HTTP/1.1', ['transfer-encoding: chunked']) + 'ff\r\nabc',
  head('POST /v1/teams HTTP/1.1', ['transfer-encoding: chunked']) + 'zz\r\n',
  head('PRI * HTTP/2.0') + 'SM\r\n\r\n',
  'GET / HTTP/1.1\r\n\r\n',
  'GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n',
  '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
  '\0\0\0\0',
  `GET /${'a'.repeat(20_000)} HTTP/1.1\r\nhost: a\r\n\r\n`,
];

/** Does it once, at one of the listeners of one replica. */
export async function beRude(lane: Lane): Promise<boolean> {
  const { random, stage } = lane;
  const replica = stage.client.choose();
  const url = URL.parse(random.pick([replica.url, replica.brokerUrl]));
  if (url === null || url.port === '') return false;
  const team = random.pick(stage.teams);
  const denied = head(`DELETE /v1/teams/${team.slug} HTTP/1.1`, [
    `authorization: Bearer ${stage.client.token(team.viewer, replica)}`,
    'if-match: *',
  ]);
  const bytes = random.pick([...broken, denied, denied, denied]);
  await send(Number(url.port), bytes, {
    partMs: random.chance(0.3) ? random.integer(1, 20) : 0,
    openMs: random.chance(0.6) ? random.integer(0, 3) : random.integer(0, 200),
    isReset: random.chance(0.7),
  });
  return true;
}

async function send(
  port: number,
  bytes: string,
  { partMs, openMs, isReset }: { partMs: number; openMs: number; isReset: boolean },
): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.resume();
  await new Promise<void>((resolve) => {
    socket.once('connect', resolve).once('close', () => resolve());
  });
  if (partMs > 0) {
    const half = Math.floor(bytes.length / 2);
    socket.write(bytes.slice(0, half), 'latin1');
    await delay(partMs);
    socket.write(bytes.slice(half), 'latin1');
  } else socket.write(bytes, 'latin1');
  await delay(openMs);
  if (isReset) socket.resetAndDestroy();
  else socket.destroy();
}
