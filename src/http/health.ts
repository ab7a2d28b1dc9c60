// Liveness and readiness, for orchestrators. They say which part is not ready and nothing about why.
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import { AppError } from '../shared/errors.ts';
import { addOperation } from './operation.ts';

/** One part that has to be ready; false or a throw means that it is not. */
export interface ReadinessCheck { readonly name: 'database' | 'schema' | 'rootKeys'; readonly check: () => Promise<boolean> }

const checkTimeoutMs = 2_000;
const health = z.strictObject({ status: z.enum(['ok']) }).meta({ id: 'Health', examples: [{ status: 'ok' }] });
const partState = z.enum(['ok', 'failing']);
const readiness = z.strictObject({
  status: z.enum(['ok']), database: partState, schema: partState, rootKeys: partState,
}).meta({ id: 'Readiness', examples: [{ status: 'ok', database: 'ok', schema: 'ok', rootKeys: 'ok' }] });

/** Adds /healthz and /readyz. */
export function registerHealth(app: FastifyInstance, { checks, isStopping }: { checks: readonly ReadinessCheck[]; isStopping: () => boolean }): void {
  addOperation(app, {
    method: 'GET', url: '/healthz', access: 'public', operationId: 'getHealth', tag: 'service', summary: 'Say whether the process runs', isProbe: true,
    success: { status: 200, schema: health, description: 'It runs.' },
    handler: async ({ reply }) => { void reply.header('Cache-Control', 'no-store'); return { status: 'ok' as const }; },
  });
  addOperation(app, {
    method: 'GET', url: '/readyz', access: 'public', operationId: 'getReadiness', tag: 'service', summary: 'Say whether requests can be served', isProbe: true,
    description: 'The database answers, its schema is the one that this version knows, and every root key opens its canary.',
    success: { status: 200, schema: readiness, description: 'Ready.' }, problems: ['notReady'],
    handler: async ({ reply }) => {
      void reply.header('Cache-Control', 'no-store');
      if (isStopping()) throw notReady({ stopping: 1 });
      const failing: Record<string, number> = {};
      for (const { name, check } of checks) if (!await passes(check)) failing[name] = 1;
      if (Object.keys(failing).length > 0) throw notReady(failing);
      return { status: 'ok' as const, database: 'ok' as const, schema: 'ok' as const, rootKeys: 'ok' as const };
    },
  });
}

const notReady = (failing: Readonly<Record<string, number>>): AppError =>
  new AppError('notReady', `Not ready: ${Object.keys(failing).join(', ')}.`, { retryAfterSeconds: 1 });

async function passes(check: () => Promise<boolean>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const tooSlow = new Promise<boolean>((resolve) => { timer = setTimeout(() => { resolve(false); }, checkTimeoutMs); });
  try {
    return await Promise.race([check(), tooSlow]);
  } catch {
    return false;   // the answer is "not ready"; what failed is logged where requests meet it
  } finally {
    clearTimeout(timer);
  }
}
