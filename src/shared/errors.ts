// The domain's errors. Messages are for the caller and hold nothing that the caller sent;
// http/problem is their only translator.
import type { Allowed, InputRule, RuleName } from './rules.ts';

/** Every way in which an operation refuses; `internal` is everything unnamed. */
export type ErrorCode =
  | 'invalidRequest'
  | 'invalidUrl'
  | 'malformedJson'
  | 'unsupportedMediaType'
  | 'payloadTooLarge'
  | 'invalidCursor'
  | 'malformedHttp'
  | 'methodNotAllowed'
  | 'misdirected'
  | 'expectationFailed'
  | 'headersTooLarge'
  | 'unauthenticated'
  | 'forbidden'
  | 'notFound'
  | 'preconditionRequired'
  | 'preconditionFailed'
  | 'nameTaken'
  | 'slugTaken'
  | 'subjectTaken'
  | 'engineNameTaken'
  | 'engineKeyTaken'
  | 'lastAdmin'
  | 'notAnEngine'
  | 'isAnEngine'
  | 'holdsARole'
  | 'issuerTeams'
  | 'teamNotEmpty'
  | 'notTestable'
  | 'secretRequired'
  | 'undecryptable'
  | 'stateConflict'
  | 'limitReached'
  | 'oauthNotConfigured'
  | 'oauthStateInvalid'
  | 'oauthRefused'
  | 'oauthUnavailable'
  | 'leaseRefused'
  | 'subjectTokenInvalid'
  | 'ticketRefused'
  | 'brokerOff'
  | 'ticketInvalid'
  | 'brokerRefused'
  | 'rangeRefused'
  | 'unsupportedCall'
  | 'upstreamUnreachable'
  | 'upstreamTimeout'
  | 'upstreamUnusable'
  | 'rotationRunning'
  | 'rotationNotRunning'
  | 'keyInUse'
  | 'keyBusy'
  | 'keyStateConflict'
  | 'idempotencyKeyReused'
  | 'rateLimited'
  | 'notReady'
  | 'keyUnavailable'
  | 'databaseUnavailable'
  | 'commitUnknown'
  | 'identityProviderUnavailable'
  | 'requestTimeout'
  | 'internal';

/**
 * What is wrong with one part of the input: a JSON pointer and the rule that it breaks, never the
 * value.
 */
export interface InputFault extends Allowed {
  readonly pointer: string;
  readonly rule: RuleName;
}

export interface AppErrorExtras {
  readonly errors?: readonly InputFault[];
  /** Members added to the problem document, e.g. the id of the rotation that runs. */
  readonly details?: Readonly<Record<string, string | number | Readonly<Record<string, number>>>>;
  readonly retryAfterSeconds?: number;
  /** The methods that the path takes. */
  readonly allow?: readonly string[];
  readonly cause?: unknown;
}

/** A refusal with a stable code. The message is fixed text. */
export class AppError extends Error {
  readonly code: ErrorCode;
  readonly errors: readonly InputFault[] | undefined;
  readonly details: AppErrorExtras['details'];
  readonly retryAfterSeconds: number | undefined;
  readonly allow: AppErrorExtras['allow'];

  constructor(code: ErrorCode, message: string, extras: AppErrorExtras = {}) {
    super(message, extras.cause === undefined ? undefined : { cause: extras.cause });
    this.name = 'AppError';
    this.code = code;
    this.errors = extras.errors;
    this.details = extras.details;
    this.retryAfterSeconds = extras.retryAfterSeconds;
    this.allow = extras.allow;
  }
}

/** The thing does not exist, or the caller may not know that it does: one answer for both. */
export const notFound = (): AppError =>
  new AppError('notFound', 'Not found, or you do not have access.');
/** The caller is in the team but lacks the right. */
export const forbidden = (): AppError =>
  new AppError('forbidden', 'Your role does not allow this.');
/** Everything unnamed: the log has the cause, the caller has nothing of it. */
export const internal = (cause: unknown): AppError =>
  new AppError('internal', 'Something went wrong: the log has more under this request id.', {
    cause,
  });
/** One part of the input breaks one rule. */
export const invalid = (pointer: string, rule: InputRule, allowed: Allowed = {}): AppError =>
  new AppError('invalidRequest', 'The request breaks a rule.', {
    errors: [{ pointer, rule, ...allowed }],
  });
