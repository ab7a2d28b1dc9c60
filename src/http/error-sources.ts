// What each layer below throws, as one of the domain's errors. Fastify's own errors are known by their codes.
import { DecryptionFailed, KeyUnavailable } from '../crypto/index.ts';
import { CommitUnknown, isDatabaseDown } from '../db/errors.ts';
import { AppError, type ErrorCode, notFound } from '../shared/errors.ts';

const ofFastify: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  FST_ERR_BAD_URL: ['invalidUrl', 'The URL is malformed.'],
  FST_ERR_MAX_PARAM_LENGTH: ['invalidUrl', 'A path parameter is too long.'],
  FST_ERR_ASYNC_CONSTRAINT: ['invalidUrl', 'The URL is malformed.'],
  FST_ERR_CTP_INVALID_JSON_BODY: ['malformedJson', 'The body is not well-formed JSON.'],
  FST_ERR_CTP_EMPTY_JSON_BODY: ['malformedJson', 'The body is empty.'],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: ['malformedJson', 'The body is not as long as it says.'],
  FST_ERR_CTP_BODY_TOO_LARGE: ['payloadTooLarge', 'The body is too large.'],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: ['unsupportedMediaType', 'The body must be application/json.'],
  FST_ERR_NOT_FOUND: ['notFound', 'There is no such thing, or you may not know of it.'],
  ERR_HTTP_REQUEST_TIMEOUT: ['requestTimeout', 'The request took too long to arrive.'],
};

/** The domain error behind whatever was thrown; `internal` with its cause when there is none. */
export function appErrorFrom(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  if (thrown instanceof KeyUnavailable) {
    return new AppError('keyUnavailable', 'A root key that is needed is not configured.', { cause: thrown });
  }
  if (thrown instanceof DecryptionFailed) return new AppError('undecryptable', 'The stored value does not open.', { cause: thrown });
  if (thrown instanceof CommitUnknown) {
    return new AppError('commitUnknown', 'The database did not confirm that the change is replicated.', { cause: thrown });
  }
  if (isDatabaseDown(thrown)) {
    return new AppError('databaseUnavailable', 'The database does not answer.', { cause: thrown, retryAfterSeconds: 1 });
  }
  const { code, statusCode } = (typeof thrown === 'object' && thrown !== null ? thrown : {}) as { code?: unknown; statusCode?: unknown };
  const known = typeof code === 'string' ? ofFastify[code] : undefined;
  if (known !== undefined) return new AppError(known[0], known[1], { cause: thrown });
  if (thrown instanceof SyntaxError && statusCode === 400) return new AppError('malformedJson', 'The body is not well-formed JSON.');
  if (statusCode === 404) return notFound();
  return new AppError('internal', 'Something went wrong; the log knows more under this request id.', { cause: thrown });
}
