// Logs in to RabbitMQ (AMQP 0-9-1), and no further than that.
import { TestFailed } from './report.ts';
import { Octets } from './octets.ts';
import { type ConnectionTarget, connectTo, reach } from './target.ts';

const protocolHeader = Buffer.from('AMQP\0\0\x09\x01', 'latin1');
const methodFrame = 1;
const frameEnd = 0xce;
const frameBytesMax = 128 * 1024;
/** Class `connection`, and its methods. */
const connection = 10;
const methods = { start: 10, startOk: 11, tune: 30, close: 50 } as const;
/** The capability without which a refused log-in is a closed connection and nothing else. */
const saysRefusals = table([['capabilities', table([['authentication_failure_close', true]])]]);

/** Throws TestFailed, EgressFailed. */
export async function testRabbitmq(target: ConnectionTarget): Promise<void> {
  const { fields } = target;
  const reached = await reach(target);
  const says = fields['tls'];
  const isTls = says === undefined ? !reached.isAllowedPlain : says === true;
  const octets = new Octets(await connectTo(target, reached, { isTls }), target);
  try {
    // SECURITY: the password goes without TLS only where the operator has named the target.
    if (!isTls && !reached.isAllowedPlain) throw new TestFailed('tls', 'failed');
    octets.send(protocolHeader);
    if ((await method(octets)) !== methods.start) throw new TestFailed('login', 'unexpected');
    octets.send(startOk(String(fields['username'] ?? ''), String(fields['password'] ?? '')));
    const answered = await method(octets);
    if (answered === methods.tune) return;
    throw new TestFailed('login', answered === methods.close ? 'refused' : 'unexpected');
  } finally {
    octets.close();
  }
}

/** The number of the next method of the class `connection`. */
async function method(octets: Octets): Promise<number> {
  const head = await octets.read(7);
  const size = head.readUInt32BE(3);
  if (head[0] !== methodFrame || size < 4 || size > frameBytesMax)
    throw new TestFailed('login', 'unexpected');
  const frame = await octets.read(size + 1);
  if (frame[size] !== frameEnd || frame.readUInt16BE(0) !== connection)
    throw new TestFailed('login', 'unexpected');
  return frame.readUInt16BE(2);
}

function startOk(username: string, password: string): Buffer {
  const head = Buffer.alloc(4);
  head.writeUInt16BE(connection, 0);
  head.writeUInt16BE(methods.startOk, 2);
  const payload = Buffer.concat([
    head,
    saysRefusals,
    short('PLAIN'),
    long(Buffer.from(`\0${username}\0${password}`)),
    short('en_US'),
  ]);
  const frame = Buffer.alloc(7);
  frame[0] = methodFrame;
  frame.writeUInt32BE(payload.length, 3);
  return Buffer.concat([frame, payload, Buffer.from([frameEnd])]);
}

function short(text: string): Buffer {
  return Buffer.concat([Buffer.from([Buffer.byteLength(text)]), Buffer.from(text)]);
}
function long(bytes: Buffer): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(bytes.length);
  return Buffer.concat([length, bytes]);
}
/** A table of the protocol, of truth values and of tables. */
function table(entries: readonly (readonly [name: string, value: true | Buffer])[]): Buffer {
  return long(
    Buffer.concat(
      entries.flatMap(([name, value]) => [
        short(name),
        value === true
          ? Buffer.from([0x74, 1])
          : Buffer.concat([Buffer.from('F', 'latin1'), value]),
      ]),
    ),
  );
}
