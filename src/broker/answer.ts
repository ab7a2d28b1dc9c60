// The upstream's answer on its way to the caller: its coding taken off, without the secret, as it
// comes.
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Transform } from 'node:stream';
import type { Dispatcher } from '../egress/index.ts';
import type { BudgetRoom } from '../shared/budget.ts';
import { AppError } from '../shared/errors.ts';
import { withoutCoding } from './codings.ts';
import {
  type AnswerHeaders,
  answerHeaders,
  bodyCoding,
  isScannable,
  isTransferCoded,
  sumsUp,
  widthsOf,
} from './headers.ts';
import type { Seen } from './links.ts';
import { isInParts, isPart } from './ranges.ts';
import type { Redactor } from './redaction/redactor.ts';
import { BrokerRefusal } from './refusal.ts';
import type { Admitted } from './types.ts';
import type { Tunnel } from './tunnel.ts';
import type { Watch } from './watch.ts';

/** The two ends on the caller's side. `take` says that the answer is written here from now on. */
export interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  /** The credential's address as a path and as a whole URL (links.ts). */
  readonly seenAt: Pick<Seen, 'brokerPath' | 'brokerUrl' | 'ticketNames'>;
  /** Whether a URL that the caller sends along names the broker. */
  readonly isOwnUrl?: (text: string) => boolean;
  readonly take: () => void;
  /** What it becomes a WebSocket by. */
  readonly webSocket?: WebSocketExchange;
  /** Logs a failure of the vault's own that nobody can be answered any more. */
  readonly log: (failure: AppError) => void;
}

/** A caller who wants a WebSocket. */
export interface WebSocketExchange {
  /** What came right behind the request. */
  readonly head: Buffer;
  /** The connection, from now on this one's alone. */
  readonly takeSocket: () => Socket;
  /** Whether the call would be let out now. */
  readonly isAllowed: () => Promise<boolean>;
  /** Told of the open tunnel, for as long as it is open. */
  readonly onOpen: (tunnel: Pick<Tunnel, 'close'>) => () => void;
}

export type UpstreamAnswer = Dispatcher.ResponseData;

/** A call as it goes out. */
export interface Prepared {
  readonly headers: Record<string, string | string[]>;
  readonly body: Buffer | Transform | null;
  /** What the signature adds to what is looked for. */
  readonly signed: readonly string[];
}
/** What of a call is counted for its outcome. */
export interface Tally {
  sent: number;
  received: number;
  /** What of it went on to the caller, marks in the place of secrets. */
  passed: number;
  status?: number;
  /** The answer went to the caller though no secret could be looked for in it. */
  isUnscanned?: true;
  /** The code with which a WebSocket was closed, and why where neither side asked for that. */
  closeCode?: number;
  failure?: string;
  /** Room for a body in memory, until the call is over. */
  room?: BudgetRoom;
}

const withoutBody: ReadonlySet<number> = new Set([204, 205, 304]);
/**
 * A body of a known length up to this waits for its first piece, so that a small one is answered
 * whole, with its length.
 */
const smallBodyBytes = 64 * 1024;

/** The upstream's answer to the caller, without the secret. */
export async function answerCall(
  { target, isObjectStore, limits, caller, path, root, policy }: Admitted,
  { response, seenAt, take }: Exchange,
  watch: Watch,
  tally: Tally,
  { answer, method, redactor }: { answer: UpstreamAnswer; method: string; redactor: Redactor },
): Promise<void> {
  const given = answer.headers as AnswerHeaders;
  const hasBody = method !== 'HEAD' && !withoutBody.has(answer.statusCode);
  const length =
    hasBody && /^\d{1,15}$/.test(String(given['content-length']))
      ? Number(given['content-length'])
      : undefined;
  const coding = hasBody ? bodyCoding(given) : 'identity';
  const isPartial = isPart(answer.statusCode, given);
  // A part of what is coded can't be read by itself.
  const canScan = !hasBody || (isScannable(given) && (coding === 'identity' || !isPartial));
  const isPiece = hasBody && canScan && !isObjectStore && isPartial;
  if (!canScan && policy.unscanned === true && !isTransferCoded(given)) tally.isUnscanned = true;
  const refusal =
    !canScan && tally.isUnscanned !== true
      ? new BrokerRefusal('unscannable')
      : isPiece && isInParts(given)
        ? new BrokerRefusal('piece')
        : length !== undefined && length > limits.responseBytes
          ? tooLarge()
          : undefined;
  if (refusal !== undefined) throw refusal;
  const headers: Record<string, string | string[]> = {
    ...answerHeaders(given, redactor, { target, ...seenAt, path, root, isObjectStore }, hasBody),
    'vault-request-id': caller.requestId,
  };
  const isCoded = coding !== 'identity';
  if (isCoded && canScan)
    for (const name of Object.keys(headers)) if (sumsUp(name)) delete headers[name];
  if (isCoded && !canScan) headers['content-encoding'] = String(given['content-encoding']);
  const begin = (more: Record<string, string> = {}): void => {
    response.writeHead(answer.statusCode, { ...headers, ...more });
    take(); // not before: what cannot be written is answered with a problem
  };
  if (!hasBody) {
    await watch.race(answer.body.dump());
    begin();
    response.end();
    return;
  }
  const isSmall = !isCoded && length !== undefined && length <= smallBodyBytes;
  // Of a part nothing is begun before something may pass, nor of what may not be in its coding.
  const isHeldBack = isPiece || (isCoded && canScan);
  if (!isSmall && !isHeldBack) {
    begin();
    response.flushHeaders();
  }
  const stream = redactor.stream({ widths: widthsOf(given), isPiece });
  const body: AsyncIterable<Buffer> =
    canScan && coding !== 'identity' && coding !== 'unknown'
      ? withoutCoding(answer.body, coding)
      : answer.body;
  for await (const chunk of body) {
    // SECURITY: of what was coded, the bytes that came out of it: a few may be very many.
    tally.received += chunk.length;
    watch.touch();
    const passed = isCoded && !canScan ? chunk : stream.push(chunk);
    tally.passed += passed.length;
    if (tally.received > limits.responseBytes) throw tooLarge();
    if (!response.headersSent) {
      if (isSmall && chunk.length === length) {
        const rest = stream.end();
        tally.passed += rest.length;
        const whole = Buffer.concat([passed, rest]);
        // What names the body as it was names another one than is passed on.
        if (stream.isChanged) delete headers['etag'];
        begin({ 'content-length': String(whole.length) });
        response.end(whole);
        continue; // to the body's end: left before it, it would be torn down
      }
      if (isHeldBack && passed.length === 0) continue;
      begin();
    }
    if (passed.length > 0 && !response.write(passed)) await watch.taken('drain');
  }
  if (response.writableEnded) return;
  const rest = stream.end();
  tally.passed += rest.length;
  if (!response.headersSent) begin();
  response.end(rest);
}

const tooLarge = (): AppError =>
  new AppError('upstreamUnusable', "The answer is larger than the credential's limit.", {
    errors: [{ pointer: '', rule: 'size' }],
  });
