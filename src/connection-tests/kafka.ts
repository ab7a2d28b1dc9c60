// Asks a broker of Kafka which versions of the protocol it speaks: that it is there, over TLS or
// not, and that it is Kafka. Nothing secret is sent.
import { EgressFailed } from '../egress/index.ts';
import { Octets } from './octets.ts';
import { TestFailed } from './report.ts';
import { type ConnectionTarget, connectTo } from './target.ts';

const apiVersions = 18;
const correlation = 0x76617531;
const answerBytesMax = 64 * 1024;

/** The first broker that answers is enough. Throws TestFailed, EgressFailed. */
export async function testKafka(target: ConnectionTarget): Promise<void> {
  const brokers = String(target.fields['brokers'] ?? '')
    .split(',')
    .slice(0, brokersMax);
  const timeoutMs = Math.floor(target.timeoutMs / brokers.length);
  for (const [index, broker] of brokers.entries()) {
    const isLast = index === brokers.length - 1;
    try {
      await ask({ ...target, timeoutMs }, broker);
      return;
    } catch (error) {
      if (isLast || !(error instanceof EgressFailed)) throw error;
      target.wire.isTls = false;
    }
  }
}
const brokersMax = 3;

async function ask(target: ConnectionTarget, broker: string): Promise<void> {
  const at = broker.lastIndexOf(':');
  const reached = await target.egress.check(
    {
      protocol: 'https:',
      host: broker.slice(0, at).replace(/^\[|\]$/g, ''),
      port: Number(broker.slice(at + 1)),
    },
    target.team,
  );
  const isTls = target.fields['tls'] !== false;
  const octets = new Octets(await connectTo(target, reached, { isTls }), target);
  try {
    octets.send(request());
    const length = (await octets.read(4)).readInt32BE();
    if (length < 6 || length > answerBytesMax) throw new TestFailed('login', 'unexpected');
    const answer = await octets.read(length);
    if (answer.readInt32BE(0) !== correlation || answer.readInt16BE(4) !== 0)
      throw new TestFailed('login', 'unexpected');
  } finally {
    octets.close();
  }
}

/** ApiVersions in its first version, without a client's name. */
function request(): Buffer {
  const bytes = Buffer.alloc(14);
  bytes.writeInt32BE(bytes.length - 4, 0);
  bytes.writeInt16BE(apiVersions, 4);
  bytes.writeInt32BE(correlation, 8);
  bytes.writeInt16BE(-1, 12);
  return bytes;
}
