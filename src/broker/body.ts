// The caller's body on its way out: passed on as it comes, counted; or read whole, where all of it
// has to be signed.
import type { IncomingMessage } from 'node:http';
import { Transform } from 'node:stream';
import type { BodyLength } from './headers.ts';
import { BrokerRefusal } from './refusal.ts';

/** How long the request says its body is; 0 for none. */
export function bodyLength({ headers }: IncomingMessage): BodyLength {
  if (headers['transfer-encoding'] !== undefined) return 'unknown';
  return Number(headers['content-length'] ?? 0);
}

/**
 * The body as a stream that fails with BrokerRefusal `bodyTooLarge` beyond the limit; `onBytes` is
 * told of every piece. The request itself survives that.
 */
export function countedBody(
  request: IncomingMessage,
  { bytesMax, onBytes }: { bytesMax: number; onBytes: (bytes: number) => void },
): Transform {
  let bytes = 0;
  // Not a pipeline: that would end the connection on which the refusal is still to be answered.
  return request.pipe(
    new Transform({
      transform(chunk: Buffer, _encoding, done) {
        bytes += chunk.length;
        onBytes(chunk.length);
        if (bytes > bytesMax) done(new BrokerRefusal('bodyTooLarge'));
        else done(null, chunk);
      },
    }),
  );
}

/** The body in memory. Throws BrokerRefusal `bodyTooLarge`; rejects when the signal says so. */
export async function wholeBody(
  request: IncomingMessage,
  options: { bytesMax: number; onBytes: (bytes: number) => void; signal: AbortSignal },
): Promise<Buffer> {
  const body = countedBody(request, options);
  const stop = (): void => {
    body.destroy(new Error('the call is over'));
  };
  options.signal.addEventListener('abort', stop, { once: true });
  try {
    const chunks: Buffer[] = [];
    for await (const chunk of body as AsyncIterable<Buffer>) chunks.push(chunk);
    return Buffer.concat(chunks);
  } finally {
    options.signal.removeEventListener('abort', stop);
  }
}
