// The caller's body on its way out: passed on as it comes, counted; or read whole, where all of it
// has to be signed.
import type { IncomingMessage } from 'node:http';
import { Transform, type TransformCallback } from 'node:stream';
import type { FormGuard } from './form-guard.ts';
import type { BodyLength } from './headers.ts';
import { BrokerRefusal } from './refusal.ts';

/** How long the request says its body is; 0 for none. */
export function bodyLength({ headers }: IncomingMessage): BodyLength {
  if (headers['transfer-encoding'] !== undefined) return 'unknown';
  return Number(headers['content-length'] ?? 0);
}

interface Counting {
  readonly bytesMax: number;
  readonly onBytes: (bytes: number) => void;
  /** Through which the body goes, if it is a form that the policy has to know. */
  readonly guard?: FormGuard | undefined;
}

/**
/**
 * The body as a stream that fails with BrokerRefusal `bodyTooLarge` beyond the limit, or as its
 * guard says; `onBytes` is told of every piece. The request itself survives that. Whoever has not
 * read it to its end leaves it with `leaveBody`.
 */
export function countedBody(
  request: IncomingMessage,
  { bytesMax, onBytes, guard }: Counting,
): Transform {
  let bytes = 0;
  const counted = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      bytes += chunk.length;
      onBytes(chunk.length);
      if (bytes > bytesMax) done(new BrokerRefusal('bodyTooLarge'));
      else if (guard === undefined) done(null, chunk);
      else passOn(done, () => guard.push(chunk));
    },
    flush(done) {
      if (guard === undefined) done();
      else passOn(done, () => guard.end());
    },
  });
  // SECURITY: it may fail before anybody reads it (while the call is being signed), and an error
  // without a listener ends the process. Whoever begins to read finds out by `errored`.
  counted.on('error', () => undefined);
  // Not a pipeline: that would end the connection on which the refusal is still to be answered.
  return request.pipe(counted);
}

function passOn(done: TransformCallback, read: () => Buffer): void {
  let passed: Buffer;
  try {
    passed = read();
  } catch (error) {
    done(error as Error);
    return;
  }
  done(null, passed);
}

/** Ends a body that nobody goes on reading. */
export function leaveBody(request: IncomingMessage, body: unknown): void {
  if (!(body instanceof Transform)) return;
  request.unpipe(body);
  body.destroy();
}

/** The body in memory. Throws BrokerRefusal `bodyTooLarge`; rejects when the signal says so. */
export async function wholeBody(
  request: IncomingMessage,
  options: Counting & { readonly signal: AbortSignal },
): Promise<Buffer> {
  const body = countedBody(request, options);
  const stop = (): void => {
    body.destroy(options.signal.reason as Error);
  };
  if (options.signal.aborted) stop();
  else options.signal.addEventListener('abort', stop, { once: true });
  try {
    const chunks: Buffer[] = [];
    for await (const chunk of body as AsyncIterable<Buffer>) chunks.push(chunk);
    return Buffer.concat(chunks);
  } finally {
    options.signal.removeEventListener('abort', stop);
    leaveBody(request, body);
  }
}
