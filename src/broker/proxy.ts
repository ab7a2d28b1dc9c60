// Carries an admitted call to the upstream and its answer back, both as they come. The secret is
// put in here, and looked for in everything that comes back.
import type { IncomingMessage } from 'node:http';
import { Transform } from 'node:stream';
import { discard, type Egress, EgressFailed, egressFailure, send } from '../egress/index.ts';
import { Budget, type BudgetCounts } from '../shared/budget.ts';
import { AppError } from '../shared/errors.ts';
import {
  answerCall,
  type Exchange,
  type Tally,
  type UpstreamAnswer,
  type Prepared,
} from './answer.ts';
import { bodyLength, countedBody, leaveBody, wholeBody } from './body.ts';
import { bodyGuard } from './body-guard.ts';
import { frameBytesMax } from './frames.ts';
import { requestHeaders } from './headers.ts';
import type { Rendered } from './injection.ts';
import type { Outcomes } from './outcomes.ts';
import { Redactor } from './redaction/redactor.ts';
import { Redactors } from './redaction/redactors.ts';
import { BrokerRefusal } from './refusal.ts';
import { refusalOf } from './refusals.ts';
import { signedBodyBytesMax } from './sigv4.ts';
import { hostHeader } from './target.ts';
import { type WebSocketTimes, webSocketTimes } from './tunnel.ts';
import { Watch } from './watch.ts';
import { carryWebSocket } from './web-socket.ts';
import type { Admitted } from './types.ts';

export interface ProxyParts {
  readonly egress: Egress;
  readonly outcomes: Outcomes;
  readonly now: () => number;
  /** The times of WebSockets; the usual ones without it. */
  readonly webSocketTimes?: WebSocketTimes;
  /** Told of a renewal of tokens that failed while its call went on without it. */
  readonly onError: (error: Error) => void;
}

const repeatable: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS']);
/** Bodies that are in memory, because all of them has to be signed: of one team, and of all. */
const wholeBytesMaxTeam = 32 * signedBodyBytesMax;
const wholeBytesMax = 64 * signedBodyBytesMax;
/** Large frames of WebSockets that are not whole yet. */
const frameRoomMaxTeam = 64 * frameBytesMax;
const frameRoomMax = 128 * frameBytesMax;

