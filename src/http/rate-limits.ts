// Limits on how often: per address before anybody is authenticated, per subject and team
// afterwards. Counts live in this replica.
import rateLimit from '@fastify/rate-limit';
import type { FastifyInstance } from 'fastify';
import { AppError } from '../shared/errors.ts';
import type { TeamRef } from '../access/decide.ts';

const windowMs = 60_000;
const cacheEntries = 20_000;

/** Requests a minute; 0 is no limit. */
export interface RateLimits {
  readonly address: number;
  readonly subject: number;
}

/** Counts one request from an address; the refusal where it is one too many. */
export type CountAddress = (address: string | null) => Promise<AppError | undefined>;

/** Counts one request of a subject, in the team where it has been allowed; throws rateLimited. */
export type CountRequest = (sub: string, team: TeamRef | undefined) => Promise<void>;

/** What the plugin reads of a request for its key, and nothing else. */
interface Counted {
  readonly ip: string;
  readonly routeOptions: { readonly config: object };
}
type Check = (
  counted: Counted,
) => Promise<{ isAllowed: boolean; isExceeded?: boolean; ttlInSeconds?: number }>;

/** The limit per address; undefined where there is none. */
export async function addAddressLimit(
  app: FastifyInstance,
  max: number,
): Promise<CountAddress | undefined> {
  if (max === 0) return undefined;
  // The plugin's own key: the address, of IPv6 the network that one customer is given.
  const check = await newCheck(app, { max });
  return async (address) => refusalFor(check, address ?? '');
}

/** The limit per subject and team. */
export async function addSubjectLimit(app: FastifyInstance, max: number): Promise<CountRequest> {
  if (max === 0)
    return async () => {
      /* no limit */
    };
  const check = await newCheck(app, { max, keyGenerator: ({ ip }: Counted) => ip });
  return async (sub, team) => {
    const refusal = await refusalFor(check, `${sub} ${team?.id ?? ''}`);
    if (refusal !== undefined) throw refusal;
  };
}

async function newCheck(app: FastifyInstance, options: object): Promise<Check> {
  if (!app.hasDecorator('createRateLimit')) await app.register(rateLimit, { global: false });
  const common = { timeWindow: windowMs, cache: cacheEntries };
  return app.createRateLimit({ ...common, ...options }) as unknown as Check;
}

async function refusalFor(check: Check, key: string): Promise<AppError | undefined> {
  const { isExceeded, ttlInSeconds } = await check({ ip: key, routeOptions: { config: {} } });
  return isExceeded === true
    ? new AppError('rateLimited', 'Too many requests; wait as Retry-After says.', {
        retryAfterSeconds: Math.max(1, ttlInSeconds ?? 1),
      })
    : undefined;
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** A health probe: never limited. */ isProbe?: true;
  }
}
