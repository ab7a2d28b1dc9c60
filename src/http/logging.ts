// What is logged of a request: an allow-list. No URL with its query, no header, no body, no row.
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Logger } from 'pino';

/** One line for each answer. The request's id is in every line of its logger. */
export function registerRequestLog(app: FastifyInstance): void {
  app.addHook('onResponse', (request, reply, done) => {
    logRequest(request, reply);
    done();
  });
}

/** The line itself, for answers that no hook sees. */
export function logRequest(request: FastifyRequest, reply: FastifyReply): void {
  request.log.info(
    {
      event: 'request',
      method: request.method,
      route: request.routeOptions.url ?? null, // the template: a path can hold a name
      status: reply.statusCode,
      durationMs: Math.round(reply.elapsedTime * 1000) / 1000,
      subject: request.caller?.sub ?? null,
    },
    'request',
  );
}

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
