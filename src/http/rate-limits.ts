// Limits on how often: per address before anybody is authenticated, per subject and team
// afterwards. Counts live in this replica.
import rateLimit from '@fastify/rate-limit';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { AppError } from '../shared/errors.ts';
import type { Caller, TeamRef } from './access.ts';

const windowMs = 60_000;
const cacheEntries = 20_000;

/** Requests a minute; 0 is no limit. */
export interface RateLimits {
  readonly address: number;
  readonly subject: number;
}

/** Counts one request of a caller, in the team where he has been allowed; throws rateLimited. */
export type CountRequest = (
  request: FastifyRequest,
  caller: Caller,
  team: TeamRef | undefined,
) => Promise<void>;

type Check = (
  request: FastifyRequest,
) => Promise<{ isAllowed: boolean; isExceeded?: boolean; ttlInSeconds?: number }>;

/**
 * Adds the limit per address as a hook (so it comes before the hooks that are added later) and
 * returns the other one.
 */
export async function addRateLimits(
  app: FastifyInstance,
  limits: RateLimits,
): Promise<CountRequest> {
  await app.register(rateLimit, { global: false });
  const common = { timeWindow: windowMs, cache: cacheEntries };
  if (limits.address > 0) {
    // The plugin's own key: the address, of IPv6 the network that one customer is given.
    const check = app.createRateLimit({ ...common, max: limits.address }) as Check;
    app.addHook('onRequest', async (request) => {
      if (request.routeOptions.config.isProbe !== true) await demand(check, request);
    });
  }
  if (limits.subject === 0)
    return async () => {
      /* no limit */
    };
  const keys = new WeakMap<FastifyRequest, string>();
  const check = app.createRateLimit({
    ...common,
    max: limits.subject,
    keyGenerator: (request: FastifyRequest) => keys.get(request) ?? '',
  }) as Check;
  return async (request, caller, team) => {
    keys.set(request, `${caller.subject} ${team?.id ?? ''}`);
    await demand(check, request);
  };
}

async function demand(check: Check, request: FastifyRequest): Promise<void> {
  const { isExceeded, ttlInSeconds } = await check(request);
  if (isExceeded === true)
    throw new AppError('rateLimited', 'Too many requests; wait as Retry-After says.', {
      retryAfterSeconds: Math.max(1, ttlInSeconds ?? 1),
    });
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** A health probe: never limited. */ isProbe?: true;
  }
}
