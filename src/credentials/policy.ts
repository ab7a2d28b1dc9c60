// Where a credential's secrets may go, and how. A policy is part of a version: it is bound into the
// token as it was written, so members that are not set are absent, not null.
import type { Delivery } from '../db/tables.ts';
import { invalid } from '../shared/errors.ts';
import type { JsonObject } from '../shared/json.ts';
import type { CredentialType } from './types/registry.ts';

export type { Delivery } from '../db/tables.ts';
export const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS'] as const;
export type Method = (typeof methods)[number];

/** Bounds of what goes through the broker; a member that is not set has its default. */
export interface Limits {
  /** Calls at the same time, on one replica. */
  readonly concurrency?: number | undefined;
  /** Calls a minute, on one replica. */
  readonly requestsPerMinute?: number | undefined;
  readonly requestBytes?: number | undefined;
  readonly responseBytes?: number | undefined;
  /** How long the upstream may be silent. */
  readonly idleSeconds?: number | undefined;
}
/** What counts where a policy says nothing. */
export const limitDefaults = {
  concurrency: 32,
  requestsPerMinute: 1_200,
  requestBytes: 32 * 1024 * 1024,
  responseBytes: 1024 * 1024 * 1024,
  idleSeconds: 120,
} as const satisfies Required<Limits>;
const limitNames = Object.keys(limitDefaults) as (keyof typeof limitDefaults)[];

/** `methods` and `pathPrefixes` bind the broker; without them every method and every path. */
export interface Policy {
  readonly delivery: readonly Delivery[];
  /** Exact names, or `*.` and a name for exactly one label before it. */
  readonly allowedHosts: readonly string[];
  readonly methods?: readonly Method[] | undefined;
  readonly pathPrefixes?: readonly string[] | undefined;
  readonly limits?: Limits | undefined;
}

/** The policy of a credential that is stored without one. */
export const policyOf = (delivery: readonly Delivery[]): Policy => ({
  delivery: [...delivery],
  allowedHosts: [],
});

/** The policy as JSON: what is stored, bound and answered. Only what is set stands in it. */
export function policyJson({
  delivery,
  allowedHosts,
  methods,
  pathPrefixes,
  limits,
}: Policy): JsonObject {
  return {
    delivery: [...delivery],
    allowedHosts: [...allowedHosts],
    ...(methods === undefined ? {} : { methods: [...methods] }),
    ...(pathPrefixes === undefined ? {} : { pathPrefixes: [...pathPrefixes] }),
    ...(limits === undefined
      ? {}
      : {
          limits: Object.fromEntries(
            limitNames.flatMap((name) =>
              limits[name] === undefined ? [] : [[name, limits[name]]],
            ),
          ),
        }),
  };
}

/**
 * Throws invalidRequest for a policy that no credential of the type can keep: through the broker
 * goes only what it can put into a request.
 */
export function checkPolicy(type: CredentialType, { delivery }: Policy): void {
  if (type.broker === undefined && delivery.includes('broker'))
    throw invalid(`/policy/delivery/${delivery.indexOf('broker')}`, 'notForType');
}

/**
 * Whether the policy lets a secret go anywhere or any way that it could not go before. Narrowing,
 * and the same said again, is not wider.
 */
export function isWiderPolicy(before: Policy, after: Policy): boolean {
  return (
    adds(after.delivery, before.delivery) ||
    adds(after.allowedHosts, before.allowedHosts) ||
    (before.methods !== undefined && adds(after.methods ?? methods, before.methods)) ||
    (before.pathPrefixes !== undefined &&
      !(after.pathPrefixes ?? ['/']).every((path) =>
        before.pathPrefixes?.some((prefix) => isUnder(path, prefix)),
      )) ||
    limitNames.some(
      (name) =>
        (after.limits?.[name] ?? limitDefaults[name]) >
        (before.limits?.[name] ?? limitDefaults[name]),
    )
  );
}

/** Whether the path is the prefix or below it, on the border of a segment. */
export function isUnder(path: string, prefix: string): boolean {
  return path === prefix || path.startsWith(prefix.endsWith('/') ? prefix : `${prefix}/`);
}

const adds = (more: readonly string[], than: readonly string[]): boolean =>
  more.some((each) => !than.includes(each));
