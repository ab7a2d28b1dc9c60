// Keeps what the statements of a request did, where the request may change something: so that a
// failure after the change is not taken for one before it, and no answer reports an earlier change
// that may still be lost.
import { createHash } from 'node:crypto';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { Effects } from '../db/effects.ts';
import type { Standby, Timeline } from '../db/standby.ts';
import { Recent } from '../shared/recent.ts';
import { problemInstead } from './problem.ts';

/** So many answers to repetitions are remembered as confirmed. */
const confirmedMax = 10_000;

/**
 * Keeps the effects of requests that may change something. What they are answered waits until the
 * synchronous standby has what it rests on; where it does not come to that, the answer is
 * `commitUnknown`.
 */
export function registerDurability(
  app: FastifyInstance,
  standby: Pick<Standby, 'timeline' | 'confirm'>,
): void {
  const confirmed = new Recent<string, true>(confirmedMax);
  app.decorateRequest('effects', undefined);
  app.decorateRequest('timeline', undefined);
  app.addHook('onRequest', (request, _reply, done) => {
    if (isSafe(request)) {
      done();
      return;
    }
    request.timeline = standby.timeline;
    request.effects = new Effects({ timeline: request.timeline });
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
  app.addHook('onSend', (request, reply, payload, done) => {
    const { effects } = request;
    if (effects?.isUncovered !== true || !reportsSomething(request, reply)) {
      done();
      return;
    }
    const answer = repeatedAnswer(request, reply, payload);
    if (answer !== undefined && confirmed.get(answer) !== undefined) {
      done(null, payload);
      return;
    }
    standby.confirm(request.timeline).then(
      () => {
        if (answer !== undefined) confirmed.set(answer, true);
        done(null, payload);
      },
      (error: unknown) => done(null, problemInstead(error, request, reply)),
    );
  });
}

/**
 * The answer to a repetition, by its hash: word for word the same one, of the same revision, rests
 * on the same writes, and needs no second confirmation. Undefined for every other answer.
 */
function repeatedAnswer(
  { isRepeated, sub, url }: FastifyRequest,
  reply: FastifyReply,
  payload: unknown,
): string | undefined {
  const etag = reply.getHeader('etag');
  if (!isRepeated || reply.statusCode >= 300 || typeof payload !== 'string' || etag === undefined)
    return undefined;
  return createHash('sha256')
    .update(JSON.stringify([sub, url, reply.statusCode, etag, payload]))
    .digest('base64');
}

/**
 * Whether the answer tells a caller who is known what was stored before: one that the operation
 * gave, or a refusal by rights. What is wrong with the request itself, a failure, and that somebody
 * asks too often say nothing of it.
 */
function reportsSomething(
  { caller, effects }: FastifyRequest,
  { statusCode }: FastifyReply,
): boolean {
  if (caller === undefined || statusCode >= 500 || statusCode === 429) return false;
  return effects?.isOperating === true || statusCode === 403 || statusCode === 404;
}

/** Whether the request cannot change anything: what is said of it says nothing of a change. */
const isSafe = ({ method }: FastifyRequest): boolean =>
  method === 'GET' || method === 'HEAD' || method === 'OPTIONS';

declare module 'fastify' {
  interface FastifyRequest {
    /** What the request's statements did; undefined where it cannot change anything. */
    effects: Effects | undefined;
    /** The primary's timeline when the request began. */
    timeline: Timeline;
  }
}