/** Carries calls. */
export class BrokerProxy {
  readonly #parts: ProxyParts;
  readonly #redactors = new Redactors();
  readonly #whole = new Budget<string>({
    what: 'signed',
    keyMax: wholeBytesMaxTeam,
    max: wholeBytesMax,
  });
  readonly #frames = new Budget<string>({
    what: 'framed',
    keyMax: frameRoomMaxTeam,
    max: frameRoomMax,
  });
  constructor(parts: ProxyParts) {
    this.#parts = parts;
  }

  /** Bytes of bodies and of large frames in memory, and how often there was no room for one. */
  get counts(): BudgetCounts {
    const [bodies, frames] = [this.#whole.counts, this.#frames.counts];
    return {
      inUse: bodies.inUse + frames.inUse,
      max: bodies.max + frames.max,
      refused: bodies.refused + frames.refused,
    };
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
    const tally: Tally = { sent: 0, received: 0, passed: 0 };
    let failure: string | undefined;
    try {
      const { webSocket } = exchange;
      if (webSocket === undefined) await this.#carry(admitted, exchange, watch, tally);
      else {
        const { egress, webSocketTimes: times = webSocketTimes } = this.#parts;
        await carryWebSocket(admitted, { ...exchange, webSocket }, watch, tally, {
          egress,
          times,
          prepare: () => this.#prepare(admitted, exchange, watch, tally),
          renewed: (prepared, answer) => this.#renewed(admitted, request, prepared, watch, answer),
          soughtFor: (values) => this.#redactors.soughtFor(admitted.credential, values),
          enter: (bytes) => this.#frames.enter(admitted.team, bytes),
          onEvent: () => {
            this.#tell(admitted, tally, startedAt, { isOpen: true });
          },
        });
      }
    } catch (error) {
      const refusal = this.#refusalFor(error, watch, request);
      const isOwn = isOwnFailure(refusal);
      const isCallers =
        (watch.stopped === 'callerGone' || watch.stopped === 'callerStalled') && !isOwn;
      failure = isCallers ? watch.stopped : (refusal.errors?.[0]?.rule ?? refusal.code);
      // What is answered is logged with its answer.
      if (!isCallers && !response.headersSent) throw refusal;
      if (isOwn) exchange.log(refusal);
      exchange.take();
      response.destroy();
    } finally {
      watch.end();
      tally.room?.leave();
      admitted.leave();
      failure ??= tally.failure;
      this.#tell(admitted, tally, startedAt, failure === undefined ? {} : { failure });
    }
  }

  #tell(
    { caller, event }: Admitted,
    tally: Tally,
    startedAt: number,
    more: { readonly failure?: string; readonly isOpen?: true },
  ): void {
    this.#parts.outcomes.add({
      caller: { ...caller, address: null },
      team: event.team,
      action: 'credential.used',
      target: event.target,
      details: {
        ticket: event.details?.['ticket'] ?? null,
        ...(tally.status === undefined ? {} : { status: tally.status }),
        ...more,
        ...(tally.closeCode === undefined ? {} : { closeCode: tally.closeCode }),
        sentBytes: tally.sent,
        ...(tally.isUnscanned === undefined ? {} : { isUnscanned: true }),
        // SECURITY: of an echo, what came in would tell the length of the secret.
        receivedBytes: tally.passed,
        ms: Math.round(performance.now() - startedAt),
      },
    });
  }

  async #carry(admitted: Admitted, exchange: Exchange, watch: Watch, tally: Tally): Promise<void> {
    const { request } = exchange;
    const { target, team, credential, rendered } = admitted;
    const dispatcher = await watch.race(this.#parts.egress.dispatcher(target.origin, team));
    const prepared = await this.#prepare(admitted, exchange, watch, tally);
    let answer: UpstreamAnswer | undefined;
    try {
      if (prepared.body instanceof Transform && prepared.body.errored !== null)
        throw prepared.body.errored;
      const ask = async (headers: Prepared['headers']): Promise<UpstreamAnswer> => {
        const asked = await send(dispatcher, watch.signal, {
          // The watch is the one clock: it sees both directions, and waits as long as this
          // credential's limits say.
          method: (request.method ?? 'GET') as 'GET',
          path: admitted.path,
          headers,
          body: prepared.body,
          headersTimeout: 0,
          bodyTimeout: 0,
        });
        // SECURITY: an upstream that breaks off where nobody reads would end the process.
        asked.body.on('error', () => undefined);
        return asked;
      };
      answer = await this.#askOnceMore(request, prepared, watch, ask);
      watch.touch();
      const sought = [this.#redactors.soughtFor(credential, rendered.sensitive)];
      const renewed = await this.#renewed(admitted, request, prepared, watch, answer);
      if (renewed !== undefined) {
        discard(answer);
        sought.push(this.#redactors.soughtFor(credential, renewed.sensitive));
        answer = await ask({ ...prepared.headers, ...renewed.headers });
        watch.touch();
      }
      tally.status = answer.statusCode;
      await answerCall(admitted, exchange, watch, tally, {
        answer,
        method: request.method ?? 'GET',
        redactor: new Redactor(prepared.signed, sought),
      });
      await watch.taken('finish');
    } finally {
      // What was not read to its end would hold its connection for as long as the other side likes.
      discard(answer);
      leaveBody(request, prepared.body);
    }
  }

  /** Asks, and once more where a kept connection was just being closed by the upstream. */
  async #askOnceMore(
    request: IncomingMessage,
    { headers, body }: Prepared,
    watch: Watch,
    ask: (headers: Prepared['headers']) => Promise<UpstreamAnswer>,
  ): Promise<UpstreamAnswer> {
    try {
      return await ask(headers);
    } catch (error) {
      // SECURITY: only what may be sent twice is.
      if (
        (error as { code?: unknown }).code !== 'UND_ERR_SOCKET' ||
        !isRepeatable(request, body) ||
        watch.signal.aborted
      )
        throw error;
      return await ask(headers);
    }
  }

  /**
   * The call with another access token, where the upstream has refused the held one and the call
   * may be sent again. A failure to get one is the vault's own, and is said as that.
   */
  async #renewed(
    { renew, renewOn }: Admitted,
    request: IncomingMessage,
    { body }: Prepared,
    watch: Watch,
    { statusCode }: Pick<UpstreamAnswer, 'statusCode'>,
  ): Promise<Rendered | undefined> {
    if (renew === undefined || !renewOn.includes(statusCode)) return undefined;
    const isRepeated = isRepeatable(request, body);
    // SECURITY: only 401 says that the token is not good. What else the policy names renews where
    // the answer to the repetition shows whether that was it, and nowhere else.
    if (statusCode !== 401 && !isRepeated) return undefined;
    const renewed = renew();
    if (!isRepeated) {
      // The next call has another token then; whether this one has is known to the caller by the
      // answer.
      renewed.catch((error: unknown) => {
        this.#parts.onError(
          new Error('cannot refresh a token that an upstream refused', { cause: error }),
        );
      });
      return undefined;
    }
    try {
      return await watch.race(renewed);
    } catch (error) {
      throw watch.signal.aborted ? error : refusalOf(error);
    }
  }

  /** Headers and body as they go out. */
  async #prepare(
    { target, policy, rendered, path, limits, callPath, team, presented }: Admitted,
    { request, response, isOwnUrl }: Exchange,
    watch: Watch,
    tally: Tally,
  ): Promise<Prepared> {
    const length = bodyLength(request);
    const isSigned = rendered.sign?.needsBody(target.origin.host) === true;
    const bytesMax = isSigned
      ? Math.min(limits.requestBytes, signedBodyBytesMax)
      : limits.requestBytes;
    if (length !== 'unknown' && length > bytesMax) throw new BrokerRefusal('bodyTooLarge');
    if (isSigned) tally.room = this.#whole.enter(team, length === 'unknown' ? bytesMax : length);
    if (request.headers.expect !== undefined && request.httpVersion === '1.1' && length !== 0)
      response.writeContinue();
    const guard =
      length === 0
        ? undefined
        : bodyGuard(policy, { target, path: callPath }, request.rawHeaders, presented.ticket);
    const counting = {
      bytesMax,
      guard,
      onBytes: (bytes: number): void => {
        tally.sent += bytes;
        watch.touch();
      },
      signal: watch.signal,
    };
    const whole = isSigned && length !== 0 ? await wholeBody(request, counting) : undefined;
    // As a stream it is made when all else is done: from then on it wants to be read.
    const body = (): Prepared['body'] =>
      length === 0 ? null : (whole ?? countedBody(request, counting));
    const headers = requestHeaders(request.rawHeaders, rendered, whole?.length ?? length, isOwnUrl);
    if (rendered.sign === undefined) return { headers, body: body(), signed: [] };
    const signed = await rendered.sign({
      method: request.method ?? 'GET',
      host: hostHeader(target.origin),
      pathAndQuery: path,
      at: new Date(this.#parts.now()),
      headers: Object.fromEntries(
        Object.entries(headers).map(([name, value]) => [name, [value].flat().join(',')]),
      ),
      ...(isSigned ? { body: whole ?? Buffer.alloc(0) } : {}),
    });
    return {
      headers: { ...headers, ...signed.headers },
      body: body(),
      signed: signed.sensitive,
    };
  }

  /** The answer to the caller for a failure. An unknown failure is the vault's own. */
  #refusalFor(error: unknown, { stopped }: Watch, request: IncomingMessage): AppError {
    const failure = error instanceof AppError ? error : egressFailure(error);
    const isStopped = stopped === 'idle' && failure instanceof EgressFailed && failure !== error;
    if (!isStopped) return refusalOf(failure);
    if (!request.complete)
      return new AppError('requestTimeout', 'The body took too long to arrive.');
    return refusalOf(new EgressFailed('timeout'));
  }
}

/** Neither the caller's doing nor the upstream's. */
const isOwnFailure = ({ code }: AppError): boolean =>
  code === 'internal' ||
  code === 'databaseUnavailable' ||
  code === 'commitUnknown' ||
  code === 'keyUnavailable';

const isRepeatable = ({ method = 'GET' }: IncomingMessage, body: Prepared['body']): boolean =>
  body === null && repeatable.has(method);
