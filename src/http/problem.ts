// The only translator from errors to answers (RFC 9457). Nothing that the caller sent goes into an
// answer, and nothing unnamed leaves with more than `internal`.
import { STATUS_CODES } from 'node:http';
import type { FastifyBaseLogger, FastifyReply, FastifyRequest } from 'fastify';
import type { Effects } from '../db/effects.ts';
import type { AppError, ErrorCode } from '../shared/errors.ts';
import { describeFailure, type DescribedFailure } from '../shared/failure.ts';
import { commitUnknown, databaseUnavailable } from '../db/failures.ts';
import { appErrorFrom } from './error-sources.ts';
import { ResponseDoesNotFit } from './validation.ts';

/** Code → status and title. A code without a line here does not compile. */
export const problems: Record<ErrorCode, { readonly status: number; readonly title: string }> = {
  invalidRequest: { status: 400, title: 'The request breaks a rule' },
  invalidUrl: { status: 400, title: 'The URL is malformed' },
  malformedHttp: { status: 400, title: 'The request is not well-formed HTTP' },
  malformedJson: { status: 400, title: 'The body is not well-formed JSON' },
  invalidCursor: { status: 400, title: 'The cursor does not belong to this list' },
  subjectTokenInvalid: { status: 400, title: 'The subject token is not valid' },
  oauthStateInvalid: { status: 400, title: 'The state of the authorization is not valid' },
  unauthenticated: { status: 401, title: 'A valid token is needed' },
  ticketInvalid: { status: 401, title: 'A valid ticket is needed' },
  forbidden: { status: 403, title: 'The role does not allow this' },
  brokerRefused: { status: 403, title: 'The credential does not allow this call' },
  notFound: { status: 404, title: 'Not found' },
  methodNotAllowed: { status: 405, title: 'The path does not take this method' },
  requestTimeout: { status: 408, title: 'The request took too long to arrive' },
  nameTaken: { status: 409, title: 'The name is taken' },
  slugTaken: { status: 409, title: 'The slug is taken' },
  subjectTaken: { status: 409, title: 'The subject is an engine already' },
  engineNameTaken: { status: 409, title: 'An engine has this name' },
  engineKeyTaken: { status: 409, title: 'The engine has this key already' },
  lastAdmin: { status: 409, title: 'A team keeps at least one admin' },
  notAnEngine: { status: 409, title: 'The subject is not an enabled engine' },
  isAnEngine: { status: 409, title: 'An engine holds no other role' },
  issuerTeams: { status: 422, title: 'The issuer of the subject is kept to other teams' },
  holdsARole: { status: 409, title: 'The subject holds a role in a team' },
  teamNotEmpty: { status: 409, title: 'The team still has credentials' },
  undecryptable: { status: 409, title: 'The stored value does not open' },
  stateConflict: { status: 409, title: 'The state does not allow this' },
  limitReached: { status: 409, title: 'A limit is reached' },
  brokerOff: { status: 409, title: 'The broker is not turned on' },
  rotationRunning: { status: 409, title: 'A rotation of this team is running' },
  rotationNotRunning: { status: 409, title: 'The rotation is not running' },
  keyInUse: { status: 409, title: 'Tokens are still under this key' },
  keyBusy: { status: 409, title: 'The key is being used right now' },
  keyStateConflict: { status: 409, title: 'The state of the key does not allow this' },
  oauthNotConfigured: { status: 409, title: 'OAuth 2.0 is not configured' },
  preconditionFailed: { status: 412, title: 'The resource has changed' },
  payloadTooLarge: { status: 413, title: 'The body is too large' },
  unsupportedMediaType: { status: 415, title: 'The body must be application/json' },
  rangeRefused: { status: 416, title: 'So small a part is not given' },
  expectationFailed: { status: 417, title: 'The expectation cannot be met' },
  secretRequired: { status: 422, title: 'All secret fields are needed' },
  notTestable: { status: 422, title: 'The type has no test' },
  leaseRefused: { status: 422, title: 'Not every credential can be leased' },
  ticketRefused: { status: 422, title: 'The credential cannot be used through the broker' },
  oauthRefused: { status: 422, title: 'The provider refused' },
  idempotencyKeyReused: { status: 422, title: 'The idempotency key belongs to another request' },
  preconditionRequired: { status: 428, title: 'If-Match is needed' },
  rateLimited: { status: 429, title: 'Too many requests' },
  misdirected: { status: 421, title: 'This host is served elsewhere' },
  headersTooLarge: { status: 431, title: 'The header fields are too large' },
  internal: { status: 500, title: 'Something went wrong' },
  unsupportedCall: { status: 501, title: 'The broker cannot carry this' },
  upstreamUnreachable: { status: 502, title: 'The upstream cannot be reached' },
  upstreamUnusable: { status: 502, title: "The upstream's answer cannot be passed on" },
  notReady: { status: 503, title: 'Not ready' },
  keyUnavailable: { status: 503, title: 'A root key is not available' },
  databaseUnavailable: { status: 503, title: 'The database is not available' },
  commitUnknown: { status: 503, title: 'It is not known whether the change was kept' },
  upstreamTimeout: { status: 504, title: 'The upstream took too long' },
  oauthUnavailable: { status: 503, title: 'The provider gives no usable answer' },
  identityProviderUnavailable: {
    status: 503,
    title: 'The keys that verify tokens cannot be fetched',
  },
};

