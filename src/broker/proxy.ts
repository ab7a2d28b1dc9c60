// Carries an admitted call to the upstream and its answer back, both as they come. The secret is
// put in here, and looked for in everything that comes back.
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { EgressFailed, egressFailure, type Egress } from '../egress/index.ts';
import { AppError } from '../shared/errors.ts';
import { bodyLength, countedBody, wholeBody } from './body.ts';
import type { Admitted } from './call.ts';
import {
  type AnswerHeaders,
  answerHeaders,
  isScannable,
  requestHeaders,
  widthsOf,
} from './headers.ts';
import type { Outcomes } from './outcomes.ts';
import { Redactor } from './redaction.ts';
import { Redactors } from './redactors.ts';
import { BrokerRefusal } from './refusal.ts';
import { refusalOf } from './refusals.ts';
import { signedBodyBytesMax } from './sigv4.ts';
import { hostHeader } from './target.ts';
import { Watch } from './watch.ts';

export interface ProxyParts {
  readonly egress: Egress;
  readonly outcomes: Outcomes;
  readonly now: () => number;
}

/** The two ends on the caller's side. `take` says that the answer is written here from now on. */
export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly brokerPath: string;
  readonly take: () => void;
}

type Upstream = Awaited<ReturnType<Awaited<ReturnType<Egress['dispatcher']>>['request']>>;
type Prepared = {
  readonly headers: Record<string, string | string[]>;
  readonly body: Buffer | ReturnType<typeof countedBody> | null;
  /** What the signature adds to what is looked for. */
  readonly signed: readonly string[];
};
interface Tally {
  sent: number;
  received: number;
  status?: number;
}

const repeatable: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS']);
const withoutBody: ReadonlySet<number> = new Set([204, 205, 304]);
/**
 * A body of a known length up to this waits for its first piece, so that a small one is answered
 * whole, with its length.
 */
const smallBodyBytes = 64 * 1024;

/** Carries calls. */
export class BrokerProxy {
  readonly #parts: ProxyParts;
  readonly #redactors = new Redactors();
  constructor(parts: ProxyParts) {
    this.#parts = parts;
  }

