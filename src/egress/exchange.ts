// One exchange over HTTP within bounds of time and size.
import type { Dispatcher } from 'undici';
import { EgressFailed, egressFailure } from './failure.ts';
import { raced } from './raced.ts';
import { userAgent } from './product.ts';

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Buffer;
}

export interface DialExchange {
  readonly dispatcher: () => Promise<Dispatcher>;
  readonly method: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Buffer;
  readonly timeoutMs: number;
  readonly headersMs: number;
  readonly responseBytesMax: number;
}

/** What a caller does not set: the connection says it. */
const ofTheConnection: ReadonlySet<string> = new Set([
  'host',
  'connection',
  'content-length',
  'transfer-encoding',
  'keep-alive',
  'upgrade',
  'expect',
  'te',
  'trailer',
  'proxy-authorization',
]);

/**
 * Sends and reads all of the answer. Throws EgressFailed, `response` for an answer that is too
 * large.
 */
export async function exchange({
  dispatcher,
  method,
  path,
  headers = {},
  body,
  timeoutMs,
  headersMs,
  responseBytesMax,
}: DialExchange): Promise<Answer> {
  const signal = AbortSignal.timeout(timeoutMs);
  let answer: Dispatcher.ResponseData | undefined;
  try {
    // What is waited for is the name.
    const there = await raced(signal, dispatcher(), () => new EgressFailed('name'));
    answer = await send(there, signal, {
      method,
      path,
      signal,
      headersTimeout: Math.min(timeoutMs, headersMs),
      bodyTimeout: timeoutMs,
      body: body ?? null,
      headers: {
        'accept-encoding': 'identity',
        // Some services refuse who does not say what it is.
        'user-agent': userAgent,
        ...Object.fromEntries(
          Object.entries(headers).filter(([name]) => !ofTheConnection.has(name.toLowerCase())),
        ),
      },
    });
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > responseBytesMax) throw new EgressFailed('response');
      chunks.push(chunk);
    }
    const answered = new Headers();
    for (const [name, value] of Object.entries(answer.headers))
      for (const one of [value ?? []].flat()) answered.append(name, one);
    return { status: answer.statusCode, headers: answered, body: Buffer.concat(chunks) };
  } catch (error) {
    throw egressFailure(error);
  } finally {
    discard(answer);
  }
}

/**
 * Asks, and gives up as soon as the signal says so: a request that still waits for its connection
 * doesn't heed it. An answer that comes afterwards is thrown away.
 */
export function send(
  dispatcher: Dispatcher,
  signal: AbortSignal,
  options: Dispatcher.RequestOptions,
): Promise<Dispatcher.ResponseData> {
  const asked = dispatcher.request({ ...options, signal });
  return raced(signal, asked, () => signal.reason, discard);
}

/** Ends the connection of an answer that nobody reads to its end; nothing where it was read. */
export function discard(answer: Dispatcher.ResponseData | undefined): void {
  answer?.body.on('error', () => undefined).destroy();
}
