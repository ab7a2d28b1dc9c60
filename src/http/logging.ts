// What is logged of a request: an allow-list. No URL with its query, no header, no body, no row.
import type { FastifyInstance } from 'fastify';

/** One line for each answer. */
export function registerRequestLog(app: FastifyInstance): void {
  app.addHook('onResponse', async (request, reply) => {
    request.log.info({
      event: 'request',
      requestId: request.id,
      method: request.method,
      route: request.routeOptions.url ?? null,   // the template: a path can hold a name
      status: reply.statusCode,
      durationMs: Math.round(reply.elapsedTime * 1000) / 1000,
      subject: request.caller?.sub ?? null,
    }, 'request');
  });
}