export const problemMediaType = 'application/problem+json';

/** The problem document of an error. */
export function problemOf(error: AppError, requestId: string): Record<string, unknown> {
  const { status, title } = problems[error.code];
  return {
    type: `urn:credential-vault:problem:${error.code}`,
    title,
    status,
    code: error.code,
    detail: error.message,
    requestId,
    ...(error.errors === undefined ? {} : { errors: error.errors }),
    ...(error.details ?? {}),
  };
}

/** The headers that belong to an error. */
export function headersOf({ code, allow, retryAfterSeconds }: AppError): Record<string, string> {
  return {
    ...(problems[code].status === 401 ? { 'WWW-Authenticate': 'Bearer' } : {}),
    ...(allow === undefined ? {} : { Allow: allow.join(', ') }),
    ...(retryAfterSeconds === undefined ? {} : { 'Retry-After': String(retryAfterSeconds) }),
  };
}

/** The domain error behind whatever was thrown. `internal` and 503 are logged, once, by this. */
function loggedError(
  thrown: unknown,
  request: FastifyRequest,
  effects: Effects | undefined = request.effects,
): AppError {
  const error = asAnswerTo(request, effects, appErrorFrom(thrown));
  // What is not implemented is no failure: anybody could fill the log with it.
  if (problems[error.code].status >= 500 && error.code !== 'unsupportedCall')
    logFailure(request.log, error);
  return error;
}

/**
 * Whether a change was kept is asked where something may have been changed, and there whatever
 * failed: a database that goes away after the change leaves it as unknown as one that goes away
 * under it.
 */
function asAnswerTo(
  request: FastifyRequest,
  effects: Effects | undefined,
  error: AppError,
): AppError {
  const isRead = request.routeOptions.config?.operation?.method === 'GET';
  if (error.code === 'commitUnknown' && isRead) return databaseUnavailable({ cause: error.cause });
  if (error.code === 'databaseUnavailable' && effects?.hasWritten === true)
    return commitUnknown({ cause: error.cause });
  return error;
}

/**
 * The problem of one thing among several that a request is about; `place` is where it stands,
 * `effects` what was done for it.
 */
export function problemAt(
  place: string,
  thrown: unknown,
  request: FastifyRequest,
  effects?: Effects,
): Record<string, unknown> & { readonly status: number } {
  const error = loggedError(thrown, request, effects);
  const errors = error.errors?.map((fault) => ({ ...fault, pointer: `${place}${fault.pointer}` }));
  return {
    ...problemOf(error, request.id),
    ...(errors === undefined ? {} : { errors }),
    status: problems[error.code].status,
  };
}

/** The problem of a thing that was not tried any more, because the database went before. */
export function problemOfUntried(
  request: FastifyRequest,
): Record<string, unknown> & { readonly status: number } {
  const error = databaseUnavailable({});
  return { ...problemOf(error, request.id), status: problems[error.code].status };
}

/**
 * Answers with a problem. `internal` and 503 are logged here, once, with their cause; the log gets
 * no text of a cause that could carry a value.
 */
export function sendProblem(
  thrown: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
): FastifyReply {
  const error = loggedError(thrown, request);
  const { status } = problems[error.code];
  for (const [name, value] of Object.entries(headersOf(error))) void reply.header(name, value);
  return reply
    .code(status)
    .type(problemMediaType)
    .serializer(JSON.stringify)
    .send(problemOf(error, request.id));
}

/** The problem in the place of an answer that is made and not sent yet; returns its text. */
export function problemInstead(
  thrown: unknown,
  request: FastifyRequest,
  reply: FastifyReply,
): string {
  const error = loggedError(thrown, request);
  for (const name of ['etag', 'location', 'allow', 'content-length']) void reply.removeHeader(name);
  for (const [name, value] of Object.entries(headersOf(error))) void reply.header(name, value);
  void reply.code(problems[error.code].status).type(problemMediaType);
  return JSON.stringify(problemOf(error, request.id));
}

/** Logs a failure with its causes: by this alone where there is no answer. */
export function logFailure(log: FastifyBaseLogger, error: AppError): void {
  // SECURITY: names, codes and places only: the text of a database or parser error can quote
  // values.
  const causes: DescribedFailure[] = [];
  for (
    let cause: unknown = error.cause ?? error;
    cause instanceof Error && causes.length < 5;
    cause = cause.cause
  )
    causes.push(
      cause instanceof ResponseDoesNotFit
        ? { ...describeFailure(cause), code: cause.code }
        : describeFailure(cause),
    );
  log.error(
    { event: 'requestFailed', code: error.code, causes },
    `${STATUS_CODES[problems[error.code].status] ?? 'failure'}`,
  );
}
