// What Node refuses before there is a request: a header block that is too large, a request that
// arrives too slowly, bytes that are no HTTP. The answer is a problem document like any other,
// counted and logged as any other, and repeats nothing of what came.
import { randomUUIDv7 } from 'node:crypto';
import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import { AppError } from '../shared/errors.ts';
import { lingerMs } from '../shared/limits.ts';
import { headersOf, problemMediaType, problemOf, problems } from './problem.ts';

const known: Readonly<Record<string, AppError>> = {
  HPE_HEADER_OVERFLOW: new AppError('headersTooLarge', 'The header fields are too large.'),
  ERR_HTTP_REQUEST_TIMEOUT: new AppError('requestTimeout', 'The request took too long to arrive.'),
};
const malformed = new AppError('malformedHttp', 'This is not a well-formed HTTP request.');

export interface ClientErrorParts {
  readonly logger: Logger;
  readonly headers: Readonly<Record<string, string>>;
  /** Counts the attempt; the refusal where there were too many from there. */
  readonly count: (socket: Socket) => Promise<AppError | undefined>;
  /** The id of a request that has begun. */
  readonly idOf: (request: IncomingMessage) => string | undefined;
}

/** What Node hands in with a broken connection, beside its documented face. */
type ServerSocket = Socket & {
  readonly secureConnecting?: boolean;
  /** What is being answered. */
  readonly _httpMessage?: ServerResponse | null;
};

/** Answers on the bare socket and closes it. */
export function clientErrorAnswerer(
  parts: ClientErrorParts,
): (error: Error & { readonly code?: string }, socket: Socket) => void {
  const met = new WeakSet<Socket>();
  return (error, socket: ServerSocket) => {
    if (socket.secureConnecting === true) {
      // TLS has told the other side what was wrong, and nobody has spoken HTTP.
      parts.logger.debug({ event: 'handshakeFailed', code: error.code ?? null }, 'no TLS');
      socket.destroy();
      return;
    }
    // What comes behind the first fault is bytes without a meaning.
    if (met.has(socket)) return;
    met.add(socket);
    if (error.code === 'ECONNRESET') {
      socket.destroy();
      return;
    }
    const fault = known[error.code ?? ''] ?? malformed;
    if (socket._httpMessage == null) void answerFirst(fault, socket, parts);
    // A request that has begun may be refused for a reason of its own, which comes first.
    else setImmediate(answerInTurn, fault, socket, parts);
  };
}

/**
 * SECURITY: requests that came whole before the fault get their own answers first: an answer in
 * their place would tell somebody that nothing was done.
 */
function answerInTurn(fault: AppError, socket: ServerSocket, parts: ClientErrorParts): void {
  const { _httpMessage: answering } = socket;
  if (answering == null) {
    void answerFirst(fault, socket, parts);
    return;
  }
  if (answering.req.complete) {
    answering.once('close', () => {
      answerInTurn(fault, socket, parts);
    });
    return;
  }
  // The answer to the broken request is on its way already: more bytes would be read as a part of
  // it.
  if (answering.writableEnded) hangUp(socket);
  else if (answering.headersSent) socket.destroy();
  else {
    answering.statusCode = problems[fault.code].status; // for the line that its end leaves in the log
    write(fault, socket, parts.headers, parts.idOf(answering.req) ?? randomUUIDv7());
  }
}

/** Answers where no request has begun, so that nothing has counted or logged it. */
async function answerFirst(
  fault: AppError,
  socket: Socket,
  { logger, headers, count }: ClientErrorParts,
): Promise<void> {
  const refusal = socket.writable ? ((await count(socket).catch(() => undefined)) ?? fault) : fault;
  // Nobody is there any more, or an answer was the last word.
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const requestId = randomUUIDv7();
  write(refusal, socket, headers, requestId);
  const { status } = problems[refusal.code];
  logger.info(
    { event: 'request', requestId, method: null, route: null, status, subject: null },
    'request',
  );
}

function write(
  refusal: AppError,
  socket: Socket,
  headers: ClientErrorParts['headers'],
  requestId: string,
): void {
  const { status } = problems[refusal.code];
  const body = JSON.stringify(problemOf(refusal, requestId));
  const head = Object.entries({
    'Content-Type': problemMediaType,
    'Content-Length': String(Buffer.byteLength(body)),
    Connection: 'close',
    'X-Request-Id': requestId,
    ...headersOf(refusal),
    ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}\r\n${head.join('')}\r\n${body}`);
  hangUp(socket);
}

/**
 * Says that nothing more comes, and lets go when the other side has heard it, or a little later:
 * closed at once, with bytes of it unread, the connection would be reset under the answer.
 */
export function hangUp(socket: Socket): void {
  const timer = setTimeout(() => {
    socket.destroy();
  }, lingerMs).unref();
  socket
    .once('end', () => {
      socket.destroy();
    })
    .once('close', () => {
      clearTimeout(timer);
    })
    .end();
  socket.resume();
}
