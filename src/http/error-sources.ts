// What each layer below throws, as one of the domain's errors. Fastify's own errors are known by
// their codes.
import { failureOfKeys } from '../crypto/index.ts';
import { failureOfDatabase } from '../db/failures.ts';
import { AppError, type ErrorCode, internal, notFound } from '../shared/errors.ts';
import { depthMax, JsonRefused } from '../shared/strict-json.ts';

const ofFastify: Readonly<Record<string, readonly [ErrorCode, string]>> = {
  FST_ERR_BAD_URL: ['invalidUrl', 'The URL is malformed.'],
  FST_ERR_MAX_PARAM_LENGTH: ['invalidUrl', 'A path parameter is too long.'],
  FST_ERR_ASYNC_CONSTRAINT: ['invalidUrl', 'The URL is malformed.'],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: ['malformedHttp', 'The body is not as long as it says.'],
  FST_ERR_CTP_BODY_TOO_LARGE: ['payloadTooLarge', 'The body is too large.'],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: ['unsupportedMediaType', 'The body must be application/json.'],
  FST_ERR_NOT_FOUND: ['notFound', 'Not found, or you do not have access.'],
};

const ofJson: Readonly<Record<JsonRefused['rule'], readonly [ErrorCode, string]>> = {
  utf8: ['malformedJson', 'The body is not UTF-8.'],
  json: ['malformedJson', 'The body is not well-formed JSON.'],
  depth: ['malformedJson', 'The body is nested too deeply.'],
  duplicateMember: ['malformedJson', 'The body names a member of an object twice.'],
  memberName: ['invalidRequest', 'The request breaks a rule.'],
  loneSurrogate: ['invalidRequest', 'The request breaks a rule.'],
  inexactNumber: ['invalidRequest', 'The request breaks a rule.'],
};

/** The domain error behind whatever was thrown; `internal` with its cause when there is none. */
export function appErrorFrom(thrown: unknown): AppError {
  if (thrown instanceof AppError) return thrown;
  if (thrown instanceof JsonRefused) {
    const [code, message] = ofJson[thrown.rule];
    return new AppError(code, message, {
      errors: [
        {
          pointer: thrown.pointer,
          rule: thrown.rule,
          ...(thrown.rule === 'depth' ? { max: depthMax } : {}),
        },
      ],
    });
  }
  const failure = refusalOfFastify(thrown) ?? failureOfKeys(thrown) ?? failureOfDatabase(thrown);
  return failure ?? internal(thrown);
}

/**
 * What fastify says of a request. A sender that hangs up comes as a socket's error, which must not
 * pass for the database's.
 */
function refusalOfFastify(thrown: unknown): AppError | undefined {
  const { code, statusCode } = (typeof thrown === 'object' && thrown !== null ? thrown : {}) as {
    code?: unknown;
    statusCode?: unknown;
  };
  const known =
    typeof code === 'string' && Object.hasOwn(ofFastify, code) ? ofFastify[code] : undefined;
  if (known !== undefined) return new AppError(known[0], known[1], { cause: thrown });
  if (statusCode === 404) return notFound();
  if (typeof statusCode === 'number' && statusCode >= 400 && statusCode < 500) {
    return new AppError('malformedHttp', 'The request cannot be read.', { cause: thrown });
  }
  return undefined;
}
