// Liveness and readiness, for orchestrators. They say which part is not ready and nothing about
// why.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { AppError } from '../shared/errors.ts';
import { addOperation } from './operation.ts';

/** One part that has to be ready; false or a throw means that it is not. */
export interface ReadinessCheck {
  readonly name: 'database' | 'schema' | 'rootKeys' | 'clock';
  readonly check: () => Promise<boolean>;
}

const checkTimeoutMs = 2_000;
const rememberedMs = 1_000;
const health = z
  .strictObject({ status: z.enum(['ok']) })
  .meta({ id: 'Health', examples: [{ status: 'ok' }] });
const partState = z.enum(['ok', 'failing']);
const readiness = z
  .strictObject({
    status: z.enum(['ok']),
    database: partState,
    schema: partState,
    rootKeys: partState,
    clock: partState,
  })
  .meta({
    id: 'Readiness',
    examples: [{ status: 'ok', database: 'ok', schema: 'ok', rootKeys: 'ok', clock: 'ok' }],
  });

/** Adds /healthz and /readyz. */
export function registerHealth(
  app: FastifyInstance,
  {
    checks,
    isStopping,
    now,
  }: { checks: readonly ReadinessCheck[]; isStopping: () => boolean; now: () => number },
): void {
  const questions = checks.map(({ check }) => oneAtATime(check));
  const failing = remembered(async () => {
    const passed = await Promise.all(questions.map(passes));
    return checks.flatMap(({ name }, index) => (passed[index] === true ? [] : [name]));
  }, now);
  addOperation(app, {
    method: 'GET',
    url: '/healthz',
    access: 'public',
    operationId: 'getHealth',
    tag: 'service',
    summary: 'Say whether the process runs',
    isProbe: true,
    success: { status: 200, schema: health, description: 'It runs.' },
    handler: async () => ({ status: 'ok' as const }),
  });
  addOperation(app, {
    method: 'GET',
    url: '/readyz',
    access: 'public',
    operationId: 'getReadiness',
    tag: 'service',
    summary: 'Say whether requests can be served',
    isProbe: true,
    description:
      'The database answers, its schema is the one that this version knows, every root key ' +
      "opens its canary, and the clock differs from the database's by no more than 30 s.",
    success: { status: 200, schema: readiness, description: 'Ready.' },
    problems: ['notReady'],
    handler: async () => {
      const parts = isStopping() ? ['stopping'] : await failing();
      if (parts.length > 0)
        throw new AppError('notReady', `Not ready: ${parts.join(', ')}.`, { retryAfterSeconds: 1 });
      return {
        status: 'ok' as const,
        database: 'ok' as const,
        schema: 'ok' as const,
        rootKeys: 'ok' as const,
        clock: 'ok' as const,
      };
    },
  });
}

/**
 * Anybody may ask as often as they like: the database is asked once a second at most, and by one
 * question at a time.
 */
function remembered<T>(question: () => Promise<T>, now: () => number): () => Promise<T> {
  let answer: Promise<T> | undefined;
  let isRunning = false;
  let askedAt = 0;
  return () => {
    if (answer === undefined || (!isRunning && Math.abs(askedAt - now()) > rememberedMs)) {
      isRunning = true;
      answer = question().finally(() => {
        isRunning = false;
        askedAt = now();
      });
    }
    return answer;
  };
}

/** A question that has not been answered yet is not put again: what it asks is slow enough. */
function oneAtATime<T>(question: () => Promise<T>): () => Promise<T> {
  let asked: Promise<T> | undefined;
  return () =>
    (asked ??= question().finally(() => {
      asked = undefined;
    }));
}

async function passes(check: () => Promise<boolean>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const tooSlow = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => {
      resolve(false);
    }, checkTimeoutMs);
  });
  try {
    return await Promise.race([check(), tooSlow]);
  } catch {
    return false; // the answer is "not ready"; what failed is logged where requests meet it
  } finally {
    clearTimeout(timer);
  }
}
