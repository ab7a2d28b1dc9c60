// One exchange over HTTP within bounds of time and size.
import type { Dispatcher } from 'undici';
import { EgressFailed, egressFailure } from './failure.ts';

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly body: Buffer;
}

export interface Exchange {
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
}: Exchange): Promise<Answer> {
  const signal = AbortSignal.timeout(timeoutMs);
  try {
    const answer = await (await until(signal, dispatcher())).request({
      method,
      path,
      signal,
      headersTimeout: Math.min(timeoutMs, headersMs),
      bodyTimeout: timeoutMs,
      body: body ?? null,
      headers: {
        'accept-encoding': 'identity',
        ...Object.fromEntries(
          Object.entries(headers).filter(([name]) => !ofTheConnection.has(name.toLowerCase())),
        ),
      },
    });
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      bytes += chunk.length;
      if (bytes > responseBytesMax) throw new EgressFailed('response'); // ends the connection too
      chunks.push(chunk);
    }
    const answered = new Headers();
    for (const [name, value] of Object.entries(answer.headers))
      for (const one of [value ?? []].flat()) answered.append(name, one);
    return { status: answer.statusCode, headers: answered, body: Buffer.concat(chunks) };
  } catch (error) {
    throw egressFailure(error);
  }
}

async function until<T>(signal: AbortSignal, promise: Promise<T>): Promise<T> {
  const { promise: stopped, reject } = Promise.withResolvers<never>();
  const stop = (): void => {
    reject(new EgressFailed('name'));
  }; // what was waited for is the name
  signal.addEventListener('abort', stop, { once: true });
  try {
    return await Promise.race([promise, stopped]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}
