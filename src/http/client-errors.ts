// What node refuses before there is a request: a header block that is too large, a request that
// arrives too slowly, bytes that are no HTTP. The answer is a problem document like any other and
// repeats nothing of what came.
import { randomUUIDv7 } from 'node:crypto';
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { Logger } from 'pino';
import { AppError } from '../shared/errors.ts';
import { problemMediaType, problemOf, problems } from './problem.ts';

const known: Readonly<Record<string, AppError>> = {
  HPE_HEADER_OVERFLOW: new AppError('headersTooLarge', 'The header fields are too large.'),
  ERR_HTTP_REQUEST_TIMEOUT: new AppError('requestTimeout', 'The request took too long to arrive.'),
};
const malformed = new AppError('malformedHttp', 'This is not a well-formed HTTP request.');

/** Answers on the bare socket and closes it. */
export function answerClientError(
  error: Error & { readonly code?: string },
  socket: Socket,
  logger: Logger,
  headers: Readonly<Record<string, string>> = {},
): void {
  // The peer is gone, or an answer is on its way already: more bytes would be read as a part of it.
  const { _httpMessage: answering } = socket as Socket & {
    _httpMessage?: { _headerSent?: boolean } | null;
  };
  if (error.code === 'ECONNRESET' || !socket.writable || answering?._headerSent === true) {
    socket.destroy();
    return;
  }
  const refusal = known[error.code ?? ''] ?? malformed;
  const requestId = randomUUIDv7();
  const { status } = problems[refusal.code];
  const body = JSON.stringify(problemOf(refusal, requestId));
  const head = [
    `HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}`,
    `Content-Type: ${problemMediaType}`,
    `Content-Length: ${Buffer.byteLength(body)}`,
    'Connection: close',
    'Cache-Control: no-store',
    'X-Content-Type-Options: nosniff',
    `X-Request-Id: ${requestId}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => {
    socket.destroy();
  });
  logger.info(
    { event: 'request', requestId, method: null, route: null, status, subject: null },
    'request',
  );
}
