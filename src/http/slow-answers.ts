// An answer that is long is in memory until it has been taken. A connection on which nothing moves
// is ended by Node; this ends one on which hardly anything does.
import type { ServerResponse } from 'node:http';
import type { FastifyInstance } from 'fastify';
import { answerMs } from '../shared/limits.ts';

/** Shorter ones lie with the operating system at once. */
const longBytes = 64 * 1024;
const everyMs = 5_000;

/**
 * Cuts off answers that are not taken within their time. What is sent as it is made has a clock of
 * its own.
 */
export function endSlowAnswers(
  app: FastifyInstance,
  limits: { readonly answerMs: number; readonly everyMs: number } = { answerMs, everyMs },
): void {
  const begun = new Map<ServerResponse, number>();
  app.addHook('onSend', (_request, reply, payload, done) => {
    if ((typeof payload === 'string' || Buffer.isBuffer(payload)) && payload.length > longBytes) {
      begun.set(reply.raw, performance.now());
      reply.raw.once('close', () => {
        begun.delete(reply.raw);
      });
    }
    done();
  });
  const timer = setInterval(() => {
    const before = performance.now() - limits.answerMs;
    for (const [response, at] of begun) {
      if (at >= before) break; // in the order in which they began
      response.destroy();
    }
  }, limits.everyMs).unref();
  app.addHook('onClose', (_app, done) => {
    clearInterval(timer);
    done();
  });
}
