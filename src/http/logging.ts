// What is logged of a request: an allow-list. No URL with its query, no header, no body, no row.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';

/**
 * One line for each exchange; `status` is null where the caller was gone before there was an
 * answer. The request's id is in every line of its logger.
 */
export function registerRequestLog(app: FastifyInstance): void {
  app.addEnding(logRequest);
}

/** The line itself, for answers that no hook sees. */
export function logRequest(request: FastifyRequest, reply: FastifyReply, isCut = false): void {
  request.log.info(
    {
      event: 'request',
      method: request.method,
      route: request.routeOptions.url ?? null, // the template: a path can hold a name
      status: isCut && isUndecided(reply) ? null : reply.statusCode,
      ...(isCut ? { isCut } : {}),
      durationMs: Math.round(reply.elapsedTime * 1000) / 1000,
      subject: request.caller?.sub ?? request.sub ?? null,
    },
    'request',
  );
}

/** Whether nothing has been said yet of how the request ends: 200 is what Node begins with. */
const isUndecided = ({ raw }: FastifyReply): boolean => !raw.headersSent && raw.statusCode === 200;

/**
 * What failed beside the requests. Our own words are logged; of what others throw the name and the
 * code, because its text can quote values.
 */
export function logBackgroundFailure(logger: Logger, error: Error): void {
  const isOurs = error.constructor === Error;
  logger.error(
    {
      event: 'background',
      name: error.name,
      code: codeOf(error),
      cause: error.cause instanceof Error ? error.cause.name : undefined,
      causeCode: codeOf(error.cause),
    },
    isOurs ? error.message : 'work in the background failed',
  );
}

function codeOf(error: unknown): string | undefined {
  const { code } = (typeof error === 'object' && error !== null ? error : {}) as { code?: unknown };
  return typeof code === 'string' ? code : undefined;
}