  /**
   * Carries one call. Throws an AppError for what fails before the answer has begun; afterwards the
   * caller's connection is cut, so that nobody takes a part for the whole. What became of it goes
   * to the outcomes either way.
   */
  async carry(admitted: Admitted, exchange: Exchange): Promise<void> {
    const startedAt = performance.now();
    const { request, response } = exchange;
    const watch = new Watch(response, admitted.limits.idleSeconds * 1000);
    const tally: Tally = { sent: 0, received: 0 };
    let failure: string | undefined;
    try {
      await this.#carry(admitted, exchange, watch, tally);
    } catch (error) {
      const refusal = this.#refusalFor(error, watch, request);
      failure =
        watch.stopped === 'callerGone' ? 'callerGone' : (refusal.errors?.[0]?.rule ?? refusal.code);
      if (watch.stopped !== 'callerGone' && !response.headersSent) throw refusal;
      exchange.take();
      response.destroy();
    } finally {
      watch.end();
      admitted.leave();
      const { caller, event } = admitted;
      this.#parts.outcomes.add({
        caller: { ...caller, address: null },
        team: event.team,
        action: 'credential.used',
        target: event.target,
        details: {
          ticket: event.details?.['ticket'] ?? null,
          ...(tally.status === undefined ? {} : { status: tally.status }),
          ...(failure === undefined ? {} : { failure }),
          sentBytes: tally.sent,
          receivedBytes: tally.received,
          ms: Math.round(performance.now() - startedAt),
        },
      });
    }
  }

  async #carry(admitted: Admitted, exchange: Exchange, watch: Watch, tally: Tally): Promise<void> {
    const { request } = exchange;
    const method = request.method ?? 'GET';
    const dispatcher = await this.#parts.egress.dispatcher(admitted.target.origin, admitted.team);
    const { headers, body, signed } = await this.#prepare(admitted, exchange, watch, tally);
    const send = (with_: typeof headers): Promise<Upstream> =>
      dispatcher.request({
        // The watch is the one clock: it sees both directions, and waits as long as this
        // credential's limits say.
        method: method as 'GET',
        path: admitted.path,
        headers: with_,
        body,
        signal: watch.signal,
        headersTimeout: 0,
        bodyTimeout: 0,
      });
    let answer: Upstream;
    try {
      answer = await send(headers);
    } catch (error) {
      // A kept connection that the upstream was just closing. SECURITY: only what may be sent twice
      // is.
      if (
        (error as { code?: unknown }).code !== 'UND_ERR_SOCKET' ||
        body !== null ||
        !repeatable.has(method) ||
        watch.signal.aborted
      )
        throw error;
      answer = await send(headers);
    }
    watch.touch();
    const { credential } = admitted;
    const sought = [this.#redactors.soughtFor(credential, admitted.rendered.sensitive)];
    if (answer.statusCode === 401 && admitted.renew !== undefined) {
      const isRepeated = body === null && repeatable.has(method);
      const renewed = admitted.renew();
      // The next call has another token then; whether this one has is known to the caller by the
      // answer.
      if (!isRepeated) void renewed.catch(() => undefined);
      const rendered = isRepeated ? await renewed : undefined;
      if (rendered !== undefined) {
        await answer.body.dump();
        sought.push(this.#redactors.soughtFor(credential, rendered.sensitive));
        answer = await send({ ...headers, ...rendered.headers });
        watch.touch();
      }
    }
    tally.status = answer.statusCode;
    await this.#answer(admitted, exchange, watch, tally, {
      answer,
      method,
      redactor: new Redactor(signed, sought),
    });
  }

  /** Headers and body as they go out. */
  async #prepare(
    { target, rendered, path, limits }: Admitted,
    { request, response }: Exchange,
    watch: Watch,
    tally: Tally,
  ): Promise<Prepared> {
    const length = bodyLength(request);
    const isSigned = rendered.sign?.needsBody(target.origin.host) === true;
    const bytesMax = isSigned
      ? Math.min(limits.requestBytes, signedBodyBytesMax)
      : limits.requestBytes;
    if (length !== 'unknown' && length > bytesMax) throw new BrokerRefusal('bodyTooLarge');
    if (request.headers.expect !== undefined && length !== 0) response.writeContinue();
    const counting = {
      bytesMax,
      onBytes: (bytes: number): void => {
        tally.sent += bytes;
        watch.touch();
      },
      signal: watch.signal,
    };
    const body =
      length === 0
        ? null
        : isSigned
          ? await wholeBody(request, counting)
          : countedBody(request, counting);
    const headers = requestHeaders(
      request.rawHeaders,
      rendered,
      Buffer.isBuffer(body) ? body.length : length,
    );
    if (rendered.sign === undefined) return { headers, body, signed: [] };
    const signed = await rendered.sign({
      method: request.method ?? 'GET',
      host: hostHeader(target.origin),
      pathAndQuery: path,
      at: new Date(this.#parts.now()),
      headers: Object.fromEntries(
        Object.entries(headers).map(([name, value]) => [name, [value].flat().join(',')]),
      ),
      ...(isSigned ? { body: Buffer.isBuffer(body) ? body : Buffer.alloc(0) } : {}),
    });
    return {
      headers: { ...headers, ...signed.headers },
      body,
      signed: signed.sensitive,
    };
  }

  /** The upstream's answer to the caller, without the secret. */
  async #answer(
    { target, limits, caller }: Admitted,
    { response, brokerPath, take }: Exchange,
    watch: Watch,
    tally: Tally,
    { answer, method, redactor }: { answer: Upstream; method: string; redactor: Redactor },
  ): Promise<void> {
    const given = answer.headers as AnswerHeaders;
    const hasBody = method !== 'HEAD' && !withoutBody.has(answer.statusCode);
    const length =
      hasBody && /^\d{1,15}$/.test(String(given['content-length']))
        ? Number(given['content-length'])
        : undefined;
    const refusal =
      hasBody && !isScannable(given)
        ? new BrokerRefusal('unscannable')
        : length !== undefined && length > limits.responseBytes
          ? tooLarge()
          : undefined;
    if (refusal !== undefined) {
      answer.body.on('error', () => undefined).destroy();
      throw refusal;
    }
    const headers: Record<string, string | string[]> = {
      ...answerHeaders(given, redactor, { target, brokerPath }, hasBody),
      'vault-request-id': caller.requestId,
    };
    const begin = (more: Record<string, string> = {}): void => {
      response.writeHead(answer.statusCode, { ...headers, ...more });
      take(); // not before: what cannot be written is answered with a problem
    };
    if (!hasBody) {
      await answer.body.dump();
      begin();
      response.end();
      return;
    }
    const isSmall = length !== undefined && length <= smallBodyBytes;
    if (!isSmall) {
      begin();
      response.flushHeaders();
    }
    const stream = redactor.stream({ widths: widthsOf(given) });
    for await (const chunk of answer.body as AsyncIterable<Buffer>) {
      tally.received += chunk.length;
      watch.touch();
      if (tally.received > limits.responseBytes) throw tooLarge();
      const passed = stream.push(chunk);
      if (isSmall && !response.headersSent) {
        if (chunk.length === length) {
          const whole = Buffer.concat([passed, stream.end()]);
          // What names the body as it was names another one than is passed on.
          if (stream.isChanged) delete headers['etag'];
          begin({ 'content-length': String(whole.length) });
          response.end(whole);
          continue; // to the body's end: left before it, it would be torn down
        }
        begin();
      }
      if (passed.length > 0 && !response.write(passed))
        await once(response, 'drain', { signal: watch.signal });
    }
    if (response.writableEnded) return;
    if (!response.headersSent) begin();
    response.end(stream.end());
  }

  /** What the caller is told of a failure. */
  #refusalFor(error: unknown, { stopped }: Watch, request: IncomingMessage): AppError {
    if (
      error instanceof AppError ||
      error instanceof BrokerRefusal ||
      error instanceof EgressFailed
    )
      return refusalOf(error);
    if (stopped === 'idle' && !request.complete)
      return new AppError('requestTimeout', 'The body took too long to arrive.');
    return refusalOf(stopped === 'idle' ? new EgressFailed('timeout') : egressFailure(error));
  }
}

const tooLarge = (): AppError =>
  new AppError('upstreamUnusable', "The answer is larger than the credential's limit.", {
    errors: [{ pointer: '', rule: 'size' }],
  });
