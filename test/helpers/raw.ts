// Bytes on a socket, as no client library sends them, with or without TLS, and the answers in what
// comes back.
import { connect, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

export interface RawTarget {
  readonly port: number;
  readonly isTls?: boolean;
  /** The address that the connection comes from; every one of 127/8 is ours. */
  readonly from?: string;
}

/** Connects and comes back when bytes can be sent. Nothing that happens to the socket throws. */
export function rawConnect({
  port,
  isTls = false,
  from = '127.0.0.1',
}: RawTarget): Promise<Socket> {
  const to = { port, host: '127.0.0.1', localAddress: from };
  return new Promise((resolve, reject) => {
    // SECURITY: a test's own server, on loopback.
    const socket: Socket = isTls
      ? connectTls({ ...to, rejectUnauthorized: false }, () => {
          resolve(socket);
        })
      : connect(to, () => {
          resolve(socket);
        });
    socket.on('error', reject); // after it is connected, nobody listens any more
  });
}

/** Sends the bytes; what has come when the other side, or the end of ours, closes the connection. */
export async function rawExchange(
  target: RawTarget,
  bytes: string,
  then: (socket: Socket) => void = () => undefined,
): Promise<string> {
  const socket = await rawConnect(target);
  let text = '';
  socket.on('data', (chunk: Buffer) => {
    text += chunk.toString('latin1');
  });
  const closed = new Promise<void>((resolve) => {
    socket.once('close', () => {
      resolve();
    });
  });
  socket.write(bytes, 'latin1');
  then(socket);
  await closed;
  return text;
}

export interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
  /** Of a body that is JSON. */
  readonly json: any;
}

/** The answers one after the other, each with the body that its Content-Length says. */
export function answersIn(text: string, isHead = false): RawAnswer[] {
  const answers: RawAnswer[] = [];
  for (let rest = text; rest !== ''; ) {
    const end = rest.indexOf('\r\n\r\n');
    const [first = '', ...lines] = rest.slice(0, end < 0 ? rest.length : end).split('\r\n');
    const headers = Object.fromEntries(
      lines.map((line): [string, string] => [
        line.slice(0, line.indexOf(':')).toLowerCase(),
        line.slice(line.indexOf(':') + 1).trim(),
      ]),
    );
    const length = isHead ? 0 : Number(headers['content-length'] ?? 0);
    const body = end < 0 ? '' : rest.slice(end + 4, end + 4 + length);
    const status = Number(/^HTTP\/1\.1 ([1-5]\d\d) /.exec(first)?.[1]);
    if (status !== 100)
      answers.push({
        status,
        headers,
        body,
        json:
          /json/.test(headers['content-type'] ?? '') && body !== '' ? JSON.parse(body) : undefined,
      });
    rest = end < 0 ? '' : rest.slice(end + 4 + (status === 100 ? 0 : length));
  }
  return answers;
}
