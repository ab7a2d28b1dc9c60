// What an error of the database means, by SQLSTATE and constraint name: the server's messages
// depend on its language.
import { ShownError } from '../shared/shown-error.ts';

/**
 * Whether a change took effect and is kept is not known: the answer was lost, or the server did not
 * wait for its synchronous standby.
 */
export class CommitUnknown extends Error {
  override name = 'CommitUnknown';
  constructor(options?: ErrorOptions) {
    super('it is not known whether the change is durable', options);
  }
}

/**
 * None of the configured hosts accepts connections as a primary. The message has a code per host;
 * the cause is an AggregateError with the rest.
 */
export class NoPrimary extends ShownError {
  override name = 'NoPrimary';
  constructor(errors: readonly unknown[]) {
    super(
      `no configured database host accepts connections as a primary (` +
        `${errors.map(reasonOf).join('; ')})`,
      { cause: new AggregateError(errors) },
    );
  }
}

/** The host answers, but takes no writes: a standby, or set read-only. */
export class NotWritable extends Error {
  override name = 'NotWritable';
  constructor() {
    super('the host takes no writes');
  }
}

// Codes only: what a driver or a server writes in full may quote names.
function reasonOf(error: unknown): string {
  const { code } = fieldsOf(error);
  if (typeof code === 'string' && /^[A-Z0-9_]{2,40}$/.test(code)) return code;
  return error instanceof NotWritable ? 'takes no writes' : 'no connection';
}

/**
 * The server did not answer in time. The connection is gone, and the server was asked to cancel.
 */
export class StatementTimeout extends Error {
  override name = 'StatementTimeout';
  constructor() {
    super('the database did not answer in time');
  }
}

/** Every connection of the pool stayed in use for the whole waiting time. */
export class PoolExhausted extends Error {
  override name = 'PoolExhausted';
  constructor() {
    super('no database connection became free in time');
  }
}

/** The server's SQLSTATE, when the error is one that the server sent. */
export function sqlState(error: unknown): string | undefined {
  const { code } = fieldsOf(error);
  return typeof code === 'string' && /^[0-9A-Z]{5}$/.test(code) && /\d/.test(code)
    ? code
    : undefined;
}

/** A unique constraint or index refused the row; with a name, that one. */
export function isUniqueViolation(error: unknown, constraint?: string): boolean {
  return violates(error, '23505', constraint);
}

/** A foreign key refused the row; with a name, that one. */
export function isForeignKeyViolation(error: unknown, constraint?: string): boolean {
  return violates(error, '23503', constraint);
}

/**
 * A check constraint, or a trigger that raises check_violation, refused the row; with a name, that
 * one.
 */
export function isCheckViolation(error: unknown, constraint?: string): boolean {
  return violates(error, '23514', constraint);
}

/** A lock was not granted: lock_timeout, or NOWAIT. */
export function isLockTimeout(error: unknown): boolean {
  return sqlState(error) === '55P03';
}

/** The transaction lost against another one and may be run again from its start. */
export function isRetryable(error: unknown): boolean {
  const state = sqlState(error);
  return state === '40001' || state === '40P01';
}

/**
 * The server was promoted, demoted or is going down: this connection, and its siblings, are of no
 * more use.
 */
export function isServerGone(error: unknown): boolean {
  const state = sqlState(error);
  return (
    state === '25006' ||
    state === '57P01' ||
    state === '57P02' ||
    state === '57P03' ||
    state === '57P05'
  );
}

/**
 * After this the server ends the session, and says nothing more of the statement: every other error
 * undoes it. The severity is in the server's language; what cannot be read counts by its code.
 */
export function endsSession(error: unknown): boolean {
  const { severity } = fieldsOf(error);
  if (severity === 'ERROR') return false;
  return severity === 'FATAL' || severity === 'PANIC' || isServerGone(error);
}

/**
 * The database cannot be used at this moment (away, starting, read-only, overloaded, too slow): 503
 * and not 500.
 */
export function isDatabaseDown(error: unknown): boolean {
  if (
    error instanceof NoPrimary ||
    error instanceof StatementTimeout ||
    error instanceof PoolExhausted ||
    error instanceof CommitUnknown
  )
    return true;
  const state = sqlState(error);
  if (state !== undefined)
    return (
      isServerGone(error) || state.startsWith('08') || state.startsWith('53') || state === '57014'
    );
  const { code, syscall, message } = fieldsOf(error);
  if (typeof code === 'string' && socketErrors.has(code)) return true;
  return typeof syscall === 'string' || (typeof message === 'string' && driverErrors.has(message));
}

const socketErrors: ReadonlySet<string> = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'ECONNABORTED',
  'EPIPE',
  'ETIMEDOUT',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'ENOENT',
]);

// pg gives these no code.
const driverErrors: ReadonlySet<string> = new Set([
  'Connection terminated',
  'Connection terminated unexpectedly',
  'Connection terminated due to connection timeout',
  'Client has encountered a connection error and is not queryable',
  'Client was closed and is not queryable',
  'Cannot use a pool after calling end on the pool',
]);

function violates(error: unknown, state: string, constraint: string | undefined): boolean {
  return (
    sqlState(error) === state &&
    (constraint === undefined || fieldsOf(error)['constraint'] === constraint)
  );
}

function fieldsOf(error: unknown): Record<string, unknown> {
  return typeof error === 'object' && error !== null ? (error as Record<string, unknown>) : {};
}
