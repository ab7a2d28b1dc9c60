// Limits on how often: per address before anybody is authenticated, per subject and team afterwards. Counts live in this replica.
import rateLimit from '@fastify/rate-limit';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { AppError } from '../shared/errors.ts';

const windowMs = 60_000;
const cacheEntries = 20_000;

/** Requests a minute; 0 is no limit. */
export interface RateLimits { readonly address: number; readonly subject: number }

type Check = (request: FastifyRequest) => Promise<{ isAllowed: boolean; isExceeded?: boolean; ttlInSeconds?: number }>;

/** The two checks, in the order in which the hooks run them: register one before and one after authentication. */
export async function makeRateLimits(app: FastifyInstance, limits: RateLimits): Promise<{ beforeAuthentication: () => void; afterAuthentication: () => void }> {
  await app.register(rateLimit, { global: false, cache: cacheEntries });
  const add = (max: number, keyGenerator: (request: FastifyRequest) => string, applies: (request: FastifyRequest) => boolean): void => {
    if (max === 0) return;
    const check = app.createRateLimit({ max, timeWindow: windowMs, keyGenerator }) as Check;
    app.addHook('onRequest', async (request) => {
      if (!applies(request)) return;
      const { isExceeded, ttlInSeconds } = await check(request);
      if (isExceeded === true) throw new AppError('rateLimited', 'Too many requests; wait as Retry-After says.', { retryAfterSeconds: Math.max(1, ttlInSeconds ?? 1) });
    });
  };
  return {
    beforeAuthentication: () => { add(limits.address, (request) => `address ${request.ip}`, (request) => request.routeOptions.config.isProbe !== true); },
    afterAuthentication: () => {
      add(limits.subject, (request) => `subject ${request.caller?.sub ?? ''} ${request.located?.team.slug ?? ''}`, (request) => request.caller !== undefined);
    },
  };
}

declare module 'fastify' {
  interface FastifyContextConfig { /** A health probe: never limited. */ isProbe?: true }
}
