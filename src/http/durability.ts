// Keeps what the statements of a request did, where the request may change something: so that a
// failure after the change is not taken for one before it.
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { Effects } from '../db/effects.ts';

/** Keeps the effects of requests that may change something. */
export function registerDurability(app: FastifyInstance): void {
  app.decorateRequest('effects', undefined);
  app.addHook('onRequest', (request, _reply, done) => {
    if (isSafe(request)) {
      done();
      return;
    }
    request.effects = new Effects();
    request.effects.run(done);
  });
  // The body comes in the context of its socket.
  app.addHook('preValidation', (request, _reply, done) => {
    const { effects } = request;
    if (effects === undefined) {
      done();
      return;
    }
    effects.run(done);
  });
  app.addHook('preHandler', (request, _reply, done) => {
    request.effects?.beginOperation();
    done();
  });
}

/** Whether the request cannot change anything: what is said of it says nothing of a change. */
const isSafe = ({ method }: FastifyRequest): boolean =>
  method === 'GET' || method === 'HEAD' || method === 'OPTIONS';

declare module 'fastify' {
  interface FastifyRequest {
    /** What the request's statements did; undefined where it cannot change anything. */
    effects: Effects | undefined;
  }
}
